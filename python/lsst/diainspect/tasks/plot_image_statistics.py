"""Draw the statistics of the differences of one detector: residuals of stars, their stacks, and maps."""

from __future__ import annotations

__all__ = ["PlotImageStatisticsConfig", "PlotImageStatisticsConnections", "PlotImageStatisticsTask"]

from typing import Any

import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table

from ..plots import DetectorLabel, plot_metric_maps, plot_star_residuals, plot_star_stacks
from ._plot_task import PlotTask, add_method_inputs, by_method, methods_field

_KINDS = {
    "image_statistics": "Statistics of the image",
    "image_stacks": "Stacks of stars",
    "star_residuals": "Residuals of static stars",
}


class PlotImageStatisticsConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"scienceName": "visit_image"},
):
    """Connections of `PlotImageStatisticsTask`: besides these, three inputs for each method."""

    # All other inputs may be missing: without one that may not, detectors that were never observed get a quantum.
    science = cT.Input(
        doc="Science image; it is not read.",
        name="{scienceName}",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
        deferLoad=True,
    )
    stars = cT.Output(
        doc="Figure of the residuals of static stars against their magnitude.",
        name="plot_star_residuals",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )
    stacks = cT.Output(
        doc="Figure of the mean residuals of stars, and of the PSF of the difference.",
        name="plot_star_stacks",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )
    maps = cT.Output(
        doc="Figure of maps of statistics over the detector.",
        name="plot_metric_maps",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: PlotImageStatisticsConfig) -> None:
        add_method_inputs(self, config.methods, _KINDS)


class PlotImageStatisticsConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=PlotImageStatisticsConnections
):
    """Configuration of `PlotImageStatisticsTask`."""

    methods = methods_field()


class PlotImageStatisticsTask(PlotTask):
    """Draw statistics of the differences."""

    ConfigClass = PlotImageStatisticsConfig
    _DefaultName = "plotImageStatistics"
    config: PlotImageStatisticsConfig

    def run(self, label: DetectorLabel, **handles: Any) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        label : `lsst.diainspect.plots.DetectorLabel`
            Title.
        **handles : `lsst.daf.butler.DeferredDatasetHandle`
            ``{method}_image_statistics``, ``{method}_image_stacks`` and ``{method}_star_residuals``, where they exist.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``stars``, ``stacks`` and ``maps``, `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        tables: dict[str, dict[str, Table | None]] = {}
        for kind in _KINDS:
            found = by_method(handles, methods, kind)
            tables[kind] = {method: found[method].get() if method in found else None for method in methods}
        if not any(table is not None for table in tables["image_statistics"].values()):
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(methods)} has statistics of its difference for {label}."
            )
        return pipeBase.Struct(
            stars=plot_star_residuals(tables["star_residuals"], label),
            stacks=plot_star_stacks(tables["image_stacks"], label),
            maps=plot_metric_maps(tables["image_statistics"], label),
        )
