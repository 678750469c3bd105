"""Which sources the methods disagree on most."""

from __future__ import annotations

__all__ = ["Discrepancy", "rank_discrepant", "signed_snr"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from ._style import method_name

_POOR_FIT = 1.5
"""Reduced chi-square of the PSF fit above which a source does not look like a point."""

_DIFFERENT = 1.0
"""Difference of S/N below which methods agree: less than the noise of one."""

_NEAR = 20.0
"""Distance within which sources are on one stamp [pixel]."""


@dataclass(frozen=True)
class Discrepancy:
    """A source of the comparison table, and why it stands out.

    Parameters
    ----------
    row : `int`
        Row of the table.
    reason : `str`
        In words, for a figure.
    """

    row: int
    reason: str


def signed_snr(joined: Table, method: str) -> np.ndarray:
    """Return the method's S/N of each source, negative for negative sources; NaN where it did not find it."""
    if f"{method}_found" not in joined.colnames:
        return np.full(len(joined), np.nan)
    snr = np.asarray(joined[f"{method}_snr"], dtype=float)
    sign = np.where(np.asarray(joined[f"{method}_isNegative"], dtype=bool), -1.0, 1.0)
    return np.where(np.asarray(joined[f"{method}_found"], dtype=bool), sign * np.abs(snr), np.nan)


def rank_discrepant(joined: Table, methods: Sequence[str], count: int) -> list[Discrepancy]:
    """Choose the sources that tell most about how the methods differ.

    Taken in turn, each source once: the most significant that only some methods found; those with the largest
    difference of signed S/N; those that fit a point source worst in any method. Of sources close together, such as
    the residuals of one bright star, the first stands for all.

    Parameters
    ----------
    joined : `astropy.table.Table`
        Sources of all methods, as `lsst.diainspect.comparison.join_sources` makes them.
    methods : sequence [`str`]
        Methods; those that the table lacks are passed over.
    count : `int`
        Most sources to choose.
    """
    present = [method for method in methods if f"{method}_found" in joined.colnames]
    if not present or len(joined) == 0:
        return []
    snr = np.stack([signed_snr(joined, method) for method in present])
    found = np.isfinite(snr)
    n_found = found.sum(axis=0)
    strength = np.max(np.where(found, np.abs(snr), 0.0), axis=0)
    alone = np.where((n_found > 0) & (n_found < len(present)), strength, 0.0)
    spread = np.max(np.where(found, snr, -np.inf), axis=0) - np.min(np.where(found, snr, np.inf), axis=0)
    spread = np.where((n_found > 1) & (spread > _DIFFERENT), spread, 0.0)
    chi2 = np.stack([_reduced_chi2(joined, method) for method in present])
    worst = np.nanmax(np.where(np.isfinite(chi2), chi2, 0.0), axis=0)
    poor = np.where(worst > _POOR_FIT, worst, 0.0)

    def only(row: int) -> str:
        names = [method_name(method) for method, here in zip(present, found[:, row], strict=True) if here]
        return f"only {' and '.join(names)}"

    kinds = (
        (alone, only),
        (spread, lambda row: f"S/N differ by {spread[row]:.1f}"),
        (poor, lambda row: rf"poor fit: $\chi^2/\nu$ = {worst[row]:.1f}"),
    )
    queues = [
        [(int(row), reason) for row in np.argsort(-value, kind="stable") if value[row] > 0]
        for value, reason in kinds
    ]
    x, y = (np.asarray(joined[name], dtype=float) for name in ("x", "y"))
    shown = np.zeros(len(joined), dtype=bool)
    chosen: list[Discrepancy] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and shown[queue[0][0]]:
                queue.pop(0)
            if not queue or len(chosen) >= count:
                continue
            row, reason = queue.pop(0)
            near = np.hypot(x - x[row], y - y[row]) < _NEAR
            shown |= near
            shown[row] = True
            n_others = int(near.sum()) - 1
            more = f"; {n_others} more within {_NEAR:g} pixels" if n_others > 0 else ""
            chosen.append(Discrepancy(row, reason(row) + more))
    return chosen


def _reduced_chi2(joined: Table, method: str) -> np.ndarray:
    names = [f"{method}_psfChi2", f"{method}_psfNdata"]
    if not set(names) <= set(joined.colnames):
        return np.full(len(joined), np.nan)
    chi2, n_data = (np.asarray(joined[name], dtype=float) for name in names)
    with np.errstate(invalid="ignore", divide="ignore"):
        # The flux is the one free parameter.
        return np.where(n_data > 1, chi2 / (n_data - 1.0), np.nan)
