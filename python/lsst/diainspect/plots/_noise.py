"""Histograms of blank sky against the Gaussian of unit width that correct variances would give."""

from __future__ import annotations

__all__ = ["plot_noise"]

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.special
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..comparison import HISTOGRAM_EDGES, SkyNoise
from ._detector_label import DetectorLabel
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_RATIO_LIMITS = (0.3, 3.0)
_LEAST_RANGE = 6.0
_LINE_STYLES = ("-", "--", "-.", ":")


@styled
def plot_noise(noise: Mapping[str, SkyNoise | None], label: DetectorLabel) -> Figure:
    """Draw histograms of difference / predicted sigma and of the score, and their ratio to the Gaussian.

    Parameters
    ----------
    noise : mapping [`str`, `SkyNoise` or `None`]
        Every method of the run; None for one that made no difference.
    label : `DetectorLabel`
        Title.
    """
    figure = new_figure(f"{label}: noise of blank sky", height=5.6)
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3.0, 1.2))
    colours = method_colours(noise)
    quantities = (
        ("difference", r"difference / predicted $\sigma$"),
        ("score", r"score [$\sigma$]"),
    )
    limit = _LEAST_RANGE
    for column, (kind, quantity) in enumerate(quantities):
        counts = {
            method: np.zeros(0) if one is None else getattr(one, f"{kind}_counts")
            for method, one in noise.items()
        }
        if not any(one.sum() for one in counts.values()):
            for axes in grid[:, column]:
                axes.text(0.5, 0.5, "no sky pixels", transform=axes.transAxes, ha="center", va="center")
        for index, (method, one) in enumerate(counts.items()):
            style: dict[str, Any] = {
                "color": colours[method],
                "linestyle": _LINE_STYLES[index % len(_LINE_STYLES)],
            }
            name = method_name(method)
            if not one.sum():
                grid[0, column].plot([], [], **style, label=f"{name}: none")
                continue
            sigma = getattr(noise[method], f"{kind}_sigma")
            limit = max(limit, _reach(one))
            grid[0, column].stairs(
                one / one.sum() / np.diff(HISTOGRAM_EDGES),
                HISTOGRAM_EDGES,
                **style,
                linewidth=1.4,
                label=rf"{name}: $\sigma$ = {sigma:.3f}, {_beyond(one)} beyond 5",
            )
            _draw_ratio(grid[1, column], one, style)
        _draw_gaussian(grid[0, column])
        grid[1, column].axhline(1.0, color=NEUTRAL_COLOUR, linewidth=1.0)
        grid[1, column].set_xlabel(quantity)
        grid[0, column].legend(loc="lower center", handlelength=1.6)
    _finish(grid, limit, noise)
    return figure


def _gaussian_probability() -> np.ndarray:
    """Return the probability of each bin; the outermost bins hold the tails."""
    edges = HISTOGRAM_EDGES.copy()
    edges[0], edges[-1] = -np.inf, np.inf
    below, above = scipy.special.ndtr(edges), scipy.special.ndtr(-edges)
    # Differences of the smaller tail keep their digits.
    return np.where(edges[:-1] < 0, np.diff(below), -np.diff(above))


def _beyond(counts: np.ndarray) -> str:
    centres = 0.5 * (HISTOGRAM_EDGES[1:] + HISTOGRAM_EDGES[:-1])
    return f"{int(counts[np.abs(centres) > 5.0].sum())}"


def _reach(counts: np.ndarray) -> float:
    filled = np.flatnonzero(counts)
    return float(np.max(np.abs(HISTOGRAM_EDGES[[filled[0], filled[-1] + 1]])))


def _draw_gaussian(axes: Axes) -> None:
    x = np.linspace(HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1], 801)
    density = np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi)
    axes.plot(x, density, color="black", linewidth=1.0, zorder=1, label="unit Gaussian")


def _draw_ratio(axes: Axes, counts: np.ndarray, style: dict[str, Any]) -> None:
    expected = counts.sum() * _gaussian_probability()
    centres = 0.5 * (HISTOGRAM_EDGES[1:] + HISTOGRAM_EDGES[:-1])
    # Where fewer than this are expected, one source makes any ratio.
    keep = expected >= 5.0
    ratio = counts[keep] / expected[keep]
    error = np.sqrt(np.maximum(counts[keep], 1.0)) / expected[keep]
    axes.fill_between(
        centres[keep], ratio - error, ratio + error, step="mid", color=style["color"], alpha=0.25, linewidth=0
    )
    axes.step(centres[keep], ratio, where="mid", **style, linewidth=1.2)


def _finish(grid: np.ndarray, limit: float, noise: Mapping[str, SkyNoise | None]) -> None:
    for axes in grid[0]:
        axes.set_yscale("log")
        axes.set_xlim(-limit, limit)
    n_pixels = max((one.n_pixels for one in noise.values() if one is not None), default=0)
    # One pixel in a bin, and half a decade below.
    lowest = 0.3 / max(n_pixels, 1000) / float(HISTOGRAM_EDGES[1] - HISTOGRAM_EDGES[0])
    grid[0, 0].set_ylim(lowest, 1.5)
    grid[0, 0].set_ylabel(r"fraction of pixels per $\sigma$")
    grid[0, 0].set_title("difference", loc="left")
    grid[0, 1].set_title("score", loc="left")
    grid[0, 1].set_title(f"{n_pixels:,} sky pixels", loc="right", fontsize=8.5)
    grid[1, 0].set_yscale("log")
    grid[1, 0].set_ylim(*_RATIO_LIMITS)
    grid[1, 0].set_yticks([0.5, 1.0, 2.0], ["0.5", "1", "2"])
    grid[1, 0].set_yticks([], minor=True)
    grid[1, 0].set_ylabel("observed / Gaussian")
    if not noise:
        for axes in grid.flat:
            say_in_place(axes, "no method")
