"""Maps of a detector agree with what was done to it, and their scatter with that of single stars."""

from __future__ import annotations

import functools

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.table import Table
from astropy.time import Time
from lsst.images import Box

from lsst.diainspect.maps import (
    QUANTITIES,
    DetectorMaps,
    SmoothMap,
    fit_smooth_map,
    kernel_maps,
    parallactic_angle,
    static_stars,
)
from lsst.diainspect.psf import PixelBasis, PolynomialField
from lsst.diainspect.simulation import (
    AstrometricJitter,
    ObservingConditions,
    SceneConfig,
    SimulatedPair,
    simulate_pair,
)
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    ZogyConfig,
    ZogySubtractor,
    filters_to_table,
    make_difference_image,
    result_filters,
)
from lsst.diainspect.tasks import MeasureDetectorMapsConfig, MeasureDetectorMapsTask

BOUNDS = Box.factory[100:1100, 0:2000]
PIXEL_SCALE = 0.2
"""Of DiaSim [arcsec / pixel]."""

METHODS = {"al": AlSubtractor(AlConfig()), "zogy": ZogySubtractor(ZogyConfig())}
STATIC_SKY = SceneConfig(star_density=25, galaxy_density=3, n_transients=0, n_variables=0)


@functools.cache
def simulate(**conditions: object) -> SimulatedPair:
    return simulate_pair(ObservingConditions(**conditions), STATIC_SKY, 11)


def places(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(0, 1999, n), rng.uniform(100, 1099, n)


def map_detector(simulated: SimulatedPair, method: str):
    """Subtract, and map the detector; returns maps, stars and the metadata of the subtraction."""
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    result = METHODS[method].subtract(pair)
    difference = make_difference_image(result, pair, simulated.science, simulated.template)
    task = MeasureDetectorMapsTask(config=MeasureDetectorMapsConfig())
    made = task.run(
        simulated.science,
        simulated.template,
        difference,
        filters_to_table(result_filters(result, pair)),
        result.kernel_sources,
        kernel=difference.kernel if method == "al" else None,
    )
    return DetectorMaps.from_table(made.maps), made.stars, result.metadata


def test_map_and_scatter_are_recovered_with_unit_pulls():
    rng = np.random.default_rng(1)
    value_pulls, scatter_pulls = [], []
    for _ in range(60):
        x, y = places(rng, 150)
        field = PolynomialField(BOUNDS, 1)
        true = np.array([0.1, -0.05, 0.03])
        error = rng.uniform(0.005, 0.05, len(x))
        value = field.evaluate(x, y) @ true + rng.normal(size=len(x)) * np.hypot(error, 0.02)
        value[:5] += 1.0
        fitted = fit_smooth_map(x, y, value, error, BOUNDS)
        assert fitted is not None
        at_x, at_y = np.array([300.0]), np.array([900.0])
        expected = field.evaluate(at_x, at_y) @ true
        value_pulls.append(float(((fitted.evaluate(at_x, at_y) - expected) / fitted.error(at_x, at_y))[0]))
        scatter_pulls.append((fitted.rms - 0.02) / fitted.rms_error)
        assert fitted.n_rejected >= 5
    # 60 maps: standard deviations to 9 %.
    assert np.std(value_pulls) == pytest.approx(1.0, abs=0.3)
    assert abs(np.mean(value_pulls)) < 0.4
    assert np.std(scatter_pulls) == pytest.approx(1.0, abs=0.35)
    assert abs(np.mean(scatter_pulls)) < 0.5


@pytest.mark.parametrize("part", [0.1, 0.5], ids=["a tenth", "half"])
def test_stars_that_change_are_not_the_rule(part):
    rng = np.random.default_rng(8)
    scatter, pulls = [], []
    for _ in range(30):
        x, y = places(rng, 60)
        error = rng.uniform(0.008, 0.012, len(x))
        odd = np.arange(60) < part * 60
        value = 0.01 + rng.normal(size=60) * np.hypot(error, 0.003)
        # Changes of S/N 5 to 10, in units of these errors.
        value[odd] += rng.choice([-1.0, 1.0], odd.sum()) * rng.uniform(0.05, 0.1, odd.sum())
        fitted = fit_smooth_map(x, y, value, error, BOUNDS, max_scatter=0.007)
        assert fitted is not None
        scatter.append(float(fitted.scatter(x[:1], y[:1])[0]))
        pulls.append(float((fitted.evaluate(x[:1], y[:1])[0] - 0.01) / fitted.error(x[:1], y[:1])[0]))
    # The stars that do not change have 0.003, which 60 of them do not show.
    assert np.median(scatter) < 0.007
    assert max(scatter) < 0.01
    assert np.std(pulls) == pytest.approx(1.0, abs=0.4)


def test_stars_that_all_scatter_are_not_odd():
    rng = np.random.default_rng(9)
    scatter = []
    for _ in range(30):
        x, y = places(rng, 60)
        error = np.full(len(x), 0.005)
        fitted = fit_smooth_map(x, y, rng.normal(size=60) * np.hypot(error, 0.03), error, BOUNDS)
        assert fitted is not None
        scatter.append(fitted.rms)
    # Sixty stars tell their scatter to 9 %.
    assert np.median(scatter) == pytest.approx(0.03, rel=0.1)
    assert np.mean(np.array(scatter) > 0.02) >= 0.9


def test_order_is_as_low_as_the_stars_allow():
    rng = np.random.default_rng(2)
    constant, sloped = [], []
    for _ in range(20):
        x, y = places(rng, 80)
        error = np.full(len(x), 0.01)
        noise = rng.normal(size=len(x)) * error
        slope = 0.05 * PolynomialField(BOUNDS, 1).evaluate(x, y)[:, 1]
        constant.append(fit_smooth_map(x, y, noise, error, BOUNDS).field.order)
        sloped.append(fit_smooth_map(x, y, noise + slope, error, BOUNDS).field.order)
    assert np.mean(np.array(constant) == 0) >= 0.9
    assert min(sloped) >= 1
    assert np.mean(np.array(sloped) == 1) >= 0.85


def test_without_stars_enough_there_is_no_map():
    few = np.arange(3.0)
    assert fit_smooth_map(few, few, few, few + 1.0, BOUNDS) is None
    assert fit_smooth_map(few, few, np.full(3, np.nan), few, BOUNDS) is None


def test_table_and_back():
    rng = np.random.default_rng(3)
    x, y = places(rng, 200)
    value = 0.1 * PolynomialField(BOUNDS, 2).evaluate(x, y).sum(axis=1) + rng.normal(0, 0.01, len(x))
    fitted = fit_smooth_map(x, y, value, np.full(len(x), 0.01), BOUNDS)
    maps = DetectorMaps({"shiftX": fitted, "width": SmoothMap.constant(0.02, BOUNDS)})
    again = DetectorMaps.from_table(maps.to_table())
    assert list(again) == ["shiftX", "width"]
    np.testing.assert_allclose(again["shiftX"].evaluate(x, y), fitted.evaluate(x, y))
    np.testing.assert_allclose(again["shiftX"].error(x, y), fitted.error(x, y))
    assert again["shiftX"].rms == fitted.rms
    assert "e1" not in again
    assert len(DetectorMaps({}).to_table()) == 0


def test_kernel_moments_are_those_of_a_gaussian():
    grid = np.arange(31) - 15

    def kernel(x: float, y: float) -> np.ndarray:
        sigma2_x, sigma2_y = 4.0 + 0.5 * x / 2000, 3.0
        u, v = grid[None, :] - 0.1, grid[:, None] + 0.2
        image = np.exp(-0.5 * (u**2 / sigma2_x + v**2 / sigma2_y))
        return 1.1 * image / image.sum()

    maps = kernel_maps(PixelBasis.from_callable(kernel, BOUNDS, order=2))
    at = np.array([500.0]), np.array([600.0])
    expected = {
        "kernelSum": 1.1,
        "kernelX": 0.1,
        "kernelY": -0.2,
        "kernelXX": 4.125,
        "kernelYY": 3.0,
        "kernelXY": 0.0,
    }
    for name, value in expected.items():
        # The window leaves out a Gaussian's wings, with 3 % of its second moment.
        assert maps[name].evaluate(*at)[0] == pytest.approx(value, abs=0.02, rel=0.03)
    assert set(maps) <= set(QUANTITIES)


def test_parallactic_angle_is_the_direction_of_the_zenith():
    class Observation:
        location = EarthLocation.from_geodetic(-70.75 * u.deg, -30.24 * u.deg, 2663 * u.m)
        datetime_begin = Time("2026-01-01T04:00:00", scale="tai")
        datetime_end = Time("2026-01-01T04:00:30", scale="tai")

    frame = AltAz(obstime=Time("2026-01-01T04:00:15", scale="tai"), location=Observation.location)
    for altitude, azimuth in ((50.0, 30.0), (60.0, 250.0), (35.0, 120.0)):
        position = SkyCoord(
            AltAz(alt=altitude * u.deg, az=azimuth * u.deg, obstime=frame.obstime, location=frame.location)
        ).icrs
        above = SkyCoord(
            AltAz(
                alt=(altitude + 0.1) * u.deg,
                az=azimuth * u.deg,
                obstime=frame.obstime,
                location=frame.location,
            )
        ).icrs
        expected = position.position_angle(above).deg
        difference = parallactic_angle(Observation(), position) - expected
        # Precession and aberration since the equinox of the catalogue: a fraction of a degree.
        assert abs((difference + 180.0) % 360.0 - 180.0) < 0.5
    assert np.isnan(parallactic_angle(None, position))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seeing", [(0.9, 0.7), (0.7, 0.9)], ids=["blunter", "sharper"])
def test_misregistration_of_a_detector_is_measured_to_a_milliarcsecond(method, seeing):
    # 30 mas towards (+x, -y).
    shift = np.array([24.0, -18.0]) / 1000.0 / PIXEL_SCALE
    simulated = simulate(
        science_seeing=seeing[0], template_seeing=seeing[1], shift_x=shift[0], shift_y=shift[1]
    )
    maps, stars, _ = map_detector(simulated, method)
    assert len(stars) > 40
    centre = np.array([511.5]), np.array([511.5])
    for axis, expected in zip("XY", shift, strict=True):
        measured = maps[f"shift{axis}"]
        deviation = 1000.0 * PIXEL_SCALE * (measured.evaluate(*centre)[0] - expected)
        assert abs(deviation) < 1.0
        assert 1000.0 * PIXEL_SCALE * measured.error(*centre)[0] < 1.0
        # The match took it.
        assert abs(maps[f"residualShift{axis}"].evaluate(*centre)[0]) < 0.2 * np.abs(shift).max()


@pytest.mark.parametrize("method", METHODS)
def test_scatter_of_single_stars_is_their_jitter_and_that_of_the_match(method):
    jitter = 10.0 / 1000.0 / PIXEL_SCALE
    simulated = simulate(
        science_seeing=0.9,
        template_seeing=0.7,
        astrometric_jitter=AstrometricJitter(smooth=0.0, correlated=0.0, per_source=10.0),
    )
    maps, stars, metadata = map_detector(simulated, method)
    for axis in "XY":
        one = maps[f"residualShift{axis}"]
        assert abs(one.rms - jitter) < 3.5 * one.rms_error
        assert one.rms_error < 0.2 * jitter
    # Two measurements of the same scatter, each to 10 %.
    mean = np.mean([maps[f"residualShift{axis}"].rms for axis in "XY"])
    assert metadata["astrometricRms"] == pytest.approx(mean, rel=0.3)
    # Nothing was done to widths, flux scale and noise.
    centre = np.array([511.5]), np.array([511.5])
    for name, expected, allowed in (("width", 0.0, 0.002), ("fluxScale", 0.0, 0.003), ("noise", 1.0, 0.02)):
        assert maps[name].evaluate(*centre)[0] == pytest.approx(expected, abs=allowed)
    assert np.isfinite(stars["residualModes_shiftX"]).mean() > 0.9


def test_stars_are_those_in_use_and_those_too_many():
    candidates = Table(
        {
            "x": np.arange(4.0),
            "y": np.arange(4.0),
            "isStar": [True, True, True, False],
            "used": [True, False, False, True],
            "rejected": ["", "enough others nearby", "masked pixels", ""],
        }
    )
    stars = static_stars(candidates)
    assert list(stars["diaSourceId"]) == [0, 1]
    assert list(stars["used"]) == [True, False]
