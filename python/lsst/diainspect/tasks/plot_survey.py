"""Draw what the methods made of a survey: in time, against truth and against each other."""

from __future__ import annotations

__all__ = ["PlotSurveyConfig", "PlotSurveyConnections", "PlotSurveyTask"]

from collections.abc import Iterable
from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Table

from ..plots import (
    SurveyLabel,
    plot_class_mix,
    plot_completeness,
    plot_method_metrics,
    plot_roc,
    plot_snr,
    plot_time_series,
)
from ._plot_task import methods_field

_DIMENSIONS = ("instrument",)

_INPUTS = {
    "summary": ("method_metrics_summary", "Metrics by method and paired differences."),
    "sources": ("method_sources_summary", "Counts of sources by method and class."),
    "joined": ("subtraction_comparison_summary", "Sources of all methods, joined by position."),
}

_TRUTH = {
    "truth": ("truth_summary", "Summary of the matches with truth."),
    "curves": ("truth_curves", "ROC and precision-recall curves."),
}

_KINDS = {
    "difference_metrics": "Metrics",
    "dia_source": "Sources, for the times of the visits,",
}

_TIME_COLUMNS = ("visit", "midpointMjdTai")

_OUTPUTS = {
    "times": ("plot_time_series_summary", "Figure of metrics of the visits in time."),
    "metrics": (
        "plot_method_metrics_summary",
        "Figure of the metrics of the methods and their paired differences.",
    ),
    "classes": ("plot_class_mix_summary", "Figure of what the sources are, by method, alone and shared."),
    "snr": ("plot_snr_summary", "Figure of the S/N of the methods against each other."),
}

_TRUTH_OUTPUTS = {
    "completeness": (
        "plot_completeness_summary",
        "Figure of completeness against S/N, magnitude and host.",
    ),
    "roc": ("plot_roc_summary", "Figure of what is found against what is false, as the threshold falls."),
}


class PlotSurveyConnections(pipeBase.PipelineTaskConnections, dimensions=_DIMENSIONS):
    """Connections of `PlotSurveyTask`: summaries, and two gathered tables of each method."""

    def __init__(self, *, config: PlotSurveyConfig) -> None:
        inputs = {**_INPUTS, **(_TRUTH if config.hasTruth else {})}
        for name, (dataset_type, doc) in inputs.items():
            # What failed does not cost the others their figure.
            read = cT.Input(
                doc=doc, name=dataset_type, storageClass="ArrowAstropy", dimensions=_DIMENSIONS, minimum=0
            )
            setattr(self, name, read)
        for method in config.methods:
            for kind, doc in _KINDS.items():
                gathered = cT.Input(
                    doc=f"{doc} of {method} on all detectors.",
                    name=f"{method}_{kind}_summary",
                    storageClass="ArrowAstropy",
                    dimensions=_DIMENSIONS,
                    deferLoad=True,
                    minimum=0,
                )
                setattr(self, f"{method}_{kind}", gathered)
        for name, (dataset_type, doc) in {**_OUTPUTS, **(_TRUTH_OUTPUTS if config.hasTruth else {})}.items():
            made = cT.Output(doc=doc, name=dataset_type, storageClass="Plot", dimensions=_DIMENSIONS)
            setattr(self, name, made)


class PlotSurveyConfig(pipeBase.PipelineTaskConfig, pipelineConnections=PlotSurveyConnections):
    """Configuration of `PlotSurveyTask`."""

    methods = methods_field()
    hasTruth = pexConfig.Field[bool](
        doc="Draw completeness and ROC from what SummarizeTruthTask made.", default=False
    )


class PlotSurveyTask(pipeBase.PipelineTask):
    """Draw a survey."""

    ConfigClass = PlotSurveyConfig
    _DefaultName = "plotSurvey"
    config: PlotSurveyConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, draw and write."""
        label = SurveyLabel.from_data_id(butlerQC.quantum.dataId)
        butlerQC.put(self.make_figures(butlerQC.get(inputRefs), label), outputRefs)

    def make_figures(self, inputs: dict[str, Any], label: SurveyLabel) -> pipeBase.Struct:
        """Draw what was read.

        Parameters
        ----------
        inputs : `dict` [`str`, `typing.Any`]
            What was read, by connection; a connection without a dataset may be left out.
        label : `lsst.diainspect.plots.SurveyLabel`
            Title.
        """
        return self.run(label=label, **inputs)

    def run(
        self,
        label: SurveyLabel,
        summary: Table | None = None,
        sources: Table | None = None,
        joined: Table | None = None,
        truth: Table | None = None,
        curves: Table | None = None,
        **handles: Any,
    ) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        label : `lsst.diainspect.plots.SurveyLabel`
            Title.
        summary, sources, joined : `astropy.table.Table`, optional
            Summaries of metrics and sources, and the sources of all methods.
        truth, curves : `astropy.table.Table`, optional
            Summary of the matches with truth, and its curves.
        **handles : `lsst.daf.butler.DeferredDatasetHandle`
            ``{method}_difference_metrics`` and ``{method}_dia_source``, where they exist.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``times``, ``metrics``, ``classes``, ``snr``, and with truth ``completeness`` and ``roc``,
            `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        metrics: dict[str, Table | None] = {}
        for method in methods:
            handle = handles.get(f"{method}_difference_metrics")
            metrics[method] = None if handle is None else handle.get()
        if not any(table is not None for table in metrics.values()):
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(methods)} has metrics of the {label}."
            )
        found = [handles.get(f"{method}_dia_source") for method in methods]
        times = _visit_times(handle for handle in found if handle is not None)
        figures = {
            "times": plot_time_series(metrics, times, label),
            "metrics": plot_method_metrics(summary, methods, label),
            "classes": plot_class_mix(sources, methods, label),
            "snr": plot_snr(joined, methods, label),
        }
        if self.config.hasTruth:
            figures["completeness"] = plot_completeness(truth, methods, label)
            figures["roc"] = plot_roc(curves, truth, methods, label)
        return pipeBase.Struct(**figures)


def _visit_times(handles: Iterable[Any]) -> dict[int, float]:
    """Return the middle of the exposure of each visit that has a source [MJD, TAI]."""
    times: dict[int, float] = {}
    for handle in handles:
        table = handle.get(parameters={"columns": list(_TIME_COLUMNS)})
        visits, first = np.unique(np.asarray(table["visit"]), return_index=True)
        middle = np.asarray(table["midpointMjdTai"], dtype=float)[first]
        times |= {int(visit): float(time) for visit, time in zip(visits, middle, strict=True)}
    return times
