"""Large images reduced to what a panel can show, with hints of their masks."""

from __future__ import annotations

__all__ = ["BinnedImage", "bin_image"]

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from lsst.images import Box, Mask

from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by

_MAX_SIDE = 512
"""Largest side of a binned image [bins]: about the size of a panel on a screen."""

_SPREAD_PLANES = ("FILTER_SPREAD", "DETECTION_EDGE")


@dataclass(frozen=True)
class BinnedImage:
    """An image in bins of ``factor`` x ``factor`` pixels.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (height, width), float32
        Values; NaN where a bin has no pixel.
    masked : `numpy.ndarray`, (height, width), float32
        Fraction of pixels that say nothing about the sky.
    spread : `numpy.ndarray`, (height, width), float32
        Fraction of pixels that a filter mixed with those, or that lie in the edge.
    extent : `tuple` [`float`, `float`, `float`, `float`]
        Outer edges in x and y, in the image's own frame [pixel].
    factor : `int`
        Side of a bin [pixel].
    """

    pixels: np.ndarray
    masked: np.ndarray
    spread: np.ndarray
    extent: tuple[float, float, float, float]
    factor: int


def bin_image(
    pixels: np.ndarray,
    mask: Mask,
    bbox: Box,
    *,
    exclude: Iterable[str] = (),
    value: Literal["mean", "extreme"] = "mean",
    max_side: int = _MAX_SIDE,
) -> BinnedImage:
    """Bin an image so that neither side has more than ``max_side`` bins.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (height, width)
        Image.
    mask : `lsst.images.Mask`
        Its mask.
    bbox : `lsst.images.Box`
        Its box.
    exclude : iterable [`str`], optional
        Mask planes whose pixels are left out, besides those that are not finite.
    value : {"mean", "extreme"}, optional
        What a bin shows: the mean of its pixels, or that which is farthest from zero, with its sign, so that a
        single significant pixel is not lost.
    max_side : `int`, optional
        Most bins along a side.
    """
    if max_side < 1:
        raise ValueError(f"max_side must be positive, got {max_side}.")
    factor = max(1, -(-max(pixels.shape) // max_side))
    good = np.isfinite(pixels) & ~masked_by(mask, exclude)
    values = np.where(good, pixels, 0.0).astype(np.float32)
    n_good = _blocks(good, factor).sum(axis=(1, 3), dtype=np.float32)
    blocks = _blocks(values, factor)
    if value == "mean":
        with np.errstate(invalid="ignore", divide="ignore"):
            binned = blocks.sum(axis=(1, 3), dtype=np.float64) / n_good
    else:
        low, high = blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3))
        binned = np.where(-low > high, low, high)
    n_pixels = _blocks(np.ones(pixels.shape, dtype=bool), factor).sum(axis=(1, 3), dtype=np.float32)
    bad = masked_by(mask, PLANES_BAD_FOR_SUBTRACTION) | ~np.isfinite(pixels)
    spread = masked_by(mask, _SPREAD_PLANES)
    n_rows, n_columns = binned.shape
    x0, y0 = bbox.x.start - 0.5, bbox.y.start - 0.5
    return BinnedImage(
        np.where(n_good > 0, binned, np.nan).astype(np.float32),
        _blocks(bad, factor).sum(axis=(1, 3), dtype=np.float32) / n_pixels,
        _blocks(spread, factor).sum(axis=(1, 3), dtype=np.float32) / n_pixels,
        (x0, x0 + n_columns * factor, y0, y0 + n_rows * factor),
        factor,
    )


def _blocks(array: np.ndarray, factor: int) -> np.ndarray:
    """View an array, filled up with zeros to whole blocks, as (rows, factor, columns, factor)."""
    height, width = array.shape
    up, right = -height % factor, -width % factor
    if up or right:
        array = np.pad(array, ((0, up), (0, right)))
    return array.reshape(array.shape[0] // factor, factor, array.shape[1] // factor, factor)
