"""The one style of all figures: palette, sizes, and what is drawn where there is nothing to show.

Colours are those of Okabe & Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

__all__ = [
    "DOUBLE_WIDTH",
    "MASK_COLOUR",
    "NEGATIVE_COLOUR",
    "NEUTRAL_COLOUR",
    "PALETTE",
    "POSITIVE_COLOUR",
    "method_colours",
    "method_name",
    "new_figure",
    "say_in_place",
    "styled",
]

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Colours of methods: AL, ZOGY, then others in this order."""

_OWN_COLOURS = {"al": PALETTE[0], "zogy": PALETTE[1]}

POSITIVE_COLOUR = "#B2182B"
NEGATIVE_COLOUR = "#2166AC"
"""Colours of positive and negative sources: those of the ends of the colour map of differences."""

MASK_COLOUR = "#B8B08D"
NEUTRAL_COLOUR = "#555555"

DOUBLE_WIDTH = 10.0
"""Width of a figure that fills a slide or a page across both columns [inch]."""

_DPI = 110

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "image.origin": "lower",
    "image.interpolation": "nearest",
    "text.usetex": False,
    "mathtext.default": "regular",
    "axes.unicode_minus": True,
}

_TICK_SIZE = 8.5


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """Return the colour of each method.

    AL and ZOGY have their own; any other gets the next free one of `PALETTE` in the order given, whether or not
    AL and ZOGY are there. So give all methods of a run, also those that a figure cannot show.
    """
    others = [method for method in dict.fromkeys(methods) if method not in _OWN_COLOURS]
    free = PALETTE[len(_OWN_COLOURS) :]
    colours = dict(_OWN_COLOURS)
    colours.update({method: free[index % len(free)] for index, method in enumerate(others)})
    return {method: colours[method] for method in methods}


def method_name(method: str) -> str:
    """Return how a method is called in a figure."""
    return method.upper() if method in _OWN_COLOURS else method


def styled[**Parameters](plot: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Make a function draw in the package's style, whatever the user's own settings are, and leave those alone."""

    @wraps(plot)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        with mpl.rc_context(_settings()):
            figure = plot(*args, **kwargs)
        for axes in figure.axes:
            # Ticks are made when drawn, which is after the settings are gone.
            axes.tick_params(
                which="both", direction="out", labelsize=_TICK_SIZE, labelfontfamily="DejaVu Sans"
            )
        return figure

    return wrapper


def _settings() -> Any:
    """Return all settings that a figure may depend on; the backend is none of them."""
    return {name: value for name, value in mpl.rcParamsDefault.items() if "backend" not in name} | _RC


def new_figure(title: str, height: float, width: float = DOUBLE_WIDTH) -> Figure:
    """Return an empty figure that pyplot does not know, so that it is freed with its last reference."""
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.07)
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def say_in_place(axes: Axes, text: str) -> None:
    """Write in empty axes why there is nothing."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=NEUTRAL_COLOUR, wrap=True
    )
