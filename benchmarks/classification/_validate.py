"""Validation: how good the scores are on detectors with other seeds and other PSFs."""

from __future__ import annotations

__all__ = ["Validation", "validate"]

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from lsst.diainspect.classification import CauseModel, Evidence, expected_calibration_error
from lsst.diainspect.truth import binomial_interval

from ._labels import LABELS, label_truth, main_label, signals
from ._surveys import TARGETS_FROM

LEVEL = 0.95
"""Confidence level of the intervals."""

SNR_BINS = ((5.0, 7.0), (7.0, 10.0), (10.0, 20.0), (20.0, 50.0), (50.0, np.inf))

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Validation:
    """What came out.

    Parameters
    ----------
    rows : `list` [`tuple` [`str`, `str`, `str`]]
        Figure, value with interval, number of sources.
    names : `tuple` [`str`, ...]
        Labels, and unknown.
    confusion : `numpy.ndarray`, (n_labels, n_labels + 1)
        Sources with one true label, by it and by the label of the highest score.
    scores, truth : `dict` [`str`, `numpy.ndarray`]
        Scores and truth of each label where that is known.
    """

    rows: list[tuple[str, str, str]]
    names: tuple[str, ...]
    confusion: np.ndarray
    scores: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


def validate(everything: Table, model: CauseModel) -> Validation:
    """Measure a model on sources with truth.

    Parameters
    ----------
    everything : `astropy.table.Table`
        Sources with evidence and truth; those of detectors from `TARGETS_FROM` on count for single claims only.
    model : `CauseModel`
        Model.
    """
    table = everything[np.asarray(everything["detectorNumber"]) < TARGETS_FROM]
    scores, _ = model.scores(Evidence(table))
    truth, signal, only = label_truth(table), signals(table), main_label(table)
    stacked = np.stack([scores[label] for label in LABELS], axis=1)
    names = (*LABELS, UNKNOWN)
    best = np.where(stacked.max(axis=1) < 0.5, len(LABELS), stacked.argmax(axis=1))
    confusion = np.zeros((len(LABELS), len(names)), dtype=int)
    for row, label in enumerate(LABELS):
        confusion[row] = np.bincount(best[only == label], minlength=len(names))
    rows: list[tuple[str, str, str]] = []

    def proportion(title: str, good: np.ndarray) -> None:
        rows.append((title, _with_interval(int(good.sum()), good.size), str(good.size)))

    there = confusion.sum(axis=1) > 0
    recall = np.diag(confusion)[there] / confusion.sum(axis=1)[there]
    rows.append(
        (
            f"balanced accuracy, {there.sum()} causes",
            _balanced_interval(np.diag(confusion)[there], confusion.sum(axis=1)[there]),
            str(confusion.sum()),
        )
    )
    for label, hits, n in zip(
        np.array(LABELS)[there], np.diag(confusion)[there], confusion.sum(axis=1)[there], strict=True
    ):
        rows.append((f"recall of {label}", _with_interval(int(hits), int(n)), str(n)))
    assert len(recall) == there.sum()
    is_real = scores["real"] >= 0.5
    changed = truth["real"][0]
    for low, high in SNR_BINS:
        chosen = changed & (signal["real"] >= low) & (signal["real"] < high)
        upper = f"to {high:g}" if np.isfinite(high) else "and more"
        proportion(f"real is kept, S/N {low:g} {upper}", is_real[chosen])
    rows += _claims(everything, model)
    proportion("anything without flux change is called real", is_real[truth["real"][1] & ~changed])
    known = {label: values[1] for label, values in truth.items()}
    own_scores = {label: scores[label][known[label]] for label in LABELS}
    own_truth = {label: truth[label][0][known[label]] for label in LABELS}
    for label in LABELS:
        error = expected_calibration_error(own_scores[label], own_truth[label])
        rows.append((f"calibration error of {label}", f"{error:.3f}", str(len(own_scores[label]))))
    top = np.max(stacked, axis=1)
    right = np.array([truth[LABELS[b]][0][i] if b < len(LABELS) else False for i, b in enumerate(best)])
    told = np.array([known[LABELS[b]][i] if b < len(LABELS) else False for i, b in enumerate(best)])
    rows.append(
        (
            "calibration error of the highest score",
            f"{expected_calibration_error(top[told], right[told]):.3f}",
            str(told.sum()),
        )
    )
    return Validation(rows, names, confusion, own_scores, own_truth)


def _claims(table: Table, model: CauseModel) -> list[tuple[str, str, str]]:
    """Return the figures on changes of S/N 8 and artefacts of S/N 15, of the detectors made for them."""
    is_real = model.scores(Evidence(table))[0]["real"] >= 0.5
    signal = signals(table)
    scenario = np.asarray(table["scenario"]).astype(str)
    changed = (signal["real"] > 7.5) & (signal["real"] < 8.5)
    few, many = np.isin(scenario, ("shift_8", "shift_12")), scenario == "half_change"
    on_galaxy = changed & (scenario == "hosts")
    on_shift = {
        name: (signal["shift"] > low) & (signal["shift"] < high)
        for name, low, high in (("6.5 to 9.5", 6.5, 9.5), ("10 to 14", 10.0, 14.0))
    }
    chosen = {
        f"real of S/N 7.5 to 8.5 is kept on a shift of S/N {name}": changed & few & shift
        for name, shift in on_shift.items()
    }
    chosen["the same on shifts of S/N 6.5 to 14, half of the stars changing"] = (
        changed & many & (signal["shift"] > 6.5) & (signal["shift"] < 14.0)
    )
    chosen["real of S/N 7.5 to 8.5 is kept on host galaxies"] = on_galaxy
    chosen["of these where the host is measured as a galaxy"] = on_galaxy & (
        np.asarray(table["residualModes_isExtended"], dtype=float) > 0
    )
    parts = [signal[name] for name in ("shift", "width", "psfEllipticity")]
    artefact = np.sqrt(np.sum(np.square(parts), axis=0))
    alone = (signal["real"] == 0) & (signal["moving"] == 0) & (np.asarray(table["true_other"]) == 0)
    alone &= (artefact > 12.0) & (artefact < 18.0)
    largest = np.argmax(parts, axis=0)
    chosen["artefact of S/N 12 to 18 without flux change is called real"] = alone
    for number, name in enumerate(("shift", "width", "shear")):
        chosen[f"of these mostly a {name}"] = alone & (largest == number)
    return [
        (title, _with_interval(int(is_real[mask].sum()), int(mask.sum())), str(mask.sum()))
        for title, mask in chosen.items()
    ]


def _with_interval(n_good: int, n: int) -> str:
    """Return a proportion with its Wilson interval."""
    if n == 0:
        return "none"
    low, high = binomial_interval(n_good, n, LEVEL, "wilson")
    return f"{n_good / n:.3f} ({float(low):.3f} to {float(high):.3f})"


def _balanced_interval(n_good: np.ndarray, n: np.ndarray) -> str:
    """Return the mean of proportions; half widths of Wilson intervals add up in quadrature about their centres."""
    low, high = binomial_interval(n_good, n, LEVEL, "wilson")
    value = float((n_good / n).mean())
    down = np.sqrt(((n_good / n - low) ** 2).sum()) / len(n)
    up = np.sqrt(((high - n_good / n) ** 2).sum()) / len(n)
    return f"{value:.3f} ({value - down:.3f} to {value + up:.3f})"
