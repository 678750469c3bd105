"""Flux ratio and relative position of two images, from PSF fits of their common stars."""

from __future__ import annotations

__all__ = ["Registration", "measure_registration"]

from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std

from ..psf import PolynomialField
from ._kernel_sources import KernelSources

_MODEL_ERROR = 0.01
"""Relative error given to every flux in the mean ratio, so that the few brightest stars do not decide alone."""

_MEDIAN_OF_CHI2 = 0.4549
"""Median of a chi-square variable of one degree of freedom."""

_CENTROID_FLOOR = 0.02
"""Error added to every offset [pixel], likewise."""


@dataclass(frozen=True)
class Registration:
    """Flux ratio and offsets between science image and template.

    Parameters
    ----------
    flux_ratio, flux_ratio_error : `float`
        Science over template flux of stars.
    field : `PolynomialField`
        Terms of the offset maps.
    offset_x, offset_y : `numpy.ndarray`, (n_terms,)
        Coefficients of science minus template position [pixel].
    jitter : `float`
        Scatter of single stars about the maps beyond their errors, per coordinate [pixel].
    n_stars : `int`
        Stars in use.
    """

    flux_ratio: float
    flux_ratio_error: float
    field: PolynomialField
    offset_x: np.ndarray
    offset_y: np.ndarray
    jitter: float
    n_stars: int

    def offset_at(self, x: float, y: float) -> tuple[float, float]:
        """Return science minus template position at a point [pixel]."""
        terms = self.field.evaluate(np.array([x]), np.array([y]))[0]
        return float(terms @ self.offset_x), float(terms @ self.offset_y)


def measure_registration(
    sources: KernelSources, field: PolynomialField, *, n_sigma: float = 4.0, n_iterations: int = 4
) -> tuple[Registration, KernelSources]:
    """Measure flux ratio and offset maps from the sources in use, rejecting outliers.

    Parameters
    ----------
    sources : `KernelSources`
        Candidates.
    field : `PolynomialField`
        Terms of the offset maps; the order is lowered when there are fewer than three stars a term.
    n_sigma : `float`, optional
        Clipping threshold.
    n_iterations : `int`, optional
        Clipping rounds.

    Returns
    -------
    registration : `Registration`
        Results.
    sources : `KernelSources`
        Candidates with the outliers rejected.
    """
    while field.order > 0 and sources.used.sum() < 3 * field.n_terms:
        field = PolynomialField(field.bounds, field.order - 1)
    science, template = sources.science, sources.template
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = science.flux / template.flux
        ratio_error = np.abs(ratio) * np.sqrt(
            (science.flux_error / science.flux) ** 2
            + (template.flux_error / template.flux) ** 2
            + _MODEL_ERROR**2
        )
    offsets = np.stack([sources.offset_x, sources.offset_y])
    errors = np.sqrt(
        np.stack(
            [
                science.dx_error**2 + template.dx_error**2,
                science.dy_error**2 + template.dy_error**2,
            ]
        )
        + _CENTROID_FLOOR**2
    )
    terms = field.evaluate(sources.x, sources.y)
    for _ in range(n_iterations):
        used = sources.used
        weight = ratio_error[used] ** -2
        flux_ratio = float(np.average(ratio[used], weights=weight))
        maps = [
            np.linalg.lstsq(terms[used] / errors[axis, used, None], offsets[axis, used] / errors[axis, used])[
                0
            ]
            for axis in (0, 1)
        ]
        residual = offsets - np.stack([terms @ coefficients for coefficients in maps])
        pull = np.max(np.abs(residual) / _robust_scale(residual[:, used], errors[:, used], errors), axis=0)
        ratio_scale = max(1.0, float(mad_std((ratio - flux_ratio)[used] / ratio_error[used])))
        variable = np.abs(ratio - flux_ratio) > n_sigma * ratio_scale * ratio_error
        displaced = pull > n_sigma
        clipped = (variable | displaced) & used
        if not clipped.any() or used.sum() - clipped.sum() < max(3, field.n_terms + 1):
            break
        sources = sources.reject(variable, "flux ratio").reject(displaced, "displaced")
    used = sources.used
    measured = errors[:, used] ** 2 - _CENTROID_FLOOR**2
    excess = np.median(residual[:, used] ** 2) / _MEDIAN_OF_CHI2 - np.median(measured)
    registration = Registration(
        flux_ratio=flux_ratio,
        flux_ratio_error=float(weight.sum() ** -0.5),
        field=field,
        offset_x=maps[0],
        offset_y=maps[1],
        jitter=float(np.sqrt(max(excess, 0.0))),
        n_stars=int(used.sum()),
    )
    return registration, sources


def _robust_scale(residual: np.ndarray, used_errors: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Scale the errors up to the scatter seen, where that is larger."""
    return errors * max(1.0, float(mad_std(residual / used_errors)))
