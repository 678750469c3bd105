"""Many FITS pairs from a table: one row a pair, each on its own, so that one that fails does not stop the others."""

from __future__ import annotations

__all__ = ["PairOutcome", "ingest_pairs", "read_pair_table"]

import csv
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from astropy.table import Table
from lsst.daf.butler import ButlerUserError

from ._fits_file import IngestError
from ._fits_pair import ingest_pair
from ._pair_settings import PairSettings

_LOG = logging.getLogger(__name__)

_FILES = tuple(
    name
    for name in PairSettings.names()
    if name in ("science", "template") or name.endswith(("_psf", "_noise", "_variance", "mask"))
)
"""Columns that name files; relative ones are with respect to the table."""

_FAILURES = (ValueError, OSError, LookupError, ImportError, ButlerUserError)
"""What a pair that cannot be used may raise."""


@dataclass(frozen=True)
class PairOutcome:
    """What became of one row.

    Parameters
    ----------
    row : `int`
        Number of the row, from 1.
    science : `str`
        Its science image.
    visit, detector : `int` or `None`
        Data ID; `None` where the row could not be read.
    n_datasets : `int`
        Datasets written.
    error : `str`
        Why the pair was not ingested; empty for one that was.
    """

    row: int
    science: str
    visit: int | None
    detector: int | None
    n_datasets: int
    error: str

    @property
    def succeeded(self) -> bool:
        """Whether the pair is in the repository."""
        return not self.error


def read_pair_table(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a table of pairs.

    Parameters
    ----------
    path : `str` or path-like
        CSV or ECSV with a header line, or YAML with a list of mappings, or a mapping with ``defaults`` and ``pairs``.
        Columns are the fields of `PairSettings`; empty fields are as omitted. File names are with respect to the
        table's folder.

    Raises
    ------
    IngestError
        If the table is missing, empty or not of these forms.
    """
    path = Path(path)
    if not path.is_file():
        raise IngestError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    try:
        if suffix in (".yaml", ".yml"):
            rows = _from_yaml(yaml.safe_load(path.read_text()), path)
        elif suffix == ".ecsv":
            rows = _from_ecsv(Table.read(path, format="ascii.ecsv"))
        elif suffix == ".csv":
            with path.open(newline="") as stream:
                rows = [dict(row) for row in csv.DictReader(stream, skipinitialspace=True)]
        else:
            raise IngestError(
                f"{path}: a table of pairs is .csv, .ecsv or .yaml, got {suffix or 'no suffix'!r}."
            )
    except (yaml.YAMLError, csv.Error, UnicodeDecodeError) as error:
        raise IngestError(f"{path}: cannot be read ({error}).") from error
    if not rows:
        raise IngestError(f"{path}: has no pairs.")
    for row in rows:
        for name in _FILES:
            value = row.get(name)
            if isinstance(value, str) and value.strip():
                row[name] = str(path.parent / value.strip())
    return rows


def ingest_pairs(
    repo: str | os.PathLike[str], rows: list[dict[str, Any]], *, run: str = "DiaFits/input"
) -> Iterator[PairOutcome]:
    """Ingest pairs one after the other, each reported when it is done.

    Parameters
    ----------
    repo : `str` or path-like
        Root of the repository, created when missing.
    rows : `list` [`dict`]
        Rows as from `read_pair_table`. A row without a visit takes its number.
    run : `str`, optional
        RUN collection to write.

    Yields
    ------
    outcome : `PairOutcome`
        One for each row, in order.
    """
    for number, row in enumerate(rows, start=1):
        visit: int | None = None
        detector: int | None = None
        n_datasets, error = 0, ""
        try:
            if None in row:
                raise IngestError("The row has more fields than the table has columns.")
            settings = PairSettings.from_row(
                {"visit": number, **{k: v for k, v in row.items() if v not in (None, "")}}
            )
            visit, detector = settings.visit, settings.detector
            refs = ingest_pair(
                repo, settings.science_source, settings.template_source, run=run, **settings.options
            )
            n_datasets = len(refs)
        except _FAILURES as failure:
            error = str(failure) or type(failure).__name__
            _LOG.info("Row %d failed.", number, exc_info=True)
        yield PairOutcome(number, str(row.get("science") or ""), visit, detector, n_datasets, error)


def _from_yaml(content: Any, path: Path) -> list[dict[str, Any]]:
    defaults: dict[str, Any] = {}
    if isinstance(content, dict):
        unknown = set(content) - {"defaults", "pairs"}
        if unknown:
            raise IngestError(
                f"{path}: has {sorted(unknown)}; a mapping has 'pairs' and may have 'defaults'."
            )
        defaults = content.get("defaults") or {}
        content = content.get("pairs")
    if (
        not isinstance(content, list)
        or not isinstance(defaults, dict)
        or not all(isinstance(row, dict) for row in content)
    ):
        raise IngestError(
            f"{path}: must hold a list of mappings, one a pair, or a mapping with 'pairs' and 'defaults'."
        )
    # YAML reads 2024-01-01 as a date; the settings are text and numbers.
    return [
        {
            name: value.isoformat() if hasattr(value, "isoformat") else value
            for name, value in {**defaults, **row}.items()
        }
        for row in content
    ]


def _from_ecsv(table: Table) -> list[dict[str, Any]]:
    return [
        {
            name: None if np.ma.is_masked(row[name]) else np.asarray(row[name]).item()
            for name in table.colnames
        }
        for row in table
    ]
