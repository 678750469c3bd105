"""How an image of a source changes when it moves, widens or is sheared: the first-order residual modes.

For an image I(x) about its centre, the derivatives with respect to a shift, a fractional width change w (I is
stretched by 1 + w at constant flux) and a shear g (stretched by 1 + g along one axis and 1 - g along the other) are
  -dI/dx,  -dI/dy,  -div(x I),  -x dI/dx + y dI/dy,  -y dI/dx - x dI/dy.
"""

from __future__ import annotations

__all__ = ["MODE_NAMES", "gradient_images", "residual_modes"]

import numpy as np
import scipy.fft

MODE_NAMES = ("shiftX", "shiftY", "width", "e1", "e2")
"""Names of the modes, in the order of `residual_modes`."""

_PADDING = 4


def gradient_images(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differentiate images (N, h, w) in the Fourier plane, exact for band-limited ones.

    Returns
    -------
    d_dx, d_dy : `numpy.ndarray`, (N, h, w)
        Derivatives [1 / pixel].
    """
    height, width = images.shape[-2:]
    shape = (
        scipy.fft.next_fast_len(height + 2 * _PADDING, real=True),
        scipy.fft.next_fast_len(width + 2 * _PADDING, real=True),
    )
    ky = scipy.fft.fftfreq(shape[0]).astype(images.dtype)[:, None]
    kx = scipy.fft.rfftfreq(shape[1]).astype(images.dtype)[None, :]
    transform = scipy.fft.rfft2(images, s=shape)
    d_dx = scipy.fft.irfft2(transform * (2j * np.pi * kx), s=shape)[..., :height, :width]
    d_dy = scipy.fft.irfft2(transform * (2j * np.pi * ky), s=shape)[..., :height, :width]
    return d_dx, d_dy


def residual_modes(
    images: np.ndarray, dx: np.ndarray | None = None, dy: np.ndarray | None = None
) -> np.ndarray:
    """Return the modes of source images.

    Parameters
    ----------
    images : `numpy.ndarray`, (N, size, size)
        Images of unit sum (PSFs) or of any source.
    dx, dy : `numpy.ndarray`, (N,), optional
        Centre of each source with respect to the central pixel [pixel]; zero when omitted.

    Returns
    -------
    modes : `numpy.ndarray`, (N, 5, size, size)
        Modes in the order of `MODE_NAMES`, per pixel of shift and per unit of width and shear.
    """
    size = images.shape[-1]
    n = len(images)
    offset_x = np.zeros(n) if dx is None else np.asarray(dx, dtype=float)
    offset_y = np.zeros(n) if dy is None else np.asarray(dy, dtype=float)
    d_dx, d_dy = gradient_images(images)
    grid = np.arange(size, dtype=images.dtype) - size // 2
    x = grid[None, None, :] - offset_x.astype(images.dtype)[:, None, None]
    y = grid[None, :, None] - offset_y.astype(images.dtype)[:, None, None]
    return np.stack(
        [
            -d_dx,
            -d_dy,
            -2.0 * images - x * d_dx - y * d_dy,
            -x * d_dx + y * d_dy,
            -y * d_dx - x * d_dy,
        ],
        axis=1,
    )
