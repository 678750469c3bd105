"""Warped images keep fluxes, and their variance, mask, PSF and noise power are right."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf, fwhm
from lsst.diainspect.warping import (
    CardinalSpline,
    NoCommonSkyError,
    NoisePower,
    PixelMap,
    WarpedImage,
    warp_image,
    warp_psf,
)

pytest.importorskip("reproject")

_SIZE = 300
_BOX = Box.from_shape((_SIZE, _SIZE))
_WARPS = {
    "shift": {"dx": 0.5, "dy": 0.3},
    "rotation": {"angle": 0.3, "dx": 0.2},
    "finer": {"angle": 0.1, "scale": 0.16},
    "coarser": {"scale": 0.25},
}


def wcs(*, angle: float = 0.0, scale: float = 0.2, dx: float = 0.0, dy: float = 0.0, ra: float = 30.0) -> WCS:
    result = WCS(naxis=2)
    result.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    result.wcs.crval = [ra, -20.0]
    result.wcs.crpix = [_SIZE / 2 + dx, _SIZE / 2 + dy]
    cos, sin = np.cos(angle), np.sin(angle)
    result.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * scale / 3600.0
    result.wcs.radesys = "ICRS"
    return result


def warp(image: np.ndarray, variance: np.ndarray | None = None, **kind: float) -> WarpedImage:
    if variance is None:
        variance = np.ones_like(image)
    return warp_image(image, variance, {}, wcs(**kind), wcs(), image.shape)


def gaussian(size: int, x: float, y: float, sigma: float = 1.4) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


@pytest.mark.parametrize("kind", _WARPS)
def test_variance_and_correlation_of_warped_white_noise_are_as_predicted(kind: str) -> None:
    noise = np.random.default_rng(1).normal(size=(_SIZE, _SIZE))
    warped = warp(noise, **_WARPS[kind])
    good = ~warped.no_data
    pull = np.where(good, warped.image / np.sqrt(warped.variance), 0.0)
    # The number of independent pixels is that of the input under the output.
    error = 1.0 / np.sqrt(2 * good.sum() * min(1.0, warped.scale**2))
    assert np.std(pull[good]) == pytest.approx(1.0, abs=4 * error)
    both_x, both_y = good[:, 1:] & good[:, :-1], good[1:] & good[:-1]
    neighbours = 0.5 * (
        np.mean((pull[:, 1:] * pull[:, :-1])[both_x]) + np.mean((pull[1:] * pull[:-1])[both_y])
    )
    assert neighbours == pytest.approx(warped.noise_power.neighbour_correlation, abs=0.02)


@pytest.mark.parametrize("kind", _WARPS)
def test_stars_keep_their_flux_and_have_the_warped_psf(kind: str) -> None:
    x, y = np.array([150.0, 110.3, 190.5]), np.array([150.0, 170.6, 120.2])
    image = sum(gaussian(_SIZE, a, b) for a, b in zip(x, y, strict=True))
    warped = warp(np.asarray(image), **_WARPS[kind])
    psf = PixelBasisPsf.from_image(gaussian(41, 20, 20), _BOX)
    model = warp_psf(psf, warped.pixel_map, _BOX).resized(31)
    there_x, there_y = (np.asarray(a) for a in pixel_to_pixel(wcs(**_WARPS[kind]), wcs(), x, y))
    for a, b in zip(there_x, there_y, strict=True):
        column, row = round(float(a)), round(float(b))
        stamp = warped.image[row - 15 : row + 16, column - 15 : column + 16]
        expected = model.evaluate(
            np.array([a]), np.array([b]), dx=np.array([a - column]), dy=np.array([b - row])
        )[0]
        assert stamp.sum() == pytest.approx(1.0, abs=1e-3)
        assert np.abs(stamp - expected).max() < 0.004 * expected.max()


def test_psf_width_follows_the_pixel_scale() -> None:
    psf = PixelBasisPsf.from_image(gaussian(41, 20, 20, 2.0), _BOX)
    pixel_map = PixelMap(wcs(), wcs(scale=0.25), (_SIZE, _SIZE))
    warped = warp_psf(psf, pixel_map, _BOX)
    assert fwhm(warped.centre()) == pytest.approx(1.25 * fwhm(psf.centre()), rel=1e-3)


def test_image_on_its_own_grid_stays_as_it_is() -> None:
    image = np.random.default_rng(2).normal(size=(_SIZE, _SIZE))
    warped = warp(image)
    good = ~warped.no_data
    assert good.mean() > 0.98
    np.testing.assert_allclose(warped.image[good], image[good], atol=1e-4)
    np.testing.assert_allclose(warped.variance[good], 1.0, atol=1e-4)
    assert warped.largest_shift < 1e-4
    assert abs(warped.noise_power.neighbour_correlation) < 1e-3


def test_variance_of_bright_sources_is_carried() -> None:
    variance = 1.0 + 1e4 * gaussian(_SIZE, 150, 150, 4.0)
    warped = warp(np.zeros((_SIZE, _SIZE)), variance, dx=0.5, dy=0.5)
    # Half a pixel to the left and down: the peak lies between four pixels.
    expected = variance.max() * CardinalSpline(5).variance_factor(np.array(0.5)) ** 2
    assert warped.variance.max() == pytest.approx(float(expected), rel=0.05)


def test_bad_pixels_are_grown_and_what_is_beyond_the_edge_has_no_data() -> None:
    mask = np.zeros((_SIZE, _SIZE), dtype=bool)
    mask[100, 120] = True
    image = np.zeros((_SIZE, _SIZE))
    warped = warp_image(
        image, image + 1.0, {"BAD": mask, "SUSPECT": ~mask & False}, wcs(dx=10.0), wcs(), image.shape
    )
    assert np.argwhere(warped.planes["BAD"]).min(axis=0).tolist() == [98, 108]
    assert warped.planes["BAD"].sum() == 25
    assert not warped.planes["SUSPECT"].any()
    assert warped.no_data[:, -10:].all()
    assert np.isnan(warped.image[:, -10:]).all()
    assert not warped.no_data[5:-5, 5:-15].any()
    assert np.all(warped.variance > 0)


def test_images_of_different_sky_are_refused() -> None:
    image = np.zeros((_SIZE, _SIZE))
    for ra in (30.1, 200.0):
        with pytest.raises(NoCommonSkyError):
            warp(image, ra=ra)


def test_noise_power_averages_to_one_and_survives_a_table() -> None:
    power = warp(np.zeros((_SIZE, _SIZE)), **_WARPS["shift"]).noise_power
    window = power.power(64)
    weight = np.full(window.shape, 2.0)
    weight[:, [0, -1]] = 1.0
    assert np.average(window, weights=weight) == pytest.approx(1.0, abs=0.01)
    # Interpolation between pixels loses the highest frequencies.
    assert window[32, 32] < 0.3 < 1.0 < window[1, 1]
    table = power.to_table()
    assert isinstance(table, Table)
    again = NoisePower.from_table(table)
    np.testing.assert_array_equal(again.covariance, power.covariance)
    with pytest.raises(ValueError, match="at least 17 pixels"):
        power.power(16)


def test_weights_of_a_spline_are_one_at_its_own_pixel_and_sum_to_one() -> None:
    for order in (1, 3, 5):
        spline = CardinalSpline(order)
        np.testing.assert_allclose(spline.weights(np.arange(-5, 6)), np.arange(-5, 6) == 0, atol=1e-6)
        assert spline.weights(0.3 - np.arange(-18, 19)).sum() == pytest.approx(1.0, abs=1e-5)
        assert spline.variance_factor(np.array(7.0)) == pytest.approx(1.0, abs=1e-4)
    assert CardinalSpline(1).variance_factor(np.array(0.5)) == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(ValueError, match="0 to 5"):
        CardinalSpline(6)
