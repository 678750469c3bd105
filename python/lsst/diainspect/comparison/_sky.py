"""Blank sky of a pair of images: away from every source that either of them shows."""

from __future__ import annotations

__all__ = ["find_sky"]

import numpy as np
import scipy.ndimage
from lsst.images import MaskedImage

from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by
from ..sky import source_pixels


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
        sources |= source_pixels(pixels, variance, bad)
    if distance > 0 and sources.any():
        sources = scipy.ndimage.distance_transform_edt(~sources) <= distance
    return ~(excluded | sources)
