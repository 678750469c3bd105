"""PSFs moved to the sources' positions: as exact as a phase ramp, by whichever way, and kept once made."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from lsst.diainspect.psf import shift_images
from lsst.diainspect.stamps import MovableImages, ShiftedBasis, StampModel
from synthetic_sources import gaussian, stamps_of

N = 500


def shared(fwhm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, basis and the images they make: PSFs that vary."""
    rng = np.random.default_rng(1)
    sigma = fwhm / 2.3548
    first, second = (gaussian([0.0], [0.0], width, 41)[0] for width in (sigma, 1.1 * sigma))
    basis = np.stack([first, second - first])
    weights = np.stack([np.ones(N), rng.uniform(-0.5, 1.0, N)], axis=-1)
    return weights, basis, (weights @ basis.reshape(2, -1)).reshape(N, 41, 41)


@pytest.mark.parametrize(("fwhm", "error"), [(2.0, 1e-4), (3.0, 2e-5), (5.0, 1e-5)])
def test_shifts_of_a_shared_basis_agree_with_a_phase_ramp(fwhm, error):
    weights, basis, images = shared(fwhm)
    dx, dy = np.random.default_rng(2).uniform(-0.5, 0.5, (2, N))
    expected = shift_images(images, dx, dy)
    found = ShiftedBasis(basis).evaluate(weights, dx, dy, 41)
    peak = np.abs(expected).max(axis=(1, 2))
    assert (np.abs(found - expected).max(axis=(1, 2)) / peak).max() < error


@pytest.mark.parametrize("size", [24, 25, 51])
@pytest.mark.parametrize("way", ["shared", "own"])
def test_shifts_of_many_pixels_put_the_centre_where_it_was_asked(way, size):
    """Against Gaussians drawn in place; a pixel of 3 sigma is well sampled."""
    dx, dy = np.random.default_rng(3).uniform(-9.0, 9.0, (2, 60))
    psf = gaussian([0.0], [0.0], 1.5, 41)
    model = (
        StampModel(np.ones((60, 1)), psf)
        if way == "shared"
        else StampModel.from_images(np.repeat(psf, 60, 0))
    )
    expected = gaussian(dx, dy, 1.5, size)
    np.testing.assert_allclose(model.shifted(dx, dy, size), expected, atol=1e-4 * psf.max())
    image, by_dx, by_dy = np.moveaxis(model.shifted_with_gradient(dx, dy, size), 1, 0)
    np.testing.assert_allclose(image, expected, atol=1e-4 * psf.max())
    grid = np.arange(size) - size // 2
    slope_x = (grid - dx[:, None, None]) / 1.5**2 * expected
    slope_y = (grid[:, None] - dy[:, None, None]) / 1.5**2 * expected
    for found, slope in ((by_dx, slope_x), (by_dy, slope_y)):
        np.testing.assert_allclose(found, slope, atol=2e-3 * np.abs(slope).max())


def test_images_without_a_place_are_zero():
    weights, basis, _ = shared(3.0)
    dx = np.zeros(N)
    dx[3] = np.nan
    images = ShiftedBasis(basis).evaluate(weights, dx, np.zeros(N), 31)
    assert not images[3].any()
    assert images[2].any()
    own = StampModel.from_images(np.repeat(basis[:1], N, 0)).shifted(dx, np.zeros(N), 31)
    assert not own[3].any()


def test_rows_of_movable_images_may_repeat():
    psf = gaussian([0.0, 0.0], [0.0, 0.0], 1.5, 41)
    moved = MovableImages(psf).at(np.array([1, 1, 0]), np.array([0.0, 2.0, -1.0]), np.zeros(3), 21)
    np.testing.assert_array_equal(np.argmax(moved.sum(axis=1), axis=1), [10, 12, 9])


def test_what_was_evaluated_is_kept_and_shared_by_crops_of_one_size():
    dx = np.array([0.2, -0.3])
    stamps = stamps_of(np.zeros((2, 51, 51)), dx, dx, 1)
    assert stamps.centred_model("differencePsf") is stamps.centred_model("differencePsf")
    assert stamps.weight("difference") is stamps.weight("difference")
    core = stamps.cropped(25)
    assert core is stamps.cropped(25)
    assert stamps.cropped(60) is stamps
    np.testing.assert_allclose(core.dx, dx)
    np.testing.assert_array_equal(core.planes["difference"], stamps.planes["difference"][:, 13:38, 13:38])
    np.testing.assert_allclose(
        core.centred_model("differencePsf"),
        stamps.centred_model("differencePsf")[:, 13:38, 13:38],
        atol=1e-8,
    )
    # A slice keeps nothing, but its models share the prepared basis.
    assert stamps[:1].weight("difference") is not stamps.weight("difference")
    assert stamps[:1].models["differencePsf"]._shifted is stamps.models["differencePsf"]._shifted


def test_crops_are_freed_with_their_stamps_and_outlive_them():
    stamps = stamps_of(np.zeros((2, 51, 51)), np.zeros(2), np.zeros(2), 2)
    core = stamps.cropped(25)
    expected = core.weight("difference").copy()
    gc.disable()
    try:
        alive = weakref.ref(stamps)
        del stamps
        # No cycle: nothing has to be collected, so memory stays flat from chunk to chunk.
        assert alive() is None
    finally:
        gc.enable()
    np.testing.assert_array_equal(core.weight("difference"), expected)
    np.testing.assert_array_equal(core.good_pixels("difference"), core.planes["difference"])
