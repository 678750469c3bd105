"""Median and sigma of images with noise, white or correlated, and the correlation of neighbouring pixels."""

from __future__ import annotations

__all__ = [
    "ScoreNoise",
    "measure_score_noise",
    "median_with_error",
    "neighbour_correlation",
    "robust_sigma",
    "tail_ratio",
]

from dataclasses import dataclass

import numpy as np
import scipy.special
from astropy.stats import mad_std

from ._correlated_area import correlation_area, median_area, threshold_area

_MAD_ERROR = 1.166
"""Standard error of a sigma from the median absolute deviation, times sqrt(N), for Gaussian noise."""

_MEDIAN_ERROR = np.sqrt(0.5 * np.pi)
"""Standard error of a median over sigma, times sqrt(N), for Gaussian noise."""

_MEDIAN_ABSOLUTE = 0.6745
"""Median of the absolute value of a Gaussian variable [sigma]."""

_CLIP = 5.0
"""Pixels beyond this many robust sigma do not enter correlations."""


@dataclass(frozen=True)
class ScoreNoise:
    """The score in blank sky.

    Parameters
    ----------
    median, median_error, sigma, sigma_error : `float`
        Median and robust sigma with standard errors, for which the correlation of the pixels counts.
    area : `float`
        Area of the correlation, 4 pi s^2 for exp(-r^2 / 4 s^2) [pixel].
    n_pixels : `int`
        Sky pixels.
    """

    median: float
    median_error: float
    sigma: float
    sigma_error: float
    area: float
    n_pixels: int


def measure_score_noise(score: np.ndarray, area: float | None = None) -> ScoreNoise:
    """Measure an image with correlated noise.

    Parameters
    ----------
    score : `numpy.ndarray`, (height, width)
        Image, NaN where it is not sky.
    area : `float`, optional
        Area of its correlation [pixel], measured from the image when omitted.
    """
    values = score[np.isfinite(score)]
    if area is None:
        area = correlation_area(
            (neighbour_correlation(score, 0, 1)[0], neighbour_correlation(score, 1, 0)[0])
        )
    median, median_error = median_with_error(values, len(values) / median_area(area))
    sigma, sigma_error = robust_sigma(values, len(values) / threshold_area(area, _MEDIAN_ABSOLUTE))
    return ScoreNoise(median, median_error, sigma, sigma_error, area, len(values))


def robust_sigma(values: np.ndarray, n_independent: float) -> tuple[float, float]:
    """Return the sigma from the median absolute deviation, and its error; NaN with fewer than two values."""
    if len(values) < 2:
        return np.nan, np.nan
    sigma = float(mad_std(values))
    return sigma, float(sigma * _MAD_ERROR / np.sqrt(n_independent))


def median_with_error(values: np.ndarray, n_independent: float) -> tuple[float, float]:
    """Return the median and its error; NaN with fewer than two values."""
    if len(values) < 2:
        return np.nan, np.nan
    return float(np.median(values)), float(mad_std(values) * _MEDIAN_ERROR / np.sqrt(n_independent))


def neighbour_correlation(image: np.ndarray, step_y: int, step_x: int) -> tuple[float, float]:
    """Return the correlation of pixels one step apart, where neither is NaN, and its error if it is zero."""
    height, width = image.shape
    a = image[: height - step_y, : width - step_x]
    b = image[step_y:, step_x:]
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 2:
        return np.nan, np.nan
    middle, limit = np.median(a), _CLIP * mad_std(a)
    keep = (np.abs(a - middle) < limit) & (np.abs(b - middle) < limit)
    if keep.sum() < 2:
        return np.nan, np.nan
    return float(np.corrcoef(a[keep], b[keep])[0, 1]), float(1.0 / np.sqrt(keep.sum()))


def tail_ratio(values: np.ndarray, threshold: float, area: float) -> tuple[float, float]:
    """Return the pixels beyond a threshold on either side over those of the Gaussian of the same core.

    Parameters
    ----------
    values : `numpy.ndarray`, (N,)
        Pixels.
    threshold : `float`
        Threshold in units of the robust sigma, about the median.
    area : `float`
        Area of the correlation of the pixels [pixel].

    Returns
    -------
    ratio, error : `float`
        1 for Gaussian noise; NaN with fewer than two pixels. The error is that of as many as are seen, or of the
        expected number where that is larger.
    """
    if len(values) < 2:
        return np.nan, np.nan
    sigma = mad_std(values)
    seen = float((np.abs(values - np.median(values)) > threshold * sigma).sum())
    expected = float(len(values) * 2.0 * scipy.special.ndtr(-threshold))
    error = np.sqrt(max(seen, expected) * threshold_area(area, threshold)) / expected
    return seen / expected, float(error)
