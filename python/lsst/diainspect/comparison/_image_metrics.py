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

from ._metric import DifferenceMetric, MetricInput, metric_registry

_MAD_ERROR = 1.166
"""Standard error of a sigma from the median absolute deviation, times sqrt(N), for Gaussian noise."""


def _robust_sigma(values: np.ndarray, n_independent: float) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    sigma = float(mad_std(values))
    return sigma, sigma * _MAD_ERROR / np.sqrt(n_independent)


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
        pull = data.difference[data.sky] / np.sqrt(data.variance[data.sky])
        return _robust_sigma(pull, len(pull))


class ScoreSigma(DifferenceMetric):
    """Robust sigma of the score in the sky."""

    doc: ClassVar[str] = "Robust sigma of the score in blank sky; 1 when a threshold means what it says."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        values = data.score[data.sky]
        correlated = (
            _correlation(data.score, data.sky, 0, 1) ** 2 + _correlation(data.score, data.sky, 1, 0) ** 2
        )
        # A Gaussian correlation of rho at one pixel makes about -2 pi / ln(rho) pixels one independent one.
        mean_square = np.clip(0.5 * correlated, 1e-4, 0.98)
        area = max(1.0, -2.0 * np.pi / np.log(mean_square))
        return _robust_sigma(values, len(values) / area)


def _correlation(image: np.ndarray, sky: np.ndarray, step_y: int, step_x: int) -> float:
    height, width = image.shape
    first = (slice(0, height - step_y), slice(0, width - step_x))
    second = (slice(step_y, height), slice(step_x, width))
    both = sky[first] & sky[second]
    if both.sum() < 2:
        return np.nan
    a, b = image[first][both], image[second][both]
    limit = 5.0 * mad_std(a)
    keep = (np.abs(a) < limit) & (np.abs(b) < limit)
    return float(np.corrcoef(a[keep], b[keep])[0, 1])


class NeighbourCorrelationX(DifferenceMetric):
    """Correlation of neighbouring sky pixels in x."""

    doc: ClassVar[str] = "Correlation of neighbouring sky pixels in x; 0 when the noise is white."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        pull = data.difference / np.sqrt(data.variance)
        return _correlation(pull, data.sky, 0, 1), float(1.0 / np.sqrt(max(data.sky.sum(), 1)))


class NeighbourCorrelationY(DifferenceMetric):
    """Correlation of neighbouring sky pixels in y."""

    doc: ClassVar[str] = "Correlation of neighbouring sky pixels in y; 0 when the noise is white."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        pull = data.difference / np.sqrt(data.variance)
        return _correlation(pull, data.sky, 1, 0), float(1.0 / np.sqrt(max(data.sky.sum(), 1)))


class NumberPositive(DifferenceMetric):
    """Number of positive sources."""

    doc: ClassVar[str] = "Positive DIA sources."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        n = float((~np.asarray(data.sources["isNegative"], dtype=bool)).sum())
        return n, np.sqrt(n)


class NumberNegative(DifferenceMetric):
    """Number of negative sources."""

    doc: ClassVar[str] = "Negative DIA sources."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        n = float(np.asarray(data.sources["isNegative"], dtype=bool).sum())
        return n, np.sqrt(n)


metric_registry.register("skyPixels", SkyPixels)
metric_registry.register("skySigmaOverPredicted", SkySigmaOverPredicted)
metric_registry.register("scoreSigma", ScoreSigma)
metric_registry.register("neighbourCorrelationX", NeighbourCorrelationX)
metric_registry.register("neighbourCorrelationY", NeighbourCorrelationY)
metric_registry.register("numberPositive", NumberPositive)
metric_registry.register("numberNegative", NumberNegative)
