"""Summarise the matches with truth of all detectors: completeness, purity, pulls and more, by method."""

from __future__ import annotations

__all__ = ["SummarizeTruthConfig", "SummarizeTruthConnections", "SummarizeTruthTask"]

from collections.abc import Mapping
from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table

from ..stamps import Query, QueryError
from ..truth import Resampling, SummarySettings, summarise_truth

_KINDS = {"truth_match": "Objects and sources matched", "truth_counts": "Fiducial area of each detector"}
_EDGES = ("idealSnr", "mag", "hostSurfaceBrightness", "hostSeparation")


class SummarizeTruthConnections(pipeBase.PipelineTaskConnections, dimensions=("instrument",)):
    """Connections of `SummarizeTruthTask`: besides these, two inputs for each method of the configuration."""

    summary = cT.Output(
        doc="One row a method, statistic and bin, with an interval.",
        name="truth_summary",
        storageClass="ArrowAstropy",
        dimensions=("instrument",),
    )
    curves = cT.Output(
        doc="ROC and precision-recall curves: one row a method, score and threshold.",
        name="truth_curves",
        storageClass="ArrowAstropy",
        dimensions=("instrument",),
    )

    def __init__(self, *, config: SummarizeTruthConfig) -> None:
        for method in config.methods:
            for kind, doc in _KINDS.items():
                connection = cT.Input(
                    doc=f"{doc}, {method}.",
                    name=f"{method}_{kind}_summary",
                    storageClass="ArrowAstropy",
                    dimensions=("instrument",),
                    # A method that failed everywhere does not cost the others their summary.
                    minimum=0,
                )
                setattr(self, f"{method}_{kind}", connection)


class SummarizeTruthConfig(pipeBase.PipelineTaskConfig, pipelineConnections=SummarizeTruthConnections):
    """Configuration of `SummarizeTruthTask`."""

    methods = pexConfig.ListField[str](doc="Methods.", dtype=str, default=["al", "zogy"])
    idealSnrEdges = pexConfig.ListField[float](
        doc="Edges of the bins of the ideal S/N.",
        dtype=float,
        default=list(SummarySettings().edges["idealSnr"]),
    )
    magEdges = pexConfig.ListField[float](
        doc="Edges of the bins of the magnitude [mag].",
        dtype=float,
        default=list(SummarySettings().edges["mag"]),
    )
    hostSurfaceBrightnessEdges = pexConfig.ListField[float](
        doc="Edges of the bins of the host's surface brightness [mag / arcsec2].",
        dtype=float,
        default=list(SummarySettings().edges["hostSurfaceBrightness"]),
    )
    hostSeparationEdges = pexConfig.ListField[float](
        doc="Edges of the bins of the distance from the host's centre [arcsec].",
        dtype=float,
        default=list(SummarySettings().edges["hostSeparation"]),
    )
    cuts = pexConfig.ListField[str](
        doc="Conditions on columns of {method}_truth_match, such as 'reliability < 0.5', whose effect on purity and "
        "completeness is measured besides that of each flag: sources for which one holds are taken away.",
        dtype=str,
        default=[],
    )
    scores = pexConfig.ListField[str](
        doc="Columns of {method}_truth_match, larger for what is rather real, for ROC and precision-recall curves.",
        dtype=str,
        default=["snr", "reliability"],
    )
    leastSnr = pexConfig.RangeField[float](
        doc="Least ideal S/N of the objects whose pulls and ratios are measured.",
        default=SummarySettings().least_snr,
        min=0.0,
    )
    nResamples = pexConfig.RangeField[int](
        doc="Number of resamples of the bootstrap.", default=Resampling().n_resamples, min=10
    )
    seed = pexConfig.Field[int](doc="Seed of the bootstrap.", default=Resampling().seed)

    def summary_settings(self) -> SummarySettings:
        """Return the settings of the summary."""
        return SummarySettings(
            edges={name: tuple(getattr(self, f"{name}Edges")) for name in _EDGES},
            cuts=tuple(self.cuts),
            scores=tuple(self.scores),
            least_snr=self.leastSnr,
            resampling=Resampling(self.nResamples, seed=self.seed),
        )

    def validate(self) -> None:
        """Check conditions and edges."""
        super().validate()
        for name in _EDGES:
            edges = list(getattr(self, f"{name}Edges"))
            if len(edges) < 2 or any(a >= b for a, b in zip(edges[:-1], edges[1:], strict=True)):
                raise pexConfig.FieldValidationError(
                    getattr(SummarizeTruthConfig, f"{name}Edges"), self, f"must rise, got {edges}."
                )
        for text in self.cuts:
            try:
                Query(text)
            except QueryError as error:
                raise pexConfig.FieldValidationError(SummarizeTruthConfig.cuts, self, str(error)) from error


class SummarizeTruthTask(pipeBase.PipelineTask):
    """Summarise matches with truth."""

    ConfigClass = SummarizeTruthConfig
    _DefaultName = "summarizeTruth"
    config: SummarizeTruthConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, summarise and write."""
        inputs: dict[str, Any] = butlerQC.get(inputRefs)
        matches, counts = (
            {
                method: inputs[f"{method}_{kind}"]
                for method in self.config.methods
                if inputs.get(f"{method}_{kind}") is not None
            }
            for kind in _KINDS
        )
        present = [method for method in matches if method in counts]
        missing = [method for method in self.config.methods if method not in present]
        self.metadata["missingMethods"] = ",".join(missing)
        if not present:
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(missing)} was matched with truth."
            )
        if missing:
            self.log.warning("No matches of %s: summarised without.", ", ".join(missing))
        outputs = self.run({m: matches[m] for m in present}, {m: counts[m] for m in present})
        butlerQC.put(outputs, outputRefs)

    def run(self, matches: Mapping[str, Table], counts: Mapping[str, Table]) -> pipeBase.Struct:
        """Summarise.

        Parameters
        ----------
        matches, counts : mapping [`str`, `astropy.table.Table`]
            Tables of each method, as `MatchTruthTask` makes them, of all detectors.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``summary`` and ``curves``, `astropy.table.Table`.
        """
        made = summarise_truth(matches, counts, self.config.summary_settings())
        for row in made.summary:
            if row["statistic"] in ("completeness", "purity") and not row["variable"] and not row["cut"]:
                self.log.info(
                    "%s: %s %.3f (%.3f to %.3f, %d).",
                    *(row[name] for name in ("method", "statistic", "value", "lower", "upper", "n")),
                )
        return pipeBase.Struct(summary=made.summary, curves=made.curves)
