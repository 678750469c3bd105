"""Metrics of the methods side by side, and their paired differences."""

from __future__ import annotations

__all__ = ["plot_method_metrics"]

from collections.abc import Sequence

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._labels import SurveyLabel, VisitLabel
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COUNTS = ("numberPositive", "numberNegative", "skyPixels")
"""Metrics whose size says nothing of how well a method did: not drawn."""


@styled
def plot_method_metrics(
    summary: Table | None, methods: Sequence[str], label: SurveyLabel | VisitLabel
) -> Figure:
    """Draw the median of each metric by method, and the mean paired difference in units of its own uncertainty.

    Parameters
    ----------
    summary : `astropy.table.Table` or `None`
        Summary, as `lsst.diainspect.comparison.summarise_methods` makes it.
    methods : sequence [`str`]
        Every method of the run.
    label : `SurveyLabel` or `VisitLabel`
        Title.
    """
    rows = None
    if summary is not None:
        whole = np.asarray(summary["variable"]).astype(str) == ""
        shown = ~np.isin(np.asarray(summary["metric"]).astype(str), _COUNTS)
        rows = summary[whole & shown & np.isfinite(np.asarray(summary["mean"], dtype=float))]
    metrics = [] if rows is None else list(dict.fromkeys(np.asarray(rows["metric"]).astype(str).tolist()))
    figure = new_figure(f"{label}: metrics of the methods", height=0.36 * max(len(metrics), 6) + 2.0)
    grid = figure.subplots(1, 2, sharey=True, width_ratios=(max(1.0, 0.62 * len(methods)), 1.0))
    if rows is None or not metrics:
        for axes in grid:
            say_in_place(axes, "no metrics")
        return figure
    colours = method_colours(methods)
    reference = np.asarray(rows["reference"]).astype(str)
    for index, method in enumerate(methods):
        own = rows[(np.asarray(rows["method"]).astype(str) == method) & (reference == "")]
        place = (index + 0.5) / len(methods)
        _write_values(grid[0], own, metrics, place, colours[method])
        grid[0].text(
            place, -0.75, method_name(method), color=colours[method], weight="bold", ha="center", va="center"
        )
    pairs = rows[reference != ""]
    names = list(
        dict.fromkeys(
            zip(
                np.asarray(pairs["method"]).astype(str).tolist(),
                np.asarray(pairs["reference"]).astype(str).tolist(),
                strict=True,
            )
        )
    )
    for index, (method, other) in enumerate(names):
        own = pairs[
            (np.asarray(pairs["method"]).astype(str) == method)
            & (np.asarray(pairs["reference"]).astype(str) == other)
        ]
        _draw_differences(
            grid[1], own, metrics, index, len(names), f"{method_name(method)} minus {method_name(other)}"
        )
    grid[0].set_yticks(range(len(metrics)), metrics)
    grid[0].set_ylim(len(metrics) - 0.4, -1.2)
    grid[0].set_xticks([])
    grid[0].set_xlim(0.0, 1.0)
    grid[0].set_xlabel("median of the detectors (interval of one sigma)")
    grid[1].axvline(0.0, color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
    grid[1].axvspan(-2.0, 2.0, color="0.93", zorder=-1)
    grid[1].set_xlabel("mean paired difference / its uncertainty")
    if not names:
        say_in_place(grid[1], "one method only")
    elif not grid[1].texts:
        grid[1].text(
            0.5,
            0.5,
            "One detector tells no uncertainty.",
            transform=grid[1].transAxes,
            ha="center",
            color=NEUTRAL_COLOUR,
        )
    for axes in grid:
        for row in range(len(metrics)):
            axes.axhline(row, color="0.92", linewidth=0.6, zorder=-2)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return figure


def _offset(index: int, count: int) -> float:
    return (index - 0.5 * (count - 1)) * 0.6 / max(count, 1)


def _write_values(axes: Axes, rows: Table, metrics: Sequence[str], place: float, colour: str) -> None:
    """Write median and interval of each metric, at a place between 0 and 1 across the axes."""
    for row in rows:
        digits = _digits(float(row["medianUpper"]) - float(row["medianLower"]))
        # Adding zero makes a rounded -0 a 0.
        value, lower, upper = (
            f"{round(float(row[name]), digits) + 0.0:.{digits}f}"
            for name in ("median", "medianLower", "medianUpper")
        )
        unit = f" {row['unit']}" if row["unit"] else ""
        text = f"{value}{unit}" if lower == upper else f"{value} ({lower} to {upper}){unit}"
        axes.text(
            place,
            metrics.index(str(row["metric"])),
            text.replace("-", "\N{MINUS SIGN}"),
            color=colour,
            fontsize=8.5,
            ha="center",
            va="center",
        )


def _digits(interval: float) -> int:
    """Return the decimals that show an interval with two digits."""
    return int(np.clip(1 - np.floor(np.log10(interval)), 0, 6)) if interval > 0 else 3


def _draw_differences(
    axes: Axes, rows: Table, metrics: Sequence[str], index: int, count: int, name: str
) -> None:
    place = np.array([metrics.index(str(metric)) for metric in rows["metric"]], dtype=float)
    mean, lower, upper = (
        np.asarray(rows[column], dtype=float) for column in ("mean", "meanLower", "meanUpper")
    )
    error = 0.5 * (upper - lower)
    with np.errstate(invalid="ignore", divide="ignore"):
        significance = np.where(error > 0, mean / error, np.nan)
    axes.scatter(
        significance,
        place + _offset(index, count),
        color="black" if count == 1 else None,
        marker=_MARKERS[index % len(_MARKERS)],
        s=22,
        label=name,
    )
    # Room for the numbers to the right of the points.
    axes.margins(x=0.18)
    for x, y, value in zip(significance, place + _offset(index, count), mean, strict=True):
        if np.isfinite(x):
            axes.annotate(
                f"{value:+.3g}".replace("-", "\N{MINUS SIGN}"),
                (x, y),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
