"""Gather tables over the detectors of a visit, and over the visits of a survey."""

from __future__ import annotations

__all__ = [
    "GatherSurveyConfig",
    "GatherSurveyConnections",
    "GatherSurveyTask",
    "GatherTablesTask",
    "GatherVisitConfig",
    "GatherVisitConnections",
    "GatherVisitTask",
]

from collections.abc import Sequence
from typing import ClassVar

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table, vstack
from lsst.daf.butler import DatasetRef
from lsst.daf.butler.progress import Progress

from ._wide_table import WideTable

_PROGRESS = Progress("lsst.diainspect.tasks.gatherTables")


class GatherTablesConfig(pexConfig.Config):
    """Configuration of both gathers: which tables of a detector are gathered."""

    methods = pexConfig.ListField[str](
        doc="Methods whose tables are gathered.", dtype=str, default=["al", "zogy"]
    )
    tablesOfMethods = pexConfig.ListField[str](
        doc="Tables gathered of each method: the names of the dataset types after the method's.",
        dtype=str,
        default=["dia_source", "difference_metrics"],
    )
    tables = pexConfig.ListField[str](
        doc="Tables gathered that belong to no method.", dtype=str, default=["subtraction_comparison"]
    )

    def table_names(self) -> list[str]:
        """Return the names of the per-detector tables that are gathered."""
        of_methods = [f"{method}_{kind}" for method in self.methods for kind in self.tablesOfMethods]
        return [*self.tables, *of_methods]


def _add_tables(
    connections: pipeBase.PipelineTaskConnections,
    names: Sequence[str],
    *,
    source: tuple[str, str, tuple[str, ...]],
    target: tuple[str, str, tuple[str, ...]],
) -> None:
    """Add the input and the output of each table; each side is a suffix, what it holds, and its dimensions."""
    for name in names:
        suffix, what, dimensions = source
        gathered = cT.Input(
            doc=f"{name} of {what}.",
            name=name + suffix,
            storageClass="ArrowAstropy",
            dimensions=dimensions,
            multiple=True,
            deferLoad=True,
            # A part that failed does not cost the others their table.
            minimum=0,
        )
        suffix, what, dimensions = target
        made = cT.Output(
            doc=f"{name} of {what}.", name=name + suffix, storageClass="ArrowAstropy", dimensions=dimensions
        )
        setattr(connections, f"{name}_in", gathered)
        setattr(connections, f"{name}_out", made)


class GatherVisitConnections(pipeBase.PipelineTaskConnections, dimensions=("instrument", "visit")):
    """Connections of `GatherVisitTask`: ``{table}`` to ``{table}_visit`` for each table."""

    def __init__(self, *, config: GatherVisitConfig) -> None:
        _add_tables(
            self,
            config.table_names(),
            source=("", "each detector", ("instrument", "visit", "detector")),
            target=("_visit", "all detectors of the visit", ("instrument", "visit")),
        )


class GatherVisitConfig(
    GatherTablesConfig, pipeBase.PipelineTaskConfig, pipelineConnections=GatherVisitConnections
):
    """Configuration of `GatherVisitTask`."""


class GatherSurveyConnections(pipeBase.PipelineTaskConnections, dimensions=("instrument",)):
    """Connections of `GatherSurveyTask`: ``{table}_visit`` to ``{table}_summary`` for each table."""

    def __init__(self, *, config: GatherSurveyConfig) -> None:
        _add_tables(
            self,
            config.table_names(),
            source=("_visit", "each visit", ("instrument", "visit")),
            target=("_summary", "all visits", ("instrument",)),
        )


class GatherSurveyConfig(
    GatherTablesConfig, pipeBase.PipelineTaskConfig, pipelineConnections=GatherSurveyConnections
):
    """Configuration of `GatherSurveyTask`."""


class GatherTablesTask(pipeBase.PipelineTask):
    """Stack tables, whichever of them there are."""

    ConfigClass: ClassVar[type[pipeBase.PipelineTaskConfig]]
    _DefaultName: ClassVar[str] = "gatherTables"

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Stack each kind of table; one that no input has is not written."""
        n_written = 0
        names = [name.removesuffix("_out") for name in outputRefs.keys()]  # noqa: SIM118
        for name in _PROGRESS.wrap(names, desc="Gathering tables"):
            refs: list[DatasetRef] = list(getattr(inputRefs, f"{name}_in", []))
            handles = butlerQC.get(refs)
            tables = [handle.get() for handle in sorted(handles, key=_by_data_id)]
            self.metadata[f"{name}_nTables"] = len(tables)
            if not tables:
                self.log.warning("There is no %s to gather.", name)
                continue
            gathered = self.run(tables)
            butlerQC.put(WideTable(gathered, copy=False), getattr(outputRefs, f"{name}_out"))
            self.log.info("Gathered %d rows of %s from %d tables.", len(gathered), name, len(tables))
            n_written += 1
        if n_written == 0:
            raise pipeBase.UpstreamFailureNoWorkFound(f"No tables to gather for {butlerQC.quantum.dataId}.")

    def run(self, tables: Sequence[Table]) -> Table:
        """Stack tables; columns that some lack are filled as missing values of their type.

        Parameters
        ----------
        tables : sequence [`astropy.table.Table`]
            Tables.

        Returns
        -------
        gathered : `astropy.table.Table`
            All rows.
        """
        gathered = vstack(list(tables), join_type="outer", metadata_conflicts="silent")
        if gathered.has_masked_columns:
            for name in gathered.colnames:
                column = gathered[name]
                if hasattr(column, "filled"):
                    fill = float("nan") if column.dtype.kind == "f" else column.dtype.type()
                    gathered[name] = column.filled(fill)
        return gathered


def _by_data_id(handle: pipeBase.InMemoryDatasetHandle) -> tuple:
    return tuple(handle.dataId.required_values)


class GatherVisitTask(GatherTablesTask):
    """Gather tables over the detectors of a visit."""

    ConfigClass = GatherVisitConfig
    _DefaultName = "gatherVisit"


class GatherSurveyTask(GatherTablesTask):
    """Gather tables over the visits of a survey."""

    ConfigClass = GatherSurveyConfig
    _DefaultName = "gatherSurvey"
