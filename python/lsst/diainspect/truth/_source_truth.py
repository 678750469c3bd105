"""What the truth says of each source, as columns to join to a table of sources."""

from __future__ import annotations

__all__ = ["source_truth"]

import numpy as np
from astropy.table import Column, Table

_COLUMNS = {
    "truthId": "truthId",
    "isDetected": "truthIsReal",
    "isDuplicate": "truthIsDuplicate",
    "separation": "truthSeparation",
    "fluxChange": "truthFluxChange",
    "idealSnr": "truthIdealSnr",
    "fluxPull": "truthFluxPull",
    "nearestKind": "truthNearestKind",
    "nearestSeparation": "truthNearestSeparation",
}

_DOCS = {"isDetected": "The source is an object that changed."}


def source_truth(matches: Table) -> Table:
    """Return the rows of a match table that are sources, by ``diaSourceId``, with what the truth says of them."""
    rows = np.flatnonzero(np.asarray(matches["diaSourceId"]) != 0)
    table = Table()
    table["diaSourceId"] = matches["diaSourceId"][rows]
    for name, new in _COLUMNS.items():
        column = matches[name]
        table[new] = Column(
            np.asarray(column)[rows], unit=column.unit, description=_DOCS.get(name, column.description)
        )
    return table
