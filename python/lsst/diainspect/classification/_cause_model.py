"""The calibrated model of causes: boosted trees for each label, whose log odds are brought to probabilities."""

from __future__ import annotations

__all__ = ["CauseModel", "LabelModel", "stored_model"]

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from scipy.special import expit

from ._evidence import Evidence
from ._features import FEATURES, evaluate_features, is_approximate
from ._trees import BoostedTrees

_STORED = "cause_model.npz"

_CHUNK = 4096
"""Sources evaluated at a time, which keeps memory flat."""


@dataclass(frozen=True)
class LabelModel:
    """The model of one label: probability = logistic(slope * trees + offset), after Platt (1999).

    Sources judged approximately, without filters or maps, have a calibration of their own.

    Parameters
    ----------
    features : `tuple` [`str`]
        Features, of `FEATURES`.
    trees : `BoostedTrees`
        Trees whose sum is a log odds.
    calibration, approximate_calibration : `tuple` [`float`, `float`]
        Slope and offset, fitted on detectors that the trees have not seen.
    """

    features: tuple[str, ...]
    trees: BoostedTrees
    calibration: tuple[float, float] = (1.0, 0.0)
    approximate_calibration: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class CauseModel:
    """Models of the labels, and how they were made.

    Parameters
    ----------
    labels : mapping [`str`, `LabelModel`]
        Models by label.
    provenance : `dict`
        Seeds, numbers of sources and versions; JSON types only.
    """

    labels: Mapping[str, LabelModel]
    provenance: Mapping[str, Any]

    def scores(self, evidence: Evidence) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Evaluate every label.

        Parameters
        ----------
        evidence : `Evidence`
            Evidence about N sources.

        Returns
        -------
        scores : `dict` [`str`, `numpy.ndarray`]
            Probabilities (N,) by label.
        contributions : `dict` [`str`, `numpy.ndarray`]
            Contributions (N, n_features) of the label's features to its log odds.
        """
        values = evaluate_features(evidence)
        approximate = is_approximate(evidence)
        index = {name: j for j, name in enumerate(FEATURES)}
        scores: dict[str, np.ndarray] = {}
        contributions: dict[str, np.ndarray] = {}
        for name, model in self.labels.items():
            own = values[:, [index[feature] for feature in model.features]]
            parts = [
                model.trees.evaluate(own[start : start + _CHUNK]) for start in range(0, len(own), _CHUNK)
            ]
            total = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
            slope, offset = np.where(approximate[:, None], model.approximate_calibration, model.calibration).T
            scores[name] = expit(slope * total + offset)
            contributions[name] = (
                np.concatenate([part[1] for part in parts]) if parts else np.zeros((0, own.shape[1]))
            )
        return scores, contributions

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an npz file without pickles."""
        arrays: dict[str, np.ndarray] = {}
        head: dict[str, Any] = {"provenance": dict(self.provenance), "labels": {}}
        for name, model in self.labels.items():
            head["labels"][name] = {
                "features": list(model.features),
                "calibration": model.calibration,
                "approximateCalibration": model.approximate_calibration,
            }
            arrays |= model.trees.to_arrays(name)
        np.savez_compressed(path, allow_pickle=False, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def read(cls, path: str | os.PathLike[str] | Any) -> CauseModel:
        """Read a model from a path or an open binary file.

        Raises
        ------
        ValueError
            If it was trained with another version of the package, on features that there are not.
        """
        with np.load(path, allow_pickle=False) as arrays:
            head = json.loads(str(arrays["head"]))
            asked = {feature for entry in head["labels"].values() for feature in entry["features"]}
            unknown = sorted(asked - FEATURES.keys())
            if unknown or not all("approximateCalibration" in entry for entry in head["labels"].values()):
                raise ValueError(
                    f"The cause model {getattr(path, 'name', path)} was trained with another version of the package"
                    + (f" (it asks for the features {unknown}, which there are not)" if unknown else "")
                    + ": train it again."
                )
            labels = {
                name: LabelModel(
                    tuple(entry["features"]),
                    BoostedTrees.from_arrays(arrays, name),
                    tuple(entry["calibration"]),
                    tuple(entry["approximateCalibration"]),
                )
                for name, entry in head["labels"].items()
            }
        return cls(labels, head["provenance"])


@functools.cache
def stored_model() -> CauseModel:
    """Return the model that comes with the package."""
    with resources.files(__package__).joinpath(_STORED).open("rb") as file:
        return CauseModel.read(file)
