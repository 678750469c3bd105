"""Two methods on the same objects and detectors."""

from __future__ import annotations

__all__ = ["add_pair"]

import numpy as np

from ._bootstrap import bootstrap, bootstrap_ratio
from ._intervals import poisson_interval
from ._method_truth import MethodTruth, wider_interval
from ._paired import pair_detections, paired_detection
from ._summary_rows import Place, SummaryRows
from ._summary_settings import SummarySettings


def add_pair(rows: SummaryRows, first: MethodTruth, second: MethodTruth, settings: SummarySettings) -> None:
    """Add paired statistics of two methods, on the objects and detectors that both have."""
    here, there = pair_detections(first.table, second.table)
    found, found_by_other = first.is_detected[here], second.is_detected[there]
    group = first.group[here]
    snr = np.asarray(first.table["idealSnr"], dtype=float)[here]
    edges = np.asarray(settings.edges["idealSnr"])
    bins = [(-np.inf, np.inf, "")]
    bins += [(low, high, "idealSnr") for low, high in zip(edges[:-1], edges[1:], strict=True)]
    everywhere = Place(reference=second.name)
    for low, high, variable in bins:
        inside = ((snr >= low) & (snr < high)) if variable else np.ones(len(here), dtype=bool)
        if variable and not inside.any():
            continue
        pair = paired_detection(found[inside], found_by_other[inside], settings.resampling.level)
        gain = found[inside].astype(float) - found_by_other[inside]
        by_group = [
            np.bincount(group[inside], weights=weights, minlength=len(first.detectors))
            for weights in (gain, np.ones(len(gain)))
        ]
        lower, upper = wider_interval(
            (np.asarray(pair.lower), np.asarray(pair.upper)),
            bootstrap_ratio(by_group[0], by_group[1], settings.resampling),
        )
        place = Place(variable, low, high, reference=second.name) if variable else everywhere
        n = int(inside.sum())
        doc = "Completeness minus that of the reference, on the same objects."
        rows.add(
            *(first.name, "completenessDifference", pair.difference, float(lower), float(upper), n, doc),
            place=place,
        )
        for statistic, count, doc in (
            ("nOnlyMethod", pair.n_only_first, "Objects that only the method detected."),
            ("nOnlyReference", pair.n_only_second, "Objects that only the reference detected."),
            ("nBoth", pair.n_both, "Objects that both detected."),
        ):
            limits = poisson_interval(count, settings.resampling.level)
            rows.add(*(first.name, statistic, count, float(limits[0]), float(limits[1]), n, doc), place=place)
        doc = "Probability of discordant counts at least as unequal if both are as good (McNemar, exact)."
        rows.add(first.name, "mcnemarP", pair.p_value, np.nan, np.nan, n, doc, place=place)
    both = found & found_by_other
    own, other = (
        np.asarray(method.table["snr"], dtype=float)[rows_of][both]
        for method, rows_of in ((first, here), (second, there))
    )

    def ratio(drawn: np.ndarray) -> np.ndarray:
        return np.asarray(np.median(own[drawn] / other[drawn]) if len(drawn) else np.nan)

    lower, upper = bootstrap(ratio, group[both], settings.resampling)
    doc = "Median S/N over that of the reference, on objects that both detected."
    value = float(ratio(np.arange(int(both.sum()))))
    rows.add(
        first.name, "snrRatio", value, float(lower), float(upper), int(both.sum()), doc, place=everywhere
    )
    _add_false_difference(rows, first, second, settings, everywhere)


def _add_false_difference(
    rows: SummaryRows,
    first: MethodTruth,
    second: MethodTruth,
    settings: SummarySettings,
    place: Place,
) -> None:
    shared = [key for key in first.detectors if key in set(second.detectors)]
    index = [[method.detectors.index(key) for key in shared] for method in (first, second)]
    false = [
        method.sum(method.is_source & ~method.is_detected)[rows_of]
        for method, rows_of in zip((first, second), index, strict=True)
    ]
    area = 0.5 * (first.area[index[0]] + second.area[index[1]])
    difference = false[0] - false[1]
    lower, upper = bootstrap_ratio(difference, area, settings.resampling)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = difference.sum() / area.sum()
    doc = "falsePerSquareDegree minus that of the reference, on the same detectors."
    rows.add(
        *(first.name, "falsePerSquareDegreeDifference", value, float(lower), float(upper), len(shared), doc),
        unit="1 / deg2",
        place=place,
    )
