"""Simulated images agree with the truth that comes with them."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table
from lsst.daf.butler import Butler, DatasetRef
from lsst.images import Box, DifferenceImage, VisitImage

from lsst.diainspect.psf import PixelBasisPsf, second_moments
from lsst.diainspect.simulation import (
    BrokenDetector,
    ObservingConditions,
    PsfField,
    SceneConfig,
    SimulatedPair,
    SurveyConfig,
    VisitPlan,
    default_survey,
    ideal_difference_sigma,
    read_survey,
    simulate_pair,
    write_survey,
)

_SMALL = 256


@pytest.fixture(scope="module")
def pair() -> SimulatedPair:
    return simulate_pair(seed=5, size=512)


@pytest.fixture(scope="module")
def isolated_stars() -> SimulatedPair:
    """Isolated constant stars and nothing else, with the science image displaced."""
    scene = SceneConfig(
        star_density=0.0,
        galaxy_density=0.0,
        n_transients=0,
        n_perturbed=200,
        shift_amplitude=0.1,
        perturbed_snr=(50.0, 1000.0),
    )
    conditions = ObservingConditions(shift_x=0.3, shift_y=-0.2, flux_scale=1.1)
    return simulate_pair(conditions, scene, seed=6)


def _forced_fluxes(
    image: VisitImage, psf: PixelBasisPsf, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """PSF fluxes at given positions with unweighted fits, and their errors from the variance plane."""
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    models = psf.evaluate(x, y, dx=x - column, dy=y - row)
    half = psf.size // 2
    fluxes, errors = [], []
    for model, j, i in zip(models, column, row, strict=True):
        # Stars are at least 32 pixels, half a stamp, from the edge.
        window = (slice(i - half, i + half + 1), slice(j - half, j + half + 1))
        pixels, variance = image.image.array[window].astype(float), image.variance.array[window].astype(float)
        norm = (model**2).sum()
        fluxes.append((model * pixels).sum() / norm)
        errors.append(np.sqrt((model**2 * variance).sum()) / norm)
    return np.array(fluxes), np.array(errors)


def test_same_seed_gives_same_pixels() -> None:
    first, second = (simulate_pair(seed=9, size=_SMALL) for _ in range(2))
    for name in ("science", "template"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.image.array.tobytes() == b.image.array.tobytes()
        assert a.variance.array.tobytes() == b.variance.array.tobytes()
        assert a.mask.array.tobytes() == b.mask.array.tobytes()
    assert first.science_psf.basis.tobytes() == second.science_psf.basis.tobytes()
    for column in first.truth.colnames:
        assert first.truth[column].tobytes() == second.truth[column].tobytes()


@pytest.mark.parametrize("changes", [{"seed": 10}, {"visit": 2}, {"detector": 1}])
def test_seed_visit_and_detector_each_have_their_own_noise(changes: dict[str, int]) -> None:
    blank = SceneConfig(blank=True)
    first = simulate_pair(scene=blank, size=64, **{"seed": 9, **changes}).science.image.array  # type: ignore[arg-type]
    second = simulate_pair(scene=blank, size=64, seed=9).science.image.array
    # The error of a correlation coefficient of n pixels is 1 / sqrt(n).
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / 64


def test_two_visits_see_the_same_stars_and_galaxies_and_other_transients() -> None:
    first, second = (simulate_pair(seed=9, size=_SMALL, visit=visit).truth for visit in (1, 2))
    stays = [table[~table["isTransient"]] for table in (first, second)]
    assert np.array_equal(stays[0]["objectId"], stays[1]["objectId"])
    assert np.array_equal(stays[0]["templateFlux"], stays[1]["templateFlux"])
    assert np.array_equal(stays[0]["ra"], stays[1]["ra"])
    changes = [set(table["objectId"][table["isTransient"]]) for table in (first, second)]
    assert changes[0].isdisjoint(changes[1])


def test_identifiers_are_unique_over_visits_and_detectors() -> None:
    ids = np.concatenate(
        [simulate_pair(seed=9, size=64, detector=detector).truth["objectId"] for detector in range(2)]
    )
    assert len(np.unique(ids)) == len(ids)


def test_images_carry_units_frames_and_their_data_id(pair: SimulatedPair) -> None:
    assert isinstance(pair.science, VisitImage)
    assert isinstance(pair.template, DifferenceImage)
    for image in (pair.science, pair.template):
        assert (image.image.unit, image.variance.unit) == (u.nJy, u.nJy**2)
        assert image.sky_projection.pixel_frame.detector == image.detector.id == 0
        assert (image.obs_info.visit_id, image.physical_filter, image.band) == (1, "r", "r")


def test_origin_moves_the_frame_and_not_the_pixels() -> None:
    here, there = (simulate_pair(seed=3, size=128, origin=origin) for origin in ((0, 0), (1000, -50)))
    assert there.science.bbox == Box.factory[-50:78, 1000:1128]
    assert np.allclose(here.truth["x"] + 1000, there.truth["x"])
    assert np.allclose(here.truth["ra"], there.truth["ra"])
    assert np.array_equal(here.science.variance.array > 0, there.science.variance.array > 0)


def test_noise_of_a_blank_sky_agrees_with_the_variance() -> None:
    conditions = ObservingConditions(flux_scale=1.3)
    blank = simulate_pair(conditions, SceneConfig(blank=True), seed=8)
    assert len(blank.truth) == 0
    for image, expected in (
        (blank.science, conditions.science_sky_variance),
        (blank.template, conditions.template_sky_variance),
    ):
        pixels = image.image.array.astype(float)
        n = pixels.size
        assert np.allclose(image.variance.array, expected, rtol=1e-6)
        assert abs(pixels.mean()) < 5 * np.sqrt(expected / n)
        assert abs(pixels.var() / expected - 1) < 5 * np.sqrt(2 / n)
        neighbours = np.corrcoef(pixels[:, 1:].ravel(), pixels[:, :-1].ravel())[0, 1]
        assert abs(neighbours) < 5 / np.sqrt(n)


def test_variance_includes_the_light_of_the_sources(pair: SimulatedPair) -> None:
    conditions = pair.conditions
    light = pair.science.variance.array - conditions.science_sky_variance
    bright = pair.truth[np.argmax(pair.truth["scienceFlux"] * (pair.truth["kind"] == "star"))]
    row, column = round(bright["y"]), round(bright["x"])
    peak = pair.science_psf.evaluate([bright["x"]], [bright["y"]]).max() * bright["scienceFlux"]
    assert light[row, column] == pytest.approx(peak * conditions.njy_per_electron, rel=0.2)


@pytest.mark.parametrize(
    ("side", "scale"),
    [("science", 1.1), ("template", 1.0)],
)
def test_star_fluxes_are_recovered_at_true_positions(
    isolated_stars: SimulatedPair, side: str, scale: float
) -> None:
    truth = isolated_stars.truth
    columns = ("x", "y") if side == "science" else ("templateX", "templateY")
    x, y = (np.asarray(truth[column]) for column in columns)
    image, psf = getattr(isolated_stars, side), getattr(isolated_stars, f"{side}_psf")
    flux, error = _forced_fluxes(image, psf, x, y)
    pull = (flux - scale * np.asarray(truth[f"{side}Flux"])) / error
    n = len(pull)
    assert n == 200
    assert abs(pull.mean()) < 4 / np.sqrt(n)
    assert abs(pull.std() - 1) < 4 / np.sqrt(2 * n)


def test_science_snr_is_flux_over_error_in_blank_sky(isolated_stars: SimulatedPair) -> None:
    truth = isolated_stars.truth
    model = isolated_stars.science_psf.evaluate(truth["templateX"], truth["templateY"])
    sigma = np.sqrt(isolated_stars.conditions.science_sky_variance / (model**2).sum(axis=(1, 2))) / 1.1
    assert np.allclose(truth["scienceSnr"], truth["scienceFlux"] / sigma, rtol=1e-9)


def test_shifted_stars_are_displaced_by_the_amplitude(isolated_stars: SimulatedPair) -> None:
    truth = isolated_stars.truth
    assert set(truth["perturbation"]) == {"shift"}
    assert np.allclose(np.hypot(truth["shiftX"], truth["shiftY"]), 0.1)
    assert np.allclose(truth["x"] - truth["templateX"], truth["shiftX"] + 0.3)
    assert np.allclose(truth["y"] - truth["templateY"], truth["shiftY"] - 0.2)


def test_perturbed_stars_are_alone() -> None:
    scene = SceneConfig(n_perturbed=20, isolation=32.0, n_transients=100)
    truth = simulate_pair(scene=scene, seed=6, size=512).truth
    chosen = truth[truth["perturbation"] != "none"]
    assert len(chosen) == 20
    for star in chosen:
        distance = np.hypot(truth["templateX"] - star["templateX"], truth["templateY"] - star["templateY"])
        assert (distance[truth["objectId"] != star["objectId"]] >= 32.0).all()


def test_too_many_perturbed_stars_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit in 256 x 256 pixels"):
        simulate_pair(scene=SceneConfig(n_perturbed=100), size=_SMALL)


def test_width_change_scales_the_whole_image_of_the_star() -> None:
    field = _field(fwhm=4.0)
    narrow, wide = field.star_image(100, 100), field.star_image(100, 100, width_change=0.02)
    ixx, iyy, _ = second_moments(np.stack([narrow, wide]))
    # Adaptive moments scale with the square of a dilation.
    assert np.sqrt(ixx[1] / ixx[0]) == pytest.approx(1.02, abs=2e-4)
    assert np.sqrt(iyy[1] / iyy[0]) == pytest.approx(1.02, abs=2e-4)


def test_width_perturbation_is_recorded() -> None:
    scene = SceneConfig(
        n_perturbed=9, perturbation="width", width_change=-0.03, star_density=0, n_transients=0
    )
    truth = simulate_pair(scene=scene, seed=2, size=_SMALL).truth
    chosen = truth[truth["perturbation"] == "width"]
    assert len(chosen) == 9
    assert np.all(chosen["widthChange"] == -0.03)
    assert np.all(chosen["shiftX"] == 0)


def test_position_jitter_has_the_given_width() -> None:
    scene = SceneConfig(galaxy_density=300, n_transients=0)
    truth = simulate_pair(ObservingConditions(position_jitter=0.05), scene, seed=2, size=_SMALL).truth
    n = 2 * len(truth)
    shifts = np.concatenate([truth["shiftX"], truth["shiftY"]])
    assert abs(np.std(shifts) / 0.05 - 1) < 4 / np.sqrt(2 * n)


def _field(
    fwhm: float, fwhm_variation: float = 0.03, ellipticity_variation: float = 0.01, seed: int = 4
) -> PsfField:
    return PsfField.random(
        np.random.default_rng(seed),
        Box.from_shape((1024, 1024)),
        fwhm=fwhm,
        ellipticity=0.02,
        ellipticity_variation=ellipticity_variation,
        fwhm_variation=fwhm_variation,
        size=63,
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("fwhm", [3.0, 4.0, 5.5])
def test_sampled_psf_agrees_with_the_profile(seed: int, fwhm: float) -> None:
    field = _field(fwhm, seed=seed)
    psf = field.sampled()
    x, y = np.random.default_rng(seed).uniform(0, 1023, (2, 20))
    x[:4], y[:4] = [0, 0, 1023, 1023], [0, 1023, 0, 1023]
    exact = np.stack([field.star_image(*position) for position in zip(x, y, strict=True)])
    error = np.abs(psf.evaluate(x, y) - exact).max() / exact.max()
    assert error < 1e-4
    assert psf.sampling_error < 1e-4


def test_psf_varies_over_the_field_by_its_amplitude() -> None:
    psf = _field(4.0, fwhm_variation=0.05).sampled()
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1023, 7), np.linspace(0, 1023, 7)))
    ixx, iyy, _ = second_moments(psf.evaluate(x, y))
    width = np.sqrt(ixx + iyy)
    spread = width.max() / width.min() - 1
    assert 0.01 < spread < 0.11


def test_stamp_size_follows_the_wider_psf_within_limits() -> None:
    assert ObservingConditions(science_seeing=0.4, template_seeing=0.4).stamp_size(0.2) == 41
    assert ObservingConditions(science_seeing=0.7, template_seeing=0.8).stamp_size(0.2) == 53
    assert ObservingConditions(science_seeing=2.0).stamp_size(0.2) == 63
    assert ObservingConditions(psf_size=25).stamp_size(0.2) == 25


def test_ideal_sigma_of_equal_psfs_is_that_of_the_sum_of_the_variances() -> None:
    psf = _field(4.0).star_image(10, 10)[None]
    sigma = ideal_difference_sigma(psf, psf, 3.0, 2.0)
    assert sigma[0] == pytest.approx(np.sqrt(5.0 / (psf**2).sum()), rel=1e-6)


def test_ideal_sigma_without_template_noise_is_that_of_the_science_image() -> None:
    science, template = _field(4.0).star_image(10, 10)[None], _field(3.0).star_image(10, 10)[None]
    sigma = ideal_difference_sigma(science, template, 3.0, 0.0)
    assert sigma[0] == pytest.approx(np.sqrt(3.0 / (science**2).sum()), rel=1e-4)


def test_transients_have_the_snr_asked_for(pair: SimulatedPair) -> None:
    truth = pair.truth[pair.truth["isTransient"]]
    assert len(truth) == 30
    assert np.all((truth["idealSnr"] >= 5) & (truth["idealSnr"] <= 100))
    sigma = ideal_difference_sigma(
        pair.science_psf.evaluate(truth["templateX"], truth["templateY"]),
        pair.template_psf.evaluate(truth["templateX"], truth["templateY"]),
        pair.conditions.science_sky_variance,
        pair.conditions.template_sky_variance,
    )
    assert np.allclose(np.abs(truth["fluxChange"]) / sigma, truth["idealSnr"], rtol=1e-9)
    assert {bool(fades) for fades in truth["scienceFlux"] == 0} == {True, False}


def test_hosts_are_galaxies_near_their_transients(pair: SimulatedPair) -> None:
    truth = pair.truth
    hosted = truth[truth["hostId"] >= 0]
    assert len(hosted) > 5
    for transient in hosted:
        (host,) = truth[truth["objectId"] == transient["hostId"]]
        assert host["kind"] == "galaxy"
        distance = np.hypot(
            host["templateX"] - transient["templateX"], host["templateY"] - transient["templateY"]
        )
        assert distance <= host["halfLightRadius"]


def test_variable_stars_change_by_the_given_fraction(pair: SimulatedPair) -> None:
    truth = pair.truth[pair.truth["isVariable"]]
    change = np.abs(truth["fluxChange"] / truth["templateFlux"])
    assert len(truth) > 0
    assert np.all((change > 0.05) & (change < 0.5))
    assert np.all(truth["idealSnr"] > 0)


def test_sky_positions_are_those_of_the_template(pair: SimulatedPair) -> None:
    truth = pair.truth
    sky = pair.science.sky_projection.pixel_to_sky(x=truth["templateX"], y=truth["templateY"])
    assert np.allclose(sky.ra.deg, truth["ra"], rtol=0, atol=1e-10)


def test_saturated_stars_are_clipped_and_flagged() -> None:
    scene = SceneConfig(
        star_magnitudes=(12.0, 13.0), star_density=20.0, galaxy_density=0, n_transients=0, n_variables=0
    )
    conditions = ObservingConditions()
    pair = simulate_pair(conditions, scene, seed=1, size=_SMALL)
    ceiling = (conditions.saturation - conditions.sky_level) * conditions.njy_per_electron
    for image in (pair.science, pair.template):
        saturated = image.mask.get("SATURATED")
        at_ceiling = image.image.array >= np.float32(ceiling)
        assert at_ceiling.any()
        assert image.image.array.max() <= np.float32(ceiling)
        assert saturated[at_ceiling].all()
        assert saturated.sum() > at_ceiling.sum()
    assert pair.truth["isSaturated"].all()


def test_galaxy_light_is_recovered() -> None:
    scene = SceneConfig(
        star_density=0, galaxy_density=400.0, galaxy_magnitudes=(17.0, 19.0), n_transients=0, n_variables=0
    )
    pair = simulate_pair(ObservingConditions(sky_level=1.0, read_noise=1.0), scene, seed=3, size=384)
    truth = pair.truth
    margin = 100
    box = slice(margin, -margin)
    # Light that leaves the inner box is balanced by what enters it, within the scatter of a few galaxies.
    inside = (np.abs(truth["x"] - 191.5) < 191.5 - margin) & (np.abs(truth["y"] - 191.5) < 191.5 - margin)
    total = pair.template.image.array[box, box].sum(dtype=float)
    assert total == pytest.approx(truth["templateFlux"][inside].sum(), rel=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObservingConditions(science_seeing=0.0), "science_seeing must be positive, got 0.0"),
        (lambda: ObservingConditions(sky_level=-1.0), "sky_level must not be negative"),
        (lambda: ObservingConditions(sky_level=0.0, read_noise=0.0), "no noise"),
        (lambda: ObservingConditions(psf_size=50), "psf_size must be odd"),
        (lambda: ObservingConditions(ellipticity=1.0), "too large"),
        (lambda: SceneConfig(perturbation="bend"), "perturbation must be one of"),  # type: ignore[arg-type]
        (lambda: SceneConfig(transient_snr=(10.0, 5.0)), "transient_snr must be a positive range"),
        (lambda: SceneConfig(star_magnitudes=(25.0, 16.0)), "star_magnitudes must be"),
        (lambda: SceneConfig(host_fraction=1.5), "host_fraction must be between 0 and 1"),
        (lambda: SurveyConfig(visits=()), "at least one visit"),
        (lambda: SurveyConfig(visits=(VisitPlan(1), VisitPlan(1))), "must differ"),
        (
            lambda: SurveyConfig(visits=(VisitPlan(1),), detectors=(7,)),
            r"has detectors \[0, 1, 2, 3\], got 7",
        ),
        (lambda: SurveyConfig(visits=(VisitPlan(1),), broken=(BrokenDetector(3),)), "not in the survey"),
        (lambda: BrokenDetector(0, "burnt"), "how must be one of"),  # type: ignore[arg-type]
        (lambda: simulate_pair(size=10), "at least 64 pixels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.fixture(scope="module")
def survey() -> SurveyConfig:
    config = default_survey(size=128, seed=12)
    return SurveyConfig(
        visits=config.visits,
        size=config.size,
        seed=config.seed,
        broken=(BrokenDetector(1, "template_no_data", visit=2), BrokenDetector(0, "nan_block", visit=2)),
    )


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, survey: SurveyConfig) -> tuple[str, list[DatasetRef]]:
    root = str(tmp_path_factory.mktemp("survey") / "repo")
    return root, write_survey(root, survey)


def test_survey_is_found_by_queries(repo: tuple[str, list[DatasetRef]]) -> None:
    root, refs = repo
    assert len(refs) == 16
    with Butler.from_config(root, collections="DiaSim/input") as butler:
        for name in ("visit_image", "template_detector", "dia_truth", "dia_truth_artefact"):
            found = butler.query_datasets(
                name, where="instrument = 'DiaSim' AND visit.day_obs > 20260102 AND visit.exposure_time > 10"
            )
            assert {(ref.dataId["visit"], ref.dataId["detector"]) for ref in found} == {(2, 0), (2, 1)}


def test_survey_comes_back_as_it_was_made(repo: tuple[str, list[DatasetRef]], survey: SurveyConfig) -> None:
    expected = simulate_pair(
        survey.visits[0].conditions, survey.scene, survey.seed, size=survey.size, visit=1, detector=1
    )
    with Butler.from_config(repo[0], collections="DiaSim/input", instrument="DiaSim") as butler:
        data_id = {"visit": 1, "detector": 1}
        science = butler.get("visit_image", data_id)
        template = butler.get("template_detector", data_id)
        truth = butler.get("dia_truth", data_id)
    assert isinstance(template, DifferenceImage)
    for got, made in ((science, expected.science), (template, expected.template)):
        assert np.array_equal(got.image.array, made.image.array)
        assert np.array_equal(got.variance.array, made.variance.array)
        assert np.array_equal(got.mask.array, made.mask.array)
        assert got.detector == made.detector
        assert got.obs_info == made.obs_info
    psf = PixelBasisPsf.from_point_spread_function(science.psf, science.bbox)
    assert np.allclose(psf.evaluate([20.0], [90.0]), expected.science_psf.evaluate([20.0], [90.0]), atol=1e-7)
    assert isinstance(truth, Table)
    for column in truth.colnames:
        assert truth[column].unit == expected.truth[column].unit
        assert truth[column].description == expected.truth[column].description
        assert np.array_equal(
            truth[column], expected.truth[column], equal_nan=truth[column].dtype.kind == "f"
        )


def test_default_survey_has_both_orders_of_seeing() -> None:
    blunter = {
        plan.conditions.science_seeing > plan.conditions.template_seeing for plan in default_survey().visits
    }
    assert blunter == {True, False}


def test_broken_detectors_are_spoilt_and_others_are_not(repo: tuple[str, list[DatasetRef]]) -> None:
    with Butler.from_config(repo[0], collections="DiaSim/input", instrument="DiaSim") as butler:
        template = butler.get("template_detector", visit=2, detector=1)
        science = butler.get("visit_image", visit=2, detector=0)
        healthy = butler.get("template_detector", visit=1, detector=1)
    assert np.isnan(template.image.array).all()
    assert template.mask.get("NO_DATA").all()
    assert np.isnan(science.image.array).mean() == 0.25
    assert np.isfinite(healthy.image.array).all()


def test_missing_template_is_not_written(tmp_path: Path) -> None:
    config = SurveyConfig(
        visits=(VisitPlan(1),), detectors=(0,), size=64, broken=(BrokenDetector(0, "no_template"),)
    )
    refs = write_survey(tmp_path / "repo", config)
    assert {ref.datasetType.name for ref in refs} == {"visit_image", "dia_truth", "dia_truth_artefact"}


def test_writing_over_a_survey_is_refused(repo: tuple[str, list[DatasetRef]], survey: SurveyConfig) -> None:
    with pytest.raises(ValueError, match="already has visit_image for visit 1, detector 0"):
        write_survey(repo[0], survey)


def test_blank_truth_keeps_its_columns_in_a_repository(tmp_path: Path) -> None:
    config = SurveyConfig(visits=(VisitPlan(1),), detectors=(0,), size=64, scene=SceneConfig(blank=True))
    refs = write_survey(tmp_path / "repo", config)
    with Butler.from_config(str(tmp_path / "repo")) as butler:
        truth = butler.get(next(ref for ref in refs if ref.datasetType.name == "dia_truth"))
    assert len(truth) == 0
    assert "idealSnr" in truth.colnames


def test_survey_file_sets_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text(
        """
        seed: 7
        size: 256
        detectors: [0, 3]
        conditions: {sky_level: 900.0}
        visits:
          - {visit: 4, science_seeing: 1.2}
          - {visit: 9, science_seeing: 0.7, sky_level: 100.0}
        scene: {n_transients: 3, transient_snr: [8.0, 20.0]}
        broken:
          - {detector: 3, visit: 9, how: no_template}
        """
    )
    config = read_survey(path)
    assert (config.seed, config.size, config.detectors) == (7, 256, (0, 3))
    assert [plan.visit for plan in config.visits] == [4, 9]
    assert [plan.conditions.sky_level for plan in config.visits] == [900.0, 100.0]
    assert config.scene.transient_snr == (8.0, 20.0)
    assert config.broken == (BrokenDetector(3, "no_template", 9),)


def test_empty_survey_file_is_the_default_survey(tmp_path: Path) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text("")
    assert read_survey(path) == default_survey()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: 1", r"unknown fields \['sead'\] in the file"),
        ("scene: {n_starz: 1}", r"unknown fields \['n_starz'\] in scene"),
        ("visits: [{seeing: 1.0}]", "no visit number"),
        ("visits: 3", "visits must be a list"),
        ("scene: [1]", "scene must hold names with values"),
        ("conditions: {sky_level: many}", "survey.yaml"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_survey_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_survey(path)


def test_missing_survey_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml does not exist"):
        read_survey(tmp_path / "nothing.yaml")


def test_hosts_may_be_chosen_by_surface_brightness_where_nothing_has_one():
    scene = SceneConfig(n_transients=5, host_fraction=0.0, host_selection="surface_brightness")
    truth = simulate_pair(ObservingConditions(), scene, 3, size=256).truth
    assert np.isnan(truth["hostSurfaceBrightness"][np.asarray(truth["isTransient"])]).all()
