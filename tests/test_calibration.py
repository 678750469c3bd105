"""Calibration without truth agrees with truth on simulations."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from lsst.images import Box

from lsst.diainspect.calibration import (
    draw_positions,
    pull_sigma,
    star_floor,
    symmetry_purity,
)
from lsst.diainspect.detection import without_sky_sources
from lsst.diainspect.diagnostics import (
    PsfPhotometryConfig,
    PsfPhotometryDiagnostic,
    measure_diagnostics,
)
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, simulate_pair
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    filters_to_table,
    make_difference_image,
    make_score_image,
    result_filters,
)
from lsst.diainspect.tasks import (
    CalibrateDifferenceConfig,
    CalibrateDifferenceTask,
    DetectDiaSourcesConfig,
    DetectDiaSourcesTask,
    MeasureDetectorMapsConfig,
    MeasureDetectorMapsTask,
)
from lsst.diainspect.tasks._forced_stamps import cut_forced_stamps


def test_sigma_of_pulls_is_right_within_its_error():
    rng = np.random.default_rng(1)
    deviations = []
    for _ in range(200):
        error = rng.uniform(1.0, 5.0, 150)
        pulls = pull_sigma(1.3 * rng.normal(size=150) * error, error)
        deviations.append((pulls.sigma - 1.3) / pulls.sigma_error)
    assert np.std(deviations) == pytest.approx(1.0, abs=0.2)
    assert abs(np.mean(deviations)) < 0.3
    assert np.isnan(pull_sigma(np.zeros(2), np.ones(2)).sigma)


def test_floor_of_stars_is_found():
    rng = np.random.default_rng(2)
    flux = np.exp(rng.uniform(np.log(20.0), np.log(2000.0), 300))
    residual = rng.normal(size=300) + flux * (0.002 + 0.005 * rng.normal(size=300))
    floor = star_floor(residual, np.ones(300), flux)
    assert abs(floor.floor - 0.005) < 3.5 * floor.floor_error
    assert abs(floor.mean - 0.002) < 3.5 * floor.mean_error


def test_symmetry_gives_the_purity_of_a_known_mixture():
    rng = np.random.default_rng(3)
    deviations = []
    for _ in range(200):
        noise = rng.poisson(40), rng.poisson(40)
        real = rng.poisson(60)
        snr = np.concatenate([np.full(noise[0] + real, 6.0), np.full(noise[1], -6.0)])
        estimate = symmetry_purity(snr, 5.0)
        deviations.append((estimate.purity - 0.6) / estimate.error)
    assert np.std(deviations) == pytest.approx(1.0, abs=0.2)
    assert abs(np.mean(deviations)) < 0.3
    assert np.isnan(symmetry_purity(np.array([-6.0]), 5.0).purity)


def test_positions_lie_on_the_pixels_drawn_from():
    where = np.zeros((40, 60), dtype=bool)
    where[10:12, 20:25] = True
    x, y = draw_positions(where, Box.factory[100:140, 200:260], 50, np.random.default_rng(4))
    assert len(x) == 10
    assert where[np.rint(y).astype(int) - 100, np.rint(x).astype(int) - 200].all()


@pytest.fixture(scope="module")
def calibrated():
    """A difference with transients and artefacts: truth, detections and calibration."""
    # Faint stars of the crowded field and a low threshold make false detections enough to count.
    conditions = ObservingConditions(science_seeing=0.9, template_seeing=0.75)
    scene = SceneConfig(
        star_density=25,
        galaxy_density=10,
        n_transients=150,
        transient_snr=(5.0, 30.0),
        host_fraction=0.0,
        fading_fraction=0.0,
        n_variables=0,
    )
    simulated = simulate_pair(conditions, scene, 21)
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    result = AlSubtractor(AlConfig()).subtract(pair)
    difference = make_difference_image(result, pair, simulated.science, simulated.template)
    filters = filters_to_table(result_filters(result, pair))
    images = simulated.science, simulated.template, difference, filters
    config = DetectDiaSourcesConfig()
    config.threshold = 4.0
    sources = (
        DetectDiaSourcesTask(config=config)
        .run(difference=difference, score=make_score_image(result, pair, difference))
        .diaSources
    )
    stars = (
        MeasureDetectorMapsTask(config=MeasureDetectorMapsConfig()).run(*images, result.kernel_sources).stars
    )
    calibration_config = CalibrateDifferenceConfig()
    calibration_config.snrThresholds = [4.0, 5.0]
    task = CalibrateDifferenceTask(config=calibration_config)
    calibration = task.run(*images, sources, stars, seed=(1, 2)).calibration
    again = task.run(*images, sources, stars, seed=(1, 2)).calibration
    return simulated, images, sources, calibration, again


def value_of(calibration: Table, statistic: str, low: float = np.nan) -> tuple[float, float]:
    row = calibration[
        (calibration["statistic"] == statistic)
        & ((calibration["low"] == low) | (np.isnan(low) & np.isnan(calibration["low"])))
    ]
    assert len(row) == 1
    return float(row["value"][0]), float(row["error"][0])


def test_pulls_of_blank_sky_are_those_of_injected_sources(calibrated):
    simulated, images, _, calibration, _ = calibrated
    truth = simulated.truth[np.asarray(simulated.truth["isTransient"], dtype=bool)]
    places = Table({"diaSourceId": np.arange(len(truth)), "x": truth["x"], "y": truth["y"]})
    stamps = cut_forced_stamps(places, *images, 27)
    table = measure_diagnostics(stamps, {"psf": PsfPhotometryDiagnostic(PsfPhotometryConfig())})
    good = ~np.asarray(truth["isSaturated"], dtype=bool) & (np.asarray(truth["scienceSnr"]) < 50)
    pulls = pull_sigma(
        np.asarray(table["psf_psfFlux"] - truth["fluxChange"])[good],
        np.asarray(table["psf_psfFluxErr"])[good],
    )
    assert pulls.n > 100
    sigma, error = value_of(calibration, "blankSkyPullSigma")
    assert abs(sigma - pulls.sigma) < 3.5 * np.hypot(error, pulls.sigma_error)
    assert abs(sigma - 1.0) < 3.5 * error + 0.02
    mean, mean_error = value_of(calibration, "blankSkyPullMean")
    assert abs(mean) < 3.5 * mean_error


def test_purity_from_symmetry_is_the_true_one(calibrated):
    simulated, _, sources, calibration, _ = calibrated
    detected = without_sky_sources(sources)
    truth = simulated.truth[np.asarray(simulated.truth["isTransient"], dtype=bool)]
    snr = np.abs(np.asarray(detected["snr"], dtype=float))
    distance = np.hypot(
        np.asarray(detected["x"])[:, None] - np.asarray(truth["x"]),
        np.asarray(detected["y"])[:, None] - np.asarray(truth["y"]),
    ).min(axis=1)
    for threshold in (4.0, 5.0):
        positive = (snr >= threshold) & ~np.asarray(detected["isNegative"], dtype=bool)
        true = float((distance[positive] < 3.0).mean())
        purity, error = value_of(calibration, "symmetryPurity", threshold)
        n = positive.sum()
        assert n > 50
        # True purity and estimate share the positive counts; the binomial error of the first is added in full.
        allowed = 3.5 * np.hypot(max(error, 1.0 / n), np.sqrt(max(true * (1 - true), 1.0 / n) / n))
        assert abs(purity - true) < allowed


def test_larger_apertures_have_the_noise_that_was_predicted(calibrated):
    _, _, _, calibration, _ = calibrated
    for radius in (3, 6, 9):
        sigma, error = value_of(calibration, f"aperture{radius}PullSigma")
        assert abs(sigma - 1.0) < 3.5 * error + 0.03


def test_stars_have_a_small_floor_and_a_good_fit(calibrated):
    _, _, _, calibration, _ = calibrated
    floor, error = value_of(calibration, "starErrorFloor")
    assert floor < 0.003 + 3.5 * error
    chi2, chi2_error = value_of(calibration, "usedStarsChi2")
    assert abs(chi2 - 1.0) < 0.1 + 3.5 * chi2_error


def test_places_are_the_same_in_every_run(calibrated):
    _, _, _, calibration, again = calibrated
    np.testing.assert_array_equal(calibration["value"], again["value"])
