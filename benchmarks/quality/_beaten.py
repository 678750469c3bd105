"""Where our methods miss a bar, and where another method has a better figure on the same scenes."""

from __future__ import annotations

__all__ = ["beaten", "write_beaten"]

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ._bars import bar_of
from ._methods import OWN_METHODS
from ._page import write_between
from ._peers import PEERS
from ._pool import PooledResults
from ._table import ROWS, PooledGroups, describe_group

BEGIN, END = "<!-- beaten: begin -->", "<!-- beaten: end -->"

_SIGNIFICANT = 2.0
"""Combined errors by which another figure must be better to be named."""


def _from_one(value: float) -> float:
    return abs(value - 1.0)


_BADNESS: dict[str, Callable[[float], float]] = {
    "scoreSigma": _from_one,
    "differenceSigma": _from_one,
    "correlation": abs,
    "false": float,
    "duplicates": float,
    "completeness": lambda value: -value,
    "half": float,
    "stars16": float,
    "stars18": float,
    "stars16Fitted": float,
    "stars18Fitted": float,
    "flux": abs,
    "cpu": float,
    "memory": float,
}
"""Rows in which methods are compared, and what is the larger the worse the figure is. The S/N of scores is not among
them, for those of peers do not know of all noise."""


def beaten(pooled: PooledGroups) -> str:
    """Return a Markdown list of what our methods miss, by kind of scene.

    Parameters
    ----------
    pooled : `dict`
        What `benchmarks.quality._table.pooled_groups` returned.
    """
    parts = []
    for group, entries in pooled.items():
        rows = [row for row, _ in entries if row.figures]
        lines = [line for row in rows if row.method in OWN_METHODS for line in _of_method(row, rows, group)]
        if lines:
            parts.append("\n".join([f"{describe_group(group)}:", "", *lines]))
    return "\n\n".join(parts) or "Nowhere in these tables."


def _of_method(row: PooledResults, rows: Sequence[PooledResults], group: str) -> list[str]:
    lines = []
    title = ""
    for name, own_title, text in ROWS:
        # Rows that begin with dots go on from the one before.
        title = f"{title.partition(', ')[0]}, {own_title[4:]}" if own_title.startswith("...") else own_title
        bar = bar_of(name, group)
        verdict = bar.verdict(row) if bar else ""
        if bar and verdict in ("missed", "open"):
            lines.append(f"- {row.method}: {title}: {text(row)}; bar {bar.text}: {verdict}.")
        if name not in _BADNESS:
            continue
        better = [
            other.method for other in rows if other.method != row.method and _is_better(name, other, row)
        ]
        if better:
            shown = ", ".join(f"{other.method} {text(other)}" for other in rows if other.method in better)
            lines.append(f"- {row.method}: {title}: {text(row)}; better: {shown}.")
    return lines


def _is_better(name: str, other: PooledResults, row: PooledResults) -> bool:
    """Return whether another method's figure is better by more than chance.

    Neither the ideal's cost counts nor what peers leave of stars that only our methods were kept from fitting on.
    """
    if name in ("cpu", "memory") and other.method == "ideal":
        return False
    if name in ("stars16", "stars18") and other.method in PEERS:
        return False
    theirs, ours = other.figures[name], row.figures[name]
    error = float(np.hypot(np.nan_to_num(theirs.error), np.nan_to_num(ours.error)))
    difference = _BADNESS[name](ours.value) - _BADNESS[name](theirs.value)
    return bool(np.isfinite(difference) and difference > _SIGNIFICANT * error and error > 0)


def write_beaten(page: Path, text: str) -> None:
    """Put the list between its markers of a page; ValueError when it has none."""
    write_between(page, BEGIN, END, text)
