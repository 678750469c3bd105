"""Images of their own moved by any distance: two small matrix products an image.

A band-limited image moved by d has the pixels sum_j sinc(i - j - d) p_j along each axis, so the result is
S(d_y) P S(d_x)^T with S_ij = sinc(i - j - d), and its derivatives by d those with the derivative of S.
"""

from __future__ import annotations

__all__ = ["MovableImages"]

import numpy as np

_NEAR = 1e-3
"""Distance [pixel] below which sinc is 1 and its derivative linear, to the precision of float32."""

_TINY = 1e-20
"""Pixels of a PSF that are zero for every purpose."""


class MovableImages:
    """N images that are moved again and again, by distances that differ.

    Faster than `ShiftedBasis` for few images and for shifts of more than a pixel; exact where that is good to 1e-5.

    Parameters
    ----------
    images : `numpy.ndarray`, (N, size, size)
        Images of odd size, taken to be zero beyond.
    """

    def __init__(self, images: np.ndarray) -> None:
        self._images = np.array(images, dtype=np.float32, order="C")
        # Products with the tails of an analytic PSF would be denormal numbers, which cost ten times as much.
        self._images[np.abs(self._images) < _TINY] = 0.0

    def at(self, rows: np.ndarray | slice, dx: np.ndarray, dy: np.ndarray, size: int) -> np.ndarray:
        """Move images.

        Parameters
        ----------
        rows : `numpy.ndarray`, (n,), int, or `slice`
            Which images; one may occur more than once.
        dx, dy : `numpy.ndarray`, (n,)
            Translations towards larger x and y [pixel].
        size : `int`
            Side of the result [pixel].

        Returns
        -------
        images : `numpy.ndarray`, (n, size, size), float32
            Images with their centres (dx, dy) from pixel size // 2.
        """
        along_x, along_y = (self._matrix(d, size) for d in (dx, dy))
        return (along_y @ self._images[rows]) @ along_x.transpose(0, 2, 1)

    def at_with_gradient(
        self, rows: np.ndarray | slice, dx: np.ndarray, dy: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move images as `at` does; return them and their derivatives by ``dx`` and ``dy`` [1 / pixel]."""
        along_x, along_y = (self._matrix(d, size) for d in (dx, dy))
        by_x, by_y = (self._matrix(d, size, derivative=True) for d in (dx, dy))
        images = self._images[rows]
        moved_y = along_y @ images
        along_x, by_x = along_x.transpose(0, 2, 1), by_x.transpose(0, 2, 1)
        return moved_y @ along_x, moved_y @ by_x, (by_y @ images) @ along_x

    def _matrix(self, shift: np.ndarray, size: int, *, derivative: bool = False) -> np.ndarray:
        """Return S, or its derivative by the shift, of shape (n, size, own size)."""
        own = self._images.shape[-1]
        whole = (np.arange(size) - size // 2)[:, None] - (np.arange(own) - own // 2)
        sign = np.where(whole % 2 == 0, 1.0, -1.0).astype(np.float32) / np.float32(np.pi)
        shift = np.asarray(shift, dtype=float)
        distance = (whole - shift[:, None, None]).astype(np.float32)
        near = np.abs(distance) < _NEAR
        distance[near] = 1.0
        # sin(pi (k - d)) = (-1)^(k + 1) sin(pi d).
        sine = -np.sin(np.pi * shift).astype(np.float32)[:, None, None]
        matrix = sign * sine / distance
        if not derivative:
            matrix[near] = 1.0
            return matrix
        cosine = np.float32(np.pi) * np.cos(np.pi * shift).astype(np.float32)[:, None, None]
        matrix = (matrix - sign * cosine) / distance
        matrix[near] = 0.0
        return matrix
