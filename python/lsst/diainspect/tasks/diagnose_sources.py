"""Measure the diagnostics of every source of a stamp set."""

from __future__ import annotations

__all__ = ["DiagnoseSourcesConfig", "DiagnoseSourcesConnections", "DiagnoseSourcesTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from astropy.table import Table
from lsst.images import Box

from ..diagnostics import diagnostic_registry, measure_diagnostics
from ..plugins import load_plugins
from ..stamps import DetectorContext, StampSet
from ._wide_table import WideTable

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
    kernelSources = cT.Input(
        doc="Candidate sources of the match, for the distance to them.",
        name="{method}_kernel_sources",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        # Some methods and all alerts do without.
        minimum=0,
    )
    maps = cT.Input(
        doc="Maps of the detector, for what artefacts are to be expected; without, the configuration says.",
        name="{method}_detector_maps",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
        minimum=0,
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
        if not (config.hasFilters and config.hasKernelSources):
            del self.kernelSources
        if not (config.hasFilters and config.hasMaps):
            del self.maps


class DiagnoseSourcesConfig(pipeBase.PipelineTaskConfig, pipelineConnections=DiagnoseSourcesConnections):
    """Configuration of `DiagnoseSourcesTask`."""

    diagnostics = diagnostic_registry.makeField(
        doc="Diagnostics to measure.",
        multi=True,
        default=[
            "aperturePhotometry",
            "context",
            "dipole",
            "localNoise",
            "maskFractions",
            "psfPhotometry",
            "residualModes",
            "shape",
            "trail",
        ],
    )
    hasFilters = pexConfig.Field[bool](
        doc="Read the PSFs and filters of the detector; False for stamps that bring their own PSFs, as alerts do.",
        default=True,
    )
    hasKernelSources = pexConfig.Field[bool](
        doc="Read the table of kernel sources, if hasFilters; False for a method that makes none.",
        default=True,
    )
    hasMaps = pexConfig.Field[bool](
        doc="Read the maps of the detector, if hasFilters and they are there; False where no task makes them.",
        default=True,
    )


class DiagnoseSourcesTask(pipeBase.PipelineTask):
    """Measure diagnostics."""

    ConfigClass = DiagnoseSourcesConfig
    _DefaultName = "diagnoseSources"
    config: DiagnoseSourcesConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, measure and write."""
        result = self.run(**butlerQC.get(inputRefs))
        butlerQC.put(pipeBase.Struct(diagnostics=WideTable(result.diagnostics, copy=False)), outputRefs)

    def run(
        self,
        stamps: Table,
        filters: Table | None = None,
        kernelSources: Table | None = None,
        maps: Table | None = None,
    ) -> pipeBase.Struct:
        """Measure.

        Parameters
        ----------
        stamps : `astropy.table.Table`
            Stamps, as `lsst.diainspect.stamps.StampSet.to_table` makes them.
        filters : `astropy.table.Table`, optional
            Bases of their PSFs and filters; without it the stamps have only what is in their own columns.
        kernelSources : `astropy.table.Table`, optional
            Candidates on which the images were matched.
        maps : `astropy.table.Table`, optional
            Maps of the detector.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``diagnostics``, `astropy.table.Table`.
        """
        field = self.config.diagnostics
        # The configured names are a set: sorted, so that every process makes the same table.
        plugins = {name: field.registry[name](field[name]) for name in sorted(field.names)}
        context = DetectorContext(bounds=_bounds(filters), kernel_sources=kernelSources, maps=maps)
        stamp_set = StampSet.from_tables(stamps, filters).with_context(context)
        table = measure_diagnostics(stamp_set, plugins, self.log)
        self.log.info("Measured %s of %d sources.", ", ".join(plugins) or "nothing", len(table))
        return pipeBase.Struct(diagnostics=table)


def _bounds(filters: Table | None) -> Box | None:
    """Return the region that the filters cover, which is that of the difference image."""
    if filters is None or len(filters) == 0 or "xMin" not in filters.colnames:
        return None
    x_min, y_min, width, height = (int(filters[name][0]) for name in ("xMin", "yMin", "width", "height"))
    return Box.factory[y_min : y_min + height, x_min : x_min + width]
