"""Images brought to another pixel grid, with everything that belongs to them: variance, mask, PSF, noise power."""

from ._cardinal_spline import CardinalSpline
from ._noise_power import NoisePower
from ._pixel_map import PixelMap
from ._warp import NoCommonSkyError, WarpedImage, warp_image, warp_psf

__all__ = [
    "CardinalSpline",
    "NoCommonSkyError",
    "NoisePower",
    "PixelMap",
    "WarpedImage",
    "warp_image",
    "warp_psf",
]
