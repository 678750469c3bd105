"""What a cell adds to an image, in one pass over its pixels each: as array operations these passes cost as much as the
transforms."""

from __future__ import annotations

__all__ = ["add_linear", "add_scores", "add_variance"]

import numpy as np

from ..compiled import compiled


@compiled
def add_linear(
    total: np.ndarray,
    parts: tuple[np.ndarray, ...],
    corner: tuple[int, int],
    left: int,
    row_weight: np.ndarray,
    column_weight: np.ndarray,
    v: np.ndarray,
    u: np.ndarray,
) -> None:
    """Add a cell's filtered pixels: those of its centre's filter plus distance times those of the filter's slopes.

    Parameters
    ----------
    total : `numpy.ndarray`, (height, width)
        Image to add to.
    parts : `tuple` [`numpy.ndarray`, ...], each (n_rows, window)
        The image filtered with the filter of the centre and, if there are three, with its slopes in x and y.
    corner : `tuple` [`int`, `int`]
        First row and column of the image to add to.
    left : `int`
        First column of the parts that is added.
    row_weight, column_weight : `numpy.ndarray`, (n_rows,) and (n_columns,)
        Weights.
    v, u : `numpy.ndarray`, (n_rows,) and (n_columns,)
        Distance from the centre.
    """
    bottom, first = corner
    n = len(column_weight)
    for j in range(len(row_weight)):
        # Slices of a row, which the compiler can see do not wrap around.
        target, centre = total[bottom + j, first : first + n], parts[0][j, left : left + n]
        if len(parts) > 1:
            along_x, along_y = parts[1][j, left : left + n], parts[2][j, left : left + n]
            for i in range(n):
                value = centre[i] + u[i] * along_x[i] + v[j] * along_y[i]
                target[i] += row_weight[j] * column_weight[i] * value
        else:
            for i in range(n):
                target[i] += row_weight[j] * column_weight[i] * centre[i]


@compiled
def add_variance(
    total: np.ndarray,
    part: np.ndarray,
    corner: tuple[int, int],
    left: int,
    row_weight: np.ndarray,
    column_weight: np.ndarray,
    factor: float,
    least: float,
) -> None:
    """Add a cell's propagated variance, times a factor; the other parameters are those of `add_linear`.

    Convolutions of a positive plane are below ``least`` only by rounding.
    """
    bottom, first = corner
    n = len(column_weight)
    for j in range(len(row_weight)):
        target, variances = total[bottom + j, first : first + n], part[j, left : left + n]
        for i in range(n):
            value = factor * (variances[i] if variances[i] > least else least)
            target[i] += row_weight[j] * column_weight[i] * value


@compiled
def add_scores(
    total: np.ndarray,
    matched: np.ndarray,
    noise: np.ndarray,
    static: np.ndarray,
    corner: tuple[int, int],
    left: int,
    row_weight: np.ndarray,
    column_weight: np.ndarray,
    factor: float,
    least: float,
    astrometric_variance: float,
    relative_variance: float,
) -> None:
    """Add a cell's scores: the matched difference over the root of its variance.

    Parameters
    ----------
    total, corner, left, row_weight, column_weight
        As in `add_linear`.
    matched : `numpy.ndarray`, (n_rows, window)
        Matched difference.
    noise : `numpy.ndarray`, (n_rows, window)
        Its variance by noise, times ``factor``, at least ``least``.
    static : `numpy.ndarray`, (n_rows + 2, window)
        Template's part of it, with one more row below and above.
    astrometric_variance : `float`
        Variance of the registration, per coordinate [pixel^2]: multiplies the squared gradient of ``static``.
    relative_variance : `float`
        Squared relative error of what is left of a static source: multiplies ``static`` squared.
    """
    # Differences are taken over two pixels.
    gradient_variance = np.float32(0.25) * astrometric_variance
    bottom, first = corner
    n = len(column_weight)
    for j in range(len(row_weight)):
        target, scores = total[bottom + j, first : first + n], matched[j, left : left + n]
        variances = noise[j, left : left + n]
        below, above = static[j, left : left + n], static[j + 2, left : left + n]
        before, middle, behind = (
            static[j + 1, left - 1 : left - 1 + n],
            static[j + 1, left : left + n],
            static[j + 1, left + 1 : left + 1 + n],
        )
        for i in range(n):
            along_x, along_y = behind[i] - before[i], above[i] - below[i]
            variance = variances[i]
            variance = factor * (variance if variance > least else least)
            variance += gradient_variance * (along_x * along_x + along_y * along_y)
            variance += relative_variance * (middle[i] * middle[i])
            target[i] += row_weight[j] * column_weight[i] * (scores[i] / np.sqrt(variance))
