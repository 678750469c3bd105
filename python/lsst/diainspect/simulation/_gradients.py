"""Smooth errors over a detector: of the photometric calibration and of the subtracted sky."""

from __future__ import annotations

__all__ = ["CalibrationGradient", "SkyGradient"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box


def _coordinates(bounds: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates of the pixels that run from -0.5 to 0.5 over the box, along x and along y."""
    u = (np.arange(bounds.x.size) + 0.5) / bounds.x.size - 0.5
    v = (np.arange(bounds.y.size) + 0.5) / bounds.y.size - 0.5
    return u[None, :], v[:, None]


@dataclass(frozen=True)
class CalibrationGradient:
    """An error of the calibration that grows over the detector: pixels are 1 + x u + y v times their value.

    Parameters
    ----------
    x, y : `float`
        Relative change from the left to the right edge, and from the lower to the upper.
    """

    x: float = 0.01
    y: float = 0.0

    def __post_init__(self) -> None:
        if not abs(self.x) + abs(self.y) < 1:
            raise ValueError(f"the calibration must stay positive, got a gradient of ({self.x}, {self.y}).")

    def factors(self, bounds: Box) -> np.ndarray:
        """Return the factor of each pixel, shape (height, width)."""
        u, v = _coordinates(bounds)
        return 1.0 + self.x * u + self.y * v

    def at(self, x: np.ndarray, y: np.ndarray, bounds: Box) -> np.ndarray:
        """Return the factor at positions [pixel]."""
        u = (x - bounds.x.start + 0.5) / bounds.x.size - 0.5
        v = (y - bounds.y.start + 0.5) / bounds.y.size - 0.5
        return 1.0 + self.x * u + self.y * v


@dataclass(frozen=True)
class SkyGradient:
    """Sky light that the sky subtraction has left; its noise is in the image and in the variance.

    Parameters
    ----------
    level : `float`
        In the middle of the detector [electron / pixel].
    x, y : `float`
        Change from the left to the right edge, and from the lower to the upper [electron / pixel].
    curvature : `float`
        Change from the middle to a corner, quadratic in the distance [electron / pixel].
    """

    level: float = 0.0
    x: float = 10.0
    y: float = 0.0
    curvature: float = 0.0

    def electrons(self, bounds: Box) -> np.ndarray:
        """Return the sky left in each pixel [electron], shape (height, width)."""
        u, v = _coordinates(bounds)
        return self.level + self.x * u + self.y * v + self.curvature * 2.0 * (u**2 + v**2)
