"""From a score image and a difference image to a table of DIA sources."""

from __future__ import annotations

__all__ = ["DetectionSettings", "TooManyDetectionsError", "detect_dia_sources"]

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from astropy.table import Table
from lsst.images import SkyProjection
from lsst.pipe.base import AlgorithmError

from ..linear_fit import fit_linear
from ..masks import MASK_BITS, words_masked_by
from ..psf import PixelBasisPsf, centre_crop, disk_mask, fwhm, residual_modes
from ..stamps import gather_stamps, sky_derivatives, stamp_origin
from ._dia_source import DIA_SOURCE_COLUMNS, empty_dia_sources
from ._peaks import find_peaks, recentre_peaks
from ._pixel_flags import measure_pixel_flags

_MAX_CENTROID_STEP = 1.0
"""A fitted centroid farther than this from the peak [pixel] is not that peak's."""

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

_STILL_MEASURED = ("DETECTION_EDGE", "FILTER_SPREAD")
"""Planes that keep a peak from being detected but whose pixels still carry flux of a source nearby."""

_CHUNK = 2048
"""Sources measured at a time, which keeps memory flat: some 200 MB at 41 pixels."""


class TooManyDetectionsError(AlgorithmError):
    """A difference has more peaks than any sky could cause: the subtraction failed.

    Parameters
    ----------
    n_peaks : `int`
        Number of peaks.
    n_allowed : `int`
        Largest number accepted.
    field : `str`
        Configuration field that sets it.
    """

    def __init__(self, n_peaks: int, n_allowed: int, field: str) -> None:
        super().__init__(
            f"{n_peaks} peaks above the threshold where at most {n_allowed} are accepted: the subtraction has "
            f"failed, or raise the configuration field {field} for a crowded field."
        )
        self._metadata = {"nPeaks": n_peaks, "nAllowed": n_allowed}
        self._field = field

    def __reduce__(self) -> tuple[type[TooManyDetectionsError], tuple[int, int, str]]:
        # Exceptions are pickled with their message as the only argument unless they say otherwise.
        return type(self), (self._metadata["nPeaks"], self._metadata["nAllowed"], self._field)

    @property
    def metadata(self) -> dict[str, int]:
        """Numbers that belong to the failure."""
        return self._metadata


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
        Largest number of peaks per 10^6 pixels.
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


def detect_dia_sources(
    score: np.ndarray,
    difference: np.ndarray,
    variance: np.ndarray,
    words: np.ndarray,
    psf: PixelBasisPsf,
    sky_projection: SkyProjection,
    settings: DetectionSettings,
) -> Table:
    """Detect sources of both signs and measure their positions and PSF fluxes.

    Parameters
    ----------
    score : `numpy.ndarray`, (height, width)
        Detection statistic in units of its own sigma.
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

    Returns
    -------
    sources : `astropy.table.Table`
        Rows with the columns of `DIA_SOURCE_COLUMNS`, brightest first; identifiers and visit are left zero.

    Raises
    ------
    TooManyDetectionsError
        If there are more peaks than the settings allow.

    Notes
    -----
    The position is that of a fit of the PSF and its two shift modes to the pixels within one FWHM of the peak;
    the flux is that of the PSF alone, at that position, on all good pixels of the PSF's stamp, weighted by their
    inverse variance.
    """
    x_first, y_first = psf.bounds.x.start, psf.bounds.y.start
    width = max(float(fwhm(psf.centre())), _LEAST_WIDTH)
    valid = ~words_masked_by(words, settings.exclude_planes) & np.isfinite(score)
    peaks = find_peaks(score, valid, settings.threshold, max(1.5, _GROUPING_IN_FWHM * width))
    allowed = max(10, int(settings.max_per_megapixel * score.size * 1e-6))
    if len(peaks.x) > allowed:
        raise TooManyDetectionsError(len(peaks.x), allowed, "maxPerMegapixel")
    if np.any(np.abs(peaks.score) >= _RECENTRED_IN_THRESHOLDS * settings.threshold):
        trusted = valid & np.isfinite(difference) & (variance > 0)
        peaks = recentre_peaks(
            peaks,
            _smooth(difference, trusted, width / _FWHM_PER_SIGMA),
            _RECENTRED_IN_THRESHOLDS * settings.threshold,
            _RECENTRING_IN_FWHM * width,
            max(1.5, _GROUPING_IN_FWHM * width),
        )
    n = len(peaks.x)
    sources = empty_dia_sources(n)
    if n == 0:
        return sources

    x, y = peaks.x + x_first, peaks.y + y_first
    size = min(psf.size, 2 * int(np.ceil(4.0 * width)) + 1)
    ignored = tuple(plane for plane in settings.exclude_planes if plane not in _STILL_MEASURED)
    for start in range(0, n, _CHUNK):
        rows = slice(start, start + _CHUNK)
        measured = _measure(
            x[rows], y[rows], difference, variance, words, psf, sky_projection, size, width, ignored
        )
        for name, values in measured.items():
            sources[name][rows] = np.asarray(values).astype(DIA_SOURCE_COLUMNS[name].dtype)
    sources["isNegative"][:] = peaks.score < 0
    sources["snr"][:] = np.abs(peaks.score)
    return sources


def _smooth(image: np.ndarray, trusted: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth an image; NaN where pixels off the image or not trusted take part."""
    weight = scipy.ndimage.gaussian_filter(trusted.astype(np.float32), sigma, mode="constant")
    total = scipy.ndimage.gaussian_filter(np.where(trusted, image, 0.0), sigma, mode="constant")
    return np.where(weight > 0.999, total, np.nan)


def _measure(
    x: np.ndarray,
    y: np.ndarray,
    difference: np.ndarray,
    variance: np.ndarray,
    words: np.ndarray,
    psf: PixelBasisPsf,
    sky_projection: SkyProjection,
    size: int,
    width: float,
    ignored: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Measure peaks at positions in the image's own frame, on stamps of a size.

    ``width`` is the FWHM of the PSF [pixel], ``ignored`` the mask planes whose pixels are left out.
    """
    n = len(x)
    x_first, y_first = psf.bounds.x.start, psf.bounds.y.start
    x0, y0 = stamp_origin(x, y, size)
    x_centre, y_centre = x0 + size // 2, y0 + size // 2
    off_image = 1 << MASK_BITS["OFF_IMAGE"]
    pixels = gather_stamps(difference, x0 - x_first, y0 - y_first, size, np.nan)
    noise = gather_stamps(variance, x0 - x_first, y0 - y_first, size, np.inf)
    stamp_words = gather_stamps(words, x0 - x_first, y0 - y_first, size, off_image)
    good = np.isfinite(pixels) & (noise > 0) & ~words_masked_by(stamp_words, ignored)
    weight = np.where(good, 1.0 / np.where(good, noise, 1.0), 0.0)
    data = pixels.reshape(n, -1)

    dx, dy = x - x_centre, y - y_centre
    core = np.where(disk_mask(size, dx, dy, width), weight, 0.0).reshape(n, -1)
    model = psf.evaluate(x, y, dx=dx, dy=dy)
    modes = residual_modes(model, dx, dy)[:, :2]
    design = centre_crop(np.concatenate([model[:, None], modes], axis=1), size).reshape(n, 3, -1)
    fit = fit_linear(data, design, core)
    with np.errstate(invalid="ignore", divide="ignore"):
        step = fit.amplitude[:, 1:] / fit.amplitude[:, :1]
        covariance = fit.covariance[:, 1:, 1:] / (fit.amplitude[:, 0] ** 2)[:, None, None]
    failed = ~(np.hypot(step[:, 0], step[:, 1]) < _MAX_CENTROID_STEP)
    step[failed] = 0.0
    covariance[failed] = np.nan
    x, y = x + step[:, 0], y + step[:, 1]
    derivatives = sky_derivatives(sky_projection, x, y)
    on_sky = derivatives @ covariance @ derivatives.transpose(0, 2, 1)

    model = centre_crop(psf.evaluate(x, y, dx=x - x_centre, dy=y - y_centre), size)
    flux = fit_linear(data, model.reshape(n, 1, -1), weight.reshape(n, -1))
    sky = sky_projection.pixel_to_sky(x=x, y=y)
    return {
        "x": x,
        "y": y,
        "xErr": np.sqrt(covariance[:, 0, 0]),
        "yErr": np.sqrt(covariance[:, 1, 1]),
        "centroid_flag": failed,
        "ra": sky.ra.deg,
        "dec": sky.dec.deg,
        "raErr": np.sqrt(on_sky[:, 0, 0]),
        "decErr": np.sqrt(on_sky[:, 1, 1]),
        "psfFlux": flux.amplitude[:, 0],
        "psfFluxErr": flux.error[:, 0],
        "psfChi2": flux.chi2,
        "psfNdata": flux.n_data,
        "psfFlux_flag": ~np.isfinite(flux.amplitude[:, 0]),
        "psfFlux_flag_noGoodPixels": flux.n_data == 0,
        "psfFlux_flag_edge": words_masked_by(stamp_words, ("OFF_IMAGE",)).any(axis=(1, 2)),
        **measure_pixel_flags(stamp_words, width),
    }
