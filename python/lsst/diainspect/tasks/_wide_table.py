"""Tables of many columns, given to the butler in a form that is written fast."""

from __future__ import annotations

__all__ = ["WideTable"]

import numpy as np
from astropy.table import Table


class WideTable(Table):
    """A table that is ready to be written: its columns do not change any more.

    The butler's writer of Parquet asks for the ``dtype`` of the whole table twice for each column, and astropy makes it
    anew each time: the comparison of two methods, with 700 columns, took 4 s of which all but 0.3 s were this.
    """

    @property
    def dtype(self) -> np.dtype:
        """Type of a row, made once."""
        if "_dtype" not in self.__dict__:
            self.__dict__["_dtype"] = super().dtype
        return self.__dict__["_dtype"]
