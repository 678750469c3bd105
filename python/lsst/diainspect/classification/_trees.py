"""Gradient-boosted decision trees in plain numpy: evaluated, not trained."""

from __future__ import annotations

__all__ = ["BoostedTrees"]

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_LEAF = -1


@dataclass(frozen=True)
class BoostedTrees:
    """A sum of regression trees, whose nodes are stored one tree after the other.

    A source goes to the left child where its feature is at most the threshold; where the feature is NaN, as the node
    says. Every node has a value, so that the step from a node to its child is what the feature contributes.

    Parameters
    ----------
    baseline : `float`
        Value before the first tree.
    roots : `numpy.ndarray`, (n_trees,), int
        Index of the first node of each tree.
    feature : `numpy.ndarray`, (n_nodes,), int
        Index of the feature that a node asks for; -1 in a leaf.
    threshold : `numpy.ndarray`, (n_nodes,)
        Thresholds.
    nan_left : `numpy.ndarray`, (n_nodes,), bool
        Whether NaN goes to the left.
    left, right : `numpy.ndarray`, (n_nodes,), int
        Indices of the children.
    value : `numpy.ndarray`, (n_nodes,)
        Values.
    """

    baseline: float
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    nan_left: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    def evaluate(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum the trees.

        Parameters
        ----------
        features : `numpy.ndarray`, (N, n_features)
            Features; NaN for missing.

        Returns
        -------
        total : `numpy.ndarray`, (N,)
            The sum, in units of log odds.
        contributions : `numpy.ndarray`, (N, n_features)
            What each feature contributes to it beyond what it is on average.
        """
        n, n_features = features.shape
        node = np.broadcast_to(self.roots, (n, len(self.roots))).copy()
        rows = np.broadcast_to(np.arange(n)[:, None], node.shape)
        contributions = np.zeros((n, n_features))
        active = self.feature[node] != _LEAF
        while active.any():
            row, here = rows[active], node[active]
            asked = self.feature[here]
            value = features[row, asked]
            goes_left = np.where(np.isnan(value), self.nan_left[here], value <= self.threshold[here])
            child = np.where(goes_left, self.left[here], self.right[here])
            np.add.at(contributions, (row, asked), self.value[child] - self.value[here])
            node[active] = child
            active[active] = self.feature[child] != _LEAF
        return self.baseline + self.value[node].sum(axis=1), contributions

    def to_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays, named for an npz file."""
        return {
            f"{prefix}.baseline": np.array(self.baseline),
            f"{prefix}.roots": self.roots.astype(np.int32),
            f"{prefix}.feature": self.feature.astype(np.int16),
            f"{prefix}.threshold": self.threshold.astype(np.float64),
            f"{prefix}.nan_left": self.nan_left.astype(bool),
            f"{prefix}.left": self.left.astype(np.int32),
            f"{prefix}.right": self.right.astype(np.int32),
            f"{prefix}.value": self.value.astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], prefix: str) -> BoostedTrees:
        """Make trees from such arrays."""
        names = ("roots", "feature", "threshold", "nan_left", "left", "right", "value")
        return cls(float(arrays[f"{prefix}.baseline"]), *(arrays[f"{prefix}.{name}"] for name in names))
