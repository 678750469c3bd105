"""What the sources of each method are, alone and shared."""

from __future__ import annotations

__all__ = ["plot_class_mix"]

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ._labels import SurveyLabel, VisitLabel
from ._style import method_name, new_figure, say_in_place, styled

_KINDS = {"only": "found by it alone", "shared": "found by others too"}
_LEAST_TEXT = 0.06
"""Share of the longest bar from which on the number is written into its part."""


@styled
def plot_class_mix(sources: Table | None, methods: Sequence[str], label: SurveyLabel | VisitLabel) -> Figure:
    """Draw the number of sources of each class as bars, a panel a scheme, a bar a method and kind.

    Parameters
    ----------
    sources : `astropy.table.Table` or `None`
        Counts, as `lsst.diainspect.comparison.summarise_sources` makes them.
    methods : sequence [`str`]
        Every method of the run.
    label : `SurveyLabel` or `VisitLabel`
        Title.
    """
    schemes = (
        []
        if sources is None
        else [one for one in dict.fromkeys(np.asarray(sources["scheme"]).astype(str).tolist()) if one]
    )
    n_panels = max(1, len(schemes))
    bars = [(method, kind) for method in methods for kind in _KINDS]
    figure = new_figure(f"{label}: what the sources are", height=n_panels * (0.45 * len(bars) + 1.3) + 0.8)
    grid = figure.subplots(n_panels, 1, squeeze=False)[:, 0]
    if sources is None or not schemes:
        say_in_place(grid[0], "no comparison table" if sources is None else "no sources")
        return figure
    method, found, scheme, name = (
        np.asarray(sources[column]).astype(str) for column in ("method", "found", "scheme", "class")
    )
    n = np.asarray(sources["n"], dtype=float)
    for axes, one in zip(grid, schemes, strict=True):
        classes = sorted(
            set(name[scheme == one].tolist()), key=lambda own: -n[(scheme == one) & (name == own)].sum()
        )
        palette = mpl.colormaps["tab20"](np.linspace(0.0, 0.95, max(len(classes), 2)))
        left = np.zeros(len(bars))
        lengths = {
            own: np.array(
                [
                    n[(scheme == one) & (name == own) & (method == m) & (found == kind)].sum()
                    for m, kind in bars
                ]
            )
            for own in classes
        }
        longest = max(1.0, float(sum(lengths.values()).max()))  # type: ignore[union-attr]
        for own, colour in zip(classes, palette, strict=False):
            drawn = axes.barh(
                range(len(bars)),
                lengths[own],
                left=left,
                color=colour,
                label=own,
                edgecolor="white",
                linewidth=0.5,
            )
            texts = [f"{value:.0f}" if value > _LEAST_TEXT * longest else "" for value in lengths[own]]
            axes.bar_label(drawn, texts, label_type="center", fontsize=8)
            left += lengths[own]
        for row, total in enumerate(left):
            axes.text(total + 0.01 * longest, row, f"{total:.0f}", va="center", fontsize=8.5, weight="bold")
        axes.set_yticks(range(len(bars)), [f"{method_name(m)}, {_KINDS[kind]}" for m, kind in bars])
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.1 * longest)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("sources")
        axes.set_title(f"by {one}", loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
