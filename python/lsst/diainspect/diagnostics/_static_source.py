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
    """PSF fits on one image; every array has shape (N,), NaN where a fit was not possible.

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Positions with respect to the central pixel of the stamps [pixel].
    flux, flux_error : `numpy.ndarray`
        PSF flux, fitted with the position and a constant.
    shape, shape_error : `dict` [`str`, `numpy.ndarray`]
        Fractional width excess and excess shear over the PSF model, by `STATIC_MODES`.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    shape: dict[str, np.ndarray]
    shape_error: dict[str, np.ndarray]


@dataclass(frozen=True)
class StaticSources:
    """Static sources of N stamps.

    Parameters
    ----------
    x, y : `numpy.ndarray`, (N,)
        Where the match puts them on the difference, with respect to the central pixel of the stamps; finite [pixel].
    flux, flux_error : `numpy.ndarray`, (N,)
        PSF flux on the template at the scale of the science image.
    found : `numpy.ndarray`, (N,), bool
        Whether there is one, significant and near enough.
    science, template : `ImageModes`
        Fits on the two images.
    """

    x: np.ndarray
    y: np.ndarray
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
    template = _fit(
        stamps, models, "template", dx - match[0], dy - match[1], radius, _ITERATIONS, max_distance
    )
    x, y = template.x + match[0], template.y + match[1]
    science = _fit(stamps, models, "science", x, y, radius, 1, max_distance)
    scale = np.ones(len(stamps))
    if {"scienceFilter", "templateFilter"} <= stamps.models.keys():
        # What the filters do to a constant they do to fluxes; a static source vanishes from the difference.
        scale = _sums(stamps.models["templateFilter"]) / _sums(stamps.models["scienceFilter"])
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = template.flux / template.flux_error
    distance = np.hypot(x - dx, y - dy)
    found = (snr >= min_snr) & (distance <= max_distance) & (template.flux > 0)
    return StaticSources(
        x=x,
        y=y,
        flux=template.flux * scale,
        flux_error=template.flux_error * scale,
        found=found & np.isfinite(template.flux),
        science=science,
        template=template,
    )


def _fit(
    stamps: StampSet,
    models: ModeModels,
    plane: str,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    iterations: int,
    max_distance: float,
) -> ImageModes:
    """Fit position, flux, shape and a constant, the position by iterating unless there is one iteration only."""
    n = len(stamps)
    size = 2 * int(radius) + 1
    pixels, weights = stamps.good_pixels(plane), stamps.weight(plane)
    start_x, start_y = x, y
    last = iterations - 1
    for iteration in range(iterations):
        columns = _COLUMNS if iteration == last else _COLUMNS[:3]
        whole_x, whole_y = np.rint(x).astype(int), np.rint(y).astype(int)
        own_x, own_y = x - whole_x, y - whole_y
        images = np.empty((n, len(columns) + 1, size * size), dtype=np.float32)
        images[:, :-1] = models.images(plane, stamps.models, own_x, own_y, size, columns).reshape(
            n, len(columns), -1
        )
        images[:, -1] = 1.0
        data, weight = (np.empty((n, size * size), dtype=np.float32) for _ in range(2))
        _gather_disk(pixels, weights, whole_x, whole_y, own_x, own_y, size, radius, data, weight)
        equations = NormalEquations.from_pixels(data, images, weight)
        if iteration == last and f"{plane}Variance" not in stamps.planes:
            equations = equations.with_noise_from_residuals(data, images, weight, range(len(columns) + 1))
        constant = len(columns)
        fit = equations.solve([0, 1, 2, constant])
        if iterations > 1:
            with np.errstate(invalid="ignore", divide="ignore"):
                steps = fit.amplitude[:, 1:3] / fit.amplitude[:, :1]
            # Negative and absent sources have no position; neither is one found by leaving the detection behind.
            steps[~(fit.amplitude[:, 0] > 0)] = 0.0
            steps = np.clip(np.nan_to_num(steps), -_MAX_STEP, _MAX_STEP)
            reach = max_distance + _MAX_STEP
            x = np.clip(x + steps[:, 0], start_x - reach, start_x + reach)
            y = np.clip(y + steps[:, 1], start_y - reach, start_y + reach)
    joint = equations.solve([*range(len(columns)), constant])
    flux, error = fit.amplitude[:, 0], fit.error[:, 0]
    shape_error = joint.error
    with np.errstate(invalid="ignore", divide="ignore"):
        return ImageModes(
            x=x,
            y=y,
            flux=flux,
            flux_error=error,
            shape={
                name: joint.amplitude[:, 3 + j] / joint.amplitude[:, 0] for j, name in enumerate(STATIC_MODES)
            },
            shape_error={
                name: shape_error[:, 3 + j] / np.abs(joint.amplitude[:, 0])
                for j, name in enumerate(STATIC_MODES)
            },
        )


@compiled
def _gather_disk(
    pixels: np.ndarray,
    weights: np.ndarray,
    whole_x: np.ndarray,
    whole_y: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    size: int,
    radius: float,
    data: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Cut pixels about (whole_x, whole_y) from the centres of stamps, and their weights within a radius.

    Beyond the stamps, and about positions (x, y) from the cut's central pixel beyond the radius, weights are zero.
    """
    full = pixels.shape[1]
    low = full // 2 - size // 2
    zero, square = np.float32(0.0), radius**2
    across = np.empty(size)
    for n in range(len(pixels)):
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
                pixels[n, row, first + left : first + right],
                weights[n, row, first + left : first + right],
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
