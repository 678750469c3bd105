"""Columns of alerts as plain arrays."""

from __future__ import annotations

__all__ = ["recorded_flag", "recorded_value"]

import numpy as np
from astropy.table import Table


def recorded_value(sources: Table, name: str) -> np.ndarray:
    """Return a column as floats, NaN where there is no value or no such column."""
    if name not in sources.colnames:
        return np.full(len(sources), np.nan)
    return np.ma.filled(np.ma.asarray(sources[name], dtype=float), np.nan)


def recorded_flag(sources: Table, name: str) -> np.ndarray:
    """Return a column as booleans, False where there is no value or no such column."""
    if name not in sources.colnames:
        return np.zeros(len(sources), dtype=bool)
    return np.ma.filled(np.ma.asarray(sources[name]), False).astype(bool)
