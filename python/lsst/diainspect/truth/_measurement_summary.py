"""Pulls, ratios and offsets of what was measured on detected objects."""

from __future__ import annotations

__all__ = ["add_measurements"]

import numpy as np

from ._bootstrap import bootstrap
from ._method_truth import MethodTruth, proportion
from ._pulls import TAIL, pull_statistics
from ._summary_rows import Place, SummaryRows
from ._summary_settings import SummarySettings

_PULLS = {
    "fluxPull": "Pull of the flux, (psfFlux - fluxChange) / psfFluxErr",
    "xPull": "Pull of x",
    "yPull": "Pull of y",
}


def add_measurements(rows: SummaryRows, method: MethodTruth, settings: SummarySettings) -> None:
    """Add pulls, flux and S/N ratios and offsets of detected objects, above the least S/N and in bins of it."""
    ideal = np.asarray(method.table["idealSnr"], dtype=float)
    # Where the truth does not know the ideal S/N, the measured one says what is bright.
    snr = np.where(np.isfinite(ideal), ideal, np.asarray(method.table["snr"], dtype=float))
    members = np.flatnonzero(method.is_detected)
    edges = np.asarray(settings.edges["idealSnr"])
    bins = [(settings.least_snr, np.inf, "")]
    bins += [(low, high, "idealSnr") for low, high in zip(edges[:-1], edges[1:], strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(method.table["psfFlux"]) / np.asarray(method.table["fluxChange"])
    for low, high, variable in bins:
        inside = members[(snr[members] >= low) & (snr[members] < high)]
        if variable and len(inside) == 0:
            continue
        place = Place(variable, low, high if variable else np.nan)
        for column, doc in _PULLS.items():
            _add_pull(rows, method, settings, column, doc, inside, place)
        for statistic, values, unit, doc in (
            ("snrOverIdeal", np.asarray(method.table["snrOverIdeal"]), "", "Median S/N over the ideal S/N."),
            ("fluxRatio", ratio, "", "Median of psfFlux / fluxChange."),
            (
                "separation",
                1000.0 * np.asarray(method.table["separation"]),
                "mas",
                "Median distance between source and object.",
            ),
        ):
            good = inside[np.isfinite(values[inside])]

            def middle(drawn: np.ndarray, own: np.ndarray = values[good]) -> np.ndarray:
                return np.asarray(np.median(own[drawn]) if len(drawn) else np.nan)

            lower, upper = bootstrap(middle, method.group[good], settings.resampling)
            value = float(middle(np.arange(len(good))))
            rows.add(
                *(method.name, statistic, value, float(lower), float(upper), len(good), doc),
                unit=unit,
                place=place,
            )


def _add_pull(
    rows: SummaryRows,
    method: MethodTruth,
    settings: SummarySettings,
    column: str,
    doc: str,
    inside: np.ndarray,
    place: Place,
) -> None:
    good = inside[np.isfinite(np.asarray(method.table[column], dtype=float)[inside])]
    pulls = np.asarray(method.table[column], dtype=float)[good]

    def middle_and_width(drawn: np.ndarray) -> np.ndarray:
        measured = pull_statistics(pulls[drawn])
        return np.array([measured.median, measured.sigma])

    numbers = middle_and_width(np.arange(len(good)))
    lower, upper = bootstrap(middle_and_width, method.group[good], settings.resampling)
    for index, (suffix, meaning) in enumerate(
        (("Median", "median, 0 without bias"), ("Sigma", "robust sigma, 1 where errors are right"))
    ):
        rows.add(
            *(method.name, f"{column}{suffix}", numbers[index], lower[index], upper[index], len(good)),
            f"{doc}: {meaning}.",
            place=place,
        )
    trial = np.zeros((len(method.table), 1), dtype=bool)
    trial[good] = True
    tail = np.abs(np.asarray(method.table[column], dtype=float))[:, None] > TAIL
    value, low, high, n = proportion(method, tail, trial, settings)
    rows.add(
        *(method.name, f"{column}Tail", value[0], low[0], high[0], n[0]),
        f"{doc}: part beyond {TAIL:.0f}, 0.0027 for a normal distribution.",
        place=place,
    )
