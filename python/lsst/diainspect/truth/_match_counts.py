"""Counts what was matched and what was not in the fiducial area of one detector image."""

from __future__ import annotations

__all__ = ["count_matches"]

import astropy.units as u
import numpy as np
from astropy.table import Column, Table


def count_matches(matches: Table, area: float) -> Table:
    """Count objects and sources in the fiducial area.

    Parameters
    ----------
    matches : `astropy.table.Table`
        As `match_truth` makes it.
    area : `float`
        Fiducial area [deg^2].

    Returns
    -------
    counts : `astropy.table.Table`
        One row: ``fiducialArea``, ``nTruth``, ``nDetected``, ``nSpurious``, ``nDuplicates``, ``nChance``.
    """
    fiducial = np.asarray(matches["isFiducial"])
    is_truth = fiducial & np.asarray(matches["isTruth"])
    counts = Table()
    columns: tuple[tuple[str, float, u.UnitBase | None, str], ...] = (
        ("fiducialArea", area, u.deg**2, "Area in which detection was possible."),
        ("nTruth", int(is_truth.sum()), None, "Objects that changed, in the fiducial area."),
        ("nDetected", int((fiducial & matches["isDetected"]).sum()), None, "Those that have a source."),
        ("nSpurious", int((fiducial & matches["isSpurious"]).sum()), None, "Sources without an object."),
        (
            "nDuplicates",
            int((fiducial & matches["isDuplicate"]).sum()),
            None,
            "Further sources of an object.",
        ),
        (
            "nChance",
            float(np.asarray(matches["chanceMatch"])[is_truth].sum()),
            None,
            "Matches expected by chance, from displaced sources.",
        ),
    )
    for name, value, unit, doc in columns:
        counts[name] = Column([value], unit=unit, description=doc)
    return counts
