"""Pixels around positions, ready to be fitted: values, inverse variances and mask words."""

from __future__ import annotations

__all__ = ["Cutouts", "FittedImage"]

from dataclasses import dataclass

import numpy as np

from ..masks import MASK_BITS, words_masked_by
from ..psf import PixelBasisPsf, centre_crop
from ..stamps import gather_stamps, stamp_origin


@dataclass(frozen=True)
class Cutouts:
    """Stamps of N sources.

    Parameters
    ----------
    x0, y0 : `numpy.ndarray`, (N,), int
        Their lower-left pixels, in the image's own frame.
    pixels : `numpy.ndarray`, (N, size, size)
        Values [nJy].
    weight : `numpy.ndarray`, (N, size, size)
        Inverse variances [nJy^-2], zero for pixels to leave out.
    words : `numpy.ndarray`, (N, size, size), uint32
        Mask words.
    """

    x0: np.ndarray
    y0: np.ndarray
    pixels: np.ndarray
    weight: np.ndarray
    words: np.ndarray


@dataclass(frozen=True)
class FittedImage:
    """A difference image and how it is fitted.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, (height, width)
        Difference [nJy] and its variance [nJy^2].
    words : `numpy.ndarray`, (height, width), uint32
        Mask words.
    psf : `PixelBasisPsf`
        PSF; the start of its bounds is the coordinate of the first pixel.
    width : `float`
        FWHM of the PSF [pixel].
    size : `int`
        Side of the stamps [pixel], odd.
    ignored : `tuple` [`str`]
        Mask planes whose pixels are left out.
    """

    difference: np.ndarray
    variance: np.ndarray
    words: np.ndarray
    psf: PixelBasisPsf
    width: float
    size: int
    ignored: tuple[str, ...]

    def cut(self, x: np.ndarray, y: np.ndarray) -> Cutouts:
        """Cut stamps around the pixels nearest to positions."""
        x_first, y_first = self.psf.bounds.x.start, self.psf.bounds.y.start
        x0, y0 = stamp_origin(x, y, self.size)
        corner = (x0 - x_first, y0 - y_first, self.size)
        pixels = gather_stamps(self.difference, *corner, np.nan)
        variance = gather_stamps(self.variance, *corner, np.inf)
        words = gather_stamps(self.words, *corner, 1 << MASK_BITS["OFF_IMAGE"])
        good = np.isfinite(pixels) & (variance > 0) & ~words_masked_by(words, self.ignored)
        return Cutouts(x0, y0, pixels, np.where(good, 1.0 / np.where(good, variance, 1.0), 0.0), words)

    def models(self, x: np.ndarray, y: np.ndarray, x0: np.ndarray, y0: np.ndarray) -> np.ndarray:
        """Return the PSFs of positions on stamps of given lower-left pixels, (N, size, size)."""
        half = self.size // 2
        return centre_crop(self.psf.evaluate(x, y, dx=x - x0 - half, dy=y - y0 - half), self.size)
