"""Noise that the variance planes do not describe: measured in the blank sky of the difference, and made white.

Images that were resampled have correlated noise, so their difference is not white after a decorrelation that
takes them to be. Its power p(k), in units of the predicted variance, is measured where neither input shows a
source - static sources below the threshold cancel there, unlike in the inputs - and the difference is filtered by
sqrt(p(0) / p(k)): the flux scale stays, white noise of p(0) times the variance is left, and the matched filter of
the result is the optimal one for the noise there is.
"""

from __future__ import annotations

__all__ = ["NoiseField", "NoiseSpectrum", "measure_noise"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage

from ..quantiles import median

_MAX_LAG = 8
"""Largest lag of the autocovariance that is measured [pixel]: resampling kernels reach over 3 to 6."""

_CLIP = 5.0
"""Sky pixels beyond this many sigma are left out."""

_SIGNIFICANCE = 5.0
"""Standard errors by which the autocovariance must differ from white noise of the predicted variance."""

_LEAST_DEPARTURE = 0.01
"""Departures smaller than this, of the autocovariance or of the variance of a point source, are left alone: they change
a score by 0.5 %."""

_POINT_SIGMA = 1.7
"""Width of a point source [pixel] for whose variance many small covariances add up: some 3 pixels FWHM or more."""

_POINT_SIGNIFICANCE = 3.0
"""Standard errors by which that variance must differ from that in white noise."""

_LOCAL_LAG = 3
"""Largest lag of what may differ from place to place [pixel]."""

_LEAST_TILES = 6
"""Fewest tiles from which it is told whether the noise differs from place to place."""

_LEAST_TILE_PIXELS = 10_000
"""Sky pixels without which a tile says nothing by itself."""

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
        lag_y, lag_x = np.mgrid[-_MAX_LAG : _MAX_LAG + 1, -_MAX_LAG : _MAX_LAG + 1]
        response = np.exp(-(lag_x**2 + lag_y**2) / (4.0 * _POINT_SIGMA**2))
        excess = np.abs((response * departure).sum())
        # The two halves of an autocovariance are one measurement.
        error = self.error * np.sqrt(2.0 * (response**2).sum())
        return bool(
            np.abs(departure).max() < max(_SIGNIFICANCE * self.error, _LEAST_DEPARTURE)
            and excess < max(_POINT_SIGNIFICANCE * error, _LEAST_DEPARTURE)
        )

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


@dataclass(frozen=True)
class NoiseField:
    """Noise of a difference over the image.

    Parameters
    ----------
    mean : `NoiseSpectrum`
        That of the whole image.
    x, y : `numpy.ndarray`, (n_tiles,)
        Centres of the tiles it was measured in, in array coordinates [pixel].
    departures : `numpy.ndarray`, (n_tiles, 2 L + 1, 2 L + 1)
        Autocovariance in each minus the mean; zero where it does not differ by more than its error.
    """

    mean: NoiseSpectrum
    x: np.ndarray
    y: np.ndarray
    departures: np.ndarray

    @property
    def is_white(self) -> bool:
        """Whether there is nothing to filter out anywhere."""
        return self.mean.is_white and not self.departures.any()

    def at(self, x: float, y: float) -> NoiseSpectrum:
        """Return the noise at a position in array coordinates: the tiles', weighted by their nearness."""
        if not self.departures.any():
            return self.mean
        distance2 = (self.x - x) ** 2 + (self.y - y) ** 2
        spacing2 = np.partition(distance2, 3)[3] + 1.0
        weight = np.exp(-distance2 / spacing2)
        local = np.tensordot(weight / weight.sum(), self.departures, axes=1)
        return NoiseSpectrum(self.mean.covariance + local, self.mean.error, self.mean.n_pixels)


def measure_noise(
    difference: np.ndarray, variance: np.ndarray, sky: np.ndarray, centres: Sequence[tuple[float, float]]
) -> NoiseField:
    """Measure the autocovariance of difference / sqrt(variance) in the sky.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, (n_tiles, height, width)
        Tiles of the difference and its predicted variance.
    sky : `numpy.ndarray`, (n_tiles, height, width), bool
        Blank sky.
    centres : sequence [`tuple` [`float`, `float`]]
        Position (x, y) of each tile's centre in array coordinates [pixel].

    Returns
    -------
    noise : `NoiseField`
        Result; that of white noise when there are too few sky pixels to tell.

    Notes
    -----
    What a tile has beyond the mean is multiplied by 1 - e^2 / s^2, with s^2 the variance between tiles of a lag and e
    its error: noise alone does not make the filters differ from place to place.
    """
    size = 2 * _MAX_LAG + 1
    x, y = np.array(centres, dtype=float).T
    white = np.zeros((size, size))
    white[_MAX_LAG, _MAX_LAG] = 1.0
    pull = np.where(sky, difference / np.sqrt(variance), 0.0)
    n_pixels = int(sky.sum())
    nowhere = np.zeros((len(pull), size, size))
    if n_pixels < 100 * size**2:
        return NoiseField(NoiseSpectrum(white, 0.0, n_pixels), x, y, nowhere)
    used = sky & (np.abs(pull - median(pull[sky])) < _CLIP * np.std(pull[sky]))
    values = np.where(used, pull - pull[used].mean(), 0.0)
    shape = tuple(scipy.fft.next_fast_len(length + _MAX_LAG, real=True) for length in values.shape[1:])

    def autocorrelate(tiles: np.ndarray) -> np.ndarray:
        transforms = scipy.fft.rfft2(tiles.astype(np.float32), s=shape)
        full = scipy.fft.irfft2(np.abs(transforms) ** 2, s=shape)
        return np.roll(full, (_MAX_LAG, _MAX_LAG), axis=(1, 2))[:, :size, :size].astype(float)

    pairs, products = autocorrelate(used), autocorrelate(values)
    total = np.maximum(pairs.sum(axis=0), 1.0)
    lag_y, lag_x = np.mgrid[-_MAX_LAG : _MAX_LAG + 1, -_MAX_LAG : _MAX_LAG + 1]
    radius = np.hypot(lag_x, lag_y) / (_MAX_LAG + 1)
    taper = np.where(radius < 1, np.cos(0.5 * np.pi * np.minimum(radius, 1.0)) ** 0.5, 0.0)
    mean = NoiseSpectrum(
        taper * products.sum(axis=0) / total, float(1.0 / np.sqrt(max(total.min(), 1.0))), n_pixels
    )
    telling = used.sum(axis=(1, 2)) >= _LEAST_TILE_PIXELS
    if telling.sum() < _LEAST_TILES:
        return NoiseField(mean, x, y, nowhere)
    pairs = np.maximum(pairs[telling], 1.0)
    departures = products[telling] / pairs - products.sum(axis=0) / total
    # White noise of variance c has var(c_0) = 2 c^2 / n and var(c_lag) = c^2 / n.
    error2 = mean.covariance[_MAX_LAG, _MAX_LAG] ** 2 * (1.0 + (lag_x**2 + lag_y**2 == 0)) / pairs
    between = (departures**2 / error2).mean(axis=0)
    # Chance takes the mean over n tiles beyond 1 by sqrt(2 / n); there are two dozen independent lags.
    chance = 1.0 + _SIGNIFICANCE * np.sqrt(2.0 / telling.sum())
    shrinkage = np.where(radius * (_MAX_LAG + 1) <= _LOCAL_LAG, np.maximum(1.0 - chance / between, 0.0), 0.0)
    # The two halves of an autocovariance are one measurement.
    shrinkage = 0.5 * (shrinkage + shrinkage[::-1, ::-1])
    departures *= shrinkage
    if np.sqrt((departures**2).mean(axis=0).max()) < _LEAST_DEPARTURE:
        departures[:] = 0.0
    return NoiseField(mean, x[telling], y[telling], departures)
