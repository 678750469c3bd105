"""Lengths and directions on the sky of vectors in pixels, by the stamps' local derivatives."""

from __future__ import annotations

__all__ = ["sky_length_and_angle", "sky_offset"]

import numpy as np

from ..stamps import StampSet

_DEG_TO_ARCSEC = 3600.0


def sky_offset(stamps: StampSet, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (x, y) [pixel] of each source towards east and north [arcsec]; NaN where stamps do not tell."""
    if "pixelToSky" not in stamps.sources.colnames:
        return np.full(len(stamps), np.nan), np.full(len(stamps), np.nan)
    derivatives = np.asarray(stamps.sources["pixelToSky"], dtype=float) * _DEG_TO_ARCSEC
    east, north = np.einsum("nij,jn->in", derivatives, np.stack([x, y]))
    return east, north


def sky_length_and_angle(stamps: StampSet, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return length [arcsec] and position angle, north through east in [0, 360) [deg], of vectors [pixel]."""
    east, north = sky_offset(stamps, x, y)
    return np.hypot(east, north), np.degrees(np.arctan2(east, north)) % 360.0
