"""Sky sources are blank, reproducible and never counted as detections; streaks are flagged or vetoed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from astropy.table import vstack

from detection_field import X_FIRST, Y_FIRST, Field, grid_field
from lsst.diainspect.comparison import MetricInput, join_sources, measure_metrics, metric_registry
from lsst.diainspect.detection import DetectionSettings, without_sky_sources
from lsst.diainspect.tasks import DetectDiaSourcesTask, SubtractImagesTask


def detect_with_sky(field: Field, n: int, seed: int = 1, **settings: object):
    return field.detect(np.random.default_rng(seed), n_sky_sources=n, **settings)


def test_detections_do_not_depend_on_sky_sources():
    field = grid_field(20.0)
    sources = detect_with_sky(field, 30)
    assert sources["sky_source"].sum() == 30
    assert not sources["sky_source"][:-30].any()
    alone, kept = field.detect(), without_sky_sources(sources)
    assert len(kept) == len(alone) == 144
    for name in alone.colnames:
        np.testing.assert_array_equal(kept[name], alone[name])


def test_sky_sources_are_blank_and_apart():
    field = grid_field(20.0)
    field.mask("SATURATED", slice(100, 300), slice(0, 512))
    sources = detect_with_sky(field, 100)
    sky = sources[sources["sky_source"]]
    assert len(sky) == 100
    distance = np.hypot(sky["x"][:, None] - field.x, sky["y"][:, None] - field.y)
    rows = np.asarray(sky["y"]) - Y_FIRST
    assert ((rows < 97) | (rows > 302)).all()
    unmasked = np.abs(field.y - Y_FIRST - 200) > 105
    assert distance[:, unmasked].min() > 3.0 * 4.7
    apart = np.hypot(*(np.subtract.outer(np.asarray(sky[name]), np.asarray(sky[name])) for name in "xy"))
    assert apart[~np.eye(100, dtype=bool)].min() > 3.0 * 4.7


def test_sky_sources_are_spread_over_the_image():
    sky = detect_with_sky(Field([], [], [], shape=(1024, 1024)), 200)
    for name, first in (("x", X_FIRST), ("y", Y_FIRST)):
        # The PSF's core has to be on the image.
        position = (np.asarray(sky[name]) - first - 4.0) / 1016.0
        assert scipy.stats.kstest(position, "uniform").pvalue > 1e-3
        assert scipy.stats.kstest(np.asarray(sky[name]) % 1.0, "uniform").pvalue > 1e-3


def test_sky_fluxes_have_pulls_of_unit_width():
    sky = detect_with_sky(Field([], [], [], shape=(1024, 1024), seed=5), 400)
    assert sky["sky_source"].all()
    pull = sky["psfFlux"] / sky["psfFluxErr"]
    assert abs(pull.mean()) < 4.0 / np.sqrt(400)
    assert abs(pull.std() - 1.0) < 4.0 / np.sqrt(800)
    assert sky["snr"].max() < 5.0
    # Half a pixel from the centre of the filter.
    np.testing.assert_allclose(sky["snr"], np.abs(pull), atol=1.0)
    assert not sky["centroid_flag"].any()
    assert np.isnan(sky["xErr"]).all()
    assert (sky["nPeaks"] == 0).all()
    assert not sky["isDipoleCandidate"].any()


def test_the_same_seed_gives_the_same_places_and_another_gives_others():
    field = grid_field(20.0)
    first, again, other = (detect_with_sky(field, 10, seed)[-10:] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["x"], again["x"])
    assert not np.isin(other["x"], first["x"]).any()


def test_where_nothing_is_blank_there_are_no_sky_sources():
    field = grid_field(20.0)
    field.mask("NO_DATA", slice(None), slice(None))
    assert len(detect_with_sky(field, 10)) == 0


def test_sky_sources_without_a_generator_are_refused():
    with pytest.raises(ValueError, match="3 sky sources need a random generator"):
        Field([], [], []).detect(n_sky_sources=3)


def test_sky_sources_are_neither_joined_nor_counted():
    field = grid_field(20.0)
    sources = detect_with_sky(field, 25)
    sources["diaSourceId"][:] = np.arange(1, len(sources) + 1)
    joined = join_sources({"al": sources, "zogy": sources}, {}, 3.0)
    assert len(joined) == 144
    assert joined["al_found"].all()
    assert not joined["al_sky_source"].any()
    plugins = {
        name: metric_registry[name](metric_registry[name].ConfigClass())
        for name in ("numberPositive", "numberNegative")
    }
    sky = np.ones(field.shape, dtype=bool)
    table = measure_metrics(MetricInput(field.difference, field.variance, field.score, sky, sources), plugins)
    assert table["value"].tolist() == [96.0, 48.0]


def test_tables_without_the_column_have_only_detections():
    sources = grid_field(20.0).detect()
    sources.remove_column("sky_source")
    assert without_sky_sources(sources) is sources


@pytest.fixture(scope="module")
def subtracted(small_pair):
    return SubtractImagesTask(config=SubtractImagesTask.ConfigClass()).run(
        small_pair.science, small_pair.template
    )


def run_task(subtracted, *, packed: int = 5, score: object = None, **fields: object):
    config = DetectDiaSourcesTask.ConfigClass()
    for name, value in fields.items():
        setattr(config, name, value)
    task = DetectDiaSourcesTask(config=config)
    given = subtracted.score if score is None else score
    return task, task.run(subtracted.difference, given, packedDataId=packed).diaSources


def test_task_seeds_the_places_by_the_identifier_and_does_not_count_them(subtracted):
    task, sources = run_task(subtracted, nSkySources=8)
    _, again = run_task(subtracted, nSkySources=8)
    _, other = run_task(subtracted, nSkySources=8, packed=6)
    detected = without_sky_sources(sources)
    n_sky = len(sources) - len(detected)
    assert n_sky > 0
    np.testing.assert_array_equal(sources["x"], again["x"])
    assert not np.isin(other["x"][other["sky_source"]], sources["x"]).any()
    assert task.metadata["nPositive"] + task.metadata["nNegative"] == len(detected)
    assert task.metadata["nSkySources"] == n_sky
    assert len(np.unique(sources["diaSourceId"])) == len(sources)
    assert 0.0 < task.metadata["nExpectedFromNoise"] < 0.1


def test_task_detects_on_the_difference_without_a_score(subtracted):
    config = DetectDiaSourcesTask.ConfigClass()
    config.detectOn = "difference"
    connections = config.ConnectionsClass(config=config)
    assert set(connections.inputs) == {"difference"}
    on_difference = DetectDiaSourcesTask(config=config).run(subtracted.difference).diaSources
    _, on_score = run_task(subtracted)
    strong = on_score[on_score["snr"] > 8.0]
    assert len(strong) > 3
    distance = np.hypot(strong["x"][:, None] - on_difference["x"], strong["y"][:, None] - on_difference["y"])
    assert distance.min(axis=1).max() < 1.5


def test_task_without_a_score_says_which_configuration_wants_one(subtracted):
    task = DetectDiaSourcesTask(config=DetectDiaSourcesTask.ConfigClass())
    with pytest.raises(ValueError, match="detectOn"):
        task.run(subtracted.difference)


def test_sources_on_streaks_are_flagged_or_vetoed():
    field = Field([X_FIRST + 100.0, X_FIRST + 400.0], [Y_FIRST + 100.0] * 2, [50.0, 40.0], noise=0.0)
    field.mask("STREAK", slice(99, 102), slice(0, 300))
    flagged = field.detect()
    np.testing.assert_array_equal(flagged["pixelFlags_streak"], [True, False])
    np.testing.assert_array_equal(flagged["pixelFlags_streakCenter"], [True, False])
    vetoed = field.detect(exclude_planes=(*DetectionSettings().exclude_planes, "STREAK"))
    assert len(vetoed) >= 1
    on_streak = (np.abs(vetoed["y"] - Y_FIRST - 100.0) < 1.5) & (vetoed["x"] < X_FIRST + 300)
    assert not on_streak.any()
    assert np.abs(vetoed["x"] - X_FIRST - 400.0).min() < 0.01


def test_tables_with_and_without_sky_sources_stack():
    sources = detect_with_sky(grid_field(20.0), 5)
    assert len(vstack([sources, grid_field(20.0).detect()])) == 293
