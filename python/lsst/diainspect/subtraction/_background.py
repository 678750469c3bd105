"""The smooth background that is left in a difference: clipped means on a mesh, interpolated."""

from __future__ import annotations

__all__ = ["subtract_background"]

from collections.abc import Callable

import numpy as np
import scipy.interpolate
import scipy.ndimage

_CLIP = 3.0
"""Pixels this many sigma from the background, and their neighbours, are left out."""

_BLOCK = 4
"""Side of the blocks in which they are [pixel]: sources reach beyond the pixels that stand out."""

_ROUNDS = 2
"""Rounds of clipping, the second about the result of the first."""

_LEAST_FRACTION = 0.1
"""Mesh cells with fewer good pixels take the median of their neighbours."""


def subtract_background(
    image: np.ndarray, noise_of: Callable[[slice], np.ndarray], bad: np.ndarray, cell_size: int
) -> None:
    """Measure a background and take it from an image, in place.

    A mean and not a median or a mode: in a difference the wings of static sources are gone, and its error is the
    least there is. An error of the background enters every score times the square root of the area of the PSF.

    Parameters
    ----------
    image : `numpy.ndarray`, (height, width)
        Image.
    noise_of : callable
        Takes a slice of rows; returns the variance of their pixels, (n_rows, width).
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to leave out.
    cell_size : `int`
        Largest side of the mesh's cells [pixel].
    """
    edges = [
        np.linspace(0, length, max(1, round(length / cell_size)) + 1).astype(int) for length in image.shape
    ]
    strips = [slice(bottom, top) for bottom, top in zip(edges[0][:-1], edges[0][1:], strict=True)]
    columns = _membership(edges[1])
    along_y, along_x = _interpolation(edges[0]), _interpolation(edges[1]).T
    area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    mesh = np.full(area.shape, np.median(image[::4, ::4][~bad[::4, ::4]]), dtype=np.float32)
    for _ in range(_ROUNDS):
        count, total = np.zeros(area.shape), np.zeros(area.shape)
        # A row of cells at a time, which stays in the processor's cache.
        for row, strip in enumerate(strips):
            above = image[strip] - along_y[strip] @ mesh @ along_x
            np.abs(above, out=above)
            good = ~(_blocks_around(above > np.float32(_CLIP) * np.sqrt(noise_of(strip))) | bad[strip])
            count[row] = columns @ good.sum(axis=0, dtype=np.float32)
            total[row] = columns @ np.where(good, image[strip], np.float32(0.0)).sum(axis=0)
        raw = np.where(count < _LEAST_FRACTION * area, np.nan, total / np.maximum(count, 1.0))
        mesh = _without_gaps(raw).astype(np.float32)
    for strip in strips:
        image[strip] -= along_y[strip] @ mesh @ along_x


def _membership(edges: np.ndarray) -> np.ndarray:
    """Return the matrix (n_cells, length) that adds up the pixels of each cell along an axis."""
    cell = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    return (cell[None, :] == np.arange(len(edges) - 1)[:, None]).astype(np.float32)


def _blocks_around(mask: np.ndarray) -> np.ndarray:
    """Return a mask with every block of pixels filled in which one is set, and the blocks around where two are."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % _BLOCK), (0, -width % _BLOCK)))
    rows = np.sum([padded[start::_BLOCK] for start in range(_BLOCK)], axis=0, dtype=np.uint8)
    count = np.sum([rows[:, start::_BLOCK] for start in range(_BLOCK)], axis=0, dtype=np.uint8)
    blocks = (count > 0) | scipy.ndimage.binary_dilation(count > 1, np.ones((3, 3)))
    return np.repeat(np.repeat(blocks, _BLOCK, axis=0), _BLOCK, axis=1)[:height, :width]


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
