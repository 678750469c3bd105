"""From a score image and a difference image to a table of DIA sources."""

from __future__ import annotations

__all__ = ["DetectionSettings", "detect_dia_sources"]

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from lsst.images import SkyProjection

from ..masks import words_masked_by
from ..psf import PixelBasisPsf, fwhm
from ._cutouts import FittedImage
from ._deblend import find_blends
from ._dia_source import DIA_SOURCE_COLUMNS, empty_dia_sources
from ._lobes import merge_lobes
from ._measure import Positions, locate_sources, measure_sources
from ._peaks import Peaks, find_peaks, recentre_peaks
from ._sky_sources import place_sky_sources
from ._too_many_detections import TooManyDetectionsError

_LEAST_WIDTH = 2.5
"""Least width taken for the PSF [pixel]: a difference whitened of correlated noise has a PSF of a pixel or so, but
peaks that close are still one source."""

_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))

_RECENTRED_IN_THRESHOLDS = 2.0
"""Peaks this many times the threshold are moved to the peak of the smoothed difference."""

_RECENTRING_IN_FWHM = 1.2
"""Distance of such a move in FWHM of the difference's PSF."""

_GROUPING_IN_FWHM = 0.75
"""Peaks of one sign closer than this many FWHM of the difference's PSF are one source."""

_BLENDING_IN_FWHM = 3.0
"""Peaks closer than this many FWHM are fitted jointly: two Gaussian PSFs that far apart share 4e-6 of their
matched-filter flux, two Moffat profiles (beta 3) some 2 %."""

_SKY_IN_FWHM = 3.0
"""Least distance of a sky source from detections and from the next one, in FWHM."""

_STILL_MEASURED = ("DETECTION_EDGE", "FILTER_SPREAD")
"""Planes that keep a peak from being detected but whose pixels still carry flux of a source nearby."""


@dataclass(frozen=True)
class DetectionSettings:
    """Settings of `detect_dia_sources`.

    Parameters
    ----------
    threshold : `float`
        Least absolute score.
    exclude_planes : `tuple` [`str`]
        Mask planes in whose pixels no peak is taken.
    max_per_megapixel : `float`
        Largest number of peaks per 10^6 pixels that are not excluded.
    merging_distance : `float`
        Peaks of opposite sign this close are lobes of one source [FWHM of the PSF]; 0 merges none.
    n_sky_sources : `int`
        Sky sources wanted.
    """

    threshold: float = 5.0
    exclude_planes: tuple[str, ...] = (
        "BAD",
        "SATURATED",
        "SAT_TEMPLATE",
        "NO_DATA",
        "COSMIC_RAY",
        "UNMASKED_NAN",
        "DETECTION_EDGE",
        "FILTER_SPREAD",
    )
    max_per_megapixel: float = 5000.0
    merging_distance: float = 1.75
    n_sky_sources: int = 0

    @property
    def unmeasured_planes(self) -> tuple[str, ...]:
        """Mask planes whose pixels are left out of fits and of a matched filter."""
        return tuple(plane for plane in self.exclude_planes if plane not in _STILL_MEASURED)


def detect_dia_sources(
    score: np.ndarray,
    difference: np.ndarray,
    variance: np.ndarray,
    words: np.ndarray,
    psf: PixelBasisPsf,
    sky_projection: SkyProjection,
    settings: DetectionSettings,
    rng: np.random.Generator | None = None,
) -> Table:
    """Detect sources of both signs and measure their positions and PSF fluxes.

    Parameters
    ----------
    score : `numpy.ndarray`, (height, width)
        Detection statistic in units of its own sigma: that of a subtraction, or `matched_filter_score` of the
        difference.
    difference, variance : `numpy.ndarray`, (height, width)
        Decorrelated difference [nJy] and its variance [nJy^2].
    words : `numpy.ndarray`, (height, width), uint32
        Mask words with the bits of `lsst.diainspect.masks`.
    psf : `PixelBasisPsf`
        PSF of the difference; the start of its bounds is the coordinate of the first pixel.
    sky_projection : `lsst.images.SkyProjection`
        Pixels to sky.
    settings : `DetectionSettings`
        Settings.
    rng : `numpy.random.Generator`, optional
        Where sky sources are; needed if some are wanted.

    Returns
    -------
    sources : `astropy.table.Table`
        Rows with the columns of `DIA_SOURCE_COLUMNS`: detections, brightest first, then sky sources; identifiers and
        visit are left zero.

    Raises
    ------
    TooManyDetectionsError
        If there are more peaks than the settings allow.
    ValueError
        If sky sources are wanted without a generator.

    Notes
    -----
    The position is that of a fit of the PSF and its two shift modes to the pixels within one FWHM of the peak;
    the flux is that of the PSF alone, at that position, on all good pixels of the PSF's stamp, weighted by their
    inverse variance. Peaks within 3 FWHM of each other are fitted jointly, and each is measured without the light of
    the others. Peaks of opposite sign within the merging distance make one row.
    """
    if settings.n_sky_sources > 0 and rng is None:
        raise ValueError(f"{settings.n_sky_sources} sky sources need a random generator: give rng.")
    width = max(float(fwhm(psf.centre())), _LEAST_WIDTH)
    valid = ~words_masked_by(words, settings.exclude_planes)
    peaks = _find_peaks(score, difference, valid, width, settings)
    x_first, y_first = psf.bounds.x.start, psf.bounds.y.start
    size = min(psf.size, 2 * int(np.ceil(4.0 * width)) + 1)
    image = FittedImage(difference, variance, words, psf, width, size, settings.unmeasured_planes)

    x, y = peaks.x + x_first, peaks.y + y_first
    root = merge_lobes(x, y, peaks.score, settings.merging_distance * width)
    blends = find_blends(x, y, max(_BLENDING_IN_FWHM, settings.merging_distance) * width)
    fitted, located, joint = locate_sources(image, x, y, peaks.score, root, blends)
    if settings.n_sky_sources > 0 and rng is not None:
        sky_x, sky_y = place_sky_sources(
            valid, peaks.x, peaks.y, settings.n_sky_sources, width, _SKY_IN_FWHM * width, rng
        )
    else:
        sky_x = sky_y = np.zeros(0)
    n, n_sky = len(located.x), len(sky_x)
    sources = empty_dia_sources(n + n_sky)
    if n + n_sky == 0:
        return sources

    rows, owner, n_peaks = np.unique(root, return_inverse=True, return_counts=True)
    everywhere = Positions(
        np.concatenate([located.x, sky_x + x_first]),
        np.concatenate([located.y, sky_y + y_first]),
        np.concatenate([located.covariance, np.full((n_sky, 2, 2), np.nan)]),
        np.concatenate([located.failed, np.zeros(n_sky, dtype=bool)]),
    )
    columns = measure_sources(image, sky_projection, everywhere, owner, fitted, blends, joint)
    for name, values in columns.items():
        sources[name][:] = np.asarray(values).astype(DIA_SOURCE_COLUMNS[name].dtype)
    sources["isNegative"][:n] = peaks.score[rows] < 0
    sources["snr"][:n] = np.abs(peaks.score[rows])
    sources["nPeaks"][:n] = n_peaks
    n_blended = np.bincount(blends.group[rows], minlength=len(root) + 1)
    sources["nBlended"][:n] = n_blended[blends.group[rows]]
    _describe_lobes(sources, x, y, peaks.score, root)
    sources["sky_source"][n:] = True
    if n_sky:
        nearest = np.rint(sky_y).astype(int), np.rint(sky_x).astype(int)
        sources["snr"][n:] = np.abs(score[nearest])
        sources["isNegative"][n:] = score[nearest] < 0
    return sources


def _find_peaks(
    score: np.ndarray, difference: np.ndarray, valid: np.ndarray, width: float, settings: DetectionSettings
) -> Peaks:
    """Find the peaks of the score, check that they are not too many and move bright ones to the peaks of flux."""
    grouping = max(1.5, _GROUPING_IN_FWHM * width)
    peaks = find_peaks(score, valid, settings.threshold, grouping)
    allowed = max(10, int(settings.max_per_megapixel * np.count_nonzero(valid) * 1e-6))
    if len(peaks.x) > allowed:
        raise TooManyDetectionsError(len(peaks.x), allowed, "maxPerMegapixel")
    return recentre_peaks(
        peaks,
        difference,
        valid,
        width / _FWHM_PER_SIGMA,
        _RECENTRED_IN_THRESHOLDS * settings.threshold,
        _RECENTRING_IN_FWHM * width,
        grouping,
    )


def _describe_lobes(
    sources: Table, x: np.ndarray, y: np.ndarray, score: np.ndarray, root: np.ndarray
) -> None:
    """Fill the columns of dipole candidates from the brightest lobe of each sign."""
    for name in ("positiveX", "positiveY", "negativeX", "negativeY"):
        sources[name][:] = np.nan
    lobes = np.flatnonzero(root != np.arange(len(root)))
    # Peaks are in order of brightness, so the first lobe of a source is its brightest of the other sign.
    main, first = np.unique(root[lobes], return_index=True)
    other = lobes[first]
    row = np.searchsorted(np.unique(root), main)
    sources["isDipoleCandidate"][row] = True
    sources["lobeRatio"][row] = np.abs(score[other] / score[main])
    positive, negative = np.where(score[main] > 0, (main, other), (other, main))
    for sign, peak in (("positive", positive), ("negative", negative)):
        sources[f"{sign}X"][row], sources[f"{sign}Y"][row] = x[peak], y[peak]
