"""Cutting square stamps around many positions in one indexing operation."""

from __future__ import annotations

__all__ = ["gather_stamps", "stamp_origin"]

import numpy as np


def stamp_origin(x: np.ndarray, y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower-left pixels of stamps of a size centred on the pixels nearest to positions.

    Returns
    -------
    x0, y0 : `numpy.ndarray`, (N,), int32
        Lower-left pixels; the centre is pixel ``x0 + size // 2``.
    """
    x0 = np.floor(np.asarray(x, dtype=float) + 0.5).astype(np.int32) - size // 2
    y0 = np.floor(np.asarray(y, dtype=float) + 0.5).astype(np.int32) - size // 2
    return x0, y0


def gather_stamps(
    image: np.ndarray, x0: np.ndarray, y0: np.ndarray, size: int, fill: float | int | bool
) -> np.ndarray:
    """Cut stamps from an image.

    Parameters
    ----------
    image : `numpy.ndarray`, (height, width)
        Image.
    x0, y0 : `numpy.ndarray`, (N,), int
        Lower-left pixel of each stamp, in array coordinates; may lie off the image.
    size : `int`
        Side of the stamps [pixel].
    fill : scalar
        Value of pixels off the image.

    Returns
    -------
    stamps : `numpy.ndarray`, (N, size, size)
        Copies, of the image's type.
    """
    height, width = image.shape
    offsets = np.arange(size)
    rows = np.asarray(y0, dtype=np.int64)[:, None] + offsets
    columns = np.asarray(x0, dtype=np.int64)[:, None] + offsets
    row_outside = (rows < 0) | (rows >= height)
    column_outside = (columns < 0) | (columns >= width)
    stamps = image[np.clip(rows, 0, height - 1)[:, :, None], np.clip(columns, 0, width - 1)[:, None, :]]
    outside = row_outside.any(axis=1) | column_outside.any(axis=1)
    for n in np.flatnonzero(outside):
        stamps[n, row_outside[n], :] = fill
        stamps[n, :, column_outside[n]] = fill
    return stamps
