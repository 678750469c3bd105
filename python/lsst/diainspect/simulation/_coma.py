"""Coma of the optics: light from the rim of the aperture lands to one side of the star."""

from __future__ import annotations

__all__ = ["Coma", "coma_rays"]

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coma:
    """Third-order coma of the telescope in the science image.

    A ray from radius rho (1 at the rim) and angle theta of the aperture lands C rho^2 (2 + cos 2 theta,
    sin 2 theta) from the chief ray, along the direction of the vector C. The centroid stays where it is.

    Parameters
    ----------
    x, y : `float`
        C in the middle of the detector, along x and y [arcsec].
    gradient : `float`
        Growth of C from the middle to the edge of the detector, away from the middle [arcsec].
    """

    x: float = 0.1
    y: float = 0.0
    gradient: float = 0.0

    def __post_init__(self) -> None:
        if not max(abs(self.x), abs(self.y), abs(self.gradient)) < 2:
            raise ValueError(
                f"coma must be below 2 arcsec, got ({self.x}, {self.y}) with gradient {self.gradient}."
            )


_RHO_SQUARED = 0.5 + 0.5 * np.array([-1.0, 1.0]) / np.sqrt(3.0)
"""Gauss-Legendre nodes in rho^2, which is uniform over a filled aperture."""
_TWO_THETA = 0.5 * np.pi * np.arange(4)


def coma_rays(x: float, y: float) -> list[tuple[float, float]]:
    """Return where eight rays of equal weight land, relative to their centroid, for a coma vector.

    The eight have the second and third moments of the whole aperture.
    """
    rays = []
    for rho_squared in _RHO_SQUARED:
        for two_theta in _TWO_THETA:
            # The centroid of the aperture is at C itself.
            along = rho_squared * (2.0 + np.cos(two_theta)) - 1.0
            across = rho_squared * np.sin(two_theta)
            rays.append((float(along * x - across * y), float(along * y + across * x)))
    return rays
