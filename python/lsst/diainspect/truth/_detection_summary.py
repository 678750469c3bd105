"""Counts, completeness and its limits: what of the truth was detected."""

from __future__ import annotations

__all__ = ["add_completeness", "add_counts", "add_thresholds"]

import numpy as np

from ._bootstrap import Resampling, bootstrap, bootstrap_ratio
from ._completeness import DetectionCurve, fit_detection_curve
from ._intervals import poisson_interval
from ._method_truth import MethodTruth, bin_members, proportion
from ._summary_rows import Place, SummaryRows
from ._summary_settings import SummarySettings

_TARGETS = (0.5, 0.9)
_MAX_CURVE_RESAMPLES = 100
"""A curve is fitted anew for each resample; so many tell its interval to a tenth."""

_UNITS = {
    "idealSnr": "",
    "mag": "mag",
    "hostSurfaceBrightness": "mag / arcsec2",
    "hostSeparation": "arcsec",
}


def add_counts(rows: SummaryRows, method: MethodTruth, settings: SummarySettings) -> None:
    table = method.table
    duplicate, spurious = np.asarray(table["isDuplicate"]), np.asarray(table["isSpurious"])
    nan = float("nan")
    n_detectors = len(method.detectors)
    rows.add(method.name, "detectors", n_detectors, nan, nan, n_detectors, "Detector images compared.")
    area = float(method.area.sum())
    rows.add(method.name, "area", area, nan, nan, n_detectors, "Fiducial area.", unit="deg2")
    for statistic, member, doc in (
        ("nTruth", method.is_truth, "Objects that changed."),
        ("nSources", method.is_source, "DIA sources."),
        ("nDetected", method.is_detected, "Objects that were detected."),
        ("nSpurious", spurious, "Sources without an object."),
        ("nDuplicates", duplicate, "Further sources on detected objects."),
    ):
        n = int(member.sum())
        lower, upper = poisson_interval(n, settings.resampling.level)
        rows.add(method.name, statistic, n, float(lower), float(upper), n, doc)
    chance = method.sum(np.asarray(table["chanceMatch"], dtype=float) * method.is_truth)
    sources = method.sum(method.is_source)
    for statistic, below, doc in (
        ("chanceMatches", np.full(n_detectors, 1.0 / n_detectors), "Matches that chance makes, in all"),
        ("chanceRate", sources, "Matches that chance makes, a source"),
    ):
        lower, upper = bootstrap_ratio(chance, below, settings.resampling)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = chance.sum() / below.sum()
        doc = f"{doc}: from sources displaced at random."
        rows.add(method.name, statistic, value, float(lower), float(upper), int(sources.sum()), doc)
    part, low, high, n_detected = proportion(
        method, np.asarray(table["nDuplicates"])[:, None] > 0, method.is_detected[:, None], settings
    )
    doc = "Part of the detected objects that have more than one source."
    rows.add(method.name, "duplicatedFraction", part[0], low[0], high[0], n_detected[0], doc)


def add_completeness(rows: SummaryRows, method: MethodTruth, settings: SummarySettings) -> None:
    doc = "Part of the objects that was detected."
    for variable in ("", *settings.edges):
        member = (
            bin_members(method, variable, settings) if variable else np.ones((len(method.table), 1), bool)
        )
        trial = member & method.is_truth[:, None]
        value, lower, upper, n = proportion(method, method.is_detected[:, None], trial, settings)
        edges = settings.edges[variable] if variable else (np.nan, np.nan)
        for index in np.flatnonzero(n) if variable else (0,):
            rows.add(
                *(method.name, "completeness", value[index], lower[index], upper[index], n[index], doc),
                place=Place(variable, edges[index], edges[index + 1]),
            )


def add_thresholds(rows: SummaryRows, method: MethodTruth, settings: SummarySettings) -> None:
    """Add where a smooth curve of completeness reaches 50 and 90 per cent, and its plateau."""
    members = np.flatnonzero(method.is_truth)
    detected = method.is_detected[members]
    resampling = Resampling(
        min(settings.resampling.n_resamples, _MAX_CURVE_RESAMPLES),
        settings.resampling.level,
        settings.resampling.seed,
    )
    for variable, rising in (("idealSnr", True), ("mag", False)):
        values = np.asarray(method.table[variable], dtype=float)[members]
        # Whatever is brighter was detected long ago, and would only blur the step.
        curve = fit_detection_curve(values, detected, rising=rising)

        def solve(
            drawn: np.ndarray,
            values: np.ndarray = values,
            rising: bool = rising,
            curve: DetectionCurve | None = curve,
        ) -> np.ndarray:
            fit = fit_detection_curve(values[drawn], detected[drawn], rising=rising, start=curve)
            return _curve_numbers(fit)

        if curve is None:
            numbers = lower = upper = np.full(1 + len(_TARGETS), np.nan)
        else:
            numbers = _curve_numbers(curve)
            lower, upper = bootstrap(solve, method.group[members], resampling)
        n = int(np.isfinite(values).sum())
        for index, target in enumerate(_TARGETS):
            rows.add(
                method.name,
                f"thresholdAt{100 * target:.0f}",
                *(numbers[index], lower[index], upper[index], n),
                f"Where a smooth curve of completeness reaches {100 * target:.0f} %; NaN where the data do not.",
                unit=_UNITS[variable],
                place=Place(variable),
            )
        rows.add(
            *(method.name, "completenessPlateau", numbers[-1], lower[-1], upper[-1], n),
            "Completeness far from the limit, of the same curve.",
            place=Place(variable),
        )


def _curve_numbers(curve: DetectionCurve | None) -> np.ndarray:
    if curve is None:
        return np.full(1 + len(_TARGETS), np.nan)
    return np.array([*(curve.solve(target) for target in _TARGETS), curve.plateau])
