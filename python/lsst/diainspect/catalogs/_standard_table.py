"""Records and columns of whatever origin brought to the names, types and units of the DiaSource table."""

from __future__ import annotations

__all__ = ["stack_tables", "standard_record", "standard_table"]

import datetime
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Column, MaskedColumn, Table, vstack
from astropy.time import Time

from ._column_names import current_name
from ._dia_source_schema import dia_source_schema


def standard_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Check one record and give its values today's names.

    Parameters
    ----------
    record : mapping
        Values by column name; None for what was not measured.

    Returns
    -------
    standard : `dict`
        Numbers, text or None by current name.

    Raises
    ------
    ValueError
        If a value is not of the kind that its column holds, or a number that the column's type cannot hold.
    """
    schema = dia_source_schema()
    standard = {}
    for old_name, value in record.items():
        name = current_name(str(old_name))
        definition = schema.get(name)
        if isinstance(value, datetime.datetime | datetime.date):
            value = value.isoformat()
        if isinstance(value, Mapping | bytes) or (isinstance(value, Sequence) and not isinstance(value, str)):
            if definition is None:
                continue
            raise ValueError(f"{name} is a {type(value).__name__}, not a single value")
        if value is not None and definition is not None:
            value = _checked(name, value, definition.dtype)
        standard[name] = value
    return standard


def _checked(name: str, value: Any, dtype: str) -> Any:
    if dtype == "str":
        return str(value)
    if not isinstance(value, numbers.Real):
        raise ValueError(f"{name} is {value!r:.40}, not a number")
    kind = np.dtype(dtype).kind
    if kind == "f":
        return float(value)
    if not math.isfinite(value):
        return None
    if kind == "b":
        return bool(value)
    limits = np.iinfo(dtype)
    whole = math.trunc(float(value)) if not isinstance(value, numbers.Integral) else int(value)
    if value != whole or not limits.min <= whole <= limits.max:
        raise ValueError(f"{name} is {value!r:.40}, which is not a whole number of type {dtype}")
    return whole


def standard_table(columns: Mapping[str, Any]) -> Table:
    """Make a table with the names, types, units and descriptions of the DPDD.

    Parameters
    ----------
    columns : mapping [`str`, array-like]
        Values by column name, masked or None where missing. A column that two names lead to is taken from the one
        that is current.

    Returns
    -------
    table : `astropy.table.Table`
        Missing numbers are NaN in floating-point and 0 in integer columns; flags are False and text empty. Columns
        that the DPDD does not have keep the type of their values.

    Raises
    ------
    ValueError
        If a column of the DPDD has values that are not of its kind.
    """
    table = Table()
    schema = dia_source_schema()
    for old_name, values in columns.items():
        name = current_name(old_name)
        if name in table.colnames or (name != old_name and name in columns):
            continue
        array, missing = _split(values)
        definition = schema.get(name)
        if definition is None:
            unit, doc = getattr(values, "unit", None), getattr(values, "description", None)
            table[name] = Column(_free(array, missing), unit=unit, description=doc)
            continue
        try:
            typed = _typed(array, missing, definition.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"Column {old_name} cannot be read as {definition.dtype}: {error}.") from error
        table[name] = Column(typed, unit=definition.unit, description=definition.doc)
    return table


def _split(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return values and where they are missing."""
    if isinstance(values, Time):
        values = values.isot
    mask = np.zeros(len(values), dtype=bool)
    if isinstance(values, MaskedColumn | np.ma.MaskedArray):
        mask |= np.ma.getmaskarray(values)
        array = np.asarray(values.data)
    else:
        array = np.asarray(values) if hasattr(values, "dtype") else _object_array(values)
    if array.dtype.kind == "O":
        mask |= np.array([value is None for value in array], dtype=bool)
    return array, mask


def _object_array(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _typed(array: np.ndarray, missing: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "str":
        text = ["" if gone else _text(value) for value, gone in zip(array, missing, strict=True)]
        return np.array(text, dtype=str) if text else np.zeros(0, dtype="U1")
    kind = np.dtype(dtype).kind
    result = np.full(len(array), np.nan if kind == "f" else 0, dtype=dtype)
    present = array[~missing]
    if array.dtype.kind in "US":
        # Text tables write what is missing as an empty string.
        empty = np.char.str_len(present) == 0
        missing = missing.copy()
        missing[np.flatnonzero(~missing)[empty]] = True
        present = present[~empty]
        if kind == "b":
            present = np.isin(np.char.lower(present.astype(str)), ("true", "t", "1"))
    if kind != "f":
        numeric = present.astype(float) if present.dtype.kind in "OfUS" else present
        finite = np.isfinite(numeric)
        if not finite.all():
            missing = missing.copy()
            missing[np.flatnonzero(~missing)[~finite]] = True
            present = present[finite]
    if kind == "i" and present.size:
        whole = present.astype(object) if present.dtype.kind in "OUS" else present
        limits = np.iinfo(dtype)
        integers = np.array([int(value) for value in whole], dtype=object)
        if min(integers) < limits.min or max(integers) > limits.max:
            raise OverflowError(f"{min(integers)} to {max(integers)} do not fit")
        present = integers
    with np.errstate(over="ignore"):
        result[~missing] = present.astype(dtype)
    return result


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _free(array: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Find a type that holds values of an unknown column."""
    if array.dtype.kind != "O":
        if not missing.any():
            return array
        if array.dtype.kind in "fc":
            return np.where(missing, np.nan, array)
        return np.where(missing, np.zeros((), dtype=array.dtype), array)
    present = list(array[~missing])
    if not present:
        return np.full(len(array), np.nan)
    if all(isinstance(value, bool | np.bool_) for value in present):
        return _typed(array, missing, "bool")
    if all(isinstance(value, numbers.Integral) and abs(int(value)) < 2**63 for value in present):
        return _typed(array, missing, "int64")
    if all(isinstance(value, numbers.Real) for value in present):
        return _typed(array, missing, "float64")
    return _typed(array, missing, "str")


def stack_tables(tables: Sequence[Table]) -> Table:
    """Put the rows of tables below each other; what a table lacks is missing as in `standard_table`."""
    if len(tables) == 1:
        return tables[0]
    stacked = vstack(list(tables), join_type="outer", metadata_conflicts="silent")
    for name in stacked.colnames:
        column = stacked[name]
        if isinstance(column, MaskedColumn):
            fill = np.nan if column.dtype.kind == "f" else column.dtype.type()
            stacked[name] = column.filled(fill)
    return stacked
