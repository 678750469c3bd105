"""Tiling of an image by overlapping cells with smooth weights, in which spatially varying filters are applied.

A cell is transformed together with a halo of the real pixels around it, which takes the wrap-around; neighbouring
cells are blended over a band in which their weights, a partition of unity, cross.
"""

from __future__ import annotations

__all__ = ["Cell", "CellGrid"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

from ..psf import PixelBasis

_BLEND = 10
"""Width of the band in which neighbouring cells are blended [pixel]: their filters agree there but for curvature."""

_LARGEST_CURVATURE = 3e-4
"""Largest departure from linearity within a cell of anything that varies over the image, relative to its peak: what
is left of a star by an interpolated filter is of that order."""

_SMALLEST_CELL = 64
"""Cells are not made smaller than this for the sake of linearity [pixel]: their halos cost more than they win."""

_PROBES = 5
"""Positions a side at which the curvature is looked at."""


@dataclass(frozen=True)
class Cell:
    """One cell: what it reads, what it contributes to, with which weight, and where filters are evaluated.

    Parameters
    ----------
    rows, columns : `slice`
        Pixels of the image that make the window, which may reach beyond its border.
    target : `tuple` [`slice`, `slice`]
        The part of the image that the cell contributes to.
    inner : `tuple` [`slice`, `slice`]
        The same part, within the window.
    row_weight, column_weight : `numpy.ndarray`, (n_rows,) and (n_columns,)
        Factors of the weights there.
    centre : `tuple` [`float`, `float`]
        Centre (x, y) of the cell in array coordinates [pixel].
    along_x, along_y : `tuple` [`tuple` [`float`, `float`], `tuple` [`float`, `float`]]
        Two points (x, y) before and behind the centre in x, and in y, between which the slope of filters is taken:
        the centres of the neighbouring cells, or its own where there is none.
    u, v : `numpy.ndarray`, (n_columns,) and (n_rows,)
        Distance from the centre in units of the distance of these points, of the columns and rows of ``inner``.
    """

    rows: slice
    columns: slice
    target: tuple[slice, slice]
    inner: tuple[slice, slice]
    row_weight: np.ndarray
    column_weight: np.ndarray
    centre: tuple[float, float]
    along_x: tuple[tuple[float, float], tuple[float, float]]
    along_y: tuple[tuple[float, float], tuple[float, float]]
    u: np.ndarray
    v: np.ndarray

    @property
    def corner(self) -> tuple[int, int]:
        """First row and column of the image that the cell contributes to."""
        return self.target[0].start, self.target[1].start

    def window_of(self, image: np.ndarray) -> np.ndarray:
        """Return the pixels of the window, continued by reflection beyond the border, edge pixels doubled."""
        inside, beyond = [], []
        for part, length in zip((self.rows, self.columns), image.shape, strict=True):
            inside.append(slice(max(part.start, 0), min(part.stop, length)))
            beyond.append((max(-part.start, 0), max(part.stop - length, 0)))
        pixels = image[inside[0], inside[1]]
        return np.pad(pixels, beyond, mode="symmetric") if any(map(any, beyond)) else pixels


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
        self.cell_size = cell_size
        self.halo = halo
        self.blend = min(_BLEND, cell_size // 4)
        n_cells = tuple(max(1, -(-length // cell_size)) for length in shape)
        self._edges = [np.linspace(0, length, n + 1) for length, n in zip(shape, n_cells, strict=True)]
        lengths = np.concatenate([np.diff(edges) for edges in self._edges])
        needed = int(np.ceil(lengths.max())) + self.blend + 2 * halo + 1
        self.window_size = scipy.fft.next_fast_len(max(needed, min_window), real=True)

    @classmethod
    def for_fields(
        cls,
        shape: tuple[int, int],
        fields: Sequence[PixelBasis],
        cell_size: int,
        halo: int,
        min_window: int = 0,
    ) -> CellGrid:
        """Make cells small enough that PSFs and kernels vary linearly in them.

        Parameters
        ----------
        shape : `tuple` [`int`, `int`]
            Height and width of the image [pixel].
        fields : sequence [`PixelBasis`]
            What varies over the image.
        cell_size, halo, min_window : `int`
            As for the class; the cell size is halved until the fields are linear.
        """
        while cell_size > 2 * _SMALLEST_CELL and any(
            _curvature(field, 0.5 * cell_size) > _LARGEST_CURVATURE for field in fields
        ):
            cell_size //= 2
        return cls(shape, cell_size, halo, min_window)

    @property
    def n_columns(self) -> int:
        """Number of cells in a row."""
        return len(self._edges[1]) - 1

    def __iter__(self) -> Iterator[Cell]:
        for row in self._axis(0):
            for column in self._axis(1):
                yield Cell(
                    rows=row.window,
                    columns=column.window,
                    target=(row.target, column.target),
                    inner=(row.inner, column.inner),
                    row_weight=row.weight,
                    column_weight=column.weight,
                    centre=(column.centre, row.centre),
                    along_x=((column.before, row.centre), (column.behind, row.centre)),
                    along_y=((column.centre, row.before), (column.centre, row.behind)),
                    u=column.offset,
                    v=row.offset,
                )

    def _axis(self, axis: int) -> Iterator[_Interval]:
        edges, length = self._edges[axis], self.shape[axis]
        half_blend = 0.5 * self.blend
        centres = (0.5 * (edges[:-1] + edges[1:]) - 0.5).tolist()
        for index, (low, high, centre) in enumerate(zip(edges[:-1], edges[1:], centres, strict=True)):
            start = max(0, int(np.floor(low - half_blend)))
            stop = min(length, int(np.ceil(high + half_blend)))
            pixels = np.arange(start, stop)
            rise = _ramp(pixels - low, self.blend) if low > 0 else np.ones(len(pixels))
            fall = 1.0 - _ramp(pixels - high, self.blend) if high < length else np.ones(len(pixels))
            if len(centres) > 1:
                before, behind = centres[max(index - 1, 0)], centres[min(index + 1, len(centres) - 1)]
            else:
                before, behind = centre - 0.25 * length, centre + 0.25 * length
            first = round(centre) - self.window_size // 2
            last = first + self.window_size
            yield _Interval(
                window=slice(first, last),
                target=slice(start, stop),
                inner=slice(start - first, stop - first),
                weight=(rise * fall).astype(np.float32),
                centre=centre,
                before=before,
                behind=behind,
                offset=((pixels - centre) / (behind - before)).astype(np.float32),
            )


@dataclass(frozen=True)
class _Interval:
    """What a cell is along one axis; the attributes are those of `Cell`."""

    window: slice
    target: slice
    inner: slice
    weight: np.ndarray
    centre: float
    before: float
    behind: float
    offset: np.ndarray


def _ramp(distance: np.ndarray, width: int) -> np.ndarray:
    """Rise smoothly from 0 to 1 over a band of the given width centred at half a pixel before zero distance."""
    phase = np.clip((distance + 0.5) / width + 0.5, 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * phase)


def _curvature(field: PixelBasis, step: float) -> float:
    """Return how far the images of a field are from varying linearly over a step [pixel], relative to the peak."""
    x, y = field.field.sample_grid(_PROBES)
    centre = field.evaluate(x, y)
    worst = 0.0
    for dx, dy in ((step, 0.0), (0.0, step), (step, step)):
        second = field.evaluate(x + dx, y + dy) + field.evaluate(x - dx, y - dy) - 2.0 * centre
        worst = max(worst, 0.5 * float(np.abs(second).max()))
    return worst / float(np.abs(centre).max())
