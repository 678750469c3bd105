"""Draw a detector: science image, template, differences and scores."""

from __future__ import annotations

__all__ = ["PlotDetectorConfig", "PlotDetectorConnections", "PlotDetectorTask"]

from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images import MaskedImage

from ..masks import PLANES_BAD_FOR_SUBTRACTION
from ..plots import BinnedImage, DetectorLabel, DetectorPanels, bin_image, plot_detector
from ._plot_task import PlotTask, add_method_inputs, by_method, methods_field
from ._template_input import TemplateConnections, drop_template_connections, template_as_field

_KINDS = {
    "difference_image": "Difference image",
    "score_image": "Detection statistic in units of its own sigma",
    "dia_source": "DIA sources",
}


class PlotDetectorConnections(
    TemplateConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `PlotDetectorTask`: besides these, three inputs for each method of the configuration."""

    plot = cT.Output(
        doc="Figure of science image, template, differences and scores.",
        name="plot_detector",
        storageClass="Plot",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: PlotDetectorConfig) -> None:
        drop_template_connections(self, config.templateAs)
        add_method_inputs(self, config.methods, _KINDS)


class PlotDetectorConfig(pipeBase.PipelineTaskConfig, pipelineConnections=PlotDetectorConnections):
    """Configuration of `PlotDetectorTask`."""

    templateAs = template_as_field()
    methods = methods_field()
    maxSide = pexConfig.RangeField[int](
        doc="Most bins along the side of a panel; larger images are binned.", default=512, min=16
    )


class PlotDetectorTask(PlotTask):
    """Draw a detector."""

    ConfigClass = PlotDetectorConfig
    _DefaultName = "plotDetector"
    config: PlotDetectorConfig

    def run(
        self, science: MaskedImage, template: MaskedImage, label: DetectorLabel, **handles: Any
    ) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        science, template : `lsst.images.MaskedImage`
            Images.
        label : `lsst.diainspect.plots.DetectorLabel`
            Title.
        **handles : `lsst.daf.butler.DeferredDatasetHandle`
            ``{method}_difference_image``, ``{method}_score_image`` and ``{method}_dia_source``, where they exist. One
            image is in memory at a time.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``plot``, `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        differences, scores, sources = (by_method(handles, methods, kind) for kind in _KINDS)
        panels = {}
        for method in methods:
            difference, score, table = (each.get(method) for each in (differences, scores, sources))
            panels[method] = DetectorPanels(
                None if difference is None else self._bin(difference.get(), PLANES_BAD_FOR_SUBTRACTION),
                None if score is None else self._bin(score.get(), PLANES_BAD_FOR_SUBTRACTION, "extreme"),
                None if table is None else table.get(),
            )
        # Saturated stars are part of how an image looks.
        static = [self._bin(image, ("NO_DATA", "OFF_IMAGE")) for image in (science, template)]
        return pipeBase.Struct(plot=plot_detector(static[0], static[1], panels, label))

    def _bin(self, image: MaskedImage, exclude: tuple[str, ...], value: Any = "mean") -> BinnedImage:
        return bin_image(
            image.image.array,
            image.mask,
            image.bbox,
            exclude=exclude,
            value=value,
            max_side=self.config.maxSide,
        )
