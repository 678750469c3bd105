"""Cut the stamp set of a source table."""

from __future__ import annotations

__all__ = ["CutStampsConfig", "CutStampsConnections", "CutStampsTask"]

from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Table
from lsst.images import Box, DifferenceImage, MaskedImage, VisitImage

from ..masks import mask_to_words
from ..stamps import MODELS, PLANES, cut_stamps
from ..subtraction import filters_from_table
from ._template_input import (
    TemplateConnections,
    assemble_template,
    drop_template_connections,
    template_as_field,
)


class CutStampsConnections(
    TemplateConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"method": "al", "scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `CutStampsTask`."""

    diaSources = cT.Input(
        doc="Sources to cut.",
        name="{method}_dia_source",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    filters = cT.Input(
        doc="PSFs of the images and the filters that made the difference, over the detector.",
        name="{method}_difference_filters",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    difference = cT.Input(
        doc="Difference image.",
        name="{method}_difference_image",
        storageClass="DifferenceImage",
        dimensions=("instrument", "visit", "detector"),
    )
    score = cT.Input(
        doc="Detection statistic in units of its own sigma.",
        name="{method}_score_image.masked_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    templateMatched = cT.Input(
        doc="Template brought to the science image's PSF.",
        name="{method}_template_matched.masked_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    stamps = cT.Output(
        doc="Stamps of every source, one row each.",
        name="{method}_dia_stamps",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: CutStampsConfig) -> None:
        wanted = set(config.planes)
        if not wanted & {"science", "scienceVariance"}:
            del self.science
        needs_template = wanted & {"template", "templateVariance"}
        drop_template_connections(self, config.templateAs if needs_template else None)
        if "score" not in wanted:
            del self.score
        if "templateMatched" not in wanted:
            del self.templateMatched


class CutStampsConfig(pipeBase.PipelineTaskConfig, pipelineConnections=CutStampsConnections):
    """Configuration of `CutStampsTask`."""

    templateAs = template_as_field()
    stampSize = pexConfig.RangeField[int](
        doc="Side of the stamps [pixel]; 33 or more for residual modes.", default=41, min=1
    )
    planes = pexConfig.ListField[str](
        doc=f"Planes to cut, of {', '.join(PLANES)}. Each costs 4 stampSize^2 bytes a source.",
        dtype=str,
        default=["science", "template", "difference", "differenceVariance", "mask"],
    )
    models = pexConfig.ListField[str](
        doc=f"PSFs and filters to keep at each source, of {', '.join(MODELS)}: a few coefficients each.",
        dtype=str,
        default=list(MODELS),
    )

    def validate(self) -> None:
        """Check the names of planes and models."""
        super().validate()
        for field, known in ((CutStampsConfig.planes, PLANES), (CutStampsConfig.models, MODELS)):
            unknown = set(getattr(self, field.name)) - set(known)
            if unknown:
                raise pexConfig.FieldValidationError(
                    field, self, f"unknown names {sorted(unknown)}; known are {list(known)}."
                )


class CutStampsTask(pipeBase.PipelineTask):
    """Cut stamps."""

    ConfigClass = CutStampsConfig
    _DefaultName = "cutStamps"
    config: CutStampsConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, cut and write."""
        inputs = butlerQC.get(inputRefs)
        butlerQC.put(self.run(**assemble_template(inputs, inputs.get("science"))), outputRefs)

    def run(
        self,
        diaSources: Table,
        filters: Table,
        difference: DifferenceImage,
        science: MaskedImage | None = None,
        template: MaskedImage | None = None,
        score: VisitImage | None = None,
        templateMatched: VisitImage | None = None,
    ) -> pipeBase.Struct:
        """Cut stamps of every source.

        Parameters
        ----------
        diaSources : `astropy.table.Table`
            Sources, with ``x`` and ``y`` [pixel].
        filters : `astropy.table.Table`
            PSFs and filters, as `lsst.diainspect.subtraction.filters_to_table` writes them.
        difference : `lsst.images.DifferenceImage`
            Difference image.
        science, template, score, templateMatched : `lsst.images.MaskedImage`, optional
            The other images, as the configured planes need them.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``stamps``, `astropy.table.Table`.
        """
        by_name = {
            "science": science,
            "template": template,
            "difference": difference,
            "score": score,
            "templateMatched": templateMatched,
        }
        images = {name: _plane(by_name, name) for name in self.config.planes}
        bases = filters_from_table(filters)
        stamps = cut_stamps(
            diaSources,
            images,
            {name: bases[name] for name in self.config.models},
            difference.sky_projection,
            self.config.stampSize,
        )
        self.log.info("Cut %d stamps of %d pixels.", len(stamps), self.config.stampSize)
        return pipeBase.Struct(stamps=stamps.to_table())


def _plane(images: dict[str, Any], name: str) -> tuple[np.ndarray, Box]:
    """Return the pixels of a stamp plane and their box."""
    if name == "mask":
        return mask_to_words(images["difference"].mask), images["difference"].bbox
    if name.endswith("Variance"):
        image = images[name.removesuffix("Variance")]
        return image.variance.array, image.bbox
    return images[name].image.array, images[name].bbox
