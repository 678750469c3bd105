"""Which pixels of an image belong to sources, and which are blank sky."""

from __future__ import annotations

__all__ = ["source_pixels"]

import numpy as np
import scipy.ndimage
import sep

from .quantiles import median, quantile

_MESH = 64
"""Mesh of the background above which sources are looked for [pixel]."""

_SMOOTHING = 2.0
"""Width of the Gaussian in which faint sources are looked for [pixel]."""

_THRESHOLD = 3.5
"""Significance in the smoothed image above which a pixel belongs to a source."""


def source_pixels(pixels: np.ndarray, variance: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Find the pixels of sources that stand above a smooth background.

    Parameters
    ----------
    pixels, variance : `numpy.ndarray`, (height, width)
        Image and its variance.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to leave out, such as those that are not finite.

    Returns
    -------
    sources : `numpy.ndarray`, (height, width), bool
        Pixels above the threshold in the smoothed image.
    """
    if bad.all():
        return np.zeros_like(bad)
    above = np.where(bad, 0.0, pixels).astype(np.float32)
    above -= sep.Background(above, mask=bad, bw=_MESH, bh=_MESH).back()
    pull = np.where(bad, 0.0, above / np.sqrt(np.where(bad, 1.0, variance)))
    # White noise of unit variance has variance 1 / (4 pi s^2) after a Gaussian of width s.
    smoothed = scipy.ndimage.gaussian_filter(pull, _SMOOTHING) * np.float32(np.sqrt(4.0 * np.pi) * _SMOOTHING)
    # Correlated noise has more; the lower side of the distribution, free of sources, tells how much.
    good = smoothed[~bad]
    return smoothed > _THRESHOLD * max(1.0, median(good) - quantile(good, 0.1587))
