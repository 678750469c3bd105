"""Peaks of a score image, of both signs, with sub-pixel positions and heights."""

from __future__ import annotations

__all__ = ["Peaks", "find_peaks", "recentre_peaks"]

from dataclasses import dataclass

import numpy as np
import scipy.spatial

from ..stamps import gather_stamps

_CLEARLY_BRIGHTER = 1.15
"""Ratio of flux by which a pixel must exceed a peak of the score for that to be moved: neighbours of a PSF's centre
differ by a few per cent, the shoulder of a plateau by tens."""

_PIXEL_OF_PEAK = 0.85
"""Least ratio of the highest pixel to the peak between the pixels: that of a peak in the corner of four pixels whose
score falls like a Gaussian of width 1.24 pixels, which that of a PSF of 2 pixels' FWHM is."""

_LEAST_NEIGHBOUR = 0.1
"""Least ratio of a pixel beside a peak to the peak's for which logarithms are taken."""

_ROWS = 256
"""Rows searched at a time, so that what is made on the way stays in the processor's cache."""

_TRUSTED = 0.999
"""Least weight of trusted pixels in a smoothed one."""


@dataclass(frozen=True)
class Peaks:
    """Peaks in array coordinates, brightest first; every array has shape (N,).

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Sub-pixel positions [pixel].
    score : `numpy.ndarray`
        Signed height of the peak between the pixels.
    """

    x: np.ndarray
    y: np.ndarray
    score: np.ndarray


def find_peaks(score: np.ndarray, valid: np.ndarray, threshold: float, separation: float) -> Peaks:
    """Find the local extrema of a score image.

    A peak is the extreme of its sign within a disk; its position and height are those of a Gaussian
    through the pixel and its eight neighbours. It is the height that is compared with the threshold: the highest
    pixel is on average 2 % lower for a PSF of 3.5 pixels' FWHM, and would lose a third of the noise's peaks above 5
    sigma, which theory counts between the pixels.

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
    y, x = _bright_pixels(score, valid, _PIXEL_OF_PEAK * threshold)
    signs = np.sign(score[y, x])
    found = [
        _extrema(score, valid, y[signs == sign], x[signs == sign], sign, separation) for sign in (1.0, -1.0)
    ]
    y, x = (np.concatenate(coordinates) for coordinates in zip(*found, strict=True))
    step_x, step_y, height = _vertex(score, valid, y, x)
    order = np.argsort(-np.abs(height), kind="stable")
    order = order[np.abs(height[order]) >= threshold]
    return Peaks(x=x[order] + step_x[order], y=y[order] + step_y[order], score=height[order])


def _bright_pixels(score: np.ndarray, valid: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of valid pixels whose absolute score reaches a threshold."""
    found = []
    for start in range(0, len(score), _ROWS):
        rows = slice(start, start + _ROWS)
        y, x = np.nonzero(np.abs(score[rows]) >= threshold)
        keep = valid[y + start, x]
        found.append((y[keep] + start, x[keep]))
    y, x = (np.concatenate(coordinates) for coordinates in zip(*found, strict=True))
    return y, x


def _values(image: np.ndarray, valid: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return pixels of an image, NaN for those that are not valid or off the image."""
    height, width = image.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    return np.where(inside & valid[y, x], image[y, x].astype(float), np.nan)


def _extrema(
    score: np.ndarray, valid: np.ndarray, y: np.ndarray, x: np.ndarray, sign: float, separation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the pixels of a sign no pixel within the separation exceeds.

    Few pixels are above a threshold, so each is compared with its own disk, nearest neighbours first, and drops
    out at the first that exceeds it: some hundred times faster than a maximum filter.
    """
    reach = int(np.ceil(separation))
    steps = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    distance2 = (steps**2).sum(axis=1)
    near = np.flatnonzero((distance2 > 0) & (distance2 <= separation**2))
    for step_y, step_x in steps[near[np.argsort(distance2[near], kind="stable")]]:
        value = sign * score[y, x]
        other = sign * _values(score, valid, y + step_y, x + step_x)
        # Of equal pixels, as on a plateau, the first in reading order is the peak.
        is_earlier = step_y < 0 or (step_y == 0 and step_x < 0)
        exceeded = (other >= value) if is_earlier else (other > value)
        y, x = y[~exceeded], x[~exceeded]
    return y, x


def recentre_peaks(
    peaks: Peaks,
    difference: np.ndarray,
    trusted: np.ndarray,
    sigma: float,
    least_score: float,
    radius: float,
    merging: float,
) -> Peaks:
    """Move bright peaks of a score to the peaks of flux they belong to.

    The error of a score grows with the flux of a static source (registration, flux ratio), so that on a bright
    source the score is flat-topped and its highest pixel is anywhere on the plateau. Bright peaks that end up close
    together are one source. The way goes uphill from pixel to pixel, so that a source on the flank of a brighter one,
    which has a peak of its own, stays where it is.

    Parameters
    ----------
    peaks : `Peaks`
        Peaks of the score.
    difference : `numpy.ndarray`, (height, width)
        Difference.
    trusted : `numpy.ndarray`, (height, width), bool
        Its pixels that may be used.
    sigma : `float`
        Width of the Gaussian with which the difference is smoothed, that of its PSF [pixel].
    least_score : `float`
        Fainter peaks stay where they are.
    radius : `float`
        Largest distance of such a move [pixel].
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
    reach = int(np.ceil(radius))
    column, row = np.rint(peaks.x[bright]).astype(int), np.rint(peaks.y[bright]).astype(int)
    # One pixel more on each side, for the parabola through a peak at the rim.
    flux = _smoothed_stamps(difference, trusted, column, row, sigma, reach + 1)
    sign = np.sign(peaks.score[bright])
    values = sign[:, None, None] * flux
    y, x = np.mgrid[-reach - 1 : reach + 2, -reach - 1 : reach + 2]
    values = np.where((x**2 + y**2 <= radius**2) & np.isfinite(values), values, -np.inf)
    here = values[:, reach + 1, reach + 1]
    best_y, best_x = _climb(values)
    highest = values[np.arange(len(bright)), best_y, best_x]
    moved = np.flatnonzero(np.isfinite(here) & (highest > _CLEARLY_BRIGHTER * here))
    best_y, best_x = best_y[moved], best_x[moved]

    # The stamps one above the other are an image, of which a vertex needs the neighbours only.
    side = flux.shape[1]
    stacked = flux.reshape(-1, side)
    step_x, step_y, _ = _vertex(stacked, np.isfinite(stacked), moved * side + best_y, best_x)
    peak_x, peak_y = peaks.x.copy(), peaks.y.copy()
    peak_x[bright[moved]] = column[moved] + best_x - reach - 1 + step_x
    peak_y[bright[moved]] = row[moved] + best_y - reach - 1 + step_y
    keep = np.ones(len(peaks.x), dtype=bool)
    keep[bright[_surplus(peak_x[bright], peak_y[bright], sign, highest, merging)]] = False
    return Peaks(peak_x[keep], peak_y[keep], peaks.score[keep])


def _climb(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the peaks that are uphill from the centres of stamps (N, size, size).

    The rim of the stamps must be lower than what is inside.
    """
    n, size = values.shape[:2]
    index = np.arange(n)[:, None]
    step_y, step_x = np.mgrid[-1:2, -1:2].reshape(2, -1)
    y = x = np.full(n, size // 2)
    for _ in range(size):
        near_y, near_x = (
            np.clip(place[:, None] + step, 0, size - 1) for place, step in ((y, step_y), (x, step_x))
        )
        near = values[index, near_y, near_x]
        best = near.argmax(axis=1)
        higher = near[index[:, 0], best] > values[index[:, 0], y, x]
        if not higher.any():
            break
        y, x = y + np.where(higher, step_y[best], 0), x + np.where(higher, step_x[best], 0)
    return y, x


def _smoothed_stamps(
    image: np.ndarray, trusted: np.ndarray, x: np.ndarray, y: np.ndarray, sigma: float, reach: int
) -> np.ndarray:
    """Return stamps of a smoothed image, (N, 2 reach + 1, 2 reach + 1); NaN where pixels off the image or not trusted
    take part.
    """
    margin = int(np.ceil(4.0 * sigma))
    size = 2 * (reach + margin) + 1
    step = np.arange(size)[None, :] - margin - np.arange(2 * reach + 1)[:, None]
    weight = np.where(np.abs(step) <= margin, np.exp(-0.5 * (step / sigma) ** 2), 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    x0, y0 = x - reach - margin, y - reach - margin
    pixels = gather_stamps(image, x0, y0, size, np.nan).astype(float)
    good = gather_stamps(trusted, x0, y0, size, False) & np.isfinite(pixels)
    smoothed = weight @ np.where(good, pixels, 0.0) @ weight.T
    return np.where(weight @ good.astype(float) @ weight.T > _TRUSTED, smoothed, np.nan)


def _surplus(x: np.ndarray, y: np.ndarray, sign: np.ndarray, flux: np.ndarray, radius: float) -> np.ndarray:
    """Return which peaks have one of the same sign with more flux, or as much and listed before, within a radius."""
    tree = scipy.spatial.cKDTree(np.stack([x, y], axis=-1))
    pairs = tree.query_pairs(radius, output_type="ndarray")
    pairs = pairs[sign[pairs[:, 0]] == sign[pairs[:, 1]]]
    first_wins = flux[pairs[:, 0]] >= flux[pairs[:, 1]]
    return np.unique(np.where(first_wins, pairs[:, 1], pairs[:, 0]))


def _vertex(
    image: np.ndarray, valid: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return offsets in x and y, and the height, of the peak between pixels.

    It is the vertex of the parabola through the logarithms of the pixel and its eight neighbours, exact for a
    Gaussian: a parabola through the pixels themselves is 0.6 % low between four of them for a PSF of 3.5 pixels'
    FWHM, which at 5 sigma is one peak of noise in seven. Where a neighbour is negative or faint, it goes through the
    pixels. The offset along an axis is zero where a neighbour on it is missing, and the mixed term where a corner is.
    """
    middle = _values(image, valid, y, x)
    near = {
        (step_y, step_x): _values(image, valid, y + step_y, x + step_x) / middle
        for step_y in (-1, 0, 1)
        for step_x in (-1, 0, 1)
    }
    logarithmic = np.all([~(ratio < _LEAST_NEIGHBOUR) for ratio in near.values()], axis=0)
    for place, ratio in near.items():
        near[place] = np.where(logarithmic, np.log(np.where(logarithmic, ratio, 1.0)), ratio - 1.0)
    slope_x, slope_y = 0.5 * (near[0, 1] - near[0, -1]), 0.5 * (near[1, 0] - near[-1, 0])
    curve_x, curve_y = near[0, 1] + near[0, -1], near[1, 0] + near[-1, 0]
    for slope, curve in ((slope_x, curve_x), (slope_y, curve_y)):
        # One that turns up, or cannot be known, is that of a flank.
        lost = ~np.isfinite(slope) | ~(curve < 0)
        slope[lost], curve[lost] = 0.0, -1.0
    mixed = 0.25 * (near[1, 1] + near[-1, -1] - near[1, -1] - near[-1, 1])
    mixed = np.where(np.isfinite(mixed) & (mixed**2 < 0.5 * curve_x * curve_y), mixed, 0.0)
    determinant = curve_x * curve_y - mixed**2
    step_x = np.clip((mixed * slope_y - curve_y * slope_x) / determinant, -0.5, 0.5)
    step_y = np.clip((mixed * slope_x - curve_x * slope_y) / determinant, -0.5, 0.5)
    rise = slope_x * step_x + slope_y * step_y
    rise += 0.5 * (curve_x * step_x**2 + curve_y * step_y**2) + mixed * step_x * step_y
    # Clipped steps stay on a parabola whose vertex is elsewhere: never below the pixel itself.
    rise = np.maximum(rise, 0.0)
    return step_x, step_y, middle * np.where(logarithmic, np.exp(rise), 1.0 + rise)
