"""Displacements of the sources by the atmosphere and by errors of the astrometric solution."""

from __future__ import annotations

__all__ = ["AstrometricJitter"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

_N_WAVES = 256
"""Random waves that make the correlated field; its covariance is then off by 1 / 16 at most."""


@dataclass(frozen=True)
class AstrometricJitter:
    """Displacements in the science image with respect to the template, drawn anew for each visit and detector.

    Parameters
    ----------
    smooth : `float`
        Root mean square, in each coordinate, of a polynomial over the detector without a constant [mas].
    smooth_order : `int`
        Order of the polynomial.
    correlated : `float`
        Root mean square, in each coordinate, of a Gaussian random field, as turbulence makes it [mas].
    correlation_length : `float`
        L in its correlation exp(-r^2 / (2 L^2)) [arcsec].
    per_source : `float`
        Root mean square, in each coordinate, of a displacement of each source on its own [mas].
    """

    smooth: float = 10.0
    smooth_order: int = 3
    correlated: float = 10.0
    correlation_length: float = 30.0
    per_source: float = 0.0

    def __post_init__(self) -> None:
        for name in ("smooth", "correlated", "per_source"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.smooth_order < 1:
            raise ValueError(f"smooth_order must be at least 1, got {self.smooth_order}.")
        if not self.correlation_length > 0:
            raise ValueError(f"correlation_length must be positive, got {self.correlation_length}.")

    def displacements(
        self, rng: np.random.Generator, x: np.ndarray, y: np.ndarray, bounds: Box, pixel_scale: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the displacements of sources.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of randomness.
        x, y : `numpy.ndarray`, (N,)
            Positions [pixel].
        bounds : `lsst.images.Box`
            The detector.
        pixel_scale : `float`
            Pixel scale [arcsec / pixel].

        Returns
        -------
        dx, dy : `numpy.ndarray`, (N,)
            Displacements [pixel].
        """
        pixels_per_mas = 1e-3 / pixel_scale
        moved = np.zeros((2, len(x)))
        u = 2.0 * (x - bounds.x.start + 0.5) / bounds.x.size - 1.0
        v = 2.0 * (y - bounds.y.start + 0.5) / bounds.y.size - 1.0
        order = self.smooth_order
        exponents = [(p, q) for p in range(order + 1) for q in range(order + 1 - p) if p + q > 0]
        # Legendre polynomials are orthogonal: the square of each has mean 1 / ((2 p + 1)(2 q + 1)).
        terms = np.stack(
            [
                np.polynomial.legendre.legval(u, np.eye(order + 1)[p])
                * np.polynomial.legendre.legval(v, np.eye(order + 1)[q])
                * np.sqrt((2 * p + 1) * (2 * q + 1))
                for p, q in exponents
            ]
        )
        # High orders are weaker, as distortions are; the sum of the squares gives the variance.
        coefficients = rng.normal(size=(2, len(exponents))) / np.array([p + q for p, q in exponents])
        coefficients /= np.sqrt((coefficients**2).sum(axis=1, keepdims=True))
        moved += self.smooth * pixels_per_mas * (coefficients @ terms)
        length = self.correlation_length / pixel_scale
        for axis in range(2):
            waves = rng.normal(scale=1.0 / length, size=(2, _N_WAVES))
            phases = rng.uniform(0.0, 2.0 * np.pi, _N_WAVES)
            # A sum of many random waves whose wave numbers have this distribution has the Gaussian correlation.
            argument = np.outer(x, waves[0]) + np.outer(y, waves[1]) + phases
            moved[axis] += (
                self.correlated * pixels_per_mas * np.sqrt(2.0 / _N_WAVES) * np.cos(argument).sum(axis=1)
            )
        moved += rng.normal(size=moved.shape) * self.per_source * pixels_per_mas
        return moved[0], moved[1]
