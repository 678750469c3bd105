"""Spatial polynomials over a detector: the terms by which PSFs, kernels and filters vary.

Terms are products of Chebyshev polynomials T_p(u) T_q(v) with p + q <= order, in coordinates u, v that map
the bounding box to [-1, 1], so that least squares on them are well conditioned.
"""

from __future__ import annotations

__all__ = ["PolynomialField"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box


@dataclass(frozen=True)
class PolynomialField:
    """The polynomial terms of a field over a bounding box.

    Parameters
    ----------
    bounds : `lsst.images.Box`
        Region that maps to [-1, 1] in both coordinates.
    order : `int`
        Largest total degree.
    """

    bounds: Box
    order: int

    def __post_init__(self) -> None:
        if self.order < 0:
            raise ValueError(f"Polynomial order must not be negative, got {self.order}.")

    @property
    def exponents(self) -> list[tuple[int, int]]:
        """Degrees (p, q) in x and y of each term; the first term is the constant."""
        return [(total - q, q) for total in range(self.order + 1) for q in range(total + 1)]

    @property
    def n_terms(self) -> int:
        """Number of terms."""
        return (self.order + 1) * (self.order + 2) // 2

    def normalise(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map pixel coordinates to [-1, 1], the outer edges of the bounding box's pixels to -1 and 1."""
        box_x, box_y = self.bounds.x, self.bounds.y
        u = (np.asarray(x, dtype=float) - (box_x.start - 0.5)) * (2.0 / box_x.size) - 1.0
        v = (np.asarray(y, dtype=float) - (box_y.start - 0.5)) * (2.0 / box_y.size) - 1.0
        return u, v

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Evaluate every term at points.

        Parameters
        ----------
        x, y : array-like, (N,)
            Positions [pixel].

        Returns
        -------
        terms : `numpy.ndarray`, (N, n_terms)
            Values of the terms.
        """
        u, v = self.normalise(np.atleast_1d(x), np.atleast_1d(y))
        tx = np.polynomial.chebyshev.chebvander(u, self.order)
        ty = np.polynomial.chebyshev.chebvander(v, self.order)
        p, q = np.array(self.exponents).T
        terms: np.ndarray = np.multiply(tx[:, p], ty[:, q], order="C")
        return terms

    def axis_terms(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Evaluate each term on the pixel grid of the bounding box, as the factors (x row, y column).

        Returns
        -------
        factors : `list` [`tuple` [`numpy.ndarray`, `numpy.ndarray`]]
            For each term, T_p at every column, shape (width,), and T_q at every row, shape (height,).
        """
        x = np.arange(self.bounds.x.start, self.bounds.x.stop)
        y = np.arange(self.bounds.y.start, self.bounds.y.stop)
        u, v = self.normalise(x, y)
        tx = np.polynomial.chebyshev.chebvander(u, self.order)
        ty = np.polynomial.chebyshev.chebvander(v, self.order)
        return [(tx[:, p], ty[:, q]) for p, q in self.exponents]

    def chebyshev_matrix(self, coefficients: np.ndarray) -> np.ndarray:
        """Arrange coefficients as the matrix [q, p] of T_q(y) T_p(x) that `numpy` and lsst-images use."""
        matrix = np.zeros((self.order + 1, self.order + 1))
        for (p, q), value in zip(self.exponents, coefficients, strict=True):
            matrix[q, p] = value
        return matrix

    def sample_grid(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return n x n positions at Chebyshev nodes of the bounding box, where sampling a field fits it best.

        Returns
        -------
        x, y : `numpy.ndarray`, (n * n,)
            Positions [pixel].
        """
        nodes = np.cos(np.pi * (np.arange(n)[::-1] + 0.5) / n)
        x = self.bounds.x.start - 0.5 + 0.5 * (nodes + 1.0) * self.bounds.x.size
        y = self.bounds.y.start - 0.5 + 0.5 * (nodes + 1.0) * self.bounds.y.size
        grid_x, grid_y = np.meshgrid(x, y)
        return grid_x.ravel(), grid_y.ravel()
