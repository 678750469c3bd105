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
        pixels, weight = stamps.good_pixels("difference"), stamps.weight("difference")
        grid = np.arange(size) - size // 2
        distance = np.hypot(grid, grid[:, None])
        outside = distance > self.config.innerRadius
        ordered, n_pixels = np.empty((n, np.count_nonzero(outside)), dtype=np.float32), np.empty(n, dtype=int)
        _pulls_outside(
            pixels.reshape(n, -1),
            weight.reshape(n, -1),
            np.flatnonzero(outside).astype(np.uint32),
            ordered,
            n_pixels,
        )
        median, sigma = _median_and_sigma(ordered, n_pixels)
        model = np.zeros((0, size, size), dtype=np.float32)
        if "differencePsf" in stamps.models:
            model = stamps.centred_model("differencePsf")
        products, power, chi2 = np.empty((n, _N_PRODUCTS)), np.full(n, np.nan), np.full(n, np.nan)
        _add_up(
            pixels,
            weight,
            model,
            outside,
            *self._rings(distance),
            median.astype(np.float32),
            sigma.astype(np.float32),
            self.config.clip,
            products,
            power,
            chi2,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_square = products[:, 0] / products[:, 1]
            along_x, along_y = (
                np.where(products[:, i + 1] > 0, products[:, i] / products[:, i + 1] / mean_square, np.nan)
                for i in (2, 4)
            )
            return {
                "sigmaOverPredicted": sigma,
                "correlationX": along_x,
                "correlationY": along_y,
                "nPixels": n_pixels,
                "ringPower": power / sigma**2,
                "ringChi2": chi2 / sigma**2,
            }

    def _rings(self, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of rings, by their numbers in a stamp with one more column, and where each ring starts.

        ``distance`` (size, size) is that of the pixels. Without room for a ring there is none.
        """
        size = len(distance)
        inner, outer = self.config.ringInnerRadius, min(self.config.ringOuterRadius, size // 2 - 1)
        edges = np.arange(inner, outer + 1e-6, 1.0)
        rings = [
            np.flatnonzero(np.pad((distance >= low) & (distance < high), ((0, 0), (0, 1))))
            for low, high in zip(edges[:-1], edges[1:], strict=True)
        ]
        starts = np.cumsum([0, *(len(ring) for ring in rings)])
        return np.concatenate([np.empty(0, dtype=int), *rings]).astype(np.uint32), starts


@compiled
def _pulls_outside(
    pixels: np.ndarray, weight: np.ndarray, outside: np.ndarray, pulls: np.ndarray, n_good: np.ndarray
) -> None:
    """Fill the pulls of pixels (N, K) at some places, infinite where bad, and the numbers of the finite ones."""
    n_pixels = pixels.shape[1]
    own = np.empty(n_pixels, np.float32)
    for n in range(len(pixels)):
        for k in range(n_pixels):
            good = weight[n, k] > np.float32(0.0)
            own[k] = pixels[n, k] * np.sqrt(weight[n, k]) if good else np.float32(np.inf)
        result, number = pulls[n], 0
        for i in range(len(outside)):
            result[i] = own[outside[i]]
        for i in range(len(outside)):
            number += np.isfinite(result[i])
        n_good[n] = number


@compiled
def _add_up(
    pixels: np.ndarray,
    weight: np.ndarray,
    model: np.ndarray,
    outside: np.ndarray,
    rings: np.ndarray,
    starts: np.ndarray,
    median: np.ndarray,
    sigma: np.ndarray,
    clip: float,
    products: np.ndarray,
    power: np.ndarray,
    chi2: np.ndarray,
) -> None:
    """Fill what noise and rings are told from.

    Of the clipped pulls outside: the sum of squares and their number, and of the products of neighbours in x and y and
    their numbers, (N, 6). Of the pulls on rings, without the model if there is one: the mean square, and the mean
    over rings of (sum of pulls)^2 / number.
    """
    size = pixels.shape[1]
    # A column of zeros at the end of the rows, so that a stamp is one long row whose neighbours are neighbours.
    width = size + 1
    n_pixels = size * width
    scratch = np.zeros((6, n_pixels), np.float32)
    root, pull, seen = scratch[0], scratch[1], scratch[2]
    scaled, kept, allowed = scratch[3], scratch[4], scratch[5]
    zero, one, limit = np.float32(0.0), np.float32(1.0), np.float32(clip)
    for i in range(size):
        for j in range(size):
            allowed[i * width + j] = one if outside[i, j] else zero
    for n in range(len(pixels)):
        for i in range(size):
            source, own = pixels[n, i], weight[n, i]
            own_root, own_pull = root[i * width : i * width + size], pull[i * width : i * width + size]
            for j in range(size):
                own_root[j] = np.sqrt(own[j])
                own_pull[j] = source[j] * own_root[j]
        measurable = sigma[n] > zero
        factor, middle = one / sigma[n] if measurable else zero, median[n]
        squares, number = zero, zero
        for k in range(n_pixels):
            value = (pull[k] - middle) * factor
            good = (root[k] * allowed[k] > zero) & (abs(value) < limit)
            scaled[k] = value if good else zero
            kept[k] = one if good else zero
            squares += scaled[k] * scaled[k]
            number += kept[k]
        if not measurable:
            squares, number = zero, zero
            scaled[:], kept[:] = zero, zero
        by_x, number_x, by_y, number_y = zero, zero, zero, zero
        right, kept_right, above, kept_above = scaled[1:], kept[1:], scaled[width:], kept[width:]
        for k in range(len(right)):
            by_x += scaled[k] * right[k]
            number_x += kept[k] * kept_right[k]
        for k in range(len(above)):
            by_y += scaled[k] * above[k]
            number_y += kept[k] * kept_above[k]
        products[n, 0], products[n, 1] = squares, number
        products[n, 2], products[n, 3] = by_x, number_x
        products[n, 4], products[n, 5] = by_y, number_y
        flux = zero
        if len(model):
            for i in range(size):
                image, own_seen = model[n, i], seen[i * width : i * width + size]
                for j in range(size):
                    own_seen[j] = image[j]
            cross, norm = zero, zero
            for k in range(n_pixels):
                seen[k] *= root[k]
                cross += seen[k] * pull[k]
                norm += seen[k] * seen[k]
            flux = cross / norm if norm > zero else zero
        middle = middle if np.isfinite(middle) else zero
        power_there, n_there, mean, n_rings = 0.0, 0.0, 0.0, 0
        for r in range(len(starts) - 1):
            total, count = 0.0, 0.0
            for place in rings[starts[r] : starts[r + 1]]:
                if root[place] > zero:
                    residual = pull[place] - middle - flux * seen[place]
                    power_there += residual * residual
                    total += residual
                    count += 1.0
            if count > 0.0:
                mean += total**2 / count
                n_rings += 1
            n_there += count
        power[n] = power_there / n_there
        chi2[n] = mean / n_rings if n_rings else np.nan


def _median_and_sigma(pulls: np.ndarray, n_good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return median and half the range from the 16th to the 84th percentile of the finite pulls, ``n_good`` in number.

    The pulls (N, K), infinite where bad, are sorted in place.
    """
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
    return median, sigma


diagnostic_registry.register("localNoise", LocalNoiseDiagnostic)
