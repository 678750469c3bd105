"""Training: boosted trees by scikit-learn, written as plain arrays and calibrated on held-out detectors."""

from __future__ import annotations

__all__ = ["train"]

from collections.abc import Mapping

import numpy as np
import sklearn
from astropy.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from lsst.diainspect.classification import (
    FEATURES,
    REAL_FEATURES,
    BoostedTrees,
    CauseModel,
    Evidence,
    LabelModel,
    evaluate_features,
    is_approximate,
)

from ._labels import LABELS, label_truth

_N_FOLDS = 5
_MONOTONIC = {"real": {"givenSnr": 1, "givenOverBudget": 1}}
"""More flux given the artefacts never makes a change less likely."""


def train(table: Table, seed: int) -> CauseModel:
    """Train a model of every label.

    Parameters
    ----------
    table : `astropy.table.Table`
        Sources with evidence and truth.
    seed : `int`
        Seed of the training.
    """
    values = evaluate_features(Evidence(table))
    told = {name for name, column in zip(FEATURES, values.T, strict=True) if np.isfinite(column).any()}
    group = np.asarray(table["detectorNumber"])
    approximate = is_approximate(Evidence(table))
    labels = {}
    for label, (truth, known) in label_truth(table).items():
        # A feature that is never known in the training set cannot be learned from.
        names = tuple(name for name in (REAL_FEATURES if label == "real" else FEATURES) if name in told)
        own = values[:, [list(FEATURES).index(name) for name in names]]
        labels[label] = _train_label(
            own[known],
            truth[known],
            group[known],
            approximate[known],
            names,
            _MONOTONIC.get(label, {}),
            seed,
        )
    provenance = {
        "seed": seed,
        "nDetectors": len(np.unique(group)),
        "nSources": len(table),
        "nTrue": {label: int(truth.sum()) for label, (truth, _) in label_truth(table).items()},
        "scikitLearn": sklearn.__version__,
    }
    assert set(labels) == set(LABELS)
    return CauseModel(labels, provenance)


def _train_label(
    values: np.ndarray,
    truth: np.ndarray,
    group: np.ndarray,
    approximate: np.ndarray,
    names: tuple[str, ...],
    monotonic: Mapping[str, int],
    seed: int,
) -> LabelModel:
    """Train trees on all detectors, and calibrate what trees trained on the others say of each detector."""

    def fitted(rows: np.ndarray) -> HistGradientBoostingClassifier:
        trees = HistGradientBoostingClassifier(
            max_iter=150,
            learning_rate=0.1,
            max_leaf_nodes=8,
            min_samples_leaf=15,
            l2_regularization=2.0,
            max_bins=64,
            early_stopping=False,
            monotonic_cst=[monotonic.get(name, 0) for name in names],
            random_state=seed,
        )
        return trees.fit(values[rows], truth[rows])

    held_out = np.zeros(len(truth))
    for rows, others in GroupKFold(_N_FOLDS).split(values, truth, group):
        held_out[others] = fitted(rows).decision_function(values[others])

    def calibration(rows: np.ndarray) -> tuple[float, float]:
        platt = LogisticRegression(C=1e4).fit(held_out[rows, None], truth[rows])
        return float(platt.coef_[0, 0]), float(platt.intercept_[0])

    return LabelModel(
        names,
        _as_arrays(fitted(np.arange(len(truth)))),
        calibration(~approximate),
        calibration(approximate),
    )


def _as_arrays(classifier: HistGradientBoostingClassifier) -> BoostedTrees:
    """Take the trees out of a classifier."""
    trees = [predictors[0].nodes for predictors in classifier._predictors]
    first = np.concatenate([[0], np.cumsum([len(nodes) for nodes in trees])])[:-1]
    nodes = np.concatenate(trees)
    shift = np.repeat(first, [len(tree) for tree in trees])
    leaf = nodes["is_leaf"].astype(bool)
    return BoostedTrees(
        baseline=float(np.ravel(classifier._baseline_prediction)[0]),
        roots=first,
        feature=np.where(leaf, -1, nodes["feature_idx"]),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        nan_left=nodes["missing_go_to_left"].astype(bool),
        left=np.where(leaf, -1, nodes["left"].astype(int) + shift),
        right=np.where(leaf, -1, nodes["right"].astype(int) + shift),
        value=nodes["value"],
    )
