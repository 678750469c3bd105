"""Cutting square stamps around many positions."""

from __future__ import annotations

__all__ = ["gather_stamps", "stamp_origin"]

import numpy as np

from ..compiled import compiled

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
    stamps = np.empty((len(x0), size, size), dtype=image.dtype)
    # As unsigned integers, because compiled loops take the machine's byte order only and files have another.
    words = np.dtype(f"u{image.dtype.itemsize}")
    _copy_windows(
        image.view(words),
        np.asarray(x0, dtype=np.int64),
        np.asarray(y0, dtype=np.int64),
        np.full(1, fill, dtype=image.dtype).view(words),
        stamps.view(words),
    )
    return stamps


@compiled
def _copy_windows(
    image: np.ndarray, x0: np.ndarray, y0: np.ndarray, fill: np.ndarray, stamps: np.ndarray
) -> None:
    """Fill stamps (N, size, size); off the image they are what the one element of ``fill`` is."""
    height, width = image.shape
    size = stamps.shape[1]
    for n in range(len(stamps)):
        left, right = min(max(-x0[n], 0), size), max(min(width - x0[n], size), 0)
        for i in range(size):
            row, target = y0[n] + i, stamps[n, i]
            if left > 0 or right < size or row < 0 or row >= height:
                target[:] = fill[0]
            if 0 <= row < height and left < right:
                # Parts of the rows, because an index that is a sum might be negative, for all the compiler knows.
                source, goal = image[row, x0[n] + left : x0[n] + right], target[left:right]
                for j in range(len(goal)):
                    goal[j] = source[j]
