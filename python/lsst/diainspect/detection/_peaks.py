"""Peaks of a score image, of both signs, with sub-pixel positions."""

from __future__ import annotations

__all__ = ["Peaks", "find_peaks"]

from dataclasses import dataclass

import numpy as np
import scipy.ndimage


@dataclass(frozen=True)
class Peaks:
    """Peaks in array coordinates, brightest first; every array has shape (N,).

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Sub-pixel positions [pixel].
    score : `numpy.ndarray`
        Signed score at the peak pixel.
    """

    x: np.ndarray
    y: np.ndarray
    score: np.ndarray


def find_peaks(score: np.ndarray, valid: np.ndarray, threshold: float, separation: float) -> Peaks:
    """Find the local extrema of a score image.

    A peak is the extreme of its sign within a disk; its sub-pixel position is the vertex of the parabola through
    the three pixels of each axis.

    Parameters
    ----------
    score : `numpy.ndarray`, (height, width)
        Detection statistic in units of sigma.
    valid : `numpy.ndarray`, (height, width), bool
        Pixels in which a peak may lie.
    threshold : `float`
        Least absolute score.
    separation : `float`
        Radius of the disk [pixel].

    Returns
    -------
    peaks : `Peaks`
        Peaks of both signs.
    """
    reach = int(np.ceil(separation))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = x**2 + y**2 <= separation**2
    found_y, found_x = [], []
    for sign in (1.0, -1.0):
        signed = np.where(valid, sign * score, -np.inf)
        above = signed >= threshold
        if not above.any():
            continue
        # The filter need only run where something is above the threshold.
        rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        maximum = scipy.ndimage.maximum_filter(signed[box], footprint=disk, mode="constant", cval=-np.inf)
        peak_y, peak_x = np.nonzero(above[box] & (signed[box] == maximum))
        found_y.append(peak_y + rows[0])
        found_x.append(peak_x + columns[0])
    if not found_x:
        empty = np.zeros(0)
        return Peaks(empty, empty, empty)
    peak_x, peak_y = np.concatenate(found_x), np.concatenate(found_y)
    order = np.argsort(-np.abs(score[peak_y, peak_x]), kind="stable")
    peak_x, peak_y = peak_x[order], peak_y[order]
    return Peaks(
        x=peak_x + _vertex(score, peak_y, peak_x, 0, 1),
        y=peak_y + _vertex(score, peak_y, peak_x, 1, 0),
        score=score[peak_y, peak_x],
    )


def _vertex(score: np.ndarray, y: np.ndarray, x: np.ndarray, step_y: int, step_x: int) -> np.ndarray:
    """Return the offset of the vertex of the parabola through each peak and its two neighbours."""
    height, width = score.shape
    before = score[np.clip(y - step_y, 0, height - 1), np.clip(x - step_x, 0, width - 1)]
    after = score[np.clip(y + step_y, 0, height - 1), np.clip(x + step_x, 0, width - 1)]
    curvature = before + after - 2.0 * score[y, x]
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = 0.5 * (before - after) / curvature
    return np.where(np.isfinite(offset), np.clip(offset, -0.5, 0.5), 0.0)
