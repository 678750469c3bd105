"""Subtraction: formulae computed another way, invariances, white-noise statistics, fluxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from astropy.stats import mad_std
from astropy.table import Table
from lsst.images import Box

from lsst.diainspect.psf import PixelBasis, PolynomialField, PsfFit
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, SimulatedPair, simulate_pair
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    SubtractionResult,
    ZogyConfig,
    ZogySubtractor,
    convolve_varying,
    decorrelation_transfer,
    filters_from_table,
    filters_to_table,
    kernel_to_lsst,
    make_difference_image,
    proper_filters,
    result_filters,
)
from lsst.diainspect.subtraction._background import subtract_background
from lsst.diainspect.subtraction._cell_filters import LocalFilters, filter_in_cells, score_difference
from lsst.diainspect.subtraction._cells import CellGrid
from lsst.diainspect.subtraction._image_pair import fill_bad_pixels
from lsst.diainspect.subtraction._kernel_basis import KernelBasis, gaussian_polynomial_basis
from lsst.diainspect.subtraction._kernel_fit import KernelEquations, KernelModel, SpatialOrders
from lsst.diainspect.subtraction._kernel_sources import KernelSources
from lsst.diainspect.subtraction._registration import measure_registration
from lsst.diainspect.subtraction._sparse_tiles import grow
from lsst.diainspect.subtraction._star_fit import fit_stars
from lsst.diainspect.subtraction._transfer import image_from_transfer, phase_ramp, transfer_from_image

SEEING = {"blunter": (0.9, 0.7), "sharper": (0.7, 0.9)}
METHODS = {"al": (AlSubtractor, AlConfig), "zogy": (ZogySubtractor, ZogyConfig)}


def gaussian(size: int, sigma: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    return image / image.sum()


def pair_of(simulated: SimulatedPair) -> ImagePair:
    return ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )


def subtract(method: str, pair: ImagePair, **overrides: object) -> SubtractionResult:
    subtractor, config_class = METHODS[method]
    config = config_class()
    config.update(**overrides)
    return subtractor(config).subtract(pair)


def far_from(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], distance: float) -> np.ndarray:
    near = np.zeros(shape, dtype=bool)
    column = np.clip(np.rint(x).astype(int), 0, shape[1] - 1)
    row = np.clip(np.rint(y).astype(int), 0, shape[0] - 1)
    near[row, column] = True
    return scipy.ndimage.distance_transform_edt(~near) > distance


# --- formulae -------------------------------------------------------------------------------------------------


def test_decorrelation_makes_the_noise_power_white():
    window = 64
    kappa = transfer_from_image(0.9 * gaussian(25, 1.7), window)
    phi = decorrelation_transfer(kappa, 3.0, 2.0)
    power = phi**2 * (3.0 + np.abs(kappa) ** 2 * 2.0)
    np.testing.assert_allclose(power, 3.0 + 0.9**2 * 2.0, rtol=1e-12)
    assert phi[0, 0] == pytest.approx(1.0)


def test_proper_difference_agrees_with_the_papers_equation():
    rng = np.random.default_rng(2)
    window = 64
    # Narrow enough that neither transform vanishes, where the ratio would be regularised.
    p_n, p_r = (transfer_from_image(gaussian(31, s), window) for s in (1.1, 0.9))
    science, template = rng.normal(size=(2, window, window))
    beta, v_n, v_r = 0.8, 2.0, 0.5
    n_hat, r_hat = np.fft.rfft2(science), np.fft.rfft2(template)
    # Zackay, Ofek & Gal-Yam (2016), eqs. 13-16 with F_n = beta, F_r = 1.
    root = np.sqrt(v_n * np.abs(p_r) ** 2 + beta**2 * v_r * np.abs(p_n) ** 2)
    paper_d = (p_r * n_hat - beta * p_n * r_hat) / root
    f_d = beta / np.sqrt(v_n + beta**2 * v_r)
    paper_psf = beta * p_n * p_r / (f_d * root)
    filters = proper_filters(p_n, p_r, beta, v_n, v_r)
    ours = filters.science * n_hat - filters.template * r_hat
    # Ours is in the flux units of the science image: D / F_D for a source of flux beta in it.
    np.testing.assert_allclose(ours, paper_d / f_d * beta, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(filters.psf, paper_psf, rtol=1e-9, atol=1e-12)


def test_proper_noise_stays_white_where_both_psfs_vanish():
    window = 128
    p_n, p_r = (transfer_from_image(gaussian(61, s), window) for s in (5.0, 4.0))
    filters = proper_filters(p_n, p_r, 1.0, 2.0, 0.5)
    power = 2.0 * np.abs(filters.science) ** 2 + 0.5 * np.abs(filters.template) ** 2
    np.testing.assert_allclose(power, 2.5, rtol=1e-6)


def test_swapping_the_images_negates_the_proper_difference():
    window = 64
    p_n, p_r = (transfer_from_image(gaussian(31, s), window) for s in (1.6, 1.3))
    one = proper_filters(p_n, p_r, 1.0, 2.0, 0.5)
    other = proper_filters(p_r, p_n, 1.0, 0.5, 2.0)
    np.testing.assert_allclose(one.science, other.template)
    np.testing.assert_allclose(one.template, other.science)
    # The small number added where both PSFs vanish is not part of the PSF.
    np.testing.assert_allclose(one.psf, other.psf, atol=3e-4)


def test_phase_ramp_moves_an_image():
    window = 32
    image = gaussian(15, 1.0)
    moved = image_from_transfer(transfer_from_image(image, window) * phase_ramp(2, -1, window), window, 15)
    # At the edge the Gaussian is below 1e-6 of its peak.
    np.testing.assert_allclose(moved, np.roll(image, (-1, 2), axis=(0, 1)), atol=1e-6 * image.max())


def test_varying_convolution_agrees_with_a_kernel_for_each_pixel():
    bounds = Box.factory[10:50, 5:69]
    rng = np.random.default_rng(3)
    image = rng.normal(size=(40, 64)).astype(np.float32)
    kernel = PixelBasis(rng.normal(size=(3, 7, 7)), PolynomialField(bounds, 1))
    ours = convolve_varying(image, kernel)
    padded = np.pad(image, 3, mode="symmetric")
    for y, x in [(0, 0), (17, 40), (39, 63)]:
        local = kernel.at(x + 5, y + 10)
        direct = (padded[y : y + 7, x : x + 7] * local[::-1, ::-1]).sum()
        # float32 transforms of 49 terms of order one.
        assert ours[y, x] == pytest.approx(direct, abs=1e-4)


def test_kernel_basis_has_unit_and_zero_sums():
    basis, degrees = gaussian_polynomial_basis([0.7, 1.4], [3, 1])
    np.testing.assert_allclose(basis.sum(axis=(1, 2)), [1.0] + [0.0] * (len(basis) - 1), atol=1e-12)
    assert len(basis) == 10 + 3
    assert degrees.max() == 3


def test_kernel_that_made_the_image_is_found():
    rng = np.random.default_rng(4)
    shape = (200, 200)
    bounds = Box.factory[0:200, 0:200]
    sharp = np.zeros(shape)
    x, y = rng.uniform(25, 175, (2, 40))
    sharp[np.rint(y).astype(int), np.rint(x).astype(int)] = rng.uniform(1e4, 1e5, 40)
    sharp = scipy.signal.fftconvolve(sharp, gaussian(25, 1.5), mode="same")
    basis, degrees = gaussian_polynomial_basis([1.0, 2.0], [2, 2])
    truth = np.tensordot(rng.normal(size=len(basis)) * 0.02, basis, axes=1) + 0.97 * basis[0]
    blunt = scipy.signal.fftconvolve(sharp, truth, mode="same") + 12.0
    ones = np.ones(shape)
    equations = KernelEquations(
        blunt, sharp, ones, 1e-12 * ones, np.zeros(shape, dtype=bool), bounds,
        KernelBasis("gaussians", basis, degrees <= 2), x, y, np.ones(40, dtype=bool), 9,
        squared_kernel_sum=0.1, model_error=0.0,
    )  # fmt: skip
    model = KernelModel(SpatialOrders(0, 0, 0))
    fit = equations.fit(model, clip_sigma=5.0, max_iterations=0, min_sources=3)
    assert np.abs(fit.kernel.at(100, 100) - truth).max() < 1e-5 * truth.max()
    assert fit.background[0] == pytest.approx(12.0, abs=1e-3)


def test_noise_of_the_convolved_image_does_not_pull_the_kernel_sum():
    size, n_sources = 900, 600
    bounds = Box.factory[0:size, 0:size]
    basis, degrees = gaussian_polynomial_basis([1.0, 2.0], [2, 0])
    sums: dict[float, list[float]] = {1.0: [], 1e-12: []}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(25, size - 25, (2, n_sources))
        points = np.zeros((size, size))
        np.add.at(points, (np.rint(y).astype(int), np.rint(x).astype(int)), 300.0)
        sharp = scipy.signal.fftconvolve(points, gaussian(25, 1.5), mode="same")
        blunt = scipy.signal.fftconvolve(sharp, gaussian(25, 1.2), mode="same")
        target, convolved = (image + rng.normal(size=image.shape) for image in (blunt, sharp))
        ones = np.ones_like(sharp)
        for stated_variance, found in sums.items():
            equations = KernelEquations(
                target, convolved, ones, stated_variance * ones, np.zeros(sharp.shape, dtype=bool), bounds,
                KernelBasis("gaussians", basis, degrees <= 0), x, y, np.ones(n_sources, dtype=bool), 8,
                squared_kernel_sum=0.1, model_error=0.0,
            )  # fmt: skip
            model = KernelModel(SpatialOrders(0, 0, 0))
            fit = equations.fit(model, clip_sigma=6.0, max_iterations=0, min_sources=3)
            found.append(fit.kernel.at(300, 300).sum())
    # One run scatters by 0.45 % (600 sources of S/N about 40 with free wings), four by 0.22 %.
    assert np.mean(sums[1.0]) == pytest.approx(1.0, abs=3 * 0.0022)
    # With the noise not accounted for the sum is 1 % low: the paired difference is that bias.
    assert np.mean(np.subtract(sums[1e-12], sums[1.0])) < -0.005


@pytest.mark.parametrize("cell_size", [64, 100, 1000])
def test_cell_weights_sum_to_one(cell_size):
    grid = CellGrid((150, 230), cell_size, 16)
    total = np.zeros(grid.shape)
    for cell in grid:
        total[cell.target] += cell.row_weight[:, None] * cell.column_weight[None, :]
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("cell_size", [64, 100, 1000])
def test_cells_filter_with_a_linear_filter_exactly(cell_size):
    box = Box.factory[0:150, 0:230]
    rng = np.random.default_rng(3)
    basis = PixelBasis(
        np.stack([gaussian(15, 1.5), 0.05 * rng.normal(size=(15, 15)), 0.05 * rng.normal(size=(15, 15))]),
        PolynomialField(box, 1),
    )
    image = rng.normal(size=(150, 230)).astype(np.float32)
    grid = CellGrid(image.shape, cell_size, 16)
    filtered = filter_in_cells(grid, (image, image), lambda x, y: (basis.at(x, y), -0.5 * basis.at(x, y)))
    np.testing.assert_allclose(filtered, 0.5 * convolve_varying(image, basis), atol=2e-5)


def test_cells_are_smaller_where_a_field_bends():
    shape, box = (1024, 1024), Box.factory[0:1024, 0:1024]
    constant = PixelBasis.from_callable(lambda x, y: gaussian(21, 2.0), box, order=2)
    bent = PixelBasis.from_callable(lambda x, y: gaussian(21, 2.0 + 3e-7 * (x - 512) ** 2), box, order=2)
    assert CellGrid.for_fields(shape, [constant], 512, 16).cell_size == 512
    assert CellGrid.for_fields(shape, [constant, bent], 512, 16).cell_size < 512


def test_variance_is_that_of_the_squared_filters():
    # One cell, no whitening: var(D) = F_s^2 * v_s + F_t^2 * v_t and var(P_D x D) likewise, pixel by pixel.
    simulated = simulate_pair(ObservingConditions(), SceneConfig(star_density=60), 5, size=256)
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    filters = [gaussian(31, 0.8), 0.7 * gaussian(31, 1.4), gaussian(31, 2.0)]
    window = 128

    def filters_at(x: float, y: float, window: int) -> LocalFilters:
        return LocalFilters(*(transfer_from_image(image, window) for image in filters))

    rng = np.random.default_rng(8)
    difference = rng.normal(size=pair.shape).astype(np.float32)
    scored = score_difference(
        CellGrid(pair.shape, 512, 40),
        difference,
        pair,
        filters_at,
        window,
        astrometric_rms=0.0,
        relative_error=0.0,
    )

    def correlate(kernel: np.ndarray) -> np.ndarray:
        return scipy.signal.fftconvolve(kernel, filters[2][::-1, ::-1], mode="same")

    def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return scipy.ndimage.convolve(image.astype(float), kernel, mode="reflect")

    variance = convolve(pair.science_variance, filters[0] ** 2)
    variance += convolve(pair.template_variance, filters[1] ** 2)
    np.testing.assert_allclose(scored.variance, variance, rtol=1e-4)
    matched_variance = convolve(pair.science_variance, correlate(filters[0]) ** 2)
    matched_variance += convolve(pair.template_variance, correlate(filters[1]) ** 2)
    matched = convolve(difference, filters[2][::-1, ::-1])
    np.testing.assert_allclose(scored.score, matched / np.sqrt(matched_variance), atol=1e-3)


def test_background_is_found_under_sources_and_bad_pixels():
    rng = np.random.default_rng(12)
    y, x = np.mgrid[:600, :700]
    truth = 3.0 + 2.0 * (x / 700) - 1.5 * (y / 600) ** 2
    image = (truth + rng.normal(size=truth.shape)).astype(np.float32)
    bad = np.zeros(truth.shape, dtype=bool)
    bad[100:140, 200:420] = True
    image[bad] = 1e4
    for row, column in rng.integers(20, 580, size=(60, 2)):
        image[row - 3 : row + 4, column - 3 : column + 4] += 300 * gaussian(7, 1.5)
    before = image.copy()
    subtract_background(image, 0.5 * np.ones_like(image), np.ones_like(image), 0.5, bad, 128)
    error = (before - image) - truth
    # 128^2 pixels tell a mean to 1 / 128; the spline's curvature adds little in the middle.
    assert abs(error[64:-64, 64:-64].mean()) < 4 / 600
    assert np.std(error[64:-64, 64:-64]) < 3 / 128


def test_growing_a_mask_in_tiles_is_a_disk():
    mask = np.zeros((300, 421), dtype=bool)
    mask[np.random.default_rng(2).integers(0, 300, 12), np.random.default_rng(3).integers(0, 421, 12)] = True
    np.testing.assert_array_equal(grow(mask, 17), scipy.ndimage.distance_transform_edt(~mask) <= 17)
    assert not grow(np.zeros((50, 60), dtype=bool), 5).any()


# --- statistics on exact PSFs and perfect registration ----------------------------------------------------------


@pytest.fixture(scope="module", params=list(SEEING))
def blank_and_stars(request):
    """Two 1024-pixel pairs of a seeing order, subtracted by each method."""
    science_seeing, template_seeing = SEEING[request.param]
    conditions = ObservingConditions(science_seeing=science_seeing, template_seeing=template_seeing)
    pairs = [simulate_pair(conditions, SceneConfig(n_transients=120), seed) for seed in (21, 22)]
    return [(p, {method: subtract(method, pair_of(p)) for method in METHODS}) for p in pairs]


@pytest.mark.parametrize("method", METHODS)
def test_sky_noise_is_white_and_as_predicted(blank_and_stars, method):
    pulls, scores, products = [], [], []
    for simulated, results in blank_and_stars:
        result, truth = results[method], simulated.truth
        sky = far_from(truth["x"], truth["y"], result.score.shape, 15)
        sky &= ~(result.edge | result.spread | result.bad)
        pull = result.difference / np.sqrt(result.variance)
        pulls.append(pull[sky])
        scores.append(result.score[sky])
        for first, second in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
            both = sky[first] & sky[second]
            products.append((pull[first] * pull[second])[both])
    pulls, scores = np.concatenate(pulls), np.concatenate(scores)
    # A million pixels: 0.1 % for the difference; some 25 pixels of the score make one independent one, 0.5 %.
    assert len(pulls) > 5e5
    assert mad_std(pulls) == pytest.approx(1.0, abs=0.015)
    assert mad_std(scores) == pytest.approx(1.0, abs=0.015)
    for product in products:
        assert abs(product.mean()) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_forced_fluxes_at_true_positions_are_unbiased(blank_and_stars, method):
    ratios, errors = [], []
    for simulated, results in blank_and_stars:
        result, truth = results[method], simulated.truth
        rows = truth[np.asarray(truth["isTransient"]) & (np.asarray(truth["idealSnr"]) > 10)]
        x, y = np.asarray(rows["x"]), np.asarray(rows["y"])
        _, _, fit = fit_stars(
            result.difference, result.variance, result.bad, result.psf, x, y, 12.0, iterations=1
        )
        clean = ~(result.edge | result.spread)[np.rint(y).astype(int), np.rint(x).astype(int)]
        others = np.hypot(x[:, None] - x[None], y[:, None] - y[None]) + 1e9 * np.eye(len(x))
        clean &= others.min(axis=1) > 25
        true = np.asarray(rows["fluxChange"])
        ratios.append((fit.flux / true)[clean])
        errors.append(np.abs(fit.flux_error / true)[clean])
    ratios, errors = np.concatenate(ratios), np.concatenate(errors)
    weight = errors**-2
    mean, error = np.sum(ratios * weight) / weight.sum(), weight.sum() ** -0.5
    assert error < 0.004
    assert abs(mean - 1.0) < 0.01 + error


@pytest.mark.parametrize("method", METHODS)
def test_scaling_both_images_scales_the_difference_and_not_the_score(method):
    simulated = simulate_pair(ObservingConditions(), SceneConfig(star_density=60), 5, size=300)
    pair = pair_of(simulated)
    factor = np.float32(1000.0)
    scaled = replace(
        pair,
        science=pair.science * factor,
        template=pair.template * factor,
        science_variance=pair.science_variance * factor**2,
        template_variance=pair.template_variance * factor**2,
        science_fill_error=pair.science_fill_error * factor,
        template_fill_error=pair.template_fill_error * factor,
    )
    one, other = subtract(method, pair), subtract(method, scaled)
    assert np.abs(other.score - one.score).max() < 0.01
    sigma = np.sqrt(np.median(one.variance))
    assert np.abs(other.difference / factor - one.difference).max() < 0.01 * sigma


def test_cells_leave_no_seams_on_a_constant_psf():
    conditions = ObservingConditions(fwhm_variation=0.0, ellipticity_variation=0.0)
    pair = pair_of(simulate_pair(conditions, SceneConfig(star_density=40), 6, size=400))
    whole = subtract("zogy", pair, cellSize=1024, backgroundCellSize=0)
    cells = subtract("zogy", pair, cellSize=128, backgroundCellSize=0)
    difference = (whole.difference - cells.difference) / np.sqrt(whole.variance)
    inside = ~(whole.edge | whole.spread | whole.bad)
    # The sky variance differs between the cells by the scatter of their medians; what is left is far below noise.
    assert mad_std(difference[inside]) < 0.02
    assert np.abs(difference[inside]).max() < 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", SEEING)
def test_stored_filters_reproduce_the_difference(method, order):
    science_seeing, template_seeing = SEEING[order]
    conditions = ObservingConditions(science_seeing=science_seeing, template_seeing=template_seeing)
    pair = pair_of(simulate_pair(conditions, SceneConfig(star_density=60, n_transients=5), 7, size=400))
    result = subtract(method, pair, backgroundCellSize=0)
    filtered = convolve_varying(pair.science, result.science_filter)
    filtered -= convolve_varying(pair.template, result.template_filter)
    inside = ~(result.edge | result.spread | result.bad)
    residual = (filtered - result.difference)[inside] / np.sqrt(result.variance[inside])
    # Up to the smooth background that AL fits and the tails of the filters beyond the stored stamp.
    assert mad_std(residual) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_what_a_hole_changes_is_flagged(method):
    simulated = simulate_pair(
        ObservingConditions(), SceneConfig(star_density=40, galaxy_density=5, n_transients=0), 8, size=400
    )
    pair = pair_of(simulated)
    # In the emptiest place, so that the sources of the match stay the same.
    empty = np.zeros(pair.shape)
    empty[
        np.rint(simulated.truth["y"]).astype(int).clip(0, 399),
        np.rint(simulated.truth["x"]).astype(int).clip(0, 399),
    ] = 1
    distance = scipy.ndimage.distance_transform_edt(empty == 0)
    distance[:60] = distance[-60:] = distance[:, :60] = distance[:, -60:] = 0
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    science, bad = pair.science.copy(), pair.science_bad.copy()
    # A spike of 300 sigma, as a cosmic ray leaves it.
    science[y - 2 : y + 3, x - 2 : x + 3] += 300 * np.sqrt(np.median(pair.science_variance))
    bad[y - 2 : y + 3, x - 2 : x + 3] = True
    filled = fill_bad_pixels(science, bad)
    holed = replace(
        pair, science=filled, science_bad=bad, science_fill_error=2.0 * np.abs(science - filled)[bad]
    )
    clean, spoilt = subtract(method, pair), subtract(method, holed)
    trusted = ~(spoilt.bad | spoilt.spread | spoilt.edge)
    assert np.abs(spoilt.score - clean.score)[trusted].max() < 0.5


@pytest.mark.parametrize(("order", "expected"), [("blunter", "template"), ("sharper", "science")])
def test_the_sharper_image_is_convolved(order, expected):
    science_seeing, template_seeing = SEEING[order]
    conditions = ObservingConditions(science_seeing=science_seeing, template_seeing=template_seeing)
    pair = pair_of(simulate_pair(conditions, SceneConfig(star_density=60), 9, size=300))
    result = subtract("al", pair)
    assert result.kernel_convolves == expected
    forced = subtract("al", pair, convolve="template")
    assert forced.kernel_convolves == "template"


@pytest.mark.parametrize("order", SEEING)
def test_both_directions_of_convolution_measure_the_same_fluxes(order):
    science_seeing, template_seeing = SEEING[order]
    conditions = ObservingConditions(science_seeing=science_seeing, template_seeing=template_seeing)
    simulated = simulate_pair(
        conditions, SceneConfig(star_density=40, n_transients=20, transient_snr=(50, 200)), 10, size=600
    )
    pair = pair_of(simulated)
    rows = simulated.truth[np.asarray(simulated.truth["isTransient"])]
    ratios = {}
    for direction in ("science", "template"):
        result = subtract("al", pair, convolve=direction)
        inside = ~result.edge[np.rint(rows["y"]).astype(int), np.rint(rows["x"]).astype(int)]
        _, _, fit = fit_stars(
            result.difference, result.variance, result.bad, result.psf,
            np.asarray(rows["x"]), np.asarray(rows["y"]), 12.0, iterations=1,
        )  # fmt: skip
        ratios[direction] = np.median((fit.flux / np.asarray(rows["fluxChange"]))[inside])
    # 15 or more transients of S/N above 50: 0.5 % and the scatter of the hosts.
    assert ratios["science"] == pytest.approx(1.0, abs=0.02)
    assert ratios["template"] == pytest.approx(1.0, abs=0.02)


# --- the results as datasets ------------------------------------------------------------------------------------


def test_filters_survive_their_table():
    pair = pair_of(simulate_pair(ObservingConditions(), SceneConfig(star_density=60), 11, size=256))
    result = subtract("al", pair)
    filters = result_filters(result, pair)
    again = filters_from_table(filters_to_table(filters))
    for name, basis in filters.items():
        assert again[name].field == basis.field
        np.testing.assert_allclose(again[name].basis, basis.basis, atol=1e-6 * np.abs(basis.basis).max())


def test_kernel_image_agrees_with_the_stored_kernel():
    bounds = Box.factory[100:200, 50:250]
    kernel = PixelBasis(np.random.default_rng(1).normal(size=(6, 5, 5)), PolynomialField(bounds, 2))
    stored = kernel_to_lsst(kernel)
    np.testing.assert_allclose(stored.compute_kernel_image(x=77, y=140).array, kernel.at(77, 140), atol=1e-12)


def test_mask_planes_of_the_template_are_carried_over():
    simulated = simulate_pair(ObservingConditions(), SceneConfig(star_density=60), 12, size=256)
    saturated = np.zeros((256, 256), dtype=bool)
    saturated[100:104, 50:54] = True
    simulated.template.mask.set("SATURATED", saturated)
    pair = pair_of(simulated)
    difference = make_difference_image(subtract("al", pair), pair, simulated.science, simulated.template)
    assert difference.mask.get("SAT_TEMPLATE")[100:104, 50:54].all()
    assert not difference.mask.get("SATURATED")[100:104, 50:54].all()
    assert difference.mask.get("DETECTION_EDGE")[:3].all()


def test_kernel_sources_say_why_they_were_rejected():
    simulated = simulate_pair(ObservingConditions(), SceneConfig(star_density=40), 13, size=400)
    result = subtract("al", pair_of(simulated))
    table = result.kernel_sources
    assert table["used"].sum() >= 5
    assert (np.asarray(table["rejected"])[np.asarray(table["used"])] == "").all()
    assert (np.asarray(table["rejected"])[~np.asarray(table["used"])] != "").all()
    assert table["scienceFlux"].unit == "nJy"


def test_given_kernel_sources_are_used():
    simulated = simulate_pair(ObservingConditions(), SceneConfig(star_density=40), 13, size=400)
    truth = simulated.truth
    stars = truth[(np.asarray(truth["kind"]) == "star") & (np.asarray(truth["scienceSnr"]) > 50)]
    given = Table({"x": stars["x"], "y": stars["y"]})
    result = AlSubtractor(AlConfig()).subtract(pair_of(simulated), given)
    assert len(result.kernel_sources) == len(given)


def test_a_table_of_kernel_sources_without_positions_is_refused():
    pair = pair_of(simulate_pair(ObservingConditions(), SceneConfig(star_density=40), 13, size=256))
    with pytest.raises(ValueError, match="lacks the columns"):
        AlSubtractor(AlConfig()).subtract(pair, Table({"ra": [1.0]}))


def test_flux_ratio_of_few_stars_survives_a_bright_variable_one():
    n = 5
    truth, error = 1.03, np.array([2e-3, 2e-3, 0.015, 0.02, 0.06])
    rng = np.random.default_rng(4)
    ratio = truth + error * rng.normal(size=n)
    ratio[0] *= 1.24
    template = np.full(n, 1e5)
    zeros = np.zeros(n)

    def fit(flux: np.ndarray, flux_error: np.ndarray) -> PsfFit:
        return PsfFit(
            zeros,
            zeros,
            np.full(n, 5e-3),
            np.full(n, 5e-3),
            flux,
            flux_error,
            zeros,
            zeros,
            zeros + 1,
            zeros + 1,
        )

    sources = KernelSources(
        x=rng.uniform(0, 500, n),
        y=rng.uniform(0, 500, n),
        offset_x=0.05 * rng.normal(size=n),
        offset_y=0.05 * rng.normal(size=n),
        science=fit(ratio * template, error * template),
        template=fit(template, 1e-4 * template),
        is_star=np.ones(n, dtype=bool),
        rejected=np.full(n, "", dtype="U32"),
    )
    registration, sources = measure_registration(sources, PolynomialField(Box.factory[0:500, 0:500], 1))
    assert sources.rejected[0] == "flux ratio"
    assert registration.flux_ratio == pytest.approx(truth, abs=3 * registration.flux_ratio_error)
    assert registration.flux_ratio_error < 0.02
