"""Decorrelation of a matched difference (Reiss & Lupton 2016; DMTN-021, eq. 2)."""

from __future__ import annotations

__all__ = ["decorrelation_transfer"]

import numpy as np


def decorrelation_transfer(
    kernel_transfer: np.ndarray, unconvolved_power: np.ndarray | float, convolved_power: np.ndarray | float
) -> np.ndarray:
    """Return the filter that whitens the noise of U - kappa * C.

    phi(k) = sqrt((v_u + kappa(0)^2 v_c) / (v_u + |kappa(k)|^2 v_c)), which is 1 at zero frequency, so that the
    flux scale stays what it was and white noise of variance v_u + kappa(0)^2 v_c is left.

    Parameters
    ----------
    kernel_transfer : `numpy.ndarray`, (..., window, window // 2 + 1)
        Transform of the matching kernel.
    unconvolved_power, convolved_power : `float` or `numpy.ndarray`
        Noise variance per pixel, or noise power spectrum, of the image left alone and of the one convolved.

    Returns
    -------
    transfer : `numpy.ndarray`, (..., window, window // 2 + 1)
        Real transfer function.
    """
    power = unconvolved_power + np.abs(kernel_transfer) ** 2 * convolved_power
    return np.sqrt(power[..., :1, :1] / power)
