"""Stamps of analytic sources in white noise, for tests of diagnostics against what was put in."""

from __future__ import annotations

import numpy as np
from astropy.table import Column, Table

from lsst.diainspect.stamps import StampModel, StampSet

SIGMA = 1.7
"""Width of the PSF of the difference [pixel]."""

NOISE = 20.0
"""Standard deviation of a pixel [nJy]."""

PIXEL_SCALE = 0.2
"""Arcsec a pixel; x decreases towards east, y increases towards north."""

X0, Y0 = 4000, -50


def gaussian(dx: object, dy: object, sigma: float = SIGMA, size: int = 51) -> np.ndarray:
    """Point sources of unit flux, (N, size, size)."""
    grid = np.arange(size) - size // 2
    x = grid - np.asarray(dx, dtype=float)[:, None, None]
    y = grid[:, None] - np.asarray(dy, dtype=float)[:, None, None]
    return np.exp(-0.5 * (x**2 + y**2) / sigma**2) / (2.0 * np.pi * sigma**2)


def flux_error(sigma: float = SIGMA, noise: float = NOISE) -> float:
    """Error of a point source's flux: the noise times the root of the PSF's noise area."""
    return float(noise * np.sqrt(4.0 * np.pi) * sigma)


def stamps_of(
    difference: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    seed: int,
    *,
    science: np.ndarray | None = None,
    template: np.ndarray | None = None,
    variance: bool = True,
    noise: float = NOISE,
) -> StampSet:
    """Put noise on images (N, size, size) of sources at (dx, dy) from the central pixel."""
    rng = np.random.default_rng(seed)
    n, size = len(difference), difference.shape[-1]
    table = Table()
    table["diaSourceId"] = Column(np.arange(1, n + 1, dtype=np.int64))
    table["x0"] = np.full(n, X0, dtype=np.int32)
    table["y0"] = np.full(n, Y0, dtype=np.int32)
    table["x"] = X0 + size // 2 + np.asarray(dx)
    table["y"] = Y0 + size // 2 + np.asarray(dy)
    table["ra"], table["dec"] = np.full(n, 10.0), np.full(n, -30.0)
    table["pixelToSky"] = np.tile(np.diag([-PIXEL_SCALE, PIXEL_SCALE]) / 3600.0, (n, 1, 1))
    planes, models = {}, {}
    psf = StampModel(np.ones((n, 1)), gaussian([0.0], [0.0], size=41))
    for name, image in (("difference", difference), ("science", science), ("template", template)):
        if image is None:
            continue
        planes[name] = (image + noise * rng.normal(size=image.shape)).astype(np.float32)
        if variance:
            planes[f"{name}Variance"] = np.full(image.shape, noise**2, dtype=np.float32)
        models[f"{name}Psf"] = psf
    return StampSet(table, planes, models)


def assert_unit_pulls(pull: np.ndarray, bias: float = 4.0) -> None:
    """Pulls have zero mean and unit width, within their errors."""
    n = len(pull)
    assert abs(np.mean(pull)) < bias / np.sqrt(n)
    assert abs(np.std(pull) - 1.0) < 4.0 / np.sqrt(2.0 * n)
