"""Stamp sets: cutting, frames, models, storage."""

from __future__ import annotations

import astropy.units as u
import astropy.wcs
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Column, Table
from lsst.daf.butler.formatters.parquet import arrow_to_astropy, astropy_to_arrow
from lsst.images import Box, GeneralFrame, SkyProjection

from lsst.diainspect.masks import MASK_BITS
from lsst.diainspect.psf import PixelBasis, PixelBasisPsf, PolynomialField
from lsst.diainspect.stamps import (
    PLANES,
    StampModel,
    StampSet,
    cut_stamps,
    gather_stamps,
    sky_derivatives,
    stamp_origin,
)

BOX = Box.factory[1000:1060, 500:580]
"""Rows 1000 to 1059, columns 500 to 579."""

OFF_IMAGE = 1 << MASK_BITS["OFF_IMAGE"]


def rotated_wcs() -> astropy.wcs.WCS:
    """A tangent projection, rotated, mirrored and with pixels that are not square."""
    wcs = astropy.wcs.WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [359.999, -65.0]
    wcs.wcs.crpix = [541.0, 1031.0]
    cos, sin = np.cos(0.6), np.sin(0.6)
    wcs.wcs.cd = np.array([[cos, sin], [sin, -cos]]) @ np.diag([0.2, 0.25]) / 3600.0
    wcs.wcs.set()
    return wcs


def projection() -> SkyProjection:
    return SkyProjection.from_fits_wcs(rotated_wcs(), GeneralFrame(unit=u.pix))


def coordinate_image(box: Box = BOX) -> np.ndarray:
    """An image whose pixels say where they are: 10,000 y + x."""
    y, x = np.mgrid[box.y.start : box.y.stop, box.x.start : box.x.stop]
    return (1e4 * y + x).astype(np.float32)


def varying_psf(size: int = 11, order: int = 2) -> PixelBasisPsf:
    y, x = np.mgrid[:size, :size] - size // 2

    def draw(at_x: float, at_y: float) -> np.ndarray:
        width = 1.5 + 0.005 * (at_x - 500) + 0.003 * (at_y - 1000)
        return np.exp(-0.5 * (x**2 + y**2) / width**2)

    return PixelBasisPsf.from_callable(draw, BOX, order=order)


def source_table(x: np.ndarray, y: np.ndarray) -> Table:
    table = Table()
    table["diaSourceId"] = Column(np.arange(1, len(x) + 1, dtype=np.int64) << 37)
    table["x"] = Column(np.asarray(x, dtype=float), unit=u.pix)
    table["y"] = Column(np.asarray(y, dtype=float), unit=u.pix)
    table["isNegative"] = Column(np.arange(len(x)) % 2 == 1)
    table["band"] = Column(np.full(len(x), "r", dtype="U8"))
    return table


def make_stamps(size: int = 15, x: object = (530.2, 501.0, 578.9), y: object = (1030.7, 1002.4, 1059.3)):
    rng = np.random.default_rng(1)
    images = {
        "science": (coordinate_image(), BOX),
        "difference": (rng.normal(size=(60, 80)).astype(np.float32), BOX),
        "differenceVariance": (rng.uniform(1.0, 2.0, (60, 80)).astype(np.float32), BOX),
        "mask": (rng.integers(0, 1 << 27, (60, 80), dtype=np.uint32), BOX),
    }
    basis = PixelBasis(rng.normal(size=(3, 5, 5)), PolynomialField(BOX, 1))
    models = {"differencePsf": varying_psf(), "scienceFilter": basis}
    return cut_stamps(source_table(np.asarray(x), np.asarray(y)), images, models, projection(), size), models


def through_parquet(table: Table, path, columns: list[str] | None = None) -> Table:
    pq.write_table(astropy_to_arrow(table), path)
    return arrow_to_astropy(pq.read_table(path, columns=columns))


@pytest.mark.parametrize("size", [1, 14, 15, 41])
def test_stamp_pixels_are_those_of_the_image_at_their_coordinates(size):
    stamps, _ = make_stamps(size)
    assert stamps.size == size
    assert stamps.planes["science"].dtype == np.float32
    for n in range(len(stamps)):
        y, x = np.mgrid[:size, :size]
        y, x = y + stamps.sources["y0"][n], x + stamps.sources["x0"][n]
        inside = (y >= 1000) & (y < 1060) & (x >= 500) & (x < 580)
        expected = np.where(inside, (1e4 * y + x).astype(np.float32), np.nan)
        np.testing.assert_array_equal(stamps.planes["science"][n], expected)
        np.testing.assert_array_equal((stamps.planes["mask"][n] & OFF_IMAGE) != 0, ~inside)
        np.testing.assert_array_equal(np.isnan(stamps.planes["differenceVariance"][n]), ~inside)


@pytest.mark.parametrize("size", [14, 15])
def test_central_pixel_is_the_one_that_holds_the_source(size):
    stamps, _ = make_stamps(size)
    assert np.abs(stamps.dx).max() <= 0.5
    assert np.abs(stamps.dy).max() <= 0.5
    np.testing.assert_allclose(stamps.sources["x0"] + size // 2, [530, 501, 579])
    np.testing.assert_allclose(stamps.sources["y0"] + size // 2, [1031, 1002, 1059])
    np.testing.assert_allclose(stamps.dx, [0.2, 0.0, -0.1], atol=1e-9)
    np.testing.assert_allclose(stamps.dy, [-0.3, 0.4, 0.3], atol=1e-9)


def test_half_pixels_round_up_also_below_zero():
    x0, _ = stamp_origin(np.array([-1.5, -0.5, 0.5, 1.5]), np.zeros(4), 1)
    np.testing.assert_array_equal(x0, [-1, 0, 1, 2])


def test_images_of_different_boxes_are_cut_at_the_same_pixels():
    smaller = Box.factory[1020:1040, 520:540]
    images = {
        "science": (coordinate_image(), BOX),
        "template": (coordinate_image(smaller), smaller),
    }
    stamps = cut_stamps(source_table([530.0], [1030.0]), images, {}, projection(), 31)
    both = np.isfinite(stamps.planes["template"])
    assert both.sum() == 400
    np.testing.assert_array_equal(stamps.planes["template"][both], stamps.planes["science"][both])


@pytest.mark.parametrize("position", [(1e12, 1030.0), (-5000.0, 1030.0), (np.nan, 1030.0), (530.0, np.inf)])
def test_sources_that_are_nowhere_near_the_image_have_empty_stamps(position):
    stamps, _ = make_stamps(15, [530.0, position[0]], [1030.0, position[1]])
    assert np.isfinite(stamps.planes["science"][0]).all()
    assert np.isnan(stamps.planes["science"][1]).all()
    assert (stamps.planes["mask"][1] == OFF_IMAGE).all()
    assert not stamps.weight("difference")[1].any()


@pytest.mark.parametrize(
    ("dtype", "fill"), [(np.float32, np.nan), (np.float64, np.inf), (np.uint32, OFF_IMAGE), (bool, True)]
)
def test_gathered_stamps_keep_the_type_of_the_image(dtype, fill):
    image = np.ones((6, 7), dtype=dtype)
    stamps = gather_stamps(image, np.array([0, -2, 9]), np.array([1, 4, 0]), 4, fill)
    assert stamps.dtype == dtype
    assert (stamps[0] == 1).all()
    np.testing.assert_array_equal(stamps[1, :2, 2:], 1)
    filled = np.ones((4, 4), dtype=bool)
    filled[:2, 2:] = False
    np.testing.assert_array_equal(stamps[1][filled], np.full(12, fill, dtype=dtype))
    np.testing.assert_array_equal(stamps[2], np.full((4, 4), fill, dtype=dtype))


def test_stamps_are_copies():
    image = np.zeros((5, 5))
    gather_stamps(image, np.array([1]), np.array([1]), 3, 0.0)[:] = 1.0
    assert not image.any()


def test_pixel_to_sky_agrees_with_astropy():
    x, y = np.array([530.2, 501.0, 578.9]), np.array([1030.7, 1002.4, 1059.3])
    derivatives = sky_derivatives(projection(), x, y)
    stamps, _ = make_stamps(15, x, y)
    np.testing.assert_array_equal(stamps.sources["pixelToSky"], derivatives)
    assert stamps.sources["pixelToSky"].unit == u.deg / u.pix
    wcs = rotated_wcs()
    here = wcs.pixel_to_world(x, y)
    for column, (step_x, step_y) in enumerate(((1e-3, 0.0), (0.0, 1e-3))):
        east, north = here.spherical_offsets_to(wcs.pixel_to_world(x + step_x, y + step_y))
        np.testing.assert_allclose(derivatives[:, 0, column], east.deg / 1e-3, rtol=1e-4, atol=1e-10)
        np.testing.assert_allclose(derivatives[:, 1, column], north.deg / 1e-3, rtol=1e-4, atol=1e-10)
    assert (SkyCoord(wcs.pixel_to_world(x, y)).separation(here).deg == 0).all()


def test_models_are_those_of_the_detector_at_the_sources():
    stamps, models = make_stamps()
    for name, basis in models.items():
        expected = basis.evaluate(stamps.sources["x"], stamps.sources["y"])
        np.testing.assert_allclose(stamps.models[name].images(), expected, atol=1e-12)


def test_stamp_set_survives_parquet(tmp_path):
    stamps, models = make_stamps()
    table = through_parquet(stamps.to_table(), tmp_path / "stamps.parquet")
    basis = through_parquet(stamps.basis_table(), tmp_path / "basis.parquet")
    again = StampSet.from_tables(table, basis)
    assert again.provides == stamps.provides
    assert again.sources.colnames == stamps.sources.colnames
    for name in stamps.sources.colnames:
        np.testing.assert_array_equal(again.sources[name], stamps.sources[name])
        assert again.sources[name].unit == stamps.sources[name].unit
        assert again.sources[name].dtype.kind == stamps.sources[name].dtype.kind
    for name, plane in stamps.planes.items():
        assert again.planes[name].dtype == plane.dtype
        np.testing.assert_array_equal(again.planes[name], plane)
        assert table[name].unit == PLANES[name][0]
    for name in models:
        # Coefficients are stored in single precision.
        expected = stamps.models[name].images()
        np.testing.assert_allclose(again.models[name].images(), expected, atol=3e-7 * np.abs(expected).max())


def test_some_planes_of_a_stamp_set_can_be_read_alone(tmp_path):
    stamps, _ = make_stamps()
    columns = ["diaSourceId", "x", "y", "x0", "y0", "difference", "differencePsfTerms"]
    table = through_parquet(stamps.to_table(), tmp_path / "stamps.parquet", columns)
    without_basis = StampSet.from_tables(table)
    assert without_basis.provides == {"difference"}
    assert without_basis.sources.colnames == columns[:5]
    np.testing.assert_array_equal(without_basis.dx, stamps.dx)
    assert StampSet.from_tables(table, stamps.basis_table()).provides == {"difference", "differencePsf"}


def test_models_of_one_image_a_source_survive_parquet(tmp_path):
    rng = np.random.default_rng(2)
    psf = rng.normal(size=(2, 9, 9))
    sources = source_table([3.0, 4.0], [5.0, 6.0])
    sources["x0"], sources["y0"] = [0, 0], [0, 0]
    stamps = StampSet(
        sources, {"science": rng.normal(size=(2, 7, 7))}, {"sciencePsf": StampModel.from_images(psf)}
    )
    again = StampSet.from_tables(through_parquet(stamps.to_table(), tmp_path / "alerts.parquet"))
    np.testing.assert_array_equal(again.models["sciencePsf"].images(), psf)
    np.testing.assert_array_equal(again[1:].models["sciencePsf"].images(), psf[1:])
    assert len(stamps.basis_table()) == 0


def test_no_sources_make_an_empty_stamp_set_that_survives_parquet(tmp_path):
    stamps, models = make_stamps(15, np.zeros(0), np.zeros(0))
    assert len(stamps) == 0
    assert stamps.planes["difference"].shape == (0, 15, 15)
    table = through_parquet(stamps.to_table(), tmp_path / "stamps.parquet")
    again = StampSet.from_tables(table, stamps.basis_table())
    assert len(again) == 0
    assert again.size == 15
    assert again.provides == stamps.provides
    assert again.sources["pixelToSky"].shape == (0, 2, 2)
    assert again.sources["x"].dtype == np.float64
    for name, basis in models.items():
        assert again.models[name].images().shape == (0, basis.size, basis.size)


@pytest.mark.parametrize("index", [slice(1, 3), np.array([2, 0]), np.array([True, False, True])])
def test_rows_of_a_stamp_set_belong_together(index):
    stamps, _ = make_stamps()
    some = stamps[index]
    np.testing.assert_array_equal(some.sources["diaSourceId"], stamps.sources["diaSourceId"][index])
    np.testing.assert_array_equal(some.planes["difference"], stamps.planes["difference"][index])
    expected = stamps.models["differencePsf"].images()[index]
    np.testing.assert_allclose(some.models["differencePsf"].images(), expected)


def test_weight_is_inverse_variance_where_pixels_are_good():
    sources = source_table([2.0], [2.0])
    pixels = np.ones((1, 2, 3), dtype=np.float32)
    pixels[0, 0, 0] = np.nan
    variance = np.array([[[4.0, 4.0, 0.0], [np.nan, np.inf, 2.0]]], dtype=np.float32)
    stamps = StampSet(sources, {"difference": pixels, "differenceVariance": variance, "science": pixels})
    np.testing.assert_array_equal(stamps.weight("difference")[0], [[0.0, 0.25, 0.0], [0.0, 0.0, 0.5]])
    np.testing.assert_array_equal(stamps.weight("science")[0], [[0, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    ("plane", "ignored"),
    [
        ("difference", {"BAD", "SATURATED", "NO_DATA", "COSMIC_RAY", "UNMASKED_NAN", "SAT_TEMPLATE"}),
        ("science", {"BAD", "SATURATED", "NO_DATA", "COSMIC_RAY", "UNMASKED_NAN"}),
        ("template", {"BAD", "NO_DATA", "SAT_TEMPLATE"}),
    ],
)
def test_pixels_that_were_filled_have_no_weight(plane, ignored):
    words = np.array([1 << bit for bit in MASK_BITS.values()], dtype=np.uint32).reshape(1, 1, -1)
    stamps = StampSet(source_table([2.0], [2.0]), {plane: np.ones(words.shape), "mask": words})
    without = stamps.weight(plane)[0, 0] == 0
    assert {name for name, bit in MASK_BITS.items() if without[bit]} == ignored


@pytest.mark.parametrize("kind", [">f4", ">f8", "<f8"])
def test_weights_do_not_depend_on_how_files_hold_numbers(kind):
    rng = np.random.default_rng(1)
    planes = {
        "difference": rng.normal(size=(4, 9, 9)).astype(np.float32),
        "differenceVariance": rng.uniform(-0.5, 4.0, (4, 9, 9)).astype(np.float32),
        "mask": np.where(rng.uniform(size=(4, 9, 9)) < 0.2, 1 << MASK_BITS["SATURATED"], 0).astype(np.uint32),
    }
    planes["difference"][0, 0, :3] = np.nan, np.inf, -np.inf
    sources = source_table(np.zeros(4), np.zeros(4))
    native = StampSet(sources, planes)
    held = StampSet(
        sources,
        {name: plane.astype(">u4" if name == "mask" else kind) for name, plane in planes.items()},
    )
    np.testing.assert_array_equal(held.weight("difference"), native.weight("difference"))
    np.testing.assert_array_equal(held.good_pixels("difference"), native.good_pixels("difference"))
    good = np.isfinite(planes["difference"]) & (planes["differenceVariance"] > 0) & (planes["mask"] == 0)
    np.testing.assert_allclose(
        native.weight("difference"), np.where(good, 1.0 / planes["differenceVariance"], 0.0), rtol=1e-6
    )
    np.testing.assert_array_equal(native.good_pixels("difference"), np.where(good, planes["difference"], 0.0))


def test_stamps_cut_in_parts_share_what_was_prepared_of_their_models():
    basis = varying_psf()
    first, second = (
        StampModel.from_pixel_basis(basis, np.array([x]), np.array([1030.0])) for x in (510.0, 570.0)
    )
    assert first._shifted is second._shifted
    other = StampModel.from_pixel_basis(varying_psf(), np.array([510.0]), np.array([1030.0]))
    assert other._shifted is not first._shifted
    # Both have the images of their own places.
    for model in (first, second):
        np.testing.assert_allclose(model.shifted(np.zeros(1), np.zeros(1), 11), model.images(), atol=1e-4)


@pytest.mark.parametrize("size", [0, -3])
def test_size_must_be_positive(size):
    with pytest.raises(ValueError, match="must be positive"):
        cut_stamps(source_table([1.0], [1.0]), {}, {}, projection(), size)


def test_sources_need_positions():
    with pytest.raises(ValueError, match=r"\['y'\]"):
        cut_stamps(source_table([1.0], [1.0])["diaSourceId", "x"], {}, {}, projection(), 5)


def test_parts_that_do_not_fit_together_are_refused():
    sources = source_table([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="disagree in shape"):
        StampSet(sources, {"science": np.zeros((2, 5, 5)), "template": np.zeros((2, 7, 7))})
    with pytest.raises(ValueError, match="disagree in shape"):
        StampSet(sources, {"science": np.zeros((3, 5, 5))})
    with pytest.raises(ValueError, match="3 rows for 2 sources"):
        StampSet(sources, {}, {"sciencePsf": StampModel.from_images(np.zeros((3, 5, 5)))})
    with pytest.raises(ValueError, match="Unknown stamp planes"):
        StampSet(sources, {"sciense": np.zeros((2, 5, 5))})


def test_source_columns_may_not_have_the_names_of_planes():
    sources = source_table([1.0], [1.0])
    sources["score"] = [7.0]
    assert len(StampSet(sources, {"science": np.zeros((1, 5, 5))})) == 1
    with pytest.raises(ValueError, match="score"):
        StampSet(sources, {"score": np.zeros((1, 5, 5))})


def test_bases_of_another_subtraction_are_refused():
    stamps, _ = make_stamps()
    other = cut_stamps(
        source_table([530.0], [1030.0]), {}, {"differencePsf": varying_psf(order=1)}, projection(), 15
    )
    with pytest.raises(ValueError, match="different subtractions"):
        StampSet.from_tables(stamps.to_table(), other.basis_table())


def test_table_without_source_columns_says_what_is_missing(tmp_path):
    stamps, _ = make_stamps()
    table = through_parquet(stamps.to_table(), tmp_path / "stamps.parquet", ["difference"])
    with pytest.raises(ValueError, match="x0"):
        StampSet.from_tables(table)
