"""The static source under a detection: where it is, how bright, and how its images differ from the PSF models.

It is found on the template, which has no transient, and its flux is taken from there to the scale of the science
image. The residual modes fitted to the template and to the science image each say whose PSF model is wrong, which the
difference alone cannot.
"""

from __future__ import annotations

__all__ = ["STATIC_MODES", "ImageModes", "StaticSources", "find_static_sources"]

from dataclasses import dataclass

import numpy as np

from ..compiled import compiled
from ..stamps import StampModel, StampSet
from ._mode_models import ModeModels
from ._normal_equations import NormalEquations

STATIC_MODES = ("width", "e1", "e2")
"""What is measured of a source's shape on science image and template."""

_ITERATIONS = 3
_MAX_STEP = 1.0
"""Largest move in one iteration [pixel]: beyond the PSF's core the linear model does not hold."""

_COLUMNS = ("source", "shiftX", "shiftY", *STATIC_MODES)


@dataclass(frozen=True)
class ImageModes:
    """Shapes on one image; every array has shape (N,), NaN where there is no static source or no fit was possible.

    Parameters
    ----------
    shape, shape_error : `dict` [`str`, `numpy.ndarray`]
        Fractional width excess and excess shear over the PSF model, by `STATIC_MODES`.
    """

    shape: dict[str, np.ndarray]
    shape_error: dict[str, np.ndarray]


@dataclass(frozen=True)
class StaticSources:
    """Static sources of N stamps.

    Parameters
    ----------
    x, y : `numpy.ndarray`, (N,)
        Where the match puts them on the difference, with respect to the central pixel of the stamps; finite [pixel].
    template_x, template_y : `numpy.ndarray`, (N,)
        Where they are on the template [pixel].
    flux, flux_error : `numpy.ndarray`, (N,)
        PSF flux on the template at the scale of the science image, fitted with the position and a constant.
    found : `numpy.ndarray`, (N,), bool
        Whether there is one, significant and near enough.
    science, template : `ImageModes`
        Fits on the two images.
    """

    x: np.ndarray
    y: np.ndarray
    template_x: np.ndarray
    template_y: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    found: np.ndarray
    science: ImageModes
    template: ImageModes


def find_static_sources(
    stamps: StampSet,
    models: ModeModels,
    match: tuple[np.ndarray, np.ndarray],
    *,
    radius: float,
    min_snr: float,
    max_distance: float,
) -> StaticSources:
    """Find the static source near each detection.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps with science image, template and their PSFs.
    models : `ModeModels`
        Models of their sources.
    match : `tuple` [`numpy.ndarray`, `numpy.ndarray`]
        Science minus template position that the match took, (N,) each [pixel].
    radius : `float`
        Radius of the fitted disk [pixel].
    min_snr : `float`
        Least signal-to-noise ratio on the template.
    max_distance : `float`
        Largest distance from the detection [pixel].
    """
    dx, dy = (np.nan_to_num(d) for d in (stamps.dx, stamps.dy))
    start_x, start_y = dx - match[0], dy - match[1]
    own_x, own_y, fitted_x, fitted_y = start_x.copy(), start_y.copy(), start_x.copy(), start_y.copy()
    flux, error = np.full(len(stamps), np.nan), np.full(len(stamps), np.nan)
    reach = max_distance + _MAX_STEP
    rows = np.arange(len(stamps))
    for iteration in range(_ITERATIONS):
        if len(rows) == 0:
            break
        # Without a variance the errors are those of what the last fit, with the shape, leaves.
        full = iteration == _ITERATIONS - 1 and "templateVariance" not in stamps.planes
        columns = _COLUMNS if full else _COLUMNS[:3]
        x, y = own_x[rows], own_y[rows]
        equations = _equations(stamps, models, "template", rows, x, y, radius, columns)
        fit = equations.solve([0, 1, 2, len(columns)])
        flux[rows], error[rows] = fit.amplitude[:, 0], fit.error[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            steps = fit.amplitude[:, 1:3] / fit.amplitude[:, :1]
        steps = np.clip(np.nan_to_num(steps), -_MAX_STEP, _MAX_STEP)
        # Negative and absent sources have no position; neither is one found by leaving the detection behind.
        positive = fit.amplitude[:, 0] > 0
        rows, x, y, steps = rows[positive], x[positive], y[positive], steps[positive]
        fitted_x[rows], fitted_y[rows] = x, y
        own_x[rows] = np.clip(x + steps[:, 0], start_x[rows] - reach, start_x[rows] + reach)
        own_y[rows] = np.clip(y + steps[:, 1], start_y[rows] - reach, start_y[rows] + reach)
    x, y = own_x + match[0], own_y + match[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (flux / error >= min_snr) & (np.hypot(x - dx, y - dy) <= max_distance) & (flux > 0)
    found &= np.isfinite(flux)
    rows = np.flatnonzero(found)
    scale = np.ones(len(stamps))
    if {"scienceFilter", "templateFilter"} <= stamps.models.keys():
        # What the filters do to a constant they do to fluxes; a static source vanishes from the difference.
        scale = _sums(stamps.models["templateFilter"]) / _sums(stamps.models["scienceFilter"])
    return StaticSources(
        x=x,
        y=y,
        template_x=own_x,
        template_y=own_y,
        flux=flux * scale,
        flux_error=error * scale,
        found=found,
        science=_shapes(
            len(stamps),
            rows,
            _equations(stamps, models, "science", rows, x[rows], y[rows], radius, _COLUMNS),
        ),
        template=_shapes(
            len(stamps),
            rows,
            _equations(stamps, models, "template", rows, fitted_x[rows], fitted_y[rows], radius, _COLUMNS),
        ),
    )


def _shapes(n: int, rows: np.ndarray, equations: NormalEquations) -> ImageModes:
    """Solve some sources' equations of all columns; the others of n have no shape."""
    fit = equations.solve(range(len(_COLUMNS) + 1))
    flux, error = fit.amplitude[:, 0], fit.error
    shape, shape_error = ({name: np.full(n, np.nan) for name in STATIC_MODES} for _ in range(2))
    with np.errstate(invalid="ignore", divide="ignore"):
        for name in STATIC_MODES:
            column = _COLUMNS.index(name)
            shape[name][rows] = fit.amplitude[:, column] / flux
            shape_error[name][rows] = error[:, column] / np.abs(flux)
    return ImageModes(shape, shape_error)


def _equations(
    stamps: StampSet,
    models: ModeModels,
    plane: str,
    rows: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    columns: tuple[str, ...],
) -> NormalEquations:
    """Return the normal equations of some columns at positions (x, y) and, last, a constant, for some sources."""
    n, size = len(rows), 2 * int(radius) + 1
    own = {name: model[rows] for name, model in stamps.models.items()}
    whole_x, whole_y = np.rint(x).astype(int), np.rint(y).astype(int)
    own_x, own_y = x - whole_x, y - whole_y
    images: np.ndarray = np.empty((n, len(columns) + 1, size, size), dtype=np.float32)
    models.images(plane, own, own_x, own_y, size, columns, images[:, :-1])
    images[:, -1] = 1.0
    images = images.reshape(n, len(columns) + 1, size * size)
    data, weight = (np.empty((n, size * size), dtype=np.float32) for _ in range(2))
    _gather_disk(
        stamps.good_pixels(plane),
        stamps.weight(plane),
        rows,
        whole_x,
        whole_y,
        own_x,
        own_y,
        size,
        radius,
        data,
        weight,
    )
    equations = NormalEquations.from_pixels(data, images, weight)
    if len(columns) == len(_COLUMNS) and f"{plane}Variance" not in stamps.planes:
        equations = equations.with_noise_from_residuals(data, images, weight, range(len(columns) + 1))
    return equations


@compiled
def _gather_disk(
    pixels: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
    whole_x: np.ndarray,
    whole_y: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    size: int,
    radius: float,
    data: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Cut pixels about (whole_x, whole_y) from the centres of some stamps, and their weights within a radius.

    Beyond the stamps, and about positions (x, y) from the cut's central pixel beyond the radius, weights are zero.
    """
    full = pixels.shape[1]
    low = full // 2 - size // 2
    zero, square = np.float32(0.0), radius**2
    across = np.empty(size)
    for n in range(len(rows)):
        for j in range(size):
            across[j] = (j - size // 2 - x[n]) ** 2
        first = whole_x[n] + low
        left, right = max(-first, 0), max(min(full - first, size), 0)
        whole = left == 0 and right == size
        for i in range(size):
            row = whole_y[n] + low + i
            own_data, own_weight = data[n, i * size : (i + 1) * size], weight[n, i * size : (i + 1) * size]
            inside = 0 <= row < full and left < right
            if not (inside and whole):
                own_data[:], own_weight[:] = zero, zero
            if not inside:
                continue
            up = (i - size // 2 - y[n]) ** 2
            # Parts of the rows, because an index that is a sum might be negative, for all the compiler knows.
            source, inverse = (
                pixels[rows[n], row, first + left : first + right],
                weights[rows[n], row, first + left : first + right],
            )
            goal, result, distance = own_data[left:right], own_weight[left:right], across[left:right]
            for j in range(len(goal)):
                near = distance[j] + up <= square
                goal[j] = source[j] if near else zero
                result[j] = inverse[j] if near else zero


def _sums(model: StampModel) -> np.ndarray:
    """Return the sums of the images of a model, (N,)."""
    sums = model.basis.sum(axis=(1, 2))
    return sums if model.coefficients is None else model.coefficients @ sums
