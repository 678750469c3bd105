"""Maps of a difference's statistics, over one detector and over all detectors of a visit."""

from __future__ import annotations

__all__ = ["MAP_STATISTICS", "plot_focal_plane", "plot_metric_maps"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from ..comparison import cell_maps_from_table
from ..truth import tangent_plane
from ._detector_label import DetectorLabel
from ._labels import VisitLabel
from ._stretch import add_colorbar
from ._style import MASK_COLOUR, NEUTRAL_COLOUR, method_colours, method_name, new_figure, styled

MAP_STATISTICS: dict[str, tuple[str, float]] = {
    "skySigmaOverPredicted": (r"sky $\sigma$ / predicted", 1.0),
    "skyBackground": ("sky background [nJy]", 0.0),
    "scoreMedian": ("median score", 0.0),
    "scoreSigma": (r"score $\sigma$", 1.0),
    "neighbourCorrelationX": ("correlation in x", 0.0),
    "neighbourCorrelationY": ("correlation in y", 0.0),
    "scoreTail3": (r"score beyond 3 $\sigma$ / Gaussian", 1.0),
    "starRmsFit": ("star rms, in the match", 1.0),
    "starRmsHeldOut": ("star rms, held out", 1.0),
}
"""Statistics that are shown, what they are called in a figure, and their value when all is well."""

_FOCAL_PLANE = ("skySigmaOverPredicted", "skyBackground", "scoreSigma", "starRmsFit")

_PANEL = 2.25


@styled
def plot_metric_maps(statistics: Mapping[str, Table | None], label: DetectorLabel) -> Figure:
    """Draw maps of statistics over a detector, a row a method and a column a statistic.

    Parameters
    ----------
    statistics : mapping [`str`, `astropy.table.Table` or `None`]
        Statistics of each method, as `lsst.diainspect.comparison.image_statistics_table` makes them.
    label : `DetectorLabel`
        Title.
    """
    names = list(MAP_STATISTICS)
    n_rows = max(1, len(statistics))
    # Two blocks of columns, as one line would be too wide for a page.
    blocks = [names[: (len(names) + 1) // 2], names[(len(names) + 1) // 2 :]]
    figure = new_figure(
        f"{label}: maps of statistics",
        height=2 * n_rows * (_PANEL + 0.1) + 1.8,
        width=len(blocks[0]) * 2.9 + 0.6,
    )
    figure.set_layout_engine("compressed")
    grid = figure.subplots(2 * n_rows, len(blocks[0]), squeeze=False, sharex=True, sharey=True)
    maps = {
        method: {} if table is None else cell_maps_from_table(table) for method, table in statistics.items()
    }
    extents = [_extent(table) for table in statistics.values() if table is not None]
    extent = next((one for one in extents if one is not None), (0.0, 1.0, 0.0, 1.0))
    colours = method_colours(statistics)
    for block, columns in enumerate(blocks):
        for i in range(len(blocks[0])):
            panels = grid[block * n_rows : (block + 1) * n_rows, i]
            if i >= len(columns):
                for axes in panels:
                    axes.set_axis_off()
                continue
            name = columns[i]
            title, expected = MAP_STATISTICS[name]
            values = [own[name].value for own in maps.values() if name in own]
            norm = _limits(values, expected)
            shown = None
            for axes, method in zip(panels, statistics, strict=False):
                axes.set_facecolor(MASK_COLOUR)
                axes.set_box_aspect((extent[3] - extent[2]) / (extent[1] - extent[0]))
                one = maps[method].get(name)
                if one is None or not np.isfinite(one.value).any():
                    axes.set_title(method_name(method), color=colours[method], fontsize=8.5)
                    say_inside(axes, "no difference" if statistics[method] is None else "not measured")
                    continue
                shown = axes.imshow(one.value, cmap="RdBu_r", extent=extent, **norm)
                error = np.nanmedian(one.error) if np.isfinite(one.error).any() else np.nan
                axes.set_title(
                    f"{method_name(method)}: $\\pm$ {error:.2g} a cell", color=colours[method], fontsize=8.5
                )
            if shown is not None:
                add_colorbar(figure, shown, list(panels), title)
    if not statistics:
        say_inside(grid[0, 0], "no method")
    for axes in grid[-1]:
        axes.set_xlabel("x [pixel]")
    for axes in grid[:, 0]:
        axes.set_ylabel("y [pixel]")
    return figure


@styled
def plot_focal_plane(
    statistics: Mapping[str, Sequence[Table]], label: VisitLabel, names: Sequence[str] = _FOCAL_PLANE
) -> Figure:
    """Draw maps of statistics over all detectors of a visit, on the sky.

    Parameters
    ----------
    statistics : mapping [`str`, sequence [`astropy.table.Table`]]
        For each method the statistics of every detector.
    label : `VisitLabel`
        Title.
    names : sequence [`str`], optional
        Statistics, of `MAP_STATISTICS`.
    """
    n_rows, n_columns = max(1, len(statistics)), len(names)
    figure = new_figure(
        f"{label}: statistics over the focal plane", height=3.1 * n_rows + 1.2, width=3.5 * n_columns + 0.6
    )
    figure.set_layout_engine("compressed")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    tables = [table for own in statistics.values() for table in own]
    centre = sky_centre(tables)
    colours = method_colours(statistics)
    if not tables or centre is None:
        for axes in grid.flat:
            say_inside(axes, "no statistics with positions on the sky")
        return figure
    for i, name in enumerate(names):
        title, expected = MAP_STATISTICS[name]
        found = {method: _sky_maps(own, name, centre) for method, own in statistics.items()}
        values = [value for own in found.values() for _, _, value in own]
        norm = _limits(values, expected)
        shown = None
        for axes, method in zip(grid[:, i], statistics, strict=True):
            # The name stands above the panel: beside its colour bar it might be that of the next one.
            axes.set_title(
                f"{method_name(method)}: {title}",
                color=colours[method],
                weight="bold",
                loc="left",
                fontsize=9,
            )
            axes.set_facecolor("0.93")
            if not any(np.isfinite(value).any() for _, _, value in found[method]):
                say_inside(axes, "not measured")
                continue
            for x, y, value in found[method]:
                shown = draw_cells(axes, x, y, value, cmap="RdBu_r", **norm)
        if shown is not None:
            add_colorbar(figure, shown, list(grid[:, i]), "")
    finish_sky(grid)
    return figure


def sky_centre(tables: Sequence[Table]) -> tuple[float, float] | None:
    """Return the middle of all cells (ra, dec) [degree], or None where there are no sky positions."""
    ra = np.concatenate([np.asarray(table["ra"], dtype=float) for table in tables] or [np.zeros(0)])
    dec = np.concatenate([np.asarray(table["dec"], dtype=float) for table in tables] or [np.zeros(0)])
    good = np.isfinite(ra) & np.isfinite(dec)
    if not good.any():
        return None
    unit = np.array([np.cos(np.radians(ra[good])).mean(), np.sin(np.radians(ra[good])).mean()])
    return float(np.degrees(np.arctan2(unit[1], unit[0])) % 360.0), float(dec[good].mean())


def cell_positions(table: Table, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return offsets of the cells of a detector from a place on the sky, towards east and north [arcmin]."""
    cells = table[np.asarray(table["cellX"]) >= 0]
    if len(cells) == 0:
        return None
    shape = int(np.max(cells["cellY"])) + 1, int(np.max(cells["cellX"])) + 1
    index = np.asarray(cells["cellY"]), np.asarray(cells["cellX"])
    plane = tangent_plane(np.asarray(cells["ra"]), np.asarray(cells["dec"]), *centre)
    x, y = np.full(shape, np.nan), np.full(shape, np.nan)
    x[index], y[index] = plane[:, 0] / 60.0, plane[:, 1] / 60.0
    return x, y


def draw_cells(axes: Axes, x: np.ndarray, y: np.ndarray, value: np.ndarray, **style: Any) -> QuadMesh:
    """Draw the cells of one detector, and its outline."""
    corner_x, corner_y = _corners(x), _corners(y)
    mesh = axes.pcolormesh(corner_x, corner_y, np.ma.masked_invalid(value), rasterized=True, **style)
    outline = [(0, 0), (0, -1), (-1, -1), (-1, 0), (0, 0)]
    axes.plot(
        [corner_x[one] for one in outline], [corner_y[one] for one in outline], color="0.4", linewidth=0.6
    )
    return mesh


def finish_sky(grid: np.ndarray) -> None:
    """Label axes on the sky, east to the left."""
    for axes in grid.flat:
        axes.set_aspect("equal", adjustable="box")
    axes = grid.flat[0]
    if not axes.xaxis_inverted():
        axes.invert_xaxis()
    for axes in grid[-1]:
        axes.set_xlabel("east [arcmin]")
    for axes in grid[:, 0]:
        axes.set_ylabel("north [arcmin]")


def _sky_maps(
    tables: Sequence[Table], name: str, centre: tuple[float, float]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    found = []
    for table in tables:
        maps, places = cell_maps_from_table(table), cell_positions(table, centre)
        if name in maps and places is not None:
            found.append((*places, maps[name].value))
    return found


def _corners(middle: np.ndarray) -> np.ndarray:
    """Return corners of cells from their middles, which are extrapolated by half a cell."""
    padded = np.pad(middle, 1, mode="reflect", reflect_type="odd")
    corners: np.ndarray = 0.25 * (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1])
    return corners


def say_inside(axes: Axes, text: str) -> None:
    """Write why there is nothing, and leave the ticks, which others share."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=NEUTRAL_COLOUR)


def _limits(values: Sequence[np.ndarray], expected: float) -> dict[str, float]:
    """Return limits on both sides of what is expected, wide enough for almost all values."""
    finite = np.concatenate([value[np.isfinite(value)] for value in values] or [np.zeros(0)])
    reach = float(np.percentile(np.abs(finite - expected), 97.0)) if len(finite) else 0.0
    reach = max(reach, 1e-3)
    return {"vmin": expected - reach, "vmax": expected + reach}


def _extent(table: Table) -> tuple[float, float, float, float] | None:
    """Return the outer edges of the cells in x and y [pixel]."""
    cells = table[np.asarray(table["cellX"]) >= 0]
    if len(cells) == 0:
        return None
    limits: list[float] = []
    for axis in ("x", "y"):
        n = int(np.max(cells[f"cell{axis.upper()}"])) + 1
        low, high = float(np.min(cells[axis])), float(np.max(cells[axis]))
        half = 0.5 * (high - low) / (n - 1) if n > 1 else low
        limits += [low - half, high + half]
    return limits[0], limits[1], limits[2], limits[3]
