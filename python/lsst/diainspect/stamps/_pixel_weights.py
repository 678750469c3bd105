"""Inverse variances of the pixels that say something about the sky, in one pass over the pixels."""

from __future__ import annotations

__all__ = ["weigh_pixels"]

import numpy as np

from ..compiled import compiled


def weigh_pixels(
    pixels: np.ndarray, variance: np.ndarray | None, words: np.ndarray | None, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 / variance of good pixels and zero for the others, and the good pixels.

    Parameters
    ----------
    pixels : `numpy.ndarray`, any shape
        Pixels; those that are not finite are bad.
    variance : `numpy.ndarray` or `None`
        Their variance, good where positive; without it good pixels weigh 1.
    words : `numpy.ndarray` or `None`, uint32
        Mask words.
    bits : `int`
        Bits of the words that make a pixel bad.

    Returns
    -------
    weight : `numpy.ndarray`, float32
        Inverse variances.
    good_pixels : `numpy.ndarray`, float32
        The pixels, zero where their weight is.
    """
    weight = np.empty(pixels.shape, dtype=np.float32)
    good_pixels = np.empty(pixels.shape, dtype=np.float32)
    # Compiled loops take the machine's byte order only, and files have another.
    _weigh(
        np.asarray(pixels, dtype=np.float32).reshape(-1),
        np.asarray(1.0 if variance is None else variance, dtype=np.float32).reshape(-1),
        np.asarray(0 if words is None else words, dtype=np.uint32).reshape(-1),
        np.uint32(bits),
        weight.reshape(-1),
        good_pixels.reshape(-1),
    )
    return weight, good_pixels


@compiled
def _weigh(
    pixels: np.ndarray,
    variance: np.ndarray,
    words: np.ndarray,
    bits: int,
    weight: np.ndarray,
    good_pixels: np.ndarray,
) -> None:
    """Fill weights and pixels; a variance, or words, of one element stands for all pixels."""
    each_variance, each_word = len(variance) == len(pixels), len(words) == len(pixels)
    for i in range(len(pixels)):
        own = variance[i if each_variance else 0]
        masked = words[i if each_word else 0] & bits
        inverse = np.float32(1.0) / own
        good = (masked == 0) & np.isfinite(pixels[i]) & (own > 0) & (inverse > 0)
        weight[i] = inverse if good else np.float32(0.0)
        good_pixels[i] = pixels[i] if good else np.float32(0.0)
