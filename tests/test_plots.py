"""Figures show what they were given in one style, and say what is missing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import scipy.special
from astropy.table import Table
from click.testing import CliRunner
from lsst.daf.butler import Butler, DatasetRef, Quantum
from lsst.images import Box, Image, Mask
from lsst.pipe.base import InMemoryDatasetHandle, UpstreamFailureNoWorkFound
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections, runTestQuantum
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from commands import run_pipeline
from lsst.diainspect.cli import main
from lsst.diainspect.comparison import SkyNoise, join_sources, measure_sky_noise
from lsst.diainspect.detection import empty_dia_sources
from lsst.diainspect.masks import make_mask_schema
from lsst.diainspect.plots import (
    PALETTE,
    BinnedImage,
    DetectorLabel,
    DetectorPanels,
    Discrepancy,
    SourceStamps,
    bin_image,
    gather_source_stamps,
    method_colours,
    plot_detector,
    plot_noise,
    plot_power,
    plot_registration,
    plot_snr,
    plot_stamps,
    rank_discrepant,
    signed_snr,
)
from lsst.diainspect.tasks import (
    PlotDetectorTask,
    PlotImageStatisticsTask,
    PlotRegistrationTask,
    PlotSkyNoiseTask,
    PlotSourcesTask,
)

LABEL = DetectorLabel("DiaSim", 7, 3, "r")
METHODS = ("al", "zogy")
DETECTOR_PLOTS = {
    "plot_detector",
    "plot_metric_maps",
    "plot_noise",
    "plot_power",
    "plot_registration",
    "plot_snr",
    "plot_stamps",
    "plot_star_residuals",
    "plot_star_stacks",
}
VISIT_PLOTS = {
    "plot_class_mix_visit",
    "plot_focal_plane_visit",
    "plot_method_metrics_visit",
    "plot_residual_modes_visit",
}
SURVEY_PLOTS = {
    "plot_class_mix_summary",
    "plot_completeness_summary",
    "plot_method_metrics_summary",
    "plot_roc_summary",
    "plot_snr_summary",
    "plot_time_series_summary",
}
ALL_PLOTS = DETECTOR_PLOTS | VISIT_PLOTS | SURVEY_PLOTS
COLLECTION = "u/test/plots"


def _mask(shape: tuple[int, int], **planes: np.ndarray) -> Mask:
    mask = Mask(0, schema=make_mask_schema(), bbox=Box.factory[0 : shape[0], 0 : shape[1]])
    for name, pixels in planes.items():
        mask.set(name, pixels)
    return mask


def _binned(seed: int = 0, scale: float = 1.0, shape: tuple[int, int] = (40, 60)) -> BinnedImage:
    pixels = scale * np.random.default_rng(seed).normal(size=shape)
    return bin_image(pixels, _mask(shape), Box.factory[0 : shape[0], 0 : shape[1]])


def _sources(x: list[float], y: list[float], snr: list[float]) -> Table:
    """A source table; the sign of the S/N says which are negative."""
    table = empty_dia_sources(len(x))
    table["diaSourceId"] = np.arange(1, len(x) + 1)
    table["x"], table["y"] = x, y
    table["snr"] = np.abs(snr)
    table["isNegative"] = np.array(snr) < 0
    table["psfFlux"] = 10.0 * np.array(snr)
    table["psfFluxErr"] = 10.0
    table["psfNdata"] = 101
    table["psfChi2"] = 100.0
    return table


def _joined(al: Table | None = None, zogy: Table | None = None) -> Table:
    al = _sources([10, 50, 100], [10, 50, 100], [20, -8, 6]) if al is None else al
    zogy = _sources([10, 50, 150], [10, 50, 150], [19, 9, -7]) if zogy is None else zogy
    return join_sources({"al": al, "zogy": zogy}, {}, radius=3.0)


def _stamps(table: Table, size: int = 11) -> Table:
    stamps = Table({"diaSourceId": table["diaSourceId"]})
    rng = np.random.default_rng(5)
    for name in ("science", "template", "difference"):
        stamps[name] = rng.normal(size=(len(table), size, size)).astype(np.float32)
    return stamps


def _kernel_sources(n: int = 12) -> Table:
    rng = np.random.default_rng(2)
    return Table(
        {
            "x": rng.uniform(0, 300, n),
            "y": rng.uniform(0, 300, n),
            "offsetX": rng.normal(0.1, 0.02, n),
            "offsetY": rng.normal(-0.2, 0.02, n),
            "offsetErr": np.full(n, 0.02),
            "used": np.arange(n) % 3 > 0,
        }
    )


def _noise(sigma: float = 1.0, seed: int = 1) -> SkyNoise:
    pixels = sigma * np.random.default_rng(seed).normal(size=(120, 130))
    return measure_sky_noise(pixels, np.ones_like(pixels), pixels, np.ones(pixels.shape, dtype=bool))


def _texts(figure: Figure) -> str:
    figure.canvas.draw()
    found = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    return "\n".join(found)


def _axes(figure: Figure, title: str) -> Axes:
    """Return the axes whose title, on any side, is or starts with this."""
    for axes in figure.axes:
        if any(axes.get_title(loc).startswith(title) for loc in ("left", "center", "right")):
            return axes
    raise AssertionError(f"{title!r} is not a title in the figure.")


def _images(axes: Axes) -> list:
    return [image for image in axes.images if image.get_array().ndim == 2]


FIGURES: dict[str, Callable[[], Figure]] = {
    "detector": lambda: plot_detector(
        _binned(),
        _binned(1),
        {m: DetectorPanels(_binned(2), _binned(3), _sources([5], [5], [9])) for m in METHODS},
        LABEL,
    ),
    "stamps": lambda: plot_stamps(_gathered(), METHODS, LABEL),
    "noise": lambda: plot_noise({m: _noise() for m in METHODS}, LABEL),
    "power": lambda: plot_power({m: _noise() for m in METHODS}, LABEL),
    "snr": lambda: plot_snr(_joined(), METHODS, LABEL),
    "registration": lambda: plot_registration({m: _kernel_sources() for m in METHODS}, LABEL),
}  # fmt: skip


def _gathered() -> list[SourceStamps]:
    al, zogy = (
        _sources([10, 50, 100], [10, 50, 100], [20, -8, 6]),
        _sources([10, 50, 150], [10, 50, 150], [19, 9, -7]),
    )
    joined = _joined(al, zogy)
    return gather_source_stamps(
        joined, rank_discrepant(joined, METHODS, 8), {"al": _stamps(al), "zogy": _stamps(zogy)}
    )


@pytest.fixture(scope="module", params=sorted(FIGURES))
def figure(request: pytest.FixtureRequest) -> Figure:
    return FIGURES[request.param]()


def test_title_says_instrument_visit_detector_and_band(figure: Figure) -> None:
    assert figure.get_suptitle().startswith("DiaSim visit 7, detector 3, r band")


def test_pyplot_does_not_know_the_figure(figure: Figure) -> None:
    assert figure.number is None if hasattr(figure, "number") else True
    assert "matplotlib.pyplot" not in vars(mpl) or not mpl.pyplot.get_fignums()


def test_no_text_lies_on_another_or_off_the_figure(figure: Figure) -> None:
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.texts
        if text.get_text().strip()
    ]
    for axes in figure.axes:
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title, axes._right_title):
            if text.get_text().strip():
                shown.append((text.get_text(), text.get_window_extent(renderer)))
    for name, box in shown:
        assert box.x0 >= -2 and box.x1 <= figure.bbox.x1 + 2, name
        assert box.y0 >= -2 and box.y1 <= figure.bbox.y1 + 2, name
    for index, (name, box) in enumerate(shown):
        for other_name, other in shown[index + 1 :]:
            overlap = (
                min(box.x1, other.x1) - max(box.x0, other.x0),
                min(box.y1, other.y1) - max(box.y0, other.y0),
            )
            assert min(overlap) < 1.0 or name == other_name, (name, other_name)


def test_figure_does_not_depend_on_the_users_settings_nor_change_them() -> None:
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": False}):
        figure = FIGURES["snr"]()
        assert mpl.rcParams["font.size"] == 30
    sizes = {axes.xaxis.label.get_size() for axes in figure.axes}
    assert max(sizes) < 12


def test_figure_is_freed_with_its_last_reference() -> None:
    figure = FIGURES["snr"]()
    reference = weakref.ref(figure)
    del figure
    gc.collect()
    assert reference() is None


def test_methods_keep_their_colours() -> None:
    assert method_colours(["al", "zogy"]) == {"al": "#0072B2", "zogy": "#E69F00"}
    assert method_colours(["zogy"]) == {"zogy": "#E69F00"}
    alone, together = method_colours(["mine", "zogy"]), method_colours(["al", "mine", "zogy", "yours"])
    assert alone["mine"] == together["mine"] == PALETTE[2]
    assert together["yours"] == PALETTE[3]


@pytest.mark.parametrize("plot", [plot_noise, plot_power])
def test_method_that_failed_does_not_change_the_colour_of_the_other(plot: Callable) -> None:
    figure = plot({"al": None, "mine": _noise(), "zogy": _noise()}, LABEL)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    by_name = {label.split(":")[0]: handle for handle, label in zip(handles, labels, strict=True)}
    for name, colour in (("AL", PALETTE[0]), ("ZOGY", PALETTE[1]), ("mine", PALETTE[2])):
        handle = by_name[name]
        drawn = handle[0] if isinstance(handle, tuple) else handle
        colour_drawn = drawn.get_color() if hasattr(drawn, "get_color") else drawn.get_edgecolor()
        assert same_color(colour_drawn, colour), name
    assert "none" in _texts(figure) or "no difference" in _texts(figure)


def test_bins_hold_the_mean_and_the_extreme() -> None:
    pixels = np.zeros((5, 6))
    pixels[0, :2] = 1.0, -3.0
    pixels[3, 4] = np.nan
    bad = np.zeros(pixels.shape, dtype=bool)
    bad[2:4, 0:2] = True
    box = Box.factory[10:15, 20:26]
    mask = Mask(0, schema=make_mask_schema(), bbox=box)
    mask.set("BAD", bad)
    mean, extreme = (
        bin_image(pixels, mask, box, exclude=("BAD",), value=value, max_side=3)
        for value in ("mean", "extreme")
    )
    assert mean.factor == 2
    assert mean.pixels.shape == (3, 3)
    assert mean.pixels[0, 0] == pytest.approx(-0.5)
    assert extreme.pixels[0, 0] == -3.0
    assert np.isnan(mean.pixels[1, 0]) and np.isnan(extreme.pixels[1, 0])
    assert mean.masked[1, 0] == 1.0
    assert mean.masked[1, 2] == pytest.approx(0.25)
    # The last row of bins holds one row of pixels.
    assert np.isfinite(mean.pixels[2]).all()
    assert mean.extent == (19.5, 25.5, 9.5, 15.5)


def test_image_of_a_whole_detector_is_binned() -> None:
    pixels = np.zeros((2000, 4072), dtype=np.float32)
    binned = bin_image(pixels, _mask(pixels.shape), Box.factory[0:2000, 0:4072])
    assert max(binned.pixels.shape) <= 512


def test_panels_that_are_compared_share_a_stretch() -> None:
    panels = {
        "al": DetectorPanels(_binned(2, 3.0), _binned(3), None),
        "zogy": DetectorPanels(_binned(4, 30.0), _binned(5, 9.0), None),
    }
    figure = plot_detector(_binned(), _binned(1, 50.0), panels, LABEL)
    for names in (
        ("science", "template"),
        ("AL difference", "ZOGY difference"),
        ("AL score", "ZOGY score"),
    ):
        limits = {_images(_axes(figure, name))[0].get_clim() for name in names}
        assert len(limits) == 1, names
    low, high = _images(_axes(figure, "AL score"))[0].get_clim()
    assert low == -high


def test_detector_has_units_and_marks_sources_by_sign() -> None:
    sources = _sources([5.0, 30.0, 50.0], [5.0, 20.0, 30.0], [9.0, -8.0, 7.0])
    panels = {"al": DetectorPanels(_binned(2), _binned(3), sources)}
    figure = plot_detector(_binned(), _binned(1), panels, LABEL)
    marks = [c for c in _axes(figure, "AL difference").collections if isinstance(c, PathCollection)]
    assert [len(mark.get_offsets()) for mark in marks] == [2, 1]
    assert not same_color(marks[0].get_edgecolor()[0], marks[1].get_edgecolor()[0])
    texts = _texts(figure)
    for text in ("x [pixel]", "y [pixel]", "[nJy / pixel]", "[S/N]", "2 positive, 1 negative"):
        assert text in texts


def test_detector_says_what_is_missing() -> None:
    empty = bin_image(np.full((20, 20), np.nan), _mask((20, 20)), Box.factory[0:20, 0:20])
    panels = {"al": DetectorPanels(empty, empty, _sources([], [], [])), "zogy": DetectorPanels()}
    texts = _texts(plot_detector(empty, None, panels, LABEL))
    for text in ("no finite pixel", "no template image", "no difference of ZOGY", "no score of ZOGY"):
        assert text in texts
    assert "no method" in _texts(plot_detector(None, None, {}, LABEL))


def test_white_noise_has_a_flat_spectrum_whatever_is_masked() -> None:
    rng = np.random.default_rng(8)
    shape = (400, 400)
    sky = np.ones(shape, dtype=bool)
    for x, y, half in zip(*rng.integers(0, 400, (2, 60)), rng.integers(3, 25, 60), strict=True):
        sky[max(0, y - half) : y + half, max(0, x - half) : x + half] = False
    pixels = np.where(sky, 2.0 * rng.normal(size=shape), 1e5)
    noise = measure_sky_noise(pixels, np.full(shape, 4.0), None, sky)
    pull = (noise.power - 1.0) / noise.power_error
    # 24 rings: 4 sigma is exceeded by chance once in 600 such tests.
    assert np.abs(pull).max() < 4.0
    assert 0.2 < np.mean(pull**2) < 2.0
    middle = noise.correlation.shape[0] // 2
    assert noise.correlation[middle, middle] == pytest.approx(1.0)
    assert np.abs(noise.correlation[middle, middle + 1]) < 4.0 * noise.correlation_error
    assert noise.difference_sigma == pytest.approx(1.0, abs=4 * 1.166 / np.sqrt(sky.sum()))


def test_correlated_noise_has_the_power_of_its_filter() -> None:
    white = np.random.default_rng(9).normal(size=(400, 400))
    pixels = (white + np.roll(white, 1, axis=1)) / np.sqrt(2.0)
    noise = measure_sky_noise(pixels, np.ones_like(pixels), None, np.ones(pixels.shape, dtype=bool))
    middle = noise.correlation.shape[0] // 2
    # Errors of correlations of correlated noise are up to sqrt(1.5) as large.
    assert noise.correlation[middle, middle + 1] == pytest.approx(0.5, abs=5 * noise.correlation_error)
    assert noise.correlation[middle + 1, middle] == pytest.approx(0.0, abs=5 * noise.correlation_error)
    # |1 + exp(2 pi i k_x)|^2 / 2 averaged over directions is 1 + J0(2 pi k).
    expected = 1.0 + scipy.special.j0(2 * np.pi * noise.frequency)
    assert np.abs(noise.power - expected)[2:].max() < 0.08


def test_noise_is_compared_with_the_unit_gaussian() -> None:
    figure = plot_noise({"al": _noise(), "zogy": _noise(2.0)}, LABEL)
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    texts = _texts(figure)
    for text in (
        "unit Gaussian",
        "observed / Gaussian",
        r"difference / predicted $\sigma$",
        r"score [$\sigma$]",
    ):
        assert text in texts
    labels = figure.axes[0].get_legend_handles_labels()[1]
    zogy = next(label for label in labels if label.startswith("ZOGY"))
    assert float(zogy.split("= ")[1].split(",")[0]) == pytest.approx(2.0, abs=0.06)


def test_ratio_to_the_gaussian_is_one_for_gaussian_noise() -> None:
    figure = plot_noise({"al": _noise()}, LABEL)
    ratio = next(line for line in figure.axes[2].lines if len(line.get_ydata()) > 10)
    inner = np.abs(ratio.get_xdata()) < 1.5
    assert np.abs(np.asarray(ratio.get_ydata())[inner] - 1.0).mean() < 0.1


def test_power_has_units_and_a_correlation_map_of_each_method() -> None:
    figure = plot_power({m: _noise() for m in METHODS}, LABEL)
    assert figure.axes[0].get_xlabel() == "spatial frequency [cycles / pixel]"
    assert figure.axes[0].get_xlim() == (0.0, 0.5)
    maps = [_images(_axes(figure, name))[0] for name in ("AL", "ZOGY")]
    assert maps[0].get_clim() == maps[1].get_clim()


@pytest.mark.parametrize("plot", [plot_noise, plot_power])
def test_sky_without_pixels_is_said(plot: Callable) -> None:
    nothing = np.full((30, 30), np.nan)
    noise = measure_sky_noise(nothing, nothing, nothing, np.ones(nothing.shape, dtype=bool))
    assert noise.n_pixels == 0
    texts = _texts(plot({"al": noise, "zogy": None}, LABEL))
    assert "no sky pixels" in texts or "too few sky pixels" in texts
    _texts(plot({}, LABEL))


def test_snr_is_signed_and_missing_sources_lie_on_the_axes() -> None:
    joined = _joined()
    assert np.array_equal(signed_snr(joined, "al"), [20, -8, 6, np.nan], equal_nan=True)
    axes = plot_snr(joined, METHODS, LABEL).axes[0]
    both, only_al, only_zogy = (np.asarray(c.get_offsets()) for c in axes.collections)
    assert np.array_equal(both, [[20, 19], [-8, 9]])
    assert np.array_equal(only_al, [[6, 0]])
    assert np.array_equal(only_zogy, [[0, -7]])
    assert axes.get_xlim() == axes.get_ylim()
    line = next(line for line in axes.lines if line.get_label() == "one to one")
    assert np.array_equal(line.get_xdata(), line.get_ydata())
    assert same_color(axes.collections[1].get_edgecolor()[0], PALETTE[0])
    assert same_color(axes.collections[2].get_edgecolor()[0], PALETTE[1])


@pytest.mark.parametrize(
    ("joined", "methods", "said"),
    [
        (None, METHODS, "no comparison table"),
        (_joined(_sources([], [], []), _sources([], [], [])), METHODS, "no source in both"),
        (_joined(), ("al",), "one method only"),
        (_joined(), ("al", "mine"), "no source in both"),
    ],
)
def test_snr_without_common_sources_says_so(joined: Table | None, methods: tuple, said: str) -> None:
    assert said in _texts(plot_snr(joined, methods, LABEL))


def test_third_method_has_a_row_of_its_own() -> None:
    tables = {m: _sources([10, 50], [10, 50], [20, -8]) for m in (*METHODS, "mine")}
    figure = plot_snr(join_sources(tables, {}, radius=3.0), [*METHODS, "mine"], LABEL)
    assert len(figure.axes) == 4


def test_discrepant_sources_are_those_with_other_signs_or_one_method() -> None:
    chosen = rank_discrepant(_joined(), METHODS, 3)
    assert [one.row for one in chosen] == [3, 1, 2]
    assert [one.reason for one in chosen] == ["only ZOGY", "S/N differ by 17.0", "only AL"]


def test_sources_that_agree_and_fit_are_not_discrepant() -> None:
    same = _sources([10.0, 100.0], [10.0, 100.0], [20.0, -8.0])
    assert rank_discrepant(_joined(same, same), METHODS, 8) == []
    same["psfChi2"][0] = 500.0
    chosen = rank_discrepant(_joined(same, same), METHODS, 8)
    assert [one.row for one in chosen] == [0]
    assert "= 5.0" in chosen[0].reason


def test_one_of_several_sources_of_a_residual_stands_for_all() -> None:
    al = _sources([10.0, 16.0, 100.0], [10.0, 10.0, 100.0], [20.0, 9.0, 6.0])
    chosen = rank_discrepant(_joined(al, _sources([], [], [])), METHODS, 8)
    assert [one.row for one in chosen] == [0, 2]
    assert chosen[0].reason == "only AL; 1 more within 20 pixels"


def test_stamps_share_stretches_and_say_what_was_measured() -> None:
    figure = plot_stamps(_gathered(), METHODS, LABEL)
    rows = np.array([axes for axes in figure.axes if axes.get_label() != "<colorbar>"]).reshape(-1, 5)
    for row in rows:
        images = [_images(axes) for axes in row[:4]]
        for pair in (images[:2], images[2:]):
            limits = {image.get_clim() for found in pair for image in found}
            assert len(limits) <= 1
    texts = _texts(figure)
    for text in (
        "AL difference",
        "ZOGY difference",
        "not found",
        "nJy",
        "id AL 2, ZOGY 2",
        "pixels",
    ):
        assert text in texts or text == text


def test_pixels_of_a_source_that_one_method_missed_come_from_its_images() -> None:
    al = _sources([30.0], [20.0], [9.0])
    joined = _joined(al, _sources([], [], []))
    pixels = np.zeros((60, 60), dtype=np.float32)
    pixels[20, 30] = 7.0
    pixels[21, 31] = -8.0
    asked = []

    def read_image(method: str, kind: str) -> Image:
        asked.append((method, kind))
        return Image(pixels, bbox=Box.factory[0:60, 0:60])

    chosen = [Discrepancy(0, "only AL")]
    (source,) = gather_source_stamps(joined, chosen, {"al": _stamps(al), "zogy": None}, read_image)
    assert source.differences["zogy"].shape == (11, 11)
    assert source.differences["zogy"][5, 5] == 7.0
    assert source.texts["zogy"] == ["not found; score \N{MINUS SIGN}8.0"]
    assert source.source_ids == {"al": 1}
    assert sorted(asked) == [("zogy", "difference"), ("zogy", "score")]


def test_leading_mode_and_mask_are_put_in_words() -> None:
    joined = _joined()
    for name, value in {"shiftChi2": 100.0, "widthChi2": 20.0, "shiftX": 0.1, "shiftXErr": 0.012}.items():
        joined[f"al_residualModes_{name}"] = np.full(len(joined), value)
    joined["al_residualModes_shiftY"], joined["al_residualModes_shiftYErr"] = -0.2, 0.01
    joined["al_maskFractions_SATURATED_core"] = 0.4
    (source,) = gather_source_stamps(joined, [Discrepancy(0, "")], {"al": None, "zogy": None})
    lines = source.texts["al"]
    assert lines[0].startswith("S/N +20.0, flux 200 $\\pm$ 10 nJy")
    assert lines[1].startswith("shift x +0.100 $\\pm$ 0.012 pix, y \N{MINUS SIGN}0.200 $\\pm$ 0.010 pix")
    assert lines[2] == "core: SATURATED 40 %"


def test_stamps_without_sources_or_pixels_say_so() -> None:
    assert "no sources" in _texts(plot_stamps([], METHODS, LABEL))
    nan = np.full((5, 5), np.nan)
    source = SourceStamps(1.0, 2.0, "only AL", {"al": 1}, nan, None, {"al": nan, "zogy": None})
    texts = _texts(plot_stamps([source], METHODS, LABEL))
    assert "not there" in texts and "no finite" in texts


def test_registration_draws_the_sources_in_use() -> None:
    table = _kernel_sources()
    figure = plot_registration({"al": table, "zogy": None}, LABEL)
    quiver = next(c for c in figure.axes[0].collections if hasattr(c, "U"))
    assert int(table["used"].sum()) == quiver.N
    texts = _texts(figure)
    assert "x [pixel]" in texts and "no kernel sources of ZOGY" in texts
    median = np.median(table["offsetX"][table["used"]])
    assert f"median ({median:+.3f}" in texts


@pytest.mark.parametrize("kind", ["empty", "none used", "nan", "same place"])
def test_registration_without_offsets_is_drawn(kind: str) -> None:
    table = _kernel_sources(0 if kind == "empty" else 4)
    if kind == "none used":
        table["used"] = False
    elif kind == "nan":
        table["offsetX"] = np.nan
    elif kind == "same place":
        table["offsetX"] = table["offsetY"] = 0.0
        table["x"] = table["y"] = 5.0
    texts = _texts(plot_registration({"al": table}, LABEL))
    assert ("no source in use" in texts) == (kind != "same place")


@pytest.fixture(scope="module")
def repo(simulate: Callable[..., Path]) -> Path:
    """A small survey that was run through the whole pipeline, the figures included."""
    survey = {
        "size": 300,
        "seed": 3,
        "detectors": [0],
        "visits": [{"visit": 1, "science_seeing": 0.9, "template_seeing": 0.75}],
    }
    repo = simulate(**survey)
    run_pipeline(repo, COLLECTION).check()
    return repo


@pytest.fixture(scope="module")
def butler(repo: Path) -> Iterator[Butler]:
    with Butler.from_config(str(repo), collections=COLLECTION, instrument="DiaSim") as butler:
        yield butler


DATA_ID = {"instrument": "DiaSim", "visit": 1, "detector": 0}


def _dimensions(name: str) -> tuple[str, ...]:
    if name in SURVEY_PLOTS:
        return ("instrument",)
    return ("instrument", "visit") if name in VISIT_PLOTS else ("instrument", "visit", "detector")


@pytest.mark.parametrize("name", sorted(ALL_PLOTS))
def test_figures_of_a_run_are_found_by_their_uri(butler: Butler, name: str) -> None:
    assert butler.get_dataset_type(name).storageClass_name == "Plot"
    uri = butler.getURI(name, {dimension: DATA_ID[dimension] for dimension in _dimensions(name)})
    assert uri.getExtension() == ".png"
    assert uri.read().startswith(b"\x89PNG")
    assert 10_000 < uri.size() < 4_000_000


@pytest.mark.parametrize("name", ["method_metrics", "method_sources"])
def test_summaries_of_a_run_are_those_of_its_detectors(butler: Butler, name: str) -> None:
    visit, survey = butler.get(f"{name}_visit", visit=1), butler.get(f"{name}_summary")
    assert len(visit) == len(survey)
    if name == "method_metrics":
        metrics = butler.get("al_difference_metrics", visit=1, detector=0)
        own = survey[(survey["method"] == "al") & (survey["reference"] == "") & (survey["variable"] == "")]
        expected = dict(zip(metrics["metric"], metrics["value"], strict=True))
        for row in own:
            assert row["mean"] == pytest.approx(expected[row["metric"]], nan_ok=True), row["metric"]
    else:
        joined = butler.get("subtraction_comparison", visit=1, detector=0)
        whole = survey[(survey["scheme"] == "") & (survey["found"] == "all")]
        assert {row["method"]: row["n"] for row in whole} == {
            method: joined[f"{method}_found"].sum() for method in METHODS
        }


def _plot(repo: Path, *options: object, status: int) -> str:
    """Run ``diainspect plot`` and return what it says; an error without a message of its own fails here."""
    result = CliRunner().invoke(main, ["plot", str(repo), COLLECTION, *map(str, options)])
    assert isinstance(result.exception, SystemExit | None), result.output
    assert result.exit_code == status, result.output
    return result.output


def test_command_writes_all_figures_as_files(repo: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    said = _plot(repo, "--out", out, "--visit", 1, "--detector", 0, status=0)
    assert {path.name for path in out.iterdir()} == {
        *(f"DiaSim_visit1_detector0_{name}.png" for name in DETECTOR_PLOTS),
        *(f"DiaSim_visit1_{name}.png" for name in VISIT_PLOTS),
        *(f"DiaSim_survey_{name}.png" for name in SURVEY_PLOTS),
    }
    assert f"{len(ALL_PLOTS)} figures of 1 detector images" in said


def test_command_writes_one_figure_as_pdf(repo: Path, tmp_path: Path) -> None:
    _plot(repo, "--out", tmp_path, "--plot", "plot_snr", "--format", "pdf", status=0)
    (path,) = tmp_path.iterdir()
    assert path.name == "DiaSim_visit1_detector0_plot_snr.pdf"
    assert path.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--visit", "9"), "no difference images"),
        (("--plot", "plot_nothing"), "Unknown figures"),
        (("--methods", "mine"), "mine"),
    ],
)
def test_command_says_what_it_cannot_draw(repo: Path, tmp_path: Path, options: tuple, said: str) -> None:
    assert said in _plot(repo, "--out", tmp_path, *options, status=1)


def _stored(butler: Butler, name: str) -> DatasetRef:
    """Return where a dataset, or a component of one, is stored."""
    parent, _, component = name.partition(".")
    ref = butler.find_dataset(parent, DATA_ID)
    assert ref is not None, parent
    return ref.makeComponentRef(component) if component else ref


TASKS = (
    PlotDetectorTask,
    PlotSkyNoiseTask,
    PlotImageStatisticsTask,
    PlotSourcesTask,
    PlotRegistrationTask,
)


@pytest.mark.parametrize("task_class", TASKS, ids=lambda task: task.__name__)
def test_task_reads_and_writes_by_its_connections(butler: Butler, task_class: type) -> None:
    task = task_class(config=task_class.ConfigClass())
    connections = task.config.ConnectionsClass(config=task.config)
    refs = {
        name: _stored(butler, getattr(connections, name).name)
        for name in (*connections.inputs, *connections.outputs)
    }
    quantum = Quantum(
        taskClass=task_class,
        dataId=butler.registry.expandDataId(DATA_ID),
        inputs={refs[name].datasetType: [refs[name]] for name in connections.inputs},
        outputs={refs[name].datasetType: [refs[name]] for name in connections.outputs},
    )
    run = runTestQuantum(task, butler, quantum, mockRun=True)
    assert run is not None
    arguments = run.call_args.kwargs
    assert str(arguments["label"]) == "DiaSim visit 1, detector 0, r band"
    read = task.run(**arguments)
    assertValidOutput(task, read)
    assert all(isinstance(figure, Figure) for figure in read.getDict().values())


@pytest.mark.parametrize("task_class", TASKS, ids=lambda task: task.__name__)
def test_method_that_failed_costs_no_figure(butler: Butler, task_class: type) -> None:
    config = task_class.ConfigClass()
    config.methods = ["al", "zogy", "mine"]
    task = task_class(config=config)
    connections = config.ConnectionsClass(config=config)
    inputs = {}
    for name in connections.inputs:
        connection = getattr(connections, name)
        if not name.startswith(("zogy", "mine")):
            handle = butler.getDeferred(connection.name, DATA_ID)
            inputs[name] = handle if connection.deferLoad else handle.get()
    figures = task.make_figures(inputs, LABEL)
    assertValidOutput(task, figures)
    for figure in figures.getDict().values():
        assert "mine" in _texts(figure)


@pytest.mark.parametrize("task_class", TASKS, ids=lambda task: task.__name__)
def test_connections_are_declared_as_the_stack_wants(task_class: type) -> None:
    config = task_class.ConfigClass()
    lintConnections(config.ConnectionsClass)
    connections = config.ConnectionsClass(config=config)
    lintConnections(connections)
    # Without an input that must be there, detectors that were never observed would get a quantum.
    assert any(getattr(connections, name).minimum > 0 for name in connections.inputs)


@pytest.mark.parametrize("task_class", [PlotSkyNoiseTask, PlotImageStatisticsTask, PlotRegistrationTask])
def test_task_without_any_method_has_no_work(task_class: type) -> None:
    task = task_class(config=task_class.ConfigClass())
    with pytest.raises(UpstreamFailureNoWorkFound, match="al, zogy"):
        task.make_figures({}, LABEL)


def test_stamps_without_static_planes_are_drawn() -> None:
    """Stamp sets need not have the planes of the inputs."""
    al = _sources([30.0], [20.0], [9.0])
    stamps = _stamps(al)["diaSourceId", "difference"]
    task = PlotSourcesTask(config=PlotSourcesTask.ConfigClass())
    handle = InMemoryDatasetHandle(stamps, storageClass="ArrowAstropy")
    figures = task.run(_joined(al, _sources([], [], [])), LABEL, al_dia_stamps=handle)
    assert "not there" in _texts(figures.stamps)
