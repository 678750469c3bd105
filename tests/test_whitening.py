"""Noise that the variance planes do not describe is found and made white; noise that they do is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
from astropy.stats import mad_std

from lsst.diainspect.simulation import ObservingConditions, SceneConfig, simulate_pair
from lsst.diainspect.subtraction import AlConfig, AlSubtractor, ImagePair, ZogyConfig, ZogySubtractor
from lsst.diainspect.subtraction._whitening import measure_noise

METHODS = {"al": (AlSubtractor, AlConfig), "zogy": (ZogySubtractor, ZogyConfig)}
KERNEL = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])


def noise(seed: int, size: int = 512) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(size, size))


def measure(image: np.ndarray):
    """Measure the noise of one tile that is all sky and has unit variance."""
    shape = (1, *image.shape)
    return measure_noise(image[None], np.ones(shape), np.ones(shape, dtype=bool), [(0.0, 0.0)]).mean


def test_white_noise_is_recognised():
    spectrum = measure(noise(1))
    assert spectrum.is_white
    assert spectrum.variance_factor == pytest.approx(1.0, abs=0.1)


def test_covariance_of_correlated_noise_is_measured():
    correlated = scipy.ndimage.convolve(noise(2, 1024), KERNEL, mode="wrap")
    spectrum = measure(correlated)
    # [1, 2, 1] / 4 with itself is [1, 4, 6, 4, 1] / 16.
    profile = np.array([1, 4, 6, 4, 1]) / 16
    centre = len(spectrum.covariance) // 2
    measured = spectrum.covariance[centre - 2 : centre + 3, centre - 2 : centre + 3]
    # The taper leaves 5 % less at a lag of two pixels.
    np.testing.assert_allclose(measured, np.outer(profile, profile), rtol=0.1, atol=5 / 1024)
    assert not spectrum.is_white
    assert spectrum.correlation == pytest.approx(4 / 6, abs=0.02)


def test_whitening_filter_makes_the_noise_white():
    size = 512
    correlated = scipy.ndimage.convolve(noise(3, size), KERNEL, mode="wrap")
    correlated += 0.3 * noise(4, size)
    spectrum = measure(correlated)
    white = np.fft.irfft2(np.fft.rfft2(correlated) * spectrum.whitening(size), s=(size, size))
    for axis in (0, 1):
        neighbour = np.mean(white * np.roll(white, 1, axis=axis)) / np.mean(white**2)
        assert abs(neighbour) < 0.03
    assert np.var(white) == pytest.approx(spectrum.variance_factor, rel=0.03)


def test_many_small_covariances_add_up_for_a_point_source():
    # A smooth part with 9 % of the power at low frequencies, and less than 1 % at any lag.
    rng = np.random.default_rng(31)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(size=(1024, 1024)), 1.5, mode="wrap")
    image = rng.normal(size=smooth.shape) + 0.3 * smooth
    spectrum = measure(image / image.std())
    centre = len(spectrum.covariance) // 2
    departure = spectrum.covariance.copy()
    departure[centre, centre] -= 1.0
    assert np.abs(departure).max() < 0.01
    assert not spectrum.is_white


def test_underestimated_variance_is_scaled_and_not_filtered():
    spectrum = measure(1.2 * noise(5, 1024))
    assert not spectrum.is_white
    assert spectrum.variance_factor == pytest.approx(1.44, rel=0.1)
    np.testing.assert_allclose(spectrum.whitening(64), 1.0, atol=0.1)


def test_noise_that_differs_from_place_to_place_is_told_from_chance():
    rng = np.random.default_rng(21)
    centres = [(x, y) for y in (128, 384, 640, 896) for x in (128, 384, 640, 896)]
    white = rng.normal(size=(16, 256, 256))
    everywhere = np.ones(white.shape, dtype=bool)
    assert not measure_noise(white, np.ones(white.shape), everywhere, centres).departures.any()

    smooth = scipy.ndimage.gaussian_filter(white, (0, 0.5, 0.5))
    smooth /= smooth.std()
    right = np.array([x > 512 for x, _ in centres])
    noise = measure_noise(
        np.where(right[:, None, None], smooth, white), np.ones(white.shape), everywhere, centres
    )
    expected = np.mean(smooth[:, 1:] * smooth[:, :-1])
    assert noise.at(100.0, 500.0).correlation == pytest.approx(0.0, abs=0.05 * expected + 0.01)
    assert noise.at(950.0, 500.0).correlation == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_correlated_inputs_give_a_white_difference_and_unbiased_fluxes(method):
    scene = SceneConfig(star_density=25, n_transients=25, transient_snr=(60, 200), host_fraction=0.0)
    simulated = simulate_pair(ObservingConditions(), scene, 41, size=768)
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    # Noise as resampling leaves it, of the same variance per pixel, in place of white noise: add correlated noise of
    # three times the variance and say so.
    rng = np.random.default_rng(6)
    changed = {}
    for side in ("science", "template"):
        variance = getattr(pair, f"{side}_variance")
        extra = scipy.ndimage.convolve(rng.normal(size=pair.shape), KERNEL) / np.sqrt((KERNEL**2).sum())
        changed[side] = getattr(pair, side) + (extra * np.sqrt(3 * variance)).astype(np.float32)
        changed[f"{side}_variance"] = 4 * variance
    pair = replace(pair, **changed)
    subtractor, config = METHODS[method]
    result = subtractor(config()).subtract(pair)
    assert result.metadata["whitened"] == 1

    truth = simulated.truth
    positions = np.zeros(pair.shape, dtype=bool)
    positions[np.rint(truth["y"]).astype(int).clip(0, 767), np.rint(truth["x"]).astype(int).clip(0, 767)] = (
        True
    )
    sky = scipy.ndimage.distance_transform_edt(~positions) > 12
    sky &= ~(result.edge | result.spread | result.bad)
    assert mad_std(result.score[sky]) == pytest.approx(1.0, abs=0.03)
    pull = result.difference / np.sqrt(result.variance)
    assert mad_std(pull[sky]) == pytest.approx(1.0, abs=0.03)
    both = sky[:, 1:] & sky[:, :-1]
    assert abs(np.mean((pull[:, 1:] * pull[:, :-1])[both])) < 0.03

    rows = truth[np.asarray(truth["isTransient"])]
    x, y = np.rint(rows["x"]).astype(int), np.rint(rows["y"]).astype(int)
    clean = ~(result.edge | result.spread)[y, x]
    from lsst.diainspect.subtraction._star_fit import fit_stars

    _, _, fit = fit_stars(
        result.difference, result.variance, result.bad, result.psf,
        np.asarray(rows["x"]), np.asarray(rows["y"]), 12.0, iterations=1,
    )  # fmt: skip
    ratio = (fit.flux / np.asarray(rows["fluxChange"]))[clean]
    error = np.abs(fit.flux_error / np.asarray(rows["fluxChange"]))[clean]
    mean = np.average(ratio, weights=error**-2)
    assert mean == pytest.approx(1.0, abs=0.01 + 3 * np.sum(error**-2) ** -0.5)
