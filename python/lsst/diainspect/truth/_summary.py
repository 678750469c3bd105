"""The summary of a survey against truth: one row a method, statistic and bin, each with an interval."""

from __future__ import annotations

__all__ = ["TruthSummary", "summarise_truth"]

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from astropy.table import Table, vstack

from ._detection_summary import add_completeness, add_counts, add_thresholds
from ._measurement_summary import add_measurements
from ._method_truth import select_fiducial
from ._pair_summary import add_pair
from ._selection_summary import add_curves, add_cuts
from ._summary_rows import SummaryRows
from ._summary_settings import SummarySettings


@dataclass(frozen=True)
class TruthSummary:
    """What `summarise_truth` makes.

    Parameters
    ----------
    summary : `astropy.table.Table`
        One row a method, statistic, bin and cut.
    curves : `astropy.table.Table`
        ROC and precision-recall curves: one row a method, score and threshold.
    """

    summary: Table
    curves: Table


def summarise_truth(
    matches: Mapping[str, Table], counts: Mapping[str, Table], settings: SummarySettings | None = None
) -> TruthSummary:
    """Summarise the matches of every method over all detectors.

    Proportions have the wider of the Jeffreys interval and that of a bootstrap over detectors, counts per area the
    wider of the Poisson interval and the bootstrap's, all else the bootstrap's. With fewer than five detectors the
    bootstrap draws single objects, and proportions have the Jeffreys interval alone. Only what lies in the fiducial
    area counts. Duplicates count as false.

    Parameters
    ----------
    matches : mapping [`str`, `astropy.table.Table`]
        Match table of each method, as `match_truth` makes it, with ``visit`` and ``detector``.
    counts : mapping [`str`, `astropy.table.Table`]
        For each method one row a detector: ``visit``, ``detector``, ``fiducialArea`` [deg^2].
    settings : `SummarySettings`, optional
        Settings.

    Returns
    -------
    summary : `TruthSummary`
        Tables.
    """
    settings = settings if settings is not None else SummarySettings()
    rows = SummaryRows()
    methods = [select_fiducial(name, matches[name], counts[name]) for name in matches]
    curves = []
    for method in methods:
        add_counts(rows, method, settings)
        add_completeness(rows, method, settings)
        add_thresholds(rows, method, settings)
        add_cuts(rows, method, settings)
        curves += add_curves(rows, method, settings)
        add_measurements(rows, method, settings)
    for first, second in combinations(methods, 2):
        add_pair(rows, first, second, settings)
    stacked = vstack(curves, metadata_conflicts="silent") if curves else Table()
    return TruthSummary(rows.table(), stacked)
