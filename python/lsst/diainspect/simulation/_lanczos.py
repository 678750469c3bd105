"""Resampling with the Lanczos-3 kernel, as coadds are made, with the variance that belongs to it.

Each new pixel is sum_ij w_i w_j I_ij over 6 x 6 old ones, with w_i = L(d - i) / sum L and
L(t) = sinc(t) sinc(t / 3); its variance is sum_ij w_i^2 w_j^2 V_ij. What neighbouring new pixels share of the old ones
correlates their noise, which the variance does not say.
"""

from __future__ import annotations

__all__ = ["LANCZOS_TAPS", "PixelMap", "lanczos_warp", "lanczos_weights"]

from dataclasses import dataclass

import numpy as np

LANCZOS_TAPS = 6
"""Old pixels that a new one is made of, along each axis."""

_FIRST_TAP = -2
_N_PHASES = 4096
"""Positions within a pixel that the weights are tabulated for: at most 1e-4 pixel off."""

_STRIP = 1 << 14
"""Pixels resampled at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class PixelMap:
    """A rotation and a shift from new pixels to old ones, both counted from 0 in their arrays.

    u = cos (x - x0) - sin (y - y0) + u0 and v = sin (x - x0) + cos (y - y0) + v0.

    Parameters
    ----------
    angle : `float`
        Angle of the rotation [radian].
    new_origin : `tuple` [`float`, `float`]
        x0, y0.
    old_origin : `tuple` [`float`, `float`]
        u0, v0.
    """

    angle: float
    new_origin: tuple[float, float]
    old_origin: tuple[float, float]

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return old coordinates u, v of new ones."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        x, y = x - self.new_origin[0], y - self.new_origin[1]
        return (
            cosine * x - sine * y + self.old_origin[0],
            sine * x + cosine * y + self.old_origin[1],
        )


def lanczos_weights(phase: np.ndarray) -> np.ndarray:
    """Return the weights of the pixels at offsets -2 to 3 for positions 0 to 1 beyond that at 0.

    Parameters
    ----------
    phase : `numpy.ndarray`, (N,)
        Position between two pixels.

    Returns
    -------
    weights : `numpy.ndarray`, (N, 6)
        Weights of unit sum.
    """
    distance = np.asarray(phase, dtype=float)[:, None] - (np.arange(LANCZOS_TAPS) + _FIRST_TAP)
    weights = np.sinc(distance) * np.sinc(distance / 3.0)
    return weights / weights.sum(axis=1, keepdims=True)


_TABLE = np.ascontiguousarray(lanczos_weights(np.arange(_N_PHASES + 1) / _N_PHASES).T, dtype=np.float32)


def lanczos_warp(
    image: np.ndarray, shape: tuple[int, int], pixel_map: PixelMap, variance: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Resample an image.

    Parameters
    ----------
    image : `numpy.ndarray`, (old height, old width)
        Image.
    shape : `tuple` [`int`, `int`]
        Height and width of the result.
    pixel_map : `PixelMap`
        Where each new pixel is in the old image.
    variance : `numpy.ndarray`, (old height, old width), optional
        Variance of the image's pixels, whose noise is white.

    Returns
    -------
    warped : `numpy.ndarray`, (height, width), float32
        Surface brightness at the new pixels; 0 where there is not all that the kernel needs.
    warped_variance : `numpy.ndarray` or `None`
        Its variance.
    covered : `numpy.ndarray`, (height, width), bool
        New pixels for which all old ones are there.
    """
    height, width = shape
    old_height, old_width = image.shape
    pixels = np.ascontiguousarray(image, dtype=np.float32).ravel()
    noise = None if variance is None else np.ascontiguousarray(variance, dtype=np.float32).ravel()
    warped = np.zeros(shape, dtype=np.float32)
    warped_variance = None if variance is None else np.zeros(shape, dtype=np.float32)
    covered = np.zeros(shape, dtype=bool)
    columns = np.arange(width, dtype=float)[None, :]
    n_rows = max(_STRIP // width, 1)
    for top in range(0, height, n_rows):
        rows = np.arange(top, min(top + n_rows, height), dtype=float)[:, None]
        u, v = pixel_map(columns, rows)
        left, lower = np.floor(u), np.floor(v)
        phase_u = np.rint((u - left) * _N_PHASES).astype(np.int64)
        phase_v = np.rint((v - lower) * _N_PHASES).astype(np.int64)
        first_u, first_v = left.astype(np.int64) + _FIRST_TAP, lower.astype(np.int64) + _FIRST_TAP
        inside = (first_u >= 0) & (first_v >= 0)
        inside &= (first_u + LANCZOS_TAPS <= old_width) & (first_v + LANCZOS_TAPS <= old_height)
        if not inside.any():
            continue
        first = np.where(inside, first_v * old_width + first_u, 0)
        weights_u = [_TABLE[tap].take(phase_u) for tap in range(LANCZOS_TAPS)]
        value = np.zeros(inside.shape, dtype=np.float32)
        spread = np.zeros(inside.shape, dtype=np.float32)
        if noise is not None:
            squared_u = [weight * weight for weight in weights_u]
        for row in range(LANCZOS_TAPS):
            weight_v = _TABLE[row].take(phase_v)
            along = np.zeros(inside.shape, dtype=np.float32)
            for tap in range(LANCZOS_TAPS):
                along += weights_u[tap] * pixels.take(first + (row * old_width + tap), mode="clip")
            value += weight_v * along
            if noise is not None:
                along[...] = 0.0
                for tap in range(LANCZOS_TAPS):
                    along += squared_u[tap] * noise.take(first + (row * old_width + tap), mode="clip")
                spread += weight_v * weight_v * along
        strip = slice(top, top + len(rows))
        warped[strip] = np.where(inside, value, 0.0)
        covered[strip] = inside
        if warped_variance is not None:
            warped_variance[strip] = np.where(inside, spread, 0.0)
    return warped, warped_variance, covered
