"""The error floor: how much of a static star's flux is left at random, however bright it is."""

from __future__ import annotations

__all__ = ["StarFloor", "star_floor"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ..maps import fit_smooth_map


@dataclass(frozen=True)
class StarFloor:
    """What is left of static stars relative to their flux: mean, scatter beyond the errors, and its error."""

    mean: float
    mean_error: float
    floor: float
    floor_error: float
    n: int


def star_floor(residual: np.ndarray, error: np.ndarray, flux: np.ndarray) -> StarFloor:
    """Measure the floor f for which residuals scatter by sqrt(error^2 + (f flux)^2).

    Parameters
    ----------
    residual, error : `numpy.ndarray`, (N,)
        Forced flux of static stars on the difference, and its error.
    flux : `numpy.ndarray`, (N,)
        Their flux.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        relative, relative_error = residual / flux, error / np.abs(flux)
    everywhere = np.zeros(len(relative))
    fitted = fit_smooth_map(
        everywhere, everywhere, relative, relative_error, Box.factory[0:1, 0:1], max_order=0
    )
    if fitted is None:
        return StarFloor(np.nan, np.nan, np.nan, np.nan, int(np.isfinite(relative).sum()))
    return StarFloor(
        mean=float(fitted.coefficients[0]),
        mean_error=float(np.sqrt(fitted.covariance[0, 0])),
        floor=fitted.rms,
        floor_error=fitted.rms_error,
        n=fitted.n_used,
    )
