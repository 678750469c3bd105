"""Metrics of many detectors by method, and their paired differences, with intervals from a bootstrap over detectors."""

from __future__ import annotations

__all__ = ["METHOD_SUMMARY_COLUMNS", "summarise_methods"]

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from astropy.table import Column, Table

from ..truth import Resampling, bootstrap, match_positions

METHOD_SUMMARY_COLUMNS: dict[str, tuple[str, str]] = {
    "method": ("U32", "Method."),
    "reference": ("U32", "Method whose value on the same detector or star is subtracted; empty for none."),
    "metric": ("U32", "What was measured."),
    "variable": ("U16", "Quantity that is binned; empty for a metric of a whole detector."),
    "low": ("float64", "Lower edge of the bin, in the unit of the variable."),
    "high": ("float64", "Upper edge of the bin."),
    "mean": ("float64", "Mean over detectors or stars, in unit."),
    "meanLower": ("float64", "Lower limit of the interval of one sigma of the mean."),
    "meanUpper": ("float64", "Upper limit of the interval of one sigma of the mean."),
    "median": ("float64", "Median over detectors or stars, in unit."),
    "medianLower": ("float64", "Lower limit of the interval of one sigma of the median."),
    "medianUpper": ("float64", "Upper limit of the interval of one sigma of the median."),
    "scatter": ("float64", "Robust sigma over detectors or stars."),
    "n": ("int64", "Detectors or stars."),
    "nDetectors": ("int64", "Detectors."),
    "unit": ("U16", "Unit of the values."),
    "description": ("U256", "Meaning of the metric."),
}
"""Type and meaning of the columns of the summary."""

_SAME_STAR = 2.0
"""Largest distance between the positions of one star in the tables of two methods [pixel]."""


def summarise_methods(
    metrics: Mapping[str, Table],
    stars: Mapping[str, Table],
    magnitude_edges: Sequence[float],
    resampling: Resampling | None = None,
) -> Table:
    """Summarise metrics over detectors.

    A paired difference is that of one detector, or of one star, in two methods: what the methods share - noise, seeing,
    stars that vary - drops out, so its interval is narrower than those of the two values. Intervals are those of a
    bootstrap over detectors; with fewer than five the values themselves are drawn.

    Parameters
    ----------
    metrics : mapping [`str`, `astropy.table.Table`]
        Metrics of each method: ``visit``, ``detector``, ``metric``, ``value``, ``unit``, ``description``.
    stars : mapping [`str`, `astropy.table.Table`]
        Star residuals of each method, with ``visit`` and ``detector``; a method may be absent.
    magnitude_edges : sequence [`float`]
        Edges of the bins of the stars' magnitudes [mag].
    resampling : `Resampling`, optional
        How to resample.

    Returns
    -------
    summary : `astropy.table.Table`
        One row a method, metric and bin, and one a pair of methods, metric and bin.
    """
    resampling = resampling if resampling is not None else Resampling()
    rows: list[dict[str, Any]] = []
    for method, table in metrics.items():
        for metric, (values, meaning) in _by_metric(table).items():
            keys = list(values)
            rows.append(
                {"method": method, "metric": metric, **meaning}
                | _summary(np.array([values[key] for key in keys]), _groups(keys), resampling)
            )
    for method, reference in combinations(metrics, 2):
        first, second = _by_metric(metrics[method]), _by_metric(metrics[reference])
        for metric in (name for name in first if name in second):
            own, other = first[metric][0], second[metric][0]
            keys = [key for key in own if key in other]
            rows.append(
                {"method": method, "reference": reference, "metric": metric, **first[metric][1]}
                | _summary(np.array([own[key] - other[key] for key in keys]), _groups(keys), resampling)
            )
    bins = list(zip(magnitude_edges[:-1], magnitude_edges[1:], strict=True))
    for method, table in stars.items():
        for role, metric, doc in _STAR_METRICS:
            here = np.asarray(table["role"]).astype(str) == role
            rows += _star_rows(
                {"method": method, "metric": metric, "description": doc}, table[here], "rms", bins, resampling
            )
    for method, reference in combinations(stars, 2):
        paired = _pair_stars(stars[method], stars[reference])
        for role, metric, doc in _STAR_METRICS:
            here = np.asarray(paired["role"]).astype(str) == role
            names = {"method": method, "reference": reference, "metric": metric, "description": doc}
            rows += _star_rows(names, paired[here], "difference", bins, resampling)
    summary = Table()
    for name, (dtype, doc) in METHOD_SUMMARY_COLUMNS.items():
        missing = "" if dtype.startswith("U") else (0 if dtype == "int64" else np.nan)
        column = np.array([row.get(name, missing) for row in rows], dtype=dtype)
        summary[name] = Column(column, description=doc)
    return summary


_STAR_METRICS = (
    (
        "fit",
        "starRmsFit",
        "Rms of difference / sqrt(variance) at static stars that the images were matched on.",
    ),
    (
        "heldOut",
        "starRmsHeldOut",
        "Rms of difference / sqrt(variance) at static stars that the match has not seen.",
    ),
)
"""Role of the stars, name and meaning of what is summarised of them by magnitude."""


def _by_metric(table: Table) -> dict[str, tuple[dict[tuple[int, int], float], dict[str, str]]]:
    """Return for each metric the finite values by (visit, detector), and unit and description."""
    found: dict[str, tuple[dict[tuple[int, int], float], dict[str, str]]] = {}
    for row in table:
        values, _ = found.setdefault(
            str(row["metric"]), ({}, {"unit": str(row["unit"]), "description": str(row["description"])})
        )
        if np.isfinite(row["value"]):
            values[int(row["visit"]), int(row["detector"])] = float(row["value"])
    return found


def _groups(keys: Sequence[tuple[int, int]]) -> np.ndarray:
    """Number the detectors; each visit's counts for itself."""
    number: dict[tuple[int, int], int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=int)


def _summary(values: np.ndarray, groups: np.ndarray, resampling: Resampling) -> dict[str, Any]:
    def both(drawn: np.ndarray) -> np.ndarray:
        if len(drawn) == 0:
            return np.full(2, np.nan)
        return np.array([values[drawn].mean(), np.median(values[drawn])])

    mean, median = both(np.arange(len(values)))
    lower, upper = bootstrap(both, groups, resampling)
    if len(values) < 2:
        # One value does not tell how far the next one is.
        lower, upper = np.full((2, 2), np.nan)
    return {
        "mean": mean,
        "meanLower": lower[0],
        "meanUpper": upper[0],
        "median": median,
        "medianLower": lower[1],
        "medianUpper": upper[1],
        "scatter": 1.4826 * np.median(np.abs(values - median)) if len(values) > 1 else np.nan,
        "n": len(values),
        "nDetectors": len(np.unique(groups)),
    }


def _star_rows(
    names: dict[str, Any],
    table: Table,
    column: str,
    bins: Sequence[tuple[float, float]],
    resampling: Resampling,
) -> list[dict[str, Any]]:
    magnitude = np.asarray(table["magnitude"], dtype=float)
    values = np.asarray(table[column], dtype=float)
    keys = list(zip(np.asarray(table["visit"]).tolist(), np.asarray(table["detector"]).tolist(), strict=True))
    groups = _groups(keys)
    rows = []
    for low, high in bins:
        here = (magnitude >= low) & (magnitude < high) & np.isfinite(values)
        if here.any():
            place = {"variable": "magnitude", "low": low, "high": high}
            rows.append({**names, **place} | _summary(values[here], groups[here], resampling))
    return rows


def _pair_stars(first: Table, second: Table) -> Table:
    """Return the stars that have the same role in two methods, with the difference of their rms."""
    parts = []
    for table in (first, second):
        keys = np.stack([np.asarray(table[name], dtype=np.int64) for name in ("visit", "detector")], axis=-1)
        parts.append((table, keys))
    pairs = []
    for key in np.unique(parts[0][1], axis=0):
        own, other = (np.flatnonzero((keys == key).all(axis=1)) for _, keys in parts)
        if len(other) == 0:
            continue
        here, there = (
            np.stack([np.asarray(table[name], dtype=float)[index] for name in ("x", "y")], axis=-1)
            for table, index in ((first, own), (second, other))
        )
        matched = match_positions(here, there, _SAME_STAR)
        pairs.append((own[matched.first], other[matched.second]))
    own, other = (
        (np.concatenate(side) for side in zip(*pairs, strict=True)) if pairs else (np.zeros(0, int),) * 2
    )
    same = np.asarray(first["role"])[own] == np.asarray(second["role"])[other]
    own, other = own[same], other[same]
    paired = first[own]["visit", "detector", "magnitude", "role"]
    paired["difference"] = np.asarray(first["rms"])[own] - np.asarray(second["rms"])[other]
    return paired
