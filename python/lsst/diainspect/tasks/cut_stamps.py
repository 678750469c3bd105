"""Cut the stamp set of a source table."""

from __future__ import annotations

__all__ = ["CutStampsConfig", "CutStampsConnections", "CutStampsTask"]

import dataclasses
from collections.abc import Mapping
from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Table
from lsst.images import Box, DifferenceImage, MaskedImage, SkyProjection, VisitImage

from ..masks import PLANES_BAD_FOR_SUBTRACTION, mask_to_words
from ..psf import PixelBasis
from ..stamps import (
    MODELS,
    PLANES,
    Query,
    QueryError,
    Selection,
    StampSet,
    cut_stamps,
    describe_plane,
    other_method,
    sources_at_positions,
    stamp_origin,
)
from ..subtraction import filters_from_table, regenerate_difference
from ._input_images import InputImages
from ._template_input import (
    TemplateConnections,
    assemble_template,
    drop_template_connections,
    template_as_field,
)

_DIMENSIONS = ("instrument", "visit", "detector")

_OTHER_IMAGES = {
    "difference": "difference_image",
    "score": "score_image",
    "templateMatched": "template_matched",
}
"""Dataset types of another method's images, without its name, by plane."""

_FROM_IMAGES = frozenset(
    {
        "science",
        "template",
        "difference",
        "scienceVariance",
        "templateVariance",
        "differenceVariance",
        "mask",
    }
)
"""Planes that regeneration makes of science image and template."""

_REGENERATED_NAMES = {
    "scienceVariance": "science_variance",
    "templateVariance": "template_variance",
    "differenceVariance": "variance",
}


class CutStampsConnections(
    TemplateConnections,
    dimensions=_DIMENSIONS,
    defaultTemplates={"method": "al", "scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `CutStampsTask`; each image of another method that the planes name adds one."""

    diaSources = cT.Input(
        doc="Sources to cut.",
        name="{method}_dia_source",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    positions = cT.Input(
        doc="Positions on the sky to cut: ra, dec [deg] and, if there is one, diaSourceId.",
        name="stamp_positions",
        storageClass="ArrowAstropy",
        dimensions=(),
    )
    filters = cT.Input(
        doc="PSFs of the images and the filters that made the difference, over the detector.",
        name="{method}_difference_filters",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    regeneration = cT.Input(
        doc="Wide filters, background and variance factor, from which the difference is made again.",
        name="{method}_difference_regeneration",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    difference = cT.Input(
        doc="Difference image.",
        name="{method}_difference_image",
        storageClass="DifferenceImage",
        dimensions=_DIMENSIONS,
    )
    score = cT.Input(
        doc="Detection statistic in units of its own sigma.",
        name="{method}_score_image.masked_image",
        storageClass="MaskedImageV2",
        dimensions=_DIMENSIONS,
    )
    templateMatched = cT.Input(
        doc="Template brought to the science image's PSF.",
        name="{method}_template_matched.masked_image",
        storageClass="MaskedImageV2",
        dimensions=_DIMENSIONS,
    )
    stamps = cT.Output(
        doc="Stamps of every source, one row each.",
        name="{method}_dia_stamps",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )

    def __init__(self, *, config: CutStampsConfig) -> None:
        wanted = set(config.planes)
        if config.differenceFrom == "filters":
            del self.difference
            drop_template_connections(self, config.templateAs)
            # Of a few sources only the pixels around them are read.
            for name in ("science", "template", "templateImage", "templateMask", "templateVariance"):
                if hasattr(self, name):
                    setattr(self, name, dataclasses.replace(getattr(self, name), deferLoad=True))
        else:
            del self.regeneration
            if not wanted & {"science", "scienceVariance"}:
                del self.science
            needs_template = wanted & {"template", "templateVariance"}
            drop_template_connections(self, config.templateAs if needs_template else None)
        if config.sourcesFrom == "positions":
            del self.diaSources
        else:
            del self.positions
        if "score" not in wanted:
            del self.score
        if "templateMatched" not in wanted:
            del self.templateMatched
        for method, plane in _other_images(config.planes):
            connection = cT.Input(
                doc=f"{PLANES[plane][1].removesuffix('.')}, of {method}.",
                name=f"{method}_{_OTHER_IMAGES[plane]}.masked_image",
                storageClass="MaskedImageV2",
                dimensions=_DIMENSIONS,
                # A method that failed does not cost the others their stamps.
                minimum=0,
            )
            setattr(self, f"{method}_{plane}", connection)


def _other_images(planes: list[str]) -> list[tuple[str, str]]:
    """Return the images of other methods that planes are cut from, as method and plane."""
    found = (other_method(name) for name in planes)
    return sorted({(pair[0], pair[1].removesuffix("Variance")) for pair in found if pair is not None})


class CutStampsConfig(pipeBase.PipelineTaskConfig, pipelineConnections=CutStampsConnections):
    """Configuration of `CutStampsTask`."""

    templateAs = template_as_field()
    stampSize = pexConfig.RangeField[int](
        doc="Side of the stamps, odd or even [pixel]; 33 or more for residual modes.", default=41, min=1
    )
    planes = pexConfig.ListField[str](
        doc=f"Planes to cut, of {', '.join(PLANES)}, and of other methods' difference, differenceVariance, score and "
        "templateMatched, as zogy_difference. Each costs 4 stampSize^2 bytes a source.",
        dtype=str,
        default=["science", "template", "difference", "differenceVariance", "mask"],
    )
    models = pexConfig.ListField[str](
        doc=f"PSFs and filters to keep at each source, of {', '.join(MODELS)}: a few coefficients each.",
        dtype=str,
        default=list(MODELS),
    )
    sourcesFrom = pexConfig.ChoiceField[str](
        doc="What stamps are cut around.",
        dtype=str,
        default="detections",
        allowed={
            "detections": "The method's sources.",
            "positions": "The positions on the sky of the dataset stamp_positions that lie on the image. Name the "
            "output anew (connections.stamps), or it takes the place of the detections' stamps.",
        },
    )
    where = pexConfig.Field[str](
        doc="Condition on the columns of the sources, such as 'snr > 10 and isDipole'; empty for none.",
        dtype=str,
        default="",
    )
    ids = pexConfig.ListField[int](
        doc="Sources to cut, by diaSourceId; all when empty.", dtype=int, default=[]
    )
    fraction = pexConfig.RangeField[float](
        doc="Fraction of the sources to cut, chosen at random by their diaSourceId.",
        default=1.0,
        min=0.0,
        max=1.0,
        inclusiveMin=False,
        inclusiveMax=True,
    )
    seed = pexConfig.RangeField[int](doc="Seed of that choice.", default=0, min=0)
    differenceFrom = pexConfig.ChoiceField[str](
        doc="Where the pixels of the difference come from.",
        dtype=str,
        default="image",
        allowed={
            "image": "The stored difference image.",
            "filters": "Science image and template, by the stored filters, of a subtraction that was run with "
            "doWriteRegeneration: to 2 % of the noise, and 0.5 % of the peak on stars.",
        },
    )
    badMaskPlanes = pexConfig.ListField[str](
        doc="With differenceFrom='filters': mask planes whose pixels were filled, as the subtraction had them.",
        dtype=str,
        default=list(PLANES_BAD_FOR_SUBTRACTION),
    )

    def validate(self) -> None:
        """Check the names of planes and models and the condition."""
        super().validate()
        unknown = {name for name in self.planes if describe_plane(name) is None}
        _refuse_unknown(CutStampsConfig.planes, self, unknown, list(PLANES))
        _refuse_unknown(CutStampsConfig.models, self, set(self.models) - set(MODELS), list(MODELS))
        if self.where.strip():
            try:
                Query(self.where)
            except QueryError as error:
                raise pexConfig.FieldValidationError(CutStampsConfig.where, self, str(error)) from error

    @property
    def selection(self) -> Selection:
        """Which sources are cut."""
        return Selection(self.where, tuple(self.ids) or None, self.fraction, self.seed)


def _refuse_unknown(field: Any, config: CutStampsConfig, unknown: set[str], known: list[str]) -> None:
    if unknown:
        raise pexConfig.FieldValidationError(
            field, config, f"unknown names {sorted(unknown)}; known are {known}."
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
        stamps = self.cut(butlerQC.get(inputRefs))
        butlerQC.put(pipeBase.Struct(stamps=stamps.to_table()), outputRefs)

    def cut(self, inputs: dict[str, Any]) -> StampSet:
        """Cut stamps from what the connections name.

        Parameters
        ----------
        inputs : `dict` [`str`, `typing.Any`]
            What was read, by connection; handles of science image and template where the difference is made again.

        Returns
        -------
        stamps : `StampSet`
            Stamps, with their models.
        """
        if self.config.differenceFrom == "filters":
            return self._cut_regenerated(inputs)
        inputs = assemble_template(inputs, inputs.get("science"))
        others = {name: inputs.pop(name) for name in list(inputs) if other_method(name) is not None}
        difference: DifferenceImage = inputs["difference"]
        sources = self._select(inputs.pop("diaSources", None), inputs.pop("positions", None), difference)
        filters = filters_from_table(inputs.pop("filters"))
        return self._cut(sources, filters, difference.sky_projection, {**inputs, **others}, {})

    def run(
        self,
        diaSources: Table,
        filters: Table,
        difference: DifferenceImage,
        science: MaskedImage | None = None,
        template: MaskedImage | None = None,
        score: VisitImage | None = None,
        templateMatched: VisitImage | None = None,
        **others: MaskedImage,
    ) -> pipeBase.Struct:
        """Cut stamps of every source that is selected.

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
        **others : `lsst.images.MaskedImage`
            Images of other methods, as ``zogy_difference``; the planes of one that is missing are NaN.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``stamps``, `astropy.table.Table`.
        """
        images = {
            "science": science,
            "template": template,
            "difference": difference,
            "score": score,
            "templateMatched": templateMatched,
            **others,
        }
        given = {name: image for name, image in images.items() if image is not None}
        return pipeBase.Struct(
            stamps=self.cut({"diaSources": diaSources, "filters": filters, **given}).to_table()
        )

    def _cut_regenerated(self, inputs: dict[str, Any]) -> StampSet:
        """Make the difference again around the sources."""
        images = InputImages(inputs)
        sources = self._select(inputs.get("diaSources"), inputs.get("positions"), images)
        x, y = (np.asarray(sources[name], dtype=float) for name in ("x", "y"))
        x0, y0 = stamp_origin(x, y, self.config.stampSize)
        filters = filters_from_table(inputs["filters"])
        again = regenerate_difference(
            x0,
            y0,
            self.config.stampSize,
            {**filters, **filters_from_table(inputs["regeneration"])},
            images.read,
            images.bounds,
            tuple(self.config.badMaskPlanes),
        )
        ready = {
            name: getattr(again, _REGENERATED_NAMES.get(name, name))
            for name in self.config.planes
            if name in _FROM_IMAGES
        }
        rest = {name: image for name, image in inputs.items() if isinstance(image, MaskedImage)}
        return self._cut(sources, filters, images.sky_projection, rest, ready)

    def _select(
        self, sources: Table | None, positions: Table | None, image: DifferenceImage | InputImages
    ) -> Table:
        """Return the sources to cut."""
        if positions is not None:
            bounds = image.bounds if isinstance(image, InputImages) else image.bbox
            sources = sources_at_positions(positions, image.sky_projection, bounds, self.config.stampSize)
        assert sources is not None
        chosen = sources[self.config.selection.rows(sources)]
        if len(chosen) < len(sources):
            self.log.info("Selected %d of %d sources.", len(chosen), len(sources))
        return chosen

    def _cut(
        self,
        sources: Table,
        filters: Mapping[str, PixelBasis],
        sky_projection: SkyProjection,
        images: Mapping[str, MaskedImage],
        ready: dict[str, np.ndarray],
    ) -> StampSet:
        to_cut = {}
        size = self.config.stampSize
        for name in self.config.planes:
            if name in ready:
                continue
            origin = "difference" if name == "mask" else name.removesuffix("Variance")
            if origin in images:
                to_cut[name] = _plane(images[origin], name)
            elif other_method(name) is not None:
                self.log.warning("There is no image for the plane %s: it is NaN.", name)
                ready[name] = np.full((len(sources), size, size), np.nan, dtype=np.float32)
            else:
                raise ValueError(f"The plane {name} needs the {origin} image, which was not given.")
        models = {name: filters[name] for name in self.config.models}
        stamps = cut_stamps(sources, to_cut, models, sky_projection, size, ready=ready)
        # In the order of the configuration, also those that were there before.
        planes = {name: stamps.planes[name] for name in self.config.planes}
        stamps = StampSet(stamps.sources, planes, stamps.models)
        n_edge = int(np.asarray(stamps.sources["stamp_flag_edge"]).sum())
        self.metadata["nStamps"], self.metadata["nStampsAtEdge"] = len(stamps), n_edge
        self.log.info(
            "Cut %d stamps of %d pixels; %d reach beyond an edge and are padded.", len(stamps), size, n_edge
        )
        return stamps


def _plane(image: MaskedImage, name: str) -> tuple[np.ndarray, Box]:
    """Return the pixels of a stamp plane and their box."""
    if name == "mask":
        return mask_to_words(image.mask), image.bbox
    if name.endswith("Variance"):
        return image.variance.array, image.bbox
    return image.image.array, image.bbox
