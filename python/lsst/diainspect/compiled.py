"""Loops over sources and pixels that are compiled: where array operations would move all pixels through memory again
and again, a loop keeps one source's in the cache."""

from __future__ import annotations

__all__ = ["compiled"]

import numba

compiled = numba.njit(
    cache=True,
    nogil=True,
    error_model="numpy",
    # Sums may be reordered, as they are in numpy; NaN and infinity keep their meaning.
    fastmath={"reassoc", "contract", "nsz"},
)
"""Decorator for functions of arrays. They are compiled at their first call, and kept in the file cache of numba."""
