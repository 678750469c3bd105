"""What a threshold on a score of the sources keeps and loses: ROC and precision-recall curves."""

from __future__ import annotations

__all__ = ["CurveSummary", "score_curve", "summarise_curve"]

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Column, Table


def score_curve(
    score: np.ndarray,
    is_real: np.ndarray,
    *,
    n_truth: int | None = None,
    area: float = np.nan,
    max_points: int | None = None,
) -> Table:
    """Follow real and false sources as the threshold of a score falls.

    Parameters
    ----------
    score : `numpy.ndarray`, (N,)
        Score of each source, larger for what is rather real; NaN counts as lowest.
    is_real : `numpy.ndarray`, (N,), bool
        Which sources are real.
    n_truth : `int`, optional
        Number of objects that could have been found; the number of real sources when omitted.
    area : `float`, optional
        Area [deg^2].
    max_points : `int`, optional
        Largest number of thresholds to keep, evenly in rank; all when omitted.

    Returns
    -------
    curve : `astropy.table.Table`
        One row a threshold, falling: ``threshold`` (sources at or above it are kept), ``nReal``, ``nFalse``,
        ``truePositiveRate`` and ``falsePositiveRate`` (parts of the real and the false sources kept),
        ``completeness`` (recall: real sources kept over all objects), ``purity`` (precision),
        ``falsePerSquareDegree``.
    """
    score = np.where(np.isfinite(score), np.asarray(score, dtype=float), -np.inf)
    is_real = np.asarray(is_real, dtype=bool)
    order = np.argsort(-score, kind="stable")
    score, is_real = score[order], is_real[order]
    n_real, n_false = np.cumsum(is_real), np.cumsum(~is_real)
    # Sources with one score are kept or lost together.
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else np.zeros(0, dtype=int)
    if max_points is not None and len(last) > max_points:
        last = last[np.unique(np.linspace(0, len(last) - 1, max_points).astype(int))]
    all_real, all_false = int(is_real.sum()), int((~is_real).sum())
    n_truth = all_real if n_truth is None else n_truth
    threshold, n_real, n_false = score[last], n_real[last], n_false[last]
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "threshold": (threshold, None, "Sources with this score or a higher one are kept."),
            "nReal": (n_real, None, "Real sources kept."),
            "nFalse": (n_false, None, "False sources kept."),
            "truePositiveRate": (np.divide(n_real, all_real), None, "Part of the real sources kept."),
            "falsePositiveRate": (np.divide(n_false, all_false), None, "Part of the false sources kept."),
            "completeness": (np.divide(n_real, n_truth), None, "Recall: real sources kept over all objects."),
            "purity": (n_real / (n_real + n_false), None, "Precision: real sources over all kept."),
            "falsePerSquareDegree": (n_false / area, u.deg**-2, "False sources kept per area."),
        }
    table = Table()
    for name, (values, unit, doc) in columns.items():
        table[name] = Column(values, unit=unit, description=doc)
    return table


@dataclass(frozen=True)
class CurveSummary:
    """Areas under a curve of `score_curve`.

    Parameters
    ----------
    roc_area : `float`
        Area under the ROC curve: probability that a real source has a higher score than a false one.
    average_precision : `float`
        Sum over thresholds of the purity times the gain in completeness.
    """

    roc_area: float
    average_precision: float


def summarise_curve(curve: Table) -> CurveSummary:
    """Return the areas under a curve that has every threshold; NaN without real or false sources."""
    if len(curve) == 0 or curve["nReal"][-1] == 0 or curve["nFalse"][-1] == 0:
        return CurveSummary(np.nan, np.nan)
    true = np.concatenate([[0.0], np.asarray(curve["truePositiveRate"])])
    false = np.concatenate([[0.0], np.asarray(curve["falsePositiveRate"])])
    gain = np.diff(np.concatenate([[0.0], np.asarray(curve["completeness"])]))
    return CurveSummary(float(np.trapezoid(true, false)), float((gain * np.asarray(curve["purity"])).sum()))
