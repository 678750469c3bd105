"""Metrics of the sky of a difference image and of its source counts."""

from __future__ import annotations

__all__ = [
    "THRESHOLDS",
    "LowFrequencyPower",
    "NeighbourCorrelationX",
    "NeighbourCorrelationY",
    "NumberNegative",
    "NumberPositive",
    "PsfFluxRatio",
    "PsfWidthRatio",
    "ScoreMedian",
    "ScoreSigma",
    "ScoreTail",
    "SkyBackground",
    "SkyPixels",
    "SkySigmaOverPredicted",
    "SkyTail",
    "StarRmsFit",
    "StarRmsHeldOut",
]

from typing import ClassVar

import numpy as np

from ..detection import without_sky_sources
from ._metric import DifferenceMetric, MetricInput, metric_registry
from ._score_noise import median_with_error, neighbour_correlation, robust_sigma, tail_ratio
from ._star_residuals import BRIGHT_SNR

THRESHOLDS = (3, 4, 5)
"""Thresholds of the metrics of tails [robust sigma]."""

_LOW_FREQUENCY = 0.1
"""Largest spatial frequency of `LowFrequencyPower` [cycles / pixel]: a PSF of 4 pixels FWHM passes those below."""


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
        pull = data.pull[np.isfinite(data.pull)]
        return robust_sigma(pull, len(pull))


class ScoreSigma(DifferenceMetric):
    """Robust sigma of the score in the sky."""

    doc: ClassVar[str] = "Robust sigma of the score in blank sky; 1 when a threshold means what it says."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return data.score_noise.sigma, data.score_noise.sigma_error


class ScoreMedian(DifferenceMetric):
    """Median of the score in the sky."""

    doc: ClassVar[str] = "Median of the score in blank sky; 0 when the background is right."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return data.score_noise.median, data.score_noise.median_error


class SkyBackground(DifferenceMetric):
    """Median of the difference in the sky."""

    unit: ClassVar[str] = "nJy"
    doc: ClassVar[str] = "Median of the difference in blank sky; 0 when the background is right."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        values = data.difference[np.isfinite(data.pull)]
        return median_with_error(values, max(len(values), 1))


class SkyTail(DifferenceMetric):
    """Sky pixels of the difference beyond a threshold, over those of a Gaussian."""

    threshold: ClassVar[float]
    """Threshold about the median [robust sigma]."""

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return tail_ratio(data.pull[np.isfinite(data.pull)], self.threshold, 1.0)


class ScoreTail(DifferenceMetric):
    """Sky pixels of the score beyond a threshold, over those of a Gaussian."""

    threshold: ClassVar[float]
    """Threshold about the median [robust sigma]."""

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        values = data.sky_score[np.isfinite(data.sky_score)]
        return tail_ratio(values, self.threshold, data.score_noise.area)


class NeighbourCorrelationX(DifferenceMetric):
    """Correlation of neighbouring sky pixels in x."""

    doc: ClassVar[str] = "Correlation of neighbouring sky pixels in x; 0 when the noise is white."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return neighbour_correlation(data.pull, 0, 1)


class NeighbourCorrelationY(DifferenceMetric):
    """Correlation of neighbouring sky pixels in y."""

    doc: ClassVar[str] = "Correlation of neighbouring sky pixels in y; 0 when the noise is white."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return neighbour_correlation(data.pull, 1, 0)


class LowFrequencyPower(DifferenceMetric):
    """Power of the sky at low spatial frequencies."""

    doc: ClassVar[str] = (
        "Power of difference / sqrt(variance) in blank sky at periods of 10 pixels and more, which is what a point "
        "source competes with; 1 when the noise is white and as predicted."
    )

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        noise = data.sky_noise
        low = noise.frequency < _LOW_FREQUENCY
        if not low.any():
            return np.nan, np.nan
        # The modes of each ring: weights by the errors would favour rings with less power.
        weight = (noise.power[low] / noise.power_error[low]) ** 2
        weight /= weight.sum()
        value = (weight * noise.power[low]).sum()
        return float(value), float(np.sqrt((weight**2 * noise.power_error[low] ** 2).sum()))


class StarRms(DifferenceMetric):
    """Residual rms at bright static stars."""

    role: ClassVar[str]
    """Role of the stars in the match, of `ROLES`."""

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        if data.stars is None:
            return np.nan, np.nan
        bright = (np.asarray(data.stars["role"]).astype(str) == self.role) & (
            np.asarray(data.stars["snr"], dtype=float) > BRIGHT_SNR
        )
        rms = np.asarray(data.stars["rms"], dtype=float)[bright]
        rms = rms[np.isfinite(rms)]
        return median_with_error(rms, max(len(rms), 1))


class StarRmsFit(StarRms):
    """Residual rms at bright stars that the images were matched on."""

    role: ClassVar[str] = "fit"
    doc: ClassVar[str] = (
        "Median over bright static stars that the images were matched on of the rms of difference / sqrt(variance); "
        "1 when noise is all there is."
    )


class StarRmsHeldOut(StarRms):
    """Residual rms at bright stars that the match has not seen."""

    role: ClassVar[str] = "heldOut"
    doc: ClassVar[str] = (
        "Median over bright static stars that the match has not seen of the rms of difference / sqrt(variance); "
        "1 when noise is all there is."
    )


class PsfWidthRatio(DifferenceMetric):
    """Width of bright point sources over that of the PSF of the difference."""

    doc: ClassVar[str] = "Width of bright positive point sources in the difference over that of its PSF."

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return (np.nan, np.nan) if data.psf is None else (data.psf.width_ratio, data.psf.width_ratio_error)


class PsfFluxRatio(DifferenceMetric):
    """Aperture flux of bright point sources over their PSF flux."""

    doc: ClassVar[str] = (
        "Flux of bright positive point sources in an aperture, corrected to the whole PSF of the difference, over "
        "their PSF flux."
    )

    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Measure; see `DifferenceMetric.measure`."""
        return (np.nan, np.nan) if data.psf is None else (data.psf.flux_ratio, data.psf.flux_ratio_error)


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
metric_registry.register("scoreMedian", ScoreMedian)
metric_registry.register("skyBackground", SkyBackground)
metric_registry.register("lowFrequencyPower", LowFrequencyPower)
metric_registry.register("starRmsFit", StarRmsFit)
metric_registry.register("starRmsHeldOut", StarRmsHeldOut)
metric_registry.register("psfWidthRatio", PsfWidthRatio)
metric_registry.register("psfFluxRatio", PsfFluxRatio)

for _name, _base, _what in (
    ("skyTail", SkyTail, "difference / sqrt(variance)"),
    ("scoreTail", ScoreTail, "the score"),
):
    for _threshold in THRESHOLDS:
        _doc = (
            f"Blank sky pixels of {_what} beyond {_threshold} robust sigma of the median, on either side, over "
            "those of the Gaussian of the same core; 1 for Gaussian noise."
        )
        _members = {"threshold": float(_threshold), "doc": _doc, "__doc__": _doc}
        metric_registry.register(
            f"{_name}{_threshold}", type(f"{_base.__name__}{_threshold}", (_base,), _members)
        )
