"""A number with its error, as a row of the calibration table."""

from __future__ import annotations

__all__ = ["Statistic", "statistics_to_table"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Column, Table


@dataclass(frozen=True)
class Statistic:
    """A statistic of one detector.

    Parameters
    ----------
    name : `str`
        What it is.
    value, error : `float`
        Value and standard error; NaN where it could not be measured.
    n : `int`
        Positions, stars or sources that it rests on.
    description : `str`
        Meaning, and where it is valid.
    low, high : `float`, optional
        Bin of the quantity that the description names; NaN for a statistic that is not binned.
    unit : `str`, optional
        Unit, as `astropy.units` spells it.
    """

    name: str
    value: float
    error: float
    n: int
    description: str
    low: float = np.nan
    high: float = np.nan
    unit: str = ""


def statistics_to_table(statistics: Sequence[Statistic]) -> Table:
    """Return statistics as a table, one row each."""
    columns = {
        "statistic": ([one.name for one in statistics], "U48", "Name of the statistic."),
        "low": ([one.low for one in statistics], "float64", "Lower edge of the bin; NaN if not binned."),
        "high": ([one.high for one in statistics], "float64", "Upper edge of the bin; NaN if not binned."),
        "value": ([one.value for one in statistics], "float64", "Value, in unit."),
        "error": ([one.error for one in statistics], "float64", "Standard error of the value."),
        "n": ([one.n for one in statistics], "int64", "Positions, stars or sources that it rests on."),
        "unit": ([one.unit for one in statistics], "U16", "Unit of value and error."),
        "description": ([one.description for one in statistics], "U320", "Meaning."),
    }
    table = Table()
    for name, (values, dtype, doc) in columns.items():
        table[name] = Column(np.array(values, dtype=dtype), description=doc)
    return table
