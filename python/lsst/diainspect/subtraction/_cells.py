"""Spatially varying linear filters, applied in overlapping cells with smooth weights.

Inside a cell the filter is constant, so it is a product in the Fourier plane. A cell is transformed together with
a halo of the real pixels around it, which takes the wrap-around; neighbouring cells are blended over a band in
which their weights, a partition of unity, cross.
"""

from __future__ import annotations

__all__ = ["CellGrid"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft


@dataclass(frozen=True)
class Cell:
    """One cell: where its window lies in the padded image and in the image, its weight and its centre.

    Parameters
    ----------
    window : `tuple` [`slice`, `slice`]
        The window in an image padded by `CellGrid.pad`.
    target : `tuple` [`slice`, `slice`]
        The part of the image that the cell contributes to.
    inner : `tuple` [`slice`, `slice`]
        The same part, within the window.
    weight : `numpy.ndarray`
        Weights there.
    vertices : `tuple` [`tuple` [`float`, `float`], ...]
        Centre of the cell and two points half a cell beside it in x and in y, in array coordinates [pixel]: the
        three points between which filters are interpolated linearly.
    vertex_weights : `tuple` [`numpy.ndarray`, ...]
        Weights of the three points at each pixel of the window; they sum to one.
    """

    window: tuple[slice, slice]
    target: tuple[slice, slice]
    inner: tuple[slice, slice]
    weight: np.ndarray
    vertices: tuple[tuple[float, float], ...]
    vertex_weights: tuple[np.ndarray, ...]


class CellGrid:
    """Tiling of an image by overlapping cells.

    Parameters
    ----------
    shape : `tuple` [`int`, `int`]
        Height and width of the image [pixel].
    cell_size : `int`
        Largest side of a cell [pixel].
    halo : `int`
        Real pixels around the contributing part of each cell [pixel].
    min_window : `int`, optional
        Least side of the transformed windows [pixel], as large as the largest filter.
    """

    def __init__(self, shape: tuple[int, int], cell_size: int, halo: int, min_window: int = 0) -> None:
        self.shape = shape
        self.halo = halo
        self.blend = min(halo, cell_size // 4)
        n_cells = tuple(max(1, -(-length // cell_size)) for length in shape)
        self._edges = [np.linspace(0, length, n + 1) for length, n in zip(shape, n_cells, strict=True)]
        lengths = np.concatenate([np.diff(edges) for edges in self._edges])
        needed = int(np.ceil(lengths.max())) + self.blend + 2 * halo + 1
        self.window_size = scipy.fft.next_fast_len(max(needed, min_window), real=True)
        self._pad = (self.window_size - int(lengths.min())) // 2 + 2

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return (len(self._edges[0]) - 1) * (len(self._edges[1]) - 1)

    def pad(self, image: np.ndarray) -> np.ndarray:
        """Extend an image by reflection, so that every window is full of real pixels."""
        return np.pad(image, self._pad, mode="symmetric")

    def __iter__(self) -> Iterator[Cell]:
        for row in self._axis(0):
            for column in self._axis(1):
                # The second point lies towards the middle of the image, where filters are best known.
                step_x, step_y = self._step(column[4], 1), self._step(row[4], 0)
                pixels = np.arange(self.window_size)
                u = (pixels + (column[1].start - column[2].start) - column[4]) / step_x
                v = (pixels + (row[1].start - row[2].start) - row[4]) / step_y
                # A blend needs no extrapolation beyond the cell and its overlap.
                u, v = np.clip(u, -1.5, 1.5)[None, :], np.clip(v, -1.5, 1.5)[:, None]
                yield Cell(
                    window=(row[0], column[0]),
                    target=(row[1], column[1]),
                    inner=(row[2], column[2]),
                    weight=(row[3][:, None] * column[3][None, :]).astype(np.float32),
                    vertices=(
                        (column[4], row[4]),
                        (column[4] + step_x, row[4]),
                        (column[4], row[4] + step_y),
                    ),
                    vertex_weights=tuple(w.astype(np.float32) for w in (1.0 - u - v, u, v)),
                )

    def _step(self, centre: float, axis: int) -> float:
        half_cell = 0.5 * float(np.diff(self._edges[axis])[0])
        return half_cell if centre < 0.5 * (self.shape[axis] - 1) else -half_cell

    def _axis(self, axis: int) -> Iterator[tuple[slice, slice, slice, np.ndarray, float]]:
        edges, length = self._edges[axis], self.shape[axis]
        half_blend = 0.5 * self.blend
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            start = max(0, int(np.floor(low - half_blend)))
            stop = min(length, int(np.ceil(high + half_blend)))
            pixels = np.arange(start, stop)
            rise = _ramp(pixels - low, self.blend) if low > 0 else np.ones(len(pixels))
            fall = 1.0 - _ramp(pixels - high, self.blend) if high < length else np.ones(len(pixels))
            centre = 0.5 * (low + high) - 0.5
            first = round(centre) - self.window_size // 2
            window = slice(first + self._pad, first + self._pad + self.window_size)
            yield window, slice(start, stop), slice(start - first, stop - first), rise * fall, centre


def _ramp(distance: np.ndarray, width: int) -> np.ndarray:
    """Rise smoothly from 0 to 1 over a band of the given width centred at half a pixel before zero distance."""
    phase = np.clip((distance + 0.5) / width + 0.5, 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * phase)
