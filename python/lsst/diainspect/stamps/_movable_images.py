"""Images of their own moved by any distance: two small matrix products an image.

A band-limited image moved by d has the pixels sum_j sinc(i - j - d) p_j along each axis, so the result is
S(d_y) P S(d_x)^T with S_ij = sinc(i - j - d), and its derivatives by d those with the derivative of S.
"""

from __future__ import annotations

__all__ = ["MovableImages"]

import numpy as np

_NEAR = 1e-5
"""Distance [pixel] below which sinc is 1 and its derivative zero."""

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
        (along_x, _), (along_y, _) = (self._matrices(d, size) for d in (dx, dy))
        return (along_y @ self._images[rows]) @ along_x.transpose(0, 2, 1)

    def at_with_gradient(
        self, rows: np.ndarray | slice, dx: np.ndarray, dy: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move images as `at` does; return them and their derivatives by ``dx`` and ``dy`` [1 / pixel]."""
        (along_x, by_x), (along_y, by_y) = (self._matrices(d, size) for d in (dx, dy))
        images = self._images[rows]
        moved_y = along_y @ images
        along_x, by_x = along_x.transpose(0, 2, 1), by_x.transpose(0, 2, 1)
        return moved_y @ along_x, moved_y @ by_x, (by_y @ images) @ along_x

    def _matrices(self, shift: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return S and its derivative by the shift, of shape (n, size, own size)."""
        own = self._images.shape[-1]
        shift = np.asarray(shift, dtype=float)
        # Both depend on j - i alone: a row of the matrix is a window on one vector.
        lag = np.arange(own + size - 1) - own // 2 - (size - 1 - size // 2)
        distance = -lag - shift[:, None]
        whole = np.rint(shift)
        sign = np.where((lag + whole[:, None]) % 2 == 0, 1.0, -1.0)
        fraction = np.pi * (shift - whole)
        near = np.abs(distance) < _NEAR
        distance[near] = 1.0
        # sin(pi x) and cos(pi x) of x = -lag - shift.
        values = sign * -np.sin(fraction)[:, None] / (np.pi * distance)
        slopes = (values - sign * np.cos(fraction)[:, None]) / distance
        values[near], slopes[near] = 1.0, 0.0
        values, slopes = (
            np.lib.stride_tricks.sliding_window_view(vector.astype(np.float32), own, axis=1)[:, ::-1]
            for vector in (values, slopes)
        )
        return np.ascontiguousarray(values), np.ascontiguousarray(slopes)
