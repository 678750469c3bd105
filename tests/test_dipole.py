"""Dipoles: both lobes recovered, degenerate where they must be, and never made of a point source."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.diainspect.diagnostics import DipoleConfig, DipoleDiagnostic
from synthetic_sources import PIXEL_SCALE, SIGMA, assert_unit_pulls, flux_error, gaussian, stamps_of

N = 300
FLUX = 6000.0
"""Mean flux of the lobes: S/N 50."""

FWHM = 2.3548 * SIGMA


def dipoles(separation: float, seed: int, *, flux_difference: float = 0.2, static: bool = False):
    """Dipoles in all directions, and the angle of each: east of north, negative to positive lobe."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0.0, 2.0 * np.pi, N)
    dx, dy = rng.uniform(-0.5, 0.5, (2, N))
    half_x, half_y = 0.5 * separation * np.cos(angle), 0.5 * separation * np.sin(angle)
    up = FLUX * (1.0 + 0.5 * flux_difference) * gaussian(dx + half_x, dy + half_y)
    down = FLUX * (1.0 - 0.5 * flux_difference) * gaussian(dx - half_x, dy - half_y)
    images = {"science": up, "template": down} if static else {}
    bearing = np.degrees(np.arctan2(-np.cos(angle), np.sin(angle))) % 360.0
    return stamps_of(up - down, dx, dy, seed, **images), bearing


def measure(stamps, **config):
    instance = DipoleConfig()
    for name, value in config.items():
        setattr(instance, name, value)
    return DipoleDiagnostic(instance).measure(stamps)


@pytest.mark.parametrize("separation", [3.0, 5.0, 8.0])
def test_resolved_lobes_are_recovered_with_unit_pulls(separation):
    stamps, bearing = dipoles(separation, 1)
    values = measure(stamps)
    assert values["isDipole"].all()
    assert not values["flag_notConverged"].any()
    truth = {"MeanFlux": FLUX, "FluxDiff": 0.2 * FLUX, "Length": separation * PIXEL_SCALE}
    for name, expected in truth.items():
        assert_unit_pulls((values[f"dipole{name}"] - expected) / values[f"dipole{name}Err"])
    assert_unit_pulls(((values["dipoleAngle"] - bearing + 180.0) % 360.0 - 180.0) / values["dipoleAngleErr"])
    degrees = values["dipoleNdata"] - 6
    assert np.mean(values["dipoleChi2"] / degrees) == pytest.approx(
        1.0, abs=4.0 * np.sqrt(2.0 / degrees.mean() / N)
    )


def test_lobes_closer_than_half_the_resolution_are_degenerate_but_their_moment_is_not():
    separation = 0.25 * FWHM
    stamps, bearing = dipoles(separation, 2)
    values = measure(stamps)
    attempted = values["dipoleFitAttempted"]
    assert attempted.all()
    assert values["flag_degenerate"].mean() > 0.95
    assert np.median(values["dipoleCorrelation"]) < -0.98
    # The projection of two Gaussian lobes on the derivative of one.
    moment = FLUX * separation * PIXEL_SCALE * np.exp(-((separation / SIGMA) ** 2) / 16.0)
    assert_unit_pulls((values["dipoleMoment"] - moment) / values["dipoleMomentErr"])
    offset = (values["dipoleMomentAngle"] - bearing + 180.0) % 360.0 - 180.0
    assert abs(offset.mean()) < 1.0


def test_the_static_source_breaks_the_degeneracy():
    separation = 0.5 * FWHM
    stamps, bearing = dipoles(separation, 3, flux_difference=0.1, static=True)
    values = measure(stamps)
    # The tolerance of 5 % on the flux dominates the error.
    length = separation * PIXEL_SCALE
    assert np.isfinite(values["jointLength"]).all()
    assert np.abs(np.median(values["jointLength"]) / length - 1.0) < 0.02
    assert np.std(values["jointLength"]) < 0.6 * np.std(values["dipoleLength"])
    assert ((values["jointLength"] - length) / values["jointLengthErr"]).std() < 1.1
    assert np.abs((values["jointAngle"] - bearing + 180.0) % 360.0 - 180.0).mean() < 5.0


@pytest.mark.parametrize("snr", [8, 50, 1000])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_point_source_off_its_centroid_is_no_dipole(snr, sign):
    rng = np.random.default_rng(4)
    dx, dy = rng.uniform(-0.5, 0.5, (2, N))
    image = sign * snr * flux_error() * gaussian(dx, dy)
    found_x, found_y = np.stack([dx, dy]) + 2.0 * SIGMA / snr * rng.normal(size=(2, N))
    values = measure(stamps_of(image, found_x, found_y, 5))
    assert not values["isDipole"].any()


def test_pure_noise_is_hardly_ever_fitted_and_its_moment_is_consistent_with_zero():
    dx, dy = np.random.default_rng(6).uniform(-0.5, 0.5, (2, 1000))
    values = measure(stamps_of(np.zeros((1000, 31, 31)), dx, dy, 7))
    # exp(-25 / 2) = 4e-6 of noise has a moment of chi-square 25.
    assert values["dipoleFitAttempted"].sum() == 0
    assert np.mean(values["dipoleMomentChi2"]) == pytest.approx(2.0, abs=4.0 * 2.0 / np.sqrt(1000))


def test_exchanging_the_images_turns_the_dipole_by_180_degrees():
    stamps, _ = dipoles(4.0, 8)
    values = measure(stamps[:])
    stamps.planes["difference"][:] *= -1.0
    turned = measure(stamps[:])
    np.testing.assert_allclose(turned["dipoleMeanFlux"], values["dipoleMeanFlux"], rtol=1e-3)
    np.testing.assert_allclose(turned["dipoleFluxDiff"], -values["dipoleFluxDiff"], atol=2.0)
    difference = (turned["dipoleAngle"] - values["dipoleAngle"]) % 360.0
    np.testing.assert_allclose(difference, 180.0, atol=0.1)


def test_bad_pixels_do_not_enter_and_stamps_without_variance_are_measured():
    stamps, _ = dipoles(4.0, 9)
    stamps.planes["difference"][:, 20:23, 24:26] = np.nan
    values = measure(stamps)
    assert values["isDipole"].mean() > 0.98
    pull = (values["dipoleMeanFlux"] - FLUX) / values["dipoleMeanFluxErr"]
    assert abs(np.median(pull)) < 0.3
    without = type(stamps)(stamps.sources, {"difference": stamps.planes["difference"]}, stamps.models)
    np.testing.assert_allclose(measure(without)["dipoleLength"], values["dipoleLength"], rtol=0.02)
