"""Do scores mean what they say? Reliability of probabilities and the expected calibration error."""

from __future__ import annotations

__all__ = ["expected_calibration_error", "reliability"]

import numpy as np
from astropy.table import Table

_N_BINS = 10


def reliability(scores: np.ndarray, truth: np.ndarray, n_bins: int = _N_BINS) -> Table:
    """Compare scores with frequencies in bins of equal width.

    Parameters
    ----------
    scores : `numpy.ndarray`, (N,)
        Probabilities; NaN are left out.
    truth : `numpy.ndarray`, (N,), bool
        Whether it was so.
    n_bins : `int`, optional
        Bins between 0 and 1.

    Returns
    -------
    table : `astropy.table.Table`
        One row a bin that holds any: ``score`` (mean), ``frequency``, ``nTrue``, ``n``.

    Raises
    ------
    ValueError
        If a score is not between 0 and 1.
    """
    known = np.isfinite(scores)
    scores, truth = np.asarray(scores, dtype=float)[known], np.asarray(truth, dtype=bool)[known]
    if len(scores) and not (scores.min() >= 0.0 and scores.max() <= 1.0):
        raise ValueError(f"Scores must be between 0 and 1, got {scores.min():g} to {scores.max():g}.")
    index = np.minimum((scores * n_bins).astype(int), n_bins - 1)
    n = np.bincount(index, minlength=n_bins)
    n_true = np.bincount(index, weights=truth, minlength=n_bins).astype(int)
    total = np.bincount(index, weights=scores, minlength=n_bins)
    some = n > 0
    return Table(
        {
            "score": total[some] / n[some],
            "frequency": n_true[some] / n[some],
            "nTrue": n_true[some],
            "n": n[some],
        }
    )


def expected_calibration_error(scores: np.ndarray, truth: np.ndarray, n_bins: int = _N_BINS) -> float:
    """Return the mean over sources of |score - frequency| in their bins (Naeini, Cooper & Hauskrecht 2015).

    Parameters and errors are those of `reliability`; NaN for no sources.
    """
    table = reliability(scores, truth, n_bins)
    if len(table) == 0:
        return float("nan")
    return float(np.average(np.abs(table["score"] - table["frequency"]), weights=table["n"]))
