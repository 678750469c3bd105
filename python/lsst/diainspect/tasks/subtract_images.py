"""Subtract a template from a science image by a configurable algorithm."""

from __future__ import annotations

__all__ = ["SubtractImagesConfig", "SubtractImagesConnections", "SubtractImagesTask"]

from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images import MaskedImage, VisitImage
from lsst.images.psfs import PointSpreadFunction

from ..masks import PLANES_BAD_FOR_SUBTRACTION
from ..plugins import load_plugins
from ..subtraction import (
    ImagePair,
    SubtractionError,
    filters_to_table,
    make_difference_image,
    make_matched_template,
    make_score_image,
    measure_regeneration,
    result_filters,
    subtractor_registry,
)
from ._own_psf import own_psf
from ._template_input import (
    TemplateConnections,
    assemble_template,
    drop_template_connections,
    template_as_field,
)

load_plugins()

_OUTPUT_CONNECTIONS = {
    "kernel": "kernel",
    "kernelSources": "kernelSources",
    "kernelQuality": "kernelQuality",
    "templateMatched": "templateMatched",
    "score": "score",
}
"""Connections of the outputs that not every subtractor makes, by the name in ``Subtractor.outputs``."""


class SubtractImagesConnections(
    TemplateConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"method": "al", "scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `SubtractImagesTask`."""

    templatePsf = cT.Input(
        doc="PSF of the template.",
        name="{templateName}.psf",
        storageClass="PointSpreadFunction",
        dimensions=("instrument", "visit", "detector"),
    )
    difference = cT.Output(
        doc="Decorrelated difference image.",
        name="{method}_difference_image",
        storageClass="DifferenceImage",
        dimensions=("instrument", "visit", "detector"),
    )
    score = cT.Output(
        doc="Detection statistic in units of its own sigma.",
        name="{method}_score_image",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
    )
    filters = cT.Output(
        doc="PSFs of the images and the filters that made the difference, over the detector.",
        name="{method}_difference_filters",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    kernel = cT.Output(
        doc="Matching kernel, applied by convolution.",
        name="{method}_difference_kernel",
        storageClass="ConvolutionKernel",
        dimensions=("instrument", "visit", "detector"),
    )
    kernelSources = cT.Output(
        doc="Candidate sources of the match: used, or rejected and why.",
        name="{method}_kernel_sources",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    kernelQuality = cT.Output(
        doc="How good the matching kernel is: its shape over the detector, where it extrapolates, and how well it "
        "predicts sources that were held out of the fit.",
        name="{method}_kernel_quality",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    templateMatched = cT.Output(
        doc="Template brought to the science image's PSF.",
        name="{method}_template_matched",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
    )

    regeneration = cT.Output(
        doc="Wide filters, background and variance factor, from which stamps of the difference are made again.",
        name="{method}_difference_regeneration",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: SubtractImagesConfig) -> None:
        made = config.subtractor.target.outputs
        for output, connection in _OUTPUT_CONNECTIONS.items():
            if output not in made:
                delattr(self, connection)
        if "templateMatched" in made and not config.doWriteTemplateMatched:
            del self.templateMatched
        if not config.doWriteRegeneration:
            del self.regeneration
        if config.templateAs != "components":
            del self.templatePsf
        drop_template_connections(self, config.templateAs)


class SubtractImagesConfig(pipeBase.PipelineTaskConfig, pipelineConnections=SubtractImagesConnections):
    """Configuration of `SubtractImagesTask`."""

    subtractor = subtractor_registry.makeField(
        doc="Subtraction algorithm; its name must be that of connections.method.", default="al"
    )
    templateAs = template_as_field()
    badMaskPlanes = pexConfig.ListField[str](
        doc="Mask planes whose pixels are neither fitted nor convolved.",
        dtype=str,
        default=list(PLANES_BAD_FOR_SUBTRACTION),
    )
    psfOrder = pexConfig.RangeField[int](
        doc="Spatial order with which a PSF that has to be sampled is represented.", default=3, min=0
    )
    minGoodFraction = pexConfig.RangeField[float](
        doc="Least fraction of the common pixels that must be good in both images.",
        default=0.02,
        min=0.0,
        max=1.0,
    )
    doWriteTemplateMatched = pexConfig.Field[bool](
        doc="Write the matched template, for methods that make one?", dtype=bool, default=False
    )
    doWriteRegeneration = pexConfig.Field[bool](
        doc="Write what makes stamps of the difference again when the difference image is not kept (some MB)?",
        dtype=bool,
        default=False,
    )


class SubtractImagesTask(pipeBase.PipelineTask):
    """Subtract a template from a science image."""

    ConfigClass = SubtractImagesConfig
    _DefaultName = "subtractImages"
    config: SubtractImagesConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, subtract and write; a foreseeable failure is recorded and leaves other detectors alone."""
        # lsst-images keeps the last file's contents, from which Piff can read a PSF only once. Another image read in
        # between makes it open the template's file anew, so the science image comes first.
        inputs = {"science": butlerQC.get(inputRefs.science)}
        inputs |= {name: butlerQC.get(refs) for name, refs in inputRefs if name != "science"}
        try:
            outputs = self.run(**assemble_template(inputs, inputs["science"]))
        except SubtractionError as err:
            raise pipeBase.AnnotatedPartialOutputsError.annotate(err, self, log=self.log) from err
        butlerQC.put(outputs, outputRefs)

    def run(
        self, science: VisitImage, template: MaskedImage, templatePsf: PointSpreadFunction | None = None
    ) -> pipeBase.Struct:
        """Subtract.

        Parameters
        ----------
        science : `lsst.images.VisitImage`
            Science image.
        template : `lsst.images.MaskedImage`
            Template on the same pixel grid; its box may differ.
        templatePsf : `lsst.images.psfs.PointSpreadFunction`, optional
            PSF of the template; its own when omitted.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``difference``, ``score``, ``filters`` and, as the method makes them, ``kernel``, ``kernelSources``,
            ``kernelQuality`` and ``templateMatched``.

        Raises
        ------
        SubtractionError
            For what lies in the data: no overlap, all masked, too few kernel sources, no PSF, wrong units.
        """
        pair = ImagePair.from_images(
            science,
            template,
            own_psf(science, "science image"),
            templatePsf if templatePsf is not None else own_psf(template, "template"),
            bad_planes=tuple(self.config.badMaskPlanes),
            psf_order=self.config.psfOrder,
            min_good_fraction=self.config.minGoodFraction,
        )
        self.log.info(
            "Subtracting with %s: %d x %d pixels, %.1f%% of them good.",
            self.config.subtractor.name,
            pair.bounds.x.size,
            pair.bounds.y.size,
            100.0 * (1.0 - pair.bad.mean()),
        )
        result = self.config.subtractor.apply().subtract(pair)
        for name, value in result.metadata.items():
            self.metadata[name] = value
        self.log.info(
            "Subtracted: %s", ", ".join(f"{name}={value:.4g}" for name, value in _numbers(result.metadata))
        )
        difference = make_difference_image(result, pair, science, template)
        outputs: dict[str, Any] = {
            "difference": difference,
            "score": make_score_image(result, pair, difference),
            "filters": filters_to_table(result_filters(result, pair)),
        }
        if result.kernel is not None:
            outputs["kernel"] = difference.kernel
        if result.kernel_sources is not None:
            outputs["kernelSources"] = result.kernel_sources
        if result.kernel_quality is not None:
            outputs["kernelQuality"] = result.kernel_quality
        if result.template_matched is not None and self.config.doWriteTemplateMatched:
            outputs["templateMatched"] = make_matched_template(result, pair, difference)
        if self.config.doWriteRegeneration:
            outputs["regeneration"] = filters_to_table(measure_regeneration(result, pair))
        return pipeBase.Struct(**outputs)


def _numbers(metadata: dict[str, int | float | str]) -> list[tuple[str, int | float]]:
    """Return what is worth a line: numbers, without the lists of what was tried (names with a dot)."""
    return [
        (name, value) for name, value in metadata.items() if not isinstance(value, str) and "." not in name
    ]
