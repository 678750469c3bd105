"""Sub-pixel translation of stacks of small images by phase ramps in the Fourier plane."""

from __future__ import annotations

__all__ = ["ShiftableImages", "shift_images"]

import copy

import numpy as np
import scipy.fft

_PADDING = 4
"""Pixels of zeros on each side, so that what a shift pushes over one edge does not come in at the other."""


class ShiftableImages:
    """Stack of small images that is to be moved several times, with its derivatives.

    Parameters
    ----------
    images : `numpy.ndarray`, (N, height, width)
        Images; what is computed from them has their type.
    """

    def __init__(self, images: np.ndarray) -> None:
        self._dtype = images.dtype
        self._inner = images.shape[-2:]
        height, width = (scipy.fft.next_fast_len(length + 2 * _PADDING, real=True) for length in self._inner)
        self._shape = (height, width)
        self._ky = scipy.fft.fftfreq(height).astype(images.dtype)
        self._kx = scipy.fft.rfftfreq(width).astype(images.dtype)
        self._transform = scipy.fft.rfft2(images, s=self._shape)

    def take(self, index: np.ndarray) -> ShiftableImages:
        """Return some of the images."""
        some = copy.copy(self)
        some._transform = self._transform[index]
        return some

    def shifted(self, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Move the images by fractions of a pixel.

        Parameters
        ----------
        dx, dy : `numpy.ndarray`, (N,)
            Translation towards larger x and y [pixel], meant for less than one pixel.

        Returns
        -------
        images, d_dx, d_dy : `numpy.ndarray`, (N, height, width)
            Moved images and their derivatives [1 / pixel].
        """
        moved = self._ramped(dx, dy)
        slope_x = moved * (2j * np.pi * self._kx).astype(moved.dtype)
        slope_y = moved * (2j * np.pi * self._ky).astype(moved.dtype)[:, None]
        return self._to_images(moved), self._to_images(slope_x), self._to_images(slope_y)

    def _ramped(self, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        ramp_y = np.exp(-2j * np.pi * np.asarray(dy, dtype=self._dtype)[:, None] * self._ky)
        ramp_x = np.exp(-2j * np.pi * np.asarray(dx, dtype=self._dtype)[:, None] * self._kx)
        moved = self._transform * ramp_y[:, :, None]
        moved *= ramp_x[:, None, :]
        return moved

    def _to_images(self, transform: np.ndarray) -> np.ndarray:
        height, width = self._inner
        images = scipy.fft.irfft2(transform, s=self._shape, overwrite_x=True)[:, :height, :width]
        return images.astype(self._dtype, copy=False)


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
    shiftable = ShiftableImages(images)
    return shiftable._to_images(shiftable._ramped(dx, dy))
