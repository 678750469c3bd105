"""A template that is rotated, shifted and scaled gives the detections that an aligned one gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.stats import mad_std
from astropy.wcs import WCS
from scipy import ndimage

from lsst.diainspect.ingest import FitsImageSource, FitsPair, read_fits_pair
from lsst.diainspect.psf import PixelBasisPsf, noise_equivalent_area, second_moments
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    SubtractionResult,
    ZogyConfig,
    ZogySubtractor,
)

pytest.importorskip("reproject")

_METHODS: dict[str, tuple[Any, Any]] = {"al": (AlSubtractor, AlConfig), "zogy": (ZogySubtractor, ZogyConfig)}
_SIZE = 512
_TEMPLATE_SIZE = 720
_SIGMA = {"science": 10.0, "template": 6.0}
_SCALES = {"aligned": 1.0, "rotated": 0.9}
"""Pixel side over that of the science image."""


def _wcs(
    size: int, *, angle: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [30.0, -20.0]
    wcs.wcs.crpix = [size / 2 + shift[0], size / 2 + shift[1]]
    cos, sin = np.cos(angle), np.sin(angle)
    wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * scale * 0.2 / 3600.0
    wcs.wcs.radesys = "ICRS"
    return wcs


_GRIDS = {
    "science": (_SIZE, _wcs(_SIZE)),
    "aligned": (_SIZE, _wcs(_SIZE)),
    "rotated": (_TEMPLATE_SIZE, _wcs(_TEMPLATE_SIZE, angle=0.35, scale=0.9, shift=(7.3, -4.6))),
}


def _profile(grid: str) -> galsim.GSObject:
    """The PSF on the pixels of a grid: the template's is sharper, elongated along its own first axis on the sky."""
    if grid == "science":
        return galsim.Moffat(beta=4.0, fwhm=4.6).shear(g1=-0.04, g2=0.0)
    # (x, y) of the science image is (x, y) of the rotated grid turned by +0.35, so its PSF is turned back there.
    angle = 0.0 if grid == "aligned" else -0.35
    profile = galsim.Moffat(beta=4.0, fwhm=4.0).shear(g1=0.05, g2=0.02)
    return profile.rotate(angle * galsim.radians).dilate(1.0 / _SCALES[grid])


def _draw(grid: str, x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> np.ndarray:
    size, wcs = _GRIDS[grid]
    there_x, there_y = wcs.all_world2pix(_GRIDS["science"][1].all_pix2world(np.column_stack([x, y]), 0), 0).T
    side = 41
    canvas = np.zeros((size + 2 * side, size + 2 * side))
    profile = _profile(grid)
    for a, b, f in zip(there_x, there_y, flux, strict=True):
        column, row = round(float(a)), round(float(b))
        if not (0 <= column < size and 0 <= row < size):
            continue
        stamp = profile.drawImage(
            nx=side, ny=side, scale=1.0, offset=(a - column, b - row), method="no_pixel", dtype=float
        ).array
        canvas[
            row + side - side // 2 : row + side + side // 2 + 1,
            column + side - side // 2 : column + side + side // 2 + 1,
        ] += f * stamp
    return canvas[side:-side, side:-side]


class Sky:
    """Stars and transients, as files on the three grids."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(11)
        # A jittered grid: every seventh place is a transient, the others are stars.
        centres = (np.arange(11) + 0.5) * _SIZE / 11
        x, y = (axis.ravel() + rng.uniform(-6, 6, 121) for axis in np.meshgrid(centres, centres))
        change = np.arange(121) % 7 == 3
        area = float(noise_equivalent_area(self.stamp("science")))
        noise = np.hypot(_SIGMA["science"], _SIGMA["template"]) * np.sqrt(area)
        flux = np.exp(rng.uniform(np.log(40.0), np.log(400.0), 121)) * noise
        flux[change] = rng.uniform(8.0, 30.0, change.sum()) * noise
        appeared = change & (np.arange(121) % 2 == 0)
        self.x, self.y = x[change], y[change]
        self.positive = appeared[change]
        self.all_x, self.all_y = x, y
        self.folder = folder
        for grid, (size, wcs) in _GRIDS.items():
            side = "science" if grid == "science" else "template"
            present = ~change | (appeared if side == "science" else change & ~appeared)
            sigma = _SIGMA[side] * _SCALES.get(grid, 1.0)
            pixels = _draw(grid, x, y, np.where(present, flux, 0.0)) + rng.normal(
                scale=sigma, size=(size, size)
            )
            header = wcs.to_header()
            header.update({"BUNIT": "nJy", "FILTER": "r", "EXPTIME": 30.0})
            header["MJD-OBS"] = 60000.0
            fits.writeto(folder / f"{grid}.fits", pixels.astype(np.float32), header)
            fits.writeto(folder / f"{grid}.psf.fits", self.stamp(grid))
            fits.writeto(folder / f"{grid}.noise.fits", np.full((size, size), sigma, dtype=np.float32))

    @staticmethod
    def stamp(grid: str) -> np.ndarray:
        return _profile(grid).drawImage(nx=41, ny=41, scale=1.0, method="no_pixel", dtype=float).array

    def source(self, grid: str) -> FitsImageSource:
        return FitsImageSource(
            self.folder / f"{grid}.fits",
            self.folder / f"{grid}.psf.fits",
            noise=self.folder / f"{grid}.noise.fits",
        )

    def pair(self, grid: str) -> FitsPair:
        return read_fits_pair(self.source("science"), self.source(grid))


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    return Sky(tmp_path_factory.mktemp("sky"))


@pytest.fixture(scope="module")
def pairs(sky: Sky) -> dict[str, FitsPair]:
    return {grid: sky.pair(grid) for grid in ("aligned", "rotated")}


@pytest.fixture(scope="module")
def results(pairs: dict[str, FitsPair]) -> dict[tuple[str, str], SubtractionResult]:
    made = {}
    for grid, pair in pairs.items():
        images = ImagePair.from_images(pair.science, pair.template, pair.science.psf, pair.template.psf)
        for method, (subtractor, config) in _METHODS.items():
            made[method, grid] = subtractor(config()).subtract(images)
    return made


def test_only_the_rotated_template_is_warped(pairs: dict[str, FitsPair]) -> None:
    assert pairs["aligned"].template_noise_power is None
    power = pairs["rotated"].template_noise_power
    assert power is not None
    assert 0.0 < abs(power.neighbour_correlation) < 0.3
    metadata = pairs["rotated"].template.metadata
    assert metadata["diainspect_warped"] is True
    assert metadata["diainspect_warpPixelScale"] == pytest.approx(1.0 / 0.9, rel=1e-3)


def test_warped_psf_is_that_of_the_aligned_template(pairs: dict[str, FitsPair]) -> None:
    shapes = []
    for pair in pairs.values():
        psf = PixelBasisPsf.from_point_spread_function(pair.template.psf, pair.template.bbox)
        shapes.append(np.array([float(m[0]) for m in second_moments(psf.resized(31).centre()[None])]))
    np.testing.assert_allclose(shapes[1], shapes[0], atol=0.01 * shapes[0][0])


def test_warped_template_has_the_pixels_of_the_aligned_one(pairs: dict[str, FitsPair]) -> None:
    aligned, rotated = (pairs[grid].template for grid in ("aligned", "rotated"))
    good = ~rotated.mask.get("NO_DATA")
    assert good.mean() > 0.98
    pull = (rotated.image.array - aligned.image.array)[good]
    pull = pull / np.sqrt(rotated.variance.array + aligned.variance.array)[good]
    # Both noises are independent; the pull of a quarter million pixels has an error of 0.2 %.
    assert mad_std(pull) == pytest.approx(1.0, abs=0.01)
    assert np.std(pull) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("grid", ["aligned", "rotated"])
@pytest.mark.parametrize("method", _METHODS)
def test_score_has_unit_sigma(
    sky: Sky, results: dict[tuple[str, str], SubtractionResult], method: str, grid: str
) -> None:
    result = results[method, grid]
    near = np.zeros(result.score.shape, dtype=bool)
    near[np.rint(sky.all_y).astype(int), np.rint(sky.all_x).astype(int)] = True
    blank = ndimage.distance_transform_edt(~near) > 14
    blank &= ~(result.bad | result.spread | result.edge)
    # Scores are correlated over the noise-equivalent area of the PSF of the difference.
    independent = blank.sum() / float(noise_equivalent_area(result.psf.centre()))
    assert mad_std(result.score[blank]) == pytest.approx(1.0, abs=4.0 * 0.82 / np.sqrt(independent) + 0.005)


@pytest.mark.parametrize("method", _METHODS)
def test_detections_are_those_of_the_aligned_pair(
    sky: Sky, results: dict[tuple[str, str], SubtractionResult], method: str
) -> None:
    scores = {}
    for grid in ("aligned", "rotated"):
        result = results[method, grid]
        usable = ~(result.bad | result.spread | result.edge)
        peak = ndimage.maximum_filter(np.abs(result.score), 7)
        significant = usable & (np.abs(result.score) == peak) & (peak > 5.0)
        found = np.argwhere(significant)
        distance = np.hypot(found[:, 1, None] - sky.x, found[:, 0, None] - sky.y)
        # Every detection is a transient.
        assert distance.min(axis=1).max() < 3.0
        inside = usable[np.rint(sky.y).astype(int), np.rint(sky.x).astype(int)]
        assert distance.min(axis=0)[inside].max() < 3.0
        rows, columns = np.rint(sky.y).astype(int), np.rint(sky.x).astype(int)
        scores[grid] = np.where(inside, result.score[rows, columns], np.nan)
        assert np.all((scores[grid] > 0)[inside] == sky.positive[inside])
    both = np.isfinite(scores["aligned"] + scores["rotated"])
    assert both.sum() >= 10
    # The science noise is common; that of the templates, of 0.5 of the difference's, is not. Source noise and the
    # rounding to pixels change scores by a few per cent more.
    difference = scores["rotated"][both] - scores["aligned"][both]
    assert np.all(np.abs(difference) < 4.0 * 0.75 + 0.08 * np.abs(scores["aligned"][both]))
