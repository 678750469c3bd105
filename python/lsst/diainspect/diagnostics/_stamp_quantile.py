"""Quantiles of the pixels of stamps, from some of them."""

from __future__ import annotations

__all__ = ["stamp_quantile"]

import numpy as np

_SPARSE = 5
"""Every so many pixels tell the sky of a stamp; sorting all would cost more than all the fits."""


def stamp_quantile(planes: np.ndarray, quantile: float) -> np.ndarray:
    """Return a quantile of the finite pixels of each stamp.

    Parameters
    ----------
    planes : `numpy.ndarray`, (N, size, size)
        Pixels.
    quantile : `float`
        Between 0 and 1.

    Returns
    -------
    values : `numpy.ndarray`, (N,)
        Quantiles; NaN for stamps without a finite pixel.
    """
    # NaN sorts last.
    ordered = np.sort(planes.reshape(len(planes), -1)[:, ::_SPARSE], axis=1)
    n_good = np.isfinite(ordered).sum(axis=1)
    index = np.rint(quantile * (n_good - 1)).astype(int).clip(0)
    return np.take_along_axis(ordered, index[:, None], axis=1)[:, 0]
