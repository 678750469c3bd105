"""Purity, false sources and what cuts and thresholds on scores do to them."""

from __future__ import annotations

__all__ = ["add_curves", "add_cuts", "flag_columns"]

from typing import Any

import numpy as np
from astropy.table import Column, Table

from ..stamps import Query
from ._bootstrap import bootstrap, bootstrap_ratio
from ._curves import score_curve, summarise_curve
from ._intervals import poisson_interval
from ._method_truth import MethodTruth, proportion, wider_interval
from ._summary_rows import Place, SummaryRows
from ._summary_settings import SummarySettings

_MAX_CURVE_POINTS = 500

_NOT_CUTS = frozenset({"isTruth", "isDetected", "isDuplicate", "isSpurious", "isFiducial", "isNegative"})


def flag_columns(matches: Table) -> list[str]:
    """Return the flags of the sources in a match table that some source has."""
    has_source = np.asarray(matches["diaSourceId"]) != 0
    return [
        name
        for name in matches.colnames
        if matches[name].dtype.kind == "b"
        and name not in _NOT_CUTS
        and np.asarray(matches[name])[has_source].any()
    ]


def _cut_masks(method: MethodTruth, settings: SummarySettings) -> dict[str, np.ndarray | None]:
    """Return, for no cut, each flag and each condition, which sources it takes away; None for a missing column."""
    masks: dict[str, np.ndarray | None] = {"": np.zeros(len(method.table), dtype=bool)}
    for name in flag_columns(method.table):
        masks[name] = np.asarray(method.table[name], dtype=bool)
    for text in settings.cuts:
        query = Query(text)
        # A column that this method's sources do not have: the row says so by having no value.
        there = query.columns <= set(method.table.colnames)
        masks[text] = query.select(method.table) if there else None
    return masks


def add_cuts(rows: SummaryRows, method: MethodTruth, settings: SummarySettings) -> None:
    """Add purity, false sources per area and completeness, with nothing and with each cut taken away."""
    masks = _cut_masks(method, settings)
    present = {name: mask for name, mask in masks.items() if mask is not None}
    names = list(present)
    kept = ~np.stack(list(present.values()), axis=1)
    source = kept & method.is_source[:, None]
    false = source & ~method.is_detected[:, None]
    purity = proportion(method, method.is_detected[:, None] & kept, source, settings)
    complete = proportion(
        method,
        method.is_detected[:, None] & kept,
        np.broadcast_to(method.is_truth[:, None], kept.shape),
        settings,
    )
    n_false = method.sum(false)
    total, area = n_false.sum(axis=0), float(method.area.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = total / area
        poisson = tuple(limit / area for limit in poisson_interval(total, settings.resampling.level))
    drawn = bootstrap_ratio(
        n_false, np.broadcast_to(method.area[:, None], n_false.shape), settings.resampling
    )
    limits = wider_interval((poisson[0], poisson[1]), drawn)
    for name, mask in masks.items():
        index = names.index(name) if mask is not None else -1
        for statistic, (value, lower, upper, n), unit, doc in (
            ("purity", purity, "", "Part of the sources that are objects that changed."),
            (
                "falsePerSquareDegree",
                (rate, *limits, total),
                "1 / deg2",
                "Sources that are not a changed object, or a second one on it, per area.",
            ),
            ("completenessAfterCut", complete, "", "Part of the objects that was detected and kept."),
        ):
            if mask is None:
                rows.add(method.name, statistic, *(np.nan,) * 3, 0, doc, unit=unit, place=Place(cut=name))
                continue
            rows.add(
                *(method.name, statistic, value[index], lower[index], upper[index], n[index], doc),
                unit=unit,
                place=Place(cut=name),
            )


def add_curves(rows: SummaryRows, method: MethodTruth, settings: SummarySettings) -> list[Table]:
    """Add areas under the curves of each score; return the curves."""
    members = np.flatnonzero(method.is_source)
    real = method.is_detected[members]
    n_truth = int(method.is_truth.sum())
    curves = []
    for score in settings.scores:
        if score not in method.table.colnames:
            continue
        values = np.asarray(method.table[score], dtype=float)[members]
        options: dict[str, Any] = {"n_truth": n_truth, "area": float(method.area.sum())}
        curve = score_curve(values, real, max_points=_MAX_CURVE_POINTS, **options)
        for index, (name, column) in enumerate({"method": method.name, "score": score}.items()):
            curve.add_column(
                Column(np.full(len(curve), column), description=f"{name.capitalize()}."), index, name
            )
        curves.append(curve)

        def areas(drawn: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            summary = summarise_curve(score_curve(values[drawn], real[drawn]))
            return np.array([summary.roc_area, summary.average_precision])

        numbers = areas(np.arange(len(members)))
        lower, upper = bootstrap(areas, method.group[members], settings.resampling)
        for index, (statistic, doc) in enumerate(
            (
                ("rocArea", "Probability that a real source has a higher score than a false one."),
                ("averagePrecision", "Mean purity as the threshold falls, over the real sources found."),
            )
        ):
            rows.add(
                *(method.name, statistic, numbers[index], lower[index], upper[index], len(members), doc),
                place=Place(score),
            )
    return curves
