"""Take a difference image that another pipeline made, such as ip_diffim's, as a method."""

from __future__ import annotations

__all__ = ["AdoptDifferenceConfig", "AdoptDifferenceConnections", "AdoptDifferenceTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images import DifferenceImage, MaskedImage, VisitImage
from lsst.images.psfs import PointSpreadFunction

from ..masks import PLANES_BAD_FOR_SUBTRACTION
from ..subtraction import (
    ImagePair,
    SubtractionError,
    adopt_difference,
    filters_to_table,
    make_difference_image,
    make_score_image,
    result_filters,
)
from ._own_psf import own_psf
from ._template_input import (
    TemplateConnections,
    assemble_template,
    drop_template_connections,
    template_as_field,
)

_DIMENSIONS = ("instrument", "visit", "detector")


class AdoptDifferenceConnections(
    TemplateConnections,
    dimensions=_DIMENSIONS,
    defaultTemplates={
        "method": "ipdiffim",
        "scienceName": "visit_image",
        "templateName": "template_detector",
        "differenceName": "difference_image",
    },
):
    """Connections of `AdoptDifferenceTask`."""

    templatePsf = cT.Input(
        doc="PSF of the template.",
        name="{templateName}.psf",
        storageClass="PointSpreadFunction",
        dimensions=_DIMENSIONS,
    )
    existing = cT.Input(
        doc="Difference image of the other pipeline.",
        name="{differenceName}",
        storageClass="DifferenceImage",
        dimensions=_DIMENSIONS,
    )
    difference = cT.Output(
        doc="The same difference image, in nJy.",
        name="{method}_difference_image",
        storageClass="DifferenceImage",
        dimensions=_DIMENSIONS,
    )
    score = cT.Output(
        doc="Detection statistic in units of its own sigma: the difference filtered by its PSF.",
        name="{method}_score_image",
        storageClass="VisitImage",
        dimensions=_DIMENSIONS,
    )
    filters = cT.Output(
        doc="PSFs of the images and, as the PSFs say, the filters that made the difference, over the detector.",
        name="{method}_difference_filters",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    kernelSources = cT.Output(
        doc="Static sources in both images; which of them the other pipeline matched on is not known.",
        name="{method}_kernel_sources",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )

    def __init__(self, *, config: AdoptDifferenceConfig) -> None:
        if config.templateAs != "components":
            del self.templatePsf
        drop_template_connections(self, config.templateAs)


class AdoptDifferenceConfig(pipeBase.PipelineTaskConfig, pipelineConnections=AdoptDifferenceConnections):
    """Configuration of `AdoptDifferenceTask`."""

    templateAs = template_as_field()
    convolved = pexConfig.ChoiceField[str](
        doc="Which image was convolved.",
        dtype=str,
        default="auto",
        allowed={
            "auto": "The one with the sharper PSF.",
            "template": "Template.",
            "science": "Science image.",
        },
    )
    isDecorrelated = pexConfig.Field[bool](
        doc="Was the difference decorrelated? The filters are made accordingly.", dtype=bool, default=True
    )
    psfFrom = pexConfig.ChoiceField[str](
        doc="What the PSF of the difference is. ip_diffim keeps that of the science image, which decorrelation "
        "changes: fluxes with it are off by 2 to 17 %.",
        dtype=str,
        default="image",
        allowed={
            "image": "What is stored with it: detection and fluxes are those of the other pipeline.",
            "filters": "What the filters make of the science image's PSF.",
        },
    )
    badMaskPlanes = pexConfig.ListField[str](
        doc="Mask planes whose pixels are not used.", dtype=str, default=list(PLANES_BAD_FOR_SUBTRACTION)
    )
    psfOrder = pexConfig.RangeField[int](
        doc="Spatial order with which a PSF that has to be sampled is represented.", default=3, min=0
    )


class AdoptDifferenceTask(pipeBase.PipelineTask):
    """Take an existing difference image as a method."""

    ConfigClass = AdoptDifferenceConfig
    _DefaultName = "adoptDifference"
    config: AdoptDifferenceConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, adopt and write; a foreseeable failure is recorded and leaves other detectors alone."""
        # lsst-images keeps the last file's contents, from which Piff can read a PSF only once: the science image
        # first, and other files between two readings of one.
        inputs = {"science": butlerQC.get(inputRefs.science)}
        inputs |= {name: butlerQC.get(refs) for name, refs in inputRefs if name != "science"}
        try:
            outputs = self.run(**assemble_template(inputs, inputs["science"]))
        except SubtractionError as err:
            raise pipeBase.AnnotatedPartialOutputsError.annotate(err, self, log=self.log) from err
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        science: VisitImage,
        template: MaskedImage,
        existing: DifferenceImage,
        templatePsf: PointSpreadFunction | None = None,
    ) -> pipeBase.Struct:
        """Adopt.

        Parameters
        ----------
        science : `lsst.images.VisitImage`
            Science image.
        template : `lsst.images.MaskedImage`
            Template on the same pixel grid; its box may differ.
        existing : `lsst.images.DifferenceImage`
            The difference.
        templatePsf : `lsst.images.psfs.PointSpreadFunction`, optional
            PSF of the template; its own when omitted.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``difference``, ``score``, ``filters`` and ``kernelSources``, as of `SubtractImagesTask`.

        Raises
        ------
        SubtractionError
            For what lies in the data: no overlap, all masked, no sources, no PSF, wrong units.
        """
        pair = ImagePair.from_images(
            science,
            template,
            own_psf(science, "science image"),
            templatePsf if templatePsf is not None else own_psf(template, "template"),
            bad_planes=tuple(self.config.badMaskPlanes),
            psf_order=self.config.psfOrder,
        )
        result = adopt_difference(
            pair,
            existing,
            own_psf(existing, "difference"),
            convolve=self.config.convolved,
            is_decorrelated=self.config.isDecorrelated,
            psf_from=self.config.psfFrom,
            psf_order=self.config.psfOrder,
        )
        for name, value in result.metadata.items():
            self.metadata[name] = value
        difference = make_difference_image(result, pair, existing, template)
        self.log.info(
            "Adopted a difference image of %d x %d pixels, %.1f%% of them good.",
            pair.bounds.x.size,
            pair.bounds.y.size,
            100.0 * (1.0 - result.bad.mean()),
        )
        return pipeBase.Struct(
            difference=difference,
            score=make_score_image(result, pair, difference),
            filters=filters_to_table(result_filters(result, pair)),
            kernelSources=result.kernel_sources,
        )
