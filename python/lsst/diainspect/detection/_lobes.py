"""Which peaks of opposite sign are the lobes of one dipole."""

from __future__ import annotations

__all__ = ["merge_lobes"]

import numpy as np
import scipy.spatial


def merge_lobes(x: np.ndarray, y: np.ndarray, score: np.ndarray, distance: float) -> np.ndarray:
    """Assign each peak to the source it is a lobe of.

    From the brightest peak down, a peak that is not assigned yet is a source and takes the peaks of the other sign
    within the distance that are not. So a bright source takes the ring around it, a lobe belongs to one source, and
    nothing chains: all lobes of a source lie within the distance of its own peak.

    An unresolved dipole has its lobes 2 sqrt(2) sigma = 1.2 FWHM of the PSF apart in the score, more where a change
    of flux makes one of them fainter: 1.4 FWHM at a ratio of 1 to 10.

    Parameters
    ----------
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].
    score : `numpy.ndarray`, (N,)
        Signed heights, brightest first.
    distance : `float`
        Largest distance of a lobe from the peak of its source [pixel]; 0 merges nothing.

    Returns
    -------
    source : `numpy.ndarray`, (N,), int
        Index of the peak that each peak belongs to, its own for a source.
    """
    source = np.arange(len(x))
    if len(x) < 2 or distance <= 0:
        return source
    pairs = scipy.spatial.cKDTree(np.stack([x, y], axis=-1)).query_pairs(distance, output_type="ndarray")
    pairs = np.sort(pairs[score[pairs[:, 0]] * score[pairs[:, 1]] < 0], axis=1)
    # Pairs are few, and which are left depends on those before.
    taken = np.zeros(len(x), dtype=bool)
    for bright, faint in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if not taken[bright] and not taken[faint]:
            taken[faint] = True
            source[faint] = bright
    return source
