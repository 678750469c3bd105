"""Power spectrum of blank sky: flat at 1 when the noise is white and as large as the variance says."""

from __future__ import annotations

__all__ = ["plot_power"]

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..comparison import SkyNoise
from ._detector_label import DetectorLabel
from ._stretch import add_colorbar
from ._style import NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_SHOWN_LAG = 6
"""Largest lag of the correlation that is shown [pixel]."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEAST_CORRELATION = 0.02
"""Least range of the colour map of correlations: noise of a percent is not shown as if it were large."""


@styled
def plot_power(noise: Mapping[str, SkyNoise | None], label: DetectorLabel) -> Figure:
    """Draw the azimuthally averaged power spectrum and the autocorrelation of each method.

    Parameters
    ----------
    noise : mapping [`str`, `SkyNoise` or `None`]
        Every method of the run; None for one that made no difference.
    label : `DetectorLabel`
        Title.
    """
    n_rows = max(2, len(noise))
    figure = new_figure(f"{label}: power spectrum of blank sky", height=max(5.0, 2.4 * n_rows))
    grid = figure.add_gridspec(n_rows, 2, width_ratios=(2.6, 1.0))
    axes = figure.add_subplot(grid[:, 0])
    _draw_spectra(axes, noise)
    maps = [figure.add_subplot(grid[row, 1]) for row in range(len(noise))]
    limit = max([_LEAST_CORRELATION, *(_largest(one) for one in noise.values())])
    shown = None
    for panel, (method, one) in zip(maps, noise.items(), strict=True):
        panel.set_title(method_name(method), color=method_colours(noise)[method], weight="bold")
        if one is None or one.power.size == 0:
            say_in_place(panel, "no difference" if one is None else "too few\nsky pixels")
            continue
        edge = _SHOWN_LAG + 0.5
        shown = panel.imshow(
            _shown(one), cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(-edge, edge, -edge, edge)
        )
        panel.set_facecolor("0.8")
        panel.set_ylabel("lag in y [pixel]")
        panel.set_xticks([-5, 0, 5])
        panel.set_yticks([-5, 0, 5])
    if maps:
        maps[-1].set_xlabel("lag in x [pixel]")
    if shown is not None:
        add_colorbar(figure, shown, maps, "correlation (lag 0 left out)")
    return figure


def _draw_spectra(axes: Axes, noise: Mapping[str, SkyNoise | None]) -> None:
    colours = method_colours(noise)
    low, high = 0.9, 1.1
    for index, (method, one) in enumerate(noise.items()):
        style: dict[str, Any] = {"color": colours[method], "marker": _MARKERS[index % len(_MARKERS)]}
        name = method_name(method)
        if one is None or one.power.size == 0:
            reason = "no difference" if one is None else "too few sky pixels"
            axes.plot([], [], **style, label=f"{name}: {reason}")
            continue
        axes.errorbar(
            one.frequency,
            one.power,
            one.power_error,
            **style,
            markersize=4,
            linewidth=1.2,
            elinewidth=0.9,
            label=f"{name}: {_neighbours(one)}",
        )
        # The lowest frequencies, with few modes, may be far out: they do not set the range.
        well = one.power_error < 0.1 * np.abs(one.power)
        if well.any():
            low, high = min(low, float(one.power[well].min())), max(high, float(one.power[well].max()))
    axes.axhline(1.0, color=NEUTRAL_COLOUR, linewidth=1.0, zorder=0, label="white, as predicted")
    margin = 0.15 * (high - low)
    axes.set_ylim(max(0.0, low - margin), high + 2.5 * margin)
    axes.set_xlim(0.0, 0.5)
    axes.set_xlabel("spatial frequency [cycles / pixel]")
    axes.set_ylabel("power / predicted")
    axes.legend(loc="upper right", title="correlation of neighbours in x, y", title_fontsize=8.5)


def _centre(one: SkyNoise) -> int:
    return one.correlation.shape[0] // 2


def _neighbours(one: SkyNoise) -> str:
    middle = _centre(one)
    along_x, along_y = one.correlation[middle, middle + 1], one.correlation[middle + 1, middle]
    text = rf"{along_x:+.4f}, {along_y:+.4f} $\pm$ {one.correlation_error:.4f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _shown(one: SkyNoise) -> np.ndarray:
    middle = _centre(one)
    cut = slice(middle - _SHOWN_LAG, middle + _SHOWN_LAG + 1)
    shown = one.correlation[cut, cut].copy()
    shown[_SHOWN_LAG, _SHOWN_LAG] = np.nan
    return shown


def _largest(one: SkyNoise | None) -> float:
    if one is None or one.power.size == 0:
        return 0.0
    shown = np.abs(_shown(one))
    return float(np.nanmax(shown)) if np.isfinite(shown).any() else 0.0
