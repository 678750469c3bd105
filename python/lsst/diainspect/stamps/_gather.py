"""Cutting square stamps around many positions in one indexing operation."""

from __future__ import annotations

__all__ = ["gather_stamps", "stamp_origin"]

import numpy as np

_FAR = 1e9
"""Pixel coordinate beyond any image that still leaves room in an int32."""


def stamp_origin(x: np.ndarray, y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower-left pixels of stamps of a size centred on the pixels nearest to positions.

    Returns
    -------
    x0, y0 : `numpy.ndarray`, (N,), int32
        Lower-left pixels; the centre is pixel ``x0 + size // 2``. Those of a position that is not finite lie off
        any image.
    """
    x0, y0 = (
        np.clip(np.nan_to_num(np.floor(np.asarray(position, dtype=float) + 0.5), nan=_FAR), -_FAR, _FAR)
        for position in (x, y)
    )
    return x0.astype(np.int32) - size // 2, y0.astype(np.int32) - size // 2


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
    x0, y0 = np.asarray(x0, dtype=np.int64), np.asarray(y0, dtype=np.int64)
    stamps = np.empty((len(x0), size, size), dtype=image.dtype)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 + size <= width) & (y0 + size <= height)
    if inside.any():
        windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))
        stamps[inside] = windows[y0[inside], x0[inside]]
    edge = np.flatnonzero(~inside)
    if len(edge):
        offsets = np.arange(size)
        rows, columns = y0[edge, None] + offsets, x0[edge, None] + offsets
        outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[
            :, None, :
        ]
        pixels = image[np.clip(rows, 0, height - 1)[:, :, None], np.clip(columns, 0, width - 1)[:, None, :]]
        stamps[edge] = np.where(outside, np.asarray(fill, dtype=image.dtype), pixels)
    return stamps
