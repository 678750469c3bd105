"""Comparison of subtraction methods: their sources joined, and metrics of their images."""

from . import _image_metrics  # noqa: F401  (registers the metrics)
from ._join import join_sources
from ._metric import (
    DifferenceMetric,
    MetricConfig,
    MetricInput,
    measure_metrics,
    metric_registry,
)
from ._sky import find_sky

__all__ = [
    "DifferenceMetric",
    "MetricConfig",
    "MetricInput",
    "find_sky",
    "join_sources",
    "measure_metrics",
    "metric_registry",
]
