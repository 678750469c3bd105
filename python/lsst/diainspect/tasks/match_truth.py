"""Match the DIA sources of a detector with the truth."""

from __future__ import annotations

__all__ = ["MatchTruthConfig", "MatchTruthConnections", "MatchTruthTask"]

from collections.abc import Sequence
from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Column, Table
from lsst.images import Mask, SkyProjection

from ..catalogs import stack_tables
from ..detection import DetectionSettings
from ..truth import (
    TRUTH_COLUMNS,
    FiducialArea,
    MatchSettings,
    TruthError,
    count_matches,
    match_truth,
    place_truth,
    read_truth,
    standard_truth,
)

_DETECTOR = ("instrument", "visit", "detector")


class MatchTruthConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=_DETECTOR,
    defaultTemplates={"method": "al", "truthName": "dia_truth"},
):
    """Connections of `MatchTruthTask`; the truth has the dimensions that the configuration says."""

    diaSources = cT.Input(
        doc="DIA sources.", name="{method}_dia_source", storageClass="ArrowAstropy", dimensions=_DETECTOR
    )
    diagnostics = cT.Input(
        doc="Diagnostics of the sources.",
        name="{method}_dia_diagnostics",
        storageClass="ArrowAstropy",
        dimensions=_DETECTOR,
        # They only add columns.
        minimum=0,
    )
    mask = cT.Input(
        doc="Mask of the difference image, which says where detection was possible.",
        name="{method}_difference_image.mask",
        storageClass="MaskV2",
        dimensions=_DETECTOR,
    )
    skyProjection = cT.Input(
        doc="Pixels to sky.",
        name="{method}_difference_image.sky_projection",
        storageClass="SkyProjection",
        dimensions=_DETECTOR,
    )
    matches = cT.Output(
        doc="One row an object that changed and one a source without an object.",
        name="{method}_truth_match",
        storageClass="ArrowAstropy",
        dimensions=_DETECTOR,
    )
    counts = cT.Output(
        doc="One row: the fiducial area, and how many objects and sources there are in it.",
        name="{method}_truth_counts",
        storageClass="ArrowAstropy",
        dimensions=_DETECTOR,
    )

    def __init__(self, *, config: MatchTruthConfig) -> None:
        if config.truthFile:
            return
        self.truth = cT.Input(
            doc="What changed between template and science image.",
            name=config.connections.truthName,
            storageClass="ArrowAstropy",
            dimensions=tuple(config.truthDimensions),
            # Truth by region of the sky comes in several parts.
            multiple=not set(config.truthDimensions) <= set(_DETECTOR),
        )


class MatchTruthConfig(pipeBase.PipelineTaskConfig, pipelineConnections=MatchTruthConnections):
    """Configuration of `MatchTruthTask`."""

    truthDimensions = pexConfig.ListField[str](
        doc="Dimensions of the truth dataset; instrument alone for one table of all images, htm7 and band for the "
        "catalogues of source_injection.",
        dtype=str,
        default=list(_DETECTOR),
    )
    truthFile = pexConfig.Field[str](
        doc="File with the truth of all images (Parquet, ECSV, CSV or FITS), read in place of a dataset.",
        default="",
    )
    truthColumns = pexConfig.DictField[str, str](
        doc=f"Name in the truth of each standard column that it has under a name of its own. Standard columns: "
        f"{', '.join(TRUTH_COLUMNS)}.",
        keytype=str,
        itemtype=str,
        default={},
    )
    radius = pexConfig.RangeField[float](
        doc="Largest distance between a source and its object [arcsec].",
        default=MatchSettings().radius,
        min=0.0,
        inclusiveMin=False,
    )
    timeWindow = pexConfig.RangeField[float](
        doc="Largest difference between the times of exposure and truth, where the truth has times [second].",
        default=MatchSettings().time_window,
        min=0.0,
    )
    sameSign = pexConfig.Field[bool](
        doc="A source matches only a change of its own sign.", default=MatchSettings().same_sign
    )
    leastIdealSnr = pexConfig.RangeField[float](
        doc="Objects with a smaller ideal S/N have not changed enough to be what a source shows.",
        default=MatchSettings().least_ideal_snr,
        min=0.0,
    )
    chanceDistances = pexConfig.ListField[float](
        doc="Distances by which sources are displaced, in eight directions each, to count matches by chance [arcsec]; "
        "at least three radii.",
        dtype=float,
        default=list(MatchSettings().chance_distances),
    )
    excludeMaskPlanes = pexConfig.ListField[str](
        doc="Mask planes in whose pixels nothing could be detected.",
        dtype=str,
        default=list(DetectionSettings().exclude_planes),
    )
    copiedColumns = pexConfig.ListField[str](
        doc="Columns of sources and diagnostics to copy besides flags, as patterns with * and ?.",
        dtype=str,
        default=["reliability", "psfChi2", "psfNdata"],
    )

    def match_settings(self) -> MatchSettings:
        """Return the settings of the match."""
        return MatchSettings(
            radius=self.radius,
            time_window=self.timeWindow,
            same_sign=self.sameSign,
            least_ideal_snr=self.leastIdealSnr,
            chance_distances=tuple(self.chanceDistances),
            copied_columns=tuple(self.copiedColumns),
        )

    def validate(self) -> None:
        """Check what the fields say together."""
        super().validate()
        try:
            self.match_settings()
        except ValueError as error:
            raise pexConfig.FieldValidationError(
                MatchTruthConfig.chanceDistances, self, str(error)
            ) from error
        unknown = sorted(set(self.truthColumns) - TRUTH_COLUMNS.keys())
        if unknown:
            raise pexConfig.FieldValidationError(
                MatchTruthConfig.truthColumns,
                self,
                f"unknown columns {unknown}; known are {list(TRUTH_COLUMNS)}.",
            )


class MatchTruthTask(pipeBase.PipelineTask):
    """Match sources with the truth."""

    ConfigClass = MatchTruthConfig
    _DefaultName = "matchTruth"
    config: MatchTruthConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, match and write."""
        data_id = butlerQC.quantum.dataId
        inputs: dict[str, Any] = butlerQC.get(inputRefs)
        band = str(data_id["band"]) if "band" in data_id.dimensions.names else ""
        names = dict(self.config.truthColumns)
        try:
            if self.config.truthFile:
                truth = read_truth(self.config.truthFile, names=names, band=band)
            else:
                given = inputs.pop("truth")
                parts = given if isinstance(given, list) else [given]
                truth = _joined([standard_truth(part, names=names, band=band) for part in parts])
        except TruthError as error:
            raise pipeBase.AnnotatedPartialOutputsError.annotate(error, self, log=self.log) from error
        outputs = self.run(
            **inputs,
            truth=truth,
            method=self.config.connections.method,
            visit=data_id["visit"],
            detector=data_id["detector"],
            band=band,
        )
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        diaSources: Table,
        truth: Table,
        mask: Mask,
        skyProjection: SkyProjection,
        diagnostics: Table | None = None,
        method: str = "",
        visit: int = 0,
        detector: int = 0,
        band: str = "",
    ) -> pipeBase.Struct:
        """Match.

        Parameters
        ----------
        diaSources : `astropy.table.Table`
            DIA sources.
        truth : `astropy.table.Table`
            Truth, as `lsst.diainspect.truth.standard_truth` makes it.
        mask : `lsst.images.Mask`
            Mask of the difference image.
        skyProjection : `lsst.images.SkyProjection`
            Pixels to sky.
        diagnostics : `astropy.table.Table`, optional
            Diagnostics of the sources.
        method : `str`, optional
            Name of the method.
        visit, detector : `int`, optional
            Data ID; of a truth with these columns, the rows to take.
        band : `str`, optional
            Band.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``matches`` and ``counts``, `astropy.table.Table`.
        """
        area = FiducialArea.from_mask(mask, self.config.excludeMaskPlanes)
        for name, value in (("visit", visit), ("detector", detector)):
            if name in truth.colnames:
                truth = truth[np.asarray(truth[name]) == value]
        truth = place_truth(truth, skyProjection)
        truth = truth[area.is_in_image(np.asarray(truth["x"]), np.asarray(truth["y"]))]
        matches = match_truth(
            diaSources, truth, self.config.match_settings(), area=area, diagnostics=diagnostics
        )
        identity: tuple[tuple[str, Any, str, str], ...] = (
            ("method", method, "U32", "Method."),
            ("visit", visit, "int64", "Visit."),
            ("detector", detector, "int32", "Detector."),
            ("band", band, "U8", "Band of the visit."),
        )
        counts = count_matches(matches, area.square_degrees(skyProjection))
        for table in (matches, counts):
            for index, (name, value, dtype, doc) in enumerate(identity):
                table.add_column(
                    Column(np.full(len(table), value, dtype=dtype), description=doc), index, name
                )
        for name in ("nTruth", "nDetected", "nSpurious", "nDuplicates", "nChance"):
            self.metadata[name] = float(counts[name][0])
        self.log.info(
            "%d of %d objects detected, %d spurious sources, %d duplicates; chance makes %.2g matches.",
            *(counts[name][0] for name in ("nDetected", "nTruth", "nSpurious", "nDuplicates", "nChance")),
        )
        return pipeBase.Struct(matches=matches, counts=counts)


def _joined(parts: Sequence[Table]) -> Table:
    """Put parts of the truth together; identifiers that several parts use become numbers of rows."""
    truth = stack_tables(list(parts))
    if len(parts) > 1 and len(np.unique(truth["truthId"])) < len(truth):
        truth["truthId"] = Column(
            np.arange(len(truth)), description="Number of the row in the parts put together."
        )
    return truth
