"""Draw the sources of all methods against each other: S/N, and stamps of the most discrepant."""

from __future__ import annotations

__all__ = ["PlotSourcesConfig", "PlotSourcesConnections", "PlotSourcesTask"]

from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table
from lsst.images import Image

from ..plots import DetectorLabel, gather_source_stamps, plot_snr, plot_stamps, rank_discrepant
from ._plot_task import PlotTask, add_method_inputs, by_method, methods_field

_KINDS = {
    "dia_stamps": "Stamps",
    "difference_image": "Difference image, for sources that only others found,",
    "score_image": "Score image, for sources that only others found,",
}

_STAMP_COLUMNS = ("diaSourceId", "science", "template", "difference")


class PlotSourcesConnections(
    pipeBase.PipelineTaskConnections, dimensions=("instrument", "visit", "detector")
):
    """Connections of `PlotSourcesTask`: besides these, three inputs for each method of the configuration."""

    comparison = cT.Input(
        doc="Sources of all methods, joined by position.",
        name="subtraction_comparison",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    stamps = cT.Output(
        doc="Figure of the sources on which the methods disagree most.",
        name="plot_stamps",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )
    snr = cT.Output(
        doc="Figure of the S/N of the methods against each other.",
        name="plot_snr",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: PlotSourcesConfig) -> None:
        add_method_inputs(self, config.methods, _KINDS)


class PlotSourcesConfig(pipeBase.PipelineTaskConfig, pipelineConnections=PlotSourcesConnections):
    """Configuration of `PlotSourcesTask`."""

    methods = methods_field()
    maxSources = pexConfig.RangeField[int](
        doc="Most sources of which stamps are shown.", default=8, min=1, max=40
    )


class PlotSourcesTask(PlotTask):
    """Draw the sources of all methods against each other."""

    ConfigClass = PlotSourcesConfig
    _DefaultName = "plotSources"
    config: PlotSourcesConfig

    def run(self, comparison: Table, label: DetectorLabel, **handles: Any) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        comparison : `astropy.table.Table`
            Sources of all methods, joined.
        label : `lsst.diainspect.plots.DetectorLabel`
            Title.
        **handles : `lsst.daf.butler.DeferredDatasetHandle`
            ``{method}_dia_stamps``, ``{method}_difference_image`` and ``{method}_score_image``, where they exist.
            Images are read only for sources that the method did not find.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``stamps`` and ``snr``, `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        chosen = rank_discrepant(comparison, methods, self.config.maxSources)
        tables: dict[str, Table | None] = dict.fromkeys(methods)
        if chosen:
            for method, handle in by_method(handles, methods, "dia_stamps").items():
                tables[method] = _read_stamps(handle)

        def read_image(method: str, kind: str) -> Image | None:
            handle = handles.get(f"{method}_{kind}_image")
            return None if handle is None else handle.get().image

        sources = gather_source_stamps(comparison, chosen, tables, read_image)
        return pipeBase.Struct(
            stamps=plot_stamps(sources, methods, label), snr=plot_snr(comparison, methods, label)
        )


def _read_stamps(handle: Any) -> Table:
    """Read the columns that are shown, of those that there are."""
    there = list(handle.get(component="columns"))
    return handle.get(parameters={"columns": [name for name in _STAMP_COLUMNS if name in there]})
