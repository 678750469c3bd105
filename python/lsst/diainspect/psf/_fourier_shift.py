"""Sub-pixel translation of stacks of small images by phase ramps in the Fourier plane."""

from __future__ import annotations

__all__ = ["shift_images"]

import numpy as np
import scipy.fft

_PADDING = 4
"""Pixels of zeros on each side, so that what a shift pushes over one edge does not come in at the other."""


def shift_images(images: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Translate images by fractions of a pixel.

    Multiplies each transform by exp(-2 pi i (k_x dx + k_y dy)): exact for band-limited images.

    Parameters
    ----------
    images : `numpy.ndarray`, (N, height, width)
        Images to move.
    dx, dy : `numpy.ndarray`, (N,)
        Translation towards larger x and y [pixel], meant for less than one pixel.

    Returns
    -------
    shifted : `numpy.ndarray`, (N, height, width)
        Images of the input's type.
    """
    height, width = images.shape[-2:]
    shape = (
        scipy.fft.next_fast_len(height + 2 * _PADDING, real=True),
        scipy.fft.next_fast_len(width + 2 * _PADDING, real=True),
    )
    ky = scipy.fft.fftfreq(shape[0]).astype(images.dtype)
    kx = scipy.fft.rfftfreq(shape[1]).astype(images.dtype)
    ramp_y = np.exp(-2j * np.pi * np.asarray(dy, dtype=images.dtype)[:, None] * ky)
    ramp_x = np.exp(-2j * np.pi * np.asarray(dx, dtype=images.dtype)[:, None] * kx)
    transform = scipy.fft.rfft2(images, s=shape)
    transform *= ramp_y[:, :, None]
    transform *= ramp_x[:, None, :]
    return scipy.fft.irfft2(transform, s=shape)[:, :height, :width].astype(images.dtype, copy=False)
