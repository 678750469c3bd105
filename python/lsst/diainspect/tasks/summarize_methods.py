"""Summarise the methods over the detectors of a visit, or over the visits of a survey."""

from __future__ import annotations

__all__ = [
    "SummarizeMethodsSurveyConfig",
    "SummarizeMethodsSurveyConnections",
    "SummarizeMethodsSurveyTask",
    "SummarizeMethodsTask",
    "SummarizeMethodsVisitConfig",
    "SummarizeMethodsVisitConnections",
    "SummarizeMethodsVisitTask",
]

from collections.abc import Mapping
from typing import Any, ClassVar

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table

from ..comparison import summarise_methods, summarise_sources
from ..truth import Resampling
from .measure_difference_metrics import MeasureDifferenceMetricsConfig

_KINDS = {"difference_metrics": "Metrics", "star_residuals": "Residuals of static stars"}


class SummarizeMethodsConfig(pexConfig.Config):
    """Configuration of both summaries."""

    methods = pexConfig.ListField[str](
        doc="Methods; paired differences are those of an earlier minus a later one.",
        dtype=str,
        default=["al", "zogy"],
    )
    magnitudeEdges = pexConfig.ListField[float](
        doc="Edges of the bins of the magnitude of stars [mag].",
        dtype=float,
        default=list(MeasureDifferenceMetricsConfig().magnitudeEdges),
    )
    nResamples = pexConfig.RangeField[int](
        doc="Number of resamples of the bootstrap.", default=Resampling().n_resamples, min=10
    )
    seed = pexConfig.Field[int](doc="Seed of the bootstrap.", default=Resampling().seed)


def _add_connections(
    connections: pipeBase.PipelineTaskConnections,
    methods: list[str],
    suffix: str,
    dimensions: tuple[str, ...],
) -> None:
    """Add inputs and outputs; what is missing of one method does not cost the others their summary."""
    inputs = {"subtraction_comparison": "Sources of all methods"}
    inputs |= {f"{method}_{kind}": f"{doc} of {method}" for method in methods for kind, doc in _KINDS.items()}
    for name, doc in inputs.items():
        connection = cT.Input(
            doc=f"{doc}, on all detectors.",
            name=name + suffix,
            storageClass="ArrowAstropy",
            dimensions=dimensions,
            minimum=0,
        )
        setattr(connections, name, connection)
    for name, dataset_type, doc in (
        ("summary", "method_metrics", "Metrics by method and paired differences, each with an interval."),
        ("sources", "method_sources", "Counts of sources by method, alone and shared, and by class."),
    ):
        connection = cT.Output(
            doc=doc, name=dataset_type + suffix, storageClass="ArrowAstropy", dimensions=dimensions
        )
        setattr(connections, name, connection)


class SummarizeMethodsVisitConnections(pipeBase.PipelineTaskConnections, dimensions=("instrument", "visit")):
    """Connections of `SummarizeMethodsVisitTask`: the gathered tables of each method, and the summary."""

    def __init__(self, *, config: SummarizeMethodsVisitConfig) -> None:
        _add_connections(self, list(config.methods), "_visit", ("instrument", "visit"))


class SummarizeMethodsVisitConfig(
    SummarizeMethodsConfig, pipeBase.PipelineTaskConfig, pipelineConnections=SummarizeMethodsVisitConnections
):
    """Configuration of `SummarizeMethodsVisitTask`."""


class SummarizeMethodsSurveyConnections(pipeBase.PipelineTaskConnections, dimensions=("instrument",)):
    """Connections of `SummarizeMethodsSurveyTask`: the gathered tables of each method, and the summary."""

    def __init__(self, *, config: SummarizeMethodsSurveyConfig) -> None:
        _add_connections(self, list(config.methods), "_summary", ("instrument",))


class SummarizeMethodsSurveyConfig(
    SummarizeMethodsConfig, pipeBase.PipelineTaskConfig, pipelineConnections=SummarizeMethodsSurveyConnections
):
    """Configuration of `SummarizeMethodsSurveyTask`."""


class SummarizeMethodsTask(pipeBase.PipelineTask):
    """Summarise methods, whichever of them there are."""

    ConfigClass: ClassVar[type[pipeBase.PipelineTaskConfig]]
    _DefaultName: ClassVar[str] = "summarizeMethods"

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, summarise and write."""
        inputs: dict[str, Any] = butlerQC.get(inputRefs)
        tables = {
            kind: {
                method: inputs[f"{method}_{kind}"]
                for method in self.config.methods
                if inputs.get(f"{method}_{kind}") is not None
            }
            for kind in _KINDS
        }
        if not tables["difference_metrics"]:
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"There are no metrics of {', '.join(self.config.methods)} for {butlerQC.quantum.dataId}."
            )
        outputs = self.run(
            tables["difference_metrics"], tables["star_residuals"], inputs.get("subtraction_comparison")
        )
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        metrics: Mapping[str, Table],
        stars: Mapping[str, Table],
        joined: Table | None = None,
    ) -> pipeBase.Struct:
        """Summarise.

        Parameters
        ----------
        metrics : mapping [`str`, `astropy.table.Table`]
            Metrics of all detectors by method.
        stars : mapping [`str`, `astropy.table.Table`]
            Residuals of static stars on all detectors by method.
        joined : `astropy.table.Table`, optional
            Sources of all methods on all detectors.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``summary`` and ``sources``, `astropy.table.Table`, as `lsst.diainspect.comparison.summarise_methods` and
            `lsst.diainspect.comparison.summarise_sources` make them.
        """
        resampling = Resampling(self.config.nResamples, seed=self.config.seed)
        summary = summarise_methods(metrics, stars, list(self.config.magnitudeEdges), resampling)
        sources = summarise_sources(
            joined if joined is not None else Table(), list(self.config.methods), resampling
        )
        for row in summary[summary["variable"] == ""]:
            names = f"{row['method']} - {row['reference']}" if row["reference"] else row["method"]
            self.log.verbose(
                "%s of %s: %.4g (%.4g to %.4g) on %d detectors.",
                *(row["metric"], names, row["median"], row["medianLower"], row["medianUpper"], row["n"]),
            )
        self.metadata["nMethods"] = len(metrics)
        return pipeBase.Struct(summary=summary, sources=sources)


class SummarizeMethodsVisitTask(SummarizeMethodsTask):
    """Summarise methods over the detectors of a visit."""

    ConfigClass = SummarizeMethodsVisitConfig
    _DefaultName = "summarizeMethodsVisit"


class SummarizeMethodsSurveyTask(SummarizeMethodsTask):
    """Summarise methods over the visits of a survey."""

    ConfigClass = SummarizeMethodsSurveyConfig
    _DefaultName = "summarizeMethodsSurvey"
