"""The stars that tell a detector's maps."""

from __future__ import annotations

__all__ = ["static_stars"]

import astropy.units as u
import numpy as np
from astropy.table import Column, Table

_SURPLUS = "enough others nearby"
"""Why `lsst.diainspect.subtraction` rejects stars that are as good as those in use."""


def static_stars(kernel_sources: Table) -> Table:
    """Select the stars among the candidates on which two images were matched.

    Stars in use and those that were too many for the match, which nothing in the match has seen.

    Parameters
    ----------
    kernel_sources : `astropy.table.Table`
        Candidates: ``x``, ``y`` [pixel], ``isStar``, ``used``, ``rejected``.

    Returns
    -------
    stars : `astropy.table.Table`
        ``diaSourceId`` (row of the candidates), ``x``, ``y``, ``used``.
    """
    used = np.asarray(kernel_sources["used"], dtype=bool)
    surplus = np.asarray(kernel_sources["rejected"]).astype(str) == _SURPLUS
    chosen = np.flatnonzero(np.asarray(kernel_sources["isStar"], dtype=bool) & (used | surplus))
    stars = Table()
    stars["diaSourceId"] = Column(chosen.astype(np.int64), description="Row of the table of kernel sources.")
    for axis in ("x", "y"):
        stars[axis] = Column(
            np.asarray(kernel_sources[axis], dtype=float)[chosen], unit=u.pix, description="Position."
        )
    stars["used"] = Column(used[chosen], description="Were the images matched on it?")
    return stars
