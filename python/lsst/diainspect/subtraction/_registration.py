"""Flux ratio and relative position of two images, from PSF fits of their common stars."""

from __future__ import annotations

__all__ = ["Registration", "excess_scatter", "measure_registration"]

from dataclasses import dataclass

import numpy as np
import scipy.optimize

from ..psf import PolynomialField
from ._kernel_sources import KernelSources

_LEAST_FLUX_SCATTER = 1e-3
"""Least relative scatter assumed of single stars' flux ratios, so that the few brightest do not decide alone; what
is seen beyond photon noise (PSF errors, small variability) replaces it when larger."""

_LEAST_JITTER = 2e-3
"""Least scatter assumed of single stars' offsets [pixel], likewise."""


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

    def offsets_at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return science minus template positions at points [pixel], each (N,)."""
        terms = self.field.evaluate(x, y)
        return terms @ self.offset_x, terms @ self.offset_y

    def offset_at(self, x: float, y: float) -> tuple[float, float]:
        """Return science minus template position at a point [pixel]."""
        offset_x, offset_y = self.offsets_at(np.array([x]), np.array([y]))
        return float(offset_x[0]), float(offset_y[0])


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
        photon_error = np.abs(ratio) * np.hypot(
            science.flux_error / science.flux, template.flux_error / template.flux
        )
    offsets = np.stack([sources.offset_x, sources.offset_y])
    centroid_error = np.stack(
        [np.hypot(science.dx_error, template.dx_error), np.hypot(science.dy_error, template.dy_error)]
    )
    jitter = _LEAST_JITTER
    terms = field.evaluate(sources.x, sources.y)
    for _ in range(n_iterations):
        used = sources.used
        errors = np.hypot(centroid_error, jitter)
        # Scatter from the brighter half, whose photon noise is small.
        bright = used & (photon_error <= np.median(photon_error[used]))
        median_ratio = float(np.median(ratio[used]))
        scatter = max(
            excess_scatter(ratio[bright] - median_ratio, photon_error[bright]),
            _LEAST_FLUX_SCATTER * median_ratio,
        )
        ratio_error = np.hypot(photon_error, scatter)
        weight = ratio_error[used] ** -2
        flux_ratio = float(np.average(ratio[used], weights=weight))
        maps = [
            np.linalg.lstsq(terms[used] / errors[axis, used, None], offsets[axis, used] / errors[axis, used])[
                0
            ]
            for axis in (0, 1)
        ]
        residual = offsets - np.stack([terms @ coefficients for coefficients in maps])
        excess = excess_scatter(residual[:, used], centroid_error[:, used])
        jitter = max(excess, _LEAST_JITTER)
        pull = np.max(np.abs(residual) / np.hypot(centroid_error, jitter), axis=0)
        variable = np.abs(ratio - flux_ratio) > n_sigma * ratio_error
        displaced = pull > n_sigma
        clipped = (variable | displaced) & used
        if not clipped.any() or used.sum() - clipped.sum() < max(3, field.n_terms + 1):
            break
        sources = sources.reject(variable, "flux ratio").reject(displaced, "displaced")
    registration = Registration(
        flux_ratio=flux_ratio,
        flux_ratio_error=float(weight.sum() ** -0.5),
        field=field,
        offset_x=maps[0],
        offset_y=maps[1],
        jitter=excess,
        n_stars=int(sources.used.sum()),
    )
    return registration, sources


def excess_scatter(residual: np.ndarray, error: np.ndarray) -> float:
    """Return the scatter that, added in quadrature to the errors, gives residuals the spread they have.

    Solves median(|residual| / sqrt(error^2 + scatter^2)) = 0.6745, the median of a unit Gaussian's modulus; zero
    when the errors alone explain the residuals.
    """
    residual, error = np.abs(residual).ravel(), error.ravel()

    def excess(scatter: float) -> float:
        return float(np.median(residual / np.hypot(error, scatter))) - 0.6745

    largest = float(residual.max()) / 0.6745 + 1e-12
    if excess(0.0) <= 0:
        return 0.0
    return float(scipy.optimize.brentq(excess, 0.0, largest, xtol=1e-6 * largest))
