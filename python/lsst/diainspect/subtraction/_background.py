"""The smooth background that is left in a difference: clipped means on a mesh, interpolated."""

from __future__ import annotations

__all__ = ["subtract_background"]

import numpy as np
import scipy.interpolate
import scipy.ndimage

from ..compiled import compiled
from ..quantiles import median

_CLIP = 3.0
"""Pixels this many sigma from the background, and their neighbours, are left out."""

_BLOCK = 4
"""Side of the blocks in which they are [pixel]: sources reach beyond the pixels that stand out."""

_ROUNDS = 2
"""Rounds of clipping, the second about the result of the first."""

_LEAST_FRACTION = 0.1
"""Mesh cells with fewer good pixels take the median of their neighbours."""


def subtract_background(
    image: np.ndarray,
    variance: np.ndarray,
    other_variance: np.ndarray,
    factor: float,
    bad: np.ndarray,
    cell_size: int,
) -> None:
    """Measure a background and take it from an image, in place.

    A mean and not a median or a mode: in a difference the wings of static sources are gone, and its error is the
    least there is. An error of the background enters every score times the square root of the area of the PSF.

    Parameters
    ----------
    image : `numpy.ndarray`, (height, width), float32
        Image.
    variance, other_variance : `numpy.ndarray`, (height, width), float32
        Its variance is the first plus ``factor`` times the second.
    factor : `float`
        Factor of the second.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to leave out.
    cell_size : `int`
        Largest side of the mesh's cells [pixel].
    """
    edges = [
        np.linspace(0, length, max(1, round(length / cell_size)) + 1).astype(int) for length in image.shape
    ]
    strips = [slice(bottom, top) for bottom, top in zip(edges[0][:-1], edges[0][1:], strict=True)]
    along_y, along_x = _interpolation(edges[0]), _interpolation(edges[1]).T
    area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    mesh = np.full(area.shape, median(image[::4, ::4][~bad[::4, ::4]]), dtype=np.float32)
    for _ in range(_ROUNDS):
        count, total = np.zeros(area.shape), np.zeros(area.shape)
        # A row of cells at a time, which stays in the processor's cache.
        for row, strip in enumerate(strips):
            outliers = np.zeros([-(-length // _BLOCK) for length in image[strip].shape], dtype=np.uint8)
            _count_outliers(
                image[strip],
                along_y[strip] @ mesh @ along_x,
                variance[strip],
                other_variance[strip],
                np.float32(factor),
                outliers,
            )
            # A block in which one pixel is, and those around one in which two are.
            left_out = (outliers > 0) | scipy.ndimage.binary_dilation(outliers > 1, np.ones((3, 3)))
            _add_good(image[strip], bad[strip], left_out, edges[1], total[row], count[row])
        raw = np.where(count < _LEAST_FRACTION * area, np.nan, total / np.maximum(count, 1.0))
        mesh = _without_gaps(raw).astype(np.float32)
    for strip in strips:
        image[strip] -= along_y[strip] @ mesh @ along_x


@compiled
def _count_outliers(
    image: np.ndarray,
    background: np.ndarray,
    variance: np.ndarray,
    other_variance: np.ndarray,
    factor: float,
    outliers: np.ndarray,
) -> None:
    """Count, in blocks of pixels, those that differ from the background by more than the clip."""
    height, width = image.shape
    clip2 = np.float32(_CLIP**2)
    outlying = np.zeros(-(-width // _BLOCK) * _BLOCK, np.uint8)
    for block in range(len(outliers)):
        outlying[:] = 0
        for j in range(block * _BLOCK, min((block + 1) * _BLOCK, height)):
            pixels, level, own, other = image[j], background[j], variance[j], other_variance[j]
            for i in range(width):
                above = pixels[i] - level[i]
                outlying[i] += np.uint8(above * above > clip2 * (own[i] + factor * other[i]))
        counts = outliers[block]
        for i in range(len(counts)):
            total = 0
            for k in range(_BLOCK):
                total += outlying[_BLOCK * i + k]
            counts[i] = total


@compiled
def _add_good(
    image: np.ndarray,
    bad: np.ndarray,
    left_out: np.ndarray,
    edges: np.ndarray,
    total: np.ndarray,
    count: np.ndarray,
) -> None:
    """Add up the pixels of each cell that are neither bad nor in a block that is left out."""
    width = image.shape[1]
    wide = np.zeros(-(-width // _BLOCK) * _BLOCK, np.bool_)
    for j in range(image.shape[0]):
        if j % _BLOCK == 0:
            blocks = left_out[j // _BLOCK]
            for i in range(len(blocks)):
                for k in range(_BLOCK):
                    wide[_BLOCK * i + k] = blocks[i]
        for cell in range(len(edges) - 1):
            # Without a branch, and in slices: loops that the compiler makes into vectors.
            part = slice(edges[cell], edges[cell + 1])
            pixels, without, outlying = image[j, part], bad[j, part], wide[part]
            value, n = 0.0, 0
            for i in range(len(pixels)):
                left = without[i] | outlying[i]
                value += float(np.float32(0.0) if left else pixels[i])
                n += not left
            total[cell] += value
            count[cell] += n


def _without_gaps(mesh: np.ndarray) -> np.ndarray:
    """Return a mesh without NaN: those become the median of what is around them."""
    if np.isnan(mesh).all():
        return np.zeros_like(mesh)
    while np.isnan(mesh).any():
        around = scipy.ndimage.generic_filter(mesh, _median_of_finite, size=3, mode="nearest")
        mesh = np.where(np.isnan(mesh), around, mesh)
    return mesh


def _median_of_finite(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else np.nan


def _interpolation(edges: np.ndarray) -> np.ndarray:
    """Return the matrix that takes cell values along an axis to pixels with cubic splines, (length, n_cells).

    Beyond the outermost cell centres the result is constant.
    """
    centres = 0.5 * (edges[:-1] + edges[1:]) - 0.5
    pixels = np.clip(np.arange(edges[-1]), centres[0], centres[-1])
    if len(centres) == 1:
        return np.ones((len(pixels), 1), dtype=np.float32)
    spline = scipy.interpolate.make_interp_spline(centres, np.eye(len(centres)), k=min(3, len(centres) - 1))
    return spline(pixels).astype(np.float32)
