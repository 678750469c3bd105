"""Metrics: numbers of one difference image and its sources, as plugins."""

from __future__ import annotations

__all__ = ["DifferenceMetric", "MetricConfig", "MetricInput", "measure_metrics", "metric_registry"]

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from logging import Logger
from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
from astropy.table import Column, Table
from lsst.utils.logging import LsstLogAdapter, getLogger

from ._difference_psf import DifferencePsf
from ._score_noise import ScoreNoise, measure_score_noise
from ._sky_noise import SkyNoise, measure_sky_noise

_LOG = getLogger(__name__)


@dataclass(frozen=True)
class MetricInput:
    """What a metric is measured on.

    Parameters
    ----------
    difference, variance, score : `numpy.ndarray`, (height, width)
        Difference [nJy], its variance [nJy^2] and the score.
    sky : `numpy.ndarray`, (height, width), bool
        Good pixels away from every static source, from the edge and from masked pixels.
    sources : `astropy.table.Table`
        DIA sources.
    stars : `astropy.table.Table`, optional
        Residuals of static stars, as `measure_star_residuals` makes them.
    psf : `DifferencePsf`, optional
        What bright point sources say of the PSF of the difference.

    Notes
    -----
    What several metrics need is computed once, when it is first asked for.
    """

    difference: np.ndarray
    variance: np.ndarray
    score: np.ndarray
    sky: np.ndarray
    sources: Table
    stars: Table | None = None
    psf: DifferencePsf | None = None

    @cached_property
    def pull(self) -> np.ndarray:
        """Difference / sqrt(variance), NaN outside the sky and where that is not finite, (height, width)."""
        pull = np.full(self.difference.shape, np.nan, dtype=np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            pull[self.sky] = self.difference[self.sky] / np.sqrt(self.variance[self.sky])
        pull[~np.isfinite(pull)] = np.nan
        return pull

    @cached_property
    def sky_score(self) -> np.ndarray:
        """Score, NaN outside the sky, (height, width)."""
        return np.where(self.sky & np.isfinite(self.score), self.score, np.nan)

    @cached_property
    def score_noise(self) -> ScoreNoise:
        """Median, sigma and correlation of the score in the sky."""
        return measure_score_noise(self.sky_score)

    @cached_property
    def sky_noise(self) -> SkyNoise:
        """Histograms, autocorrelation and power spectrum of the sky."""
        return measure_sky_noise(self.difference, self.variance, self.score, self.sky)


class MetricConfig(pexConfig.Config):
    """Configuration that every metric has."""


class DifferenceMetric(abc.ABC):
    """A number of one difference image.

    Parameters
    ----------
    config : `MetricConfig`
        Instance of the class's ``ConfigClass``.
    """

    ConfigClass: ClassVar[type[MetricConfig]] = MetricConfig

    unit: ClassVar[str] = ""
    """Unit of the value, as `astropy.units` spells it."""

    doc: ClassVar[str]
    """Meaning of the value."""

    def __init__(self, config: MetricConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def measure(self, data: MetricInput) -> tuple[float, float]:
        """Return the value and its standard error; NaN for what cannot be measured."""
        raise NotImplementedError


metric_registry = pexConfig.makeRegistry("Metrics of a difference image.")


def measure_metrics(
    data: MetricInput, plugins: Mapping[str, DifferenceMetric], log: Logger | LsstLogAdapter = _LOG
) -> Table:
    """Measure metrics; one that fails is NaN, with a warning.

    Returns
    -------
    table : `astropy.table.Table`
        One row a metric: ``metric``, ``value``, ``error``, ``unit``, ``description``.
    """
    rows = []
    for name, plugin in plugins.items():
        try:
            value, error = plugin.measure(data)
        except Exception as err:
            log.warning("Metric %s failed: %s", name, err)
            value, error = np.nan, np.nan
        rows.append((name, value, error, plugin.unit, plugin.doc))
    table = Table()
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    table["metric"] = Column(np.array(columns[0], dtype="U64"), description="Name of the metric.")
    table["value"] = Column(np.array(columns[1], dtype=float), description="Value.")
    table["error"] = Column(np.array(columns[2], dtype=float), description="Standard error of the value.")
    table["unit"] = Column(np.array(columns[3], dtype="U32"), description="Unit of value and error.")
    table["description"] = Column(np.array(columns[4], dtype="U256"), description="Meaning.")
    return table
