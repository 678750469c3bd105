"""Adaptive second moments of sources: those of the elliptical Gaussian that fits best."""

from __future__ import annotations

__all__ = ["AdaptiveMoments", "adaptive_moments"]

from dataclasses import dataclass

import numpy as np

from ..compiled import compiled

_MAX_ITERATIONS = 25
_TOLERANCE = 5e-4
"""Change of the moments, relative to their trace, at which a source has converged."""

_BLOCK = 32
"""Pixels of a row that are handled together: a length that the compiler knows, which rows are filled up to."""

_LARGEST_FRACTION = 0.25
"""Largest width (sigma) as a fraction of the stamp's side: beyond it the stamp ends before the source."""


@dataclass(frozen=True)
class AdaptiveMoments:
    """Moments of N sources; every array has shape (N,), NaN where the iteration did not converge.

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Centroids with respect to the pixel size // 2 [pixel].
    ixx, iyy, ixy : `numpy.ndarray`
        Second moments [pixel^2].
    flux : `numpy.ndarray`
        Flux of the best-fitting Gaussian [unit of the pixels].
    effective_area : `numpy.ndarray`
        Noise area 4 pi sqrt(det M) of that Gaussian [pixel]: noise of standard deviation s a pixel gives
        the flux an error s sqrt(area) at fixed shape.
    """

    x: np.ndarray
    y: np.ndarray
    ixx: np.ndarray
    iyy: np.ndarray
    ixy: np.ndarray
    flux: np.ndarray
    effective_area: np.ndarray
    weighted: np.ndarray
    """Sums of the pixels times the first weight and 1, u^2, v^2, u v (4, N), with (u, v) the distance from the given
    position: linear in the pixels, they exist whether the iteration converges or not."""


def adaptive_moments(
    images: np.ndarray, dx: np.ndarray, dy: np.ndarray, start: np.ndarray, *, fixed_centre: bool = False
) -> AdaptiveMoments:
    """Measure adaptive moments (Hirata & Seljak 2003; Bernstein & Jarvis 2002, section 3.1).

    The weight is a Gaussian of moments W about the centroid. For a Gaussian source of moments M the weighted moments
    are (M^-1 + W^-1)^-1, so M = (weighted^-1 - W^-1)^-1, which becomes the next weight: at its fixed point M = W is
    twice the weighted moments, and there it converges quadratically.

    Parameters
    ----------
    images : `numpy.ndarray`, (N, size, size)
        Images of positive sources, finite.
    dx, dy : `numpy.ndarray`, (N,)
        Positions with respect to the pixel size // 2 [pixel].
    start : `numpy.ndarray`, (3, N)
        Moments xx, yy, xy of the first weight [pixel^2].
    fixed_centre : `bool`, optional
        Keep the positions, for images whose centre is known.
    """
    n, size = len(images), images.shape[-1]
    moments, weighted = np.full((6, n), np.nan), np.full((4, n), np.nan)
    _iterate_all(
        np.ascontiguousarray(images, dtype=np.float32),
        np.ascontiguousarray(dx, dtype=float),
        np.ascontiguousarray(dy, dtype=float),
        np.ascontiguousarray(start, dtype=float),
        fixed_centre,
        (_LARGEST_FRACTION * size) ** 2,
        moments,
        weighted,
    )
    x, y, ixx, iyy, ixy, flux = moments
    with np.errstate(invalid="ignore"):
        area = 4.0 * np.pi * np.sqrt(ixx * iyy - ixy**2)
    return AdaptiveMoments(x, y, ixx, iyy, ixy, flux, area, weighted)


@compiled
def _iterate_all(
    images: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    start: np.ndarray,
    fixed_centre: bool,
    largest: float,
    moments: np.ndarray,
    weighted: np.ndarray,
) -> None:
    """Fill x, y, the moments xx, yy, xy, and the flux, (6, N), of the sources that converge; and the first sums."""
    size = images.shape[1]
    n_blocks = (size + _BLOCK - 1) // _BLOCK
    pixels = np.zeros((size, n_blocks, _BLOCK))
    scratch = np.empty((7, n_blocks, _BLOCK))
    sums = np.empty(6)
    for n in range(len(images)):
        x, y, xx, yy, xy = dx[n], dy[n], start[0, n], start[1, n], start[2, n]
        if not (np.isfinite(x) and np.isfinite(y) and xx > 0.0 and xx * yy - xy * xy > 0.0):
            continue
        for i in range(size):
            for j in range(size):
                pixels[i, j // _BLOCK, j % _BLOCK] = images[n, i, j]
        for iteration in range(_MAX_ITERATIONS):
            determinant = xx * yy - xy * xy
            a, b, c = yy / determinant, -xy / determinant, xx / determinant
            _add_up_weighted(pixels, x + size // 2, y + size // 2, a, b, c, scratch, sums)
            if iteration == 0:
                weighted[0, n], weighted[1, n] = sums[0], sums[3]
                weighted[2, n], weighted[3, n] = sums[5], sums[4]
            offset_x, offset_y = sums[1] / sums[0], sums[2] / sums[0]
            own_xx, own_xy, own_yy = sums[3] / sums[0], sums[4] / sums[0], sums[5] / sums[0]
            if not fixed_centre:
                own_xx -= offset_x * offset_x
                own_xy -= offset_x * offset_y
                own_yy -= offset_y * offset_y
            determinant = own_xx * own_yy - own_xy * own_xy
            inside = sums[0] > 0.0 and np.isfinite(own_xx) and np.isfinite(own_xy) and np.isfinite(own_yy)
            inside = inside and abs(offset_x) < 0.25 * size and abs(offset_y) < 0.25 * size
            if not (inside and own_xx > 0.0 and determinant > 0.0):
                break
            curve_xx, curve_yy = own_yy / determinant - a, own_xx / determinant - c
            curve_xy = -own_xy / determinant - b
            determinant = curve_xx * curve_yy - curve_xy * curve_xy
            trace = xx + yy
            # Where the profile falls more slowly than the weight, twice the moments: slower, but safe.
            next_xx, next_yy, next_xy = 2.0 * own_xx, 2.0 * own_yy, 2.0 * own_xy
            if curve_xx > 0.0 and determinant > 0.0:
                ratio = (curve_xx + curve_yy) / determinant / trace
                if 0.5 <= ratio <= 2.0:
                    next_xx, next_yy = curve_yy / determinant, curve_xx / determinant
                    next_xy = -curve_xy / determinant
            # At the fixed point the centroid of weight times source lies half way to the source's.
            step_x = 0.0 if fixed_centre else 2.0 * offset_x
            step_y = 0.0 if fixed_centre else 2.0 * offset_y
            change = max(abs(next_xx - xx), abs(next_yy - yy), abs(next_xy - xy)) / trace
            change = max(change, max(abs(step_x), abs(step_y)) / np.sqrt(trace))
            xx, yy, xy = next_xx, next_yy, next_xy
            x, y = x + step_x, y + step_y
            if not (xx + yy < 2.0 * largest and abs(x) < 0.5 * size and abs(y) < 0.5 * size):
                break
            if change < _TOLERANCE:
                moments[0, n], moments[1, n] = x, y
                moments[2, n], moments[3, n], moments[4, n] = xx, yy, xy
                # Sum of a Gaussian of weight's moments times itself: flux / (4 pi sqrt(det)) times 2 pi sqrt(det).
                moments[5, n] = 2.0 * sums[0]
                break


@compiled
def _add_up_weighted(
    pixels: np.ndarray,
    x: float,
    y: float,
    a: float,
    b: float,
    c: float,
    scratch: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Fill the sums of 1, u, v, u^2, u v, v^2 over the pixels times exp(-(a u^2 + 2 b u v + c v^2) / 2).

    (u, v) are the distances from (x, y), in pixels of the array. From one row to the next the weight changes by a
    factor that itself changes by exp(-c), so that only the middle row takes exponentials.
    """
    size, n_blocks = pixels.shape[0], pixels.shape[1]
    middle = min(max(int(np.rint(y)), 0), size - 1)
    v0 = middle - y
    by_row = np.exp(-c)
    first, up, down, weight = scratch[0], scratch[1], scratch[2], scratch[3]
    by_1, by_v, by_vv = scratch[4], scratch[5], scratch[6]
    total, total_u, total_v, total_uu, total_uv, total_vv = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for block in range(n_blocks):
        for j in range(_BLOCK):
            u = block * _BLOCK + j - x
            first[block, j] = np.exp(-0.5 * (a * u * u + 2.0 * b * u * v0 + c * v0 * v0))
            skewed = np.exp(-b * u - c * v0)
            up[block, j] = skewed * np.exp(-0.5 * c)
            down[block, j] = np.exp(-0.5 * c) / skewed
        column, column_v, column_vv = by_1[block], by_v[block], by_vv[block]
        column[:] = 0.0
        column_v[:] = 0.0
        column_vv[:] = 0.0
        for way in range(2):
            own, ratio = weight[block], up[block] if way == 0 else down[block]
            own[:] = first[block]
            row = middle
            while 0 <= row < size:
                if way == 0 or row != middle:
                    line, v = pixels[row, block], row - y
                    for j in range(_BLOCK):
                        part = own[j] * line[j]
                        column[j] += part
                        column_v[j] += v * part
                        column_vv[j] += v * v * part
                for j in range(_BLOCK):
                    own[j] *= ratio[j]
                    ratio[j] *= by_row
                row += 1 if way == 0 else -1
        for j in range(_BLOCK):
            u = block * _BLOCK + j - x
            total += column[j]
            total_u += u * column[j]
            total_uu += u * u * column[j]
            total_v += column_v[j]
            total_uv += u * column_v[j]
            total_vv += column_vv[j]
    sums[0], sums[1], sums[2] = total, total_u, total_v
    sums[3], sums[4], sums[5] = total_uu, total_uv, total_vv
