"""The noise of a difference in blank sky: histograms, autocorrelation and power spectrum.

The autocovariance at lag l is the sum of p(r) p(r + l) over the pairs of sky pixels, divided by their number: both
sums are autocorrelations, of the masked field and of its mask, and are computed by FFT. So masked pixels do not
bias it. The power spectrum is the Fourier transform of the autocovariance, tapered beyond the largest lag.
"""

from __future__ import annotations

__all__ = ["FREQUENCY_STEP", "HISTOGRAM_EDGES", "SkyNoise", "measure_sky_noise"]

from dataclasses import dataclass

import numpy as np
import scipy.fft
from astropy.stats import mad_std

HISTOGRAM_EDGES = np.linspace(-10.0, 10.0, 161)
"""Edges of the histograms [sigma]."""

_MAX_LAG = 32
"""Largest lag of the autocovariance [pixel]; the power spectrum is resolved to half its inverse."""

_CLIP = 5.0
"""Pixels beyond this many robust sigma are sources, and do not enter the power spectrum."""

_LEAST_PIXELS = 1000
"""Fewest sky pixels of which a power spectrum says something."""

_N_RINGS = 24

FREQUENCY_STEP = 0.5 / _N_RINGS
"""Width of a ring of the power spectrum [cycles / pixel]."""


@dataclass(frozen=True)
class SkyNoise:
    """Noise of a difference in blank sky.

    Parameters
    ----------
    n_pixels : `int`
        Sky pixels.
    difference_counts, score_counts : `numpy.ndarray`, (160,), int
        Histograms of difference / sqrt(variance) and of the score over `HISTOGRAM_EDGES`; the outermost bins hold
        what lies beyond as well.
    difference_sigma, score_sigma : `float`
        Robust sigma of the two; NaN without pixels.
    frequency : `numpy.ndarray`, (K,)
        Mean spatial frequencies of rings [cycles / pixel].
    power, power_error : `numpy.ndarray`, (K,)
        Power spectrum of difference / sqrt(variance), averaged over rings: 1 for white noise as predicted. The error
        counts the independent modes of a ring, and is on the safe side by some 15 %.
    correlation : `numpy.ndarray`, (2 L + 1, 2 L + 1)
        Autocorrelation by lag (y, x), 1 in the middle; NaN where no pair of pixels has the lag.
    correlation_error : `float`
        Standard error of the correlation at one lag, if the noise is white.
    """

    n_pixels: int
    difference_counts: np.ndarray
    score_counts: np.ndarray
    difference_sigma: float
    score_sigma: float
    frequency: np.ndarray
    power: np.ndarray
    power_error: np.ndarray
    correlation: np.ndarray
    correlation_error: float


def measure_sky_noise(
    difference: np.ndarray, variance: np.ndarray, score: np.ndarray | None, sky: np.ndarray
) -> SkyNoise:
    """Measure the noise in blank sky.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, (height, width)
        Difference [nJy] and its variance [nJy^2].
    score : `numpy.ndarray`, (height, width), or `None`
        Score.
    sky : `numpy.ndarray`, (height, width), bool
        Sky pixels; those without a finite difference and a positive variance are left out.
    """
    good = sky & np.isfinite(difference) & (variance > 0) & np.isfinite(variance)
    pull = np.zeros(difference.shape, dtype=np.float32)
    pull[good] = difference[good] / np.sqrt(variance[good])
    values = pull[good]
    scores = score[good] if score is not None else np.zeros(0)
    scores = scores[np.isfinite(scores)]
    frequency, power, power_error, correlation, correlation_error = _spectrum(pull, good)
    return SkyNoise(
        n_pixels=len(values),
        difference_counts=_counts(values),
        score_counts=_counts(scores),
        difference_sigma=float(mad_std(values)) if len(values) else np.nan,
        score_sigma=float(mad_std(scores)) if len(scores) else np.nan,
        frequency=frequency,
        power=power,
        power_error=power_error,
        correlation=correlation,
        correlation_error=correlation_error,
    )


def _counts(values: np.ndarray) -> np.ndarray:
    inside = np.clip(values, HISTOGRAM_EDGES[0], np.nextafter(HISTOGRAM_EDGES[-1], 0.0))
    return np.histogram(inside, HISTOGRAM_EDGES)[0]


def _spectrum(
    pull: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return frequencies, power, its error, the autocorrelation and its error."""
    side = 2 * _MAX_LAG + 1
    nothing = np.zeros(0), np.zeros(0), np.zeros(0), np.full((side, side), np.nan), np.nan
    if good.sum() < _LEAST_PIXELS:
        return nothing
    values = pull[good]
    middle, sigma = float(np.median(values)), float(mad_std(values))
    # The median is not exactly the mean of what is left after clipping.
    good = good & (np.abs(pull - middle) < _CLIP * sigma)
    n_good = int(good.sum())
    if not sigma > 0 or n_good < _LEAST_PIXELS:
        return nothing
    mean = float(pull[good].mean(dtype=np.float64))
    field = np.where(good, pull - np.float32(mean), np.float32(0.0))
    n_pairs = np.round(_autocorrelation(good.astype(np.float32)))
    covariance = np.where(n_pairs > 0, _autocorrelation(field) / np.maximum(n_pairs, 1.0), 0.0)
    correlation = np.where(n_pairs > 0, covariance / covariance[_MAX_LAG, _MAX_LAG], np.nan)

    lag = np.hypot(*np.mgrid[-_MAX_LAG : _MAX_LAG + 1, -_MAX_LAG : _MAX_LAG + 1])
    taper = np.where(lag <= _MAX_LAG, 0.5 + 0.5 * np.cos(np.pi * lag / _MAX_LAG), 0.0)
    spectrum = np.fft.fft2(np.fft.ifftshift(covariance * taper)).real
    modulus = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    # Frequencies beyond the Nyquist frequency along the axes exist only towards the corners.
    edges = np.linspace(0.0, 0.5, _N_RINGS + 1)
    ring = np.digitize(modulus.ravel(), edges) - 1
    inside = (ring >= 0) & (ring < _N_RINGS)
    n = np.bincount(ring[inside], minlength=_N_RINGS).astype(float)
    filled = n > 0
    power = np.bincount(ring[inside], spectrum.ravel()[inside], _N_RINGS)[filled] / n[filled]
    frequency = np.bincount(ring[inside], modulus.ravel()[inside], _N_RINGS)[filled] / n[filled]
    # A real field has one independent mode for each two cells of its own transform, of area 1 / n_good each. No ring
    # is resolved better than the taper allows.
    width = np.maximum(np.diff(edges)[filled], 1.0 / _MAX_LAG)
    area = np.pi * ((frequency + 0.5 * width) ** 2 - np.maximum(frequency - 0.5 * width, 0.0) ** 2)
    error = power * np.sqrt(2.0 / (n_good * area))
    return frequency, power, error, correlation, float(1.0 / np.sqrt(n_good))


def _autocorrelation(field: np.ndarray) -> np.ndarray:
    """Return sums of f(r) f(r + l) for lags up to the largest, (2 L + 1, 2 L + 1)."""
    # Room for the largest lag, so that what leaves one side does not come in at the other.
    shape = tuple(scipy.fft.next_fast_len(size + _MAX_LAG, real=True) for size in field.shape)
    power = np.abs(scipy.fft.rfft2(field, s=shape)) ** 2
    sums = scipy.fft.irfft2(power, s=shape)
    lags = np.arange(-_MAX_LAG, _MAX_LAG + 1)
    return np.asarray(sums[np.ix_(lags, lags)], dtype=float)
