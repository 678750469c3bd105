"""Plots of the benchmark: completeness against false detections and against S/N, and where S/N is lost."""

from __future__ import annotations

__all__ = ["write_plots"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._measure import DETECTION_THRESHOLD
from ._table import PooledGroups, plot_name

_COLOURS = {"ideal": "black", "al": "#0072B2", "zogy": "#E69F00"}
_THRESHOLDS = np.linspace(3.6, 9.0, 109)
_FAINT = (5.0, 7.0)
_SNR_EDGES = np.arange(3.0, 10.01, 0.5)
_RATIO_EDGES = np.geomspace(5.0, 1000.0, 9)
_RATIO_SHOWN = (0.85, 1.1)
_LEAST_IN_BIN = 3
"""Fewest changes for a median."""


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
    if not faint.any():
        return rate, np.full(len(_THRESHOLDS), np.nan)
    complete = np.array([(heights[faint] > threshold).mean() for threshold in _THRESHOLDS])
    return rate, complete


def completeness_curve(results: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return completeness at 5 sigma in the bins of `_SNR_EDGES` and its binomial error, each (n_bins,)."""
    snr, height, counted = _changes(results, "snr", "height", "counted")
    used = counted.astype(bool)
    found = height[used] > DETECTION_THRESHOLD
    number = np.histogram(np.abs(snr[used]), _SNR_EDGES)[0]
    complete = np.histogram(np.abs(snr[used])[found], _SNR_EDGES)[0] / np.maximum(number, 1)
    # The error of an estimate with one more of each kind, which is not zero for none or all.
    smooth = (complete * number + 1.0) / (number + 2.0)
    error = np.sqrt(smooth * (1.0 - smooth) / np.maximum(number, 1))
    return np.where(number > 0, complete, np.nan), error


def snr_ratio_curve(
    results: Sequence[dict[str, Any]], ideal: dict[str, dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the median ratio of the score to the ideal's at isolated changes and its error, by S/N, each (n_bins,)."""
    both = [result for result in results if result["scene"] in ideal and "measured" in result]
    score, counted, isolated = _changes(both, "scoreAt", "counted", "isolated")
    (reference,) = _changes([ideal[result["scene"]] for result in both], "scoreAt")
    score, reference = score.astype(float), reference.astype(float)
    used = counted.astype(bool) & isolated.astype(bool) & np.isfinite(score) & np.isfinite(reference)
    ratio, size = score[used] / reference[used], np.abs(reference[used])
    middle, error = np.full(len(_RATIO_EDGES) - 1, np.nan), np.full(len(_RATIO_EDGES) - 1, np.nan)
    for entry, (low, high) in enumerate(zip(_RATIO_EDGES[:-1], _RATIO_EDGES[1:], strict=True)):
        here = ratio[(size >= low) & (size < high)]
        if len(here) >= _LEAST_IN_BIN:
            middle[entry] = np.median(here)
            error[entry] = 1.2533 * 1.4826 * np.median(np.abs(here - middle[entry])) / np.sqrt(len(here))
    return middle, error


def _changes(results: Sequence[dict[str, Any]], *names: str) -> tuple[np.ndarray, ...]:
    tables = [result["measured"]["changes"] for result in results if "measured" in result]
    return tuple(
        np.concatenate([np.asarray(table[name]) for table in tables]) if tables else np.zeros(0)
        for name in names
    )


def write_plots(pooled: PooledGroups, folder: Path) -> list[Path]:
    """Write the plots of each group of scenes; return the files.

    Parameters
    ----------
    pooled : `dict`
        What `benchmarks.quality._table.pooled_groups` returned.
    folder : `pathlib.Path`
        Folder of the plots.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for group, entries in pooled.items():
        shown = [(row, results) for row, results in entries if row.figures]
        if not shown:
            continue
        ideal = {
            result["scene"]: result
            for row, results in shown
            if row.method == "ideal"
            for result in results
            if "measured" in result
        }
        figure = Figure(figsize=(13.0, 4.2), layout="constrained")
        roc, complete, ratio = figure.subplots(1, 3)
        middle = 0.5 * (_SNR_EDGES[1:] + _SNR_EDGES[:-1])
        ratio_middle = np.sqrt(_RATIO_EDGES[1:] * _RATIO_EDGES[:-1])
        for number, (row, results) in enumerate(shown):
            colour = _COLOURS.get(row.method, f"C{4 + number}")
            _draw_roc(roc, results, row.method, colour)
            # Errors of neighbouring methods beside each other.
            aside = 0.04 * (number - 0.5 * len(shown))
            values, error = completeness_curve(results)
            complete.errorbar(middle + aside, values, error, color=colour, marker=".", label=row.method)
            if row.method != "ideal" and ideal:
                values, error = snr_ratio_curve(results, ideal)
                ratio.errorbar(
                    ratio_middle * np.exp(aside), values, error, color=colour, marker=".", label=row.method
                )
        roc.set(
            xscale="log",
            xlabel="false detections / Mpix, both signs",
            ylabel="completeness at S/N 5-7",
            title="thresholds; points: 5 sigma",
        )
        complete.axvline(DETECTION_THRESHOLD, color="0.7", linewidth=0.8)
        complete.set(xlabel="ideal S/N", ylabel="completeness", title="found at 5 sigma", ylim=(-0.02, 1.05))
        ratio.axhline(1.0, color="0.7", linewidth=0.8)
        ratio.set(
            xscale="log", xlabel="score of the ideal", ylabel="score / score of the ideal", title="isolated"
        )
        ratio.set_ylim(*_RATIO_SHOWN)
        for axes in (roc, complete, ratio):
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize="small")
        figure.suptitle(group)
        path = folder / plot_name(group)
        figure.savefig(path, dpi=90)
        written.append(path)
    return written


def _draw_roc(axes: Axes, results: Sequence[dict[str, Any]], label: str, colour: str) -> None:
    rate, complete = roc_curve(results)
    shown = rate > 0
    if not shown.any() or not np.isfinite(complete).all():
        return
    axes.plot(rate[shown], complete[shown], color=colour, label=label)
    at_five = int(np.argmin(np.abs(_THRESHOLDS - DETECTION_THRESHOLD)))
    # With no false detections at all the point is at the left end of the line.
    axes.plot(max(rate[at_five], rate[shown].min()), complete[at_five], "o", color=colour)
