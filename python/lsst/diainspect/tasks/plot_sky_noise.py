"""Draw the noise of blank sky: histograms and power spectrum."""

from __future__ import annotations

__all__ = ["PlotSkyNoiseConfig", "PlotSkyNoiseConnections", "PlotSkyNoiseTask"]

from typing import Any

import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT

from ..comparison import SkyNoise, sky_noise_from_tables
from ..plots import DetectorLabel, plot_noise, plot_power
from ._plot_task import PlotTask, add_method_inputs, by_method, methods_field

_KINDS = {
    "image_statistics": "Statistics of the image",
    "image_stacks": "Autocorrelation of the sky",
}


class PlotSkyNoiseConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"scienceName": "visit_image"},
):
    """Connections of `PlotSkyNoiseTask`: besides these, two inputs for each method of the configuration."""

    # All other inputs may be missing: without one that may not, detectors that were never observed get a quantum.
    science = cT.Input(
        doc="Science image; it is not read.",
        name="{scienceName}",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
        deferLoad=True,
    )
    noise = cT.Output(
        doc="Figure of blank sky against the Gaussian of unit width.",
        name="plot_noise",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )
    power = cT.Output(
        doc="Figure of the power spectrum of blank sky.",
        name="plot_power",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: PlotSkyNoiseConfig) -> None:
        add_method_inputs(self, config.methods, _KINDS)


class PlotSkyNoiseConfig(pipeBase.PipelineTaskConfig, pipelineConnections=PlotSkyNoiseConnections):
    """Configuration of `PlotSkyNoiseTask`."""

    methods = methods_field()


class PlotSkyNoiseTask(PlotTask):
    """Draw the noise of blank sky."""

    ConfigClass = PlotSkyNoiseConfig
    _DefaultName = "plotSkyNoise"
    config: PlotSkyNoiseConfig

    def run(self, label: DetectorLabel, **handles: Any) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        label : `lsst.diainspect.plots.DetectorLabel`
            Title.
        **handles : `lsst.daf.butler.DeferredDatasetHandle`
            ``{method}_image_statistics`` and ``{method}_image_stacks``, where they exist.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``noise`` and ``power``, `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        statistics, stacks = (by_method(handles, methods, kind) for kind in _KINDS)
        if not statistics:
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(methods)} has statistics of its difference for {label}."
            )
        noise: dict[str, SkyNoise | None] = dict.fromkeys(methods)
        for method, handle in statistics.items():
            if method in stacks:
                noise[method] = sky_noise_from_tables(handle.get(), stacks[method].get())
        return pipeBase.Struct(noise=plot_noise(noise, label), power=plot_power(noise, label))
