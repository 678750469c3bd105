"""Measure the maps of a detector from its static stars."""

from __future__ import annotations

__all__ = ["MeasureDetectorMapsConfig", "MeasureDetectorMapsConnections", "MeasureDetectorMapsTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Table, hstack
from lsst.images import MaskedImage, VisitImage
from lsst.images.convolution_kernels import ImageBasisConvolutionKernel

from ..diagnostics import diagnostic_registry, measure_diagnostics
from ..maps import (
    DetectorMaps,
    SmoothMap,
    fit_detector_maps,
    kernel_maps,
    parallactic_angle,
    static_stars,
)
from ..plugins import load_plugins
from ..psf import PixelBasis
from ._forced_stamps import cut_forced_stamps
from ._template_input import (
    TemplateConnections,
    assemble_template,
    drop_template_connections,
    template_as_field,
)

load_plugins()

_DIMENSIONS = ("instrument", "visit", "detector")

_DIAGNOSTICS = ("localNoise", "psfPhotometry", "residualModes")


class MeasureDetectorMapsConnections(
    TemplateConnections,
    dimensions=_DIMENSIONS,
    defaultTemplates={"method": "al", "scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `MeasureDetectorMapsTask`."""

    difference = cT.Input(
        doc="Difference image.",
        name="{method}_difference_image.masked_image",
        storageClass="MaskedImageV2",
        dimensions=_DIMENSIONS,
    )
    filters = cT.Input(
        doc="PSFs of the images and the filters that made the difference, over the detector.",
        name="{method}_difference_filters",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    kernelSources = cT.Input(
        doc="Candidate sources of the match, whose stars tell the maps.",
        name="{method}_kernel_sources",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    kernel = cT.Input(
        doc="Matching kernel.",
        name="{method}_difference_kernel",
        storageClass="ConvolutionKernel",
        dimensions=_DIMENSIONS,
        minimum=0,
    )
    maps = cT.Output(
        doc="Maps of registration, PSF errors, flux scale and noise, one row a quantity and term of its polynomial.",
        name="{method}_detector_maps",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    stars = cT.Output(
        doc="Diagnostics of the static stars, one row each.",
        name="{method}_static_stars",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )

    def __init__(self, *, config: MeasureDetectorMapsConfig) -> None:
        drop_template_connections(self, config.templateAs)
        if not config.hasKernel:
            del self.kernel


class MeasureDetectorMapsConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=MeasureDetectorMapsConnections
):
    """Configuration of `MeasureDetectorMapsTask`."""

    templateAs = template_as_field()
    hasKernel = pexConfig.Field[bool](
        doc="Read the matching kernel and map its sum, centroid and moments; False for a method without one.",
        default=True,
    )
    stampSize = pexConfig.RangeField[int](doc="Side of the stars' stamps [pixel].", default=51, min=33)
    maxOrder = pexConfig.RangeField[int](doc="Largest order of a map's polynomial.", default=3, min=0)
    diagnostics = diagnostic_registry.makeField(
        doc="Diagnostics of the stars; residualModes among them.", multi=True, default=list(_DIAGNOSTICS)
    )

    def validate(self) -> None:
        """Check that the modes are measured."""
        super().validate()
        if "residualModes" not in self.diagnostics.names:
            raise pexConfig.FieldValidationError(
                MeasureDetectorMapsConfig.diagnostics,
                self,
                "the maps are made from residualModes, which is not there.",
            )


class MeasureDetectorMapsTask(pipeBase.PipelineTask):
    """Measure maps."""

    ConfigClass = MeasureDetectorMapsConfig
    _DefaultName = "measureDetectorMaps"
    config: MeasureDetectorMapsConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, measure and write."""
        inputs = butlerQC.get(inputRefs)
        butlerQC.put(self.run(**assemble_template(inputs, inputs["science"])), outputRefs)

    def run(
        self,
        science: VisitImage,
        template: MaskedImage,
        difference: MaskedImage,
        filters: Table,
        kernelSources: Table,
        kernel: ImageBasisConvolutionKernel | None = None,
    ) -> pipeBase.Struct:
        """Measure.

        Parameters
        ----------
        science : `lsst.images.VisitImage`
            Science image.
        template, difference : `lsst.images.MaskedImage`
            Template and difference.
        filters : `astropy.table.Table`
            PSFs and filters, as `lsst.diainspect.subtraction.filters_to_table` writes them.
        kernelSources : `astropy.table.Table`
            Candidates on which the images were matched.
        kernel : `lsst.images.convolution_kernels.ImageBasisConvolutionKernel`, optional
            Matching kernel.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``maps`` and ``stars``, `astropy.table.Table`.
        """
        bounds = difference.bbox
        places = static_stars(kernelSources)
        stamps = cut_forced_stamps(
            places, science[bounds], template[bounds], difference, filters, self.config.stampSize
        )
        field = self.config.diagnostics
        plugins = {name: field.registry[name](field[name]) for name in sorted(field.names)}
        measured = measure_diagnostics(stamps, plugins, self.log)
        measured.remove_column("diaSourceId")
        stars = hstack([places, measured])
        maps: dict[str, SmoothMap] = fit_detector_maps(stars, bounds, max_order=self.config.maxOrder)
        if kernel is not None:
            maps |= kernel_maps(_sampled(kernel, bounds))
        centre = science.sky_projection.pixel_to_sky(
            x=bounds.x.start + 0.5 * bounds.x.size, y=bounds.y.start + 0.5 * bounds.y.size
        )
        angle = parallactic_angle(science.obs_info, centre)
        if np.isfinite(angle):
            maps["parallacticAngle"] = SmoothMap.constant(angle, bounds)
        for axis in "XY":
            if f"residualShift{axis}" in maps:
                self.metadata[f"residualShiftRms{axis}"] = maps[f"residualShift{axis}"].rms
                self.metadata[f"residualShiftRms{axis}Err"] = maps[f"residualShift{axis}"].rms_error
        self.log.info(
            "Mapped %d quantities from %d static stars: %s.",
            len(maps),
            len(stars),
            ", ".join(f"{name} rms {one.rms:.2g}" for name, one in maps.items() if one.n_used) or "none",
        )
        return pipeBase.Struct(maps=DetectorMaps(maps).to_table(), stars=stars)


_KERNEL_ORDER = 3
"""Spatial order with which a kernel is sampled; those of this package have two at most."""


def _sampled(kernel: ImageBasisConvolutionKernel, bounds: object) -> PixelBasis:
    def draw(x: float, y: float) -> np.ndarray:
        return np.asarray(kernel.compute_kernel_image(x=x, y=y).array)

    return PixelBasis.from_callable(draw, bounds, order=_KERNEL_ORDER)
