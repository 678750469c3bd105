"""Noise and PSFs of stamps that have none, as those of ZTF's alerts, estimated from their own pixels."""

from __future__ import annotations

__all__ = ["estimate_planes"]

from dataclasses import replace

import numpy as np
from astropy.stats import mad_std

from ..psf import second_moments, shift_images
from ..stamps import StampModel, StampSet

_SKY_RADIUS = 8.0
"""Pixels beyond this distance from the source tell the noise [pixel]."""

_LEAST_PIXELS = 100
"""Pixels needed for that."""

_MOMENTS_SIZE = 31
"""Side of the image whose moments give the PSF's width [pixel]."""

_LEAST_PEAK = 30.0
"""Least peak, in sigma of the sky, of a source whose width is taken for that of the PSF."""

_PEAK_RADIUS = 2.0
"""How far the peak may be from the position of the source [pixel]."""

_SIGMA_RANGE = (0.6, 2.5)
"""Widths that a PSF may have [pixel]; beyond, the source is not a star or the moments did not converge."""

_PSF_SIZE = 31
_SIDES = ("science", "template", "difference")


def estimate_planes(stamps: StampSet) -> StampSet:
    """Add what science, template and difference lack of variances and PSFs.

    Parameters
    ----------
    stamps : `StampSet`
        N stamps with science, template and difference.

    Returns
    -------
    stamps : `StampSet`
        The same with all variances and PSFs; those that were there are kept.

    Notes
    -----
    The variance is one number a stamp, the squared robust scatter beyond 8 pixels from the source: photon noise of the
    source is not in it. The PSF of science image and template is a round Gaussian of the width of the source at the
    centre, if both images have a bright one there, whose width a PSF can have; elsewhere it has the median width of
    those. A source on one image alone, which may be a cosmic ray, is not taken for a star. The difference is given
    the PSF of the science image, which it has where the template is deep.
    """
    missing = set(_SIDES) - set(stamps.planes)
    if missing:
        raise ValueError(
            f"Noise and PSFs are estimated from {sorted(_SIDES)}; there is no {sorted(missing)}."
        )
    planes, models = dict(stamps.planes), dict(stamps.models)
    y, x = np.mgrid[: stamps.size, : stamps.size] - stamps.size // 2
    distance = np.hypot(x - stamps.dx[:, None, None], y - stamps.dy[:, None, None])
    widths, stars = {}, np.ones(len(stamps), dtype=bool)
    for side in _SIDES:
        pixels = stamps.planes[side]
        away = np.where(np.isfinite(pixels) & (distance > _SKY_RADIUS), pixels, np.nan)
        away = away.reshape(len(stamps), -1)
        enough = np.isfinite(away).sum(axis=1) >= _LEAST_PIXELS
        sky, noise = (np.full(len(stamps), np.nan) for _ in range(2))
        sky[enough] = np.nanmedian(away[enough], axis=1)
        noise[enough] = mad_std(away[enough], axis=1, ignore_nan=True)
        if f"{side}Variance" not in planes:
            variance = np.broadcast_to((noise**2)[:, None, None], pixels.shape)
            planes[f"{side}Variance"] = np.where(np.isfinite(pixels), variance, np.nan).astype(np.float32)
        if side != "difference":
            widths[side], bright = _widths(stamps, side, sky, noise, distance)
            stars &= bright
    for side, sigma in widths.items():
        if f"{side}Psf" not in models:
            typical = np.median(sigma[stars]) if stars.any() else np.mean(_SIGMA_RANGE)
            models[f"{side}Psf"] = StampModel.from_images(_gaussians(np.where(stars, sigma, typical)))
    models.setdefault("differencePsf", models["sciencePsf"])
    return replace(stamps, planes=planes, models=models)


def _widths(
    stamps: StampSet, side: str, sky: np.ndarray, noise: np.ndarray, distance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gaussian sigma of the central source of each stamp [pixel], and which may be a bright star."""
    above = np.nan_to_num(stamps.planes[side] - sky[:, None, None])
    peak = np.where(distance <= _PEAK_RADIUS, above, 0.0).max(axis=(1, 2))
    low = max(stamps.size // 2 - _MOMENTS_SIZE // 2, 0)
    inner = above[:, low : low + _MOMENTS_SIZE, low : low + _MOMENTS_SIZE]
    # Moments are about the central pixel: a source beside it would look wider.
    ixx, iyy, _ = second_moments(shift_images(inner, -stamps.dx, -stamps.dy))
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(0.5 * (ixx + iyy))
        bright = (peak > _LEAST_PEAK * noise) & (sigma > _SIGMA_RANGE[0]) & (sigma < _SIGMA_RANGE[1])
    return sigma, bright


def _gaussians(sigma: np.ndarray) -> np.ndarray:
    """Return round Gaussians of unit sum, (N, size, size), float32."""
    y, x = np.mgrid[:_PSF_SIZE, :_PSF_SIZE] - _PSF_SIZE // 2
    images = np.exp(-0.5 * (x**2 + y**2) / sigma[:, None, None] ** 2)
    return (images / images.sum(axis=(1, 2), keepdims=True)).astype(np.float32)
