"""Blank sky of a pair of images: away from every source that either of them shows."""

from __future__ import annotations

__all__ = ["find_sky"]

import numpy as np
import scipy.ndimage
import sep
from lsst.images import MaskedImage

from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by

_MESH = 64
"""Mesh of the background above which sources are looked for [pixel]."""

_SMOOTHING = 2.0
"""Width of the Gaussian in which faint sources are looked for [pixel]."""

_THRESHOLD = 3.5
"""Significance in the smoothed image above which a pixel belongs to a source."""


def find_sky(
    science: MaskedImage, template: MaskedImage, difference: MaskedImage, distance: int
) -> np.ndarray:
    """Return blank sky pixels.

    Sources are found in the science image and the template, each above a smooth background, not in the difference,
    so that the noise of the difference is not selected by itself.

    Parameters
    ----------
    science, template, difference : `lsst.images.MaskedImage`
        Images with the same bounding box.
    distance : `int`
        Least distance from pixels of sources [pixel].

    Returns
    -------
    sky : `numpy.ndarray`, (height, width), bool
        Sky pixels.
    """
    excluded = masked_by(difference.mask, (*PLANES_BAD_FOR_SUBTRACTION, "DETECTION_EDGE", "FILTER_SPREAD"))
    excluded |= ~np.isfinite(difference.image.array) | ~(difference.variance.array > 0)
    sources = np.zeros_like(excluded)
    for image in (science, template):
        pixels, variance = image.image.array, image.variance.array
        bad = ~np.isfinite(pixels) | ~(variance > 0) | masked_by(image.mask, PLANES_BAD_FOR_SUBTRACTION)
        excluded |= bad
        if bad.all():
            continue
        good_pixels = np.where(bad, 0.0, pixels).astype(np.float32)
        good_pixels -= sep.Background(good_pixels, mask=bad, bw=_MESH, bh=_MESH).back()
        pull = np.where(bad, 0.0, good_pixels / np.sqrt(np.where(bad, 1.0, variance)))
        smoothed = scipy.ndimage.gaussian_filter(pull, _SMOOTHING)
        # White noise of unit variance has variance 1 / (4 pi s^2) after a Gaussian of width s.
        sources |= smoothed * np.sqrt(4.0 * np.pi) * _SMOOTHING > _THRESHOLD
    if distance > 0 and sources.any():
        sources = scipy.ndimage.distance_transform_edt(~sources) <= distance
    return ~(excluded | sources)
