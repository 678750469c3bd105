"""Kernels judged by sources that were held out of the fit: cross-validation and the quality table."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from astropy.stats import mad_std
from lsst.images import Box

from lsst.diainspect.psf import PixelBasis, PolynomialField, PsfFit
from lsst.diainspect.simulation import SimulatedPair
from lsst.diainspect.subtraction import AlConfig, AlSubtractor, ImagePair
from lsst.diainspect.subtraction._kernel_basis import (
    KernelBasis,
    delta_basis,
    gaussian_polynomial_basis,
    roughness_matrix,
)
from lsst.diainspect.subtraction._kernel_fit import KernelEquations, KernelFit, KernelModel, SpatialOrders
from lsst.diainspect.subtraction._kernel_quality import kernel_quality
from lsst.diainspect.subtraction._kernel_selection import KernelCandidate, choose_kernel_model
from lsst.diainspect.subtraction._kernel_sources import KernelSources
from lsst.diainspect.subtraction._varying_convolution import convolve_varying

SIZE, N_SOURCES = 400, 60
BOUNDS = Box.factory[0:SIZE, 0:SIZE]
CLIPPING = {"clip_sigma": 6.0, "max_iterations": 2, "min_sources": 5}


def gaussian(size: int, sigma: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * ((x - dx) ** 2 + (y - dy) ** 2) / sigma**2)
    return image / image.sum()


def gaussians(sigma: float = 1.0) -> KernelBasis:
    images, degrees = gaussian_polynomial_basis([sigma, 2 * sigma], [2, 2])
    return KernelBasis("gaussians", images, degrees <= 2)


def deltas(half_size: int = 4) -> KernelBasis:
    images = delta_basis(half_size)
    return KernelBasis("delta", images, np.ones(len(images), dtype=bool), roughness_matrix(images, "central"))


class Stars:
    """Stars of flux 3000 to 30000 in one image, and in another what a varying kernel makes of it, both noisy."""

    def __init__(self, kernel: PixelBasis, seed: int, noise: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.uniform(20, SIZE - 20, (2, N_SOURCES))
        points = np.zeros((SIZE, SIZE))
        places = np.rint(self.y).astype(int), np.rint(self.x).astype(int)
        np.add.at(points, places, 10 ** rng.uniform(3.5, 4.5, N_SOURCES))
        self.sharp = scipy.signal.fftconvolve(points, gaussian(25, 1.4), mode="same")
        self.blunt = convolve_varying(self.sharp, kernel) + noise * rng.normal(size=self.sharp.shape)
        self.sharp = self.sharp + noise * rng.normal(size=self.sharp.shape)
        self.variance = np.full((SIZE, SIZE), max(noise, 1e-6) ** 2)

    def equations(self, basis: KernelBasis, used: np.ndarray | None = None) -> KernelEquations:
        return KernelEquations(
            self.blunt, self.sharp, self.variance, self.variance, np.zeros((SIZE, SIZE), dtype=bool), BOUNDS,
            basis, self.x, self.y, np.ones(N_SOURCES, dtype=bool) if used is None else used, 8,
            squared_kernel_sum=0.1, model_error=0.0,
        )  # fmt: skip


def constant(image: np.ndarray) -> PixelBasis:
    return PixelBasis(image[None], PolynomialField(BOUNDS, 0))


def turning(sigma: float = 1.2) -> PixelBasis:
    """A kernel that is wider on one side of the field than on the other."""
    field = PolynomialField(BOUNDS, 1)
    middle, slope = gaussian(15, sigma), 0.5 * (gaussian(15, sigma * 1.1) - gaussian(15, sigma / 1.1))
    images = np.zeros((3, 15, 15))
    images[0] = middle
    images[field.exponents.index((1, 0))] = slope
    return PixelBasis(images, field)


def model(shape: int = 0, smoothing: float = 0.0) -> KernelModel:
    return KernelModel(SpatialOrders(shape, 0, 0), smoothing)


def test_delta_basis_finds_a_kernel_of_any_shape() -> None:
    truth = np.random.default_rng(3).uniform(0, 0.04, size=(9, 9))
    stars = Stars(constant(truth), seed=4, noise=0.0)
    fit = stars.equations(deltas()).fit(model(), **CLIPPING)
    # The sharp image's PSF passes 1e-4 of the highest frequencies, which leaves them at the precision of the images.
    error = fit.kernel.at(200, 200) - truth
    assert np.abs(scipy.signal.fftconvolve(error, gaussian(25, 1.4))).max() < 1e-4 * truth.max()
    assert np.abs(error).max() < 0.05 * truth.max()


def test_penalty_makes_a_kernel_smoother_and_closer_to_a_smooth_truth() -> None:
    truth = gaussian(9, 1.2)
    equations = Stars(constant(truth), seed=5, noise=5.0).equations(deltas())
    penalty = roughness_matrix(np.eye(81).reshape(81, 9, 9), "central")
    errors, roughness, n_effective = [], [], []
    for smoothing in (0.0, 1e-3, 1e-1):
        fit = equations.fit(model(smoothing=smoothing), **CLIPPING)
        kernel = fit.kernel.at(200, 200)
        errors.append(np.sqrt(((kernel - truth) ** 2).mean()))
        roughness.append(kernel.ravel() @ penalty @ kernel.ravel())
        n_effective.append(fit.n_effective)
    assert roughness[0] > roughness[1] > roughness[2]
    assert n_effective[0] == 82 > n_effective[1] > n_effective[2]
    assert errors[1] < 0.5 * errors[0]


def test_strength_of_the_penalty_does_not_depend_on_the_flux_scale() -> None:
    stars = Stars(constant(gaussian(9, 1.2)), seed=5, noise=5.0)
    one = stars.equations(deltas()).fit(model(smoothing=1e-2), **CLIPPING)
    stars.sharp, stars.blunt, stars.variance = 100 * stars.sharp, 100 * stars.blunt, 1e4 * stars.variance
    other = stars.equations(deltas()).fit(model(smoothing=1e-2), **CLIPPING)
    np.testing.assert_allclose(other.kernel.basis, one.kernel.basis, atol=1e-8)


@pytest.mark.parametrize("basis", [gaussians(), deltas()], ids=["gaussians", "delta"])
def test_held_out_chi_square_is_that_of_a_fit_without_the_source(basis: KernelBasis) -> None:
    stars = Stars(turning(), seed=6, noise=3.0)
    equations, this = stars.equations(basis), model(1, 1e-3)
    fit = equations.fit(this, clip_sigma=1e9, max_iterations=0, min_sources=5, n_folds=N_SOURCES)
    for source in (0, 17, 41):
        others = np.arange(N_SOURCES) != source
        alone = stars.equations(basis, others).fit(this, clip_sigma=1e9, max_iterations=0, min_sources=5)
        field = alone.kernel.field
        terms = field.evaluate(stars.x[[source]], stars.y[[source]])[0]
        x, y = int(np.rint(stars.x[source])), int(np.rint(stars.y[source]))
        reach = alone.kernel.size // 2
        around = stars.sharp[y - 8 - reach : y + 9 + reach, x - 8 - reach : x + 9 + reach]
        predicted = scipy.signal.fftconvolve(
            around, alone.kernel.at(stars.x[source], stars.y[source]), mode="valid"
        )
        residual = stars.blunt[y - 8 : y + 9, x - 8 : x + 9] - predicted - terms @ alone.background
        expected = (residual**2).mean() / (1.1 * stars.variance[0, 0])
        assert fit.chi2_held_out[source] == pytest.approx(expected, rel=1e-6)


def test_sources_held_out_fit_worse_than_those_in_the_fit() -> None:
    stars = Stars(constant(gaussian(9, 1.2)), seed=7, noise=3.0)
    fit = stars.equations(deltas()).fit(model(1), **CLIPPING, n_folds=5)
    used = ~fit.clipped
    assert fit.chi2_held_out[used].mean() > 1.02 * fit.chi2_after[used].mean()


def test_simplest_model_is_chosen_when_the_kernel_is_constant() -> None:
    equations = Stars(constant(gaussian(15, 1.2)), seed=8, noise=2.0).equations(gaussians())
    candidates = [KernelCandidate(equations, model(order)) for order in (2, 1, 0)]
    choice = choose_kernel_model(candidates, n_folds=5, **CLIPPING)
    assert choice.chosen.model.orders.shape == 0
    assert len(choice.tried) == 3


def test_order_of_a_varying_kernel_is_found() -> None:
    equations = Stars(turning(), seed=9, noise=2.0).equations(gaussians())
    candidates = [KernelCandidate(equations, model(order)) for order in (2, 1, 0)]
    choice = choose_kernel_model(candidates, n_folds=5, **CLIPPING)
    assert choice.chosen.model.orders.shape == 1
    scores = {tried.candidate.model.orders.shape: tried for tried in choice.tried}
    assert scores[0].excess > 3 * scores[0].excess_error
    assert scores[2].n_effective > scores[1].n_effective > scores[0].n_effective


def test_too_little_and_too_much_smoothing_are_avoided() -> None:
    equations = Stars(constant(gaussian(9, 1.2)), seed=10, noise=5.0).equations(deltas())
    candidates = [KernelCandidate(equations, model(0, strength)) for strength in (1e-8, 1e-2, 1e3)]
    choice = choose_kernel_model(candidates, n_folds=5, **CLIPPING)
    assert choice.chosen.model.smoothing == 1e-2


def sources_at(x: np.ndarray, y: np.ndarray) -> KernelSources:
    nothing = np.full(len(x), np.nan)
    fit = PsfFit(**dict.fromkeys(PsfFit.__dataclass_fields__, nothing))
    return KernelSources(x, y, nothing, nothing, fit, fit, np.ones(len(x), dtype=bool), np.full(len(x), ""))


def quality_of(fit: KernelFit, stars: Stars, max_sum_error: float = 0.1):
    return kernel_quality(
        fit, sources_at(stars.x, stars.y), basis="gaussians", order=0, smoothing=np.nan,
        max_sum_error=max_sum_error,
    )  # fmt: skip


def test_moments_of_the_kernel_are_those_of_the_shift_and_the_widening() -> None:
    truth = 0.8 * gaussian(25, 1.3, dx=0.3, dy=-0.2)
    stars = Stars(constant(truth), seed=11, noise=0.0)
    images, degrees = gaussian_polynomial_basis([1.3], [4])
    fit = stars.equations(KernelBasis("gaussians", images, degrees <= 0)).fit(model(), **CLIPPING, n_folds=5)
    table = quality_of(fit, stars)
    np.testing.assert_allclose(table["kernelSum"], 0.8, rtol=1e-3)
    np.testing.assert_allclose(table["centroidX"], 0.3, atol=2e-3)
    np.testing.assert_allclose(table["centroidY"], -0.2, atol=2e-3)
    # The basis is cut at 3 sigma, which loses 1 % of the second moment.
    np.testing.assert_allclose(table["momentXX"], 1.3**2, rtol=0.03)
    np.testing.assert_allclose(table["momentYY"], 1.3**2, rtol=0.03)
    np.testing.assert_allclose(table["momentXY"], 0.0, atol=0.03)


def test_kernel_extrapolates_outside_its_sources() -> None:
    stars = Stars(constant(gaussian(15, 1.2)), seed=12)
    fit = stars.equations(gaussians()).fit(model(), **CLIPPING, n_folds=5)
    # Sources in the left half only.
    stars.x, stars.y = stars.x / 2, stars.y
    table = quality_of(fit, stars)
    right = np.asarray(table["x"]) > SIZE / 2
    assert table["isExtrapolated"][right].all()
    assert table["outsideHull"][right].all()
    inner = (np.abs(table["x"] - 100) < 60) & (np.abs(table["y"] - 200) < 120)
    assert inner.any()
    assert not table["isExtrapolated"][inner].any()
    assert quality_of(fit, stars, max_sum_error=1e-12)["isExtrapolated"].all()


def test_formal_error_of_the_sum_is_its_scatter() -> None:
    sums, errors = [], []
    for seed in range(40):
        stars = Stars(constant(gaussian(15, 1.2)), seed=100 + seed, noise=4.0)
        fit = stars.equations(gaussians()).fit(KernelModel(SpatialOrders(0, 1, 0)), **CLIPPING, n_folds=5)
        table = quality_of(fit, stars)
        sums.append(np.asarray(table["kernelSum"])[[0, 40]])
        errors.append(np.asarray(table["kernelSumErr"])[[0, 40]])
    pulls = (np.array(sums) - 1.0) / np.array(errors)
    # Each standard deviation is known to 11 %; noise of the convolved image beyond its expectation adds some.
    np.testing.assert_allclose(pulls.std(axis=0, ddof=1), 1.0, atol=0.35)
    assert np.mean(errors, axis=0)[0] > 1.2 * np.mean(errors, axis=0)[1]


@pytest.fixture(scope="module")
def pair(small_pair: SimulatedPair) -> ImagePair:
    return ImagePair.from_images(
        small_pair.science, small_pair.template, small_pair.science_psf, small_pair.template_psf
    )


def test_delta_basis_subtracts_as_well_as_gaussians_do(pair: ImagePair) -> None:
    results = {}
    for basis in ("gaussians", "delta"):
        config = AlConfig()
        config.kernelBasis = basis
        results[basis] = AlSubtractor(config).subtract(pair)
    one, other = results["gaussians"], results["delta"]
    good = ~(one.bad | one.spread | one.edge | other.spread | other.edge)
    # 30,000 pixels with some 1000 independent ones of the score.
    assert mad_std(other.score[good]) == pytest.approx(1.0, abs=0.06)
    # What the noise of the kernel sources leaves in either kernel, independent of the sky's noise.
    assert mad_std((one.score - other.score)[good]) < 0.15
    assert other.metadata["kernelBasis"] == "delta"


def test_what_cross_validation_tried_is_recorded(pair: ImagePair) -> None:
    config = AlConfig()
    config.crossValidate = ["order", "basis"]
    result = AlSubtractor(config).subtract(pair)
    chosen = result.metadata["crossValidation.chosen"]
    tried = {name.split(".")[1] for name in result.metadata if name.count(".") == 2}
    assert chosen in tried
    assert {"gaussiansOrder0", "deltaOrder0Smoothing1em02"} < tried
    assert all(np.isfinite(result.metadata[f"crossValidation.{label}.heldOutChi2"]) for label in tried)
    assert result.kernel_quality["basis"][0] in chosen


def test_given_widths_replace_those_of_the_psfs(pair: ImagePair) -> None:
    config = AlConfig()
    config.kernelSigmas, config.kernelDegrees = [0.9, 1.8], [4, 2]
    result = AlSubtractor(config).subtract(pair)
    assert result.metadata["kernelSize"] == 2 * int(np.ceil(3 * 1.8)) + 1


def test_sources_say_what_they_leave_when_held_out(pair: ImagePair) -> None:
    table = AlSubtractor(AlConfig()).subtract(pair).kernel_sources
    used = np.asarray(table["used"])
    assert np.isfinite(table["residualHeldOut"][used]).all()
    assert np.isnan(table["residualHeldOut"][np.asarray(table["rejected"]) == "low signal-to-noise"]).all()
    assert table["residualHeldOut"][used].mean() > table["residualAfter"][used].mean()
