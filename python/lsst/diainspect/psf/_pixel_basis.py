"""Anything pixelated that varies over a detector: images multiplied by spatial polynomial terms.

B(x, y) = sum_m t_m(x, y) B_m, with t_m from `PolynomialField` and B_m small images. PSFs, matching kernels and the
filters of a subtraction all have this form; their images at N positions are one matrix product.
"""

from __future__ import annotations

__all__ = ["PixelBasis"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from lsst.images import Box

from ._fourier_shift import shift_images
from ._polynomial_field import PolynomialField

_EVALUATION_CHUNK = 4096
"""Positions shifted at a time, which bounds the memory of a call whatever the number of sources."""


@dataclass(frozen=True)
class PixelBasis:
    """Pixel images that vary over a detector as a spatial polynomial.

    Parameters
    ----------
    basis : `numpy.ndarray`, (n_terms, size, size)
        Image that multiplies each polynomial term; size is odd and the centre is at pixel size // 2.
    field : `PolynomialField`
        The polynomial terms and the region they cover.
    sampling_error : `float`, optional
        Largest absolute difference between the images this was made from and the polynomial, divided by the
        largest pixel of the images.
    """

    basis: np.ndarray
    field: PolynomialField
    sampling_error: float = 0.0

    def __post_init__(self) -> None:
        if self.basis.ndim != 3 or self.basis.shape[1] != self.basis.shape[2] or self.basis.shape[1] % 2 == 0:
            raise ValueError(
                f"A pixel basis needs square images of odd size, shape (n_terms, size, size); "
                f"got {self.basis.shape}."
            )
        if len(self.basis) != self.field.n_terms:
            raise ValueError(
                f"{len(self.basis)} basis images do not match the {self.field.n_terms} terms of a "
                f"polynomial of order {self.field.order}."
            )

    @property
    def size(self) -> int:
        """Side of the images [pixel]."""
        return int(self.basis.shape[1])

    @property
    def bounds(self) -> Box:
        """Region covered."""
        return self.field.bounds

    @classmethod
    def from_images(
        cls, images: np.ndarray, x: np.ndarray, y: np.ndarray, bounds: Box, *, order: int
    ) -> Self:
        """Fit the polynomial to images at positions.

        Parameters
        ----------
        images : `numpy.ndarray`, (N, size, size)
            Images, centred on pixel size // 2.
        x, y : `numpy.ndarray`, (N,)
            Their positions [pixel].
        bounds : `lsst.images.Box`
            Region to cover.
        order : `int`
            Spatial order.

        Raises
        ------
        ValueError
            If the positions do not determine a polynomial of this order.
        """
        images = np.asarray(images, dtype=float)
        field = PolynomialField(bounds, order)
        terms = field.evaluate(x, y)
        flat = images.reshape(len(images), -1)
        # A product with the pseudo-inverse: solving for thousands of pixels at once, LAPACK takes several hundred times
        # as long.
        inverse, _, rank, _ = np.linalg.lstsq(terms, np.eye(len(terms)), rcond=None)
        if rank < field.n_terms:
            raise ValueError(
                f"{len(images)} images do not determine a polynomial of order {order} "
                f"({field.n_terms} terms): give more positions or a lower order."
            )
        solution = inverse @ flat
        error = float(np.abs(terms @ solution - flat).max() / np.abs(flat).max())
        return cls(solution.reshape(field.n_terms, *images.shape[1:]), field, error)

    @classmethod
    def from_callable(
        cls,
        function: Callable[[float, float], np.ndarray],
        bounds: Box,
        *,
        order: int = 2,
        n_grid: int | None = None,
    ) -> Self:
        """Sample a function of position that returns centred images of shape (size, size).

        Parameters
        ----------
        function : callable
            Takes x and y [pixel], returns an image.
        bounds : `lsst.images.Box`
            Region to sample.
        order : `int`, optional
            Spatial order.
        n_grid : `int`, optional
            Positions a side; order + 2 when omitted, one more than the polynomial needs so that
            ``sampling_error`` means something.
        """
        field = PolynomialField(bounds, order)
        x, y = field.sample_grid(n_grid if n_grid is not None else order + 2)
        images = np.stack([function(float(xi), float(yi)) for xi, yi in zip(x, y, strict=True)])
        return cls.from_images(images, x, y, bounds, order=order)

    def coefficients(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the weights of the basis images at positions, shape (N, n_terms)."""
        return self.field.evaluate(x, y)

    def evaluate(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        dx: np.ndarray | None = None,
        dy: np.ndarray | None = None,
        dtype: npt.DTypeLike = np.float64,
    ) -> np.ndarray:
        """Evaluate the images at positions.

        Parameters
        ----------
        x, y : array-like, (N,)
            Positions [pixel].
        dx, dy : array-like, (N,), optional
            Sub-pixel offsets of the centre from the central pixel [pixel]; centred when omitted.
        dtype : dtype, optional
            Type of the result; float32 halves time and memory at an error of 1e-7 of the peak.

        Returns
        -------
        images : `numpy.ndarray`, (N, size, size)
            Images.
        """
        terms: np.ndarray = self.field.evaluate(x, y).astype(dtype, copy=False)
        flat: np.ndarray = self.basis.reshape(len(self.basis), -1).astype(dtype, copy=False)
        images: np.ndarray = np.empty((len(terms), self.size, self.size), dtype=dtype)
        np.matmul(terms, flat, out=images.reshape(len(terms), self.size**2))
        if dx is None and dy is None:
            return images
        offset_x = np.broadcast_to(np.asarray(0.0 if dx is None else dx, dtype=float), len(terms))
        offset_y = np.broadcast_to(np.asarray(0.0 if dy is None else dy, dtype=float), len(terms))
        for start in range(0, len(terms), _EVALUATION_CHUNK):
            chunk = slice(start, start + _EVALUATION_CHUNK)
            images[chunk] = shift_images(images[chunk], offset_x[chunk], offset_y[chunk])
        return images

    def at(self, x: float, y: float) -> np.ndarray:
        """Return the centred image at one position, shape (size, size)."""
        return self.evaluate(np.array([x]), np.array([y]))[0]

    def centre(self) -> np.ndarray:
        """Return the image at the centre of its bounds."""
        box = self.bounds
        return self.at(0.5 * (box.x.start + box.x.stop - 1), 0.5 * (box.y.start + box.y.stop - 1))
