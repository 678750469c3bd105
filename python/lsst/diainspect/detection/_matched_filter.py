"""The score of a difference by its own PSF: the S/N of a point source centred on each pixel.

For white noise of variance V_i, a point source of PSF P at pixel j has the maximum-likelihood flux
sum_i P_ij D_i / V_i / sum_i P_ij^2 / V_i, whose ratio to its error is
  S_j = sum_i P_ij D_i / V_i / sqrt(sum_i P_ij^2 / V_i),
with bad pixels left out of both sums.
"""

from __future__ import annotations

__all__ = ["matched_filter_score"]

import numpy as np
import scipy.fft

from ..psf import PixelBasisPsf

_CELL = 1024
"""Side of the cells with one PSF each [pixel]; a PSF that is slightly off changes a score in second order."""

_LEAST_WEIGHT = 0.01
"""A pixel with less than this of the weight that its PSF has where all pixels are good is not scored."""

_SAMPLING = 8
"""Distance of the pixels that a typical weight is taken from [pixel]."""


def matched_filter_score(
    difference: np.ndarray, variance: np.ndarray, bad: np.ndarray, psf: PixelBasisPsf
) -> np.ndarray:
    """Filter a difference with its PSF.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, (height, width)
        Difference with white noise [nJy] and its variance [nJy^2].
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to leave out, besides those that are not finite or have no variance.
    psf : `PixelBasisPsf`
        PSF of the difference, over bounds of the images' shape.

    Returns
    -------
    score : `numpy.ndarray`, (height, width), float32
        Signal-to-noise ratio; NaN where too few good pixels lie under the PSF.
    """
    height, width = difference.shape
    reach = psf.size // 2
    x_first, y_first = psf.bounds.x.start, psf.bounds.y.start
    score = np.empty(difference.shape, dtype=np.float32)
    for top in range(0, height, _CELL):
        for left in range(0, width, _CELL):
            rows, columns = slice(top, min(top + _CELL, height)), slice(left, min(left + _CELL, width))
            low_y, low_x = max(rows.start - reach, 0), max(columns.start - reach, 0)
            window = slice(low_y, rows.stop + reach), slice(low_x, columns.stop + reach)
            usable = (variance[window] > 0) & np.isfinite(difference[window]) & ~bad[window]
            with np.errstate(invalid="ignore", divide="ignore"):
                weight = np.where(usable, np.float32(1.0) / variance[window], 0).astype(
                    np.float32, copy=False
                )
                signal = np.where(usable, difference[window] * weight, 0).astype(np.float32, copy=False)
            middle = psf.at(
                x_first + 0.5 * (columns.start + columns.stop - 1),
                y_first + 0.5 * (rows.start + rows.stop - 1),
            )
            inner = (
                slice(rows.start - low_y, rows.stop - low_y),
                slice(columns.start - low_x, columns.stop - low_x),
            )
            score[rows, columns] = _ratio(
                _correlate(signal, middle, inner),
                _correlate(weight, middle**2, inner),
                _LEAST_WEIGHT * float((middle**2).sum()) * _typical(weight),
            )
    return score


def _ratio(signal: np.ndarray, weight: np.ndarray, least: float) -> np.ndarray:
    """Return signal / sqrt(weight), NaN where the weight is less than the least or zero but for rounding."""
    enough = (weight > least) & (least > 0)
    return np.where(enough, signal / np.sqrt(np.where(enough, weight, np.float32(1.0))), np.float32(np.nan))


def _typical(weight: np.ndarray) -> float:
    """Return the median of the positive weights; 0 if there are none."""
    sample = weight[::_SAMPLING, ::_SAMPLING]
    sample = sample[sample > 0]
    return float(np.median(sample)) if len(sample) else 0.0


def _correlate(image: np.ndarray, kernel: np.ndarray, inner: tuple[slice, slice]) -> np.ndarray:
    """Correlate an image, zero beyond its edge, with a kernel of odd size, and return a part of the result."""
    reach = kernel.shape[0] // 2
    # Room for the kernel on one side only: what wraps around from there is zero.
    shape = tuple(scipy.fft.next_fast_len(length + reach, real=True) for length in image.shape)
    transform = scipy.fft.rfft2(image, s=shape)
    # The kernel's rows are few: the transform along them is short.
    other = scipy.fft.fft(
        scipy.fft.rfft(kernel[::-1, ::-1].astype(np.float32), n=shape[1]), n=shape[0], axis=0
    )
    transform *= other
    result: np.ndarray = scipy.fft.irfft2(transform, s=shape, overwrite_x=True)
    rows, columns = (slice(part.start + reach, part.stop + reach) for part in inner)
    return result[rows, columns]
