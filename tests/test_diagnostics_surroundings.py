"""Aperture photometry, rings and context against what was put in."""

from __future__ import annotations

import lsst.pex.config as pexConfig
import numpy as np
import pytest
from astropy.table import Table
from lsst.images import Box

from lsst.diainspect.diagnostics import (
    AperturePhotometryConfig,
    AperturePhotometryDiagnostic,
    ContextConfig,
    ContextDiagnostic,
    LocalNoiseConfig,
    LocalNoiseDiagnostic,
    PsfPhotometryConfig,
    PsfPhotometryDiagnostic,
    diagnostic_columns,
    diagnostic_registry,
)
from lsst.diainspect.stamps import DetectorContext, StampModel, StampSet
from synthetic_sources import (
    NOISE,
    PIXEL_SCALE,
    SIGMA,
    X0,
    Y0,
    assert_unit_pulls,
    flux_error,
    gaussian,
    stamps_of,
)

N = 400


def offsets(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2, n))


def three_images(seed: int, *, snr: float = 100.0) -> StampSet:
    """A source that grew by half of its flux."""
    dx, dy = offsets(seed)
    point = snr * flux_error() * gaussian(dx, dy)
    return stamps_of(point, dx, dy, seed, science=3.0 * point, template=2.0 * point)


def measure_apertures(stamps: StampSet) -> dict[str, np.ndarray]:
    return AperturePhotometryDiagnostic(AperturePhotometryConfig()).measure(stamps)


def measure_context(stamps: StampSet, **config: float) -> dict[str, np.ndarray]:
    instance = ContextConfig()
    for name, value in config.items():
        setattr(instance, name, value)
    return ContextDiagnostic(instance).measure(stamps)


def test_aperture_fluxes_are_those_of_a_gaussian_with_unit_pulls():
    values = measure_apertures(three_images(1))
    flux = 100.0 * flux_error()
    for start, factor in (("ap", 1.0), ("scienceAp", 3.0), ("templateAp", 2.0)):
        for radius in (6, 9, 12):
            enclosed = factor * flux * (1.0 - np.exp(-0.5 * (radius / SIGMA) ** 2))
            # The rim's pixels count in part: at 6 pixels, where a thousandth of the flux is left, that is exact.
            error = values[f"{start}FluxErr_{radius}"]
            assert_unit_pulls((values[f"{start}Flux_{radius}"] - enclosed) / error, bias=5.0)
            # The integral of a rim that falls linearly from 1 to 0 over a pixel, squared.
            area = np.pi * (radius - 0.5) ** 2 + 2.0 * np.pi * ((radius + 0.5) / 3.0 - 0.25)
            np.testing.assert_allclose((error / NOISE) ** 2, area, rtol=0.015)


def test_growth_is_one_for_point_sources_and_more_for_wider_ones():
    dx, dy = offsets(2)
    for sigma, expected in ((SIGMA, 1.0), (1.6 * SIGMA, None)):
        image = 300.0 * flux_error() * gaussian(dx, dy, sigma)
        values = measure_apertures(stamps_of(image, dx, dy, 3, science=image, template=image))
        if expected is not None:
            assert_unit_pulls((values["growth"] - expected) / values["growthErr"])
        else:
            enclosed = [1.0 - np.exp(-0.5 * (3.0 / width) ** 2) for width in (SIGMA, sigma)]
            np.testing.assert_allclose(np.median(values["growth"]), enclosed[0] / enclosed[1], rtol=0.03)


def test_apertures_say_how_much_of_the_flux_lies_on_bad_pixels():
    stamps = three_images(4)
    assert (measure_apertures(stamps[:])["apBadFraction"] == 0.0).all()
    stamps.planes["difference"][:, :, 26:] = np.nan
    values = measure_apertures(stamps[:])
    # The source lies on the central column, 25, or half a pixel from it.
    assert 0.2 < np.median(values["apBadFraction"]) < 0.5
    left = 100.0 * flux_error() * (1.0 - values["apBadFraction"])
    assert_unit_pulls((values["apFlux_12"] - left) / values["apFluxErr_12"], bias=5.0)


def test_aperture_radii_must_increase():
    config = AperturePhotometryConfig()
    config.radii = [6, 3]
    with pytest.raises(pexConfig.FieldValidationError, match="increase"):
        config.validate()


def test_negative_pixels_are_counted_in_the_core():
    dx, dy = offsets(5)
    flux = 300.0 * flux_error()
    cases = {
        "positive": (flux * gaussian(dx, dy), 0.0, 0.02),
        "negative": (-flux * gaussian(dx, dy), 0.98, 1.0),
        "dipole": (flux * (gaussian(dx + 1, dy) - gaussian(dx - 1, dy)), 0.4, 0.6),
        "noise": (np.zeros((N, 51, 51)), 0.48, 0.52),
    }
    for image, low, high in cases.values():
        stamps = stamps_of(image, dx, dy, 6, science=image, template=image)
        values = PsfPhotometryDiagnostic(PsfPhotometryConfig()).measure(stamps)
        assert low <= values["negativeFraction"].mean() <= high


def test_chi_square_per_degree_of_freedom_is_one_for_what_the_psf_describes():
    values = PsfPhotometryDiagnostic(PsfPhotometryConfig()).measure(three_images(7))
    for name in ("psfChi2PerDof", "scienceChi2PerDof", "templateChi2PerDof"):
        assert values[name].mean() == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / 440 / N))


def rings(amplitude: float, seed: int) -> StampSet:
    """A point source with rings of a period of 4 pixels about it."""
    dx, dy = offsets(seed)
    grid = np.arange(51) - 25
    radius = np.hypot(grid - dx[:, None, None], grid[:, None] - dy[:, None, None])
    ringing = amplitude * np.cos(2.0 * np.pi * radius / 4.0) * (radius > 4.0) * (radius < 14.0)
    return stamps_of(50.0 * flux_error() * gaussian(dx, dy) + ringing, dx, dy, seed)


def test_rings_are_found_and_their_absence_too():
    diagnostic = LocalNoiseDiagnostic(LocalNoiseConfig())
    quiet = diagnostic.measure(rings(0.0, 8))
    n_rings, n_pixels = 10, np.pi * (14.0**2 - 4.0**2)
    assert quiet["ringChi2"].mean() == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / n_rings / N) + 0.01)
    assert quiet["ringPower"].mean() == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / n_pixels / N) + 0.005)
    loud = diagnostic.measure(rings(0.5 * NOISE, 9))
    # Rings of half a sigma add an eighth to the power; on a sixth of the pixels that tell the noise they add to that.
    assert loud["ringPower"].mean() == pytest.approx(1.125 / (1.0 + 0.125 / 6.0), abs=0.03)
    assert np.mean(loud["ringChi2"] > 2.0) > 0.95
    assert np.mean(quiet["ringChi2"] > 2.0) < 0.05


def test_rings_need_an_annulus():
    config = LocalNoiseConfig()
    config.ringOuterRadius = 4.5
    with pytest.raises(pexConfig.FieldValidationError, match="ringOuterRadius"):
        config.validate()


def test_the_nearest_neighbour_is_found_at_its_distance_with_its_flux():
    dx, dy = offsets(10)
    rng = np.random.default_rng(11)
    angle, distance = rng.uniform(0.0, 2.0 * np.pi, N), rng.uniform(3.0, 17.0, N)
    flux = 100.0 * flux_error()
    place = dx + distance * np.cos(angle), dy + distance * np.sin(angle)
    other = dx + 19.0 * np.cos(angle + 3.0), dy + 19.0 * np.sin(angle + 3.0)
    template = flux * (gaussian(*place) + 5.0 * gaussian(*other))
    empty = np.zeros_like(template)
    values = measure_context(stamps_of(empty, dx, dy, 12, science=empty, template=template))
    assert np.isnan(values["scienceNeighbourDistance"]).mean() > 0.99
    # Peaks are found to half a pixel; a peak at the rim of the stamp is none.
    np.testing.assert_allclose(values["templateNeighbourDistancePixels"], distance, atol=1.0)
    np.testing.assert_allclose(
        values["templateNeighbourDistance"],
        values["templateNeighbourDistancePixels"] * PIXEL_SCALE,
        rtol=1e-6,
    )
    np.testing.assert_allclose(np.median(values["templateNeighbourFlux"]), flux, rtol=0.05)


def test_a_host_under_the_source_is_a_neighbour_at_no_distance():
    stamps = three_images(13)
    values = measure_context(stamps)
    assert (values["templateNeighbourDistancePixels"] < 1.0).all()
    np.testing.assert_allclose(np.median(values["differenceOverScience"]), 1.0 / 3.0, rtol=0.02)
    peak = np.median(stamps.planes["template"][:, 24:27, 24:27].mean(axis=(1, 2)))
    np.testing.assert_allclose(np.median(values["hostSurfaceBrightness"]), peak / PIXEL_SCALE**2, rtol=0.01)


def test_the_limiting_magnitude_is_that_of_the_psf_flux_error():
    values = measure_context(three_images(14))
    expected = 31.4 - 2.5 * np.log10(5.0 * flux_error())
    np.testing.assert_allclose(values["templateLimitingMagnitude"], expected, atol=0.005)


def test_distances_need_the_detector_and_are_nan_without():
    stamps = three_images(15)
    names = ("edgeDistance", "brightStarDistance", "brightStarFlux", "kernelSourceDistance")
    values = measure_context(stamps)
    assert all(np.isnan(values[name]).all() for name in names)
    x, y = (np.asarray(stamps.sources[name]) for name in ("x", "y"))
    table = Table(
        {
            "x": [X0 + 25.0, X0 + 30.0, np.nan],
            "y": [Y0 + 125.0, Y0 + 30.0, Y0 + 25.0],
            "scienceFlux": [1e6, 100.0, 1e7],
            "used": [False, True, False],
        }
    )
    context = DetectorContext(bounds=Box.factory[Y0 : Y0 + 500, X0 - 100 : X0 + 900], kernel_sources=table)
    values = measure_context(stamps.with_context(context))
    np.testing.assert_allclose(values["edgeDistance"], y - (Y0 - 0.5), rtol=1e-6)
    np.testing.assert_allclose(values["brightStarDistance"], np.hypot(x - X0 - 25.0, y - Y0 - 125.0))
    np.testing.assert_allclose(values["brightStarFlux"], 1e6)
    np.testing.assert_allclose(values["kernelSourceDistance"], np.hypot(x - X0 - 30.0, y - Y0 - 30.0))


def test_the_local_kernel_follows_from_the_filters():
    stamps = three_images(16)
    weights = np.stack([np.ones(N), np.linspace(-1.0, 1.0, N)], axis=-1)
    delta = gaussian([0.0], [0.0], 1.0, 31)
    # A kernel of sum 1.3 whose centroid moves by 0.3 pixels in x over the sources.
    moving = np.concatenate([gaussian([0.1], [-0.2], 1.2, 31), gaussian([0.4], [-0.2], 1.2, 31)])
    basis = 1.3 * np.stack([moving[0], moving[1] - moving[0]])
    models = dict(stamps.models) | {
        "scienceFilter": StampModel(np.ones((N, 1)), delta),
        "templateFilter": StampModel(weights, basis),
    }
    values = measure_context(StampSet(stamps.sources, stamps.planes, models))
    np.testing.assert_allclose(values["kernelSum"], 1.3, rtol=1e-4)
    np.testing.assert_allclose(values["kernelCentroidX"], 0.1 + 0.3 * weights[:, 1], atol=1e-3)
    np.testing.assert_allclose(values["kernelCentroidY"], -0.2, atol=1e-3)


@pytest.mark.parametrize("name", ["aperturePhotometry", "context", "dipole", "shape", "trail"])
def test_columns_are_declared_with_meaning_and_type(name):
    plugin = diagnostic_registry[name](diagnostic_registry[name].ConfigClass())
    assert plugin.needs
    for column, definition in diagnostic_columns({name: plugin}).items():
        assert definition.doc.endswith("."), column
        assert np.dtype(definition.dtype).kind in "fib", column


@pytest.mark.parametrize("name", ["aperturePhotometry", "context", "dipole", "shape", "trail", "localNoise"])
def test_a_source_without_a_position_is_measured_without_complaint(name):
    n = 1
    dx = np.full(n, np.nan)
    image = np.zeros((n, 51, 51))
    stamps = stamps_of(image, dx, dx, 17, science=image, template=image)
    plugin = diagnostic_registry[name](diagnostic_registry[name].ConfigClass())
    values = plugin.measure(stamps)
    assert set(plugin.columns) <= set(values)
    assert all(len(values[column]) == n for column in plugin.columns)
