"""The weights with which spline interpolation combines the pixels of an image.

Interpolation by splines of order n is linear: the value at t is sum_k eta(t - k) p_k with the cardinal spline eta,
which is 1 at 0, 0 at every other integer, and falls by a factor of about four a pixel.
"""

from __future__ import annotations

__all__ = ["CardinalSpline"]

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.ndimage

_REACH = 20
"""Beyond this many pixels the weights are below 1e-6 for the orders in use [pixel]."""

_STEPS = 256
"""Samples of the weights a pixel: linear interpolation between them is good to 1e-5."""


@dataclass(frozen=True)
class CardinalSpline:
    """Weights of spline interpolation.

    Parameters
    ----------
    order : `int`
        Order of the spline, 0 to 5; 3 is cubic.
    """

    order: int

    def __post_init__(self) -> None:
        if self.order not in range(6):
            raise ValueError(f"The order of a spline must be 0 to 5, got {self.order}.")

    @cached_property
    def _samples(self) -> np.ndarray:
        impulse = np.zeros(4 * _REACH + 1)
        impulse[2 * _REACH] = 1.0
        at = np.arange(2 * _REACH * _STEPS + 1) / _STEPS + _REACH
        return scipy.ndimage.map_coordinates(impulse, [at], order=self.order, mode="mirror")

    def weights(self, distance: np.ndarray) -> np.ndarray:
        """Return eta at distances [pixel]."""
        at = (np.asarray(distance, dtype=float) + _REACH) * _STEPS
        return np.interp(at, np.arange(len(self._samples)), self._samples, left=0.0, right=0.0)

    def variance_factor(self, position: np.ndarray) -> np.ndarray:
        """Return sum_k eta(position - k)^2: what interpolation leaves of the variance of white noise."""
        phase = np.linspace(0.0, 1.0, 129)
        pixels = np.arange(-_REACH + 1, _REACH)
        table = (self.weights(phase[:, None] - pixels) ** 2).sum(axis=1)
        fraction = np.asarray(position, dtype=float) % 1.0
        return np.interp(fraction, phase, table)

    def covariance(self, position: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return sum_k eta(position - k) eta(other - k), the covariance that white noise of unit variance gets."""
        position, other = np.broadcast_arrays(np.asarray(position, float), np.asarray(other, float))
        base = np.floor(0.5 * (position + other))
        total = np.zeros(position.shape)
        for k in range(-_REACH + 1, _REACH):
            total += self.weights(position - base - k) * self.weights(other - base - k)
        return total
