"""Flux ratio and relative position of two images, from PSF fits of their common stars."""

from __future__ import annotations

__all__ = ["DISPLACED", "VARIABLE", "Registration", "excess_scatter", "measure_registration"]

from dataclasses import dataclass

import numpy as np
import scipy.optimize

from ..psf import PolynomialField
from ._kernel_sources import KernelSources

DISPLACED = "displaced"
"""Reason for rejection of stars that moved; they still tell the flux ratio."""

VARIABLE = "flux ratio"
"""Reason for rejection of stars whose flux ratio is not that of the others."""

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
        Stars that the flux ratio comes from.
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
    terms = field.evaluate(sources.x, sources.y)
    least = max(3, field.n_terms + 1)
    # One bright variable, or one that moved, among few stars draws any mean to itself: start from medians.
    centred = offsets - np.median(offsets[:, sources.used], axis=1, keepdims=True)
    jitter = max(excess_scatter(centred[:, sources.used], centroid_error[:, sources.used]), _LEAST_JITTER)
    steady, still = sources.used, sources.used
    for _ in range(n_iterations):
        # Scatter from the brighter half, whose photon noise is small.
        bright = steady & (photon_error <= np.median(photon_error[steady]))
        median_ratio = float(np.median(ratio[steady]))
        scatter = max(
            excess_scatter(ratio[bright] - median_ratio, photon_error[bright]),
            _LEAST_FLUX_SCATTER * median_ratio,
        )
        ratio_error = np.hypot(photon_error, scatter)
        variable = _worst(np.abs(ratio - median_ratio) / ratio_error, steady, n_sigma, 3)

        errors = np.hypot(centroid_error, jitter)
        maps = [
            np.linalg.lstsq(
                terms[still] / errors[axis, still, None], offsets[axis, still] / errors[axis, still]
            )[0]
            for axis in (0, 1)
        ]
        residual = offsets - np.stack([terms @ coefficients for coefficients in maps])
        excess = excess_scatter(residual[:, still], centroid_error[:, still])
        jitter = max(excess, _LEAST_JITTER)
        pull = np.max(np.abs(residual) / np.hypot(centroid_error, jitter), axis=0)
        displaced = _worst(pull, still, n_sigma, least)
        if not (variable | displaced).any():
            break
        # A star that moved still tells the flux ratio; one that varies may be no star at all.
        steady &= ~variable
        still &= ~(variable | displaced) if (still & ~(variable | displaced)).sum() >= least else ~displaced
        sources = sources.reject(variable, VARIABLE).reject(displaced, DISPLACED)
    weight = ratio_error[steady] ** -2
    flux_ratio = float(np.average(ratio[steady], weights=weight))
    registration = Registration(
        flux_ratio=flux_ratio,
        flux_ratio_error=float(weight.sum() ** -0.5),
        field=field,
        offset_x=maps[0],
        offset_y=maps[1],
        jitter=excess,
        n_stars=int(steady.sum()),
    )
    return registration, sources


def _worst(pull: np.ndarray, used: np.ndarray, n_sigma: float, least: int) -> np.ndarray:
    """Return which of the sources in use lie beyond a number of sigmas: the worst, such that some are left."""
    order = np.argsort(-np.where(used, pull, -np.inf))
    worst = np.zeros(len(pull), dtype=bool)
    worst[order[: max(0, int(used.sum()) - least)]] = True
    return worst & used & (pull > n_sigma)


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
