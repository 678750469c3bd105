"""Figures of stars, maps, visits and surveys show what they were given, and say what is missing."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pytest
from astropy.table import Table, vstack
from lsst.images import Box
from lsst.pipe.base import InMemoryDatasetHandle, UpstreamFailureNoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from image_statistics_cases import detector_tables, metrics_table, star_table
from lsst.diainspect.comparison import summarise_methods, summarise_sources
from lsst.diainspect.maps import DetectorMaps, SmoothMap
from lsst.diainspect.plots import (
    PALETTE,
    DetectorLabel,
    SurveyLabel,
    VisitLabel,
    plot_class_mix,
    plot_completeness,
    plot_focal_plane,
    plot_method_metrics,
    plot_metric_maps,
    plot_residual_modes,
    plot_roc,
    plot_star_residuals,
    plot_star_stacks,
    plot_time_series,
)
from lsst.diainspect.tasks import PlotSurveyTask, PlotVisitTask
from lsst.diainspect.truth import score_curve

DETECTOR = DetectorLabel("DiaSim", 7, 3, "r")
VISIT = VisitLabel("DiaSim", 7, "r")
SURVEY = SurveyLabel("DiaSim")
METHODS = ("al", "zogy")


def _texts(figure: Figure) -> str:
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def _detector(seed: int = 0, ra: float = 30.0) -> dict[str, Table]:
    return detector_tables(seed, ra=ra)


def _joined(n: int = 40) -> Table:
    rng = np.random.default_rng(1)
    al, zogy = rng.random(n) < 0.8, rng.random(n) < 0.8
    al |= ~zogy
    table = Table({"visit": np.repeat([1, 2], n // 2), "detector": np.arange(n) % 4})
    table["nMethods"] = al.astype(int) + zogy
    for method, found in (("al", al), ("zogy", zogy)):
        table[f"{method}_found"] = found
        table[f"{method}_snr"] = np.where(found, rng.uniform(5, 50, n), np.nan)
        table[f"{method}_isNegative"] = found & (rng.random(n) < 0.3)
        table[f"{method}_verdict_look"] = np.where(np.arange(n) % 3 == 0, "dipole", "point")
    return table


def _metrics(offset: float = 0.0) -> Table:
    return vstack(
        [
            metrics_table(
                visit,
                detector,
                {"scoreSigma": 1.0 + offset * (1.0 + 0.1 * detector) + 0.01 * visit, "scoreMedian": 0.02},
            )
            for visit in (1, 2, 3)
            for detector in (0, 1)
        ]
    )


def _summary() -> Table:
    stars = {method: star_table(1, 0, np.full(20, 1.0), magnitude=18.5) for method in METHODS}
    return summarise_methods({"al": _metrics(), "zogy": _metrics(0.1)}, stars, [18.0, 19.0])


def _truth() -> Table:
    rows = []
    for method in METHODS:
        for index, (low, high) in enumerate(((3.0, 5.0), (5.0, 10.0), (10.0, 1e3))):
            value = (0.1, 0.7, 1.0)[index]
            rows.append((method, "completeness", "idealSnr", low, high, value, value - 0.1, value, 20))
        rows.append((method, "thresholdAt50", "idealSnr", np.nan, np.nan, 5.1, 4.9, 5.3, 60))
        rows.append((method, "averagePrecision", "snr", np.nan, np.nan, 0.9, 0.88, 0.92, 60))
    names = ("method", "statistic", "variable", "binLow", "binHigh", "value", "lower", "upper", "n")
    return Table(rows=rows, names=names)


def _curves() -> Table:
    rng = np.random.default_rng(2)
    parts = []
    for method in METHODS:
        real = rng.random(60) < 0.7
        curve = score_curve(rng.normal(size=60) + 2.0 * real, real, n_truth=60, area=0.1)
        curve.add_column([method] * len(curve), 0, "method")
        curve.add_column(["snr"] * len(curve), 1, "score")
        parts.append(curve)
    return vstack(parts, metadata_conflicts="silent")


def _maps(value: float) -> DetectorMaps:
    box = Box.factory[0:200, 0:200]
    names = ("residualShiftX", "residualShiftY", "width", "fluxScale", "e1", "e2")
    return DetectorMaps({name: SmoothMap.constant(value, box) for name in names})


FIGURES: dict[str, tuple[Callable[[], Figure], str]] = {
    "stars": (lambda: plot_star_residuals({m: _detector()["stars"] for m in METHODS}, DETECTOR), str(DETECTOR)),
    "stacks": (lambda: plot_star_stacks({m: _detector()["stacks"] for m in METHODS}, DETECTOR), str(DETECTOR)),
    "maps": (lambda: plot_metric_maps({m: _detector()["statistics"] for m in METHODS}, DETECTOR), str(DETECTOR)),
    "focal plane": (
        lambda: plot_focal_plane({m: [_detector(s, 30 + s)["statistics"] for s in (0, 1)] for m in METHODS}, VISIT),
        str(VISIT),
    ),
    "modes": (
        lambda: plot_residual_modes({m: [(_maps(0.01), _detector()["statistics"])] for m in METHODS}, VISIT),
        str(VISIT),
    ),
    "metrics": (lambda: plot_method_metrics(_summary(), METHODS, SURVEY), str(SURVEY)),
    "classes": (lambda: plot_class_mix(summarise_sources(_joined(), METHODS), METHODS, SURVEY), str(SURVEY)),
    "times": (lambda: plot_time_series({"al": _metrics(), "zogy": _metrics(0.1)}, {}, SURVEY), str(SURVEY)),
    "completeness": (lambda: plot_completeness(_truth(), METHODS, SURVEY), str(SURVEY)),
    "roc": (lambda: plot_roc(_curves(), _truth(), METHODS, SURVEY), str(SURVEY)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_title_says_what_is_shown_and_nothing_lies_off_the_figure(name: str) -> None:
    make, title = FIGURES[name]
    figure = make()
    assert figure.get_suptitle().startswith(title)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axes in figure.findobj(lambda artist: isinstance(artist, mpl.axes.Axes) and artist.axison):
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title, axes._right_title):
            if text.get_text().strip() and text.get_visible():
                box = text.get_window_extent(renderer)
                assert box.x0 >= -2 and box.x1 <= figure.bbox.x1 + 2, text.get_text()
                assert box.y0 >= -2 and box.y1 <= figure.bbox.y1 + 2, text.get_text()


def test_method_without_a_difference_is_named_and_costs_the_other_nothing() -> None:
    tables = _detector()
    for plot, kind in (
        (plot_star_residuals, "stars"),
        (plot_metric_maps, "statistics"),
        (plot_star_stacks, "stacks"),
    ):
        texts = _texts(plot({"al": None, "zogy": tables[kind]}, DETECTOR))
        assert "ZOGY" in texts
        if kind != "stacks":
            assert "no difference" in texts


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: plot_star_residuals({}, DETECTOR), "no method"),
        (lambda: plot_star_residuals({"al": _detector()["stars"][:0]}, DETECTOR), "no static stars"),
        (lambda: plot_star_stacks({"al": None}, DETECTOR), "no stars to stack"),
        (lambda: plot_star_stacks({"al": _detector()["stacks"][:1]}, DETECTOR), "no bright point sources"),
        (lambda: plot_metric_maps({}, DETECTOR), "no method"),
        (lambda: plot_focal_plane({"al": []}, VISIT), "no statistics with positions on the sky"),
        (lambda: plot_residual_modes({"al": []}, VISIT), "no maps"),
        (lambda: plot_method_metrics(None, METHODS, SURVEY), "no metrics"),
        (lambda: plot_class_mix(None, METHODS, SURVEY), "no comparison table"),
        (lambda: plot_class_mix(summarise_sources(Table(), METHODS), METHODS, SURVEY), "no sources"),
        (lambda: plot_time_series({"al": None}, {}, SURVEY), "no metrics"),
        (lambda: plot_completeness(None, METHODS, SURVEY), "no truth"),
        (lambda: plot_completeness(_truth()[:0], METHODS, SURVEY), "no objects"),
        (lambda: plot_roc(None, None, METHODS, SURVEY), "no truth"),
        (lambda: plot_roc(_curves()[:0], None, METHODS, SURVEY), "no sources"),
    ],
)
def test_figure_of_nothing_says_so(make: Callable[[], Figure], said: str) -> None:
    assert said in _texts(make())


def test_stars_of_the_match_and_held_out_ones_are_drawn_apart() -> None:
    stars = vstack([star_table(1, 0, np.full(7, 1.0)), star_table(1, 0, np.full(4, 2.0), role="heldOut")])
    figure = plot_star_residuals({"al": stars}, DETECTOR)
    fit, held_out = (one for one in figure.axes[0].collections if isinstance(one, PathCollection))
    assert len(fit.get_offsets()) == 7
    assert np.array_equal(np.asarray(held_out.get_offsets())[:, 1], np.full(4, 2.0))
    assert same_color(fit.get_facecolor()[0][:3], PALETTE[0])


def test_maps_share_a_range_about_what_is_expected() -> None:
    figure = plot_metric_maps({m: _detector(s)["statistics"] for s, m in enumerate(METHODS)}, DETECTOR)
    # Five columns; the second row is the other method.
    images = [figure.axes[index].images[0] for index in (0, 5)]
    limits = images[0].get_clim()
    assert images[1].get_clim() == limits
    assert sum(limits) / 2 == pytest.approx(1.0)


def test_detectors_lie_where_they_are_on_the_sky() -> None:
    tables = [_detector(0, 30.0)["statistics"], _detector(1, 30.02)["statistics"]]
    figure = plot_focal_plane({"al": tables}, VISIT, ["skySigmaOverPredicted"])
    meshes = figure.axes[0].collections
    middles = [np.asarray(mesh.get_coordinates())[..., 0].mean() for mesh in meshes]
    # 0.02 degrees of right ascension at a declination of -30 degrees.
    assert middles[1] - middles[0] == pytest.approx(60 * 0.02 * np.cos(np.radians(30.0)), rel=0.01)
    assert figure.axes[0].xaxis_inverted()


def test_shift_is_drawn_along_the_pixels_axes_on_the_sky() -> None:
    box = Box.factory[0:200, 0:200]
    maps = {name: SmoothMap.constant(0.0, box) for name in ("residualShiftX", "residualShiftY")}
    maps["residualShiftX"] = SmoothMap.constant(0.1, box)
    figure = plot_residual_modes({"al": [(DetectorMaps(maps), _detector()["statistics"])]}, VISIT)
    quiver = next(one for one in figure.axes[0].collections if hasattr(one, "U"))
    # The cases' x axis points west.
    np.testing.assert_allclose(quiver.U, -0.1, rtol=1e-3)
    np.testing.assert_allclose(quiver.V, 0.0, atol=1e-4)
    assert "not measured" in _texts(figure)


def test_time_is_the_axis_where_it_is_known() -> None:
    metrics = {"al": _metrics()}
    known = plot_time_series(metrics, {1: 60000.1, 2: 60001.1, 3: 60005.1}, SURVEY)
    assert "MJD" in _texts(known)
    line = known.axes[2].lines[1]
    np.testing.assert_allclose(line.get_xdata(), [60000.1, 60001.1, 60005.1])
    np.testing.assert_allclose(line.get_ydata(), [1.01, 1.02, 1.03])
    assert "visit" in _texts(plot_time_series(metrics, {1: 60000.1}, SURVEY))


def test_paired_difference_is_drawn_in_units_of_its_uncertainty() -> None:
    summary = _summary()
    figure = plot_method_metrics(summary, METHODS, SURVEY)
    assert "AL minus ZOGY" in _texts(figure)
    assert "\N{MINUS SIGN}0.105" in _texts(figure)
    row = summary[(summary["reference"] == "zogy") & (summary["metric"] == "scoreSigma")][0]
    points = next(one for one in figure.axes[1].collections if isinstance(one, PathCollection))
    significance = row["mean"] / (0.5 * (row["meanUpper"] - row["meanLower"]))
    assert np.nanmin(np.asarray(points.get_offsets())[:, 0]) == pytest.approx(significance)
    assert "one method only" in _texts(
        plot_method_metrics(summary[summary["reference"] == ""], METHODS, SURVEY)
    )


def test_bars_are_as_long_as_the_counts() -> None:
    joined = _joined()
    figure = plot_class_mix(summarise_sources(joined, METHODS), METHODS, SURVEY)
    widths = {}
    for bars in figure.axes[0].containers:
        for index, bar in enumerate(bars):
            widths[bars.get_label(), index] = bar.get_width()
    alone = joined["al_found"] & (joined["nMethods"] == 1)
    for name in ("dipole", "point"):
        assert widths[name, 0] == (alone & (joined["al_verdict_look"] == name)).sum()
    assert "by look" in _texts(figure)


def test_completeness_has_its_intervals_and_numbers() -> None:
    figure = plot_completeness(_truth(), METHODS, SURVEY)
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [0.1, 0.7, 1.0])
    texts = _texts(figure)
    assert "50 % at 5.10" in texts and "20" in texts


def test_curves_end_where_all_sources_are_taken() -> None:
    curves = _curves()
    figure = plot_roc(curves, _truth(), METHODS, SURVEY)
    own = curves[curves["method"] == "al"]
    line = figure.axes[0].lines[0]
    assert line.get_ydata()[-1] == pytest.approx(own["completeness"][-1])
    assert "mean purity 0.900" in _texts(figure)


def _handle(table: Table, detector: int = 0) -> InMemoryDatasetHandle:
    handle = InMemoryDatasetHandle(table, storageClass="ArrowAstropy", detector=detector)
    return handle


def test_visit_is_drawn_without_maps_and_summaries() -> None:
    task = PlotVisitTask(config=PlotVisitTask.ConfigClass())
    statistics = [_handle(_detector()["statistics"])]
    figures = task.run(label=VISIT, al_image_statistics=statistics)
    assertValidOutput(task, figures)
    assert "no maps" in _texts(figures.modes)
    with pytest.raises(UpstreamFailureNoWorkFound, match="al, zogy"):
        task.run(label=VISIT)


def test_survey_is_drawn_with_whatever_there_is() -> None:
    config = PlotSurveyTask.ConfigClass()
    config.hasTruth = True
    task = PlotSurveyTask(config=config)
    figures = task.run(label=SURVEY, al_difference_metrics=_handle(_metrics()))
    assertValidOutput(task, figures)
    assert "no truth" in _texts(figures.roc)
    with pytest.raises(UpstreamFailureNoWorkFound, match="al, zogy"):
        task.run(label=SURVEY)


@pytest.mark.parametrize("task_class", [PlotVisitTask, PlotSurveyTask], ids=lambda task: task.__name__)
def test_connections_are_declared_as_the_stack_wants(task_class: type) -> None:
    config = task_class.ConfigClass()
    connections = config.ConnectionsClass(config=config)
    lintConnections(config.ConnectionsClass)
    lintConnections(connections)
    assert all(getattr(connections, name).minimum == 0 for name in connections.inputs)
