"""A difference of white noise with point sources, as the tests of detection use it."""

from __future__ import annotations

import astropy.units as u
import astropy.wcs
import numpy as np
import scipy.ndimage
from lsst.images import Box, GeneralFrame, SkyProjection

from lsst.diainspect.detection import DetectionSettings, detect_dia_sources
from lsst.diainspect.masks import MASK_BITS
from lsst.diainspect.psf import PixelBasisPsf

X_FIRST, Y_FIRST = 300, 4000
PSF_SIGMA = 2.0
SKY_VARIANCE = 400.0
POSITION_ANGLE = 0.5
PIXEL_SCALES = (0.2, 0.3)
"""Arcseconds in x and y: a mix-up of axes or a missing rotation shows in the errors on the sky."""


def gaussian(size: int, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * ((x - dx) ** 2 + (y - dy) ** 2) / PSF_SIGMA**2)
    return image / (2.0 * np.pi * PSF_SIGMA**2)


def projection() -> SkyProjection:
    wcs = astropy.wcs.WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 60.0]
    wcs.wcs.crpix = [X_FIRST + 257.0, Y_FIRST + 257.0]
    cos, sin = np.cos(POSITION_ANGLE), np.sin(POSITION_ANGLE)
    wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) @ np.diag(PIXEL_SCALES) / 3600.0
    return SkyProjection.from_fits_wcs(wcs, GeneralFrame(unit=u.pix))


class Field:
    """A difference of white noise with point sources, its score by the matched filter, and a blank mask."""

    def __init__(
        self, x: object, y: object, snr: object, *, shape=(512, 512), seed=1, noise=1.0, variance=None
    ):
        self.shape = shape
        self.x, self.y, self.snr = (np.asarray(value, dtype=float) for value in (x, y, snr))
        self.psf = PixelBasisPsf.from_image(
            gaussian(31), Box.factory[Y_FIRST : Y_FIRST + shape[0], X_FIRST : X_FIRST + shape[1]]
        )
        rng = np.random.default_rng(seed)
        self.variance = np.full(shape, SKY_VARIANCE) if variance is None else variance
        self.flux_error = np.sqrt(SKY_VARIANCE * 4.0 * np.pi) * PSF_SIGMA
        self.flux = self.snr * self.flux_error
        padded = np.zeros((shape[0] + 62, shape[1] + 62))
        for xi, yi, flux in zip(self.x, self.y, self.flux, strict=True):
            column, row = round(xi) - X_FIRST, round(yi) - Y_FIRST
            padded[row + 16 : row + 47, column + 16 : column + 47] += flux * gaussian(
                31, xi - round(xi), yi - round(yi)
            )
        self.difference = padded[31:-31, 31:-31] + noise * rng.normal(size=shape) * np.sqrt(self.variance)
        matched = scipy.ndimage.gaussian_filter(self.difference, PSF_SIGMA, mode="constant")
        self.score = matched * np.sqrt(4.0 * np.pi) * PSF_SIGMA / np.sqrt(SKY_VARIANCE)
        self.words = np.zeros(shape, dtype=np.uint32)

    def detect(self, rng: np.random.Generator | None = None, **settings: object):
        return detect_dia_sources(
            self.score.astype(np.float32),
            self.difference.astype(np.float32),
            self.variance.astype(np.float32),
            self.words,
            self.psf,
            projection(),
            DetectionSettings(**settings),
            rng,
        )

    def mask(self, plane: str, rows: slice, columns: slice) -> None:
        self.words[rows, columns] |= np.uint32(1 << MASK_BITS[plane])


def grid_field(snr: float, seed: int = 1) -> Field:
    """144 sources of both signs on a jittered grid, 40 pixels apart."""
    rng = np.random.default_rng(seed + 1000)
    x, y = np.meshgrid(np.arange(12) * 40.0 + 36.0, np.arange(12) * 40.0 + 36.0)
    x, y = (v.ravel() + rng.uniform(-5.0, 5.0, v.size) for v in (x, y))
    return Field(x + X_FIRST, y + Y_FIRST, snr * np.where(np.arange(144) % 3, 1.0, -1.0), seed=seed)


def match(field: Field, sources) -> np.ndarray:
    """Return the row of each injected source, which must be the only one within 2 pixels."""
    distance = np.hypot(field.x[:, None] - sources["x"], field.y[:, None] - sources["y"])
    np.testing.assert_array_equal((distance < 2.0).sum(axis=1), 1)
    return distance.argmin(axis=1)
