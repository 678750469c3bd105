"""Peaks of a score image, of both signs, with sub-pixel positions."""

from __future__ import annotations

__all__ = ["Peaks", "find_peaks", "recentre_peaks"]

from dataclasses import dataclass

import numpy as np
import scipy.spatial

_CLEARLY_BRIGHTER = 1.15
"""Ratio of flux by which a pixel must exceed a peak of the score for that to be moved: neighbours of a PSF's centre
differ by a few per cent, the shoulder of a plateau by tens."""


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
    usable = np.where(valid, score, np.nan)
    found = [_extrema(usable, sign, threshold, separation) for sign in (1.0, -1.0)]
    y, x = (np.concatenate(coordinates) for coordinates in zip(*found, strict=True))
    order = np.argsort(-np.abs(score[y, x]), kind="stable")
    y, x = y[order], x[order]
    return Peaks(
        x=x + _vertex(usable, y, x, 0, 1),
        y=y + _vertex(usable, y, x, 1, 0),
        score=score[y, x],
    )


def _extrema(
    score: np.ndarray, sign: float, threshold: float, separation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the pixels of a sign that no pixel within the separation exceeds.

    Few pixels are above a threshold, so each is compared with its own disk, nearest neighbours first, and drops
    out at the first that exceeds it: some hundred times faster than a maximum filter.
    """
    height, width = score.shape
    reach = int(np.ceil(separation))
    steps = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    distance2 = (steps**2).sum(axis=1)
    near = np.flatnonzero((distance2 > 0) & (distance2 <= separation**2))
    y, x = np.nonzero(sign * score >= threshold)
    for step_y, step_x in steps[near[np.argsort(distance2[near], kind="stable")]]:
        other_y, other_x = y + step_y, x + step_x
        inside = (other_y >= 0) & (other_y < height) & (other_x >= 0) & (other_x < width)
        value = sign * score[y, x]
        other = sign * score[np.clip(other_y, 0, height - 1), np.clip(other_x, 0, width - 1)]
        # Of equal pixels, as on a plateau, the first in reading order is the peak.
        is_earlier = step_y < 0 or (step_y == 0 and step_x < 0)
        exceeded = inside & ((other >= value) if is_earlier else (other > value))
        y, x = y[~exceeded], x[~exceeded]
    return y, x


def recentre_peaks(
    peaks: Peaks, flux: np.ndarray, least_score: float, radius: float, merging: float
) -> Peaks:
    """Move bright peaks of a score to the peaks of flux they belong to.

    The error of a score grows with the flux of a static source (registration, flux ratio), so that on a bright
    source the score is flat-topped and its highest pixel is anywhere on the plateau. Bright peaks that end up close
    together are one source.

    Parameters
    ----------
    peaks : `Peaks`
        Peaks of the score.
    flux : `numpy.ndarray`, (height, width)
        Difference smoothed as for detection; NaN where it is not to be trusted.
    least_score : `float`
        Fainter peaks stay where they are.
    radius : `float`
        Distance within which the peak of flux is looked for [pixel].
    merging : `float`
        Distance within which bright peaks of one sign are one source [pixel].

    Returns
    -------
    peaks : `Peaks`
        Brightest first.
    """
    bright = np.flatnonzero(np.abs(peaks.score) >= least_score)
    if len(bright) == 0:
        return peaks
    height, width = flux.shape
    reach = int(np.ceil(radius))
    step_y, step_x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    inside_disk = step_x**2 + step_y**2 <= radius**2
    step_y, step_x = step_y[inside_disk], step_x[inside_disk]
    sign = np.sign(peaks.score[bright])
    column, row = np.rint(peaks.x[bright]).astype(int), np.rint(peaks.y[bright]).astype(int)
    y, x = row[:, None] + step_y, column[:, None] + step_x
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    values = sign[:, None] * flux[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    values = np.where(inside & np.isfinite(values), values, -np.inf)
    best = values.argmax(axis=1)
    found = np.isfinite(values[np.arange(len(bright)), best])
    new_y, new_x = y[np.arange(len(bright)), best], x[np.arange(len(bright)), best]
    here = sign * flux[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    moved = found & (values[np.arange(len(bright)), best] > _CLEARLY_BRIGHTER * here)

    peak_x, peak_y = peaks.x.copy(), peaks.y.copy()
    peak_x[bright[moved]] = new_x[moved] + _vertex(flux, new_y[moved], new_x[moved], 0, 1)
    peak_y[bright[moved]] = new_y[moved] + _vertex(flux, new_y[moved], new_x[moved], 1, 0)
    keep = np.ones(len(peaks.x), dtype=bool)
    keep[bright[_surplus(peak_x[bright], peak_y[bright], sign, values.max(axis=1), merging)]] = False
    return Peaks(peak_x[keep], peak_y[keep], peaks.score[keep])


def _surplus(x: np.ndarray, y: np.ndarray, sign: np.ndarray, flux: np.ndarray, radius: float) -> np.ndarray:
    """Return which peaks have one of the same sign with more flux, or as much and listed before, within a radius."""
    tree = scipy.spatial.cKDTree(np.stack([x, y], axis=-1))
    pairs = tree.query_pairs(radius, output_type="ndarray")
    pairs = pairs[sign[pairs[:, 0]] == sign[pairs[:, 1]]]
    first_wins = flux[pairs[:, 0]] >= flux[pairs[:, 1]]
    return np.unique(np.where(first_wins, pairs[:, 1], pairs[:, 0]))


def _vertex(score: np.ndarray, y: np.ndarray, x: np.ndarray, step_y: int, step_x: int) -> np.ndarray:
    """Return the offset of the vertex of the parabola through each peak and its two neighbours.

    Zero where a neighbour is missing, which is NaN in the score, or off the image.
    """
    height, width = score.shape
    before = score[np.clip(y - step_y, 0, height - 1), np.clip(x - step_x, 0, width - 1)]
    after = score[np.clip(y + step_y, 0, height - 1), np.clip(x + step_x, 0, width - 1)]
    curvature = before + after - 2.0 * score[y, x]
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = 0.5 * (before - after) / curvature
    inside = (y >= step_y) & (y < height - step_y) & (x >= step_x) & (x < width - step_x)
    return np.where(inside & np.isfinite(offset), np.clip(offset, -0.5, 0.5), 0.0)
