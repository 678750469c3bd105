"""Forced fluxes and scores at the true positions of the changes."""

from __future__ import annotations

__all__ = ["forced_fluxes", "score_at"]

import numpy as np
import scipy.ndimage

from lsst.diainspect.psf import PixelBasisPsf, disk_mask

_RADIUS = 12
"""Radius of the fit [pixel]; 2.7 times the larger seeing."""

_INTERPOLATION_ORDER = 5


def forced_fluxes(
    difference: np.ndarray,
    variance: np.ndarray,
    psf: PixelBasisPsf,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the PSF's amplitude at given positions, pixels weighted with the inverse variance.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, (height, width)
        Difference and its variance.
    psf : `PixelBasisPsf`
        Its PSF, of unit sum over its stamp.
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].

    Returns
    -------
    flux, error : `numpy.ndarray`, (N,)
        NaN where the aperture leaves the image or has a NaN.
    """
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    images = psf.evaluate(x, y, dx=x - column, dy=y - row)
    half = min(psf.size // 2, _RADIUS)
    middle = psf.size // 2
    images = images[:, middle - half : middle + half + 1, middle - half : middle + half + 1]
    aperture = disk_mask(2 * half + 1, np.zeros(1), np.zeros(1), half)[0]
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    height, width = difference.shape
    for index in range(len(x)):
        top, left = row[index] - half, column[index] - half
        if top < 0 or left < 0 or top + 2 * half >= height or left + 2 * half >= width:
            continue
        window = slice(top, top + 2 * half + 1), slice(left, left + 2 * half + 1)
        pixels, noise = difference[window][aperture], variance[window][aperture]
        model = images[index][aperture]
        information = np.sum(model**2 / noise)
        flux[index] = np.sum(model * pixels / noise) / information
        error[index] = information**-0.5
    return flux, error


def score_at(score: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate the score at positions [pixel] with quintic splines of small windows, (N,)."""
    half = 8
    values = np.full(len(x), np.nan)
    height, width = score.shape
    for index, (px, py) in enumerate(zip(x, y, strict=True)):
        column, row = round(float(px)), round(float(py))
        if min(column, row) < half or column + half >= width or row + half >= height:
            continue
        window = score[row - half : row + half + 1, column - half : column + half + 1].astype(float)
        if np.isfinite(window).all():
            values[index] = scipy.ndimage.map_coordinates(
                window, [[py - row + half], [px - column + half]], order=_INTERPOLATION_ORDER, mode="nearest"
            )[0]
    return values
