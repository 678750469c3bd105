"""Sky sources: random blank positions, measured like detections, that show what noise alone gives."""

from __future__ import annotations

__all__ = ["place_sky_sources"]

import numpy as np
import scipy.spatial

from ..stamps import gather_stamps, stamp_origin

_TRIALS = 50
"""Positions tried for each one wanted: enough where 5 % of the image is blank."""


def place_sky_sources(
    valid: np.ndarray,
    x_taken: np.ndarray,
    y_taken: np.ndarray,
    n_wanted: int,
    radius: float,
    distance: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw blank positions, uniform over what is blank.

    Parameters
    ----------
    valid : `numpy.ndarray`, (height, width), bool
        Pixels in which a detection may lie.
    x_taken, y_taken : `numpy.ndarray`, (N,)
        Peaks of detections, in array coordinates [pixel].
    n_wanted : `int`
        Positions wanted; fewer come back where there is no room.
    radius : `float`
        All pixels this near are valid [pixel].
    distance : `float`
        Least distance from every detection and from each other [pixel].
    rng : `numpy.random.Generator`
        Source of randomness. The first positions of a longer list are those of a shorter one, as long as they are
        blank.

    Returns
    -------
    x, y : `numpy.ndarray`
        Positions, in array coordinates [pixel].
    """
    height, width = valid.shape
    tried = rng.random((_TRIALS * n_wanted, 2)) * (width, height) - 0.5
    x, y = tried.T
    reach = int(np.ceil(radius))
    size = 2 * reach + 1
    step_y, step_x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = step_x**2 + step_y**2 <= radius**2
    x0, y0 = stamp_origin(x, y, size)
    blank = gather_stamps(valid, x0, y0, size, False)[:, disk].all(axis=1)
    if len(x_taken):
        nearest, _ = scipy.spatial.cKDTree(np.stack([x_taken, y_taken], axis=-1)).query(tried)
        blank &= nearest > distance
    tried = tried[blank]
    # Of two that are too close the first drawn stays.
    chosen = np.zeros(len(tried), dtype=bool)
    crowded = np.zeros(len(tried), dtype=bool)
    near = scipy.spatial.cKDTree(tried).query_ball_point(tried, distance) if len(tried) else []
    for index in range(len(tried)):
        if chosen.sum() == n_wanted:
            break
        if not crowded[index]:
            chosen[index] = True
            crowded[near[index]] = True
    x, y = tried[chosen].T
    return x, y
