"""The round region about a source in which most diagnostics measure, and the smallest stamp that holds it."""

from __future__ import annotations

__all__ = ["central_disk", "disk_size"]

import numpy as np

from ..psf import disk_mask
from ..stamps import StampSet


def disk_size(radius: float) -> int:
    """Return the side of the smallest stamp of odd size that holds a disk about a point of its central pixel."""
    return 2 * int(np.floor(radius + 0.5)) + 1


def central_disk(stamps: StampSet, radius: float) -> np.ndarray:
    """Return 1 for the pixels within a radius [pixel] of the sources and 0 for others; (N, size^2), float32; kept."""
    return stamps.keep(("disk", radius), lambda: _disk(stamps, radius))


def _disk(stamps: StampSet, radius: float) -> np.ndarray:
    disk = disk_mask(stamps.size, stamps.dx, stamps.dy, radius)
    return disk.reshape(len(stamps), -1).astype(np.float32)
