"""Adaptive second moments of sources: those of the elliptical Gaussian that fits best."""

from __future__ import annotations

__all__ = ["AdaptiveMoments", "adaptive_moments"]

from dataclasses import dataclass

import numpy as np

_MAX_ITERATIONS = 25
_TOLERANCE = 5e-4
"""Change of the moments, relative to their trace, at which a source has converged."""

_LOWEST_EXPONENT = np.float32(-32.0)

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
    start : `numpy.ndarray`, (N,)
        Variance of the first, round weight [pixel^2].
    fixed_centre : `bool`, optional
        Keep the positions, for images whose centre is known.
    """
    n, size = len(images), images.shape[-1]
    flat = np.ascontiguousarray(images.reshape(n, -1), dtype=np.float32)
    grid = (np.arange(size) - size // 2).astype(np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, grid))
    monomials = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    centre = np.stack([dx, dy], axis=-1).astype(float)
    weight = np.zeros((n, 2, 2))
    weight[:, 0, 0] = weight[:, 1, 1] = start
    flux = np.full(n, np.nan)
    largest = (_LARGEST_FRACTION * size) ** 2
    converged = np.zeros(n, dtype=bool)
    active = np.flatnonzero(np.isfinite(centre).all(axis=1) & (start > 0))
    for _ in range(_MAX_ITERATIONS):
        if len(active) == 0:
            break
        own, at = weight[active], centre[active]
        inverse = np.linalg.inv(own)
        exponent = _exponent(inverse, at).astype(np.float32) @ monomials
        # Nothing beyond 8 sigma counts, and denormal numbers are slow.
        np.maximum(exponent, _LOWEST_EXPONENT, out=exponent)
        np.exp(exponent, out=exponent)
        exponent *= flat[active]
        sums = (exponent @ monomials.T).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = sums[:, 1:3] / sums[:, :1]
            second = np.stack([sums[:, 3], sums[:, 4], sums[:, 4], sums[:, 5]], axis=-1) / sums[:, :1]
            offset = mean - at
            weighted = second.reshape(-1, 2, 2) - mean[:, :, None] * mean[:, None, :]
            if fixed_centre:
                weighted += offset[:, :, None] * offset[:, None, :]
        inside = sums[:, 0] > 0
        inside &= np.isfinite(weighted).all(axis=(1, 2)) & (np.abs(offset) < 0.25 * size).all(axis=1)
        determinant = weighted[:, 0, 0] * weighted[:, 1, 1] - weighted[:, 0, 1] ** 2
        inside &= (weighted[:, 0, 0] > 0) & (determinant > 0)
        active, own, at, weighted, offset = (a[inside] for a in (active, own, at, weighted, offset))
        sums, inverse = sums[inside], inverse[inside]
        curvature = np.linalg.inv(weighted) - inverse
        determinant = curvature[:, 0, 0] * curvature[:, 1, 1] - curvature[:, 0, 1] ** 2
        # Where the profile falls more slowly than the weight, twice the moments: slower, but safe.
        sharp = (curvature[:, 0, 0] > 0) & (determinant > 0)
        proposed = 2.0 * weighted
        if sharp.any():
            proposed[sharp] = np.linalg.inv(curvature[sharp])
        trace = own[:, 0, 0] + own[:, 1, 1]
        ratio = (proposed[:, 0, 0] + proposed[:, 1, 1]) / trace
        wild = (ratio > 2.0) | (ratio < 0.5)
        proposed[wild] = 2.0 * weighted[wild]
        # At the fixed point the centroid of weight times source lies half way to the source's.
        step = np.zeros_like(offset) if fixed_centre else 2.0 * offset
        change = np.abs(proposed - own).max(axis=(1, 2)) / trace
        change = np.maximum(change, np.abs(step).max(axis=1) / np.sqrt(trace))
        # Sum of a Gaussian of weight's moments times itself: flux / (4 pi sqrt(det)) times 2 pi sqrt(det).
        flux[active] = 2.0 * sums[:, 0]
        weight[active] = proposed
        centre[active] = at + step
        small = proposed[:, 0, 0] + proposed[:, 1, 1] < 2.0 * largest
        small &= (np.abs(centre[active]) < 0.5 * size).all(axis=1)
        done = change < _TOLERANCE
        converged[active[done & small]] = True
        active = active[~done & small]
    lost = ~converged
    weight[lost], centre[lost], flux[lost] = np.nan, np.nan, np.nan
    determinant = weight[:, 0, 0] * weight[:, 1, 1] - weight[:, 0, 1] ** 2
    with np.errstate(invalid="ignore"):
        area = 4.0 * np.pi * np.sqrt(determinant)
    return AdaptiveMoments(
        centre[:, 0], centre[:, 1], weight[:, 0, 0], weight[:, 1, 1], weight[:, 0, 1], flux, area
    )


def _exponent(inverse: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the coefficients of -(r - centre)^T inverse (r - centre) / 2 on [1, x, y, x^2, x y, y^2]."""
    a, b, c = inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]
    x, y = centre[:, 0], centre[:, 1]
    return np.stack(
        [
            -0.5 * (a * x**2 + 2.0 * b * x * y + c * y**2),
            a * x + b * y,
            b * x + c * y,
            -0.5 * a,
            -b,
            -0.5 * c,
        ],
        axis=-1,
    )
