"""Maps of a detector from the residual modes of its static stars, and from its matching kernel."""

from __future__ import annotations

__all__ = ["QUANTITIES", "fit_detector_maps", "kernel_maps"]

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from lsst.images import Box

from ..psf import PixelBasis
from ._smooth_map import SmoothMap, fit_smooth_map

QUANTITIES: dict[str, str] = {
    "shiftX": "Science minus template position in x: what the match took and what it left.",
    "shiftY": "Science minus template position in y: what the match took and what it left.",
    "residualShiftX": "Science minus template position in x that the match left.",
    "residualShiftY": "Science minus template position in y that the match left.",
    "width": "Fractional width error of the match, in units of the science PSF's width.",
    "e1": "Shear error of the match along x.",
    "e2": "Shear error of the match along the diagonal.",
    "scienceWidth": "Fractional excess of stars' widths over the science PSF model.",
    "scienceE1": "Excess shear of stars over the science PSF model along x.",
    "scienceE2": "Excess shear of stars over the science PSF model along the diagonal.",
    "templateWidth": "Fractional excess of stars' widths over the template's PSF model.",
    "templateE1": "Excess shear of stars over the template's PSF model along x.",
    "templateE2": "Excess shear of stars over the template's PSF model along the diagonal.",
    "fluxScale": "Flux that is left of static stars beside their shift, width and shear, over their flux.",
    "noise": "Robust sigma around stars over the predicted one.",
    "kernelSum": "Sum of the matching kernel.",
    "kernelX": "Centroid of the matching kernel in x.",
    "kernelY": "Centroid of the matching kernel in y.",
    "kernelXX": "Second moment of the matching kernel in x.",
    "kernelYY": "Second moment of the matching kernel in y.",
    "kernelXY": "Mixed second moment of the matching kernel.",
    "parallacticAngle": "Direction of the zenith, east of north.",
}
"""Quantities of the maps and what they mean."""

_KERNEL_ORDER = 4
"""Order of the kernel's moments over a detector: ratios of polynomials of order two or three."""

_MAX_SCATTER = {"fluxScale": 0.007}
"""Flux scales are smooth: what single stars have besides is no more than the 5 mmag to which LSST's photometry repeats,
in each image. Stars that differ by more have changed, and shall not make changes the rule."""


def fit_detector_maps(
    stars: Table, bounds: Box, *, modes: str = "residualModes", noise: str = "localNoise", max_order: int = 3
) -> dict[str, SmoothMap]:
    """Fit the maps to diagnostics of static stars.

    Parameters
    ----------
    stars : `astropy.table.Table`
        One row a star: ``x``, ``y`` [pixel] and the columns of the diagnostics residualModes (without priors) and
        localNoise.
    bounds : `lsst.images.Box`
        Region of the maps.
    modes, noise : `str`, optional
        Names with which the columns of the two diagnostics begin.
    max_order : `int`, optional
        Largest order of a map.

    Returns
    -------
    maps : `dict` [`str`, `SmoothMap`]
        A map for each quantity for which there are stars enough.
    """

    def column(name: str) -> np.ndarray:
        return np.asarray(stars[f"{modes}_{name}"], dtype=float)

    static = column("staticFlux")
    point = np.isfinite(static) & ~np.asarray(stars[f"{modes}_isExtended"], dtype=bool)
    measured: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for axis in "XY":
        shift, error = column(f"shift{axis}"), column(f"shift{axis}Err")
        measured[f"shift{axis}"] = (shift + column(f"matchShift{axis}"), error)
        measured[f"residualShift{axis}"] = (shift, error)
    measured["width"] = (0.01 * column("width"), 0.01 * column("widthErr"))
    for name in ("e1", "e2"):
        measured[name] = (column(name), column(f"{name}Err"))
    for side in ("science", "template"):
        measured[f"{side}Width"] = (0.01 * column(f"{side}Width"), 0.01 * column(f"{side}WidthErr"))
        for name in ("E1", "E2"):
            measured[f"{side}{name}"] = (column(f"{side}{name}"), column(f"{side}{name}Err"))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Of the fluxes the one that is free of shifts and widths, second order included: what they contribute has
        # maps of its own, and would be expected twice.
        measured["fluxScale"] = (column("flux") / static, column("fluxErr") / np.abs(static))
    if f"{noise}_sigmaOverPredicted" in stars.colnames:
        sigma = np.asarray(stars[f"{noise}_sigmaOverPredicted"], dtype=float)
        n_pixels = np.asarray(stars[f"{noise}_nPixels"], dtype=float)
        # The median absolute deviation of n Gaussian pixels gives sigma to 1.17 / sqrt(n).
        measured["noise"] = (sigma, 1.17 * sigma / np.sqrt(np.maximum(n_pixels, 1.0)))
    x, y = (np.asarray(stars[name], dtype=float) for name in ("x", "y"))
    maps = {}
    for quantity, (value, error) in measured.items():
        fitted = fit_smooth_map(
            x[point],
            y[point],
            value[point],
            error[point],
            bounds,
            max_order=max_order,
            max_scatter=_MAX_SCATTER.get(quantity, np.inf),
        )
        if fitted is not None:
            maps[quantity] = fitted
    return maps


def kernel_maps(kernel: PixelBasis) -> Mapping[str, SmoothMap]:
    """Return sum, centroid and central second moments of a matching kernel as maps.

    Notes
    -----
    Moments over all of a noisy kernel would be those of its edge: they are taken with the kernel's own modulus as the
    window's size, within three times the radius that holds half of it.
    """
    order = min(_KERNEL_ORDER, 2 * kernel.field.order)
    x, y = kernel.field.sample_grid(order + 2)
    images = kernel.evaluate(x, y)
    size = images.shape[-1]
    grid = np.arange(size) - size // 2
    radius = np.hypot(grid[:, None], grid[None, :])
    modulus = np.abs(images).mean(axis=0).ravel()
    by_radius = np.argsort(radius.ravel(), kind="stable")
    cumulative = np.cumsum(modulus[by_radius])
    half = radius.ravel()[by_radius][np.searchsorted(cumulative, 0.5 * cumulative[-1])]
    inside = np.where(radius <= max(3.0 * half, 2.0), images, 0.0)
    total = inside.sum(axis=(1, 2))

    def moment(power_x: int, power_y: int) -> np.ndarray:
        weights = grid[None, :] ** power_x * grid[:, None] ** power_y
        return (inside * weights).sum(axis=(1, 2)) / total

    mean_x, mean_y = moment(1, 0), moment(0, 1)
    values = {
        "kernelSum": images.sum(axis=(1, 2)),
        "kernelX": mean_x,
        "kernelY": mean_y,
        "kernelXX": moment(2, 0) - mean_x**2,
        "kernelYY": moment(0, 2) - mean_y**2,
        "kernelXY": moment(1, 1) - mean_x * mean_y,
    }
    field = type(kernel.field)(kernel.bounds, order)
    terms = field.evaluate(x, y)
    maps = {}
    for quantity, value in values.items():
        coefficients = np.linalg.lstsq(terms, value)[0]
        maps[quantity] = SmoothMap(field, coefficients, np.zeros((field.n_terms, field.n_terms)))
    return maps
