"""The registration that a match has taken into its filters."""

from __future__ import annotations

__all__ = ["match_shift"]

import numpy as np
import scipy.fft

_LEAST_POWER = 1e-3
"""Beyond the PSFs' bandwidth, where the cross power is below this of its largest, the phase is noise."""


def match_shift(
    science_psf: np.ndarray,
    science_filter: np.ndarray,
    template_psf: np.ndarray,
    template_filter: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shift d of a source from template to science image for which it vanishes from the difference.

    That is h_s P_s exp(-2 pi i k d) = h_t P_t, with filters h and PSFs P: the slope of the phase, weighted by the
    power that the PSFs let through.

    Parameters
    ----------
    science_psf, science_filter, template_psf, template_filter : `numpy.ndarray`, (N, size, size)
        PSFs and filters, centred on pixel size // 2.

    Returns
    -------
    x, y : `numpy.ndarray`, (N,)
        Science minus template position [pixel].
    """
    sides = [(science_psf, science_filter), (template_psf, template_filter)]
    window = scipy.fft.next_fast_len(max(psf.shape[-1] + own.shape[-1] for psf, own in sides), real=True)
    science, template = (
        scipy.fft.rfft2(psf, s=(window, window)) * scipy.fft.rfft2(own, s=(window, window))
        for psf, own in sides
    )
    # Images are centred on pixel size // 2, so sizes that differ between the sides add a known phase.
    science_centre, template_centre = (psf.shape[-1] // 2 + own.shape[-1] // 2 for psf, own in sides)
    offset = science_centre - template_centre
    ky, kx = scipy.fft.fftfreq(window)[:, None], scipy.fft.rfftfreq(window)[None, :]
    cross = template * np.conj(science) * np.exp(-2j * np.pi * offset * (kx + ky))
    power = np.abs(cross)
    phase = -np.angle(cross) / (2.0 * np.pi)
    weight = power * (power > _LEAST_POWER * power.max(axis=(1, 2), keepdims=True))
    xx = (weight * kx**2).sum(axis=(1, 2))
    yy = (weight * ky**2).sum(axis=(1, 2))
    xy = (weight * kx * ky).sum(axis=(1, 2))
    x, y = (weight * kx * phase).sum(axis=(1, 2)), (weight * ky * phase).sum(axis=(1, 2))
    determinant = xx * yy - xy**2
    return (yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant
