"""The round region about a source in which most diagnostics measure, and the smallest stamp that holds it."""

from __future__ import annotations

__all__ = ["cut_disk", "disk_size"]

import numpy as np

from ..compiled import compiled
from ..stamps import StampSet


def disk_size(radius: float) -> int:
    """Return the side of the smallest stamp of odd size that holds a disk about a point of its central pixel."""
    return 2 * int(np.floor(radius + 0.5)) + 1


def cut_disk(stamps: StampSet, plane: str, radius: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the good pixels of the middle of stamps, and weights that are zero beyond a radius from the sources.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of N sources; where one has no position all weights are zero.
    plane : `str`
        "difference", "science" or "template".
    radius : `float`
        Radius [pixel].
    size : `int`
        Side of the middle, at most that of the stamps [pixel].

    Returns
    -------
    pixels, weight : `numpy.ndarray`, (N, size * size), float32
        Pixels and inverse variances.
    """
    pixels, weight = (np.empty((len(stamps), size * size), dtype=np.float32) for _ in range(2))
    _fill_disk(
        stamps.good_pixels(plane),
        stamps.weight(plane),
        np.ascontiguousarray(stamps.dx),
        np.ascontiguousarray(stamps.dy),
        size,
        radius,
        pixels,
        weight,
    )
    return pixels, weight


@compiled
def _fill_disk(
    all_pixels: np.ndarray,
    all_weight: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    size: int,
    radius: float,
    pixels: np.ndarray,
    weight: np.ndarray,
) -> None:
    low = all_pixels.shape[1] // 2 - size // 2
    across = np.empty(size)
    for n in range(len(pixels)):
        for j in range(size):
            across[j] = (j - size // 2 - dx[n]) ** 2
        for i in range(size):
            up = (i - size // 2 - dy[n]) ** 2
            source, target = all_pixels[n, low + i, low:], pixels[n, i * size : (i + 1) * size]
            own, result = all_weight[n, low + i, low:], weight[n, i * size : (i + 1) * size]
            for j in range(size):
                target[j] = source[j]
                result[j] = own[j] if across[j] + up <= radius**2 else np.float32(0.0)
