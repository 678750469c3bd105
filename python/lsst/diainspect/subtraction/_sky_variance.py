"""Sky variance of an image over the detector: medians of the variance plane, interpolated."""

from __future__ import annotations

__all__ = ["SkyVariance"]

import numpy as np
import scipy.interpolate


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
        overall = float(np.median(variance[good]))
        medians = np.full((len(edges[0]) - 1, len(edges[1]) - 1), overall)
        for j, (bottom, top) in enumerate(zip(edges[0][:-1], edges[0][1:], strict=True)):
            for i, (left, right) in enumerate(zip(edges[1][:-1], edges[1][1:], strict=True)):
                cell_good = good[bottom:top, left:right]
                if cell_good.mean() > 0.05:
                    medians[j, i] = np.median(variance[bottom:top, left:right][cell_good])
        self._centres = [0.5 * (edge[:-1] + edge[1:]) - 0.5 for edge in edges]
        self._medians = medians

    def at(self, x: float, y: float) -> float:
        """Return the variance at a position in array coordinates, interpolated between cell centres."""
        point = [
            np.clip(value, centres[0], centres[-1])
            for value, centres in zip((y, x), self._centres, strict=True)
        ]
        centres, medians = list(self._centres), self._medians
        for axis in (0, 1):
            if len(centres[axis]) == 1:
                centres[axis] = np.array([centres[axis][0], centres[axis][0] + 1.0])
                medians = np.repeat(medians, 2, axis=axis)
        return float(scipy.interpolate.interpn(centres, medians, point)[0])
