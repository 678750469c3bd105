"""Noise around a source: is it as large as predicted, white, and free of rings?"""

from __future__ import annotations

__all__ = ["LocalNoiseConfig", "LocalNoiseDiagnostic"]

from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
import scipy.special

from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry

_LOW, _HIGH = scipy.special.ndtr([-1.0, 1.0])
"""Fractions of a Gaussian below -1 and 1 sigma."""


class LocalNoiseConfig(DiagnosticConfig):
    """Configuration of `LocalNoiseDiagnostic`."""

    innerRadius = pexConfig.RangeField[float](
        doc="Pixels within this radius of the stamp's central pixel are left out [pixel].",
        default=8.0,
        min=0.0,
    )
    clip = pexConfig.RangeField[float](
        doc="Pixels beyond this many sigma do not enter the correlation.", default=4.0, min=1.0
    )
    ringInnerRadius = pexConfig.RangeField[float](
        doc="Inner radius of the annulus in which rings are looked for [pixel].", default=4.0, min=0.0
    )
    ringOuterRadius = pexConfig.RangeField[float](
        doc="Outer radius of the annulus in which rings are looked for [pixel].", default=14.0, min=2.0
    )

    def validate(self) -> None:
        """Check the annulus."""
        super().validate()
        if self.ringOuterRadius < self.ringInnerRadius + 1.0:
            raise pexConfig.FieldValidationError(
                LocalNoiseConfig.ringOuterRadius,
                self,
                f"must be a pixel more than ringInnerRadius = {self.ringInnerRadius}; got {self.ringOuterRadius}.",
            )


class LocalNoiseDiagnostic(Diagnostic):
    """Robust sigma of the pulls p = difference / sqrt(variance) outside the source, the correlation of
    neighbours, and rings about the source.

    Sigma is half the range between the 16th and 84th percentile: for N pixels of white Gaussian noise it scatters
    by 0.87 / sqrt(N) about 1. Each correlation scatters by 1 / sqrt(N) about 0. The stamp's median is taken off
    first, so that a background that was left does not read as a correlation.

    Rings are judged in the annulus about the source, with the difference's best point source (there where it has a
    PSF) taken off. ringPower is the mean of p^2 over that of the local noise, 1 if there is nothing.
    ringChi2 = sum over rings one pixel wide of (sum p)^2 / n over the same, per ring: 1 for white noise, and large
    where the sign alternates with the radius, as ringing of a kernel or a wrong PSF width does.

    Limits: radii are measured from the central pixel for the noise, and from the source for the rings, to half a
    pixel; correlated noise raises ringChi2.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = LocalNoiseConfig
    needs: ClassVar[frozenset[str]] = frozenset({"difference", "differenceVariance"})
    config: LocalNoiseConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Sigma ratio, correlations and rings."""
        return {
            "sigmaOverPredicted": DiagnosticColumn(
                "float32",
                None,
                "Robust sigma of difference / sqrt(variance) around the source; 1 if predicted.",
            ),
            "correlationX": DiagnosticColumn("float32", None, "Correlation of neighbours in x."),
            "correlationY": DiagnosticColumn("float32", None, "Correlation of neighbours in y."),
            "nPixels": DiagnosticColumn("int32", None, "Pixels used."),
            "ringPower": DiagnosticColumn(
                "float32", None, "Mean square of the annulus over that of the noise around; 1 without rings."
            ),
            "ringChi2": DiagnosticColumn(
                "float32",
                None,
                "Chi-square of the means of rings over that of the noise, per ring; 1 without.",
            ),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        n, size = len(stamps), stamps.size
        weight = stamps.weight("difference").reshape(n, -1)
        root = np.sqrt(weight)
        good = (weight > 0).astype(np.float32)
        pull = stamps.good_pixels("difference").reshape(n, -1) * root
        grid = np.arange(size) - size // 2
        distance = np.hypot(grid, grid[:, None]).ravel()
        outside = np.flatnonzero(distance > self.config.innerRadius)
        median, sigma, n_pixels = _median_and_sigma(pull.take(outside, axis=1), good.take(outside, axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = (pull - median[:, None].astype(np.float32)) / sigma[:, None].astype(np.float32)
        kept = good * (np.abs(scaled) < self.config.clip)
        kept[:, distance <= self.config.innerRadius] = 0.0
        scaled[~np.isfinite(sigma) | (sigma == 0)] = 0.0
        clipped = scaled * kept
        values = {
            "sigmaOverPredicted": sigma,
            "correlationX": _correlation(clipped, kept, size, axis=1),
            "correlationY": _correlation(clipped, kept, size, axis=0),
            "nPixels": n_pixels,
        }
        values["ringPower"], values["ringChi2"] = self._rings(stamps, pull, root, good, median, sigma)
        return values

    def _rings(
        self,
        stamps: StampSet,
        pull: np.ndarray,
        root: np.ndarray,
        good: np.ndarray,
        median: np.ndarray,
        sigma: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the power in the annulus and the chi-square of its rings."""
        n, size = len(stamps), stamps.size
        inner, outer = self.config.ringInnerRadius, min(self.config.ringOuterRadius, size // 2 - 1)
        grid = np.arange(size) - size // 2
        distance = np.hypot(grid, grid[:, None]).ravel()
        edges = np.arange(inner, outer + 1e-6, 1.0)
        if len(edges) < 2:
            return np.full(n, np.nan), np.full(n, np.nan)
        rings = np.stack(
            [(distance >= low) & (distance < high) for low, high in zip(edges[:-1], edges[1:], strict=True)],
            axis=-1,
        ).astype(np.float32)
        near = np.flatnonzero(rings.any(axis=1))
        rings, residual, seen = rings[near], pull.take(near, axis=1), good.take(near, axis=1)
        if "differencePsf" in stamps.models:
            model = stamps.centred_model("differencePsf").reshape(n, -1) * root
            with np.errstate(invalid="ignore", divide="ignore"):
                flux = np.einsum("ni,ni->n", model, pull) / np.einsum("ni,ni->n", model, model)
            residual = residual - np.nan_to_num(flux)[:, None] * model.take(near, axis=1)
        residual = (residual - np.nan_to_num(median)[:, None].astype(np.float32)) * seen
        sums, counts = residual @ rings, seen @ rings
        with np.errstate(invalid="ignore", divide="ignore"):
            power = np.einsum("ni,ni->n", residual, residual) / (counts.sum(axis=1) * sigma**2)
            chi2 = (
                np.nanmean(np.where(counts > 0, sums**2 / counts, np.nan), axis=1) / sigma**2 if n else sigma
            )
        return power, chi2


def _median_and_sigma(pull: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return median and half the range from the 16th to the 84th percentile of the good pixels, and their number."""
    n_good = good.sum(axis=1).astype(int)
    ordered = pull.copy()
    ordered[good == 0] = np.inf
    ordered.sort(axis=1)
    rows = np.arange(len(pull))
    quantiles = []
    for fraction in (_LOW, 0.5, _HIGH):
        # The position of a quantile that does not favour either end.
        place = np.clip(fraction * n_good - 0.5, 0.0, np.maximum(n_good - 1, 0))
        below = place.astype(int)
        above = np.minimum(below + 1, np.maximum(n_good - 1, 0))
        share = place - below
        with np.errstate(invalid="ignore"):
            quantiles.append(ordered[rows, below] * (1.0 - share) + ordered[rows, above] * share)
    measurable = n_good >= 2
    median = np.where(measurable, quantiles[1], np.nan)
    with np.errstate(invalid="ignore"):
        sigma = np.where(measurable, 0.5 * (quantiles[2] - quantiles[0]), np.nan)
    return median, sigma, n_good


def _correlation(pull: np.ndarray, kept: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Return the mean product of neighbours along an axis over the mean square."""
    if axis == 0:
        first, second = slice(None, -size), slice(size, None)
        products = np.einsum("ni,ni->n", pull[:, first], pull[:, second])
        pairs = np.einsum("ni,ni->n", kept[:, first], kept[:, second])
    else:
        # The last pixel of a row and the first of the next are no neighbours.
        image, seen = pull.reshape(-1, size, size), kept.reshape(-1, size, size)
        products = np.einsum("ni,ni->n", pull[:, :-1], pull[:, 1:])
        products -= np.einsum("ni,ni->n", image[:, :-1, -1], image[:, 1:, 0])
        pairs = np.einsum("ni,ni->n", kept[:, :-1], kept[:, 1:])
        pairs -= np.einsum("ni,ni->n", seen[:, :-1, -1], seen[:, 1:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_square = np.einsum("ni,ni->n", pull, pull) / kept.sum(axis=1)
        return np.where(pairs > 0, products / pairs / mean_square, np.nan)


diagnostic_registry.register("localNoise", LocalNoiseDiagnostic)
