"""Measure metrics of a difference image and its sources."""

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

from ..comparison import MetricInput, find_sky, measure_metrics, metric_registry
from ..plugins import load_plugins
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
    metrics = cT.Output(
        doc="Metrics, one row each.",
        name="{method}_difference_metrics",
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
            "scoreSigma",
            "neighbourCorrelationX",
            "neighbourCorrelationY",
            "numberPositive",
            "numberNegative",
        ],
    )
    skyDistance = pexConfig.RangeField[int](
        doc="Least distance of a sky pixel from pixels of sources [pixel].", default=10, min=0
    )


class MeasureDifferenceMetricsTask(pipeBase.PipelineTask):
    """Measure metrics."""

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
        method : `str`, optional
            Name of the method.
        visit, detector : `int`, optional
            Values of those columns.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``metrics``, `astropy.table.Table`.
        """
        data = MetricInput(
            difference.image.array,
            difference.variance.array,
            score.array,
            find_sky(
                science[difference.bbox], template[difference.bbox], difference, self.config.skyDistance
            ),
            diaSources,
        )
        field = self.config.metrics
        # The configured names are a set: sorted, so that every process makes the same table.
        plugins = {name: field.registry[name](field[name]) for name in sorted(field.names)}
        table = measure_metrics(data, plugins, self.log)
        n = len(table)
        table.add_column(Column(np.full(n, method, dtype="U32"), description="Method."), 0, "method")
        table.add_column(Column(np.full(n, visit, dtype=np.int64), description="Visit."), 1, "visit")
        table.add_column(Column(np.full(n, detector, dtype=np.int32), description="Detector."), 2, "detector")
        for row in table:
            self.metadata[str(row["metric"])] = float(row["value"])
        self.log.info("%s", ", ".join(f"{row['metric']}={row['value']:.4g}" for row in table))
        return pipeBase.Struct(metrics=table)
