"""How many false detections noise alone makes: the local maxima of a Gaussian random field on pixels.

In the continuum the density of maxima above a high threshold t is sqrt(det L) t exp(-t^2 / 2) / (2 pi)^(3/2), where L
is minus the Hessian of the correlation at zero (with a Gaussian PSF this is DMTN-006's formula). On pixels the top of a
peak is missed, which at 5 sigma makes a quarter fewer; so the density is integrated for the eight neighbours:

  n = int_t^inf phi(s) P(all eight neighbours < s | s) ds.
"""

from __future__ import annotations

__all__ = ["continuum_density", "maxima_density", "score_correlation"]

import numpy as np
import scipy.fft

_SPAN = 3.0
"""Heights above the threshold that are integrated over: beyond, the Gaussian has fallen by 1e-7 or more."""

_NODES = 24
_N_DRAWS = 200_000
"""Draws of the eight neighbours: a relative error of 0.3 %."""


def score_correlation(psf: np.ndarray) -> np.ndarray:
    """Return the correlation of the noise of the score at lags -2 to 2, [lag y, lag x].

    The score is the difference, of white noise, correlated with its PSF: its noise has the PSF's autocorrelation.
    """
    size = 2 * psf.shape[0]
    transfer = scipy.fft.fft2(psf, s=(size, size))
    correlation = scipy.fft.ifft2(np.abs(transfer) ** 2).real
    lags = np.arange(-2, 3)
    return correlation[np.ix_(lags, lags)] / correlation[0, 0]


def maxima_density(correlation: np.ndarray, threshold: float) -> float:
    """Return the density of local maxima above a threshold, one a pixel at most.

    Parameters
    ----------
    correlation : `numpy.ndarray`, (5, 5)
        Correlation at lags -2 to 2.
    threshold : `float`
        Threshold [sigma].

    Returns
    -------
    density : `float`
        Maxima a pixel, of one sign.
    """
    offsets = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (j, i) != (0, 0)]
    to_centre = np.array([correlation[2 + j, 2 + i] for j, i in offsets])
    among = np.array([[correlation[2 + j - b, 2 + i - a] for b, a in offsets] for j, i in offsets])
    conditional = among - np.outer(to_centre, to_centre)
    conditional += 1e-9 * np.eye(len(offsets))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    heights = threshold + 0.5 * _SPAN * (nodes + 1.0)
    draws = np.random.default_rng(1).normal(size=(_N_DRAWS, len(offsets)))
    draws = draws @ np.linalg.cholesky(conditional).T
    # A neighbour's mean is rho s; it stays below s where its own deviation is below (1 - rho) s.
    least_height = (draws / (1.0 - to_centre)).max(axis=1)
    below = np.array([(least_height < height).mean() for height in heights])
    density = np.exp(-0.5 * heights**2) / np.sqrt(2.0 * np.pi)
    return float(0.5 * _SPAN * (weights * density * below).sum())


def continuum_density(correlation: np.ndarray, threshold: float) -> float:
    """Return the density that a field without pixels would have, for one sign (Adler 1981)."""
    xx = 2.0 - correlation[2, 3] - correlation[2, 1]
    yy = 2.0 - correlation[3, 2] - correlation[1, 2]
    xy = -0.25 * (correlation[3, 3] + correlation[1, 1] - correlation[3, 1] - correlation[1, 3])
    root = np.sqrt(xx * yy - xy**2)
    return float(root * threshold * np.exp(-0.5 * threshold**2) / (2.0 * np.pi) ** 1.5)
