"""The figures and the table of the validation for the documentation."""

from __future__ import annotations

__all__ = ["write_figures", "write_table"]

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")

import matplotlib.pyplot as plt

from lsst.diainspect.classification import reliability
from lsst.diainspect.truth import binomial_interval

from ._validate import LEVEL, Validation

_BEGIN, _END = "<!-- figures of the validation: begin -->", "<!-- figures of the validation: end -->"
_COLOURS = ("#0072B2", "#E69F00")
_SIZE, _DPI = (6.4, 5.6), 90


def write_table(page: Path, results: Mapping[str, Validation], sentence: str) -> None:
    """Put a table of the figures between the page's two marks.

    Raises
    ------
    ValueError
        If the page does not have the marks.
    """
    text = page.read_text()
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(f"{page} must have the lines {_BEGIN!r} and {_END!r} once each.")
    lines = [sentence, "", "| | " + " | ".join(f"{name} | sources" for name in results) + " |"]
    lines.append("| --- " * (1 + 2 * len(results)) + "|")
    for rows in zip(*(result.rows for result in results.values()), strict=True):
        title = next(row[0] for row in rows)
        lines.append(f"| {title} | " + " | ".join(f"{row[1]} | {row[2]}" for row in rows) + " |")
    body = f"{_BEGIN}\n" + "\n".join(lines) + f"\n{_END}"
    page.write_text(re.sub(f"{_BEGIN}.*{_END}", lambda _: body, text, flags=re.DOTALL))


def write_figures(folder: Path, results: Mapping[str, Validation]) -> None:
    """Draw the confusion matrix of the first result and the reliability of all."""
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(results.values()))
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    n = first.confusion.sum(axis=1, keepdims=True)
    part = first.confusion / np.maximum(n, 1)
    image = axes.imshow(part, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(first.confusion):
        if count:
            colour = "white" if part[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(first.names)), first.names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(first.names) - 1), first.names[:-1], fontsize=8)
    axes.set_xlabel("label of the highest score")
    axes.set_ylabel("true label, sources with one")
    axes.set_title("Causes on simulated detectors, PSF families not trained on", fontsize=9)
    figure.colorbar(image, label="part of the row", shrink=0.8)
    figure.savefig(folder / "confusion.png", dpi=_DPI)
    plt.close(figure)

    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained", sharey=True)
    for colour, (name, result) in zip(_COLOURS, results.items(), strict=False):
        for panel, labels, title in (
            (axes[0], ["real"], "real"),
            (axes[1], [label for label in result.scores if label != "real"], "all other labels"),
        ):
            table = reliability(
                np.concatenate([result.scores[label] for label in labels]),
                np.concatenate([result.truth[label] for label in labels]),
            )
            low, high = binomial_interval(table["nTrue"], table["n"], LEVEL, "wilson")
            frequency = np.asarray(table["frequency"])
            panel.errorbar(
                table["score"],
                frequency,
                [np.maximum(frequency - low, 0.0), np.maximum(high - frequency, 0.0)],
                fmt="o-",
                ms=4,
                color=colour,
                label=name,
            )
            panel.plot([0, 1], [0, 1], color="0.6", lw=1, zorder=0)
            panel.set_xlabel("score")
            panel.set_title(title, fontsize=10)
    axes[0].set_ylabel("part of which it is true")
    axes[0].legend(fontsize=8)
    figure.savefig(folder / "reliability.png", dpi=_DPI)
    plt.close(figure)
