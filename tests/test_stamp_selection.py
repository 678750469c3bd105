"""Which sources are cut: conditions, lists, random fractions, positions on the sky."""

from __future__ import annotations

import astropy.units as u
import astropy.wcs
import numpy as np
import pytest
from astropy.table import Column, MaskedColumn, Table
from lsst.images import Box, GeneralFrame, SkyProjection

from lsst.diainspect.stamps import Query, QueryError, Selection, sources_at_positions, uniform_by_id


@pytest.fixture
def sources() -> Table:
    table = Table()
    table["diaSourceId"] = np.array([10, 20, 30, 40, 2**62], dtype=np.int64)
    table["snr"] = [5.0, 12.0, np.nan, 30.0, -8.0]
    table["isDipole"] = [True, True, True, False, False]
    table["band"] = np.array(["r", "i", "r", "g", "r"])
    table["nData"] = MaskedColumn([1, 2, 3, 4, 5], mask=[False, False, False, True, False])
    table["stamp"] = np.zeros((5, 2, 2))
    return table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("snr > 10 and isDipole", [1]),
        ("snr > 10 & isDipole", None),
        ("(snr > 10) & isDipole", [1]),
        ("snr > 10 or not isDipole", [1, 3, 4]),
        ("isDipole", [0, 1, 2]),
        ("5 <= snr < 30", [0, 1]),
        ("abs(snr) > 6", [1, 3, 4]),
        ("isnan(snr)", [2]),
        ("band in ['r', 'g'] and isfinite(snr)", [0, 3, 4]),
        ("band not in ['r']", [1, 3]),
        ("band == 'i'", [1]),
        ("diaSourceId == 4611686018427387904", [4]),
        ("diaSourceId % 20 == 0 and diaSourceId < 100", [1, 3]),
        ("snr ** 2 / 4 - 1 > 35", [3]),
        ("nData > 2", [2, 4]),
        ("not nData > 2", [0, 1]),
        ("hypot(snr, 0) == 12", [1]),
        ("True", [0, 1, 2, 3, 4]),
    ],
)
def test_condition_selects_the_rows_for_which_it_is_true(
    sources: Table, text: str, expected: list[int] | None
) -> None:
    if expected is None:
        # Python's & binds tighter than comparisons; what that means here is refused, not guessed.
        with pytest.raises(QueryError):
            Query(text).select(sources)
    else:
        np.testing.assert_array_equal(np.flatnonzero(Query(text).select(sources)), expected)


def test_unknown_column_is_named_with_those_like_it(sources: Table) -> None:
    with pytest.raises(QueryError, match=r"no column 'isDipol'.*Did you mean isDipole"):
        Query("snr > 3 and isDipol").select(sources)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "snr.__class__",
        "[x for x in snr]",
        "(lambda: True)()",
        "f'{snr}'",
        "snr[0] > 1",
        "sum(snr)",
        "abs(snr, key=1)",
        "snr > 3 if isDipole else snr > 4",
        "snr >",
        "",
        "a := 3",
        "not " * 2000 + "True",
        "(" * 500 + "1" + ")" * 500,
        "snr > 1 #" + "x" * 10000,
    ],
)
def test_what_is_not_a_condition_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        Query(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("snr", "float64"),
        ("snr and isDipole", "not true or false"),
        ("band > 3", "cannot be evaluated"),
        ("snr in 3", "must be a list"),
        ("snr is True", "not allowed"),
        ("snr << 2 > 1", "not allowed"),
        ("stamp > 1", "shape"),
        ("9 ** 9 ** 9 ** 9 > snr + band", "cannot be evaluated"),
    ],
)
def test_conditions_that_do_not_fit_the_columns_are_refused(sources: Table, text: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        Query(text).select(sources)


def test_condition_knows_its_columns() -> None:
    assert Query("abs(snr) > 10 and isDipole").columns == {"snr", "isDipole"}


def test_conditions_work_on_tables_without_rows(sources: Table) -> None:
    assert Query("snr > 3 and band == 'r'").select(sources[:0]).shape == (0,)


def test_random_numbers_are_uniform_and_belong_to_the_source() -> None:
    identifiers = np.arange(100_000, dtype=np.int64) + (35 << 37)
    numbers = uniform_by_id(identifiers, 0)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    # 5 sigma of Poisson counts in 100 bins.
    counts = np.bincount((100 * numbers).astype(int), minlength=100)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)
    # Neighbouring identifiers and other seeds are independent: correlations of 1e5 pairs.
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 5 / np.sqrt(1e5)
    assert abs(np.corrcoef(numbers, uniform_by_id(identifiers, 1))[0, 1]) < 5 / np.sqrt(1e5)
    shuffled = np.random.default_rng(1).permutation(len(identifiers))
    np.testing.assert_array_equal(uniform_by_id(identifiers[shuffled], 0), numbers[shuffled])


def test_smaller_fraction_is_part_of_a_larger_one(sources: Table) -> None:
    many = Table({"diaSourceId": np.arange(2000)})
    some = Selection(fraction=0.3, seed=4).rows(many)
    assert abs(len(some) - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7)
    assert set(Selection(fraction=0.1, seed=4).rows(many)) < set(some)
    assert set(Selection(fraction=0.3, seed=5).rows(many)) != set(some)


def test_selections_are_combined(sources: Table) -> None:
    assert Selection().takes_all
    assert list(Selection().rows(sources)) == [0, 1, 2, 3, 4]
    assert list(Selection("snr > 6", (40, 10, 77)).rows(sources)) == [3]
    assert list(Selection(ids=(2**62,)).rows(sources)) == [4]


@pytest.mark.parametrize(
    "arguments", [{"fraction": 0.0}, {"fraction": 1.5}, {"seed": -1}, {"where": "snr >"}]
)
def test_selections_that_mean_nothing_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError):
        Selection(**arguments)


BOX = Box.factory[100:300, 50:350]


def _projection() -> SkyProjection:
    wcs = astropy.wcs.WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [0.01, 60.0]
    wcs.wcs.crpix = [200.0, 200.0]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    wcs.wcs.set()
    return SkyProjection.from_fits_wcs(wcs, GeneralFrame(unit=u.pix))


def test_positions_are_those_whose_stamps_share_a_pixel_with_the_image() -> None:
    x = np.array([200.0, 50.0, 45.3, 44.0, 354.4, 355.3, 200.0, 1e6])
    y = np.array([150.0, 100.0, 150.0, 150.0, 150.0, 150.0, 305.2, 150.0])
    sky = _projection().pixel_to_sky(x=x, y=y)
    table = Table({"ra": Column(sky.ra.deg, unit=u.deg), "dec": Column(sky.dec.deg, unit=u.deg)})
    table["name"] = list("abcdefgh")
    found = sources_at_positions(table, _projection(), BOX, 11)
    assert list(found["name"]) == ["a", "b", "c", "e"]
    assert list(found["diaSourceId"]) == [1, 2, 3, 5]
    np.testing.assert_allclose(found["x"], [200.0, 50.0, 45.3, 354.4], atol=1e-5)
    np.testing.assert_allclose(found["y"], [150.0, 100.0, 150.0, 150.0], atol=1e-5)
    # A stamp two pixels larger reaches one pixel farther.
    assert list(sources_at_positions(table, _projection(), BOX, 13)["name"]) == [
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
    ]


def test_positions_on_the_other_side_of_the_sky_are_not_on_the_image() -> None:
    # Antipodes have the same tangent-plane coordinates.
    table = Table({"ra": [180.01, np.nan, 0.01, 0.01], "dec": [-60.0, 60.0, 95.0, 60.0]})
    assert list(sources_at_positions(table, _projection(), BOX, 5)["diaSourceId"]) == [4]


def test_units_of_positions_are_heeded() -> None:
    table = Table({"ra": Column([0.01 * 3600], unit=u.arcsec), "dec": Column([60.0], unit=u.deg)})
    found = sources_at_positions(table, _projection(), BOX, 5)
    np.testing.assert_allclose([found["x"][0], found["y"][0]], [199.0, 199.0], atol=1e-6)
    table["ra"].unit = u.Jy
    with pytest.raises(ValueError, match="not an angle"):
        sources_at_positions(table, _projection(), BOX, 5)


def test_tables_that_are_not_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks \['dec'\]"):
        sources_at_positions(Table({"ra": [1.0]}), _projection(), BOX, 5)
    twice = Table({"ra": [1.0, 2.0], "dec": [1.0, 2.0], "diaSourceId": [3, 3]})
    with pytest.raises(ValueError, match="more than once"):
        sources_at_positions(twice, _projection(), BOX, 5)
