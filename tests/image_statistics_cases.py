"""Differences of known noise with stars of known residuals, and the tables that statistics make of them."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.table import Table
from lsst.images import Box, Image, Mask, MaskedImage

from lsst.diainspect.comparison import (
    MetricInput,
    image_stacks_table,
    image_statistics_table,
    measure_cell_maps,
    measure_difference_psf,
    measure_star_residuals,
    stack_star_residuals,
)
from lsst.diainspect.masks import make_mask_schema
from lsst.diainspect.psf import PixelBasis, PolynomialField

SIZE = 200
BOX = Box.factory[0:SIZE, 0:SIZE]
ORIGIN = (30, 50)
"""x and y of the first pixel of the cases that are not at zero."""

EDGES = [16.0, 18.0, 20.0, 22.0]
SIGMA = 2.0
PSF_SIGMA = 1.7


def masked_image(
    pixels: np.ndarray, variance: float | np.ndarray = SIGMA**2, *, x0: int = 0, y0: int = 0
) -> MaskedImage:
    height, width = pixels.shape
    box = Box.factory[y0 : y0 + height, x0 : x0 + width]
    return MaskedImage(
        Image(pixels.astype(np.float32), bbox=box, unit=u.nJy),
        mask=Mask(0, schema=make_mask_schema(), bbox=box),
        variance=Image(np.broadcast_to(variance, pixels.shape).astype(np.float32), bbox=box, unit=u.nJy**2),
    )


def gaussian(
    x: float, y: float, shape: tuple[int, int] = (SIZE, SIZE), sigma: float = PSF_SIGMA
) -> np.ndarray:
    """A Gaussian of unit flux at (x, y) of an array."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radius2 = (columns - x) ** 2 + (rows - y) ** 2
    return np.exp(-0.5 * radius2 / sigma**2) / (2.0 * np.pi * sigma**2)


def gaussian_psf(box: Box = BOX, sigma: float = PSF_SIGMA) -> PixelBasis:
    return PixelBasis(gaussian(15, 15, (31, 31), sigma)[None], PolynomialField(box, 0))


def kernel_sources(
    x: np.ndarray, y: np.ndarray, flux: np.ndarray, *, used: object = True, rejected: str = ""
) -> Table:
    n = len(x)
    return Table(
        {
            "x": x,
            "y": y,
            "scienceFlux": flux,
            "scienceFluxErr": np.full(n, 15.0),
            "templateFlux": flux,
            "templateFluxErr": np.full(n, 15.0),
            "isStar": np.ones(n, dtype=bool),
            "used": np.broadcast_to(used, n),
            "rejected": np.full(n, rejected, dtype="U32"),
        }
    )


class Projection:
    """Pixels of 0.2 arcsec, x to the west and y to the north."""

    def __init__(self, ra: float, dec: float = -30.0) -> None:
        self.ra, self.dec = ra, dec

    def pixel_to_sky(self, *, x: np.ndarray, y: np.ndarray):
        from astropy.coordinates import SkyCoord

        scale = 0.2 / 3600.0
        ra = self.ra - x * scale / np.cos(np.radians(self.dec))
        return SkyCoord(ra, self.dec + y * scale, unit="deg")


def metric_input(
    difference: MaskedImage, score: np.ndarray, sources: Table | None = None, **others: object
) -> MetricInput:
    """What metrics are measured on, with sky everywhere."""
    if sources is None:
        sources = source_table(np.zeros(0), np.zeros(0))
    sky = np.ones(score.shape, dtype=bool)
    return MetricInput(difference.image.array, difference.variance.array, score, sky, sources, **others)  # type: ignore[arg-type]


def source_table(x: np.ndarray, y: np.ndarray, *, snr: float = 100.0, negative: bool = False) -> Table:
    n = len(x)
    return Table(
        {"x": x, "y": y, "snr": np.full(n, snr), "isNegative": np.full(n, negative, dtype=bool)},
        dtype=[float, float, float, bool],
    )


def detector_tables(seed: int, ra: float = 30.0) -> dict[str, Table]:
    """Statistics, stacks and stars of a detector of white noise with 30 stars and 4 transients."""
    rng = np.random.default_rng(seed)
    pixels = SIGMA * rng.normal(size=(SIZE, SIZE))
    x, y = rng.uniform(25, 175, (2, 34))
    for one, other in zip(x[30:], y[30:], strict=True):
        pixels += 3000.0 * gaussian(one, other)
    difference = masked_image(pixels)
    flux = 10.0 ** (-0.4 * (rng.uniform(16.0, 22.0, 30) - 31.4))
    candidates = kernel_sources(x[:30], y[:30], flux)
    candidates["used"][::3] = False
    candidates["rejected"][::3] = "enough others nearby"
    stars = measure_star_residuals(difference, candidates, 6.0)
    sources = source_table(x[30:], y[30:])
    psf = measure_difference_psf(difference, sources, gaussian_psf(), 31)
    data = metric_input(difference, rng.normal(size=(SIZE, SIZE)), sources, stars=stars, psf=psf)
    maps = measure_cell_maps(data, BOX, 4)
    return {
        "statistics": image_statistics_table(data, maps, BOX, Projection(ra), EDGES),  # type: ignore[arg-type]
        "stacks": image_stacks_table(
            data.sky_noise, stack_star_residuals(difference, stars, EDGES, 31), psf, 31
        ),
        "stars": stars,
    }


def metrics_table(visit: int, detector: int, values: dict[str, float]) -> Table:
    n = len(values)
    return Table(
        {
            "visit": np.full(n, visit),
            "detector": np.full(n, detector),
            "metric": np.array(list(values), dtype="U32"),
            "value": np.array(list(values.values()), dtype=float),
            "unit": np.full(n, "", dtype="U4"),
            "description": np.full(n, "", dtype="U4"),
        }
    )


def star_table(
    visit: int, detector: int, rms: np.ndarray, *, role: str = "fit", magnitude: float = 18.5
) -> Table:
    n = len(rms)
    return Table(
        {
            "visit": np.full(n, visit),
            "detector": np.full(n, detector),
            "x": 40.0 * np.arange(n),
            "y": np.full(n, 100.0),
            "magnitude": np.full(n, magnitude),
            "snr": np.full(n, 500.0),
            "role": np.full(n, role, dtype="U8"),
            "rms": np.asarray(rms, dtype=float),
            "residual": np.full(n, 0.001),
        }
    )
