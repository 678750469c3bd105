"""Several images of a source at once, over a detector and at any sub-pixel position, by one matrix product.

The images of a source are sum_m c_m I_m(x - d): weights c of shared images, which are known to vary smoothly over a
detector, moved by the source's sub-pixel position d. All of them lie close to a space of some tens of dimensions. A
table of those and the map from (c, d) to their weights replace a Fourier transform for each source and image.
"""

from __future__ import annotations

__all__ = ["SubpixelTable", "compress"]

import numpy as np
import scipy.fft

_DEGREE = 6
"""Total degree of the polynomials in the sub-pixel position: exp(-2 pi i k d) for |d| <= 1/2 is good to 1e-3 at the
Nyquist frequency, and to 1e-6 at half of it, where PSFs end."""

_NODES = 7
"""Sub-pixel positions sampled on each axis."""

_SPATIAL_TOLERANCE = 1e-4
"""Variations over the detector below this, relative to the images' norm, are left out."""

_TOLERANCE = 5e-5
"""Combinations of images below this, relative to the largest, are left out."""

_DEGREES = [(total - b, b) for total in range(_DEGREE + 1) for b in range(total + 1)]


class SubpixelTable:
    """Sets of images that share a basis, in a form in which they are evaluated and moved by a matrix product.

    Parameters
    ----------
    images : `numpy.ndarray`, (M, P, size, size)
        P images for each of M weights, each centred on pixel size // 2 and small at its edge.
    canvas : `int`
        Side, odd, of the largest region that will be asked for, twice the largest whole-pixel move included
        [pixel].
    """

    def __init__(self, images: np.ndarray, canvas: int) -> None:
        n_weights, self.n_columns, size = images.shape[:3]
        # Modes count alike whatever their amplitudes.
        norm = np.sqrt((images.astype(float) ** 2).sum(axis=(2, 3)).max(axis=0))
        self._norm = np.where(norm > 0, norm, 1.0)
        flat = (images / self._norm[None, :, None, None]).reshape(n_weights, -1)
        self._spatial, distinct = compress(flat, _SPATIAL_TOLERANCE)
        distinct = distinct.reshape(-1, self.n_columns, size, size)

        nodes = 0.5 * np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
        d_x, d_y = (grid.ravel() for grid in np.meshgrid(nodes, nodes))
        to_polynomials = np.linalg.pinv(_polynomials(d_x, d_y)).astype(np.float32)
        moved = _move(distinct, d_x, d_y, canvas)
        weighted = to_polynomials @ moved.reshape(len(d_x), -1)
        weighted = weighted.reshape(len(_DEGREES) * len(distinct), -1)
        combine, shared = compress(weighted, _TOLERANCE)
        self._combine = combine.astype(np.float32)
        self._shared = shared.astype(np.float32).reshape(-1, self.n_columns, canvas, canvas)
        self._shared *= self._norm[None, :, None, None].astype(np.float32)
        self._canvas = canvas
        self._crops: dict[tuple[int, int, int, tuple[int, ...]], np.ndarray] = {}

    def evaluate(
        self,
        weights: np.ndarray,
        dx: np.ndarray,
        dy: np.ndarray,
        columns: tuple[int, ...],
        images: np.ndarray,
    ) -> None:
        """Evaluate images of N sources.

        Parameters
        ----------
        weights : `numpy.ndarray`, (N, M)
            Weights of the shared images.
        dx, dy : `numpy.ndarray`, (N,)
            Finite positions with respect to pixel size // 2 of the result [pixel].
        columns : `tuple` [`int`]
            Which of the P images.
        images : `numpy.ndarray`, (N, len(columns), size, size), float32
            Result; the images of one source follow each other in memory.
        """
        size = images.shape[-1]
        reach = (self._canvas - size) // 2
        whole_x, whole_y = (np.clip(np.rint(d), -reach, reach).astype(int) for d in (dx, dy))
        phase = _polynomials(dx - whole_x, dy - whole_y)
        local = weights @ self._spatial
        factors = (
            (phase[:, :, None] * local[:, None, :])
            .reshape(len(dx), phase.shape[1] * local.shape[1])
            .astype(np.float32)
        )
        factors = factors @ self._combine
        flat = images.reshape(len(dx), len(columns) * size**2, copy=False)
        place = whole_y * (2 * reach + 1) + whole_x
        places, first, number = np.unique(place, return_index=True, return_counts=True)
        common = np.argmax(number) if len(number) else 0
        for k in sorted(range(len(places)), key=lambda k: k != common):
            crop = self._crop(int(whole_x[first[k]]), int(whole_y[first[k]]), size, columns)
            # Where most have one place it is faster to write all, and then the others again, than to put all in place.
            if k == common and 2 * number[k] > len(dx):
                np.matmul(factors, crop, out=flat)
                continue
            rows = np.flatnonzero(place == places[k])
            flat[rows] = factors[rows] @ crop

    def _crop(self, whole_x: int, whole_y: int, size: int, columns: tuple[int, ...]) -> np.ndarray:
        key = (whole_x, whole_y, size, columns)
        if key not in self._crops:
            low = self._canvas // 2 - size // 2
            y, x = low - whole_y, low - whole_x
            crop = self._shared[:, list(columns), y : y + size, x : x + size]
            self._crops[key] = np.ascontiguousarray(crop).reshape(len(crop), -1)
        return self._crops[key]


def compress(rows: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Write rows (M, K) as a product (M, r) @ (r, K) of least rank for a tolerance relative to the largest."""
    values, vectors = np.linalg.eigh((rows @ rows.T).astype(float))
    keep = values > (tolerance**2) * values[-1]
    vectors = vectors[:, keep]
    return vectors, vectors.T @ rows


def _polynomials(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Evaluate the Chebyshev products of sub-pixel positions in [-1/2, 1/2], shape (N, terms)."""
    t_x, t_y = (np.polynomial.chebyshev.chebvander(2.0 * np.asarray(d), _DEGREE) for d in (dx, dy))
    return np.stack([t_x[:, a] * t_y[:, b] for a, b in _DEGREES], axis=-1)


def _move(images: np.ndarray, dx: np.ndarray, dy: np.ndarray, canvas: int) -> np.ndarray:
    """Move every image (R, P, size, size) by every (dx, dy); returns (K, R, P, canvas, canvas), float32."""
    size = images.shape[-1]
    window = scipy.fft.next_fast_len(max(size, canvas) + 8, real=True)
    transform = scipy.fft.rfft2(images.astype(np.float32), s=(window, window))
    # Bring the centre to that of the canvas; what lies before the first pixel wraps, and is nothing.
    offset = canvas // 2 - size // 2
    ky, kx = scipy.fft.fftfreq(window), scipy.fft.rfftfreq(window)
    result = np.empty((len(dx), *images.shape[:2], canvas, canvas), dtype=np.float32)
    for k, (x, y) in enumerate(zip(dx, dy, strict=True)):
        ramp_y = np.exp(-2j * np.pi * (y + offset) * ky)[:, None]
        ramp = (ramp_y * np.exp(-2j * np.pi * (x + offset) * kx)[None, :]).astype(np.complex64)
        moved = scipy.fft.irfft2(transform * ramp, s=(window, window))
        result[k] = moved[..., :canvas, :canvas]
    return result
