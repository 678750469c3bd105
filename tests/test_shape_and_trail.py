"""Moments and trails of analytic sources: recovered with errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.diainspect.diagnostics import ShapeConfig, ShapeDiagnostic, TrailConfig, TrailDiagnostic
from synthetic_sources import NOISE, PIXEL_SCALE, SIGMA, assert_unit_pulls, flux_error, gaussian, stamps_of

N = 400


def elliptical(dx, dy, ixx, iyy, ixy, size=51):
    """Elliptical Gaussians of unit flux."""
    grid = np.arange(size) - size // 2
    x, y = grid - dx[:, None, None], grid[:, None] - dy[:, None, None]
    determinant = ixx * iyy - ixy**2
    exponent = (iyy * x**2 - 2.0 * ixy * x * y + ixx * y**2) / determinant
    return np.exp(-0.5 * exponent) / (2.0 * np.pi * np.sqrt(determinant))


def offsets(seed, n=N):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2, n))


def measure_shape(stamps):
    return ShapeDiagnostic(ShapeConfig()).measure(stamps)


def measure_trail(stamps):
    return TrailDiagnostic(TrailConfig()).measure(stamps)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("snr", [40, 400])
def test_moments_of_point_sources_have_unit_pulls(snr, sign):
    dx, dy = offsets(1)
    values = measure_shape(stamps_of(sign * snr * flux_error() * gaussian(dx, dy), dx, dy, 2))
    for name, truth in (("ixx", SIGMA**2), ("iyy", SIGMA**2), ("ixy", 0.0)):
        # At S/N 40 the moments of noisy images are high by a few hundredths of their errors.
        assert_unit_pulls((values[name] - truth) / values[f"{name}Err"], bias=6.0)
    assert_unit_pulls((values["sizeRatio"] - 1.0) / values["sizeRatioErr"], bias=6.0)
    np.testing.assert_allclose(values["ixxPSF"], SIGMA**2, rtol=1e-3)
    assert np.mean(values["extendedness"] > 0.99) < 0.01


def test_moments_of_an_ellipse_are_recovered():
    dx, dy = offsets(3)
    ixx, iyy, ixy = 6.0, 4.0, 1.2
    values = measure_shape(stamps_of(2e6 * elliptical(dx, dy, ixx, iyy, ixy), dx, dy, 4))
    for name, truth in (("ixx", ixx), ("iyy", iyy), ("ixy", ixy)):
        np.testing.assert_allclose(values[name], truth, rtol=0.01)
    np.testing.assert_allclose(values["ellipticity"], np.hypot(ixx - iyy, 2 * ixy) / (ixx + iyy), rtol=0.02)
    np.testing.assert_allclose(values["centroidX"], 4000 + 25 + dx, atol=0.01)
    assert (values["extendedness"] > 0.99).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("snr", [6, 100])
def test_weighted_shapes_of_point_sources_are_those_of_noise(snr, sign):
    dx, dy = offsets(11)
    values = measure_shape(stamps_of(sign * snr * flux_error() * gaussian(dx, dy), dx, dy, 12))
    assert_unit_pulls(values["weightedSizeSnr"])
    # Chi-square of 2 degrees of freedom: mean 2, variance 4.
    assert np.mean(values["weightedShapeChi2"]) == pytest.approx(2.0, abs=3.0 * 2.0 / np.sqrt(N))
    # A ratio of two numbers of which one is noisy.
    assert np.median(values["weightedSizeRatio"]) == pytest.approx(1.0, abs=3.0 * 1.25 / snr / np.sqrt(N))


def test_weighted_shapes_measure_small_changes_of_moments():
    dx, dy = offsets(13)
    wide = measure_shape(stamps_of(1e6 * elliptical(dx, dy, *(SIGMA**2 * 1.04,) * 2, 0.0), dx, dy, 14))
    np.testing.assert_allclose(wide["weightedSizeRatio"], 1.02, atol=1e-3)
    assert (wide["weightedSizeSnr"] > 10.0).all()
    assert np.median(wide["weightedShapeChi2"]) < 5.0
    long = measure_shape(stamps_of(1e6 * elliptical(dx, dy, 1.1 * SIGMA**2, 0.9 * SIGMA**2, 0.3), dx, dy, 15))
    assert (long["weightedShapeChi2"] > 100.0).all()


def test_moments_of_noise_are_not_made_up():
    dx, dy = offsets(5)
    values = measure_shape(stamps_of(np.zeros((N, 51, 51)), dx, dy, 6))
    found = np.isfinite(values["ixx"])
    # What the iteration finds in noise has no significance.
    assert np.mean(values["ixx"][found] / values["ixxErr"][found] > 4.0) < 0.02


def test_bad_pixels_do_not_change_moments_of_a_point_source():
    dx, dy = offsets(7)
    stamps = stamps_of(200 * flux_error() * gaussian(dx, dy), dx, dy, 8)
    stamps.planes["difference"][:, 25:27, 26:28] = np.nan
    values = measure_shape(stamps)
    np.testing.assert_allclose(np.median(values["ixx"]), SIGMA**2, rtol=0.01)


def trails(length: float, snr: float, seed: int, sign: float = 1.0):
    """Trails of a point source's S/N, and their bearings; the detection is off by its error."""
    rng = np.random.default_rng(seed)
    n = 120
    angle = rng.uniform(0.0, np.pi, n)
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    flux = sign * snr * flux_error() * np.sqrt(1.0 + length / 4.0 / SIGMA)
    image = np.mean(
        [
            gaussian(dx + place * length * np.cos(angle), dy + place * length * np.sin(angle))
            for place in np.linspace(-0.5, 0.5, 61)
        ],
        axis=0,
    )
    found = np.stack([dx, dy]) + SIGMA / snr * rng.normal(size=(2, n))
    bearing = np.degrees(np.arctan2(-np.cos(angle), np.sin(angle))) % 180.0
    return stamps_of(flux * image, *found, seed), flux, bearing, (dx, dy)


@pytest.mark.parametrize(("length", "sign"), [(6.0, 1.0), (16.0, -1.0)])
def test_trails_are_recovered_with_unit_pulls(length, sign):
    stamps, flux, bearing, (dx, _) = trails(length, 30.0, 10, sign)
    values = measure_trail(stamps)
    assert values["isTrail"].all()
    assert not values["trail_flag_edge"].any()
    assert not values["flag_notConverged"].any()
    # The sum of 61 points that stand for the line is 1 / 60 longer than it.
    longer = length * np.sqrt(61.0 * 62.0 / (60.0 * 60.0) * 60.0 / 61.0)
    assert_unit_pulls((values["trailFlux"] - flux) / values["trailFluxErr"], bias=5.0)
    assert_unit_pulls((values["trailLength"] - longer * PIXEL_SCALE) / values["trailLengthErr"], bias=5.0)
    turned = (values["trailAngle"] - bearing + 90.0) % 180.0 - 90.0
    assert_unit_pulls(turned / values["trailAngleErr"])
    degrees = values["trailNdata"] - 5
    assert np.mean(values["trailChi2"] / degrees) == pytest.approx(1.0, abs=0.02)
    # End points lie half the length from the midpoint, and the midpoint where it was put.
    span = np.hypot(values["trailX1"] - values["trailX0"], values["trailY1"] - values["trailY0"])
    np.testing.assert_allclose(span * PIXEL_SCALE, values["trailLength"], rtol=1e-5)
    np.testing.assert_allclose(0.5 * (values["trailX0"] + values["trailX1"]), 4000 + 25 + dx, atol=0.6)
    east = (values["trailRa"] - 10.0) * np.cos(np.radians(-30.0)) * 3600.0 / -PIXEL_SCALE
    np.testing.assert_allclose(
        east, 0.5 * (values["trailX0"] + values["trailX1"]) - np.asarray(stamps.sources["x"]), atol=1e-3
    )


def test_a_trail_longer_than_the_stamp_is_flagged():
    stamps, *_ = trails(60.0, 60.0, 11)
    values = measure_trail(stamps)
    attempted = values["trailFitAttempted"]
    assert attempted.mean() > 0.5
    assert values["trail_flag_edge"][attempted].mean() > 0.9


@pytest.mark.parametrize("snr", [8, 100, 1000])
def test_a_point_source_is_no_trail(snr):
    dx, dy = offsets(12)
    values = measure_trail(stamps_of(snr * flux_error() * gaussian(dx, dy), dx, dy, 13))
    # exp(-20 / 2) = 5e-5 of noise is elongated with chi-square 20.
    assert values["trailFitAttempted"].sum() <= 1
    assert not values["isTrail"].any()


def test_a_dipole_is_no_trail():
    dx, dy = offsets(14)
    lobes = gaussian(dx + 2.0, dy) - gaussian(dx - 2.0, dy)
    values = measure_trail(stamps_of(60 * flux_error() * lobes, dx, dy, 15))
    assert not values["isTrail"].any()


def test_elongation_of_noise_has_two_degrees_of_freedom():
    dx, dy = offsets(16, 1500)
    values = measure_trail(stamps_of(np.zeros((1500, 21, 21)), dx, dy, 17, noise=NOISE))
    assert np.mean(values["elongationChi2"]) == pytest.approx(2.0, abs=4.0 * 2.0 / np.sqrt(1500))
