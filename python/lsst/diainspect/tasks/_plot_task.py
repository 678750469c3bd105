"""What tasks that make figures of a detector share: inputs of each method, and what the title says."""

from __future__ import annotations

__all__ = ["PlotTask", "add_method_inputs", "by_method", "methods_field"]

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT

from ..plots import DetectorLabel
from ._template_input import assemble_template

_DIMENSIONS = ("instrument", "visit", "detector")

_STORAGE_CLASSES = {
    "difference_image": "MaskedImageV2",
    "score_image": "MaskedImageV2",
}
"""Images are read without PSF and kernel; everything else of a method is a table."""


def methods_field() -> pexConfig.ListField:
    """Make the configuration field ``methods``."""
    return pexConfig.ListField(doc="Methods to show, in this order.", dtype=str, default=["al", "zogy"])


def add_method_inputs(
    connections: pipeBase.PipelineTaskConnections, methods: Iterable[str], kinds: Mapping[str, str]
) -> None:
    """Add the inputs ``{method}_{kind}`` to a task's connections.

    Each is read only when it is needed, and may be missing: a method that failed does not cost the others their
    figure.

    Parameters
    ----------
    connections : `lsst.pipe.base.PipelineTaskConnections`
        Instance to add to.
    methods : iterable [`str`]
        Methods.
    kinds : mapping [`str`, `str`]
        Documentation by kind: the dataset type's name without the method.
    """
    for method in methods:
        for kind, doc in kinds.items():
            storage_class = _STORAGE_CLASSES.get(kind)
            connection = cT.Input(
                doc=f"{doc} of {method}.",
                name=f"{method}_{kind}" + (".masked_image" if storage_class else ""),
                storageClass=storage_class or "ArrowAstropy",
                dimensions=_DIMENSIONS,
                deferLoad=True,
                minimum=0,
            )
            setattr(connections, f"{method}_{kind}", connection)


def by_method(inputs: Mapping[str, Any], methods: Iterable[str], kind: str) -> dict[str, Any]:
    """Return the handles of one kind by method, without the methods that have none."""
    found = {method: inputs.get(f"{method}_{kind}") for method in methods}
    return {method: handle for method, handle in found.items() if handle is not None}


class PlotTask(pipeBase.PipelineTask):
    """Make figures of one detector.

    A subclass implements ``run(**inputs, label)``, whose inputs are named after the connections; those of the
    methods are handles. What is missing is said in the figure; only when there is nothing at all, ``run`` raises
    `lsst.pipe.base.UpstreamFailureNoWorkFound`.
    """

    _DefaultName: ClassVar[str] = "plot"

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, draw and write."""
        data_id = butlerQC.quantum.dataId
        figures = self.make_figures(butlerQC.get(inputRefs), DetectorLabel.from_data_id(data_id))
        butlerQC.put(figures, outputRefs)

    def make_figures(self, inputs: dict[str, Any], label: DetectorLabel) -> pipeBase.Struct:
        """Draw what was read.

        Parameters
        ----------
        inputs : `dict` [`str`, `typing.Any`]
            What was read, by connection; a connection without a dataset may be left out.
        label : `lsst.diainspect.plots.DetectorLabel`
            Title.
        """
        return self.run(**assemble_template(inputs, inputs.get("science")), label=label)
