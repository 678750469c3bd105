"""DPDD pixel flags from mask words."""

from __future__ import annotations

__all__ = ["PIXEL_FLAGS", "measure_pixel_flags"]

from dataclasses import dataclass

import numpy as np

from ..masks import words_masked_by


@dataclass(frozen=True)
class PixelFlag:
    """A flag: the mask planes that raise it, where they are looked for, and its meaning."""

    planes: tuple[str, ...]
    center: bool
    doc: str


def _flags() -> dict[str, PixelFlag]:
    planes = {
        "bad": ("BAD",),
        "cr": ("COSMIC_RAY",),
        "edge": ("DETECTION_EDGE", "OFF_IMAGE", "NO_DATA"),
        "nodata": ("NO_DATA",),
        "interpolated": ("INTERPOLATED",),
        "saturated": ("SATURATED",),
        "suspect": ("SUSPECT",),
        "streak": ("STREAK",),
        "injected": ("INJECTED",),
        "injected_template": ("INJECTED_TEMPLATE",),
    }
    flags = {}
    for name, names in planes.items():
        flags[f"pixelFlags_{name}"] = PixelFlag(names, False, f"{' or '.join(names)} within the PSF's FWHM.")
        if name not in ("bad", "edge"):
            flags[f"pixelFlags_{name}Center"] = PixelFlag(
                names, True, f"{' or '.join(names)} in the central 3 x 3 pixels."
            )
    return flags


PIXEL_FLAGS: dict[str, PixelFlag] = _flags()
"""DPDD names of the flags."""


def measure_pixel_flags(words: np.ndarray, radius: float) -> dict[str, np.ndarray]:
    """Raise the pixel flags of sources.

    Parameters
    ----------
    words : `numpy.ndarray`, (N, size, size), uint32
        Mask words of stamps centred on the sources.
    radius : `float`
        Radius of the footprint [pixel].

    Returns
    -------
    flags : `dict` [`str`, `numpy.ndarray`]
        Booleans of shape (N,), by DPDD name.
    """
    size = words.shape[-1]
    y, x = np.mgrid[:size, :size] - size // 2
    footprint = x**2 + y**2 <= radius**2
    center = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    return {
        name: words_masked_by(words[:, center if flag.center else footprint], flag.planes).any(axis=1)
        for name, flag in PIXEL_FLAGS.items()
    }
