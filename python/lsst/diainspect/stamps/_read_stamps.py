"""Stored stamps read back: some sources, some planes, without the rest of the table."""

from __future__ import annotations

__all__ = ["read_stamps"]

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet
from astropy.table import Table
from lsst.daf.butler.formatters.parquet import arrow_to_astropy

from ._plane_names import describe_plane
from ._selection import Selection
from ._stamp_set import MODELS, StampSet


class TableHandle(Protocol):
    """What `lsst.daf.butler.Butler.getDeferred` returns for a table."""

    def get(self, *, component: str | None = None, parameters: dict[str, Any] | None = None) -> Any:
        """Read the dataset or a part of it."""


def read_stamps(
    stored: TableHandle | str | os.PathLike[str],
    filters: Table | None = None,
    *,
    ids: Iterable[int] | None = None,
    where: str = "",
    planes: Sequence[str] | None = None,
) -> StampSet:
    """Read a part of a stored stamp set.

    The columns that select are read first, and then one plane after another, of which only the rows wanted are kept.

    Parameters
    ----------
    stored : `lsst.daf.butler.DeferredDatasetHandle` or path-like
        The stamps: ``butler.getDeferred("al_dia_stamps", visit=1, detector=0)``, or a Parquet file.
    filters : `astropy.table.Table`, optional
        ``{method}_difference_filters``; with it the stamps have their PSFs and filters.
    ids : iterable [`int`], optional
        Sources wanted, by ``diaSourceId``; the stamps come in this order. All when omitted.
    where : `str`, optional
        Condition on the columns of the sources, as for `Query`.
    planes : sequence [`str`], optional
        Planes wanted; all that are stored when omitted.

    Returns
    -------
    stamps : `StampSet`
        Stamps.

    Raises
    ------
    LookupError
        If a source or a plane is not there.
    QueryError
        If the condition is not valid.
    """
    names, read = _columns(stored)
    stored_planes = [name for name in names if describe_plane(name) is not None]
    wanted = stored_planes if planes is None else list(planes)
    if missing := [name for name in wanted if name not in stored_planes]:
        raise LookupError(f"The stored stamps have no plane {missing}; they have {stored_planes}.")
    own_models = [name for name in MODELS if name in names]
    sources = read([name for name in names if name not in {*stored_planes, *own_models}])
    rows = Selection(where=where).rows(sources)
    if ids is not None:
        rows = _rows_of(np.asarray(sources["diaSourceId"]), np.fromiter(ids, dtype=np.int64), rows, where)
    table = sources[rows]
    for name in [*wanted, *own_models]:
        table[name] = read([name])[name][rows]
    return StampSet.from_tables(table, filters)


def _columns(stored: TableHandle | str | os.PathLike[str]) -> tuple[list[str], Any]:
    """Return the names of the columns, and a function that reads some of them."""
    if isinstance(stored, str | os.PathLike):
        path = os.fspath(stored)

        def read_file(columns: list[str]) -> Table:
            return arrow_to_astropy(pyarrow.parquet.read_table(path, columns=columns))

        # The schema of the file itself: tensor columns may be stored as several.
        return list(arrow_to_astropy(pyarrow.parquet.read_schema(path).empty_table()).colnames), read_file

    def read_dataset(columns: list[str]) -> Table:
        return stored.get(parameters={"columns": columns})

    return list(stored.get(component="columns")), read_dataset


def _rows_of(identifiers: np.ndarray, ids: np.ndarray, rows: np.ndarray, where: str) -> np.ndarray:
    """Return the rows of identifiers, among those given, in the order of the identifiers."""
    row_of = dict(zip(identifiers[rows].tolist(), rows.tolist(), strict=True))
    if missing := [identifier for identifier in ids.tolist() if identifier not in row_of]:
        condition = f" for which {where!r} is true" if where else ""
        raise LookupError(
            f"{len(missing)} of {len(ids)} sources are not among the {len(rows)} stored{condition}; the first is "
            f"{missing[0]}."
        )
    return np.array([row_of[identifier] for identifier in ids.tolist()], dtype=np.int64)
