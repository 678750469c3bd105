"""The PSF representation: sampling, evaluation, storage."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
from lsst.images import Box
from lsst.images.psfs import GaussianPointSpreadFunction

from lsst.diainspect.psf import PixelBasisPsf, PolynomialField, fwhm, second_moments, shift_images

BOUNDS = Box.factory[100:1124, 200:1224]


def gaussian(size: int, sigma_x: float, sigma_y: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * ((x - dx) ** 2 / sigma_x**2 + (y - dy) ** 2 / sigma_y**2))
    return image / image.sum()


def varying(x: float, y: float) -> np.ndarray:
    return gaussian(25, 2.0 + 1e-4 * (x - 700), 2.2 + 5e-5 * (y - 600))


def test_evaluation_agrees_with_the_function_that_was_sampled():
    psf = PixelBasisPsf.from_callable(varying, BOUNDS, order=3)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(200, 1223, 50), rng.uniform(100, 1123, 50)
    truth = np.stack([varying(xi, yi) for xi, yi in zip(x, y, strict=True)])
    assert np.abs(psf.evaluate(x, y) - truth).max() < 1e-5 * truth.max()
    assert psf.sampling_error < 1e-5


def test_evaluated_psfs_have_unit_sum():
    psf = PixelBasisPsf.from_callable(varying, BOUNDS, order=3)
    sums = psf.evaluate(np.array([200.0, 700.0, 1223.0]), np.array([100.0, 600.0, 1123.0])).sum(axis=(1, 2))
    np.testing.assert_allclose(sums, 1.0, atol=1e-12)


def test_subpixel_centres_agree_with_a_gaussian_drawn_there():
    psf = PixelBasisPsf.from_image(gaussian(25, 2.0, 2.0), BOUNDS)
    drawn = psf.evaluate(np.array([700.0]), np.array([600.0]), dx=np.array([0.37]), dy=np.array([-0.21]))[0]
    assert np.abs(drawn - gaussian(25, 2.0, 2.0, 0.37, -0.21)).max() < 1e-6


def test_shift_there_and_back_is_the_identity():
    image = gaussian(31, 1.8, 2.1)[None]
    moved = shift_images(image, np.array([0.4]), np.array([-0.3]))
    back = shift_images(moved, np.array([-0.4]), np.array([0.3]))
    # What a shift loses lies at the Nyquist frequency, where this Gaussian's transform is exp(-(1.8 pi)^2 / 2).
    assert np.abs(back - image).max() < np.exp(-0.5 * (1.8 * np.pi) ** 2)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_piff_form_draws_the_same_images(order):
    psf = PixelBasisPsf.from_callable(varying, BOUNDS, order=order)
    wrapped = psf.to_piff()
    for x, y in [(250.0, 130.0), (1200.0, 1100.0)]:
        drawn = wrapped.compute_kernel_image(x=x, y=y).array
        assert np.abs(drawn - psf.at(x, y)).max() < 1e-6 * psf.at(x, y).max()


def test_piff_form_is_taken_back_exactly():
    psf = PixelBasisPsf.from_callable(varying, BOUNDS, order=2)
    again = PixelBasisPsf.from_point_spread_function(psf.to_piff(), BOUNDS)
    assert again.field == psf.field
    np.testing.assert_allclose(again.basis, psf.basis, atol=1e-12)


def test_any_lsst_images_psf_is_sampled():
    psf = GaussianPointSpreadFunction(2.3, stamp_size=25, bounds=BOUNDS)
    sampled = PixelBasisPsf.from_point_spread_function(psf, BOUNDS)
    direct = psf.compute_kernel_image(x=700, y=600).array
    np.testing.assert_allclose(sampled.at(700, 600), direct / direct.sum(), atol=1e-12)


def test_fwhm_of_a_gaussian():
    assert fwhm(gaussian(51, 2.0, 2.0)) == pytest.approx(2.0 * 2.3548, rel=1e-3)


def test_second_moments_of_an_elliptical_gaussian():
    ixx, iyy, ixy = second_moments(gaussian(51, 2.0, 3.0)[None])
    assert (ixx[0], iyy[0], ixy[0]) == pytest.approx((4.0, 9.0, 0.0), abs=1e-3)


def test_second_moments_agree_with_galsim_hsm():
    image = galsim.Kolmogorov(fwhm=4.0).shear(g1=0.05, g2=0.02).drawImage(nx=61, ny=61, scale=1.0)
    ours = second_moments(image.array[None].astype(float))
    theirs = galsim.hsm.FindAdaptiveMom(image)
    determinant = ours[0][0] * ours[1][0] - ours[2][0] ** 2
    assert determinant**0.25 == pytest.approx(theirs.moments_sigma, rel=1e-4)
    assert (ours[0][0] - ours[1][0]) / (ours[0][0] + ours[1][0]) == pytest.approx(
        theirs.observed_shape.e1, abs=1e-4
    )


def test_resizing_keeps_unit_sum():
    psf = PixelBasisPsf.from_callable(varying, BOUNDS, order=2)
    for size in (15, 41):
        resized = psf.resized(size)
        assert resized.size == size
        np.testing.assert_allclose(resized.evaluate([300.0], [300.0]).sum(), 1.0, atol=1e-9)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.full((5, 5), np.nan), "finite"),
        (-np.ones((5, 5)), "positive sum"),
        (np.ones((4, 4)), "odd size"),
    ],
)
def test_bad_psf_images_are_refused(image, match):
    with pytest.raises(ValueError, match=match):
        PixelBasisPsf.from_image(image, BOUNDS)


def test_too_few_positions_for_the_order_are_refused():
    images = np.repeat(gaussian(9, 1.5, 1.5)[None], 3, axis=0)
    with pytest.raises(ValueError, match="lower order"):
        PixelBasisPsf.from_images(images, np.arange(3.0), np.arange(3.0), BOUNDS, order=2)


def test_polynomial_terms_on_the_grid_agree_with_points():
    field = PolynomialField(Box.factory[5:9, 3:10], 2)
    yy, xx = np.mgrid[5:9, 3:10]
    at_points = field.evaluate(xx.ravel(), yy.ravel())
    for m, (row, column) in enumerate(field.axis_terms()):
        np.testing.assert_allclose(np.outer(column, row).ravel(), at_points[:, m])
