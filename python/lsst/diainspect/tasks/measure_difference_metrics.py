"""Measure metrics and statistics of a difference image, its sources and its static stars."""

from __future__ import annotations

__all__ = [
    "MeasureDifferenceMetricsConfig",
    "MeasureDifferenceMetricsConnections",
    "MeasureDifferenceMetricsTask",
]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Column, Table
from lsst.images import Image, MaskedImage

from ..comparison import (
    MetricInput,
    find_sky,
    image_stacks_table,
    image_statistics_table,
    measure_cell_maps,
    measure_difference_psf,
    measure_metrics,
    measure_star_residuals,
    metric_registry,
    stack_star_residuals,
)
from ..plugins import load_plugins
from ..psf import PixelBasis, fwhm
from ..subtraction import filters_from_table
from ._template_input import (
    TemplateConnections,
    assemble_template,
    drop_template_connections,
    template_as_field,
)

load_plugins()


class MeasureDifferenceMetricsConnections(
    TemplateConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"method": "al", "scienceName": "visit_image", "templateName": "template_detector"},
):
    """Connections of `MeasureDifferenceMetricsTask`."""

    difference = cT.Input(
        doc="Difference image.",
        name="{method}_difference_image.masked_image",
        storageClass="MaskedImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    score = cT.Input(
        doc="Detection statistic in units of its own sigma.",
        name="{method}_score_image.image",
        storageClass="ImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    diaSources = cT.Input(
        doc="DIA sources.",
        name="{method}_dia_source",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    filters = cT.Input(
        doc="PSFs of the images and the filters that made the difference, over the detector.",
        name="{method}_difference_filters",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        # Without it the PSF of the difference is not checked.
        minimum=0,
    )
    kernelSources = cT.Input(
        doc="Candidates on which the images were matched, of which stars are the static ones.",
        name="{method}_kernel_sources",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        # Without it there are no static stars.
        minimum=0,
    )
    metrics = cT.Output(
        doc="Metrics, one row each.",
        name="{method}_difference_metrics",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    statistics = cT.Output(
        doc="Statistics of the image, one row a statistic and bin, or cell of a grid.",
        name="{method}_image_statistics",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    stacks = cT.Output(
        doc="Autocorrelation of the sky, mean residuals of stars and PSF of the difference, one row an image.",
        name="{method}_image_stacks",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    stars = cT.Output(
        doc="Residuals of static stars, one row each.",
        name="{method}_star_residuals",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: MeasureDifferenceMetricsConfig) -> None:
        drop_template_connections(self, config.templateAs)


class MeasureDifferenceMetricsConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=MeasureDifferenceMetricsConnections
):
    """Configuration of `MeasureDifferenceMetricsTask`."""

    templateAs = template_as_field()
    metrics = metric_registry.makeField(
        doc="Metrics to measure.",
        multi=True,
        default=[
            "skyPixels",
            "skySigmaOverPredicted",
            "skyBackground",
            "skyTail3",
            "skyTail4",
            "skyTail5",
            "scoreMedian",
            "scoreSigma",
            "scoreTail3",
            "scoreTail4",
            "scoreTail5",
            "neighbourCorrelationX",
            "neighbourCorrelationY",
            "lowFrequencyPower",
            "starRmsFit",
            "starRmsHeldOut",
            "psfWidthRatio",
            "psfFluxRatio",
            "numberPositive",
            "numberNegative",
        ],
    )
    skyDistance = pexConfig.RangeField[int](
        doc="Least distance of a sky pixel from pixels of sources [pixel].", default=10, min=0
    )
    nCells = pexConfig.RangeField[int](doc="Cells a side of the grid of maps.", default=8, min=2, max=32)
    starRadius = pexConfig.RangeField[float](
        doc="Radius of the disk in which residuals of stars are measured [FWHM of the PSF of the difference; 4 pixels "
        "where that is not known].",
        default=1.5,
        min=0.5,
    )
    stackSize = pexConfig.RangeField[int](
        doc="Side of the stacks of stars and of point sources, and of the autocorrelation, odd [pixel].",
        default=31,
        min=13,
        max=65,
    )
    magnitudeEdges = pexConfig.ListField[float](
        doc="Edges of the bins of the magnitude of stars [mag].",
        dtype=float,
        default=[float(edge) for edge in range(14, 27)],
    )
    psfSnr = pexConfig.RangeField[float](
        doc="Least S/N of the point sources that tell the PSF of the difference.", default=20.0, min=0.0
    )

    def validate(self) -> None:
        """Check the size of stacks and the bins."""
        super().validate()
        if self.stackSize % 2 == 0:
            raise pexConfig.FieldValidationError(
                MeasureDifferenceMetricsConfig.stackSize, self, f"must be odd, got {self.stackSize}."
            )
        edges = list(self.magnitudeEdges)
        if len(edges) < 2 or edges != sorted(set(edges)):
            raise pexConfig.FieldValidationError(
                MeasureDifferenceMetricsConfig.magnitudeEdges,
                self,
                f"must be at least two growing numbers, got {edges}.",
            )


class MeasureDifferenceMetricsTask(pipeBase.PipelineTask):
    """Measure metrics and statistics."""

    ConfigClass = MeasureDifferenceMetricsConfig
    _DefaultName = "measureDifferenceMetrics"
    config: MeasureDifferenceMetricsConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, measure and write."""
        data_id = butlerQC.quantum.dataId
        inputs = butlerQC.get(inputRefs)
        outputs = self.run(
            **assemble_template(inputs, inputs["science"]),
            method=self.config.connections.method,
            visit=data_id["visit"],
            detector=data_id["detector"],
        )
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        science: MaskedImage,
        template: MaskedImage,
        difference: MaskedImage,
        score: Image,
        diaSources: Table,
        filters: Table | None = None,
        kernelSources: Table | None = None,
        method: str = "",
        visit: int = 0,
        detector: int = 0,
    ) -> pipeBase.Struct:
        """Measure.

        Parameters
        ----------
        science, template, difference : `lsst.images.MaskedImage`
            Inputs and result of the subtraction.
        score : `lsst.images.Image`
            Score image.
        diaSources : `astropy.table.Table`
            DIA sources.
        filters : `astropy.table.Table`, optional
            PSFs and filters, as `lsst.diainspect.subtraction.filters_to_table` writes them. Without it the PSF of
            the difference is not measured.
        kernelSources : `astropy.table.Table`, optional
            Candidates on which the images were matched. Without it no stars are measured.
        method : `str`, optional
            Name of the method.
        visit, detector : `int`, optional
            Values of those columns.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``metrics``, ``statistics``, ``stacks`` and ``stars``, `astropy.table.Table`.
        """
        config = self.config
        bounds = difference.bbox
        psf = None if filters is None else filters_from_table(filters).get("differencePsf")
        stars = measure_star_residuals(difference, kernelSources, config.starRadius * _width(psf))
        point_sources = (
            None
            if psf is None
            else measure_difference_psf(difference, diaSources, psf, config.stackSize, min_snr=config.psfSnr)
        )
        data = MetricInput(
            difference.image.array,
            difference.variance.array,
            score.array,
            find_sky(science[bounds], template[bounds], difference, config.skyDistance),
            diaSources,
            stars,
            point_sources,
        )
        # The configured names are a set: sorted, so that every process makes the same table.
        plugins = {
            name: config.metrics.registry[name](config.metrics[name]) for name in sorted(config.metrics.names)
        }
        table = measure_metrics(data, plugins, self.log)
        edges = list(config.magnitudeEdges)
        projection = science.sky_projection
        statistics = image_statistics_table(
            data, measure_cell_maps(data, bounds, config.nCells), bounds, projection, edges
        )
        stacked = stack_star_residuals(difference, stars, edges, config.stackSize)
        stacks = image_stacks_table(data.sky_noise, stacked, point_sources, config.stackSize)
        outputs = {"metrics": table, "statistics": statistics, "stacks": stacks, "stars": stars}
        for made in outputs.values():
            _label(made, method, visit, detector)
        for row in table:
            self.metadata[str(row["metric"])] = float(row["value"])
        self.log.info("%s", ", ".join(f"{row['metric']}={row['value']:.4g}" for row in table))
        return pipeBase.Struct(**outputs)


_TYPICAL_WIDTH = 4.0
"""FWHM where no PSF is known: that of 0.8 arcsec on pixels of 0.2 arcsec [pixel]."""


def _width(psf: PixelBasis | None) -> float:
    """Return the FWHM in the middle of the detector [pixel]."""
    if psf is None:
        return _TYPICAL_WIDTH
    x, y = (
        np.array([interval.start + 0.5 * (interval.size - 1)]) for interval in (psf.bounds.x, psf.bounds.y)
    )
    return float(fwhm(psf.evaluate(x, y))[0])


def _label(table: Table, method: str, visit: int, detector: int) -> None:
    """Put method, visit and detector in front."""
    n = len(table)
    table.add_column(Column(np.full(n, method, dtype="U32"), description="Method."), 0, "method")
    table.add_column(Column(np.full(n, visit, dtype=np.int64), description="Visit."), 1, "visit")
    table.add_column(Column(np.full(n, detector, dtype=np.int32), description="Detector."), 2, "detector")
