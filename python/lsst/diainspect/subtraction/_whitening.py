"""Noise that the variance planes do not describe: measured in the blank sky of the difference, and made white.

Images that were resampled have correlated noise, so their difference is not white after a decorrelation that
takes them to be. Its power p(k), in units of the predicted variance, is measured where neither input shows a
source - static sources below the threshold cancel there, unlike in the inputs - and the difference is filtered by
sqrt(p(0) / p(k)): the flux scale stays, white noise of p(0) times the variance is left, and the matched filter of
the result is the optimal one for the noise there is.
"""

from __future__ import annotations

__all__ = ["NoiseSpectrum", "measure_noise_spectrum"]

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage

_MAX_LAG = 8
"""Largest lag of the autocovariance that is measured [pixel]: resampling kernels reach over 3 to 6."""

_CLIP = 5.0
"""Sky pixels beyond this many sigma are left out."""

_SIGNIFICANCE = 5.0
"""Standard errors by which the autocovariance must differ from white noise of the predicted variance."""

_LEAST_DEPARTURE = 0.02
"""Departures of the autocovariance smaller than this are left alone: they change a score by 1 %."""

_LEAST_POWER = 0.05
"""Floor of the power relative to its mean, which keeps the filter bounded."""


@dataclass(frozen=True)
class NoiseSpectrum:
    """Autocovariance of the sky of a difference in units of its predicted variance.

    Parameters
    ----------
    covariance : `numpy.ndarray`, (2 L + 1, 2 L + 1)
        Autocovariance by lag [y, x], tapered to zero at the largest lag.
    error : `float`
        Standard error of each value.
    n_pixels : `int`
        Sky pixels it was measured on.
    """

    covariance: np.ndarray
    error: float
    n_pixels: int

    @property
    def is_white(self) -> bool:
        """Whether the noise is white and as large as predicted, within errors and tolerance."""
        departure = self.covariance.copy()
        departure[_MAX_LAG, _MAX_LAG] -= 1.0
        return bool(np.abs(departure).max() < max(_SIGNIFICANCE * self.error, _LEAST_DEPARTURE))

    @property
    def correlation(self) -> float:
        """Mean correlation of neighbours in x and y."""
        centre = self.covariance[_MAX_LAG, _MAX_LAG]
        neighbours = self.covariance[_MAX_LAG, _MAX_LAG + 1] + self.covariance[_MAX_LAG + 1, _MAX_LAG]
        return float(0.5 * neighbours / centre)

    def power(self, window: int) -> np.ndarray:
        """Return p(k) on a window, shape (window, window // 2 + 1)."""
        padded = np.zeros((window, window))
        size = len(self.covariance)
        padded[:size, :size] = self.covariance
        power = scipy.fft.rfft2(np.roll(padded, (-_MAX_LAG, -_MAX_LAG), axis=(0, 1))).real
        return np.maximum(power, _LEAST_POWER * self.covariance[_MAX_LAG, _MAX_LAG])

    def whitening(self, window: int) -> np.ndarray:
        """Return the filter sqrt(p(0) / p(k)), 1 at zero frequency."""
        power = self.power(window)
        return np.sqrt(power[0, 0] / power)

    @property
    def variance_factor(self) -> float:
        """p(0): the variance of the whitened difference over the predicted one."""
        return float(self.power(4 * _MAX_LAG)[0, 0])


def measure_noise_spectrum(difference: np.ndarray, variance: np.ndarray, sky: np.ndarray) -> NoiseSpectrum:
    """Measure the autocovariance of difference / sqrt(variance) in the sky.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, (n_tiles, height, width)
        Tiles of the difference and its predicted variance.
    sky : `numpy.ndarray`, (n_tiles, height, width), bool
        Blank sky.

    Returns
    -------
    spectrum : `NoiseSpectrum`
        Result; that of white noise when there are too few sky pixels to tell.
    """
    size = 2 * _MAX_LAG + 1
    white = np.zeros((size, size))
    white[_MAX_LAG, _MAX_LAG] = 1.0
    pull = np.where(sky, difference / np.sqrt(variance), 0.0)
    n_pixels = int(sky.sum())
    if n_pixels < 100 * size**2:
        return NoiseSpectrum(white, 0.0, n_pixels)
    used = sky & (np.abs(pull - np.median(pull[sky])) < _CLIP * np.std(pull[sky]))
    values = np.where(used, pull - pull[used].mean(), 0.0)
    shape = tuple(scipy.fft.next_fast_len(length + _MAX_LAG, real=True) for length in values.shape[1:])

    def autocorrelate(tiles: np.ndarray) -> np.ndarray:
        transforms = scipy.fft.rfft2(tiles.astype(np.float32), s=shape)
        full = scipy.fft.irfft2((np.abs(transforms) ** 2).sum(axis=0), s=shape)
        return np.roll(full, (_MAX_LAG, _MAX_LAG), axis=(0, 1))[:size, :size]

    pairs = autocorrelate(used)
    covariance = autocorrelate(values) / np.maximum(pairs, 1.0)
    y, x = np.mgrid[-_MAX_LAG : _MAX_LAG + 1, -_MAX_LAG : _MAX_LAG + 1]
    radius = np.hypot(x, y) / (_MAX_LAG + 1)
    covariance *= np.where(radius < 1, np.cos(0.5 * np.pi * np.minimum(radius, 1.0)) ** 0.5, 0.0)
    return NoiseSpectrum(covariance, float(1.0 / np.sqrt(pairs.min())), n_pixels)
