"""PSF fits to stamps of sources: flux, position, width and background, linear in all of them."""

from __future__ import annotations

__all__ = ["PsfFit", "centre_crop", "disk_mask", "fit_psf"]

from dataclasses import dataclass

import numpy as np

from ..linear_fit import LinearFit, fit_linear
from ._fourier_shift import ShiftableImages

_ROOM = 8
"""Pixels of a PSF beyond the stamp that are kept, so that its cut edge stays outside however it is moved."""

_MAX_STEP = 1.0
"""Largest move in one iteration [pixel]: beyond the PSF's core the linear model does not hold."""

_LEAST_STEP = 0.02
"""Moves below this are the last [pixel]: what they leave is of second order, some 1e-4 pixel and 1e-5 of the flux."""

_N_TERMS = 5
"""Flux, two shifts, width and background."""


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

    The model is linear in the shift, so the fit is repeated at the position found as long as that moves.

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
        Largest number of fits.

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
    amplitude, error = np.full((2, n, _N_TERMS), np.nan)
    chi2_per_dof, good_fraction = np.full((2, n), np.nan)
    lost = np.zeros(n, dtype=bool)
    moving = np.arange(n)
    for _ in range(iterations):
        fit, good_fraction[moving] = _fit_at(
            pixels[moving],
            weight[moving],
            shiftable if len(moving) == n else shiftable.take(moving),
            dx[moving],
            dy[moving],
            radius,
        )
        amplitude[moving], error[moving] = fit.amplitude, fit.error
        chi2_per_dof[moving] = fit.chi2 / (fit.n_data - _N_TERMS)
        with np.errstate(invalid="ignore", divide="ignore"):
            step = fit.amplitude[:, 1:3] / fit.amplitude[:, :1]
        lost[moving] = ~np.isfinite(step).all(axis=1)
        step = np.clip(np.where(lost[moving, None], 0.0, step), -_MAX_STEP, _MAX_STEP)
        dx[moving] += step[:, 0]
        dy[moving] += step[:, 1]
        moving = moving[np.abs(step).max(axis=1) > _LEAST_STEP]
        if len(moving) == 0:
            break
    flux = amplitude[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return PsfFit(
            dx=np.where(lost, np.nan, dx),
            dy=np.where(lost, np.nan, dy),
            dx_error=np.abs(error[:, 1] / flux),
            dy_error=np.abs(error[:, 2] / flux),
            flux=flux,
            flux_error=error[:, 0],
            width=amplitude[:, 3] / flux,
            width_error=np.abs(error[:, 3] / flux),
            chi2_per_dof=chi2_per_dof,
            good_fraction=good_fraction,
        )


def _fit_at(
    pixels: np.ndarray,
    weight: np.ndarray,
    psfs: ShiftableImages,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: float,
) -> tuple[LinearFit, np.ndarray]:
    """Fit flux, flux times shifts and width, and background at positions; return also the good fraction of the disk."""
    n, size = len(pixels), pixels.shape[-1]
    whole_x, whole_y = np.rint(dx), np.rint(dy)
    model, d_dx, d_dy = psfs.shifted(dx - whole_x, dy - whole_y)
    grid = np.arange(model.shape[-1], dtype=model.dtype) - model.shape[-1] // 2
    from_x = grid[None, None, :] - (dx - whole_x).astype(model.dtype)[:, None, None]
    from_y = grid[None, :, None] - (dy - whole_y).astype(model.dtype)[:, None, None]
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
    return fit, good.sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)


def _place(images: np.ndarray, whole_x: np.ndarray, whole_y: np.ndarray, size: int) -> np.ndarray:
    """Crop images (N, P, s, s) to (N, P, size, size), moved by whole pixels."""
    placed = centre_crop(images, size)
    for n in np.flatnonzero((whole_x != 0) | (whole_y != 0)):
        reach = max(abs(int(whole_x[n])), abs(int(whole_y[n])))
        roomy = centre_crop(images[n], size + 2 * reach)
        low_x, low_y = reach - int(whole_x[n]), reach - int(whole_y[n])
        placed[n] = roomy[:, low_y : low_y + size, low_x : low_x + size]
    return placed
