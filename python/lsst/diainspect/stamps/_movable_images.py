"""Images of their own moved by any distance: two small matrix products an image.

A band-limited image moved by d has the pixels sum_j sinc(i - j - d) p_j along each axis, so the result is
S(d_y) P S(d_x)^T with S_ij = sinc(i - j - d), and its derivatives by d those with the derivative of S.
"""

from __future__ import annotations

__all__ = ["MovableImages"]

import numpy as np

from ..compiled import compiled

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
        along_y, along_x = (_sinc_matrices(d, self._images.shape[-1], size, 1) for d in (dy, dx))
        return (along_y @ self._images[rows]) @ along_x.transpose(0, 2, 1)

    def at_with_gradient(
        self, rows: np.ndarray | slice, dx: np.ndarray, dy: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move images as `at` does; return them and their derivatives by ``dx`` and ``dy`` [1 / pixel]."""
        along_y, along_x = (_sinc_matrices(d, self._images.shape[-1], size, 2) for d in (dy, dx))
        # Values and derivatives along y in one product.
        moved_y = along_y @ self._images[rows]
        value, slope = moved_y[:, :size], moved_y[:, size:]
        value_x, slope_x = (along_x[:, part].transpose(0, 2, 1) for part in (slice(size), slice(size, None)))
        return value @ value_x, value @ slope_x, slope @ value_x


def _sinc_matrices(shift: np.ndarray, own: int, size: int, n_parts: int) -> np.ndarray:
    """Return S and, of two parts, its derivative by the shift below it, (n, n_parts * size, own), float32."""
    shift = np.ascontiguousarray(shift, dtype=float)
    matrices = np.empty((len(shift), n_parts * size, own), dtype=np.float32)
    _fill_sinc(shift, size, matrices)
    return matrices


@compiled
def _fill_sinc(shift: np.ndarray, size: int, matrices: np.ndarray) -> None:
    """Fill matrices: both depend on j - i alone, so a row is a window on one vector."""
    own = matrices.shape[2]
    with_slopes = matrices.shape[1] > size
    values, slopes = np.empty(own + size - 1, np.float32), np.empty(own + size - 1, np.float32)
    first = size - 1 - size // 2 + own // 2
    for n in range(len(shift)):
        whole = np.rint(shift[n])
        sine, cosine = np.sin(np.pi * (shift[n] - whole)), np.cos(np.pi * (shift[n] - whole))
        for i in range(own + size - 1):
            x = first - i - shift[n]
            if abs(x) < _NEAR:
                values[i], slopes[i] = 1.0, 0.0
            else:
                # sin(pi x) and cos(pi x): x is a whole number less the fraction.
                sign = 1.0 if (first - i - whole) % 2 == 0 else -1.0
                value = -sign * sine / (np.pi * x)
                values[i], slopes[i] = value, (value - sign * cosine) / x
        for row in range(size):
            low = size - 1 - row
            for j in range(own):
                matrices[n, row, j] = values[low + j]
            if with_slopes:
                for j in range(own):
                    matrices[n, size + row, j] = slopes[low + j]
