"""The fiducial objects and sources of one method over many detectors, and proportions of them."""

from __future__ import annotations

__all__ = ["MethodTruth", "bin_members", "proportion", "select_fiducial", "wider_interval"]

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from ._bootstrap import bootstrap_ratio
from ._intervals import binomial_interval
from ._summary_settings import SummarySettings


@dataclass(frozen=True)
class MethodTruth:
    """The fiducial rows of one method, and the detectors they are on."""

    name: str
    table: Table
    group: np.ndarray
    area: np.ndarray
    detectors: tuple[tuple[int, int], ...]

    @property
    def is_truth(self) -> np.ndarray:
        return np.asarray(self.table["isTruth"])

    @property
    def is_detected(self) -> np.ndarray:
        return np.asarray(self.table["isDetected"])

    @property
    def is_source(self) -> np.ndarray:
        return self.is_detected | ~self.is_truth

    def sum(self, rows: np.ndarray) -> np.ndarray:
        """Sum rows over each detector: booleans (n_rows, ...) to (n_detectors, ...)."""
        total = np.zeros((len(self.detectors), *rows.shape[1:]))
        np.add.at(total, self.group, rows.astype(float))
        return total


def select_fiducial(name: str, matches: Table, counts: Table) -> MethodTruth:
    keys = [
        (int(visit), int(detector))
        for visit, detector in zip(counts["visit"], counts["detector"], strict=True)
    ]
    number = {key: index for index, key in enumerate(keys)}
    table = matches[np.asarray(matches["isFiducial"], dtype=bool)] if len(matches) else matches
    group = np.array(
        [number[int(v), int(d)] for v, d in zip(table["visit"], table["detector"], strict=True)], dtype=int
    )
    return MethodTruth(name, table, group, np.asarray(counts["fiducialArea"], dtype=float), tuple(keys))


def wider_interval(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the wider of two intervals on each side; NaN counts as no interval."""
    return np.fmin(first[0], second[0]), np.fmax(first[1], second[1])


def proportion(
    method: MethodTruth, success: np.ndarray, trial: np.ndarray, settings: SummarySettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return value, limits and number of trials of proportions of rows, (n_rows, n_bins) each."""
    successes, trials = method.sum(success & trial), method.sum(trial)
    k, n = successes.sum(axis=0), trials.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = k / n
    lower, upper = wider_interval(
        binomial_interval(k, n, settings.resampling.level),
        bootstrap_ratio(successes, trials, settings.resampling),
    )
    return value, lower, upper, n


def bin_members(method: MethodTruth, variable: str, settings: SummarySettings) -> np.ndarray:
    """Return which rows are in each bin of a quantity, (n_rows, n_bins)."""
    edges = np.asarray(settings.edges[variable])
    values = np.asarray(method.table[variable], dtype=float)
    return (values[:, None] >= edges[:-1]) & (values[:, None] < edges[1:])
