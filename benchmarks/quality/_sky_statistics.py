"""Noise in blank sky: its robust sigma and the correlation of neighbours, each with its error."""

from __future__ import annotations

__all__ = ["grow", "neighbour_correlation", "robust_sigma", "sources_mask"]

import numpy as np
import scipy.ndimage

from ._scenes import BenchmarkScene

_MAD_TO_SIGMA = 1.482602
_MAD_VARIANCE = (0.5, 0.861)
"""N times the relative variance of a sigma from the median absolute deviation of N independent Gaussian numbers, 1.361,
in two parts: that of the root mean square, where pixels count with their correlation squared; and the rest, in which
they count with its fourth power (the next even Hermite polynomial)."""

_LIGHT = 0.2
"""Light of sources [sky sigma a pixel] from which a pixel belongs to a source."""

_GROWTH = 5
"""Pixels by which sources are grown for the sky's noise."""

_GONE_REACH = 10
"""Pixels around what is gone from the science image, whose light is in the template only."""

_CLIP = 5.0


def sources_mask(scene: BenchmarkScene) -> np.ndarray:
    """Return the pixels with light of any source in either image, grown a little, bool."""
    light = scene.science_light > _LIGHT
    truth = scene.truth
    gone = np.asarray(truth["scienceFlux"]) < 0.5 * np.asarray(truth["templateFlux"])
    if gone.any():
        centres = np.zeros(light.shape, dtype=bool)
        x, y = (np.rint(np.asarray(truth[name])[gone]).astype(int) for name in ("dx", "dy"))
        inside = (x >= 0) & (y >= 0) & (x < light.shape[1]) & (y < light.shape[0])
        centres[y[inside], x[inside]] = True
        light |= grow(centres, _GONE_REACH)
    return grow(light | scene.bad, _GROWTH)


def grow(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels within a number of rows and columns of those of a mask."""
    if not mask.any():
        return mask
    return scipy.ndimage.maximum_filter(mask.astype(np.uint8), size=2 * reach + 1).astype(bool)


def robust_sigma(image: np.ndarray, where: np.ndarray) -> tuple[float, float, float]:
    """Return median, robust sigma and the latter's statistical error, which knows of the pixels' correlation.

    Parameters
    ----------
    image : `numpy.ndarray`, (height, width)
        Image; NaN is left out.
    where : `numpy.ndarray`, (height, width), bool
        Pixels to use.
    """
    used = where & np.isfinite(image)
    values = image[used]
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    median = float(np.median(values))
    sigma = _MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    if sigma == 0:
        return median, 0.0, np.nan
    correlation = _correlation((image - median) / sigma, used)
    variance = sum(
        part * float((correlation**power).sum()) for part, power in zip(_MAD_VARIANCE, (2, 4), strict=True)
    )
    return median, sigma, sigma * float(np.sqrt(variance / len(values)))


def _correlation(noise: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the autocorrelation at lags of up to 12 pixels, zero where it is not significant."""
    clipped = np.where(where, np.clip(np.nan_to_num(noise), -_CLIP, _CLIP), 0.0)
    size = min(1024, *clipped.shape)
    clipped, inside = clipped[:size, :size], where[:size, :size].astype(float)
    reach = 12
    power = np.abs(np.fft.rfft2(clipped, s=(size + reach, size + reach))) ** 2
    pairs = np.abs(np.fft.rfft2(inside, s=(size + reach, size + reach))) ** 2
    covariance = np.fft.irfft2(power, s=(size + reach, size + reach))
    count = np.fft.irfft2(pairs, s=(size + reach, size + reach))
    lags = np.r_[0 : reach + 1, -reach:0]
    area = covariance[np.ix_(lags, lags)] / np.maximum(count[np.ix_(lags, lags)], 1.0)
    rho = area / area[0, 0]
    rho[np.abs(rho) < 4.0 / np.sqrt(inside.sum())] = 0.0
    return rho


def neighbour_correlation(noise: np.ndarray, where: np.ndarray) -> tuple[float, float, float]:
    """Return the correlation of neighbours along x and along y, and the error of each.

    Parameters
    ----------
    noise : `numpy.ndarray`, (height, width)
        Difference over its sigma.
    where : `numpy.ndarray`, (height, width), bool
        Blank sky.
    """
    used = where & np.isfinite(noise)
    values = noise[used]
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    median = np.median(values)
    sigma = _MAD_TO_SIGMA * np.median(np.abs(values - median))
    if sigma == 0:
        return np.nan, np.nan, np.nan
    scaled = (noise - median) / sigma
    used &= np.abs(scaled) < _CLIP
    variance = float(np.mean(scaled[used] ** 2))
    correlations, n_pairs = [], 1
    for first, second in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        both = used[first] & used[second]
        n_pairs = max(int(both.sum()), 1)
        correlations.append(float((scaled[first][both] * scaled[second][both]).sum() / n_pairs / variance))
    return correlations[0], correlations[1], 1.0 / np.sqrt(n_pairs)
