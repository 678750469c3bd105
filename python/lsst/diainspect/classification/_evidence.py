"""The evidence about sources: columns of the source table and of the diagnostics, under one roof."""

from __future__ import annotations

__all__ = ["Evidence"]

from collections.abc import Iterable

import numpy as np
from astropy.table import Table


class Evidence:
    """Columns of several tables as floating-point arrays; what is missing or infinite is NaN.

    Parameters
    ----------
    diagnostics : `astropy.table.Table`
        Diagnostics of N sources.
    sources : `astropy.table.Table`, optional
        Source table with a row for each, in any order (by ``diaSourceId``).

    Raises
    ------
    ValueError
        If a source has no row in the source table, or several.
    """

    def __init__(self, diagnostics: Table, sources: Table | None = None) -> None:
        self._tables = [diagnostics]
        self._length = len(diagnostics)
        if sources is not None:
            self._tables.append(_in_order(sources, diagnostics))

    def __len__(self) -> int:
        return self._length

    def has(self, name: str) -> bool:
        """Tell whether any table has a column."""
        return any(name in table.colnames for table in self._tables)

    def column(self, name: str) -> np.ndarray:
        """Return a column as float64, (N,): NaN where it is missing, masked or not finite."""
        for table in self._tables:
            if name in table.colnames:
                values = np.ma.filled(np.ma.asarray(table[name]).astype(float), np.nan)
                return np.where(np.isfinite(values), values, np.nan)
        return np.full(self._length, np.nan)

    def any_known(self, names: Iterable[str]) -> np.ndarray:
        """Return which sources have a value in any of some columns, (N,) bool."""
        known = np.zeros(self._length, dtype=bool)
        for name in names:
            known |= np.isfinite(self.column(name))
        return known


def _in_order(sources: Table, diagnostics: Table) -> Table:
    """Return the rows of a source table that belong to those of the diagnostics."""
    wanted = np.asarray(diagnostics["diaSourceId"])
    there, index, counts = np.unique(
        np.asarray(sources["diaSourceId"]), return_index=True, return_counts=True
    )
    if len(there) == 0 and len(wanted) == 0:
        return sources
    position = np.minimum(np.searchsorted(there, wanted), max(len(there) - 1, 0))
    found = there[position] == wanted if len(there) else np.zeros(len(wanted), dtype=bool)
    if not found.all():
        raise ValueError(
            f"{np.count_nonzero(~found)} of {len(wanted)} diagnosed sources have no row in the source table: "
            f"are the two of the same method, visit and detector?"
        )
    if (counts[position] > 1).any():
        raise ValueError("The source table has several rows of one diaSourceId.")
    return sources[index[position]]
