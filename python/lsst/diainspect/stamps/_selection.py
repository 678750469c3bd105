"""Which sources to cut: a condition, a list of identifiers, a random fraction."""

from __future__ import annotations

__all__ = ["Selection", "uniform_by_id"]

from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table

from ._query import Query

_WEYL = np.uint64(0x9E3779B97F4A7C15)
"""Increment of splitmix64 (Steele, Lea & Flood 2014), which tells seeds apart."""


def uniform_by_id(identifiers: np.ndarray, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each identifier that depends on it and the seed alone.

    A source has the same number in whichever table, order or process it comes, and the sources below 0.1 are among
    those below 0.2. The finaliser of splitmix64 (Steele, Lea & Flood 2014) mixes the bits.

    Parameters
    ----------
    identifiers : `numpy.ndarray`, (N,), int64
        Identifiers.
    seed : `int`
        Any non-negative number; another seed gives independent numbers.
    """
    with np.errstate(over="ignore"):
        state = np.asarray(identifiers).astype(np.int64).view(np.uint64) ^ _mix(
            np.array([seed % 2**64], dtype=np.uint64) + _WEYL
        )
        mixed = _mix(state + _WEYL)
    # 53 bits are what a double holds.
    return (mixed >> np.uint64(11)).astype(float) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@dataclass(frozen=True)
class Selection:
    """Sources to take of a table; those that pass everything that is given.

    Parameters
    ----------
    where : `str`, optional
        Condition on the columns, as for `Query`; empty for none.
    ids : `tuple` [`int`], optional
        Values of ``diaSourceId``; None for all.
    fraction : `float`, optional
        Fraction of what passes the others, chosen at random by `uniform_by_id`.
    seed : `int`, optional
        Seed of the random choice.

    Raises
    ------
    ValueError
        If the fraction is not above 0 and at most 1, the seed negative, or the condition not valid.
    """

    where: str = ""
    ids: tuple[int, ...] | None = None
    fraction: float = 1.0
    seed: int = 0
    _query: Query | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"The fraction of sources must be above 0 and at most 1, got {self.fraction}.")
        if self.seed < 0:
            raise ValueError(f"The seed must not be negative, got {self.seed}.")
        if self.where.strip():
            object.__setattr__(self, "_query", Query(self.where))

    @property
    def takes_all(self) -> bool:
        """Whether every source is taken."""
        return self._query is None and self.ids is None and self.fraction == 1.0

    def rows(self, sources: Table) -> np.ndarray:
        """Return the rows that are selected, in the table's order.

        Parameters
        ----------
        sources : `astropy.table.Table`
            Sources with ``diaSourceId`` and the columns that the condition names.

        Returns
        -------
        rows : `numpy.ndarray`, (n,), int
            Row numbers.

        Raises
        ------
        QueryError
            If the condition names a column that is not there.
        ValueError
            If there is no column ``diaSourceId`` and it is needed.
        """
        selected = np.ones(len(sources), dtype=bool)
        if self._query is not None:
            selected &= self._query.select(sources)
        if self.ids is not None or self.fraction < 1.0:
            if "diaSourceId" not in sources.colnames:
                raise ValueError("Sources are chosen by diaSourceId, which the table does not have.")
            identifiers = np.asarray(sources["diaSourceId"])
            if self.ids is not None:
                selected &= np.isin(identifiers, np.array(self.ids, dtype=np.int64))
            if self.fraction < 1.0:
                selected &= uniform_by_id(identifiers, self.seed) < self.fraction
        return np.flatnonzero(selected)
