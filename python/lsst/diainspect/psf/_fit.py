"""PSF fits to stamps of sources: flux, position, width and background, linear in all of them."""

from __future__ import annotations

__all__ = ["PsfFit", "centre_crop", "disk_mask", "fit_psf"]

from dataclasses import dataclass

import numpy as np

from ..linear_fit import fit_linear
from ._fourier_shift import ShiftableImages

_ROOM = 8
"""Pixels of a PSF beyond the stamp that are kept, so that its cut edge stays outside however it is moved."""

_MAX_STEP = 1.0
"""Largest move in one iteration [pixel]: beyond the PSF's core the linear model does not hold."""


@dataclass(frozen=True)
class PsfFit:
    """PSF fits of N sources; every array has shape (N,).

    Parameters
    ----------
    dx, dy : `numpy.ndarray`
        Centres with respect to the central pixel of the stamps [pixel].
    dx_error, dy_error : `numpy.ndarray`
        Their standard errors [pixel].
    flux, flux_error : `numpy.ndarray`
        PSF flux and its error [unit of the pixels].
    width, width_error : `numpy.ndarray`
        Fractional width excess over the PSF, and its error.
    chi2_per_dof : `numpy.ndarray`
        Reduced chi-square.
    good_fraction : `numpy.ndarray`
        Fraction of the fitted pixels that were good.
    """

    dx: np.ndarray
    dy: np.ndarray
    dx_error: np.ndarray
    dy_error: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    width: np.ndarray
    width_error: np.ndarray
    chi2_per_dof: np.ndarray
    good_fraction: np.ndarray


def disk_mask(size: int, dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    """Return which pixels of (N, size, size) stamps lie within a radius of centres (dx, dy) [pixel]."""
    grid = np.arange(size) - size // 2
    distance2 = (grid[None, None, :] - np.asarray(dx)[:, None, None]) ** 2
    distance2 = distance2 + (grid[None, :, None] - np.asarray(dy)[:, None, None]) ** 2
    return distance2 <= radius**2


def centre_crop(images: np.ndarray, size: int) -> np.ndarray:
    """Return the central (size, size) pixels of images (..., s, s), zero-padded where they are smaller."""
    own = images.shape[-1]
    if own >= size:
        cut = own // 2 - size // 2
        return images[..., cut : cut + size, cut : cut + size]
    low = size // 2 - own // 2
    pad = [(0, 0)] * (images.ndim - 2) + [(low, size - own - low)] * 2
    return np.pad(images, pad)


def fit_psf(
    pixels: np.ndarray,
    weight: np.ndarray,
    psf: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: float,
    *,
    iterations: int = 3,
) -> PsfFit:
    """Fit flux, shift, width and background of a point source in each stamp.

    The model is linear in the shift, so the fit is repeated at the position found.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (N, size, size)
        Stamps; pixels of zero weight may be NaN.
    weight : `numpy.ndarray`, (N, size, size)
        Inverse variances, zero for pixels to leave out.
    psf : `numpy.ndarray`, (N, psf_size, psf_size)
        Centred PSFs, of odd size.
    dx, dy : `numpy.ndarray`, (N,)
        Starting positions with respect to the stamps' pixel size // 2 [pixel].
    radius : `float`
        Radius of the fitted disk [pixel].
    iterations : `int`, optional
        Number of fits.

    Returns
    -------
    fit : `PsfFit`
        Results; NaN where a fit was not possible.
    """
    n, size = len(pixels), pixels.shape[-1]
    located = np.isfinite(dx) & np.isfinite(dy)
    dx, dy = np.where(located, dx, 0.0), np.where(located, dy, 0.0)
    weight = np.where(located[:, None, None], weight, 0.0)
    if psf.shape[-1] > size + 2 * _ROOM:
        psf = centre_crop(psf, size // 2 * 2 + 1 + 2 * _ROOM)
    shiftable = ShiftableImages(psf)
    grid = np.arange(psf.shape[-1], dtype=psf.dtype) - psf.shape[-1] // 2
    for _ in range(iterations):
        whole_x, whole_y = np.rint(dx), np.rint(dy)
        model, d_dx, d_dy = shiftable.shifted(dx - whole_x, dy - whole_y)
        from_x = grid[None, None, :] - (dx - whole_x).astype(psf.dtype)[:, None, None]
        from_y = grid[None, :, None] - (dy - whole_y).astype(psf.dtype)[:, None, None]
        # The first of lsst.diainspect.psf.residual_modes: shifts and width.
        width_mode = -2.0 * model - from_x * d_dx - from_y * d_dy
        design = np.stack([model, -d_dx, -d_dy, width_mode], axis=1)
        design = _place(design, whole_x.astype(int), whole_y.astype(int), size)
        design = np.concatenate([design, np.ones_like(design[:, :1])], axis=1)
        inside = disk_mask(size, dx, dy, radius)
        good = inside & (weight > 0)
        fit = fit_linear(
            pixels.reshape(n, -1),
            design.reshape(n, design.shape[1], -1),
            np.where(good, weight, 0.0).reshape(n, -1),
        )
        flux = fit.amplitude[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            step_x, step_y = fit.amplitude[:, 1] / flux, fit.amplitude[:, 2] / flux
        lost = ~np.isfinite(step_x + step_y)
        dx += np.clip(np.where(lost, 0.0, step_x), -_MAX_STEP, _MAX_STEP)
        dy += np.clip(np.where(lost, 0.0, step_y), -_MAX_STEP, _MAX_STEP)
    error = fit.error
    with np.errstate(invalid="ignore", divide="ignore"):
        return PsfFit(
            dx=np.where(lost, np.nan, dx),
            dy=np.where(lost, np.nan, dy),
            dx_error=np.abs(error[:, 1] / flux),
            dy_error=np.abs(error[:, 2] / flux),
            flux=flux,
            flux_error=error[:, 0],
            width=fit.amplitude[:, 3] / flux,
            width_error=np.abs(error[:, 3] / flux),
            chi2_per_dof=fit.chi2 / (fit.n_data - design.shape[1]),
            good_fraction=good.sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1),
        )


def _place(images: np.ndarray, whole_x: np.ndarray, whole_y: np.ndarray, size: int) -> np.ndarray:
    """Crop images (N, P, s, s) to (N, P, size, size), moved by whole pixels."""
    placed = centre_crop(images, size)
    for n in np.flatnonzero((whole_x != 0) | (whole_y != 0)):
        reach = max(abs(int(whole_x[n])), abs(int(whole_y[n])))
        roomy = centre_crop(images[n], size + 2 * reach)
        low_x, low_y = reach - int(whole_x[n]), reach - int(whole_y[n])
        placed[n] = roomy[:, low_y : low_y + size, low_x : low_x + size]
    return placed
