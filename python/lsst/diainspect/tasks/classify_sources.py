"""Say of every source where it lies, what it looks like and what made it."""

from __future__ import annotations

__all__ = ["ClassifySourcesConfig", "ClassifySourcesConnections", "ClassifySourcesTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Table

from ..classification import CauseModel, classify_sources, stored_model
from ..maps import DetectorMaps

_DIMENSIONS = ("instrument", "visit", "detector")


class ClassifySourcesConnections(
    pipeBase.PipelineTaskConnections, dimensions=_DIMENSIONS, defaultTemplates={"method": "al"}
):
    """Connections of `ClassifySourcesTask`."""

    diagnostics = cT.Input(
        doc="Diagnostics, one row a source.",
        name="{method}_dia_diagnostics",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    diaSources = cT.Input(
        doc="DIA sources, for their S/N, positions and pixel flags.",
        name="{method}_dia_source",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )
    maps = cT.Input(
        doc="Maps of the detector, which tell apart causes that one source cannot.",
        name="{method}_detector_maps",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
        minimum=0,
    )
    classification = cT.Output(
        doc="Scores of place, look and cause, one row a source.",
        name="{method}_dia_classification",
        storageClass="ArrowAstropy",
        dimensions=_DIMENSIONS,
    )

    def __init__(self, *, config: ClassifySourcesConfig) -> None:
        if not config.hasSources:
            del self.diaSources
        if not config.hasMaps:
            del self.maps


class ClassifySourcesConfig(pipeBase.PipelineTaskConfig, pipelineConnections=ClassifySourcesConnections):
    """Configuration of `ClassifySourcesTask`."""

    hasSources = pexConfig.Field[bool](
        doc="Read the table of sources; False where there are diagnostics alone, at some cost in certainty.",
        default=True,
    )
    hasMaps = pexConfig.Field[bool](
        doc="Read the maps of the detector, if they are there; False where no task makes them.", default=True
    )
    modelFile = pexConfig.Field[str](
        doc="File of the model of causes, as benchmarks/classification writes it; empty for the package's own.",
        dtype=str,
        default="",
    )


class ClassifySourcesTask(pipeBase.PipelineTask):
    """Classify sources."""

    ConfigClass = ClassifySourcesConfig
    _DefaultName = "classifySources"
    config: ClassifySourcesConfig

    def run(
        self, diagnostics: Table, diaSources: Table | None = None, maps: Table | None = None
    ) -> pipeBase.Struct:
        """Classify.

        Parameters
        ----------
        diagnostics : `astropy.table.Table`
            Diagnostics, as `DiagnoseSourcesTask` makes them.
        diaSources : `astropy.table.Table`, optional
            Source table with a row for each of them.
        maps : `astropy.table.Table`, optional
            Maps of the detector.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``classification``, `astropy.table.Table`, as `lsst.diainspect.classification.classify_sources` makes it.
        """
        model = CauseModel.read(self.config.modelFile) if self.config.modelFile else stored_model()
        table = classify_sources(
            diagnostics, diaSources, DetectorMaps.from_table(maps) if maps is not None else None, model
        )
        causes, counts = np.unique(np.asarray(table["cause"]).astype(str), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        self.metadata["nReal"] = int(np.count_nonzero(np.asarray(table["cause_real"]) >= 0.5))
        self.metadata["nAmbiguous"] = int(np.count_nonzero(table["causeAmbiguous"]))
        self.log.info(
            "Classified %d sources: %s.",
            len(table),
            ", ".join(f"{counts[j]} {causes[j]}" for j in order) or "none",
        )
        return pipeBase.Struct(classification=table)
