"""Draw what the methods made of a visit, over all of its detectors."""

from __future__ import annotations

__all__ = ["PlotVisitConfig", "PlotVisitConnections", "PlotVisitTask"]

from collections.abc import Iterable
from typing import Any

import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table

from ..maps import DetectorMaps
from ..plots import VisitLabel, plot_class_mix, plot_focal_plane, plot_method_metrics, plot_residual_modes
from ._plot_task import methods_field

_KINDS = {
    "image_statistics": "Statistics of the image",
    "detector_maps": "Maps of registration, PSF errors and flux scale",
}

_DIMENSIONS = ("instrument", "visit")

_OUTPUTS = {
    "focalPlane": ("plot_focal_plane", "Figure of statistics over all detectors, on the sky."),
    "modes": ("plot_residual_modes", "Figure of registration, width and shape errors over all detectors."),
    "metrics": ("plot_method_metrics", "Figure of the metrics of the methods and their paired differences."),
    "classes": ("plot_class_mix", "Figure of what the sources are, by method, alone and shared."),
}


class PlotVisitConnections(pipeBase.PipelineTaskConnections, dimensions=_DIMENSIONS):
    """Connections of `PlotVisitTask`: besides the summaries, two inputs of every detector for each method."""

    summary = cT.Input(
        doc="Metrics by method and paired differences.",
        name="method_metrics_visit",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
        minimum=0,
    )
    sources = cT.Input(
        doc="Counts of sources by method and class.",
        name="method_sources_visit",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
        minimum=0,
    )

    def __init__(self, *, config: PlotVisitConfig) -> None:
        for method in config.methods:
            for kind, doc in _KINDS.items():
                connection = cT.Input(
                    doc=f"{doc} of {method}, of each detector.",
                    name=f"{method}_{kind}",
                    storageClass="ArrowAstropy",
                    dimensions=("instrument", "visit", "detector"),
                    multiple=True,
                    deferLoad=True,
                    minimum=0,
                )
                setattr(self, f"{method}_{kind}", connection)
        for name, (dataset_type, doc) in _OUTPUTS.items():
            made = cT.Output(
                doc=doc, name=f"{dataset_type}_visit", storageClass="Plot", dimensions=_DIMENSIONS
            )
            setattr(self, name, made)


class PlotVisitConfig(pipeBase.PipelineTaskConfig, pipelineConnections=PlotVisitConnections):
    """Configuration of `PlotVisitTask`."""

    methods = methods_field()


class PlotVisitTask(pipeBase.PipelineTask):
    """Draw a visit."""

    ConfigClass = PlotVisitConfig
    _DefaultName = "plotVisit"
    config: PlotVisitConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, draw and write."""
        label = VisitLabel.from_data_id(butlerQC.quantum.dataId)
        butlerQC.put(self.make_figures(butlerQC.get(inputRefs), label), outputRefs)

    def make_figures(self, inputs: dict[str, Any], label: VisitLabel) -> pipeBase.Struct:
        """Draw what was read.

        Parameters
        ----------
        inputs : `dict` [`str`, `typing.Any`]
            What was read, by connection; a connection without a dataset may be left out.
        label : `lsst.diainspect.plots.VisitLabel`
            Title.
        """
        return self.run(label=label, **inputs)

    def run(
        self, label: VisitLabel, summary: Table | None = None, sources: Table | None = None, **handles: Any
    ) -> pipeBase.Struct:
        """Draw.

        Parameters
        ----------
        label : `lsst.diainspect.plots.VisitLabel`
            Title.
        summary, sources : `astropy.table.Table`, optional
            Summaries of the visit.
        **handles : `list` [`lsst.daf.butler.DeferredDatasetHandle`]
            ``{method}_image_statistics`` and ``{method}_detector_maps`` of all detectors, where they exist.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``focalPlane``, ``modes``, ``metrics`` and ``classes``, `matplotlib.figure.Figure`.
        """
        methods = list(self.config.methods)
        found = {
            kind: {method: _by_detector(handles.get(f"{method}_{kind}") or ()) for method in methods}
            for kind in _KINDS
        }
        statistics, maps = found["image_statistics"], found["detector_maps"]
        if not any(statistics.values()):
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(methods)} has statistics of a detector of {label}."
            )
        placed = {
            method: [
                (DetectorMaps.from_table(maps[method][detector]), table)
                for detector, table in statistics[method].items()
                if detector in maps[method]
            ]
            for method in methods
        }
        return pipeBase.Struct(
            focalPlane=plot_focal_plane(
                {method: list(own.values()) for method, own in statistics.items()}, label
            ),
            modes=plot_residual_modes(placed, label),
            metrics=plot_method_metrics(summary, methods, label),
            classes=plot_class_mix(sources, methods, label),
        )


def _by_detector(handles: Iterable[Any]) -> dict[int, Table]:
    """Read tables, in the order of the detectors."""
    by_detector = {int(handle.dataId["detector"]): handle for handle in handles}
    return {detector: by_detector[detector].get() for detector in sorted(by_detector)}
