"""PSF fits to sources of one image: flux, position, width and background, linear in all of them."""

from __future__ import annotations

__all__ = ["StarFit", "fit_stars"]

from dataclasses import dataclass

import numpy as np

from ..linear_fit import fit_linear
from ..psf import PixelBasisPsf, residual_modes
from ..stamps import gather_stamps, stamp_origin

_ITERATIONS = 3
"""The fit is linear in the shift, so it is repeated at the position found until steps are far below a pixel."""

_MAX_STEP = 1.0
"""Largest move in one iteration [pixel]: beyond the PSF's core the linear model does not hold."""


@dataclass(frozen=True)
class StarFit:
    """Fits of N sources; every array has shape (N,).

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Centres [pixel], in the frame of the positions given.
    x_error, y_error : `numpy.ndarray`
        Their standard errors [pixel].
    flux, flux_error : `numpy.ndarray`
        PSF flux and its error [the image's unit].
    width, width_error : `numpy.ndarray`
        Fractional width excess over the PSF, and its error.
    chi2_per_dof : `numpy.ndarray`
        Reduced chi-square.
    good_fraction : `numpy.ndarray`
        Fraction of the fitted pixels that were good.
    """

    x: np.ndarray
    y: np.ndarray
    x_error: np.ndarray
    y_error: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    width: np.ndarray
    width_error: np.ndarray
    chi2_per_dof: np.ndarray
    good_fraction: np.ndarray


def fit_stars(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    psf: PixelBasisPsf,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
) -> StarFit:
    """Fit sources with the PSF and its shift and width modes.

    Parameters
    ----------
    image, variance : `numpy.ndarray`, (height, width)
        Pixels and variances.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to leave out.
    psf : `PixelBasisPsf`
        PSF; its bounds' start is the coordinate of the first pixel.
    x, y : `numpy.ndarray`, (N,)
        Starting positions [pixel], in the frame of the PSF's bounds.
    radius : `float`
        Radius of the fitted disk [pixel].

    Returns
    -------
    fit : `StarFit`
        Results; NaN where a fit was not possible.
    """
    x_first, y_first = psf.bounds.x.start, psf.bounds.y.start
    x, y = np.array(x, dtype=float), np.array(y, dtype=float)
    size = min(2 * int(np.ceil(radius)) + 3, psf.size)
    cut = (psf.size - size) // 2
    for _ in range(_ITERATIONS):
        x0, y0 = stamp_origin(x, y, size)
        dx, dy = x - (x0 + size // 2), y - (y0 + size // 2)
        pixels = gather_stamps(image, x0 - x_first, y0 - y_first, size, np.nan)
        noise = gather_stamps(variance, x0 - x_first, y0 - y_first, size, np.inf)
        masked = gather_stamps(bad, x0 - x_first, y0 - y_first, size, True)
        model = psf.evaluate(x, y, dx=dx, dy=dy)
        modes = residual_modes(model, dx, dy)[:, :3]
        model, modes = (part[..., cut : cut + size, cut : cut + size] for part in (model, modes))
        grid = np.arange(size) - size // 2
        distance = np.hypot(grid[None, None, :] - dx[:, None, None], grid[None, :, None] - dy[:, None, None])
        inside = distance <= radius
        good = inside & ~masked
        weight = np.where(good, 1.0 / noise, 0.0).reshape(len(x), -1)
        design = np.concatenate([model[:, None], modes, np.ones_like(model[:, None])], axis=1)
        fit = fit_linear(pixels.reshape(len(x), -1), design.reshape(len(x), 5, -1), weight)
        flux = fit.amplitude[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            step_x, step_y = fit.amplitude[:, 1] / flux, fit.amplitude[:, 2] / flux
        lost = ~np.isfinite(step_x + step_y)
        x += np.clip(np.where(lost, 0.0, step_x), -_MAX_STEP, _MAX_STEP)
        y += np.clip(np.where(lost, 0.0, step_y), -_MAX_STEP, _MAX_STEP)
    error = fit.error
    with np.errstate(invalid="ignore", divide="ignore"):
        return StarFit(
            x=np.where(lost, np.nan, x),
            y=np.where(lost, np.nan, y),
            x_error=error[:, 1] / flux,
            y_error=error[:, 2] / flux,
            flux=flux,
            flux_error=error[:, 0],
            width=fit.amplitude[:, 3] / flux,
            width_error=error[:, 3] / np.abs(flux),
            chi2_per_dof=fit.chi2 / (fit.n_data - design.shape[1]),
            good_fraction=good.sum(axis=(1, 2)) / inside.sum(axis=(1, 2)),
        )
