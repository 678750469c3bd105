"""Offsets between the images, at the sources that they were matched on."""

from __future__ import annotations

__all__ = ["plot_registration"]

from collections.abc import Mapping

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from ._detector_label import DetectorLabel
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_ARROW_FRACTION = 0.07
"""Length of a typical arrow, in fractions of the larger side."""

_LONGEST = 3.0
"""Longest arrow in units of a typical one: a single false match must not cover the detector."""

_SIGNIFICANT = 3.0
"""Offsets below this many of their errors are drawn faintly."""

_FAINT = 0.35


@styled
def plot_registration(kernel_sources: Mapping[str, Table | None], label: DetectorLabel) -> Figure:
    """Draw science minus template position of each kernel source as an arrow.

    Parameters
    ----------
    kernel_sources : mapping [`str`, `astropy.table.Table` or `None`]
        Table of each method with ``x``, ``y``, ``offsetX``, ``offsetY``, ``offsetErr`` [pixel] and ``used``.
    label : `DetectorLabel`
        Title.
    """
    n_panels = max(1, len(kernel_sources))
    figure = new_figure(f"{label}: registration", height=6.4, width=max(6.0, 4.9 * n_panels))
    grid = figure.subplots(1, n_panels, sharex=True, sharey=True, squeeze=False)[0]
    if not kernel_sources:
        say_in_place(grid[0], "no method")
        return figure
    colours = method_colours(kernel_sources)
    arrows = {method: _Arrows(table) for method, table in kernel_sources.items() if table is not None}
    lengths = np.concatenate([np.hypot(one.dx, one.dy) for one in arrows.values()] or [np.zeros(0)])
    typical = float(np.percentile(lengths, 75)) if len(lengths) else 0.0
    extent = _extent(arrows)
    side = max(extent[1] - extent[0], extent[3] - extent[2])
    for axes, method in zip(grid, kernel_sources, strict=True):
        axes.set_title(method_name(method), color=colours[method], weight="bold", loc="left")
        axes.set_xlabel("x [pixel]")
        if method not in arrows:
            axes.set_xlabel("")
            say_in_place(axes, f"no kernel sources of {method_name(method)}")
            continue
        _draw(axes, arrows[method], colours[method], typical, side)
        axes.set_xlim(*extent[:2])
        axes.set_ylim(*extent[2:])
        axes.set_aspect("equal", adjustable="box")
    grid[0].set_ylabel("y [pixel]")
    return figure


class _Arrows:
    """Sources in use with their offsets, and the positions of the others."""

    def __init__(self, table: Table) -> None:
        names = ("x", "y", "offsetX", "offsetY", "offsetErr")
        x, y, dx, dy, error = (np.asarray(table[name], dtype=float) for name in names)
        placed = np.isfinite(x) & np.isfinite(y)
        used = np.asarray(table["used"], dtype=bool) & placed & np.isfinite(dx) & np.isfinite(dy)
        self.x, self.y, self.dx, self.dy, self.error = (value[used] for value in (x, y, dx, dy, error))
        self.other_x, self.other_y = x[placed & ~used], y[placed & ~used]


def _extent(arrows: Mapping[str, _Arrows]) -> tuple[float, float, float, float]:
    limits: list[float] = []
    for own, other in (("x", "other_x"), ("y", "other_y")):
        values = np.concatenate(
            [getattr(one, name) for one in arrows.values() for name in (own, other)] or [np.zeros(0)]
        )
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        margin = 0.05 * max(high - low, 1.0)
        limits += [low - margin, high + margin]
    return limits[0], limits[1], limits[2], limits[3]


def _draw(axes: Axes, arrows: _Arrows, colour: str, typical: float, side: float) -> None:
    axes.scatter(arrows.other_x, arrows.other_y, s=6, color="0.75", linewidths=0)
    if len(arrows.x):
        length = np.hypot(arrows.dx, arrows.dy)
        shorten = np.where(length > _LONGEST * typical, _LONGEST * typical / np.maximum(length, 1e-30), 1.0)
        # Data units of the axes for one pixel of offset.
        enlarge = _ARROW_FRACTION * side / typical if typical > 0 else 1.0
        quiver = axes.quiver(
            arrows.x,
            arrows.y,
            arrows.dx * shorten,
            arrows.dy * shorten,
            color=[to_rgba(colour, 1.0 if sure else _FAINT) for sure in length > _SIGNIFICANT * arrows.error],
            angles="xy",
            scale_units="xy",
            scale=1.0 / enlarge,
            width=0.004,
        )
        key = _round_down(1.5 * typical) if typical > 0 else 1.0
        axes.quiverkey(
            quiver,
            0.80,
            1.035,
            key,
            f"{key:g} pixel",
            labelpos="E",
            coordinates="axes",
            color=colour,
            fontproperties={"size": 8.5},
        )
        axes.scatter(arrows.x, arrows.y, s=5, color=colour, linewidths=0)
        _say_numbers(axes, arrows)
    else:
        axes.text(0.5, 0.5, "no source in use", transform=axes.transAxes, ha="center", color=NEUTRAL_COLOUR)


def _say_numbers(axes: Axes, arrows: _Arrows) -> None:
    medians = [float(np.median(values)) for values in (arrows.dx, arrows.dy)]
    scatters = [float(mad_std(values)) for values in (arrows.dx, arrows.dy)]
    text = (
        f"{len(arrows.x)} used: median ({medians[0]:+.3f}, {medians[1]:+.3f}), "
        f"scatter ({scatters[0]:.3f}, {scatters[1]:.3f}),\n"
        f"typical error {np.nanmedian(arrows.error):.3f} pixel; {len(arrows.other_x)} not used (grey)"
    )
    axes.set_xlabel("x [pixel]\n" + text.replace("-", "\N{MINUS SIGN}"))


def _round_down(value: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above the value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(digit for digit in (1.0, 2.0, 5.0) if digit * power <= value * (1 + 1e-9)) * power)
