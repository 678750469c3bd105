"""Residual modes of galaxies: derivatives of the matched template.

A galaxy G * P_t on the template becomes M = h_t * G * P_t in the difference, which the science image cancels. A shift
leaves -dM/dx; an error of the science PSF's width or shear leaves, with s^2 the variance of a Gaussian like that PSF,
  s^2 (d2/dx2 + d2/dy2) M,   s^2 (d2/dx2 - d2/dy2) M,   2 s^2 d2M/dxdy,
because a PSF error acts on every point of the galaxy. Derivatives of a noisy image would fit its noise, which is in
the difference too; so the template is first described by some tens of smooth images: the PSF widened by Gaussians,
and the modes of those.
"""

from __future__ import annotations

__all__ = ["extended_modes"]

import numpy as np
import scipy.fft

from ..psf import centre_crop, disk_mask, residual_modes, shift_images
from ..stamps import StampSet
from ._normal_equations import NormalEquations

_WIDENING = (0.0, 1.5, 3.0, 5.0)
"""Widths of the Gaussians that widen the PSF [pixel]."""

_RIDGE = 1e-4
"""Prior on each smooth image's amplitude: its inverse variance in units of the data's."""

_MARGIN = 6
"""Pixels beyond the fitted disk to which the smooth image is continued, so that the filters have what they need."""


def extended_modes(
    stamps: StampSet, x: np.ndarray, y: np.ndarray, flux: np.ndarray, size: int, radius: float
) -> np.ndarray:
    """Return the source and its modes on the difference, for unit flux.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of N extended sources, with template, its PSF and filter, and the science PSF.
    x, y : `numpy.ndarray`, (N,)
        Positions on the template with respect to the stamps' central pixel [pixel].
    flux : `numpy.ndarray`, (N,)
        Flux by which the images are divided.
    size : `int`
        Side of the result [pixel].
    radius : `float`
        Radius of the disk in which the template is described [pixel].

    Returns
    -------
    modes : `numpy.ndarray`, (N, 6, size, size), float32
        M and its modes, by shift x and y per pixel, width, and the two components of shear.
    """
    smooth = _smooth_template(stamps, x, y, radius, size + 2 * _MARGIN)
    own = np.asarray(stamps.models["templateFilter"].images(), dtype=np.float32)
    window = scipy.fft.next_fast_len(smooth.shape[-1] + own.shape[-1] // 2 + 1, real=True)
    own = centre_crop(own, min(own.shape[-1], 2 * (window - smooth.shape[-1]) - 1))
    transform = scipy.fft.rfft2(smooth, s=(window, window)) * scipy.fft.rfft2(own, s=(window, window))
    ky = (2j * np.pi * scipy.fft.fftfreq(window)).astype(np.complex64)[:, None]
    kx = (2j * np.pi * scipy.fft.rfftfreq(window)).astype(np.complex64)[None, :]
    variance = _gaussian_variance(stamps.model_images("sciencePsf"))[:, None, None].astype(np.float32)
    parts = (
        transform,
        -kx * transform,
        -ky * transform,
        variance * (kx**2 + ky**2) * transform,
        variance * (kx**2 - ky**2) * transform,
        2.0 * variance * kx * ky * transform,
    )
    low = _MARGIN + own.shape[-1] // 2
    modes = [
        scipy.fft.irfft2(part, s=(window, window))[:, low : low + size, low : low + size] for part in parts
    ]
    return np.stack(modes, axis=1) / flux[:, None, None, None].astype(np.float32)


def _smooth_template(stamps: StampSet, x: np.ndarray, y: np.ndarray, radius: float, size: int) -> np.ndarray:
    """Fit the template by smooth images in a disk; returns the fit on (N, size, size) pixels."""
    n = len(stamps)
    psf = centre_crop(stamps.model_images("templatePsf"), size)
    k2 = scipy.fft.fftfreq(size)[:, None] ** 2 + scipy.fft.rfftfreq(size)[None, :] ** 2
    transform = scipy.fft.rfft2(shift_images(psf, x, y))
    images = []
    for sigma in _WIDENING:
        gaussian = np.exp(-2.0 * np.pi**2 * sigma**2 * k2).astype(np.float32)
        widened = scipy.fft.irfft2(transform * gaussian, s=(size, size))
        images.append(np.concatenate([widened[:, None], residual_modes(widened, x, y)], axis=1))
    columns = np.concatenate(images, axis=1)
    n_columns = columns.shape[1]
    pixels = centre_crop(stamps.good_pixels("template"), size)
    weight = np.where(disk_mask(size, x, y, radius), centre_crop(stamps.weight("template"), size), 0.0)
    design = np.concatenate([columns, np.ones_like(columns[:, :1])], axis=1).reshape(n, n_columns + 1, -1)
    equations = NormalEquations.from_pixels(pixels.reshape(n, -1), design, weight.reshape(n, -1))
    precision = _RIDGE * np.diagonal(equations.matrix, axis1=1, axis2=2)
    fit = equations.solve(range(n_columns + 1), prior_precision=precision)
    amplitude = np.nan_to_num(fit.amplitude[:, :-1]).astype(np.float32)
    return np.matmul(amplitude[:, None], columns.reshape(n, n_columns, -1)).reshape(n, size, size)


def _gaussian_variance(psf: np.ndarray) -> np.ndarray:
    """Return s^2 for which s^2 times the Laplacian is nearest to the width mode of PSFs (N, size, size) [pixel^2]."""
    size = psf.shape[-1]
    k2 = scipy.fft.fftfreq(size)[:, None] ** 2 + scipy.fft.rfftfreq(size)[None, :] ** 2
    laplacian = scipy.fft.irfft2(-4.0 * np.pi**2 * k2 * scipy.fft.rfft2(psf), s=(size, size))
    width = residual_modes(psf)[:, 2]
    return (width * laplacian).sum(axis=(1, 2)) / (laplacian**2).sum(axis=(1, 2))
