"""Calibrate a difference image without truth."""

from __future__ import annotations

__all__ = ["CalibrateDifferenceConfig", "CalibrateDifferenceConnections", "CalibrateDifferenceTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
import scipy.ndimage
from astropy.table import Column, Table
from lsst.images import MaskedImage

from ..calibration import calibrate, draw_positions, statistics_to_table
from ..comparison import find_sky
from ..detection import without_sky_sources
from ..diagnostics import diagnostic_registry, measure_diagnostics
from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by
from ..plugins import load_plugins
from ._forced_stamps import cut_forced_stamps
from ._template_input import (
    TemplateConnections,
    assemble_template,
    drop_template_connections,
    template_as_field,
)

load_plugins()

_DIMENSIONS = ("instrument", "visit", "detector")

_EXCLUDED_PLANES = (*PLANES_BAD_FOR_SUBTRACTION, "DETECTION_EDGE", "FILTER_SPREAD")

_DIAGNOSTICS = ("aperturePhotometry", "psfPhotometry")
_APERTURE_RADII = (3, 6, 9, 12)


class CalibrateDifferenceConnections(
    TemplateConnections,
    dimensions=_DIMENSIONS,
    defaultTemplates={"method": "al", "scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `CalibrateDifferenceTask`."""

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
    stars = cT.Input(
        doc="Diagnostics of the static stars.",
        name="{method}_static_stars",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
        minimum=0,
    )
    diaSources = cT.Input(
        doc="DIA sources.",
        name="{method}_dia_source",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    calibration = cT.Output(
        doc="Calibration without truth, one row a statistic and bin.",
        name="{method}_calibration",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )

    def __init__(self, *, config: CalibrateDifferenceConfig) -> None:
        drop_template_connections(self, config.templateAs)


class CalibrateDifferenceConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=CalibrateDifferenceConnections
):
    """Configuration of `CalibrateDifferenceTask`."""

    templateAs = template_as_field()
    nBlank = pexConfig.RangeField[int](doc="Random places of blank sky.", default=1000, min=0)
    nOnSources = pexConfig.RangeField[int](doc="Random places of static sources.", default=1000, min=0)
    skyDistance = pexConfig.RangeField[int](
        doc="Least distance of a place of blank sky from pixels of sources [pixel].", default=10, min=0
    )
    detectionDistance = pexConfig.RangeField[float](
        doc="Places of static sources this near to a detection above detectionSnr are left out [pixel]: something may "
        "have changed there.",
        default=5.0,
        min=0.0,
    )
    detectionSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio of a detection that keeps places away.", default=10.0, min=0.0
    )
    stampSize = pexConfig.RangeField[int](doc="Side of the stamps of the places [pixel].", default=27, min=9)
    staticSnrEdges = pexConfig.ListField[float](
        doc="Edges of the bins in local static flux over its error, on the template.",
        dtype=float,
        default=[-5.0, 5.0, 20.0, 100.0, 500.0, 1e5],
    )
    snrThresholds = pexConfig.ListField[float](
        doc="Thresholds in |S/N| of the symmetry purity.", dtype=float, default=[5.0, 7.0, 10.0]
    )


class CalibrateDifferenceTask(pipeBase.PipelineTask):
    """Calibrate a difference."""

    ConfigClass = CalibrateDifferenceConfig
    _DefaultName = "calibrateDifference"
    config: CalibrateDifferenceConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, calibrate and write; the places are the same in every run."""
        data_id = butlerQC.quantum.dataId
        inputs = butlerQC.get(inputRefs)
        outputs = self.run(
            **assemble_template(inputs, inputs["science"]),
            seed=(int(data_id["visit"]), int(data_id["detector"])),
        )
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        science: MaskedImage,
        template: MaskedImage,
        difference: MaskedImage,
        filters: Table,
        diaSources: Table,
        stars: Table | None = None,
        seed: tuple[int, ...] = (0,),
    ) -> pipeBase.Struct:
        """Calibrate.

        Parameters
        ----------
        science, template, difference : `lsst.images.MaskedImage`
            Inputs and result of the subtraction.
        filters : `astropy.table.Table`
            PSFs and filters, as `lsst.diainspect.subtraction.filters_to_table` writes them.
        diaSources : `astropy.table.Table`
            Detections.
        stars : `astropy.table.Table`, optional
            Static stars of `MeasureDetectorMapsTask`.
        seed : `tuple` [`int`], optional
            Seed of the random places.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``calibration``, `astropy.table.Table`.
        """
        bounds = difference.bbox
        science, template = science[bounds], template[bounds]
        rng = np.random.default_rng(seed)
        detections = without_sky_sources(diaSources)
        sky = find_sky(science, template, difference, self.config.skyDistance)
        good = ~masked_by(difference.mask, _EXCLUDED_PLANES) & (difference.variance.array > 0)
        good &= np.isfinite(difference.image.array)
        static = good & ~find_sky(science, template, difference, 0)
        static &= ~self._near_detections(detections, difference)
        blank, on_sources = (
            self._force(*draw_positions(where, bounds, n, rng), science, template, difference, filters)
            for where, n in ((sky, self.config.nBlank), (static, self.config.nOnSources))
        )
        statistics = calibrate(
            blank,
            on_sources,
            stars if stars is not None else Table(),
            detections,
            static_snr_edges=list(self.config.staticSnrEdges),
            aperture_radii=_APERTURE_RADII,
            snr_thresholds=list(self.config.snrThresholds),
        )
        for one in statistics:
            if np.isnan(one.low):
                self.metadata[one.name] = one.value
        self.log.info(
            "Calibrated on %d places of blank sky and %d of static sources: %s.",
            len(blank),
            len(on_sources),
            ", ".join(f"{one.name} {one.value:.3g}" for one in statistics if one.name.endswith("PullSigma")),
        )
        return pipeBase.Struct(calibration=statistics_to_table(statistics))

    def _near_detections(self, detections: Table, difference: MaskedImage) -> np.ndarray:
        """Return the pixels around significant detections."""
        pixels = np.zeros(difference.image.array.shape, dtype=bool)
        loud = np.abs(np.asarray(detections["snr"], dtype=float)) >= self.config.detectionSnr
        box = difference.bbox
        x, y = (np.rint(np.asarray(detections[axis], dtype=float)[loud]).astype(int) for axis in ("x", "y"))
        x, y = x - box.x.start, y - box.y.start
        inside = (x >= 0) & (x < box.x.size) & (y >= 0) & (y < box.y.size)
        pixels[y[inside], x[inside]] = True
        if not pixels.any():
            return pixels
        near: np.ndarray = scipy.ndimage.distance_transform_edt(~pixels) <= self.config.detectionDistance
        return near

    def _force(
        self,
        x: np.ndarray,
        y: np.ndarray,
        science: MaskedImage,
        template: MaskedImage,
        difference: MaskedImage,
        filters: Table,
    ) -> Table:
        """Measure fluxes at places."""
        places = Table({"diaSourceId": Column(np.arange(len(x), dtype=np.int64)), "x": x, "y": y})
        stamps = cut_forced_stamps(places, science, template, difference, filters, self.config.stampSize)
        plugins = {
            name: diagnostic_registry[name](diagnostic_registry[name].ConfigClass()) for name in _DIAGNOSTICS
        }
        plugins["aperturePhotometry"].config.radii = list(_APERTURE_RADII)
        return measure_diagnostics(stamps, plugins, self.log)
