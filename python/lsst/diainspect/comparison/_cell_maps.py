"""Maps of a difference over its detector: statistics of the cells of a grid, each with its error."""

from __future__ import annotations

__all__ = ["CELL_STATISTICS", "CellMap", "measure_cell_maps"]

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from lsst.images import Box

from ..detection import without_sky_sources
from ._metric import MetricInput
from ._score_noise import (
    measure_score_noise,
    median_with_error,
    neighbour_correlation,
    robust_sigma,
    tail_ratio,
)
from ._star_residuals import BRIGHT_SNR

CELL_STATISTICS: dict[str, tuple[str, str]] = {
    "skySigmaOverPredicted": ("", "Robust sigma of difference / sqrt(variance) in blank sky."),
    "skyBackground": ("nJy", "Median of the difference in blank sky."),
    "neighbourCorrelationX": ("", "Correlation of neighbouring sky pixels in x."),
    "neighbourCorrelationY": ("", "Correlation of neighbouring sky pixels in y."),
    "skyTail3": (
        "",
        "Blank sky pixels of difference / sqrt(variance) beyond 3 robust sigma over the Gaussian's.",
    ),
    "scoreMedian": ("", "Median of the score in blank sky."),
    "scoreSigma": ("", "Robust sigma of the score in blank sky."),
    "scoreTail3": ("", "Blank sky pixels of the score beyond 3 robust sigma over the Gaussian's."),
    "starRmsFit": ("", "Median rms of difference / sqrt(variance) at bright stars of the match."),
    "starRmsHeldOut": (
        "",
        "Median rms of difference / sqrt(variance) at bright stars the match has not seen.",
    ),
    "numberPositive": ("", "Positive DIA sources."),
    "numberNegative": ("", "Negative DIA sources."),
}
"""Unit and meaning of what is measured in each cell; those that metrics have too are named as these."""

_LEAST_PIXELS = 100
"""Fewest sky pixels of a cell for statistics of the sky."""

_TAIL = 3


@dataclass(frozen=True)
class CellMap:
    """One statistic in the cells of a grid.

    Parameters
    ----------
    statistic : `str`
        Name, of `CELL_STATISTICS`.
    value, error : `numpy.ndarray`, (n_cells, n_cells)
        Value and standard error of each cell [y, x]; NaN where it could not be measured.
    n : `numpy.ndarray`, (n_cells, n_cells), int
        Pixels, stars or sources.
    """

    statistic: str
    value: np.ndarray
    error: np.ndarray
    n: np.ndarray


def measure_cell_maps(data: MetricInput, box: Box, n_cells: int) -> list[CellMap]:
    """Measure statistics in the cells of a grid.

    Parameters
    ----------
    data : `MetricInput`
        Images, sources and stars.
    box : `lsst.images.Box`
        Box of the images.
    n_cells : `int`
        Cells a side.

    Returns
    -------
    maps : `list` [`CellMap`]
        One for each of `CELL_STATISTICS`.
    """
    shape = (n_cells, n_cells)
    value = {name: np.full(shape, np.nan) for name in CELL_STATISTICS}
    error = {name: np.full(shape, np.nan) for name in CELL_STATISTICS}
    n = {name: np.zeros(shape, dtype=np.int64) for name in CELL_STATISTICS}

    def put(name: str, cell: tuple[int, int], measured: tuple[float, float], number: int) -> None:
        value[name][cell], error[name][cell] = measured
        n[name][cell] = number

    height, width = data.pull.shape
    rows, columns = (np.linspace(0, side, n_cells + 1).round().astype(int) for side in (height, width))
    for j in range(n_cells):
        for i in range(n_cells):
            cut = (slice(rows[j], rows[j + 1]), slice(columns[i], columns[i + 1]))
            pull, score = data.pull[cut], data.sky_score[cut]
            sky = np.isfinite(pull)
            values, n_sky = pull[sky], int(sky.sum())
            if n_sky >= _LEAST_PIXELS:
                put("skySigmaOverPredicted", (j, i), robust_sigma(values, n_sky), n_sky)
                put("skyBackground", (j, i), median_with_error(data.difference[cut][sky], n_sky), n_sky)
                put("neighbourCorrelationX", (j, i), neighbour_correlation(pull, 0, 1), n_sky)
                put("neighbourCorrelationY", (j, i), neighbour_correlation(pull, 1, 0), n_sky)
                put(f"skyTail{_TAIL}", (j, i), tail_ratio(values, _TAIL, 1.0), n_sky)
            scores = score[np.isfinite(score)]
            if len(scores) >= _LEAST_PIXELS:
                # A cell has too few independent pixels to tell the correlation.
                noise = measure_score_noise(score, data.score_noise.area)
                put("scoreMedian", (j, i), (noise.median, noise.median_error), len(scores))
                put("scoreSigma", (j, i), (noise.sigma, noise.sigma_error), len(scores))
                put(f"scoreTail{_TAIL}", (j, i), tail_ratio(scores, _TAIL, noise.area), len(scores))

    sources = without_sky_sources(data.sources)
    negative = np.asarray(sources["isNegative"], dtype=bool)
    for name, which in (("numberPositive", ~negative), ("numberNegative", negative)):
        cell = _cells(sources[which], box, rows, columns)
        counts = np.bincount(cell, minlength=n_cells**2).reshape(shape)
        value[name], error[name], n[name] = counts.astype(float), np.sqrt(counts), counts
    if data.stars is not None:
        bright = data.stars[np.asarray(data.stars["snr"], dtype=float) > BRIGHT_SNR]
        for name, role in (("starRmsFit", "fit"), ("starRmsHeldOut", "heldOut")):
            stars = bright[np.asarray(bright["role"]).astype(str) == role]
            cell = _cells(stars, box, rows, columns)
            rms = np.asarray(stars["rms"], dtype=float)
            for index in np.unique(cell):
                here = rms[cell == index]
                # One star has no scatter: the value without an error.
                measured = median_with_error(here, len(here)) if len(here) > 1 else (float(here[0]), np.nan)
                put(name, divmod(int(index), n_cells), measured, len(here))
    return [CellMap(name, value[name], error[name], n[name]) for name in CELL_STATISTICS]


def _cells(table: Table, box: Box, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the number of the cell of each row, those off the image in the nearest."""
    if len(table) == 0:
        return np.zeros(0, dtype=int)
    last = len(rows) - 2
    index = []
    for axis, edges, start in (("y", rows, box.y.start), ("x", columns, box.x.start)):
        # Pixels reach half a pixel to both sides of their centre.
        position = np.nan_to_num(np.asarray(table[axis], dtype=float)) - start + 0.5
        index.append(np.clip(np.searchsorted(edges, position, side="right") - 1, 0, last))
    cell: np.ndarray = index[0] * (last + 1) + index[1]
    return cell
