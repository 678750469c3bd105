"""Detect DIA sources on a score image and measure them on the difference."""

from __future__ import annotations

__all__ = ["DetectDiaSourcesConfig", "DetectDiaSourcesConnections", "DetectDiaSourcesTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from lsst.images import DifferenceImage, VisitImage

from ..detection import DetectionSettings, TooManyDetectionsError, detect_dia_sources
from ..masks import mask_to_words
from ..psf import PixelBasisPsf

_COUNTER_BITS = 37
"""Bits of a diaSourceId below the packed visit and detector: 1.4e11 sources a detector."""


class DetectDiaSourcesConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=("instrument", "visit", "detector"),
    defaultTemplates={"method": "al"},
):
    """Connections of `DetectDiaSourcesTask`."""

    difference = cT.Input(
        doc="Decorrelated difference image.",
        name="{method}_difference_image",
        storageClass="DifferenceImage",
        dimensions=("instrument", "visit", "detector"),
    )
    score = cT.Input(
        doc="Detection statistic in units of its own sigma.",
        name="{method}_score_image.image",
        storageClass="ImageV2",
        dimensions=("instrument", "visit", "detector"),
    )
    diaSources = cT.Output(
        doc="DIA sources with the column names of the DPDD.",
        name="{method}_dia_source",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )


class DetectDiaSourcesConfig(pipeBase.PipelineTaskConfig, pipelineConnections=DetectDiaSourcesConnections):
    """Configuration of `DetectDiaSourcesTask`."""

    threshold = pexConfig.RangeField[float](
        doc="Least absolute score of a detection [sigma].", default=5.0, min=0.0
    )
    excludeMaskPlanes = pexConfig.ListField[str](
        doc="Mask planes in whose pixels nothing is detected.",
        dtype=str,
        default=list(DetectionSettings().exclude_planes),
    )
    maxPerMegapixel = pexConfig.RangeField[float](
        doc="More peaks than this per 10^6 pixels mean that the subtraction failed.", default=5000.0, min=1.0
    )
    psfOrder = pexConfig.RangeField[int](
        doc="Spatial order with which a PSF that has to be sampled is represented.", default=3, min=0
    )


class DetectDiaSourcesTask(pipeBase.PipelineTask):
    """Detect DIA sources."""

    ConfigClass = DetectDiaSourcesConfig
    _DefaultName = "detectDiaSources"
    config: DetectDiaSourcesConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read, detect and write."""
        inputs = butlerQC.get(inputRefs)
        data_id = butlerQC.quantum.dataId
        packer = pipeBase.Instrument.make_default_dimension_packer(data_id, is_exposure=False)
        try:
            outputs = self.run(
                **inputs,
                packedDataId=packer.pack(data_id),
                visit=data_id["visit"],
                detector=data_id["detector"],
            )
        except TooManyDetectionsError as err:
            raise pipeBase.AnnotatedPartialOutputsError.annotate(err, self, log=self.log) from err
        butlerQC.put(outputs, outputRefs)

    def run(
        self,
        difference: DifferenceImage,
        score: VisitImage,
        packedDataId: int = 0,
        visit: int = 0,
        detector: int = 0,
    ) -> pipeBase.Struct:
        """Detect.

        Parameters
        ----------
        difference : `lsst.images.DifferenceImage`
            Difference image.
        score : `lsst.images.VisitImage` or `lsst.images.Image`
            Score image.
        packedDataId : `int`, optional
            Packed visit and detector, the upper bits of the identifiers.
        visit, detector : `int`, optional
            Values of those columns.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``diaSources``, `astropy.table.Table`.

        Raises
        ------
        TooManyDetectionsError
            If the subtraction must have failed.
        """
        psf = PixelBasisPsf.from_point_spread_function(
            difference.psf, difference.bbox, order=self.config.psfOrder
        )
        sources = detect_dia_sources(
            score.array if hasattr(score, "array") else score.image.array,
            difference.image.array,
            difference.variance.array,
            mask_to_words(difference.mask),
            psf,
            difference.sky_projection,
            DetectionSettings(
                self.config.threshold, tuple(self.config.excludeMaskPlanes), self.config.maxPerMegapixel
            ),
        )
        n = len(sources)
        sources["diaSourceId"][:] = (packedDataId << _COUNTER_BITS) + np.arange(1, n + 1)
        sources["visit"][:] = visit
        sources["detector"][:] = detector
        sources["band"][:] = difference.band
        sources["midpointMjdTai"][:] = _midpoint(difference)
        n_negative = int(sources["isNegative"].sum())
        self.metadata["nPositive"] = n - n_negative
        self.metadata["nNegative"] = n_negative
        self.log.info("Detected %d positive and %d negative sources.", n - n_negative, n_negative)
        return pipeBase.Struct(diaSources=sources)


def _midpoint(image: VisitImage) -> float:
    """Return the middle of the exposure [MJD, TAI]; NaN when the image does not say."""
    begin, end = image.obs_info.datetime_begin, image.obs_info.datetime_end
    if begin is None or end is None:
        return float("nan")
    return float(0.5 * (begin.tai.mjd + end.tai.mjd))
