"""PSFs measured from the stars of an image are those the stars were drawn with; what is no star is left out."""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
import pytest
from lsst.images import Box

from lsst.diainspect.psf import (
    MeasuredPsf,
    PixelBasisPsf,
    TooFewStars,
    fwhm,
    measure_psf,
    second_moments,
)

_SIZE = 400
_SKY = 10.0


def _profile(x: float, y: float, fwhm_slope: float) -> galsim.GSObject:
    """A Moffat PSF with wings; its width and shear change along x and y."""
    u, v = 2.0 * x / _SIZE - 1.0, 2.0 * y / _SIZE - 1.0
    width = 3.6 * (1.0 + fwhm_slope * u)
    return galsim.Moffat(beta=3.5, fwhm=width).shear(g1=0.03 + 0.02 * v, g2=-0.02 + 0.01 * u)


@dataclass(frozen=True)
class Field:
    """A simulated image of stars and its truth."""

    image: np.ndarray
    variance: np.ndarray
    bad: np.ndarray
    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    slope: float
    extended: np.ndarray

    @property
    def box(self) -> Box:
        return Box.from_shape(self.image.shape)

    def truth(self, x: float, y: float, size: int) -> np.ndarray:
        """The PSF at a position, with the normalisation of the whole profile."""
        return _profile(x, y, self.slope).drawImage(nx=size, ny=size, scale=1.0, dtype=float).array

    def measure(self, **options: object) -> MeasuredPsf:
        return measure_psf(self.image, self.variance, self.bad, self.box, **options)  # type: ignore[arg-type]


def _add(image: np.ndarray, profile: galsim.GSObject, x: float, y: float, flux: float) -> None:
    size = 81
    column, row = round(x), round(y)
    stamp = (
        profile.drawImage(nx=size, ny=size, scale=1.0, offset=(x - column, y - row), dtype=float).array * flux
    )
    canvas = np.pad(image, size)
    canvas[
        row - size // 2 + size : row + size // 2 + 1 + size,
        column - size // 2 + size : column + size // 2 + 1 + size,
    ] += stamp
    image[:] = canvas[size:-size, size:-size]


def make_field(
    seed: int = 1,
    *,
    n_side: int = 7,
    slope: float = 0.05,
    snr: tuple[float, float] = (40.0, 1000.0),
    galaxies: int = 0,
) -> Field:
    """Stars on a jittered grid, so that none has a neighbour, in sky noise."""
    rng = np.random.default_rng(seed)
    grid = (np.arange(n_side) + 0.5) * _SIZE / n_side
    x, y = (axis.ravel() + rng.uniform(-4, 4, n_side**2) for axis in np.meshgrid(grid, grid))
    target = np.exp(rng.uniform(*np.log(snr), n_side**2))
    # Noise-equivalent area of the PSF: about 55 pixels.
    flux = target * _SKY * np.sqrt(55.0)
    image = np.zeros((_SIZE, _SIZE))
    extended = rng.permutation(n_side**2)[:galaxies]
    for k in range(n_side**2):
        profile = _profile(x[k], y[k], slope)
        if k in extended:
            profile = galsim.Convolve(profile, galsim.Exponential(half_light_radius=1.5))
        _add(image, profile, float(x[k]), float(y[k]), float(flux[k]))
    image += rng.normal(scale=_SKY, size=image.shape)
    return Field(
        image, np.full(image.shape, _SKY**2), np.zeros(image.shape, bool), x, y, target, slope, extended
    )


@pytest.fixture(scope="module")
def field() -> Field:
    return make_field()


@pytest.fixture(scope="module")
def measured(field: Field) -> MeasuredPsf:
    return field.measure(order=1, size=41)


def _shapes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ixx, iyy, ixy = second_moments(images)
    return np.sqrt(ixx + iyy), (ixx - iyy) / (ixx + iyy), 2.0 * ixy / (ixx + iyy)


def test_measured_psf_is_the_one_the_stars_were_drawn_with(field: Field, measured: MeasuredPsf) -> None:
    x = np.array([60.0, 200.0, 340.0, 60.0, 200.0, 340.0])
    y = np.array([60.0, 60.0, 60.0, 340.0, 340.0, 200.0])
    images = measured.psf.evaluate(x, y)
    truth = np.stack([field.truth(a, b, 41) for a, b in zip(x, y, strict=True)])
    truth /= truth.sum(axis=(1, 2), keepdims=True)
    size, e1, e2 = _shapes(images)
    true_size, true_e1, true_e2 = _shapes(truth)
    assert np.abs(size / true_size - 1.0).max() < 0.01
    assert abs(np.mean(size / true_size - 1.0)) < 0.003
    assert np.abs(e1 - true_e1).max() < 0.01
    assert np.abs(e2 - true_e2).max() < 0.01
    # Largest residual of any pixel: the Poisson-free noise of 49 stars and the wing's model.
    peak = np.abs(images - truth).max(axis=(1, 2)) / truth.max(axis=(1, 2))
    assert peak.max() < 0.02
    assert np.abs(fwhm(images) / fwhm(truth) - 1.0).max() < 0.015


def test_measured_psf_is_centred(measured: MeasuredPsf) -> None:
    image = measured.psf.at(200, 200)
    grid = np.arange(41) - 20
    window = np.exp(-0.5 * (grid[None, :] ** 2 + grid[:, None] ** 2) / 2.0**2)
    weighted = image * window
    assert abs((weighted * grid[None, :]).sum() / weighted.sum()) < 0.01
    assert abs((weighted * grid[:, None]).sum() / weighted.sum()) < 0.01


def test_wings_continue_beyond_the_grid(field: Field, measured: MeasuredPsf) -> None:
    truth = field.truth(200, 200, 41)
    grid = np.hypot(*(np.mgrid[:41, :41] - 20))
    outer = (grid > 12) & (grid < 19)
    assert measured.wing_fraction > 0.005
    assert measured.psf.at(200, 200)[outer].sum() == pytest.approx(truth[outer].sum(), rel=0.5)


def test_measured_psf_survives_being_stored(measured: MeasuredPsf) -> None:
    again = PixelBasisPsf.from_point_spread_function(measured.psf.to_piff(), measured.psf.bounds)
    np.testing.assert_allclose(again.at(100, 300), measured.psf.at(100, 300), atol=1e-7)


def test_quality_table_has_a_row_for_each_source(field: Field, measured: MeasuredPsf) -> None:
    stars = measured.stars
    assert len(stars) == len(field.x)
    used = stars[stars["used"]]
    assert measured.n_stars == len(used) > 30
    assert np.all(used["rejected"] == "")
    assert np.all(stars["rejected"][~stars["used"]] != "")
    for name in ("chi2PerDof", "sizeResidual", "e1Residual", "e2Residual", "peakResidual"):
        assert np.all(np.isfinite(used[name]))
    assert abs(np.median(used["sizeResidual"])) < 0.005
    assert measured.summary["nStars"] == measured.n_stars


def test_positions_are_in_the_frame_of_the_image(field: Field) -> None:
    box = Box.factory[1000 : 1000 + _SIZE, 500 : 500 + _SIZE]
    result = measure_psf(field.image, field.variance, field.bad, box, order=0)
    brightest = int(np.argmax(result.stars["flux"]))
    k = int(np.argmax(field.snr))
    assert float(result.stars["x"][brightest]) == pytest.approx(field.x[k] + 500, abs=0.3)
    assert float(result.stars["y"][brightest]) == pytest.approx(field.y[k] + 1000, abs=0.3)
    assert result.psf.bounds == box


def test_galaxies_are_not_used() -> None:
    field = make_field(3, galaxies=12, snr=(100.0, 1000.0))
    result = field.measure(order=1)
    for x, y in zip(field.x[field.extended], field.y[field.extended], strict=True):
        near = np.hypot(result.stars["x"] - x, result.stars["y"] - y) < 3
        assert not result.stars["used"][near].any()
    assert result.n_stars > 25


def test_saturated_and_faint_and_edge_stars_are_left_out_with_a_reason() -> None:
    field = make_field(4)
    bad = field.bad.copy()
    k = int(np.argmax(field.snr))
    bad[round(field.y[k]) - 1 : round(field.y[k]) + 2, round(field.x[k])] = True
    _add(field.image, _profile(3, 200, 0.05), 3.0, 200.0, 1e5)
    result = measure_psf(field.image, field.variance, bad, field.box, order=0, min_snr=100.0)
    reasons = set(result.stars["rejected"])
    assert {"low signal-to-noise", "bad or saturated pixels", "near the edge"} <= reasons


def test_stars_with_a_companion_do_not_spoil_the_psf() -> None:
    field = make_field(5, snr=(100.0, 1000.0))
    companions = np.random.default_rng(10).permutation(len(field.x))[:6]
    for k in companions:
        # Too close to be told apart: only the residuals show them.
        profile = _profile(field.x[k], field.y[k], field.slope)
        _add(field.image, profile, field.x[k] + 2.0, field.y[k], 0.3 * field.snr[k] * _SKY * np.sqrt(55.0))
    result = field.measure(order=1, size=41)
    blended = np.array(
        [
            np.argmin(np.hypot(result.stars["x"] - field.x[k], result.stars["y"] - field.y[k]))
            for k in companions
        ]
    )
    assert not result.stars["used"][blended].any()
    truth = field.truth(200, 200, 41)
    (size,), (true_size,) = (_shapes(image[None])[0] for image in (result.psf.at(200, 200), truth))
    assert size / true_size == pytest.approx(1.0, abs=0.01)


def test_stars_are_followed_where_their_width_changes_by_half_over_the_field() -> None:
    field = make_field(6, slope=0.2)
    result = field.measure(order=2)
    assert result.n_stars > 35
    for x in (60.0, 340.0):
        truth = field.truth(x, 200, result.psf.size)
        assert fwhm(result.psf.at(x, 200)) == pytest.approx(fwhm(truth), rel=0.02)


def test_order_is_chosen_by_the_number_of_stars() -> None:
    assert make_field(7, n_side=3, snr=(100.0, 500.0)).measure(order=None).order <= 1
    assert make_field(7, n_side=5, snr=(100.0, 500.0)).measure(order=None).order == 2


def test_too_few_stars_are_refused_with_what_was_found_and_needed() -> None:
    field = make_field(8, n_side=3)
    with pytest.raises(
        TooFewStars, match=r"of 9 sources are stars .* order 2 .* at least 18 are needed"
    ) as caught:
        field.measure(order=2, name="lonely.fits")
    assert "lonely.fits" in str(caught.value)
    assert "Give a PSF file" in str(caught.value)
    assert caught.value.n_needed == 18
    assert caught.value.n_used == int(np.sum(caught.value.stars["used"])) <= 9


def test_image_without_sources_has_too_few_stars() -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(100, 100))
    with pytest.raises(TooFewStars, match=r"0 of 0 sources"):
        measure_psf(noise, np.ones_like(noise), np.zeros(noise.shape, bool), Box.from_shape(noise.shape))


def test_image_without_good_pixels_has_too_few_stars() -> None:
    nothing = np.full((50, 50), np.nan)
    with pytest.raises(TooFewStars, match="no pixel is good"):
        measure_psf(
            nothing, np.ones_like(nothing), np.zeros(nothing.shape, bool), Box.from_shape(nothing.shape)
        )


def test_arrays_must_fit_together(field: Field) -> None:
    with pytest.raises(ValueError, match="must all have the shape of the box"):
        measure_psf(field.image[1:], field.variance, field.bad, field.box)
    with pytest.raises(ValueError, match="must be odd"):
        field.measure(size=40)


def test_same_image_gives_the_same_psf(field: Field) -> None:
    first, second = (field.measure(order=0) for _ in range(2))
    assert np.array_equal(first.psf.basis, second.psf.basis)
