"""Metrics of a difference image against noise of known statistics, and the sky they are measured in."""

from __future__ import annotations

import logging

import astropy.units as u
import numpy as np
import pytest
import scipy.ndimage
from astropy.table import Table
from lsst.images import Box, Image, Mask, MaskedImage

from lsst.diainspect.comparison import (
    DifferenceMetric,
    MetricConfig,
    MetricInput,
    find_sky,
    measure_metrics,
    metric_registry,
)
from lsst.diainspect.masks import PLANES_BAD_FOR_SUBTRACTION, make_mask_schema

SIZE = 200
METRICS = (
    "skyPixels",
    "skySigmaOverPredicted",
    "scoreSigma",
    "neighbourCorrelationX",
    "neighbourCorrelationY",
    "numberPositive",
    "numberNegative",
)


def plugins(*names: str) -> dict[str, DifferenceMetric]:
    return {name: metric_registry[name](metric_registry[name].ConfigClass()) for name in names or METRICS}


def sources_of(n_positive: int, n_negative: int) -> Table:
    return Table({"isNegative": np.arange(n_positive + n_negative) >= n_positive})


def noise_input(
    seed: int, *, size: int = SIZE, scale: float = 1.0, sky: np.ndarray | None = None
) -> MetricInput:
    """White noise ``scale`` times what a variance that changes over the image says, and a smooth score."""
    rng = np.random.default_rng(seed)
    variance = np.linspace(1.0, 9.0, size)[:, None] * np.ones(size)
    score = scipy.ndimage.gaussian_filter(rng.normal(size=(size, size)), 2.0, mode="wrap")
    return MetricInput(
        scale * rng.normal(size=(size, size)) * np.sqrt(variance),
        variance,
        score * np.sqrt(4.0 * np.pi) * 2.0,
        np.ones((size, size), dtype=bool) if sky is None else sky,
        sources_of(3, 2),
    )


def values_of(table: Table) -> dict[str, tuple[float, float]]:
    return {row["metric"]: (row["value"], row["error"]) for row in table}


def correlated(rng: np.random.Generator, a: float, b: float, size: int = 400) -> np.ndarray:
    """Moving averages of unit variance: neighbours correlate by a / (1 + a^2) in x, b / (1 + b^2) in y."""
    white = rng.normal(size=(size + 1, size + 1))
    noise = white[:, 1:] + a * white[:, :-1]
    noise = noise[1:] + b * noise[:-1]
    return noise / np.sqrt((1.0 + a**2) * (1.0 + b**2))


def test_errors_of_metrics_are_their_scatter():
    n = 120
    runs = [values_of(measure_metrics(noise_input(seed), plugins())) for seed in range(n)]
    expected = {
        "skySigmaOverPredicted": 1.0,
        "scoreSigma": 1.0,
        "neighbourCorrelationX": 0.0,
        "neighbourCorrelationY": 0.0,
    }
    for name, truth in expected.items():
        value, error = np.array([run[name] for run in runs]).T
        assert abs((value - truth).mean()) < 4.0 * error.mean() / np.sqrt(n), name
        # The error of the score's sigma comes from two neighbours' correlation: good to a tenth.
        tolerance = 4.0 / np.sqrt(2.0 * n) + (0.1 if name == "scoreSigma" else 0.0)
        assert ((value - truth) / error).std() == pytest.approx(1.0, abs=tolerance), name


def test_white_scores_have_the_error_of_white_noise():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(SIZE, SIZE))
    data = noise_input(1)
    data = MetricInput(data.difference, data.variance, score, data.sky, data.sources)
    value, error = values_of(measure_metrics(data, plugins("scoreSigma")))["scoreSigma"]
    assert error == pytest.approx(1.166 / SIZE, rel=0.02)
    assert abs(value - 1.0) < 4.0 * error


def test_noise_larger_than_predicted_is_measured():
    value, error = values_of(measure_metrics(noise_input(2, scale=1.3), plugins()))["skySigmaOverPredicted"]
    assert abs(value - 1.3) < 4.0 * error
    assert error == pytest.approx(1.166 * 1.3 / SIZE, rel=0.02)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.0), (0.0, 0.3), (-0.4, 0.8)])
def test_correlation_of_neighbours_is_measured_in_its_direction(a, b):
    data = noise_input(3, size=400)
    pull = correlated(np.random.default_rng(4), a, b) + 0.7
    data = MetricInput(pull * np.sqrt(data.variance), data.variance, data.score, data.sky, data.sources)
    values = values_of(measure_metrics(data, plugins("neighbourCorrelationX", "neighbourCorrelationY")))
    for name, truth in (("X", a / (1.0 + a**2)), ("Y", b / (1.0 + b**2))):
        value, error = values[f"neighbourCorrelation{name}"]
        # The error is that of white noise; correlated pixels count for less, up to a factor of 2 here.
        assert abs(value - truth) < 4.0 * 2.0 * error


def test_only_sky_pixels_enter():
    sky = np.ones((SIZE, SIZE), dtype=bool)
    sky[50:80, 20:160] = False
    clean = noise_input(5, sky=sky)
    spoiled = noise_input(5, sky=sky)
    for array, value in ((spoiled.difference, 1e6), (spoiled.variance, -1.0), (spoiled.score, np.nan)):
        array[~sky] = value
    np.testing.assert_array_equal(
        measure_metrics(spoiled, plugins())["value"], measure_metrics(clean, plugins())["value"]
    )
    assert values_of(measure_metrics(clean, plugins("skyPixels")))["skyPixels"] == (sky.sum(), 0.0)


def test_pixels_that_are_not_finite_are_left_out():
    data = noise_input(6)
    data.difference[10, 10:20] = np.nan
    data.variance[20, 10:20] = 0.0
    data.score[30, 10:20] = np.nan
    table = measure_metrics(data, plugins())
    assert np.isfinite(table["value"]).all()
    assert values_of(table)["skySigmaOverPredicted"][0] == pytest.approx(1.0, abs=4.0 * 1.166 / SIZE)


def test_bright_pixels_do_not_correlate_the_sky():
    data = noise_input(7)
    data.difference[100:104, 100:104] = 1e5
    value, error = values_of(measure_metrics(data, plugins()))["neighbourCorrelationX"]
    assert abs(value) < 4.0 * error


def test_sources_are_counted_by_sign():
    values = values_of(measure_metrics(noise_input(8), plugins("numberPositive", "numberNegative")))
    assert values == {"numberPositive": (3.0, np.sqrt(3.0)), "numberNegative": (2.0, np.sqrt(2.0))}


@pytest.mark.parametrize("n_sky", [0, 1])
def test_without_sky_there_is_nothing_to_measure(n_sky):
    sky = np.zeros((SIZE, SIZE), dtype=bool)
    sky.flat[:n_sky] = True
    values = values_of(measure_metrics(noise_input(9, sky=sky), plugins()))
    for name in METRICS[1:5]:
        assert np.isnan(values[name]).all()
    assert values["skyPixels"] == (n_sky, 0.0)


def test_a_metric_that_fails_is_nan_and_the_others_are_measured(caplog):
    class Failing(DifferenceMetric):
        doc = "Fails."

        def measure(self, data: MetricInput) -> tuple[float, float]:
            raise ArithmeticError("no such number")

    chosen = {"failing": Failing(MetricConfig()), **plugins("skyPixels")}
    with caplog.at_level(logging.WARNING):
        table = measure_metrics(noise_input(10), chosen)
    assert np.isnan(table["value"][0])
    assert np.isnan(table["error"][0])
    assert table["value"][1] == SIZE**2
    assert "failing" in caplog.text
    assert "no such number" in caplog.text


def test_metrics_say_what_they_are():
    table = measure_metrics(noise_input(11), plugins())
    assert list(table["metric"]) == list(METRICS)
    for row, plugin in zip(table, plugins().values(), strict=True):
        assert row["description"] == plugin.doc
        assert u.Unit(row["unit"]) == u.Unit(plugin.unit)
    assert len(measure_metrics(noise_input(11), {})) == 0
    assert measure_metrics(noise_input(11), {}).colnames == table.colnames


BOX = Box.factory[70 : 70 + 300, -20 : -20 + 320]
SHAPE = (300, 320)


def masked_image(seed: int, variance: float = 4.0) -> MaskedImage:
    rng = np.random.default_rng(seed)
    pixels = (rng.normal(size=SHAPE) * np.sqrt(variance)).astype(np.float32)
    return MaskedImage(
        Image(pixels, bbox=BOX, unit=u.nJy),
        mask=Mask(0, schema=make_mask_schema(), bbox=BOX),
        variance=Image(np.full(SHAPE, variance, dtype=np.float32), bbox=BOX, unit=u.nJy**2),
    )


def add_source(image: MaskedImage, x: int, y: int, flux: float) -> None:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image.image.array[:] += flux * np.exp(-0.125 * ((columns - x) ** 2 + (rows - y) ** 2)) / (8.0 * np.pi)


def test_sources_of_either_image_and_their_surroundings_are_not_sky():
    science, template, difference = (masked_image(seed) for seed in (1, 2, 3))
    add_source(science, 100, 80, 3000.0)
    add_source(template, 250, 200, 3000.0)
    add_source(difference, 50, 250, 3000.0)
    sky = find_sky(science, template, difference, 10)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for x, y in ((100, 80), (250, 200)):
        assert not sky[np.hypot(columns - x, rows - y) < 14.0].any()
    # What only the difference shows is noise, or real: it may not be selected away.
    assert sky[np.hypot(columns - 50, rows - 250) < 8.0].all()
    assert sky.mean() > 0.9


def test_distance_of_the_sky_from_sources_is_the_one_asked_for():
    images = masked_image(4), masked_image(5), masked_image(6)
    add_source(images[0], 160, 150, 3000.0)
    sources = ~find_sky(*images, 0)
    near = scipy.ndimage.distance_transform_edt(~sources)
    np.testing.assert_array_equal(find_sky(*images, 7), near > 7)


@pytest.mark.parametrize("plane", [*PLANES_BAD_FOR_SUBTRACTION, "DETECTION_EDGE", "FILTER_SPREAD"])
def test_masked_pixels_are_not_sky(plane):
    science, template, difference = (masked_image(seed) for seed in (1, 2, 3))
    before = find_sky(science, template, difference, 5)
    masked = np.zeros(SHAPE, dtype=bool)
    masked[40:50, 60:75] = True
    difference.mask.set(plane, masked)
    np.testing.assert_array_equal(find_sky(science, template, difference, 5), before & ~masked)


def test_masked_and_missing_pixels_of_the_inputs_are_not_sky():
    science, template, difference = (masked_image(seed) for seed in (1, 2, 3))
    bad = np.zeros(SHAPE, dtype=bool)
    bad[10:20, 10:20] = True
    science.mask.set("SATURATED", bad)
    # What a masked pixel holds may not make sources around it either.
    science.image.array[bad] = 1e6
    template.image.array[100:110, 100:110] = np.nan
    template.variance.array[200:210, 100:110] = 0.0
    difference.image.array[100:110, 200:210] = np.nan
    difference.variance.array[200:210, 200:210] = np.nan
    sky = find_sky(science, template, difference, 5)
    for rows, columns in ((10, 10), (100, 100), (200, 100), (100, 200), (200, 200)):
        assert not sky[rows : rows + 10, columns : columns + 10].any()
    assert sky.mean() > 0.9


def test_sky_of_images_with_a_sloping_background_is_not_lost():
    science, template, difference = (masked_image(seed) for seed in (1, 2, 3))
    science.image.array[:] += np.linspace(1000.0, 1016.0, SHAPE[1])
    assert find_sky(science, template, difference, 10).mean() > 0.9


def test_an_image_without_good_pixels_has_no_sky():
    science, template, difference = (masked_image(seed) for seed in (1, 2, 3))
    template.image.array[:] = np.nan
    assert not find_sky(science, template, difference, 10).any()


def test_choosing_the_sky_does_not_change_the_sigma_of_noise():
    n = 40
    ratios = []
    for seed in range(n):
        science, template = masked_image(2 * seed + 100, 4.0), masked_image(2 * seed + 101, 1.0)
        difference = masked_image(0, 5.0)
        difference.image.array[:] = science.image.array - template.image.array
        sky = find_sky(science, template, difference, 10)
        assert sky.mean() > 0.85
        data = MetricInput(
            difference.image.array, difference.variance.array, difference.image.array, sky, sources_of(0, 0)
        )
        ratios.append(values_of(measure_metrics(data, plugins()))["skySigmaOverPredicted"])
    value, error = np.array(ratios).T
    assert abs(value.mean() - 1.0) < 4.0 * error.mean() / np.sqrt(n)
    assert ((value - 1.0) / error).std() == pytest.approx(1.0, abs=4.0 / np.sqrt(2.0 * n))
