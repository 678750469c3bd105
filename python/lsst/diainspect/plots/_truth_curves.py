"""How well each method finds what really changed: completeness, ROC and precision-recall."""

from __future__ import annotations

__all__ = ["plot_completeness", "plot_roc"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ._labels import SurveyLabel
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_VARIABLES = {
    "idealSnr": "ideal S/N",
    "mag": "magnitude of the change [mag]",
    "hostSurfaceBrightness": r"surface brightness of the host [mag / arcsec$^2$]",
    "hostSeparation": "distance from the host [arcsec]",
}

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_LARGEST_SHOWN = 200.0
"""Bins of the ideal S/N beyond this are drawn up to here."""


@styled
def plot_completeness(summary: Table | None, methods: Sequence[str], label: SurveyLabel) -> Figure:
    """Draw completeness against each variable of the summary, with intervals and numbers of objects.

    Parameters
    ----------
    summary : `astropy.table.Table` or `None`
        Summary of the matches with truth, as `lsst.diainspect.truth.summarise_truth` makes it.
    methods : sequence [`str`]
        Every method of the run.
    label : `SurveyLabel`
        Title.
    """
    figure = new_figure(f"{label}: completeness", height=7.4)
    grid = figure.subplots(2, 2)
    colours = method_colours(methods)
    for axes, (variable, name) in zip(grid.flat, _VARIABLES.items(), strict=True):
        rows = None if summary is None else _rows(summary, "completeness", variable)
        if rows is None or len(rows) == 0:
            say_in_place(axes, "no truth" if summary is None else f"no objects with a known\n{name}")
            continue
        for index, method in enumerate(methods):
            own = rows[np.asarray(rows["method"]).astype(str) == method]
            if len(own) == 0:
                axes.plot([], [], color=colours[method], label=f"{method_name(method)}: none")
                continue
            low, high = (np.asarray(own[edge], dtype=float) for edge in ("binLow", "binHigh"))
            if variable == "idealSnr":
                high = np.minimum(high, np.maximum(_LARGEST_SHOWN, 1.2 * low))
            value = np.asarray(own["value"], dtype=float)
            middle = np.sqrt(low * high) if variable == "idealSnr" else 0.5 * (low + high)
            # Side by side, so that no interval hides another.
            shift = (index - 0.5 * (len(methods) - 1)) * 0.08
            middle = middle * (1 + 0.5 * shift) if variable == "idealSnr" else middle + shift * (high - low)
            axes.errorbar(
                middle,
                value,
                _bars(own),
                color=colours[method],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=5,
                elinewidth=1.1,
                label=_completeness_text(summary, method, variable),
            )
        reference = rows[np.asarray(rows["method"]).astype(str) == str(rows["method"][0])]
        for number, row in enumerate(reference):
            middle = (
                np.sqrt(row["binLow"] * min(row["binHigh"], _LARGEST_SHOWN))
                if variable == "idealSnr"
                else 0.5 * (row["binLow"] + row["binHigh"])
            )
            # Bins may lie closely: their numbers are staggered.
            axes.text(
                middle,
                1.03 + 0.06 * (number % 2),
                f"{row['n']}",
                ha="center",
                fontsize=7.5,
                color=NEUTRAL_COLOUR,
            )
        if variable == "idealSnr":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            # Without labels of their own: on a short axis they would run into each other.
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.03, 1.16)
        axes.axhline(1.0, color=NEUTRAL_COLOUR, linewidth=0.6, zorder=0)
        axes.set_xlabel(name)
        axes.set_ylabel("completeness")
        axes.legend(loc="best")
    return figure


def _rows(summary: Table, statistic: str, variable: str) -> Table:
    names, variables = (np.asarray(summary[name]).astype(str) for name in ("statistic", "variable"))
    return summary[(names == statistic) & (variables == variable)]


def _bars(rows: Table) -> np.ndarray:
    value, lower, upper = (np.asarray(rows[name], dtype=float) for name in ("value", "lower", "upper"))
    bars: np.ndarray = np.nan_to_num(np.maximum(np.stack([value - lower, upper - value]), 0.0))
    return bars


def _completeness_text(summary: Table, method: str, variable: str) -> str:
    rows = _rows(summary, "thresholdAt50", variable)
    rows = rows[np.asarray(rows["method"]).astype(str) == method]
    if len(rows) == 0 or not np.isfinite(rows["value"][0]):
        return method_name(method)
    row = rows[0]
    error = 0.5 * (row["upper"] - row["lower"])
    return f"{method_name(method)}: 50 % at {row['value']:.2f} $\\pm$ {error:.2f}"


@styled
def plot_roc(
    curves: Table | None, summary: Table | None, methods: Sequence[str], label: SurveyLabel
) -> Figure:
    """Draw completeness against false sources per area, and purity against completeness, as the threshold falls.

    Parameters
    ----------
    curves : `astropy.table.Table` or `None`
        Curves of each method and score, as `lsst.diainspect.truth.summarise_truth` makes them.
    summary : `astropy.table.Table` or `None`
        Its summary, for the areas under the curves.
    methods : sequence [`str`]
        Every method of the run.
    label : `SurveyLabel`
        Title.
    """
    figure = new_figure(f"{label}: found against false", height=4.9)
    grid = figure.subplots(1, 2)
    if curves is None or len(curves) == 0:
        for axes in grid:
            say_in_place(axes, "no truth" if curves is None else "no sources")
        return figure
    colours = method_colours(methods)
    names, scores = (np.asarray(curves[name]).astype(str) for name in ("method", "score"))
    styles = dict(zip(dict.fromkeys(scores.tolist()), ("-", "--", ":", "-."), strict=False))
    for method in methods:
        if not (names == method).any():
            grid[0].plot([], [], color=colours[method], label=f"{method_name(method)}: no sources")
        for score, style in styles.items():
            own = curves[(names == method) & (scores == score)]
            if len(own) == 0:
                continue
            shared: dict[str, Any] = {"color": colours[method], "linestyle": style}
            _draw_steps(grid[0], own["falsePerSquareDegree"], own["completeness"], shared)
            grid[0].lines[-1].set_label(f"{method_name(method)}, {_score_text(score)}")
            _draw_steps(grid[1], own["completeness"], own["purity"], shared)
            grid[1].lines[-1].set_label(_area_text(summary, method, score))
    # Rates below that of one false source are on the linear part.
    rates = np.asarray(curves["falsePerSquareDegree"], dtype=float)
    positive = rates[rates > 0]
    if len(positive):
        grid[0].set_xscale("symlog", linthresh=float(positive.min()))
    grid[0].set_xlim(left=0.0)
    grid[0].set_xlabel(r"false sources per deg$^2$")
    grid[0].set_ylabel("completeness")
    grid[1].set_xlabel("completeness")
    grid[1].set_ylabel("purity")
    for axes in grid:
        axes.set_ylim(0.0, 1.03)
        axes.legend(loc="lower right" if axes is grid[0] else "lower left")
    grid[1].set_xlim(0.0, 1.03)
    return figure


def _draw_steps(axes: Axes, x: Any, y: Any, style: Mapping[str, Any]) -> None:
    axes.step(np.asarray(x, dtype=float), np.asarray(y, dtype=float), where="post", **style)


def _score_text(score: str) -> str:
    return "S/N" if score == "snr" else score


def _area_text(summary: Table | None, method: str, score: str) -> str:
    text = f"{method_name(method)}, {_score_text(score)}"
    if summary is None:
        return text
    rows = _rows(summary, "averagePrecision", score)
    rows = rows[np.asarray(rows["method"]).astype(str) == method]
    if len(rows) == 0 or not np.isfinite(rows["value"][0]):
        return text
    row = rows[0]
    text = f"{text}: mean purity {row['value']:.3f}"
    # Few detectors tell no interval.
    if not (np.isfinite(row["lower"]) and np.isfinite(row["upper"])):
        return text
    return f"{text} ({row['lower']:.3f} to {row['upper']:.3f})"
