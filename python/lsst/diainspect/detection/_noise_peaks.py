"""How many peaks noise alone makes, from the PSF it was filtered with."""

from __future__ import annotations

__all__ = ["noise_peak_density"]

import numpy as np

from ..psf import gradient_images


def noise_peak_density(psf: np.ndarray, threshold: float) -> float:
    """Return the peaks of one sign above a threshold per pixel of the score of pure white noise.

    n(> nu) = nu exp(-nu^2 / 2) / (2^(5/2) pi^(3/2) sigma_g^2), the maxima of a Gaussian random field at high nu
    (Bond & Efstathiou 1987; Kaiser 2004; DMTN-006), where sigma_g is the width of a Gaussian PSF. For any PSF it is
    that of the field's gradient: 1 / (2 sigma_g^2) = sqrt(det <grad P grad P>) / <P^2>.

    Parameters
    ----------
    psf : `numpy.ndarray`, (size, size)
        PSF of the image whose matched filter the score is.
    threshold : `float`
        Height of a peak [sigma], 3 or more: lower down not every piece above the threshold has one peak.

    Returns
    -------
    density : `float`
        Expected peaks per pixel [1 / pixel^2]; both signs make twice as many.
    """
    d_dx, d_dy = (gradient[0] for gradient in gradient_images(np.asarray(psf, dtype=float)[None]))
    moments = (d_dx**2).sum() * (d_dy**2).sum() - (d_dx * d_dy).sum() ** 2
    gradient_variance = np.sqrt(moments) / (np.asarray(psf, dtype=float) ** 2).sum()
    return float(threshold * np.exp(-0.5 * threshold**2) * 2.0 * gradient_variance / (2.0**2.5 * np.pi**1.5))
