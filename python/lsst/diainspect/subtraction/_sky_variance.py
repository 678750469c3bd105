"""Sky variance of an image over the detector: medians of the variance plane, interpolated."""

from __future__ import annotations

__all__ = ["SkyVariance"]

import numpy as np

from ..quantiles import median

_STRIDE = 3
"""Of the pixels of a cell one in so many rows and columns is looked at: the median is good to a per mille still."""


class SkyVariance:
    """Local median of a variance plane.

    The filters of a subtraction need the variance of blank sky; the median of a cell is that as long as sources
    cover less than half of it.

    Parameters
    ----------
    variance : `numpy.ndarray`, (height, width)
        Variance plane.
    good : `numpy.ndarray`, (height, width), bool
        Pixels to use; a cell without any takes the median of the image.
    cell_size : `int`
        Largest side of the cells [pixel].
    """

    def __init__(self, variance: np.ndarray, good: np.ndarray, cell_size: int) -> None:
        edges = [
            np.linspace(0, length, max(1, -(-length // cell_size)) + 1).astype(int)
            for length in variance.shape
        ]
        variance, good = variance[::_STRIDE, ::_STRIDE], good[::_STRIDE, ::_STRIDE]
        sampled = [edge // _STRIDE for edge in edges]
        medians = np.full((len(edges[0]) - 1, len(edges[1]) - 1), np.nan)
        for j, (bottom, top) in enumerate(zip(sampled[0][:-1], sampled[0][1:], strict=True)):
            for i, (left, right) in enumerate(zip(sampled[1][:-1], sampled[1][1:], strict=True)):
                cell_good = good[bottom:top, left:right]
                if cell_good.mean() > 0.05:
                    medians[j, i] = median(variance[bottom:top, left:right][cell_good])
        unknown = np.isnan(medians)
        if unknown.any():
            medians[unknown] = median(variance[good])
        self._centres = [0.5 * (edge[:-1] + edge[1:]) - 0.5 for edge in edges]
        self._medians = medians

    def at(self, x: float, y: float) -> float:
        """Return the variance at a position in array coordinates, interpolated between cell centres."""
        (j, v), (i, u) = (
            self._position(value, centres) for value, centres in zip((y, x), self._centres, strict=True)
        )
        medians = self._medians
        right, above = min(i + 1, medians.shape[1] - 1), min(j + 1, medians.shape[0] - 1)
        lower = (1.0 - u) * medians[j, i] + u * medians[j, right]
        upper = (1.0 - u) * medians[above, i] + u * medians[above, right]
        return float((1.0 - v) * lower + v * upper)

    @staticmethod
    def _position(value: float, centres: np.ndarray) -> tuple[int, float]:
        """Return the last centre before a position and the fraction of the way to the next."""
        if len(centres) == 1:
            return 0, 0.0
        place = (value - centres[0]) / (centres[-1] - centres[0]) * (len(centres) - 1)
        place = min(max(place, 0.0), len(centres) - 1.0)
        first = min(int(place), len(centres) - 2)
        return first, place - first
