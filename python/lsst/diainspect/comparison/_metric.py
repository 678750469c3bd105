"""Metrics: numbers of one difference image and its sources, as plugins."""

from __future__ import annotations

__all__ = ["DifferenceMetric", "MetricConfig", "MetricInput", "measure_metrics", "metric_registry"]

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from logging import Logger
from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
from astropy.table import Column, Table
from lsst.utils.logging import LsstLogAdapter, getLogger

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
    """

    difference: np.ndarray
    variance: np.ndarray
    score: np.ndarray
    sky: np.ndarray
    sources: Table


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
