"""Reads the columns of a table in a Parquet file, a SQLite database, or an ECSV, CSV or FITS file."""

from __future__ import annotations

__all__ = ["CatalogError", "read_columns"]

import gzip
import os
import shutil
import sqlite3
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from astropy.table import Table

_SQLITE_MAGIC = b"SQLite format 3\x00"
_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"

_FORMATS = (
    (".ecsv", "ascii.ecsv"),
    (".csv", "ascii.csv"),
    (".fits", "fits"),
    (".fit", "fits"),
)


class CatalogError(ValueError):
    """A table that cannot be used; the message says why and what to do."""


def read_columns(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the columns of a table from a file.

    Parameters
    ----------
    source : `str` or path-like
        A Parquet file, a SQLite database with a table ``DiaSource``, an ECSV, CSV or FITS table; each may be gzipped.

    Returns
    -------
    columns : `dict`
        Values by name: arrays, or lists with None where a value is missing.

    Raises
    ------
    CatalogError
        If the file cannot be read as a table.
    """
    path = Path(source)
    if not path.is_file():
        raise CatalogError(f"{path}: no such file.")
    try:
        return _read_file(path)
    except CatalogError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        sqlite3.Error,
        pyarrow.ArrowException,
    ) as error:
        raise CatalogError(f"{path}: cannot be read as a table ({error}).") from error


def _read_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        magic = stream.read(len(_SQLITE_MAGIC))
    if magic.startswith(_GZIP_MAGIC):
        with gzip.open(path) as stream:
            magic = stream.read(len(_SQLITE_MAGIC))
        if magic == _SQLITE_MAGIC or magic.startswith(_PARQUET_MAGIC):
            with tempfile.TemporaryDirectory() as folder:
                unpacked = Path(folder) / path.stem
                with gzip.open(path) as packed, unpacked.open("wb") as target:
                    shutil.copyfileobj(packed, target)
                return _read_file(unpacked)
    if magic == _SQLITE_MAGIC:
        return _read_sqlite(path)
    if magic.startswith(_PARQUET_MAGIC):
        return _read_parquet(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    for known, table_format in _FORMATS:
        if suffix == known:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                table = Table.read(path, format=table_format)
            return {name: table[name] for name in table.colnames}
    raise CatalogError(
        f"{path}: is neither Parquet nor SQLite nor named {', '.join(known for known, _ in _FORMATS)}."
    )


def _read_parquet(path: Path) -> dict[str, Any]:
    table = pyarrow.parquet.read_table(path)
    columns: dict[str, Any] = {}
    for name in table.column_names:
        # pandas writes the labels of its rows as a column of this name.
        if name.startswith("__index_level_"):
            continue
        column = table.column(name)
        if column.null_count == 0:
            columns[name] = column.to_numpy()
            continue
        columns[name] = column.to_pylist()
    return columns


def _read_sqlite(path: Path) -> dict[str, Any]:
    # Read as it is on disk: no journal, no lock, nothing written.
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        if "DiaSource" not in tables:
            raise CatalogError(f"{path}: has no table DiaSource; it has {tables}.")
        cursor = connection.execute('SELECT * FROM "DiaSource"')
        names = [entry[0] for entry in cursor.description]
        rows = cursor.fetchall()
    finally:
        connection.close()
    if not rows:
        return {name: [] for name in names}
    return dict(zip(names, (list(values) for values in zip(*rows, strict=True)), strict=True))
