"""Noise around a source: is it as large as predicted, white, and free of rings?"""

from __future__ import annotations

__all__ = ["LocalNoiseConfig", "LocalNoiseDiagnostic"]

from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
import scipy.special

from ..compiled import compiled
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry

_LOW, _HIGH = scipy.special.ndtr([-1.0, 1.0])
"""Fractions of a Gaussian below -1 and 1 sigma."""

_N_PRODUCTS = 6


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
        pixels = stamps.good_pixels("difference").reshape(n, -1)
        grid = np.arange(size) - size // 2
        distance = np.hypot(grid, grid[:, None]).ravel()
        outside = distance > self.config.innerRadius
        ordered = np.empty((n, np.count_nonzero(outside)), dtype=np.float32)
        _pulls_outside(pixels, root, np.flatnonzero(outside), ordered)
        median, sigma, n_pixels = _median_and_sigma(ordered)
        products = np.empty((n, _N_PRODUCTS))
        _neighbour_products(
            pixels.reshape(n, size, size),
            root.reshape(n, size, size),
            outside.reshape(size, size),
            median.astype(np.float32),
            sigma.astype(np.float32),
            self.config.clip,
            products,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_square = products[:, 0] / products[:, 1]
            along_x, along_y = (
                np.where(products[:, i + 1] > 0, products[:, i] / products[:, i + 1] / mean_square, np.nan)
                for i in (2, 4)
            )
        values = {
            "sigmaOverPredicted": sigma,
            "correlationX": along_x,
            "correlationY": along_y,
            "nPixels": n_pixels,
        }
        values["ringPower"], values["ringChi2"] = self._rings(stamps, pixels, root, median, sigma)
        return values

    def _rings(
        self,
        stamps: StampSet,
        pixels: np.ndarray,
        root: np.ndarray,
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
        ring = np.full(size * size, -1)
        for index, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            ring[(distance >= low) & (distance < high)] = index
        model = np.zeros((0, 0), dtype=np.float32)
        if "differencePsf" in stamps.models:
            model = stamps.centred_model("differencePsf").reshape(n, -1)
        power, chi2 = np.empty(n), np.empty(n)
        _ring_sums(
            pixels, root, model, ring, len(edges) - 1, np.nan_to_num(median).astype(np.float32), power, chi2
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return power / sigma**2, chi2 / sigma**2


@compiled
def _pulls_outside(pixels: np.ndarray, root: np.ndarray, outside: np.ndarray, pulls: np.ndarray) -> None:
    """Fill the pulls of pixels (N, K) at some places; infinite where bad."""
    for n in range(len(pixels)):
        for i in range(len(outside)):
            k = outside[i]
            good = root[n, k] > np.float32(0.0)
            pulls[n, i] = pixels[n, k] * root[n, k] if good else np.float32(np.inf)


@compiled
def _neighbour_products(
    pixels: np.ndarray,
    root: np.ndarray,
    outside: np.ndarray,
    median: np.ndarray,
    sigma: np.ndarray,
    clip: float,
    products: np.ndarray,
) -> None:
    """Fill, of the clipped pulls, the sum of squares and their number, and of the products of neighbours in x and
    y and their numbers, (N, 6)."""
    size = pixels.shape[1]
    # Two rows are enough: this one and the one below.
    pull, kept = np.zeros((2, size), np.float32), np.zeros((2, size), np.float32)
    zero, one, limit = np.float32(0.0), np.float32(1.0), np.float32(clip)
    for n in range(len(pixels)):
        squares, number = zero, zero
        by_x, number_x, by_y, number_y = zero, zero, zero, zero
        measurable = sigma[n] > zero
        factor = one / sigma[n] if measurable else zero
        for y in range(size):
            this, before = y % 2, 1 - y % 2
            for x in range(size):
                scaled = (pixels[n, y, x] * root[n, y, x] - median[n]) * factor
                good = measurable & (root[n, y, x] > zero) & (abs(scaled) < limit) & outside[y, x]
                kept[this, x] = one if good else zero
                pull[this, x] = scaled if good else zero
            for x in range(size):
                squares += pull[this, x] * pull[this, x]
                number += kept[this, x]
            for x in range(size - 1):
                by_x += pull[this, x] * pull[this, x + 1]
                number_x += kept[this, x] * kept[this, x + 1]
            if y > 0:
                for x in range(size):
                    by_y += pull[this, x] * pull[before, x]
                    number_y += kept[this, x] * kept[before, x]
        products[n, 0], products[n, 1] = squares, number
        products[n, 2], products[n, 3] = by_x, number_x
        products[n, 4], products[n, 5] = by_y, number_y


@compiled
def _ring_sums(
    pixels: np.ndarray,
    root: np.ndarray,
    model: np.ndarray,
    ring: np.ndarray,
    n_rings: int,
    median: np.ndarray,
    power: np.ndarray,
    chi2: np.ndarray,
) -> None:
    """Fill the mean square of the pulls on rings, and the mean over rings of (sum of pulls)^2 / number."""
    zero = np.float32(0.0)
    sums, counts = np.empty(n_rings), np.empty(n_rings)
    for n in range(len(pixels)):
        flux = zero
        if len(model):
            cross, norm = zero, zero
            for k in range(pixels.shape[1]):
                own = model[n, k] * root[n, k]
                cross += own * pixels[n, k] * root[n, k]
                norm += own * own
            flux = cross / norm if norm > zero else zero
        sums[:], counts[:] = 0.0, 0.0
        squares = 0.0
        for k in range(pixels.shape[1]):
            if ring[k] >= 0 and root[n, k] > zero:
                residual = pixels[n, k] * root[n, k] - median[n]
                if len(model):
                    residual -= flux * model[n, k] * root[n, k]
                squares += residual * residual
                sums[ring[k]] += residual
                counts[ring[k]] += 1.0
        power[n] = squares / counts.sum()
        mean, n_there = 0.0, 0
        for r in range(n_rings):
            if counts[r] > 0:
                mean += sums[r] ** 2 / counts[r]
                n_there += 1
        chi2[n] = mean / n_there if n_there else np.nan


def _median_and_sigma(pulls: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return median and half the range from the 16th to the 84th percentile of the finite pulls, and their number.

    The pulls (N, K), infinite where bad, are sorted in place.
    """
    n_good = np.isfinite(pulls).sum(axis=1)
    ordered = pulls
    ordered.sort(axis=1)
    rows = np.arange(len(pulls))
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


diagnostic_registry.register("localNoise", LocalNoiseDiagnostic)
