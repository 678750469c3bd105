"""Draw the offsets between the images at the sources that they were matched on."""

from __future__ import annotations

__all__ = ["PlotRegistrationConfig", "PlotRegistrationConnections", "PlotRegistrationTask"]

from typing import Any

import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table

from ..plots import DetectorLabel, plot_registration
from ._plot_task import PlotTask, add_method_inputs, by_method, methods_field

_KINDS = {"kernel_sources": "Candidate sources of the match"}


class PlotRegistrationConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"scienceName": "visit_image"},
):
    """Connections of `PlotRegistrationTask`: besides these, an input for each method of the configuration."""

    # All other inputs may be missing: without one that may not, detectors that were never observed get a quantum.
    science = cT.Input(
        doc="Science image; it is not read.",
        name="{scienceName}",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
        deferLoad=True,
    )
    plot = cT.Output(
        doc="Figure of the offsets between science image and template.",
        name="plot_registration",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: PlotRegistrationConfig) -> None:
        add_method_inputs(self, config.methods, _KINDS)


class PlotRegistrationConfig(pipeBase.PipelineTaskConfig, pipelineConnections=PlotRegistrationConnections):
    """Configuration of `PlotRegistrationTask`."""

    methods = methods_field()


class PlotRegistrationTask(PlotTask):
    """Draw offsets between the images."""

    ConfigClass = PlotRegistrationConfig
    _DefaultName = "plotRegistration"
    config: PlotRegistrationConfig

    def run(self, label: DetectorLabel, **handles: Any) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        label : `lsst.diainspect.plots.DetectorLabel`
            Title.
        **handles : `lsst.daf.butler.DeferredDatasetHandle`
            ``{method}_kernel_sources``, where they exist.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``plot``, `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        found = by_method(handles, methods, "kernel_sources")
        if not found:
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(methods)} has kernel sources for {label}."
            )
        tables: dict[str, Table | None] = dict.fromkeys(methods)
        tables.update({method: handle.get() for method, handle in found.items()})
        return pipeBase.Struct(plot=plot_registration(tables, label))
