"""Detect DIA sources on a score image, or on the difference by its own PSF, and measure them on the difference."""

from __future__ import annotations

__all__ = ["DetectDiaSourcesConfig", "DetectDiaSourcesConnections", "DetectDiaSourcesTask"]

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from lsst.images import DifferenceImage, Image, VisitImage

from ..detection import (
    DetectionSettings,
    TooManyDetectionsError,
    detect_dia_sources,
    matched_filter_score,
    noise_peak_density,
    without_sky_sources,
)
from ..masks import mask_to_words, words_masked_by
from ..psf import PixelBasisPsf

_COUNTER_BITS = 37
"""Bits of a diaSourceId below the packed visit and detector: 1.4e11 sources a detector."""

_SKY_SOURCES = 0x5B7
"""Second word of the seed of the sky sources' places, so that other uses of the identifier do not share it."""


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

    def __init__(self, *, config: DetectDiaSourcesConfig) -> None:
        if config.detectOn == "difference":
            del self.score


class DetectDiaSourcesConfig(pipeBase.PipelineTaskConfig, pipelineConnections=DetectDiaSourcesConnections):
    """Configuration of `DetectDiaSourcesTask`."""

    detectOn = pexConfig.ChoiceField[str](
        doc="Where peaks are found.",
        dtype=str,
        allowed={
            "score": "The score image of the subtraction, with all the errors that it knows of.",
            "difference": "The difference filtered with its own PSF; no score image is read.",
        },
        default="score",
    )
    threshold = pexConfig.RangeField[float](
        doc="Least absolute score of a detection [sigma].", default=5.0, min=0.0
    )
    excludeMaskPlanes = pexConfig.ListField[str](
        doc="Mask planes in whose pixels nothing is detected. With STREAK among them sources on streaks are left "
        "out; without, they have pixelFlags_streak.",
        dtype=str,
        default=list(DetectionSettings().exclude_planes),
    )
    maxPerMegapixel = pexConfig.RangeField[float](
        doc="More peaks than this per 10^6 pixels that are not excluded mean that the subtraction failed.",
        default=5000.0,
        min=1.0,
    )
    mergingDistance = pexConfig.RangeField[float](
        doc="A positive and a negative peak this close are one source, a dipole candidate [FWHM of the "
        "difference's PSF]; 0 merges none.",
        default=DetectionSettings().merging_distance,
        min=0.0,
    )
    nSkySources = pexConfig.RangeField[int](
        doc="Random blank positions that are measured and added as rows with sky_source.", default=0, min=0
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
        score: VisitImage | Image | None = None,
        packedDataId: int = 0,
        visit: int = 0,
        detector: int = 0,
    ) -> pipeBase.Struct:
        """Detect.

        Parameters
        ----------
        difference : `lsst.images.DifferenceImage`
            Difference image.
        score : `lsst.images.VisitImage` or `lsst.images.Image`, optional
            Score image; not used, and not needed, with ``detectOn="difference"``.
        packedDataId : `int`, optional
            Packed visit and detector, the upper bits of the identifiers and the seed of the sky sources' places.
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
        ValueError
            If there is no score image where one is to be used.
        """
        psf = PixelBasisPsf.from_point_spread_function(
            difference.psf, difference.bbox, order=self.config.psfOrder
        )
        settings = DetectionSettings(
            threshold=self.config.threshold,
            exclude_planes=tuple(self.config.excludeMaskPlanes),
            max_per_megapixel=self.config.maxPerMegapixel,
            merging_distance=self.config.mergingDistance,
            n_sky_sources=self.config.nSkySources,
        )
        pixels, variance = difference.image.array, difference.variance.array
        words = mask_to_words(difference.mask)
        if self.config.detectOn == "difference":
            bad = words_masked_by(words, settings.unmeasured_planes)
            statistic = matched_filter_score(pixels, variance, bad, psf)
        elif score is None:
            raise ValueError("A score image is needed, got None (config field detectOn is 'score').")
        else:
            statistic = score.array if isinstance(score, Image) else score.image.array
        sources = detect_dia_sources(
            statistic,
            pixels,
            variance,
            words,
            psf,
            difference.sky_projection,
            settings,
            np.random.default_rng([packedDataId, _SKY_SOURCES]),
        )
        n = len(sources)
        sources["diaSourceId"][:] = (packedDataId << _COUNTER_BITS) + np.arange(1, n + 1)
        sources["visit"][:] = visit
        sources["detector"][:] = detector
        sources["band"][:] = difference.band
        sources["midpointMjdTai"][:] = _midpoint(difference)
        detected = without_sky_sources(sources)
        n_negative = int(detected["isNegative"].sum())
        n_positive = len(detected) - n_negative
        n_valid = np.count_nonzero(~words_masked_by(words, settings.exclude_planes) & np.isfinite(statistic))
        # Off-centre PSFs differ by too little to matter to a count.
        n_noise = 2.0 * n_valid * noise_peak_density(psf.centre(), self.config.threshold)
        self.metadata["nPositive"] = n_positive
        self.metadata["nNegative"] = n_negative
        self.metadata["nDipoleCandidates"] = int(detected["isDipoleCandidate"].sum())
        self.metadata["nSkySources"] = n - len(detected)
        self.metadata["nExpectedFromNoise"] = n_noise
        self.log.info(
            "Detected %d positive and %d negative sources, %d of them dipole candidates; noise makes %.1f.",
            n_positive,
            n_negative,
            self.metadata["nDipoleCandidates"],
            n_noise,
        )
        return pipeBase.Struct(diaSources=sources)


def _midpoint(image: VisitImage) -> float:
    """Return the middle of the exposure [MJD, TAI]; NaN when the image does not say."""
    begin, end = image.obs_info.datetime_begin, image.obs_info.datetime_end
    if begin is None or end is None:
        return float("nan")
    return float(0.5 * (begin.tai.mjd + end.tai.mjd))
