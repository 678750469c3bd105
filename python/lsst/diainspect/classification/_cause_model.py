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
from ._features import FEATURES, evaluate_features
from ._trees import BoostedTrees

_STORED = "cause_model.npz"

_CHUNK = 4096
"""Sources evaluated at a time, which keeps memory flat."""


@dataclass(frozen=True)
class LabelModel:
    """The model of one label: probability = logistic(slope * trees + offset), after Platt (1999).

    Parameters
    ----------
    features : `tuple` [`str`]
        Features, of `FEATURES`.
    trees : `BoostedTrees`
        Trees whose sum is a log odds.
    slope, offset : `float`
        Calibration, fitted on detectors that the trees have not seen.
    """

    features: tuple[str, ...]
    trees: BoostedTrees
    slope: float = 1.0
    offset: float = 0.0


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
        index = {name: j for j, name in enumerate(FEATURES)}
        scores: dict[str, np.ndarray] = {}
        contributions: dict[str, np.ndarray] = {}
        for name, model in self.labels.items():
            own = values[:, [index[feature] for feature in model.features]]
            parts = [
                model.trees.evaluate(own[start : start + _CHUNK]) for start in range(0, len(own), _CHUNK)
            ]
            total = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
            scores[name] = expit(model.slope * total + model.offset)
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
                "slope": model.slope,
                "offset": model.offset,
            }
            arrays |= model.trees.to_arrays(name)
        np.savez_compressed(path, allow_pickle=False, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def read(cls, path: str | os.PathLike[str] | Any) -> CauseModel:
        """Read a model from a path or an open binary file.

        Raises
        ------
        ValueError
            If it asks for features that there are not.
        """
        with np.load(path, allow_pickle=False) as arrays:
            head = json.loads(str(arrays["head"]))
            labels = {
                name: LabelModel(
                    tuple(entry["features"]),
                    BoostedTrees.from_arrays(arrays, name),
                    entry["slope"],
                    entry["offset"],
                )
                for name, entry in head["labels"].items()
            }
        unknown = {feature for model in labels.values() for feature in model.features} - FEATURES.keys()
        if unknown:
            raise ValueError(
                f"The cause model asks for the features {sorted(unknown)}, which there are not: it was trained with "
                f"another version of the package; train it again."
            )
        return cls(labels, head["provenance"])


@functools.cache
def stored_model() -> CauseModel:
    """Return the model that comes with the package."""
    with resources.files(__package__).joinpath(_STORED).open("rb") as file:
        return CauseModel.read(file)
