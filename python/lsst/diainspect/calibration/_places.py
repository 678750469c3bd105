"""Random places in a difference image: blank sky, and on static sources."""

from __future__ import annotations

__all__ = ["draw_positions"]

import numpy as np
from lsst.images import Box


def draw_positions(
    where: np.ndarray, bounds: Box, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw random positions on the pixels of a mask, each pixel once at most.

    Parameters
    ----------
    where : `numpy.ndarray`, (height, width), bool
        Pixels to draw from.
    bounds : `lsst.images.Box`
        Box of the mask.
    n : `int`
        Number of positions; fewer where there are fewer pixels.
    rng : `numpy.random.Generator`
        Source of randomness.

    Returns
    -------
    x, y : `numpy.ndarray`, (<= n,)
        Positions, at random places of their pixels [pixel].
    """
    pixels = np.flatnonzero(where)
    chosen = rng.choice(pixels, size=min(n, len(pixels)), replace=False)
    row, column = np.unravel_index(chosen, where.shape)
    x = column + bounds.x.start + rng.uniform(-0.5, 0.5, len(chosen))
    y = row + bounds.y.start + rng.uniform(-0.5, 0.5, len(chosen))
    return x, y
