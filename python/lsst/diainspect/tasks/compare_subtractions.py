"""Join the sources of all subtraction methods of a detector."""

from __future__ import annotations

__all__ = ["CompareSubtractionsConfig", "CompareSubtractionsConnections", "CompareSubtractionsTask"]

from collections.abc import Mapping
from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table

from ..comparison import join_sources
from ..truth import source_truth
from ._wide_table import WideTable


class CompareSubtractionsConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"scienceName": "visit_image"},
):
    """Connections of `CompareSubtractionsTask`: two inputs for each method of the configuration."""

    science = cT.Input(
        doc="Science image, which is not read: where there is one the methods are compared.",
        name="{scienceName}",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
        deferLoad=True,
    )
    comparison = cT.Output(
        doc="Sources of all methods, joined by position.",
        name="subtraction_comparison",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: CompareSubtractionsConfig) -> None:
        if not config.whereScience:
            del self.science
        for method in config.methods:
            for kind, doc in _kinds(config).items():
                connection = cT.Input(
                    doc=f"{doc} of {method}.",
                    name=f"{method}_{kind}",
                    storageClass="ArrowAstropy",
                    dimensions=("instrument", "visit", "detector"),
                    # A method that failed on this detector does not cost the others their comparison.
                    minimum=0,
                )
                setattr(self, f"{method}_{kind}", connection)


def _kinds(config: CompareSubtractionsConfig) -> dict[str, str]:
    """Return the tables that are read of each method, and what they hold."""
    kinds = {
        "dia_source": "DIA sources",
        "dia_diagnostics": "Diagnostics",
        "dia_classification": "Scores of place, look and cause",
    }
    if config.hasTruth:
        kinds["truth_match"] = "Matches with the truth"
    return kinds


class CompareSubtractionsConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=CompareSubtractionsConnections
):
    """Configuration of `CompareSubtractionsTask`."""

    methods = pexConfig.ListField[str](doc="Methods to compare.", dtype=str, default=["al", "zogy"])
    matchRadius = pexConfig.RangeField[float](
        doc="Largest distance between one source's positions in two methods [pixel].",
        default=3.0,
        min=0.0,
        inclusiveMin=False,
    )
    whereScience = pexConfig.Field[bool](
        doc="Compare where there is a science image. Without, every detector of the camera that a query does not "
        "exclude is looked at, as all tables of the methods may be missing.",
        default=False,
    )
    hasTruth = pexConfig.Field[bool](
        doc="Add what the truth says of each source, from MatchTruthTask.", default=False
    )

    def validate(self) -> None:
        """Check that methods are named once each."""
        super().validate()
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise pexConfig.FieldValidationError(
                CompareSubtractionsConfig.methods,
                self,
                f"must name at least one method, each once; got {list(self.methods)}.",
            )


class CompareSubtractionsTask(pipeBase.PipelineTask):
    """Compare subtraction methods."""

    ConfigClass = CompareSubtractionsConfig
    _DefaultName = "compareSubtractions"
    config: CompareSubtractionsConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read what the methods made, compare and write."""
        inputs: dict[str, Any] = butlerQC.get(inputRefs)
        tables = {
            kind: {
                method: inputs[f"{method}_{kind}"]
                for method in self.config.methods
                if inputs.get(f"{method}_{kind}") is not None
            }
            for kind in _kinds(self.config)
        }
        sources = tables["dia_source"]
        missing = [method for method in self.config.methods if method not in sources]
        if len(missing) == len(self.config.methods):
            raise pipeBase.UpstreamFailureNoWorkFound(
                f"None of the methods {', '.join(missing)} made sources for {butlerQC.quantum.dataId}."
            )
        if missing:
            self.log.warning("No sources of %s: compared without.", ", ".join(missing))
        self.metadata["missingMethods"] = ",".join(missing)
        result = self.run(
            sources, tables["dia_diagnostics"], tables.get("truth_match"), tables["dia_classification"]
        )
        butlerQC.put(pipeBase.Struct(comparison=WideTable(result.comparison, copy=False)), outputRefs)

    def run(
        self,
        sources: Mapping[str, Table],
        diagnostics: Mapping[str, Table],
        truth: Mapping[str, Table] | None = None,
        classification: Mapping[str, Table] | None = None,
    ) -> pipeBase.Struct:
        """Join.

        Parameters
        ----------
        sources : mapping [`str`, `astropy.table.Table`]
            DIA sources by method.
        diagnostics : mapping [`str`, `astropy.table.Table`]
            Diagnostics by method.
        truth : mapping [`str`, `astropy.table.Table`], optional
            Matches with the truth by method, as `MatchTruthTask` makes them.
        classification : mapping [`str`, `astropy.table.Table`], optional
            Scores of place, look and cause by method, as `ClassifySourcesTask` makes them.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``comparison``, `astropy.table.Table`, as `lsst.diainspect.comparison.join_sources` makes it.
        """
        told = {method: source_truth(matches) for method, matches in (truth or {}).items()}
        joined = join_sources(sources, diagnostics, self.config.matchRadius, told, classification)
        counts = {method: int(joined[f"{method}_found"].sum()) for method in sources}
        common = int((joined["nMethods"] == len(sources)).sum())
        for method, count in counts.items():
            self.metadata[f"{method}_nSources"] = count
        self.metadata["nCommon"] = common
        self.log.info(
            "%d sources in all (%s), %d common to all methods.",
            len(joined),
            ", ".join(f"{method} {count}" for method, count in counts.items()),
            common,
        )
        return pipeBase.Struct(comparison=joined)
