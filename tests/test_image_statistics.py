"""Statistics of images, stars and point sources against what was put in."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
from astropy.table import Table, vstack
from lsst.images import Box
from lsst.pipe.base.testUtils import lintConnections

from image_statistics_cases import (
    BOX,
    EDGES,
    ORIGIN,
    PSF_SIGMA,
    SIGMA,
    SIZE,
    Projection,
    detector_tables,
    gaussian,
    gaussian_psf,
    kernel_sources,
    masked_image,
    metric_input,
    metrics_table,
    source_table,
    star_table,
)
from lsst.diainspect.comparison import (
    CELL_STATISTICS,
    IMAGE_STACK_COLUMNS,
    IMAGE_STATISTICS_COLUMNS,
    cell_maps_from_table,
    image_stacks_table,
    image_statistics_table,
    measure_cell_maps,
    measure_difference_psf,
    measure_metrics,
    measure_sky_noise,
    measure_star_residuals,
    metric_registry,
    sky_noise_from_tables,
    source_classes,
    stack_star_residuals,
    summarise_methods,
    summarise_sources,
)
from lsst.diainspect.tasks import (
    MeasureDifferenceMetricsTask,
    SummarizeMethodsSurveyTask,
    SummarizeMethodsVisitTask,
)
from lsst.diainspect.truth import Resampling


def _smooth(rng: np.random.Generator, size: int = SIZE, width: float = 2.0) -> np.ndarray:
    """Noise of unit variance with the correlation exp(-r^2 / 4 s^2)."""
    noise = scipy.ndimage.gaussian_filter(rng.normal(size=(size, size)), width, mode="wrap")
    return noise * np.sqrt(4.0 * np.pi) * width


def _metric(name: str, data: object) -> tuple[float, float]:
    plugin = metric_registry[name](metric_registry[name].ConfigClass())
    row = measure_metrics(data, {name: plugin})[0]  # type: ignore[arg-type]
    return float(row["value"]), float(row["error"])


def test_errors_of_correlated_scores_are_their_scatter() -> None:
    n = 100
    names = {"scoreMedian": 0.0, "scoreTail3": 1.0}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for seed in range(n):
        rng = np.random.default_rng(seed)
        data = metric_input(masked_image(SIGMA * rng.normal(size=(SIZE, SIZE))), _smooth(rng))
        for name in names:
            found[name].append(_metric(name, data))
    for name, expected in names.items():
        value, error = np.array(found[name]).T
        assert abs((value - expected).mean()) < 4.0 * value.std() / np.sqrt(n), name
        # The area of the correlation is measured, to a tenth.
        assert value.std() / np.sqrt((error**2).mean()) == pytest.approx(
            1.0, abs=0.1 + 4.0 / np.sqrt(2 * n)
        ), name


def test_tails_of_white_noise_are_the_gaussians() -> None:
    pixels = SIGMA * np.random.default_rng(1).normal(size=(600, 600))
    data = metric_input(masked_image(pixels), pixels)
    for threshold in (3, 4):
        value, error = _metric(f"skyTail{threshold}", data)
        expected = 600**2 * 2.0 * scipy.special.ndtr(-threshold)
        assert error == pytest.approx(1.0 / np.sqrt(expected), rel=0.3)
        assert abs(value - 1.0) < 4.0 * error


def test_contaminated_tails_are_counted() -> None:
    rng = np.random.default_rng(2)
    pixels = SIGMA * rng.normal(size=(SIZE, SIZE))
    pixels.flat[rng.choice(SIZE**2, 40, replace=False)] = 5.5 * SIGMA
    value, _ = _metric("skyTail5", metric_input(masked_image(pixels), pixels))
    assert value == pytest.approx(40.0 / (SIZE**2 * 2.0 * scipy.special.ndtr(-5.0)), rel=0.05)


def test_background_and_low_frequencies_are_measured() -> None:
    rng = np.random.default_rng(3)
    pixels = SIGMA * rng.normal(size=(400, 400))
    white = metric_input(masked_image(pixels + 0.5), pixels)
    value, error = _metric("skyBackground", white)
    assert abs(value - 0.5) < 4.0 * error
    assert error == pytest.approx(1.2533 * SIGMA / 400, rel=0.05)
    value, error = _metric("lowFrequencyPower", white)
    assert abs(value - 1.0) < 4.0 * error
    uneven = pixels + SIGMA * 0.2 * _smooth(rng, 400, 8.0)
    # All of its power is below 0.1 cycles / pixel, in a disk of that radius; some of it leaks out by the taper.
    added = _metric("lowFrequencyPower", metric_input(masked_image(uneven), pixels))[0] - value
    assert added == pytest.approx(0.2**2 / (np.pi * 0.1**2), rel=0.25)


def _grid(n: int, start: float = 30.0, step: float = 35.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    y, x = np.divmod(np.arange(n), 5)
    return start + step * x + rng.uniform(-0.5, 0.5, n), start + step * y + rng.uniform(-0.5, 0.5, n)


def test_stars_that_leave_noise_alone_have_unit_rms() -> None:
    rng = np.random.default_rng(4)
    pixels = SIGMA * rng.normal(size=(SIZE, SIZE))
    x, y = _grid(25)
    stars = measure_star_residuals(masked_image(pixels), kernel_sources(x, y, np.full(25, 1e5)), 6.0)
    assert len(stars) == 25
    n_pixels = np.asarray(stars["nPixels"], dtype=float)
    assert n_pixels == pytest.approx(np.pi * 36.0, rel=0.05)
    pull = (np.asarray(stars["rms"]) ** 2 - 1.0) / np.sqrt(2.0 / n_pixels)
    assert abs(pull.mean()) < 4.0 / 5.0
    assert pull.std() == pytest.approx(1.0, abs=4.0 / np.sqrt(50.0))
    ratio = np.asarray(stars["residual"]) / np.asarray(stars["residualErr"])
    assert ratio.std() == pytest.approx(1.0, abs=4.0 / np.sqrt(50.0))
    np.testing.assert_allclose(stars["magnitude"], 31.4 - 12.5)


def test_residual_of_a_star_is_its_part_of_the_flux() -> None:
    x, y = _grid(25)
    flux = np.full(25, 1e6)
    pixels = sum(0.02 * 1e6 * gaussian(one, other) for one, other in zip(x, y, strict=True))
    x0, y0 = ORIGIN
    stars = measure_star_residuals(
        masked_image(np.asarray(pixels), x0=x0, y0=y0), kernel_sources(x + x0, y + y0, flux), 7.0
    )
    np.testing.assert_allclose(stars["residual"], 0.02, rtol=2e-3)


def test_roles_of_stars_are_kept_apart() -> None:
    x, y = _grid(5)
    table = kernel_sources(x, y, np.full(5, 1e5))
    table["used"] = [True, False, False, False, False]
    table["rejected"] = ["", "enough others nearby", "bad fit", "low signal-to-noise", "enough others nearby"]
    # New since the template: nothing that the match could have left.
    table["templateFlux"][3] = 10.0
    table["isStar"][4] = False
    stars = measure_star_residuals(masked_image(np.ones((SIZE, SIZE))), table, 5.0)
    assert list(stars["role"]) == ["fit", "heldOut", "rejected", "rejected"]


def test_stars_next_to_masked_pixels_are_left_out() -> None:
    x, y = _grid(3)
    difference = masked_image(np.ones((SIZE, SIZE)))
    bad = np.zeros((SIZE, SIZE), dtype=bool)
    bad[int(y[1]) + 3, int(x[1])] = True
    difference.mask.set("SATURATED", bad)
    difference.image.array[int(y[2]), int(x[2]) - 2] = np.nan
    stars = measure_star_residuals(difference, kernel_sources(x, y, np.full(3, 1e5)), 5.0)
    np.testing.assert_allclose(stars["x"], x[:1])
    assert len(measure_star_residuals(difference, None, 5.0)) == 0


def test_stack_is_the_mean_residual_centred() -> None:
    x, y = _grid(20)
    flux = 10.0 ** (-0.4 * (np.repeat([17.0, 19.0], 10) - 31.4))
    rng = np.random.default_rng(5)
    pixels = SIGMA * rng.normal(size=(SIZE, SIZE))
    for one, other, own in zip(x, y, flux, strict=True):
        # Each a dipole of a thousandth of the flux a pixel of shift.
        pixels += 0.05 * own * (gaussian(one + 0.5, other) - gaussian(one - 0.5, other))
    difference = masked_image(pixels)
    table = kernel_sources(x, y, flux)
    table["used"][::2] = False
    table["rejected"][::2] = "enough others nearby"
    stars = measure_star_residuals(difference, table, 6.0)
    stacks = stack_star_residuals(difference, stars, EDGES, 31)
    assert [(one.role, one.low, one.n) for one in stacks] == [
        ("fit", 16.0, 5),
        ("fit", 18.0, 5),
        ("heldOut", 16.0, 5),
        ("heldOut", 18.0, 5),
    ]
    expected = 0.05 * (gaussian(15.5, 15, (31, 31)) - gaussian(14.5, 15, (31, 31)))
    for one in stacks:
        pull = (one.image - expected) / one.error
        # Errors from five stars: Student's distribution with four degrees of freedom.
        assert np.median(np.abs(pull)) == pytest.approx(0.74, abs=0.1)
        noise = SIGMA / 10.0 ** (-0.4 * (one.low + 1.0 - 31.4)) / np.sqrt(5.0)
        assert np.std(one.image - expected) == pytest.approx(noise, rel=0.1)


def test_one_star_has_a_stack_without_an_error() -> None:
    difference = masked_image(np.ones((SIZE, SIZE)))
    stars = measure_star_residuals(difference, kernel_sources(*_grid(1), np.array([3e5])), 5.0)
    (stack,) = stack_star_residuals(difference, stars, EDGES, 13)
    assert np.isfinite(stack.image).all()
    assert np.isnan(stack.error).all()


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_width_and_flux_of_point_sources_are_measured(factor: float) -> None:
    widths, fluxes = [], []
    x0, y0 = ORIGIN
    box = Box.factory[y0 : y0 + SIZE, x0 : x0 + SIZE]
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, y = _grid(16)
        pixels = SIGMA * rng.normal(size=(SIZE, SIZE)) + 0.5
        for one, other in zip(x, y, strict=True):
            pixels += 3000.0 * gaussian(one, other, sigma=factor * PSF_SIGMA)
        difference = masked_image(pixels, x0=x0, y0=y0)
        psf = measure_difference_psf(difference, source_table(x + x0, y + y0), gaussian_psf(box), 31)
        assert psf.n == 16
        widths.append((psf.width_ratio - factor, psf.width_ratio_error))
        fluxes.append((psf.flux_ratio - 1.0, psf.flux_ratio_error))
    for measured, bias in ((widths, 0.15 * (factor - 1.0)), (fluxes, 0.1 * (factor - 1.0))):
        value, error = np.array(measured).T
        # A width is measured to first order, and a PSF flux of another width is not the whole flux.
        assert abs(value.mean()) < bias + 4.0 * error.mean() / np.sqrt(12.0)
        assert value.std() / error.mean() == pytest.approx(1.0, abs=4.0 / np.sqrt(24.0))


def test_only_bright_positive_points_tell_the_psf() -> None:
    rng = np.random.default_rng(6)
    x, y = _grid(4)
    pixels = SIGMA * rng.normal(size=(SIZE, SIZE))
    for one, other in zip(x, y, strict=True):
        pixels += 3000.0 * gaussian(one, other)
    sources = vstack(
        [
            source_table(x[:1], y[:1]),
            source_table(x[1:2], y[1:2], negative=True),
            source_table(x[2:], y[2:], snr=9.0),
        ]
    )
    difference = masked_image(pixels)
    assert measure_difference_psf(difference, sources, gaussian_psf(), 31).n == 1
    none = measure_difference_psf(difference, sources[1:2], gaussian_psf(), 31)
    assert none.n == 0
    assert np.isnan(none.width_ratio)


def test_cells_hold_what_is_in_them() -> None:
    rng = np.random.default_rng(7)
    pixels = SIGMA * rng.normal(size=(SIZE, SIZE))
    pixels[100:, :100] += 3.0
    pixels[:100, 100:] *= 2.0
    x0, y0 = ORIGIN
    box = Box.factory[y0 : y0 + SIZE, x0 : x0 + SIZE]
    sources = source_table(np.array([150.0, 160.0, 20.0]) + x0, np.array([150.0, 190.0, 150.0]) + y0)
    score = pixels / SIGMA
    score[:100, :100] = np.nan
    data = metric_input(masked_image(pixels, x0=x0, y0=y0), score, sources)
    maps = {one.statistic: one for one in measure_cell_maps(data, box, 2)}
    assert set(maps) == set(CELL_STATISTICS)
    for name, expected in (
        ("skyBackground", [[0.0, 0.0], [3.0, 0.0]]),
        ("skySigmaOverPredicted", [[1.0, 2.0], [1.0, 1.0]]),
    ):
        assert (np.abs(maps[name].value - expected) < 4.0 * maps[name].error).all(), name
    assert np.array_equal(maps["numberPositive"].value, [[0, 0], [1, 2]])
    assert np.isnan(maps["scoreSigma"].value[0, 0]) and maps["scoreSigma"].n[0, 0] == 0
    assert np.isfinite(maps["scoreSigma"].value[1]).all()


def test_tables_say_what_they_hold() -> None:
    tables = detector_tables(3)
    for name, columns in (("statistics", IMAGE_STATISTICS_COLUMNS), ("stacks", IMAGE_STACK_COLUMNS)):
        assert tables[name].colnames == list(columns)
        for column, (_, unit, doc) in columns.items():
            assert tables[name][column].unit == unit
            assert tables[name][column].description == doc
    for column in ("statistic", "description", "unit"):
        longest = int(IMAGE_STATISTICS_COLUMNS[column][0][1:])
        assert max(len(text) for text in tables["statistics"][column]) < longest, column
    assert tables["stacks"]["image"].shape[1:] == (31, 31)


def test_noise_and_maps_come_back_from_the_tables() -> None:
    rng = np.random.default_rng(8)
    difference = masked_image(SIGMA * rng.normal(size=(SIZE, SIZE)))
    score = _smooth(rng)
    data = metric_input(difference, score)
    maps = measure_cell_maps(data, BOX, 3)
    statistics = image_statistics_table(data, maps, BOX, None, EDGES)
    noise = sky_noise_from_tables(statistics, image_stacks_table(data.sky_noise, [], None, 31))
    made = measure_sky_noise(difference.image.array, difference.variance.array, score, data.sky)
    for name in ("difference_counts", "score_counts"):
        assert np.array_equal(getattr(noise, name), getattr(made, name))
    for name in ("n_pixels", "difference_sigma", "score_sigma", "power", "power_error", "frequency"):
        np.testing.assert_allclose(getattr(noise, name), getattr(made, name), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(noise.correlation, made.correlation[17:48, 17:48], atol=1e-6)
    back = cell_maps_from_table(statistics)
    for one in maps:
        np.testing.assert_array_equal(back[one.statistic].value, one.value)
        np.testing.assert_array_equal(back[one.statistic].n, one.n)


def test_image_without_sky_has_empty_statistics() -> None:
    nothing = masked_image(np.full((SIZE, SIZE), np.nan))
    data = metric_input(nothing, np.full((SIZE, SIZE), np.nan))
    statistics = image_statistics_table(data, measure_cell_maps(data, BOX, 2), BOX, None, EDGES)
    whole = statistics[statistics["cellX"] < 0]
    assert np.isnan(whole["value"]).all()
    noise = sky_noise_from_tables(statistics, image_stacks_table(data.sky_noise, [], None, 31))
    assert noise.n_pixels == 0 and noise.power.size == 0


def test_cells_are_placed_on_image_and_sky() -> None:
    cells = detector_tables(1, ra=30.0)["statistics"]
    corner = cells[(cells["cellX"] == 3) & (cells["cellY"] == 0)][0]
    # Cells of 50 pixels; pixel 0 reaches from -0.5.
    assert (corner["x"], corner["y"]) == (174.5, 24.5)
    sky = Projection(30.0).pixel_to_sky(x=np.array([174.5]), y=np.array([24.5]))
    assert corner["ra"] == pytest.approx(sky.ra.deg[0])
    assert corner["dec"] == pytest.approx(sky.dec.deg[0])


def _survey(n: int, value: np.ndarray, spread: np.ndarray) -> Table:
    return vstack([metrics_table(1, one, {"m": float(value[one] + spread[one])}) for one in range(n)])


def test_interval_of_the_mean_covers_the_truth_and_pairing_narrows_it() -> None:
    n, covered, narrower = 30, 0, 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=n)
        metrics = {
            "a": _survey(n, shared, 0.1 * rng.normal(size=n)),
            "b": _survey(n, shared, 0.1 * rng.normal(size=n) - 0.05),
        }
        summary = summarise_methods(metrics, {}, EDGES, Resampling(200, seed=seed))
        paired = summary[summary["reference"] == "b"][0]
        own = summary[(summary["method"] == "a") & (summary["reference"] == "")][0]
        covered += paired["meanLower"] < 0.05 < paired["meanUpper"]
        narrower += paired["meanUpper"] - paired["meanLower"] < 0.4 * (own["meanUpper"] - own["meanLower"])
        assert paired["n"] == n
    # 68 % of 120, less what the percentile bootstrap of 30 values misses.
    assert 120 * 0.66 - 4 * np.sqrt(120 * 0.22) < covered < 120 * 0.66 + 4 * np.sqrt(120 * 0.22)
    assert narrower == 120


def test_detectors_that_one_method_lacks_are_not_paired() -> None:
    metrics = {
        "a": vstack([metrics_table(1, one, {"m": 1.0, "only": 2.0}) for one in range(6)]),
        "b": vstack([metrics_table(1, one, {"m": np.nan if one == 3 else 0.0}) for one in range(1, 6)]),
    }
    summary = summarise_methods(metrics, {}, EDGES)
    paired = summary[summary["reference"] == "b"]
    assert list(paired["metric"]) == ["m"]
    assert paired["n"][0] == 4
    assert paired["mean"][0] == 1.0
    own = summary[(summary["method"] == "a") & (summary["metric"] == "only")][0]
    assert (own["n"], own["median"]) == (6, 2.0)


def test_one_detector_has_no_interval() -> None:
    row = summarise_methods({"a": metrics_table(1, 0, {"m": 1.0})}, {}, EDGES)[0]
    assert row["mean"] == 1.0
    assert np.isnan(row["meanLower"]) and np.isnan(row["scatter"])


def test_stars_are_paired_one_by_one() -> None:
    rng = np.random.default_rng(9)
    own, parts = rng.uniform(1.0, 3.0, (4, 20)), {"a": [], "b": []}
    for detector in range(4):
        parts["a"].append(star_table(1, detector, own[detector] + 0.2))
        other = star_table(1, detector, own[detector])
        other["x"] += 0.5
        parts["b"].append(other[5:])
    stars = {name: vstack(tables) for name, tables in parts.items()}
    summary = summarise_methods({"a": metrics_table(1, 0, {}), "b": metrics_table(1, 0, {})}, stars, EDGES)
    paired = summary[(summary["reference"] == "b") & (summary["metric"] == "starRmsFit")]
    assert list(paired["low"]) == [18.0]
    assert paired["n"][0] == 60
    np.testing.assert_allclose([paired["mean"][0], paired["medianLower"][0], paired["medianUpper"][0]], 0.2)
    assert (summary["metric"] != "starRmsHeldOut").all()


def _joined() -> Table:
    table = Table({"visit": np.ones(10, dtype=int), "detector": np.arange(10) % 5})
    table["nMethods"] = [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    table["a_found"] = [True] * 7 + [False] * 3
    table["b_found"] = [True] * 4 + [False] * 3 + [True] * 3
    for method in "ab":
        table[f"{method}_snr"] = np.arange(10.0)
        table[f"{method}_truthIsReal"] = np.arange(10) < 5
    return table


def test_sources_are_counted_alone_and_shared() -> None:
    summary = summarise_sources(_joined(), ["a", "b", "absent"])
    whole = summary[summary["scheme"] == ""]
    counts = {(row["method"], row["found"]): row["n"] for row in whole}
    assert counts == {
        ("a", "only"): 3,
        ("a", "shared"): 4,
        ("a", "all"): 7,
        ("b", "only"): 3,
        ("b", "shared"): 4,
        ("b", "all"): 7,
    }
    alone = whole[(whole["method"] == "a") & (whole["found"] == "only")][0]
    assert alone["medianSnr"] == 5.0
    assert alone["realFraction"] == pytest.approx(1.0 / 3.0)
    assert alone["perDetector"] == pytest.approx(3.0 / 5.0)
    assert alone["nLower"] < 3 < alone["nUpper"]


def test_class_is_told_by_text_by_scores_or_by_evidence() -> None:
    joined = _joined()
    assert set(source_classes(joined, "a")) == {"evidence"}
    joined["a_isDipoleCandidate"] = np.arange(10) == 0
    joined["a_pixelFlags_saturatedCenter"] = np.arange(10) < 2
    joined["a_pixelFlags_edge"] = True
    joined["a_residualModes_staticFlux"] = np.where(np.arange(10) < 3, 100.0, np.nan)
    joined["a_residualModes_staticFluxErr"] = 10.0
    assert list(source_classes(joined, "a")["evidence"][:4]) == [
        "dipole",
        "masked",
        "on a static source",
        "isolated",
    ]
    joined["a_verdict_look_point"] = np.linspace(0.0, 1.0, 10)
    joined["a_verdict_look_ring"] = np.where(np.arange(10) < 5, 0.6, np.nan)
    joined["a_verdict_cause"] = np.full(10, "noise")
    classes = source_classes(joined, "a")
    assert set(classes) == {"look", "cause"}
    assert list(classes["look"][[0, 9]]) == ["ring", "point"]
    assert set(classes["cause"]) == {"noise"}


def test_summary_of_nothing_has_its_columns() -> None:
    task = SummarizeMethodsSurveyTask(config=SummarizeMethodsSurveyTask.ConfigClass())
    result = task.run({"al": metrics_table(1, 0, {})}, {}, None)
    assert len(result.summary) == len(result.sources) == 0
    assert {"mean", "medianUpper"} <= set(result.summary.colnames)


@pytest.mark.parametrize(
    "task_class",
    [SummarizeMethodsVisitTask, SummarizeMethodsSurveyTask, MeasureDifferenceMetricsTask],
    ids=lambda task: task.__name__,
)
def test_connections_are_declared_as_the_stack_wants(task_class: type) -> None:
    config = task_class.ConfigClass()
    lintConnections(config.ConnectionsClass)
    connections = config.ConnectionsClass(config=config)
    lintConnections(connections)
    if task_class is not MeasureDifferenceMetricsTask:
        assert all(getattr(connections, name).minimum == 0 for name in connections.inputs)


def test_stacks_need_an_odd_size_and_growing_bins() -> None:
    config = MeasureDifferenceMetricsTask.ConfigClass()
    config.stackSize = 30
    with pytest.raises(Exception, match="must be odd"):
        config.validate()
    config = MeasureDifferenceMetricsTask.ConfigClass()
    config.magnitudeEdges = [20.0, 18.0]
    with pytest.raises(Exception, match="growing"):
        config.validate()
