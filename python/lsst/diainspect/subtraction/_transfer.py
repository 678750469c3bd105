"""Between small centred images and their transforms on a larger window."""

from __future__ import annotations

__all__ = [
    "edge_taper",
    "embed",
    "filter_radius",
    "frequencies",
    "image_from_transfer",
    "inverse_rows",
    "phase_ramp",
    "transfer_from_image",
    "transform_embedded",
]

import numpy as np
import scipy.fft


def transfer_from_image(image: np.ndarray, window: int) -> np.ndarray:
    """Transform a small image, centred on its pixel size // 2, as a convolution filter on a window.

    Parameters
    ----------
    image : `numpy.ndarray`, (..., size, size)
        Image, or stack of images, with size <= window.
    window : `int`
        Side of the window [pixel].

    Returns
    -------
    transfer : `numpy.ndarray`, (..., window, window // 2 + 1)
        Real-input transform; its value at [..., 0, 0] is the image's sum.
    """
    size = image.shape[-1]
    below = size // 2
    above = size - below
    padded = np.zeros((*image.shape[:-2], window, window), dtype=image.dtype)
    padded[..., :above, :above] = image[..., below:, below:]
    if below:
        padded[..., :above, -below:] = image[..., below:, :below]
        padded[..., -below:, :above] = image[..., :below, below:]
        padded[..., -below:, -below:] = image[..., :below, :below]
    return scipy.fft.rfft2(padded)


def image_from_transfer(transfer: np.ndarray, window: int, size: int) -> np.ndarray:
    """Return the central (size, size) pixels of the image, or images, that a transfer function stands for."""
    image = scipy.fft.irfft2(transfer, s=(window, window))
    return np.roll(image, (size // 2, size // 2), axis=(-2, -1))[..., :size, :size]


def inverse_rows(transform: np.ndarray, rows: slice) -> np.ndarray:
    """Return some rows of the image of a transform of real pixels, (n_rows, window); the transform is overwritten."""
    along_y = scipy.fft.ifft(transform, axis=0, overwrite_x=True)
    return scipy.fft.irfft(along_y[rows], n=len(transform), axis=1)


def embed(image: np.ndarray, window: int) -> np.ndarray:
    """Transform a small image, centred on its pixel size // 2, on a much larger window, in float32.

    The same as `transfer_from_image`, but rows that are zero are not transformed, which saves a third.
    """
    size = image.shape[0]
    above, below = size - size // 2, size // 2
    padded = np.zeros((size, window), dtype=np.float32)
    padded[:, :above] = image[:, below:]
    padded[:, window - below :] = image[:, :below]
    rows = scipy.fft.rfft(padded, axis=1, overwrite_x=True)
    columns = np.zeros((window, window // 2 + 1), dtype=np.complex64)
    columns[:above] = rows[below:]
    columns[window - below :] = rows[:below]
    return scipy.fft.fft(columns, axis=0, overwrite_x=True)


def transform_embedded(transfer: np.ndarray, filter_window: int, window: int) -> np.ndarray:
    """Take a transfer function from a small window to a larger one: the same image, padded with zeros."""
    return embed(np.fft.fftshift(scipy.fft.irfft2(transfer, s=(filter_window,) * 2)), window)


def frequencies(window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies [cycle / pixel] in y, shape (window, 1), and x, shape (1, window // 2 + 1)."""
    return scipy.fft.fftfreq(window)[:, None], scipy.fft.rfftfreq(window)[None, :]


def phase_ramp(dx: float, dy: float, window: int, fraction: np.ndarray | float = 1.0) -> np.ndarray:
    """Return the transfer function that moves an image by (dx, dy) [pixel], complex64.

    Parameters
    ----------
    dx, dy : `float`
        Shift [pixel].
    window : `int`
        Side of the window [pixel].
    fraction : `numpy.ndarray` or `float`, optional
        Fraction of the shift that is made at each frequency. A shift by part of a pixel is not continuous at the
        Nyquist frequency: the filter has tails that fall with the inverse of the distance, unless the fraction
        vanishes there.
    """
    ky, kx = frequencies(window)
    cycles = (kx * dx + ky * dy) * fraction
    # Less than a turn is exact to 1e-7 in float32, in which sines and cosines cost a fifth.
    cycles -= np.rint(cycles)
    phase = (-2.0 * np.pi * cycles).astype(np.float32)
    ramp = np.empty(phase.shape, dtype=np.complex64)
    np.cos(phase, out=ramp.real)
    np.sin(phase, out=ramp.imag)
    return ramp


def edge_taper(window: int) -> np.ndarray:
    """Return weights (window, window) of a centred image that fall to zero over the outer quarter of its half side."""
    edge = np.abs(np.arange(window) - window // 2) / (0.5 * window)
    weight = 0.5 + 0.5 * np.cos(np.pi * np.clip((edge - 0.75) / 0.25, 0.0, 1.0))
    return (weight[:, None] * weight[None, :]).astype(np.float32)


def filter_radius(image: np.ndarray, lost: float = 1e-4) -> int:
    """Return the radius [pixel] outside which a filter holds less than a fraction of its squared sum.

    The default loses 1 % in amplitude: what a bad pixel spreads beyond is that much below what it spreads in all.
    """
    size = image.shape[0]
    y, x = np.mgrid[:size, :size] - size // 2
    ring = np.hypot(x, y).astype(int).ravel()
    power = np.bincount(ring, weights=(image**2).ravel())
    outside = power.sum() - np.cumsum(power)
    return int(np.argmax(outside <= lost * power.sum()))
