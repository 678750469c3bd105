"""Measure the diagnostics of every source of a stamp set."""

from __future__ import annotations

__all__ = ["DiagnoseSourcesConfig", "DiagnoseSourcesConnections", "DiagnoseSourcesTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table

from ..diagnostics import diagnostic_registry, measure_diagnostics
from ..plugins import load_plugins
from ..stamps import StampSet

load_plugins()


class DiagnoseSourcesConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"method": "al"},
):
    """Connections of `DiagnoseSourcesTask`."""

    stamps = cT.Input(
        doc="Stamps of every source.",
        name="{method}_dia_stamps",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    filters = cT.Input(
        doc="PSFs of the images and the filters that made the difference, over the detector.",
        name="{method}_difference_filters",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    diagnostics = cT.Output(
        doc="Diagnostics, one row a source.",
        name="{method}_dia_diagnostics",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: DiagnoseSourcesConfig) -> None:
        if not config.hasFilters:
            del self.filters


class DiagnoseSourcesConfig(pipeBase.PipelineTaskConfig, pipelineConnections=DiagnoseSourcesConnections):
    """Configuration of `DiagnoseSourcesTask`."""

    diagnostics = diagnostic_registry.makeField(
        doc="Diagnostics to measure.",
        multi=True,
        default=["maskFractions", "psfPhotometry", "localNoise", "residualModes"],
    )
    hasFilters = pexConfig.Field[bool](
        doc="Read the PSFs and filters of the detector; False for stamps that bring their own PSFs, as alerts do.",
        default=True,
    )


class DiagnoseSourcesTask(pipeBase.PipelineTask):
    """Measure diagnostics."""

    ConfigClass = DiagnoseSourcesConfig
    _DefaultName = "diagnoseSources"
    config: DiagnoseSourcesConfig

    def run(self, stamps: Table, filters: Table | None = None) -> pipeBase.Struct:
        """Measure.

        Parameters
        ----------
        stamps : `astropy.table.Table`
            Stamps, as `lsst.diainspect.stamps.StampSet.to_table` makes them.
        filters : `astropy.table.Table`, optional
            Bases of their PSFs and filters; without it the stamps have only what is in their own columns.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``diagnostics``, `astropy.table.Table`.
        """
        field = self.config.diagnostics
        # The configured names are a set: sorted, so that every process makes the same table.
        plugins = {name: field.registry[name](field[name]) for name in sorted(field.names)}
        stamp_set = StampSet.from_tables(stamps, filters)
        table = measure_diagnostics(stamp_set, plugins, self.log)
        self.log.info("Measured %s of %d sources.", ", ".join(plugins) or "nothing", len(table))
        return pipeBase.Struct(diagnostics=table)
