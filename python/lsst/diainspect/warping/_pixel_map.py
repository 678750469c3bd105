"""Where the pixels of one image lie in another, from the coordinate systems of both."""

from __future__ import annotations

__all__ = ["PixelMap"]

import warnings
from typing import Any

import numpy as np
import scipy.interpolate
from astropy.wcs.utils import pixel_to_pixel

_STEP = 32
"""Spacing of the nodes at which the coordinate systems are evaluated [pixel]. Between them a cubic spline is good to
1e-5 pixel for any distortion that a camera has."""


class PixelMap:
    """Array coordinates of an output image to those of an input image.

    Parameters
    ----------
    output, input_ : `astropy.wcs.wcsapi.BaseHighLevelWCS`
        Coordinate systems of the arrays.
    shape : `tuple` [`int`, `int`]
        Height and width of the output array.

    Raises
    ------
    ValueError
        If some part of the output is not on the input's sky at all.
    """

    def __init__(self, output: Any, input_: Any, shape: tuple[int, int]) -> None:
        # One node beyond each edge, so that lags and Jacobians at the edge are interpolated too.
        nodes = [np.linspace(-_STEP, length - 1 + _STEP, max(5, -(-length // _STEP) + 3)) for length in shape]
        y, x = np.meshgrid(*nodes, indexing="ij")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            there_x, there_y = pixel_to_pixel(output, input_, x, y)
        if not np.all(np.isfinite(there_x) & np.isfinite(there_y)):
            raise ValueError(
                "The coordinate systems of the two images do not cover the same part of the sky."
            )
        self._x = scipy.interpolate.RectBivariateSpline(*nodes, there_x)
        self._y = scipy.interpolate.RectBivariateSpline(*nodes, there_y)
        self.shape = shape

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map positions x, y of any shape."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        return self._x.ev(y, x), self._y.ev(y, x)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Map every pixel: x and y, each of the shape of the output."""
        rows, columns = np.arange(self.shape[0]), np.arange(self.shape[1])
        return self._x(rows, columns), self._y(rows, columns)

    def jacobian(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return d(input x, y) / d(output x, y) at N positions, shape (N, 2, 2)."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        return np.stack(
            [
                np.stack([self._x.ev(y, x, dy=1), self._x.ev(y, x, dx=1)], axis=-1),
                np.stack([self._y.ev(y, x, dy=1), self._y.ev(y, x, dx=1)], axis=-1),
            ],
            axis=-2,
        )

    def area(self) -> np.ndarray:
        """Return how many input pixels each output pixel covers, of the shape of the output."""
        rows, columns = np.arange(self.shape[0]), np.arange(self.shape[1])
        determinant = self._x(rows, columns, dy=1) * self._y(rows, columns, dx=1)
        determinant -= self._x(rows, columns, dx=1) * self._y(rows, columns, dy=1)
        return np.abs(determinant)

    def largest_shift(self) -> float:
        """Return the largest distance of an output pixel's position in the input from its own coordinates [pixel]."""
        there_x, there_y = self.grid()
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        return float(np.hypot(there_x - x, there_y - y).max())
