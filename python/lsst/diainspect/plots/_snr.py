"""S/N of the same sources in two methods."""

from __future__ import annotations

__all__ = ["plot_snr"]

from collections.abc import Sequence

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ._detector_label import DetectorLabel
from ._discrepancy import signed_snr
from ._labels import SurveyLabel
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_LINEAR_WIDTH = 10.0
"""S/N up to which the axes are linear."""

_HISTOGRAM_HALF_WIDTH = 20


@styled
def plot_snr(joined: Table | None, methods: Sequence[str], label: DetectorLabel | SurveyLabel) -> Figure:
    """Draw each method's signed S/N against the first method's, and a histogram of the differences.

    Parameters
    ----------
    joined : `astropy.table.Table` or `None`
        Sources of all methods, as `lsst.diainspect.comparison.join_sources` makes them.
    methods : sequence [`str`]
        Every method of the run.
    label : `DetectorLabel` or `SurveyLabel`
        Title.
    """
    others = list(methods[1:])
    n_rows = max(1, len(others))
    figure = new_figure(f"{label}: S/N of the methods", height=5.0 * n_rows)
    grid = figure.subplots(n_rows, 2, squeeze=False, width_ratios=(1.15, 1.0))
    if joined is None or not others:
        text = "no comparison table" if joined is None else "one method only: nothing to compare"
        for axes in grid.flat:
            say_in_place(axes, text)
        return figure
    colours = method_colours(methods)
    for row, other in enumerate(others):
        x, y = signed_snr(joined, methods[0]), signed_snr(joined, other)
        _draw_pair(grid[row, 0], x, y, (methods[0], other), colours)
        _draw_differences(grid[row, 1], y - x, np.fmax(np.abs(x), np.abs(y)), (methods[0], other))
    return figure


def _draw_pair(
    axes: Axes, x: np.ndarray, y: np.ndarray, methods: tuple[str, str], colours: dict[str, str]
) -> None:
    names = [method_name(method) for method in methods]
    both, only_x, only_y = (
        np.isfinite(x) & np.isfinite(y),
        np.isfinite(x) & ~np.isfinite(y),
        np.isfinite(y) & ~np.isfinite(x),
    )
    values = np.concatenate([np.abs(x[np.isfinite(x)]), np.abs(y[np.isfinite(y)])])
    limit = 1.4 * max(float(values.max(initial=0.0)), _LINEAR_WIDTH)
    for set_scale in (axes.set_xscale, axes.set_yscale):
        set_scale("asinh", linear_width=_LINEAR_WIDTH)
    axes.axhline(0.0, color=NEUTRAL_COLOUR, linewidth=0.6, zorder=0)
    axes.axvline(0.0, color=NEUTRAL_COLOUR, linewidth=0.6, zorder=0)
    line = limit * np.array([-1.0, 1.0])
    axes.plot(line, line, color=NEUTRAL_COLOUR, linewidth=1.0, linestyle="--", zorder=0, label="one to one")
    size = float(np.clip(26.0 * np.sqrt(300.0 / max(len(x), 1)), 5.0, 26.0))
    axes.scatter(
        x[both],
        y[both],
        s=size,
        color="0.25",
        alpha=0.75,
        linewidths=0,
        label=f"both: {both.sum()}",
    )
    axes.scatter(
        x[only_x],
        np.zeros(only_x.sum()),
        s=1.4 * size,
        marker="D",
        facecolors="none",
        edgecolors=colours[methods[0]],
        linewidths=1.2,
        label=f"only {names[0]}: {only_x.sum()}",
    )
    axes.scatter(
        np.zeros(only_y.sum()),
        y[only_y],
        s=1.4 * size,
        marker="^",
        facecolors="none",
        edgecolors=colours[methods[1]],
        linewidths=1.2,
        label=f"only {names[1]}: {only_y.sum()}",
    )
    ticks = _ticks(limit)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}")))
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel(f"{names[0]} signed S/N (0: not found)", color=colours[methods[0]])
    axes.set_ylabel(f"{names[1]} signed S/N (0: not found)", color=colours[methods[1]])
    axes.legend(loc="upper left", handlelength=1.4)
    if len(x) == 0:
        axes.text(0.5, 0.42, "no sources", transform=axes.transAxes, ha="center", color=NEUTRAL_COLOUR)


def _ticks(limit: float) -> list[float]:
    """Return zero and a few round values, as far apart as labels need."""
    positive = [value for value in (5.0, 20.0, 100.0, 500.0, 2e3, 1e4, 5e4, 2e5, 1e6) if value < limit]
    return [*(-value for value in reversed(positive)), 0.0, *positive]


def _draw_differences(axes: Axes, change: np.ndarray, strength: np.ndarray, methods: tuple[str, str]) -> None:
    names = [method_name(method) for method in methods]
    keep = np.isfinite(change)
    values = change[keep]
    axes.set_xlabel(f"S/N of {names[1]} minus {names[0]}")
    axes.set_ylabel("sources")
    if len(values) == 0:
        say_in_place(axes, "no source in both")
        return
    sigma = float(mad_std(values))
    faint = strength[keep] < 20.0
    # Bright sources differ by a fraction of their S/N: beyond this they are counted in the outermost bins.
    limit = float(np.clip(np.percentile(np.abs(values), 95.0) * 1.2, 1.0, _HISTOGRAM_HALF_WIDTH))
    # An odd number: one bin is centred on zero.
    n_bins = 2 * int(np.clip(np.sqrt(len(values)), 5, 20)) + 1
    edges = np.linspace(-limit, limit, n_bins + 1)
    inside = np.clip(values, -limit, limit)
    axes.hist(
        [inside[faint], inside[~faint]],
        list(edges),
        stacked=True,
        color=["0.35", "0.75"],
        label=[f"S/N < 20: {faint.sum()}", rf"S/N $\geq$ 20: {(~faint).sum()}"],
    )
    n_beyond = int((np.abs(values) > limit).sum())
    axes.axvline(0.0, color=NEUTRAL_COLOUR, linewidth=0.8)
    axes.set_xlim(-limit, limit)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    beyond = f"\n{n_beyond} beyond, in the outermost bins" if n_beyond else ""
    axes.set_title(
        rf"median {np.median(values):+.2f}, robust $\sigma$ {sigma:.2f}{beyond}".replace(
            "-", "\N{MINUS SIGN}"
        ),
        fontsize=8.5,
        loc="left",
    )
    axes.legend(loc="upper right")
