"""Images that share a basis, moved to sub-pixel positions: one matrix product instead of a transform each.

A shift by d multiplies the transform by exp(-2 pi i k d). The pixel is divided into cells of half width R about
centres c; within one, with t = (d - c) / R, the Jacobi-Anger expansion gives for each axis
  exp(-2 pi i k d) = exp(-2 pi i k c) sum_a (2 - delta_a0) (-i)^a J_a(2 pi k R) T_a(t),
T_a the Chebyshev polynomials. So the shared images are transformed once, for each cell and pair of degrees, and the
image of a source is a product of its weights and T_a(t_x) T_b(t_y) with them.
"""

from __future__ import annotations

__all__ = ["ShiftedBasis"]

import weakref

import numpy as np
import scipy.fft
import scipy.special

from ..psf import centre_crop
from ._fine_images import FineImages, sample_finely

_N_CELLS = 4
"""Cells a pixel and axis; with the degree it sets the error, and with its square the size of the tables."""

_DEGREE = 3
"""Largest total degree of the expansion."""

_PADDING = 4
"""Pixels of zeros on each side, so that what a shift pushes over one edge does not come in at the other."""

_LEAST_STRENGTH = 1e-6
"""Variations over the detector below this, relative to the images, are left out: a tenth of the expansion's error."""

_DEGREES = [(total - b, b) for total in range(_DEGREE + 1) for b in range(total + 1)]
_HALF_WIDTH = 0.5 / _N_CELLS


class ShiftedBasis:
    """Shared images in a form in which they can be moved by any fraction of a pixel.

    The result agrees with a shift in the Fourier plane to 5e-5 of the peak for a PSF of 2 pixels full width at half
    maximum, and to 1e-5 from 3 pixels on.

    Parameters
    ----------
    basis : `numpy.ndarray`, (M, size, size)
        Shared images of odd size.
    """

    def __init__(self, basis: np.ndarray) -> None:
        self._original = basis
        self._combine, self._basis = _reduced(basis)
        self._table: np.ndarray | None = None
        self._fine: np.ndarray | None = None
        self._crops: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, basis: np.ndarray) -> ShiftedBasis:
        """Return the one that was made of the same array before, if it is still in use, or make it.

        Stamps that are cut from a detector in chunks share its tables.
        """
        shared = _IN_USE.get(id(basis))
        if shared is None or shared._original is not basis:
            shared = cls(basis)
            _IN_USE[id(basis)] = shared
        return shared

    def evaluate(self, weights: np.ndarray, dx: np.ndarray, dy: np.ndarray, size: int) -> np.ndarray:
        """Combine and move the images.

        Parameters
        ----------
        weights : `numpy.ndarray`, (N, M)
            Weights of the shared images for each source.
        dx, dy : `numpy.ndarray`, (N,)
            Translation towards larger x and y [pixel], of any length; where it is not finite the image is zero.
        size : `int`
            Side of the result [pixel]: images are cropped, or padded with zeros.

        Returns
        -------
        images : `numpy.ndarray`, (N, size, size), float32
            Images with their centres (dx, dy) from pixel size // 2.
        """
        return self._evaluate(weights, dx, dy, size, [(0, 0)])[:, 0]

    def evaluate_with_gradient(
        self, weights: np.ndarray, dx: np.ndarray, dy: np.ndarray, size: int
    ) -> np.ndarray:
        """Combine and move the images, and differentiate them by the translation.

        Returns
        -------
        images : `numpy.ndarray`, (N, 3, size, size), float32
            As `evaluate`, and its derivatives by ``dx`` and ``dy`` [1 / pixel], good to 2e-3 of their peak for a PSF
            of 3 pixels full width at half maximum.
        """
        return self._evaluate(weights, dx, dy, size, [(0, 0), (1, 0), (0, 1)])

    def fine_images(self, weights: np.ndarray) -> FineImages:
        """Combine the images with weights (N, M), in a form in which single ones are moved again and again."""
        if self._fine is None:
            self._fine = sample_finely(np.asarray(self._basis, dtype=np.float32))
        shape = self._fine.shape[1:]
        combined = (weights @ self._combine).astype(np.float32) @ self._fine.reshape(len(self._fine), -1)
        return FineImages(combined.reshape(-1, *shape))

    def _evaluate(
        self,
        weights: np.ndarray,
        dx: np.ndarray,
        dy: np.ndarray,
        size: int,
        orders: list[tuple[int, int]],
    ) -> np.ndarray:
        """Return images differentiated by (dx, dy) to each pair of orders, (N, orders, size, size)."""
        weights = weights @ self._combine
        dx, dy = np.asarray(dx, dtype=float), np.asarray(dy, dtype=float)
        finite = np.isfinite(dx) & np.isfinite(dy)
        # Farther than this nothing of the image is on the stamp.
        largest = size + self._basis.shape[-1]
        dx, dy = (np.clip(np.where(finite, d, 0.0), -largest, largest) for d in (dx, dy))
        whole_x, whole_y = np.rint(dx).astype(int), np.rint(dy).astype(int)
        results = np.zeros((len(dx), len(orders), size, size), dtype=np.float32)
        reach = np.maximum(np.abs(whole_x), np.abs(whole_y))
        near = finite & (reach == 0)
        if near.any():
            self._evaluate_near(weights, dx, dy, size, near, orders, results)
        far = np.flatnonzero(finite & ~near)
        for distance in np.unique(reach[far]):
            rows = far[reach[far] == distance]
            roomy = size + 2 * int(distance)
            wide = np.zeros((len(rows), len(orders), roomy, roomy), dtype=np.float32)
            every = np.ones(len(rows), dtype=bool)
            self._evaluate_near(
                weights[rows], dx[rows] - whole_x[rows], dy[rows] - whole_y[rows], roomy, every, orders, wide
            )
            own = np.arange(len(rows))
            low_x, low_y = distance - whole_x[rows], distance - whole_y[rows]
            for order in range(len(orders)):
                windows = np.lib.stride_tricks.sliding_window_view(wide[:, order], (size, size), axis=(1, 2))
                results[rows, order] = windows[own, low_y, low_x]
        return results

    def _evaluate_near(
        self,
        weights: np.ndarray,
        dx: np.ndarray,
        dy: np.ndarray,
        size: int,
        rows: np.ndarray,
        orders: list[tuple[int, int]],
        results: np.ndarray,
    ) -> None:
        """Fill the rows of results that are moved by half a pixel at most."""
        table = self._cropped_table(size)
        inner = int(np.sqrt(table.shape[-1]))
        low = size // 2 - inner // 2
        cell_x, cell_y = (np.clip(((d + 0.5) * _N_CELLS).astype(int), 0, _N_CELLS - 1) for d in (dx, dy))
        cell = cell_y * _N_CELLS + cell_x
        t_x, t_y = ((d - (c + 0.5) / _N_CELLS + 0.5) / _HALF_WIDTH for d, c in ((dx, cell_x), (dy, cell_y)))
        factors = []
        for order_x, order_y in orders:
            chebyshev_x, chebyshev_y = (_chebyshev(t, order) for t, order in ((t_x, order_x), (t_y, order_y)))
            terms = np.stack([chebyshev_x[:, a] * chebyshev_y[:, b] for a, b in _DEGREES], axis=-1)
            product = terms[:, :, None] * weights[:, None, :]
            factors.append(product.reshape(len(terms), -1).astype(np.float32))
        order_of_rows = np.flatnonzero(rows)
        order_of_rows = order_of_rows[np.argsort(cell[order_of_rows], kind="stable")]
        cells, starts = np.unique(cell[order_of_rows], return_index=True)
        for index, members in zip(cells, np.split(order_of_rows, starts[1:]), strict=True):
            for order, factor in enumerate(factors):
                images = factor[members] @ table[index]
                result = results[:, order, low : low + inner, low : low + inner]
                result[members] = images.reshape(-1, inner, inner)

    def _cropped_table(self, size: int) -> np.ndarray:
        """Return the shared images for each cell, (cells, degrees * M, pixels), of at most a size."""
        own = self._basis.shape[-1]
        # An image of the parity of the result, or its centre would move.
        inner = size if size <= own else own
        if inner not in self._crops:
            if self._table is None:
                self._table = self._transform()
            crop = centre_crop(self._table, inner)
            self._crops[inner] = np.ascontiguousarray(crop).reshape(len(crop), -1, inner**2)
        return self._crops[inner]

    def _transform(self) -> np.ndarray:
        """Return the shared images moved to each cell, for each pair of degrees."""
        basis = np.asarray(self._basis, dtype=np.float32)
        size = basis.shape[-1]
        window = scipy.fft.next_fast_len(size + 2 * _PADDING, real=True)
        transform = scipy.fft.rfft2(basis, s=(window, window))
        factors = []
        for k in (scipy.fft.rfftfreq(window), scipy.fft.fftfreq(window)):
            degrees = np.arange(_DEGREE + 1)[:, None]
            series = (-1j) ** degrees * scipy.special.jv(degrees, 2.0 * np.pi * k * _HALF_WIDTH)
            series[1:] *= 2.0
            centres = (np.arange(_N_CELLS) + 0.5) / _N_CELLS - 0.5
            ramp = np.exp(-2j * np.pi * centres[:, None] * k)
            factors.append((ramp[:, None, :] * series[None]).astype(np.complex64))
        by_x, by_y = factors
        table = np.empty((_N_CELLS**2, len(_DEGREES), len(basis), size, size), dtype=np.float32)
        for cell in range(_N_CELLS**2):
            for term, (a, b) in enumerate(_DEGREES):
                factor = by_y[cell // _N_CELLS, b][:, None] * by_x[cell % _N_CELLS, a][None, :]
                moved = scipy.fft.irfft2(transform * factor, s=(window, window))
                table[cell, term] = moved[:, :size, :size]
        return table


_IN_USE: weakref.WeakValueDictionary[int, ShiftedBasis] = weakref.WeakValueDictionary()
"""By the identity of their arrays, which they keep alive."""


def _reduced(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write images (M, size, size) as combinations (M, r) of the r <= M that differ: PSFs vary in few ways."""
    flat = np.asarray(basis, dtype=float).reshape(len(basis), -1)
    left, strength, right = np.linalg.svd(flat, full_matrices=False)
    kept = strength > _LEAST_STRENGTH * strength[0] if len(strength) else slice(None)
    return left[:, kept] * strength[kept], right[kept].reshape(-1, *basis.shape[1:])


def _chebyshev(t: np.ndarray, derivative: int) -> np.ndarray:
    """Return Chebyshev polynomials of t, or their derivatives by the shift, (N, degree + 1)."""
    if derivative == 0:
        return np.polynomial.chebyshev.chebvander(t, _DEGREE)
    # dT_a / dt = a U_{a - 1}, and dt = d(shift) / R.
    second = [np.ones_like(t), 2.0 * t]
    for _ in range(_DEGREE - 2):
        second.append(2.0 * t * second[-1] - second[-2])
    columns = [np.zeros_like(t)] + [a * second[a - 1] for a in range(1, _DEGREE + 1)]
    return np.stack(columns, axis=-1) / _HALF_WIDTH
