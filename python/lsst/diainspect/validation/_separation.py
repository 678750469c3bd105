"""How well diagnostics tell two classes of sources apart: ROC areas on sources that nothing was fitted to.

Everything that is chosen or fitted (which column and which sign, the weights of a classifier) is chosen on the training
part of each fold and applied to the part left out, and all sources of one object are in the same part.
"""

from __future__ import annotations

__all__ = [
    "Separation",
    "diagnostic_features",
    "objects_on_sky",
    "roc_area",
    "separate_by_classifier",
    "separate_by_column",
]

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import scipy.special
import scipy.stats
from astropy.coordinates import SkyCoord
from astropy.table import Table
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..truth import Resampling, bootstrap

_SAME_OBJECT = 1.5 * u.arcsec
"""Sources this close are of one object."""

_LEAST_MEASURED = 0.5
"""Columns that are measured on fewer of the sources are not used."""

_IDENTIFIERS = frozenset({"diaSourceId", "visit", "detector"})

_OF_DIFFERENCE = re.compile(
    r"psfPhotometry_(psfFlux|psfFluxErr|psfChi2|psfChi2PerDof|negativeFraction)"
    r"|aperturePhotometry_(apFlux|apFluxErr|growth|growthErr).*"
    r"|localNoise_(sigmaOverPredicted|correlation.*|ring.*)"
    r"|shape_(i[xy][xy]|i[xy][xy]Err|sizeRatio|sizeRatioErr|ellipticity|extendedness)"
    r"|trail_(?!trailNdata).*"
)

_MAX_ITERATIONS = 50
_CONVERGED = 1e-8


@dataclass(frozen=True)
class Separation:
    """Result of a cross-validation.

    Parameters
    ----------
    area : `float`
        ROC area of the scores of sources that were held out: the probability that a positive scores above a negative.
    lower, upper : `float`
        Its interval, from a bootstrap over objects of the held-out scores, at 95 % confidence.
    score : `numpy.ndarray`, (N,)
        Held-out scores, comparable between folds.
    chosen : `dict` [`str`, `int`]
        Columns that were chosen, and in how many folds; empty for a classifier.
    """

    area: float
    lower: float
    upper: float
    score: np.ndarray
    chosen: dict[str, int]


def roc_area(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, ties counted half (Mann & Whitney 1947).

    Parameters
    ----------
    score : `numpy.ndarray`, (N,)
        Finite scores.
    positive : `numpy.ndarray`, (N,), bool
        Class.

    Returns
    -------
    area : `float`
        Area; NaN if a class is empty.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return np.nan
    ranks = scipy.stats.rankdata(score)
    return float((ranks[positive].sum() - 0.5 * n_positive * (n_positive + 1)) / (n_positive * n_negative))


def objects_on_sky(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the number of the object that each source belongs to: sources closer than 1.5 arcsec share one.

    Parameters
    ----------
    ra, dec : `numpy.ndarray`, (N,)
        Positions [deg].

    Returns
    -------
    objects : `numpy.ndarray`, (N,), int
        Numbers from 0.
    """
    places = SkyCoord(ra, dec, unit=u.deg)
    first, second, *_ = places.search_around_sky(places, _SAME_OBJECT)
    links = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(ra), len(ra)))
    return connected_components(links, directed=False)[1]


def diagnostic_features(diagnostics: Table, *, of_difference: bool = False) -> Table:
    """Return the columns of a table of diagnostics that a separation can use: numbers that vary.

    Parameters
    ----------
    diagnostics : `astropy.table.Table`
        What `measure_diagnostics` made, N rows.
    of_difference : `bool`, optional
        Take only columns that describe the source on the difference, and nothing of science image, template and PSF:
        whether there is a star or a galaxy at the position is then not known.

    Returns
    -------
    features : `astropy.table.Table`
        N rows: every column of numbers that is measured on half of the sources at least and is not constant. Flags
        and identifiers are left out.
    """
    features = Table()
    for name in diagnostics.colnames:
        if name in _IDENTIFIERS or "_flag" in name:
            continue
        if of_difference and not _OF_DIFFERENCE.fullmatch(name):
            continue
        values = np.asarray(diagnostics[name], dtype=float)
        measured = np.isfinite(values)
        if measured.mean() >= _LEAST_MEASURED and np.ptp(values[measured]) > 0:
            features[name] = np.where(measured, values, np.nan)
    return features


def separate_by_column(
    features: Table, positive: np.ndarray, objects: np.ndarray, *, n_folds: int = 5, seed: int = 1
) -> Separation:
    """Separate with the one column, of either sign, that does best on the training part.

    Parameters
    ----------
    features : `astropy.table.Table`
        N rows of numbers; NaN where not measured.
    positive : `numpy.ndarray`, (N,), bool
        Class.
    objects : `numpy.ndarray`, (N,), int
        Object of each source.
    n_folds : `int`, optional
        Number of parts.
    seed : `int`, optional
        Seed of the split.
    """
    names = features.colnames
    chosen: Counter[str] = Counter()

    def fit(train: np.ndarray, own: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        areas = np.array([roc_area(column, own) for column in train.T])
        best = int(np.argmax(np.abs(areas - 0.5)))
        sign = 1.0 if areas[best] >= 0.5 else -1.0
        chosen[f"{'+' if sign > 0 else '-'}{names[best]}"] += 1
        return lambda ranks: sign * ranks[:, best]

    return _cross_validate(features, positive, objects, fit, n_folds, seed, chosen)


def separate_by_classifier(
    features: Table,
    positive: np.ndarray,
    objects: np.ndarray,
    *,
    penalty: float = 10.0,
    n_folds: int = 5,
    seed: int = 1,
) -> Separation:
    """Separate with a logistic regression on all columns, each replaced by its rank in the training part.

    Parameters
    ----------
    features, positive, objects, n_folds, seed
        As for `separate_by_column`.
    penalty : `float`, optional
        Half of it multiplies the sum of the squared weights, of columns of unit variance, in the negative logarithm
        of the likelihood.
    """

    def fit(train: np.ndarray, own: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        weights = _fit_logistic(train, own, penalty)
        return lambda ranks: weights[0] + ranks @ weights[1:]

    return _cross_validate(features, positive, objects, fit, n_folds, seed, Counter())


def _cross_validate(
    features: Table,
    positive: np.ndarray,
    objects: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]],
    n_folds: int,
    seed: int,
    chosen: Counter[str],
) -> Separation:
    values = np.stack([np.asarray(features[name], dtype=float) for name in features.colnames], axis=1)
    score = np.full(len(values), np.nan)
    fold_of = _folds(positive, objects, n_folds, seed)
    for fold in range(n_folds):
        held_out = fold_of == fold
        train = ~held_out
        predict = fit(_ranks(values[train], values[train]), positive[train])
        score[held_out] = predict(_ranks(values[held_out], values[train]))
    lower, upper = bootstrap(
        lambda rows: np.array(roc_area(score[rows], positive[rows])),
        objects,
        Resampling(n_resamples=1000, level=0.95, seed=seed),
    )
    return Separation(
        roc_area(score, positive), float(lower), float(upper), score, dict(chosen.most_common())
    )


def _folds(positive: np.ndarray, objects: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Deal objects to folds, those with a positive source and the others by turns, in random order."""
    rng = np.random.default_rng(seed)
    numbers, index = np.unique(objects, return_inverse=True)
    has_positive = np.bincount(index, weights=positive) > 0
    for kind in (True, False):
        if 0 < (has_positive == kind).sum() < n_folds:
            raise ValueError(
                f"{n_folds} folds need as many objects of each class, got {(has_positive == kind).sum()}."
            )
    order = rng.permutation(len(numbers))
    order = order[np.argsort(has_positive[order], kind="stable")]
    fold = np.empty(len(numbers), dtype=int)
    fold[order] = np.arange(len(numbers)) % n_folds
    return fold[index]


def _ranks(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the place of values among those of a reference, in units of its scatter; 0 where not measured."""
    ranks = np.zeros(values.shape)
    for column in range(values.shape[1]):
        known = np.sort(reference[np.isfinite(reference[:, column]), column])
        own = values[:, column]
        measured = np.isfinite(own)
        if len(known):
            place = np.searchsorted(known, own[measured], "left") + np.searchsorted(
                known, own[measured], "right"
            )
            # Uniform in +-sqrt(3): unit variance.
            ranks[measured, column] = np.sqrt(3.0) * (place / len(known) - 1.0)
    return ranks


def _fit_logistic(design: np.ndarray, positive: np.ndarray, penalty: float) -> np.ndarray:
    """Return constant and weights of a penalised logistic regression, by Newton's method."""
    columns = np.column_stack([np.ones(len(design)), design])
    stiffness = np.full(columns.shape[1], penalty)
    stiffness[0] = 0.0
    weights = np.zeros(columns.shape[1])
    for _ in range(_MAX_ITERATIONS):
        probability = scipy.special.expit(columns @ weights)
        slope = columns.T @ (positive - probability) - stiffness * weights
        curvature = (columns * (probability * (1.0 - probability))[:, None]).T @ columns + np.diag(stiffness)
        step = np.linalg.solve(curvature, slope)
        weights += step
        if np.abs(step).max() < _CONVERGED:
            break
    return weights
