"""Metrics of the sky of a difference image and of its source counts."""

from __future__ import annotations

__all__ = [
    "NeighbourCorrelationX",
    "NeighbourCorrelationY",
    "NumberNegative",
    "NumberPositive",
    "ScoreSigma",
    "SkyPixels",
    "SkySigmaOverPredicted",
]

from typing import ClassVar

import numpy as np
from astropy.stats import mad_std

from ..detection import without_sky_sources
from ._metric import DifferenceMetric, MetricInput, metric_registry

_MAD_ERROR = 1.166
"""Standard error of a sigma from the median absolute deviation, times sqrt(N), for Gaussian noise."""


_CLIP = 5.0
"""Pixels beyond this many robust sigma do not enter correlations."""

_CORRELATED_AREA = 0.27
"""Pixels that make an independent one for a median absolute deviation of noise with the correlation
exp(-r^2 / 4 s^2), divided by 4 pi s^2: the integral over rho of (probability that two variables with correlation
rho are on the same side of the median absolute deviation - 1/2) / (rho / 2)."""


def _robust_sigma(values: np.ndarray, n_independent: float) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    sigma = float(mad_std(values))
    return sigma, float(sigma * _MAD_ERROR / np.sqrt(n_independent))


def _pull(data: MetricInput) -> np.ndarray:
    """Return difference / sqrt(variance), NaN outside the sky."""
    pull = np.full(data.difference.shape, np.nan, dtype=data.difference.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        pull[data.sky] = data.difference[data.sky] / np.sqrt(data.variance[data.sky])
    return pull


class SkyPixels(DifferenceMetric):
    """Number of sky pixels the other metrics rest on."""

    unit: ClassVar[str] = "pix"
    doc: ClassVar[str] = "Good pixels away from sources, edge and masks."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return float(data.sky.sum()), 0.0


class SkySigmaOverPredicted(DifferenceMetric):
    """Robust sigma of difference / sqrt(variance) in the sky."""

    doc: ClassVar[str] = (
        "Robust sigma of difference / sqrt(variance) in blank sky; 1 when the noise is as predicted."
    )

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        pull = _pull(data)
        pull = pull[np.isfinite(pull)]
        return _robust_sigma(pull, len(pull))


class ScoreSigma(DifferenceMetric):
    """Robust sigma of the score in the sky."""

    doc: ClassVar[str] = "Robust sigma of the score in blank sky; 1 when a threshold means what it says."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        score = np.where(data.sky, data.score, np.nan)
        values = score[np.isfinite(score)]
        squared = 0.5 * (_correlation(score, 0, 1)[0] ** 2 + _correlation(score, 1, 0)[0] ** 2)
        # exp(-r^2 / 4 s^2) squared at one pixel is `squared`.
        width2 = -0.5 / np.log(np.clip(squared, 1e-6, 0.98))
        area = np.maximum(1.0, _CORRELATED_AREA * 4.0 * np.pi * width2)
        return _robust_sigma(values, len(values) / area)


def _correlation(image: np.ndarray, step_y: int, step_x: int) -> tuple[float, float]:
    """Return the correlation of pixels one step apart, where neither is NaN, and its error if it is zero."""
    height, width = image.shape
    a = image[: height - step_y, : width - step_x]
    b = image[step_y:, step_x:]
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 2:
        return np.nan, np.nan
    middle, limit = np.median(a), _CLIP * mad_std(a)
    keep = (np.abs(a - middle) < limit) & (np.abs(b - middle) < limit)
    if keep.sum() < 2:
        return np.nan, np.nan
    return float(np.corrcoef(a[keep], b[keep])[0, 1]), float(1.0 / np.sqrt(keep.sum()))


class NeighbourCorrelationX(DifferenceMetric):
    """Correlation of neighbouring sky pixels in x."""

    doc: ClassVar[str] = "Correlation of neighbouring sky pixels in x; 0 when the noise is white."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return _correlation(_pull(data), 0, 1)


class NeighbourCorrelationY(DifferenceMetric):
    """Correlation of neighbouring sky pixels in y."""

    doc: ClassVar[str] = "Correlation of neighbouring sky pixels in y; 0 when the noise is white."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return _correlation(_pull(data), 1, 0)


class NumberPositive(DifferenceMetric):
    """Number of positive sources."""

    doc: ClassVar[str] = "Positive DIA sources."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        n = float((~np.asarray(without_sky_sources(data.sources)["isNegative"], dtype=bool)).sum())
        return n, np.sqrt(n)


class NumberNegative(DifferenceMetric):
    """Number of negative sources."""

    doc: ClassVar[str] = "Negative DIA sources."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        n = float(np.asarray(without_sky_sources(data.sources)["isNegative"], dtype=bool).sum())
        return n, np.sqrt(n)


metric_registry.register("skyPixels", SkyPixels)
metric_registry.register("skySigmaOverPredicted", SkySigmaOverPredicted)
metric_registry.register("scoreSigma", ScoreSigma)
metric_registry.register("neighbourCorrelationX", NeighbourCorrelationX)
metric_registry.register("neighbourCorrelationY", NeighbourCorrelationY)
metric_registry.register("numberPositive", NumberPositive)
metric_registry.register("numberNegative", NumberNegative)
