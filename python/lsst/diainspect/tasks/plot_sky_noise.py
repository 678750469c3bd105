"""Draw the noise of blank sky: histograms and power spectrum."""

from __future__ import annotations

__all__ = ["PlotSkyNoiseConfig", "PlotSkyNoiseConnections", "PlotSkyNoiseTask"]

from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images import MaskedImage

from ..comparison import find_sky
from ..plots import DetectorLabel, SkyNoise, measure_sky_noise, plot_noise, plot_power
from ._plot_task import PlotTask, add_method_inputs, by_method, methods_field
from ._template_input import TemplateConnections, drop_template_connections, template_as_field

_KINDS = {
    "difference_image": "Difference image",
    "score_image": "Detection statistic in units of its own sigma",
}


class PlotSkyNoiseConnections(
    TemplateConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `PlotSkyNoiseTask`: besides these, two inputs for each method of the configuration."""

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
        drop_template_connections(self, config.templateAs)
        add_method_inputs(self, config.methods, _KINDS)


class PlotSkyNoiseConfig(pipeBase.PipelineTaskConfig, pipelineConnections=PlotSkyNoiseConnections):
    """Configuration of `PlotSkyNoiseTask`."""

    templateAs = template_as_field()
    methods = methods_field()
    skyDistance = pexConfig.RangeField[int](
        doc="Least distance of a sky pixel from pixels of sources [pixel].", default=10, min=0
    )


class PlotSkyNoiseTask(PlotTask):
    """Draw the noise of blank sky."""

    ConfigClass = PlotSkyNoiseConfig
    _DefaultName = "plotSkyNoise"
    config: PlotSkyNoiseConfig

    def run(
        self, science: MaskedImage, template: MaskedImage, label: DetectorLabel, **handles: Any
    ) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        science, template : `lsst.images.MaskedImage`
            Images, in which sources are masked.
        label : `lsst.diainspect.plots.DetectorLabel`
            Title.
        **handles : `lsst.daf.butler.DeferredDatasetHandle`
            ``{method}_difference_image`` and ``{method}_score_image``, where they exist. One method's images are in
            memory at a time.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``noise`` and ``power``, `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        differences, scores = (by_method(handles, methods, kind) for kind in _KINDS)
        if not differences:
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(methods)} made a difference for {label}."
            )
        noise: dict[str, SkyNoise | None] = dict.fromkeys(methods)
        for method, handle in differences.items():
            difference = handle.get()
            score = scores[method].get().image.array if method in scores else None
            noise[method] = measure_sky_noise(
                difference.image.array,
                difference.variance.array,
                score,
                find_sky(
                    science[difference.bbox], template[difference.bbox], difference, self.config.skyDistance
                ),
            )
        return pipeBase.Struct(noise=plot_noise(noise, label), power=plot_power(noise, label))
