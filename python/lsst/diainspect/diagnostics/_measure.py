"""Running diagnostics over a stamp set: in chunks, and such that one bad source costs nobody else."""

from __future__ import annotations

__all__ = ["diagnostic_columns", "measure_diagnostics"]

from collections.abc import Mapping
from functools import cache
from logging import Logger

import numpy as np
from astropy.table import Table
from lsst.utils.logging import LsstLogAdapter, getLogger
from threadpoolctl import ThreadpoolController

from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn

_LOG = getLogger(__name__)

_CHUNK = 1024
"""Sources measured at a time, which keeps memory flat: some 200 MB at 51 pixels."""

_IDENTIFIERS = ("diaSourceId", "visit", "detector")
"""Columns of the sources that their diagnostics have too."""

_FLAGS = {
    "flag": DiagnosticColumn("bool", None, "Not measured, for whichever reason."),
    "flag_missingPlanes": DiagnosticColumn("bool", None, "The stamps lack a plane that this needs."),
    "flag_failed": DiagnosticColumn("bool", None, "The measurement raised an exception on this source."),
}


def diagnostic_columns(plugins: Mapping[str, Diagnostic]) -> dict[str, DiagnosticColumn]:
    """Return every column that diagnostics make, with ``{plugin}_`` in front of the plugin's own name."""
    columns = {}
    for name, plugin in plugins.items():
        for column, definition in {**plugin.columns, **_FLAGS}.items():
            columns[f"{name}_{column}"] = definition
    return columns


def measure_diagnostics(
    stamps: StampSet, plugins: Mapping[str, Diagnostic], log: Logger | LsstLogAdapter = _LOG
) -> Table:
    """Measure diagnostics of all sources.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of N sources.
    plugins : mapping [`str`, `Diagnostic`]
        Diagnostics by name.
    log : logger, optional
        Where failures are reported.

    Returns
    -------
    table : `astropy.table.Table`
        N rows: the sources' identifiers and one column for each of `diagnostic_columns`.
    """
    n = len(stamps)
    definitions = diagnostic_columns(plugins)
    # Arrays first, and a table of them at the end: it takes as long to take a column as a source to measure.
    arrays = {}
    for name, column in definitions.items():
        start = np.nan if np.dtype(column.dtype).kind == "f" else 0
        arrays[name] = np.full(n, start, dtype=column.dtype)
    able = {}
    for name, plugin in plugins.items():
        missing = plugin.needs - stamps.provides
        if missing:
            log.warning("Diagnostic %s not measured: stamps lack %s.", name, ", ".join(sorted(missing)))
            arrays[f"{name}_flag"][:] = True
            arrays[f"{name}_flag_missingPlanes"][:] = True
        else:
            able[name] = plugin
    errors: dict[str, list[str]] = {name: [] for name in able}
    # Matrices of sources are small: the threads of linear algebra would wait for each other at many times the work.
    with _thread_pools().limit(limits=1):
        for start in range(0, n, _CHUNK):
            # All diagnostics see the same slice, so that what one evaluates the others have.
            chunk = stamps[start : start + _CHUNK]
            for name, plugin in able.items():
                errors[name] += _measure_chunk(chunk, plugin, name, arrays, start, log)
    for name, messages in errors.items():
        if messages:
            log.warning(
                "Diagnostic %s failed on %d of %d sources, which are flagged; the first error is %s",
                name,
                len(messages),
                n,
                messages[0],
            )
    identifiers = {name: stamps.sources[name] for name in _IDENTIFIERS if name in stamps.sources.colnames}
    table = Table({**identifiers, **arrays}, copy=False)
    for name, column in definitions.items():
        table[name].unit, table[name].description = column.unit, column.doc
    return table


@cache
def _thread_pools() -> ThreadpoolController:
    """Return the loaded libraries' pools of threads, which take some milliseconds to find."""
    return ThreadpoolController()


def _measure_chunk(
    stamps: StampSet,
    plugin: Diagnostic,
    name: str,
    arrays: Mapping[str, np.ndarray],
    first_row: int,
    log: Logger | LsstLogAdapter,
) -> list[str]:
    """Measure some sources into the arrays; on an exception each half by itself. Returns the errors of those left."""
    rows = slice(first_row, first_row + len(stamps))
    try:
        values = _checked(plugin.measure(stamps), plugin.columns, len(stamps))
    except Exception as err:
        half = len(stamps) // 2
        if half:
            return [
                *_measure_chunk(stamps[:half], plugin, name, arrays, first_row, log),
                *_measure_chunk(stamps[half:], plugin, name, arrays, first_row + half, log),
            ]
        log.debug("Diagnostic %s failed on row %d.", name, first_row, exc_info=True)
        arrays[f"{name}_flag"][rows] = True
        arrays[f"{name}_flag_failed"][rows] = True
        return [f"{type(err).__name__}: {err}"]
    for column, array in values.items():
        arrays[f"{name}_{column}"][rows] = array
    floats = [array for array in values.values() if array.dtype.kind == "f"]
    if floats:
        measured = np.zeros(len(stamps), dtype=bool)
        for array in floats:
            measured |= np.isfinite(array)
            if measured.all():
                break
        arrays[f"{name}_flag"][rows] = ~measured
    return []


def _checked(
    values: Mapping[str, np.ndarray], columns: Mapping[str, DiagnosticColumn], n: int
) -> dict[str, np.ndarray]:
    """Return what a diagnostic declared, in the types that it declared."""
    missing = columns.keys() - values.keys()
    if missing:
        raise ValueError(f"The diagnostic did not measure its columns {sorted(missing)}.")
    checked = {}
    with np.errstate(over="ignore"):
        for name, column in columns.items():
            array = np.asarray(values[name])
            if array.shape != (n,):
                raise ValueError(f"The diagnostic's column {name} has shape {array.shape} for {n} sources.")
            checked[name] = array.astype(column.dtype)
    return checked
