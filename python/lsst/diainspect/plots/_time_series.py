"""Metrics of every visit of a survey, in time."""

from __future__ import annotations

__all__ = ["SERIES", "plot_time_series"]

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ._labels import SurveyLabel
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

SERIES: dict[str, tuple[str, float | None]] = {
    "skySigmaOverPredicted": (r"sky $\sigma$ / predicted", 1.0),
    "scoreSigma": (r"score $\sigma$", 1.0),
    "scoreMedian": ("median score", 0.0),
    "neighbourCorrelationX": ("correlation of\nneighbours in x", 0.0),
    "starRmsFit": ("star rms,\nin the match", 1.0),
    "starRmsHeldOut": ("star rms,\nheld out", 1.0),
    "psfWidthRatio": ("width of sources\n/ PSF", 1.0),
    "psfFluxRatio": ("aperture / PSF flux\nof sources", 1.0),
    "numberPositive": ("positive sources\na detector", None),
    "numberNegative": ("negative sources\na detector", None),
}
"""Metrics that are shown, in two columns, what they are called, and their value when all is well."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@styled
def plot_time_series(
    metrics: Mapping[str, Table | None],
    times: Mapping[int, float],
    label: SurveyLabel,
) -> Figure:
    """Draw the median of each metric over the detectors of every visit, and the range of the detectors.

    Parameters
    ----------
    metrics : mapping [`str`, `astropy.table.Table` or `None`]
        Metrics of each method on all detectors of all visits.
    times : mapping [`int`, `float`]
        Middle of the exposure of each visit [MJD, TAI]. The axis is the visits' numbers unless all are known.
    label : `SurveyLabel`
        Title.
    """
    n_rows = len(SERIES) // 2
    figure = new_figure(f"{label}: metrics of the visits", height=1.55 * n_rows + 1.4)
    grid = figure.subplots(n_rows, 2, sharex=True, squeeze=False)
    tables = {method: table for method, table in metrics.items() if table is not None and len(table)}
    if not tables:
        for axes in grid.flat:
            say_in_place(axes, "no metrics")
        return figure
    visits = np.unique(np.concatenate([np.asarray(table["visit"]) for table in tables.values()]))
    known = all(int(visit) in times and np.isfinite(times[int(visit)]) for visit in visits)
    place = np.array([times[int(visit)] for visit in visits]) if known else visits.astype(float)
    # Methods are drawn side by side, less apart than visits are and never by much of the axis.
    apart = np.diff(np.unique(place))
    step = min(float(apart.min()), 0.1 * float(apart.sum())) if len(apart) else 0.3
    colours = method_colours(metrics)
    for axes, (name, (title, expected)) in zip(grid.T.flat, SERIES.items(), strict=True):
        if expected is not None:
            axes.axhline(expected, color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
        any_drawn = False
        for index, (method, table) in enumerate(tables.items()):
            chosen = table[np.asarray(table["metric"]).astype(str) == name]
            value = np.asarray(chosen["value"], dtype=float)
            of_visit = np.asarray(chosen["visit"])
            middle, low, high = np.full((3, len(visits)), np.nan)
            for number, visit in enumerate(visits):
                own = value[(of_visit == visit) & np.isfinite(value)]
                if len(own):
                    middle[number], low[number], high[number] = np.median(own), own.min(), own.max()
            if not np.isfinite(middle).any():
                continue
            any_drawn = True
            x = place + (index - 0.5 * (len(tables) - 1)) * 0.12 * step
            axes.errorbar(
                x,
                middle,
                np.stack([middle - low, high - middle]),
                color=colours[method],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4.5,
                linewidth=0.8,
                elinewidth=1.0,
                label=method_name(method),
            )
        axes.set_ylabel(title, fontsize=8.5)
        # 0.9995 is read more easily than a difference from an offset in the corner.
        axes.ticklabel_format(axis="y", useOffset=False)
        if not len(apart):
            axes.set_xlim(place[0] - 0.5, place[0] + 0.5)
        if not any_drawn:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=NEUTRAL_COLOUR)
    for axes in grid[-1]:
        axes.set_xlabel("middle of the exposure [MJD, TAI]" if known else "visit")
        if not known:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    handles, texts = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=max(1, len(handles)),
        title="median and range of the detectors",
        title_fontsize=8.5,
    )
    return figure
