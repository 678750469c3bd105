"""The S/N that the best possible difference gives a change, with the noise of all light at its place.

From Zackay, Ofek & Gal-Yam (2016): S = k_n * N - k_r * R with the filters of their eqs. 28 and 29, whose variance
with sources is V(S) = v_n * k_n^2 + v_r * k_r^2 (eqs. 26 and 27), v the variance of each pixel. PSFs and variances are
the true ones.
"""

from __future__ import annotations

__all__ = ["ideal_snr"]

import numpy as np
import scipy.fft
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.stamps import gather_stamps


def ideal_snr(
    flux_change: np.ndarray,
    science_position: tuple[np.ndarray, np.ndarray],
    template_position: tuple[np.ndarray, np.ndarray],
    *,
    psfs: tuple[PixelBasisPsf, PixelBasisPsf],
    variances: tuple[np.ndarray, np.ndarray],
    sky_variances: tuple[float, float],
    box: Box,
    trail: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Compute the ideal S/N of changes.

    Parameters
    ----------
    flux_change : `numpy.ndarray`, (N,)
        Flux in the science image minus that in the template [nJy].
    science_position, template_position : `tuple` [`numpy.ndarray`, `numpy.ndarray`], (N,) each
        x and y in the images [pixel].
    psfs : `tuple` [`lsst.diainspect.psf.PixelBasisPsf`, `lsst.diainspect.psf.PixelBasisPsf`]
        True PSFs of science image and template.
    variances : `tuple` [`numpy.ndarray`, `numpy.ndarray`], (height, width) each
        Expected variance of each pixel, light of all sources included [nJy^2]; pixels off the image or without a
        finite variance count as sky.
    sky_variances : `tuple` [`float`, `float`]
        Variances of the blank sky [nJy^2], for which the filters are made.
    box : `lsst.images.Box`
        The pixels of the images.
    trail : `tuple` [`numpy.ndarray`, `numpy.ndarray`], (N,) each, optional
        Length [pixel] and direction [degree] of the path in the science image; 0 for what does not move.

    Returns
    -------
    snr : `numpy.ndarray`, (N,)
        |flux_change| over its error.
    """
    n = len(flux_change)
    if n == 0:
        return np.zeros(0)
    x = np.rint(template_position[0]).astype(int)
    y = np.rint(template_position[1]).astype(int)
    images = [
        psf.evaluate(*position, dx=position[0] - x, dy=position[1] - y)
        for psf, position in zip(psfs, (science_position, template_position), strict=True)
    ]
    size = max(image.shape[-1] for image in images)
    padded = [np.pad(image, [(0, 0), *[((size - image.shape[-1]) // 2,) * 2] * 2]) for image in images]
    science, template = (scipy.fft.fft2(image) for image in padded)
    if trail is not None:
        frequency = scipy.fft.fftfreq(size)
        angle = np.deg2rad(trail[1])[:, None, None]
        along = np.cos(angle) * frequency[None, None, :] + np.sin(angle) * frequency[None, :, None]
        science = science * np.sinc(along * trail[0][:, None, None])
    power_n, power_r = np.abs(science) ** 2, np.abs(template) ** 2
    denominator = sky_variances[0] * power_r + sky_variances[1] * power_n
    # Where neither image has any power there is no signal either.
    denominator = np.maximum(denominator, 1e-20 * denominator.max(axis=(-2, -1), keepdims=True))
    signal = (power_n * power_r / denominator).mean(axis=(-2, -1))
    weights = [
        scipy.fft.ifft2(science * power_r / denominator).real,
        scipy.fft.ifft2(template * power_n / denominator).real,
    ]
    noise = np.zeros(n)
    for weight, variance, sky in zip(weights, variances, sky_variances, strict=True):
        corner = (x - size // 2 - box.x.start, y - size // 2 - box.y.start)
        stamps = gather_stamps(variance, *corner, size, np.nan)
        stamps = np.where(np.isfinite(stamps), stamps, sky)
        noise += (weight**2 * stamps).sum(axis=(-2, -1))
    snr: np.ndarray = np.abs(flux_change) * signal / np.sqrt(noise)
    return snr
