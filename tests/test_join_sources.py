"""Joining the sources of several methods by position."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Column, Table
from lsst.daf.butler.formatters.parquet import arrow_to_astropy, astropy_to_arrow

from lsst.diainspect.comparison import join_sources
from lsst.diainspect.detection import empty_dia_sources


def table_of(positions: object, first_id: int = 1, negative: object = False) -> Table:
    """A DIA source table of one visit at positions (x, y), with fluxes that say which source it is."""
    x, y = np.asarray(positions, dtype=float).reshape(-1, 2).T
    table = empty_dia_sources(len(x))
    table["diaSourceId"] = np.arange(first_id, first_id + len(x))
    table["visit"], table["detector"], table["band"] = 7, 3, "r"
    table["x"][:], table["y"][:] = x, y
    table["ra"][:], table["dec"][:] = 150.0 + 1e-5 * x, 2.0 + 1e-5 * y
    table["psfFlux"][:] = 100.0 * np.asarray(table["diaSourceId"])
    table["isNegative"][:] = negative
    return table


def diagnostics_of(sources: Table, order: object = slice(None)) -> Table:
    table = sources["diaSourceId", "visit", "detector"][order]
    table["noise_sigma"] = Column(
        0.5 * np.asarray(table["diaSourceId"], dtype=np.float32),
        unit=u.nJy,
        description="Half the identifier.",
    )
    table["noise_flag"] = Column(np.asarray(table["diaSourceId"]) % 2 == 0, description="Even.")
    return table


def groups(joined: Table, *methods: str) -> set[tuple[int, ...]]:
    """Identifiers that were joined, 0 for none."""
    return set(zip(*[np.asarray(joined[f"{m}_diaSourceId"]).tolist() for m in methods], strict=True))


def test_random_sources_are_matched_to_their_own():
    rng = np.random.default_rng(1)
    n = 400
    # On a grid of 20 pixels with offsets below 1 pixel there is one right answer.
    x, y = np.meshgrid(np.arange(20) * 20.0, np.arange(20) * 20.0)
    first = np.stack([x.ravel(), y.ravel()], axis=-1)
    second = first + rng.uniform(-0.7, 0.7, first.shape)
    in_first, in_second = rng.random((2, n)) < 0.8
    al, zogy = table_of(first[in_first], 1), table_of(second[in_second], 10001)
    joined = join_sources({"al": al, "zogy": zogy[rng.permutation(len(zogy))]}, {}, 3.0)
    index = np.arange(n)
    al_id = np.where(in_first, np.cumsum(in_first), 0)
    zogy_id = np.where(in_second, 10000 + np.cumsum(in_second), 0)
    either = in_first | in_second
    assert groups(joined, "al", "zogy") == set(
        zip(al_id[either].tolist(), zogy_id[either].tolist(), strict=True)
    )
    assert len(joined) == index[either].size
    np.testing.assert_array_equal(joined["al_found"], joined["al_diaSourceId"] > 0)
    np.testing.assert_array_equal(
        joined["nMethods"], joined["al_found"].astype(int) + joined["zogy_found"].astype(int)
    )


def test_positions_are_those_of_the_first_method_that_has_the_source():
    joined = join_sources({"al": table_of([(10, 10)]), "zogy": table_of([(11, 10), (50, 60)], 101)}, {}, 3.0)
    np.testing.assert_array_equal(joined["x"], [10, 50])
    np.testing.assert_array_equal(joined["y"], [10, 60])
    np.testing.assert_allclose(joined["ra"], [150.0001, 150.0005], rtol=1e-15)
    np.testing.assert_allclose(joined["dec"], [2.0001, 2.0006], rtol=1e-15)
    assert joined["x"].unit == u.pix
    assert joined["ra"].unit == u.deg
    np.testing.assert_array_equal(joined["visit"], 7)
    np.testing.assert_array_equal(joined["detector"], 3)
    np.testing.assert_array_equal(joined["band"], "r")


@pytest.mark.parametrize(("distance", "matched"), [(2.99, True), (3.0, True), (3.01, False)])
def test_matches_lie_within_the_radius(distance, matched):
    joined = join_sources(
        {"al": table_of([(100, 100)]), "zogy": table_of([(100, 100 + distance)], 101)}, {}, 3.0
    )
    assert len(joined) == (1 if matched else 2)


def test_matches_are_mutually_nearest_and_one_to_one():
    # Sources 1 and 2 both have 101 as their nearest; 101 has 2. What is left of 1 is a group of its own.
    al = table_of([(100.0, 100.0), (101.5, 100.0)])
    joined = join_sources({"al": al, "zogy": table_of([(102.0, 100.0)], 101)}, {}, 3.0)
    assert groups(joined, "al", "zogy") == {(1, 0), (2, 101)}
    joined = join_sources({"zogy": table_of([(102.0, 100.0)], 101), "al": al}, {}, 3.0)
    assert groups(joined, "al", "zogy") == {(1, 0), (2, 101)}


def test_no_source_is_lost_or_doubled_in_a_crowd():
    rng = np.random.default_rng(2)
    sources = {
        name: table_of(rng.uniform(0, 60, (n, 2)), first)
        for name, n, first in (("a", 150, 1), ("b", 90, 1001), ("c", 200, 2001))
    }
    joined = join_sources(sources, {}, 3.0)
    for name, table in sources.items():
        identifiers = np.asarray(joined[f"{name}_diaSourceId"])
        np.testing.assert_array_equal(np.sort(identifiers[identifiers > 0]), table["diaSourceId"])
        found = joined[f"{name}_found"]
        np.testing.assert_array_equal(joined[f"{name}_psfFlux"][found], 100.0 * identifiers[found])
        offset = np.hypot(joined[f"{name}_x"] - joined["x"], joined[f"{name}_y"] - joined["y"])
        assert np.nanmax(offset) <= 3.0
    assert joined["nMethods"].max() == 3


def test_sources_of_opposite_sign_match():
    joined = join_sources(
        {"al": table_of([(10, 10)]), "zogy": table_of([(10, 11)], 101, negative=True)}, {}, 3.0
    )
    assert len(joined) == 1
    assert not joined["al_isNegative"][0]
    assert joined["zogy_isNegative"][0]


def test_what_a_method_did_not_find_is_empty():
    sources = {"al": table_of([(10, 10)]), "zogy": table_of([(50, 50)], 101)}
    joined = join_sources(sources, {name: diagnostics_of(t) for name, t in sources.items()}, 3.0)
    np.testing.assert_array_equal(joined["al_found"], [True, False])
    np.testing.assert_array_equal(joined["zogy_found"], [False, True])
    assert joined["al_diaSourceId"][1] == 0
    assert np.isnan(joined["al_psfFlux"][1])
    assert np.isnan(joined["al_noise_sigma"][1])
    assert not joined["al_isNegative"][1]
    assert not joined["al_noise_flag"][1]
    assert joined["zogy_psfFlux"][1] == 10100.0


def test_three_methods_are_joined_to_one_row_a_source():
    joined = join_sources(
        {
            "al": table_of([(10, 10), (30, 30)]),
            "zogy": table_of([(31, 30), (70, 70)], 101),
            "sfft": table_of([(70.5, 70), (10, 10.5), (90, 90)], 201),
        },
        {},
        3.0,
    )
    assert groups(joined, "al", "zogy", "sfft") == {
        (1, 0, 202),
        (2, 101, 0),
        (0, 102, 201),
        (0, 0, 203),
    }
    assert sorted(joined["nMethods"]) == [1, 2, 2, 2]


@pytest.mark.parametrize("seed", [None, 3])
def test_diagnostics_are_joined_by_identifier_in_any_order(seed):
    sources = {"al": table_of(np.arange(20).reshape(10, 2) * 10.0)}
    order = slice(None) if seed is None else np.random.default_rng(seed).permutation(10)
    joined = join_sources(sources, {"al": diagnostics_of(sources["al"], order)}, 3.0)
    np.testing.assert_array_equal(joined["al_noise_sigma"], 0.5 * joined["al_diaSourceId"])
    np.testing.assert_array_equal(joined["al_noise_flag"], joined["al_diaSourceId"] % 2 == 0)


def test_sources_without_diagnostics_and_diagnostics_without_sources_are_allowed():
    sources = {"al": table_of([(10, 10), (30, 30), (50, 50)]), "zogy": table_of([(10, 10)], 101)}
    partial = diagnostics_of(sources["al"], [2, 0])
    partial.add_row((999, 7, 3, 1.0, True))
    joined = join_sources(sources, {"al": partial}, 3.0)
    np.testing.assert_array_equal(joined["al_noise_sigma"], [0.5, np.nan, 1.5])
    assert not any(name.startswith("zogy_noise") for name in joined.colnames)


def test_columns_keep_type_unit_and_description():
    sources = {"al": table_of([(10, 10)]), "zogy": table_of([(50, 50)], 101)}
    diagnostics = {name: diagnostics_of(t) for name, t in sources.items()}
    joined = join_sources(sources, diagnostics, 3.0)
    skipped = {"visit", "detector", "band", "midpointMjdTai"}
    for tables in (sources, diagnostics):
        for method, table in tables.items():
            for name in set(table.colnames) - skipped:
                column = joined[f"{method}_{name}"]
                assert column.dtype == table[name].dtype
                assert column.unit == table[name].unit
                assert column.description == table[name].description
    assert all(joined[name].description for name in ("x", "y", "ra", "dec", "nMethods", "al_found"))
    assert len(set(joined.colnames)) == len(joined.colnames)


@pytest.mark.parametrize(("n_al", "n_zogy"), [(0, 2), (2, 0), (0, 0)])
def test_methods_without_sources_are_joined_and_survive_parquet(n_al, n_zogy, tmp_path):
    positions = np.array([(10.0, 10.0), (40.0, 40.0)])
    sources = {"al": table_of(positions[:n_al]), "zogy": table_of(positions[:n_zogy], 101)}
    for name, table in sources.items():
        pq.write_table(astropy_to_arrow(table), tmp_path / f"{name}.parquet")
        sources[name] = arrow_to_astropy(pq.read_table(tmp_path / f"{name}.parquet"))
    joined = join_sources(sources, {name: diagnostics_of(t) for name, t in sources.items()}, 3.0)
    pq.write_table(astropy_to_arrow(joined), tmp_path / "joined.parquet")
    again = arrow_to_astropy(pq.read_table(tmp_path / "joined.parquet"))
    assert len(again) == max(n_al, n_zogy)
    assert again.colnames == joined.colnames
    assert again["al_found"].sum() == n_al
    assert again["zogy_found"].sum() == n_zogy
    full = join_sources({"al": table_of(positions), "zogy": table_of(positions, 101)}, {}, 3.0)
    assert set(full.colnames) <= set(again.colnames)
    for name in full.colnames:
        assert again[name].dtype.kind == full[name].dtype.kind, name
        assert again[name].unit == full[name].unit, name
    np.testing.assert_array_equal(again["band"], ["r"] * len(again))


def test_no_methods_make_an_empty_table():
    joined = join_sources({}, {}, 3.0)
    assert len(joined) == 0
    assert {"x", "y", "nMethods"} <= set(joined.colnames)


def test_sources_without_a_position_match_nothing():
    joined = join_sources(
        {"al": table_of([(np.nan, 10), (30, 30)]), "zogy": table_of([(np.nan, 10), (30, 31)], 101)}, {}, 3.0
    )
    assert groups(joined, "al", "zogy") == {(1, 0), (2, 102), (0, 101)}
