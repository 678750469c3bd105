"""Weighted least squares of many stamps against numpy, noise and degenerate input."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.diainspect.linear_fit import fit_linear

TRUTH = np.array([3.0, -20.0, 0.5])


def make_stamps(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamps of a model of three columns of different size, with the noise that their weights say."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(n, 3, 40)) * np.array([1.0, 1e-3, 50.0])[:, None]
    variance = rng.uniform(0.5, 4.0, (n, 40))
    data = np.einsum("p,npi->ni", TRUTH, design) + rng.normal(size=(n, 40)) * np.sqrt(variance)
    return data, design, 1.0 / variance


def test_amplitudes_and_chi_square_agree_with_numpy():
    data, design, weight = make_stamps(20, seed=1)
    fit = fit_linear(data, design, weight)
    for n in range(20):
        root = np.sqrt(weight[n])
        expected, residual, _, _ = np.linalg.lstsq((design[n] * root).T, data[n] * root, rcond=None)
        np.testing.assert_allclose(fit.amplitude[n], expected, rtol=1e-9)
        np.testing.assert_allclose(fit.chi2[n], residual[0], rtol=1e-9)
        np.testing.assert_allclose(
            fit.covariance[n], np.linalg.inv((design[n] * weight[n]) @ design[n].T), rtol=1e-8
        )
    np.testing.assert_array_equal(fit.n_data, 40)


def test_covariance_is_that_of_repeated_noise():
    n = 4000
    fit = fit_linear(*make_stamps(n, seed=2))
    pull = (fit.amplitude - TRUTH) / fit.error
    assert np.abs(pull.mean(axis=0)).max() < 4.0 / np.sqrt(n)
    assert np.abs(pull.std(axis=0) - 1.0).max() < 4.0 / np.sqrt(2.0 * n)
    # Off-diagonal terms too: the squared Mahalanobis distance has 3 degrees of freedom.
    offset = fit.amplitude - TRUTH
    distance2 = np.einsum("np,npq,nq->n", offset, np.linalg.inv(fit.covariance), offset)
    assert distance2.mean() == pytest.approx(3.0, abs=4.0 * np.sqrt(6.0 / n))
    assert fit.chi2.mean() == pytest.approx(37.0, abs=4.0 * np.sqrt(2.0 * 37.0 / n))


@pytest.mark.parametrize("nothing", [0.0, np.nan, -1.0, np.inf])
def test_pixels_without_a_usable_weight_do_not_enter(nothing):
    data, design, weight = make_stamps(5, seed=3)
    kept = np.ones(40, dtype=bool)
    kept[::3] = False
    expected = fit_linear(data[:, kept], design[:, :, kept], weight[:, kept])
    spoiled_data, spoiled_weight = data.copy(), weight.copy()
    spoiled_data[:, ~kept] = np.nan
    spoiled_weight[:, ~kept] = nothing
    fit = fit_linear(spoiled_data, design, spoiled_weight)
    np.testing.assert_allclose(fit.amplitude, expected.amplitude)
    np.testing.assert_allclose(fit.covariance, expected.covariance)
    np.testing.assert_allclose(fit.chi2, expected.chi2)
    np.testing.assert_array_equal(fit.n_data, kept.sum())


def test_what_cannot_be_fitted_is_nan_and_costs_the_others_nothing():
    data, design, weight = make_stamps(5, seed=4)
    expected = fit_linear(data, design, weight)
    design[1, 2] = 2.0 * design[1, 0]
    weight[2, 3:] = 0.0
    design[3, 1] = 0.0
    fit = fit_linear(data, design, weight)
    for n in (1, 2, 3):
        assert np.isnan(fit.amplitude[n]).all()
        assert np.isnan(fit.error[n]).all()
        assert np.isnan(fit.chi2[n])
    np.testing.assert_array_equal(fit.n_data, [40, 40, 3, 40, 40])
    np.testing.assert_allclose(fit.amplitude[[0, 4]], expected.amplitude[[0, 4]])


def test_single_precision_stamps_are_solved_in_double_precision():
    data, design, weight = make_stamps(50, seed=5)
    # Columns alike to one part in a thousand: their normal matrix is singular in single precision.
    design[:, 1] += design[:, 0]
    single = [array.astype(np.float32) for array in (data, design, weight)]
    np.testing.assert_allclose(
        fit_linear(*single).amplitude,
        fit_linear(*[array.astype(float) for array in single]).amplitude,
        rtol=1e-10,
    )


def test_errors_from_residuals_are_those_of_the_noise():
    n = 4000
    rng = np.random.default_rng(6)
    design = rng.normal(size=(n, 2, 200))
    data = design[:, 0] - 2.0 * design[:, 1] + 7.0 * rng.normal(size=(n, 200))
    fit = fit_linear(data, design, np.ones((n, 200))).with_errors_from_residuals()
    pull = (fit.amplitude - [1.0, -2.0]) / fit.error
    # A pull by an estimated error follows Student's distribution, of variance dof / (dof - 2).
    assert np.abs(pull.std(axis=0) - np.sqrt(198 / 196)).max() < 4.0 / np.sqrt(2.0 * n)


def test_no_stamps_have_no_fits():
    fit = fit_linear(np.zeros((0, 40)), np.zeros((0, 3, 40)), np.zeros((0, 40)))
    assert fit.amplitude.shape == (0, 3)
    assert fit.error.shape == (0, 3)
