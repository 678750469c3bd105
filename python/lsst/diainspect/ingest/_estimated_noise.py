"""Background, noise and masks of an image that comes with pixels only.

The background is the sigma-clipped mode in a mesh without the sources, the variance of the sky the squared scatter in
the same mesh, to which the photon noise of the sources is added where the gain is known.
"""

from __future__ import annotations

__all__ = ["EstimatedNoise", "NoiseSettings", "estimate_noise", "saturated_pixels", "unexposed_pixels"]

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import sep
from astropy.io import fits
from astropy.stats import mad_std

from lsst.diainspect.sky import source_pixels

from ._fits_file import IngestError

_GAIN_KEYWORDS = ("GAIN", "EGAIN")
_SATURATION_KEYWORDS = ("SATURATE", "SATLEVEL")

_SOURCE_GROWTH = 4
"""Pixels by which sources are grown before the sky is measured: their wings are below the detection threshold."""

_BLEED_LEVEL = 0.6
"""Fraction of the saturation level above which pixels joined to a saturated one belong to its bleed."""

_SATURATION_GROWTH = 2
"""Pixels by which saturated areas are grown: charge and interpolation spread them."""

_LEAST_ZEROS = 16
"""Fewest touching pixels of exactly zero that are an area without exposure."""


@dataclass(frozen=True)
class NoiseSettings:
    """How to estimate what is not given.

    Parameters
    ----------
    gain : `float` or ``"sky"``, optional
        Electrons per pixel unit. From GAIN or EGAIN of the header when omitted; if there is none the photon noise of
        sources is left out. ``"sky"`` takes the noise of the sky to be photon noise of the background in the image:
        gain = background / variance, which needs an image from which the sky was not subtracted.
    saturation : `float`, optional
        Level at which pixels saturate, in pixel units with the sky included; from SATURATE of the header when
        omitted.
    subtract_background : `bool`, optional
        Subtract the background; when omitted it is subtracted where the noise is estimated.
    mesh : `int`, optional
        Side of the mesh in which background and noise are measured [pixel].
    """

    gain: float | str | None = None
    saturation: float | None = None
    subtract_background: bool | None = None
    mesh: int = 128

    def __post_init__(self) -> None:
        if isinstance(self.gain, str):
            if self.gain != "sky":
                raise IngestError(f"Gain must be a number or 'sky', got {self.gain!r}.")
        elif self.gain is not None and not self.gain > 0:
            raise IngestError(f"Gain must be positive, got {self.gain}.")
        if self.saturation is not None and not self.saturation > 0:
            raise IngestError(f"Saturation level must be positive, got {self.saturation}.")
        if self.mesh < 16:
            raise IngestError(f"The background mesh must be at least 16 pixels, got {self.mesh}.")


@dataclass(frozen=True)
class EstimatedNoise:
    """What was estimated, in pixel units.

    Parameters
    ----------
    background, variance : `numpy.ndarray`, (height, width)
        Background, and variance with the photon noise of sources where the gain is known.
    gain : `float` or `None`
        Gain used.
    gain_from : `str`
        Where the gain is from: ``option``, ``header``, ``sky`` or ``unknown``.
    """

    background: np.ndarray
    variance: np.ndarray
    gain: float | None
    gain_from: str


def estimate_noise(
    pixels: np.ndarray, bad: np.ndarray, header: fits.Header, settings: NoiseSettings, name: str
) -> EstimatedNoise:
    """Estimate background and variance.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (height, width)
        Image in its own units.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to leave out.
    header : `astropy.io.fits.Header`
        Header, for the gain.
    settings : `NoiseSettings`
        What is given.
    name : `str`
        File, for messages.

    Raises
    ------
    IngestError
        If there is no sky to measure, or its noise is zero.
    """
    if bad.all():
        raise IngestError(
            f"{name}: no pixel is good, so its noise cannot be estimated; give a noise or variance file."
        )
    clean = np.ascontiguousarray(np.where(bad, np.median(pixels[~bad]), pixels), dtype=np.float32)
    mesh = _mesh(settings.mesh, clean.shape)
    first = _background(clean, bad, mesh)
    scatter = first.rms().astype(float)
    if not np.median(scatter) > 0:
        raise IngestError(
            f"{name}: its sky has no noise (median scatter {np.median(scatter):g}), so the variance cannot be "
            "estimated; give a noise or variance file."
        )
    sources = source_pixels(clean, np.maximum(scatter, 1e-3 * np.median(scatter)) ** 2, bad)
    grown = scipy.ndimage.binary_dilation(
        sources, scipy.ndimage.generate_binary_structure(2, 1), iterations=_SOURCE_GROWTH
    )
    # Where sources cover nearly all, what the mesh finds between them is better than nothing.
    masked = bad | grown if (bad | grown).mean() < 0.9 else bad
    fit = _background(clean, masked, mesh)
    background, scatter = fit.back().astype(float), fit.rms().astype(float)
    scatter = np.maximum(scatter, 0.1 * np.median(scatter))
    # Clipping at 3 sigma takes 1.5 % off the scatter of Gaussian noise; the median deviation is not clipped.
    pull = ((clean - background) / scatter)[~masked]
    variance = (scatter * mad_std(pull)) ** 2
    gain, gain_from = _gain(header, settings, background, variance, name)
    if gain is not None:
        light = np.where(grown & ~bad, np.maximum(clean - background, 0.0), 0.0)
        variance = variance + light / gain
    return EstimatedNoise(background, variance, gain, gain_from)


def saturated_pixels(
    pixels: np.ndarray, header: fits.Header, settings: NoiseSettings
) -> tuple[np.ndarray, float | None]:
    """Find saturated pixels, grown along their bleeds and by what charge spills over.

    Returns
    -------
    saturated : `numpy.ndarray`, (height, width), bool
        The pixels.
    level : `float` or `None`
        Saturation level, `None` when it is not known.
    """
    level = settings.saturation
    if level is None:
        level = _number(header, _SATURATION_KEYWORDS)
    if level is None:
        return np.zeros(pixels.shape, dtype=bool), None
    with np.errstate(invalid="ignore"):
        saturated = pixels >= level
        if saturated.any():
            sky = float(np.nanmedian(pixels))
            along = pixels >= sky + _BLEED_LEVEL * (level - sky)
            saturated = scipy.ndimage.binary_propagation(saturated, mask=along | saturated)
            saturated = scipy.ndimage.binary_dilation(
                saturated, np.ones((3, 3), bool), iterations=_SATURATION_GROWTH
            )
    return saturated, level


def unexposed_pixels(pixels: np.ndarray) -> np.ndarray:
    """Find pixels without data: those that are not finite, and areas of exactly zero."""
    missing = ~np.isfinite(pixels)
    zero = pixels == 0
    if zero.any():
        labels, n = scipy.ndimage.label(zero)
        size = np.bincount(labels.ravel(), minlength=n + 1)
        size[0] = 0
        missing |= size[labels] >= _LEAST_ZEROS
    return missing


def _mesh(mesh: int, shape: tuple[int, int]) -> int:
    """At least four cells a side, so that a gradient can be followed, of at least 16 pixels."""
    return max(16, min(mesh, min(shape) // 4))


def _background(pixels: np.ndarray, masked: np.ndarray, mesh: int) -> sep.Background:
    return sep.Background(pixels, mask=masked, bw=mesh, bh=mesh, fw=3, fh=3)


def _gain(
    header: fits.Header, settings: NoiseSettings, background: np.ndarray, variance: np.ndarray, name: str
) -> tuple[float | None, str]:
    if settings.gain == "sky":
        gain = float(np.median(background) / np.median(variance))
        if not gain > 0:
            raise IngestError(
                f"{name}: its background is {np.median(background):.4g}, from which no gain follows; give the gain "
                "as a number."
            )
        return gain, "sky"
    if settings.gain is not None:
        return float(settings.gain), "option"
    from_header = _number(header, _GAIN_KEYWORDS)
    return (from_header, "header") if from_header is not None else (None, "unknown")


def _number(header: fits.Header, keywords: tuple[str, ...]) -> float | None:
    for keyword in keywords:
        value = header.get(keyword)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and np.isfinite(value)
            and value > 0
        ):
            return float(value)
    return None
