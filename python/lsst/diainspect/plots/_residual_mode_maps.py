"""Registration, width and shape errors of the matches over the focal plane of a visit."""

from __future__ import annotations

__all__ = ["plot_residual_modes"]

from collections.abc import Mapping, Sequence

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from ..maps import DetectorMaps
from ._labels import VisitLabel
from ._metric_maps import cell_positions, draw_cells, finish_sky, say_inside, sky_centre
from ._stretch import add_colorbar
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_SCALARS = {
    "width": ("width error of the match [%]", 100.0),
    "fluxScale": ("flux left of static stars [%]", 100.0),
}
"""Quantities of the maps that are drawn in colour, what they are called, and the factor to their unit."""

_LEAST = {"width": 0.05, "fluxScale": 0.05}
"""Least range of the colour map, in its unit."""

_ARROW = 0.6
"""Length of a typical arrow, in cells."""


@styled
def plot_residual_modes(
    maps: Mapping[str, Sequence[tuple[DetectorMaps, Table]]], label: VisitLabel
) -> Figure:
    """Draw what the matches left, over all detectors of a visit, a row a method.

    The columns are the residual shift as arrows, the width error and the flux left of static stars as colours, and the
    shear error as lines along the direction in which images are too long.

    Parameters
    ----------
    maps : mapping [`str`, sequence [`tuple` [`lsst.diainspect.maps.DetectorMaps`, `astropy.table.Table`]]]
        For each method the maps of every detector, and its statistics, which say where their cells are on the sky.
    label : `VisitLabel`
        Title.
    """
    n_rows = max(1, len(maps))
    figure = new_figure(
        f"{label}: residual modes over the focal plane", height=3.1 * n_rows + 1.2, width=14.6
    )
    figure.set_layout_engine("compressed")
    grid = figure.subplots(n_rows, 2 + len(_SCALARS), squeeze=False, sharex=True, sharey=True)
    centre = sky_centre([table for own in maps.values() for _, table in own])
    if centre is None:
        for axes in grid.flat:
            say_in_place(axes, "no maps" if maps else "no method")
        return figure
    colours = method_colours(maps)
    places = {
        method: [(one, table, cell_positions(table, centre)) for one, table in own]
        for method, own in maps.items()
    }
    for axes in grid.flat:
        axes.set_facecolor("0.96")
    _draw_vectors(grid[:, 0], places, _SHIFT, "residual shift", "pixel", arrows=True)
    _draw_vectors(grid[:, -1], places, _SHEAR, "shear error", "", arrows=False)
    for column, (quantity, (title, factor)) in enumerate(_SCALARS.items(), start=1):
        drawn = {
            method: [
                (place, factor * _evaluate(one, quantity, table, place))
                for one, table, place in own
                if quantity in one and place is not None
            ]
            for method, own in places.items()
        }
        values = np.concatenate(
            [value.ravel() for own in drawn.values() for _, value in own] or [np.zeros(0)]
        )
        finite = np.abs(values[np.isfinite(values)])
        limit = max(_LEAST[quantity], float(np.percentile(finite, 98.0)) if len(finite) else 0.0)
        shown = None
        for axes, (method, own) in zip(grid[:, column], drawn.items(), strict=True):
            error = factor * _typical_error(places[method], quantity)
            axes.set_title(
                f"{method_name(method)}: {title}" + (f", $\\pm$ {error:.1g}" if np.isfinite(error) else ""),
                color=colours[method],
                weight="bold",
                loc="left",
                fontsize=9,
            )
            if not own:
                say_inside(axes, "not measured")
            for place, value in own:
                shown = draw_cells(axes, *place, value, cmap="RdBu_r", vmin=-limit, vmax=limit)
        if shown is not None:
            add_colorbar(figure, shown, list(grid[:, column]), "")
    finish_sky(grid)
    return figure


_SHIFT = ("residualShiftX", "residualShiftY")
_SHEAR = ("e1", "e2")

_Place = tuple[np.ndarray, np.ndarray] | None


def _evaluate(
    maps: DetectorMaps, quantity: str, table: Table, place: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return a map at the cells of the statistics."""
    cells = table[np.asarray(table["cellX"]) >= 0]
    image = np.full(place[0].shape, np.nan)
    image[np.asarray(cells["cellY"]), np.asarray(cells["cellX"])] = maps[quantity].evaluate(
        np.asarray(cells["x"], dtype=float), np.asarray(cells["y"], dtype=float)
    )
    return image


def _typical_error(own: Sequence[tuple[DetectorMaps, Table, _Place]], quantity: str) -> float:
    """Return the median error of a map at the cells of all detectors."""
    errors = [
        maps[quantity].error(np.asarray(cells["x"], dtype=float), np.asarray(cells["y"], dtype=float))
        for maps, table, _ in own
        if quantity in maps
        for cells in [table[np.asarray(table["cellX"]) >= 0]]
    ]
    values = np.concatenate(errors or [np.zeros(0)])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _vectors(
    own: Sequence[tuple[DetectorMaps, Table, _Place]], names: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, the two components, and the size of a cell, of every second cell of all detectors."""
    parts: list[tuple[np.ndarray, ...]] = []
    for maps, table, place in own:
        if place is None or not all(name in maps for name in names):
            continue
        first, second = (_evaluate(maps, name, table, place) for name in names)
        x, y = place
        # Directions of the pixels' axes on the sky, of unit length: what is drawn is turned with the detector.
        step = np.hypot(x[0, 1] - x[0, 0], y[0, 1] - y[0, 0])
        along = np.array([x[0, 1] - x[0, 0], y[0, 1] - y[0, 0]]) / step
        up = np.array([x[1, 0] - x[0, 0], y[1, 0] - y[0, 0]])
        up = up / np.hypot(*up)
        cut = (slice(0, None, 2), slice(0, None, 2))
        size = np.full(x[cut].size, step)
        axes = [np.full(x[cut].size, value) for value in (*along, *up)]
        parts.append((x[cut].ravel(), y[cut].ravel(), first[cut].ravel(), second[cut].ravel(), size, *axes))
    if not parts:
        return (np.zeros(0),) * 5
    x, y, first, second, size, ax, ay, ux, uy = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    if names == _SHIFT:
        return x, y, first * ax + second * ux, first * ay + second * uy, size
    # Half the angle: a shear is the same after half a turn.
    angle = 0.5 * np.arctan2(second, first)
    length = np.hypot(first, second)
    return (
        x,
        y,
        length * (np.cos(angle) * ax + np.sin(angle) * ux),
        length * (np.cos(angle) * ay + np.sin(angle) * uy),
        size,
    )


def _draw_vectors(
    column: np.ndarray,
    places: Mapping[str, Sequence[tuple[DetectorMaps, Table, _Place]]],
    names: tuple[str, str],
    title: str,
    unit: str,
    *,
    arrows: bool,
) -> None:
    """Draw arrows, or lines that have no head, of all methods in one scale."""
    colours = method_colours(places)
    vectors = {method: _vectors(own, names) for method, own in places.items()}
    lengths = np.concatenate([np.hypot(u, v) for _, _, u, v, _ in vectors.values()] or [np.zeros(0)])
    sizes = np.concatenate([size for *_, size in vectors.values()] or [np.zeros(0)])
    typical = float(np.percentile(lengths, 75.0)) if len(lengths) else 1.0
    if not typical > 0:
        typical = 1.0
    for axes, (method, (x, y, u, v, _)) in zip(column, vectors.items(), strict=True):
        axes.set_title(
            f"{method_name(method)}: {title}", color=colours[method], weight="bold", loc="left", fontsize=9.5
        )
        for _, _, place in places[method]:
            if place is not None:
                draw_cells(axes, *place, np.full(place[0].shape, np.nan))
        if len(x) == 0:
            say_inside(axes, "not measured")
            continue
        heads = {} if arrows else {"headwidth": 0, "headlength": 0, "headaxislength": 0}
        quiver = axes.quiver(
            x,
            y,
            u,
            v,
            color=colours[method],
            angles="xy",
            scale_units="xy",
            scale=typical / (_ARROW * 2.0 * float(np.median(sizes))),
            width=0.004,
            pivot="middle",
            **heads,
        )
        key = float(f"{typical:.1g}")
        axes.quiverkey(
            quiver,
            0.74,
            1.03,
            key,
            f"{key:g} {unit}".strip(),
            labelpos="E",
            coordinates="axes",
            color=NEUTRAL_COLOUR,
            fontproperties={"size": 8.5},
        )
