"""What the differences leave of static stars: star by star, and stacked."""

from __future__ import annotations

__all__ = ["plot_star_residuals", "plot_star_stacks"]

from collections.abc import Mapping, Sequence

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._detector_label import DetectorLabel
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_ROLES = {"fit": ("o", "in the match"), "heldOut": ("s", "held out"), "rejected": ("x", "rejected")}

_LARGEST_RMS = 10.0
"""Stars beyond this are drawn at the upper edge: a variable star must not hide the others."""

_LEAST_LIMIT = 1e-5
"""Least range of stacks [fraction of the flux a pixel]: noise of very many stars is not shown as if it were large."""


@styled
def plot_star_residuals(stars: Mapping[str, Table | None], label: DetectorLabel) -> Figure:
    """Draw the rms of difference / predicted sigma at each star against its magnitude, and its bins' medians.

    Parameters
    ----------
    stars : mapping [`str`, `astropy.table.Table` or `None`]
        Residuals of each method's stars, as `lsst.diainspect.comparison.measure_star_residuals` makes them; None for
        a method that made no difference.
    label : `DetectorLabel`
        Title.
    """
    figure = new_figure(f"{label}: residuals of static stars", height=6.4)
    grid = figure.subplots(2, max(1, len(stars)), sharex=True, sharey="row", squeeze=False)
    if not stars:
        for axes in grid.flat:
            say_in_place(axes, "no method")
        return figure
    colours = method_colours(stars)
    for column, (method, table) in zip(grid.T, stars.items(), strict=True):
        column[0].set_title(method_name(method), color=colours[method], weight="bold", loc="left")
        if table is None or len(table) == 0:
            for axes in column:
                say_in_place(axes, "no difference" if table is None else "no static stars")
            continue
        magnitude = np.asarray(table["magnitude"], dtype=float)
        role = np.asarray(table["role"]).astype(str)
        for name, (marker, text) in _ROLES.items():
            here = role == name
            if not here.any():
                continue
            colour = colours[method] if name == "fit" else "0.25" if name == "heldOut" else "0.7"
            style = {"s": 14, "marker": marker, "alpha": 0.6, "linewidths": 0.8 if marker == "x" else 0}
            rms = np.minimum(np.asarray(table["rms"], dtype=float)[here], _LARGEST_RMS)
            column[0].scatter(magnitude[here], rms, color=colour, label=f"{text}: {here.sum()}", **style)
            percent = 100.0 * np.asarray(table["residual"], dtype=float)[here]
            column[1].scatter(magnitude[here], percent, color=colour, **style)
            if name != "rejected":
                _draw_medians(column[0], magnitude[here], rms, colour, marker)
                _draw_medians(column[1], magnitude[here], percent, colour, marker)
        column[0].axhline(1.0, color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
        column[1].axhline(0.0, color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
        column[0].legend(loc="upper right")
        column[1].set_xlabel("magnitude in the science image [mag]")
    grid[0, 0].set_ylabel(r"rms of difference / predicted $\sigma$")
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_yticks([0.5, 1.0, 2.0, 5.0, 10.0], ["0.5", "1", "2", "5", r"$\geq$ 10"])
    grid[0, 0].set_yticks([], minor=True)
    grid[0, 0].set_ylim(0.6, 1.1 * _LARGEST_RMS)
    grid[1, 0].set_ylabel("flux left [% of the star]")
    grid[1, 0].set_yscale("symlog", linthresh=1.0)
    grid[1, 0].set_ylim(-100.0, 100.0)
    ticks = (-100, -10, -1, 0, 1, 10, 100)
    grid[1, 0].set_yticks(ticks, [f"{tick}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    return figure


def _draw_medians(axes: Axes, magnitude: np.ndarray, values: np.ndarray, colour: str, marker: str) -> None:
    """Draw medians in bins of a magnitude with their errors; bins with fewer than 3 stars are left out."""
    bins = np.floor(magnitude)
    for low in np.unique(bins):
        here = values[(bins == low) & np.isfinite(values)]
        if len(here) < 3:
            continue
        error = 1.2533 * 1.4826 * np.median(np.abs(here - np.median(here))) / np.sqrt(len(here))
        axes.errorbar(
            low + 0.5 + (0.08 if marker == "s" else 0.0),
            np.median(here),
            error,
            color=colour,
            marker=marker,
            markersize=8,
            markeredgecolor="white",
            elinewidth=1.6,
            zorder=3,
        )


@styled
def plot_star_stacks(stacks: Mapping[str, Table | None], label: DetectorLabel) -> Figure:
    """Draw the mean residual of stars by magnitude, and the PSF of bright point sources against the model.

    Parameters
    ----------
    stacks : mapping [`str`, `astropy.table.Table` or `None`]
        Small images of each method, as `lsst.diainspect.comparison.image_stacks_table` makes them.
    label : `DetectorLabel`
        Title.
    """
    tables = {
        (method, group): _stars(table, group)
        for method, table in stacks.items()
        for group in ("fit", "heldOut")
        if table is not None
    }
    rows = [key for key, table in tables.items() if len(table)]
    bins = sorted(
        {(float(row["low"]), float(row["high"])) for method, group in rows for row in tables[method, group]}
    )
    n_rows, n_columns = max(1, len(rows)), max(1, len(bins))
    width = max(8.0, 1.35 * n_columns + 4.4)
    figure = new_figure(
        f"{label}: stacked residuals of static stars", height=1.75 * n_rows + 1.6, width=width
    )
    parts = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.35 * n_columns + 1.2, 3.6))
    left, right = parts[0]
    grid = left.subplots(n_rows, n_columns, squeeze=False)
    colours = method_colours(stacks)
    if not rows:
        say_in_place(grid[0, 0], "no stars to stack")
    for i, (low, high) in enumerate(bins):
        found = [tables[key][np.asarray(tables[key]["low"]) == low] for key in rows]
        # Noise grows tenfold with two magnitudes: each column has its own stretch.
        limit = _limit([image for table in found for image in table["image"]])
        for number, axes in enumerate(grid[:, i]):
            axes.set_box_aspect(1)
            axes.set_xticks([])
            axes.set_yticks([])
            if number == 0:
                axes.set_title(f"{low:g} to {high:g} mag\n$\\pm$ {limit:.2g} %", fontsize=8.5)
            if len(found[number]) == 0:
                say_in_place(axes, "none")
                continue
            image = 100.0 * np.asarray(found[number]["image"][0], dtype=float)
            axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xlabel(f"n = {found[number]['n'][0]}", fontsize=8, labelpad=1)
    for line, (method, group) in zip(grid, rows, strict=False):
        line[0].set_ylabel(f"{method_name(method)}\n{_ROLES[group][1]}", color=colours[method], fontsize=8.5)
    if rows:
        left.supxlabel(
            "red to blue: the range given above each column, in % of the flux a pixel", fontsize=8.5
        )
    axes = right.subplots()
    _draw_profiles(axes, stacks)
    return figure


def _stars(table: Table, group: str) -> Table:
    kind, own = (np.asarray(table[name]).astype(str) for name in ("kind", "group"))
    return table[(kind == "starResidual") & (own == group)]


def _limit(images: Sequence[np.ndarray]) -> float:
    """Return the range of the colours [%]."""
    values = [np.nanpercentile(np.abs(image), 99.5) for image in images if np.isfinite(image).any()]
    return 100.0 * max([_LEAST_LIMIT, *(float(value) for value in values)])


def _draw_profiles(axes: Axes, stacks: Mapping[str, Table | None]) -> None:
    axes.set_title("point sources in the difference", loc="left", fontsize=9.5)
    axes.set_xlabel("radius [pixel]")
    axes.set_ylabel("part of the flux / pixel$^2$")
    colours = method_colours(stacks)
    drawn = False
    for method, table in stacks.items():
        kind = np.zeros(0, dtype="U1") if table is None else np.asarray(table["kind"]).astype(str)
        if table is None or not (kind == "differencePsf").any():
            reason = "no difference" if table is None else "no bright point sources"
            axes.plot([], [], color=colours[method], label=f"{method_name(method)}: {reason}")
            continue
        row, model = (table[kind == name][0] for name in ("differencePsf", "modelPsf"))
        size = np.asarray(row["image"]).shape[-1]
        radius = np.hypot(*(np.mgrid[:size, :size] - size // 2)).ravel()
        edges = np.arange(-0.5, size // 2)
        ring = np.digitize(radius, edges) - 1
        inside = ring < len(edges) - 1
        n = np.bincount(ring[inside], minlength=len(edges) - 1)
        profiles = [
            np.bincount(ring[inside], np.asarray(image, dtype=float).ravel()[inside], len(n)) / n
            for image in (row["image"], model["image"], np.asarray(row["error"], dtype=float) ** 2)
        ]
        middle = 0.5 * (edges[1:] + edges[:-1])
        error = np.sqrt(profiles[2] / n)
        name = method_name(method)
        axes.errorbar(
            middle, profiles[0], error, color=colours[method], marker="o", markersize=3.5, linestyle="none",
            label=f"{name}: {row['n']} sources",
        )  # fmt: skip
        axes.plot(middle, profiles[1], color=colours[method], linewidth=1.0, label=f"{name}: its PSF")
        drawn = True
    if not drawn:
        axes.set_xlabel("")
        axes.set_ylabel("")
        say_in_place(axes, "no bright point sources")
        axes.legend(loc="upper right")
        return
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.axhline(0.0, color=NEUTRAL_COLOUR, linewidth=0.6)
    axes.legend(loc="upper right")
