"""Comparison of subtraction methods: their sources joined, and metrics of their images."""

from . import _image_metrics  # noqa: F401  (registers the metrics)
from ._cell_maps import CELL_STATISTICS, CellMap, measure_cell_maps
from ._difference_psf import DifferencePsf, measure_difference_psf
from ._forced_photometry import force_photometry
from ._image_statistics import (
    IMAGE_STACK_COLUMNS,
    IMAGE_STATISTICS_COLUMNS,
    cell_maps_from_table,
    image_stacks_table,
    image_statistics_table,
    sky_noise_from_tables,
)
from ._join import join_sources
from ._method_summary import METHOD_SUMMARY_COLUMNS, summarise_methods
from ._metric import (
    DifferenceMetric,
    MetricConfig,
    MetricInput,
    measure_metrics,
    metric_registry,
)
from ._run_comparison import RunComparison, compare_runs, join_runs
from ._run_report import render_run_comparison
from ._sky import find_sky
from ._sky_noise import HISTOGRAM_EDGES, SkyNoise, measure_sky_noise
from ._source_classes import FALLBACK_SCHEME, source_classes
from ._source_summary import SOURCE_SUMMARY_COLUMNS, summarise_sources
from ._star_residuals import ROLES, StarStack, measure_star_residuals, stack_star_residuals

__all__ = [
    "CELL_STATISTICS",
    "FALLBACK_SCHEME",
    "HISTOGRAM_EDGES",
    "IMAGE_STACK_COLUMNS",
    "IMAGE_STATISTICS_COLUMNS",
    "METHOD_SUMMARY_COLUMNS",
    "ROLES",
    "SOURCE_SUMMARY_COLUMNS",
    "CellMap",
    "DifferenceMetric",
    "DifferencePsf",
    "MetricConfig",
    "MetricInput",
    "RunComparison",
    "SkyNoise",
    "StarStack",
    "cell_maps_from_table",
    "compare_runs",
    "find_sky",
    "force_photometry",
    "image_stacks_table",
    "image_statistics_table",
    "join_runs",
    "join_sources",
    "measure_cell_maps",
    "measure_difference_psf",
    "measure_metrics",
    "measure_sky_noise",
    "measure_star_residuals",
    "metric_registry",
    "render_run_comparison",
    "sky_noise_from_tables",
    "source_classes",
    "stack_star_residuals",
    "summarise_methods",
    "summarise_sources",
]
