"""Plots of the benchmark: completeness against false detections, and where S/N and residuals are lost."""

from __future__ import annotations

__all__ = ["write_plots"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ._table import pooled_groups

_COLOURS = {"ideal": "black", "al": "#0072B2", "zogy": "#E69F00"}
_THRESHOLDS = np.linspace(3.6, 9.0, 109)
_FAINT = (5.0, 7.0)


def roc_curve(results: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return false detections per Mpix and completeness at S/N 5-7 at falling strictness, one value a threshold."""
    measured = [result["measured"] for result in results if "measured" in result]
    area = sum(entry["usableMpix"] for entry in measured)
    false = np.abs(np.concatenate([entry["falseHeights"] for entry in measured]))
    heights, snr, counted = (
        np.concatenate([np.asarray(entry["changes"][name]) for entry in measured])
        for name in ("height", "snr", "counted")
    )
    faint = counted.astype(bool) & (np.abs(snr) >= _FAINT[0]) & (np.abs(snr) < _FAINT[1])
    rate = np.array([(false > threshold).sum() / area for threshold in _THRESHOLDS])
    complete = np.array([(heights[faint] > threshold).mean() for threshold in _THRESHOLDS])
    return rate, complete


def write_plots(directory: Path, folder: Path, groups: Sequence[str] = ()) -> list[Path]:
    """Write the ROC of each group of scenes; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for group, entries in pooled_groups(directory, groups).items():
        figure = Figure(figsize=(6.0, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for row, results in entries:
            if not row.figures or row.figures["nFaint"].value == 0:
                continue
            rate, complete = roc_curve(results)
            shown = rate > 0
            line = axes.plot(rate[shown], complete[shown], color=_COLOURS.get(row.method), label=row.method)[
                0
            ]
            at_five = int(np.argmin(np.abs(_THRESHOLDS - 5.0)))
            axes.plot(
                max(rate[at_five], rate[shown].min(initial=1.0)),
                complete[at_five],
                "o",
                color=line.get_color(),
            )
        axes.set_xscale("log")
        axes.set_xlabel("false detections / Mpix, both signs")
        axes.set_ylabel("completeness at S/N 5-7")
        axes.set_title(f"{group}; points: 5 sigma")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
        path = folder / f"benchmark-roc-{group}.png"
        figure.savefig(path, dpi=90)
        written.append(path)
    return written
