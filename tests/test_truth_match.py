"""Truth of any origin is read, each source gets one object and each object one source, and chance is counted."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table
from lsst.images import Box

from lsst.diainspect.catalogs import read_dia_sources
from lsst.diainspect.detection import empty_dia_sources
from lsst.diainspect.simulation import SimulatedPair
from lsst.diainspect.truth import (
    FiducialArea,
    MatchSettings,
    TruthError,
    count_matches,
    match_positions,
    match_truth,
    place_truth,
    read_truth,
    source_truth,
    standard_truth,
    tangent_plane,
)

DATA = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
SCALE = 0.2 / 3600.0
"""Size of a pixel [deg]."""


def _sources(x: object, y: object, **columns: object) -> Table:
    """Sources on the equator, where a pixel is 0.2 arcsec of ra and of dec."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    table = empty_dia_sources(len(x))
    table["diaSourceId"] = np.arange(1, len(x) + 1)
    table["x"][:], table["y"][:] = x, y
    table["ra"][:], table["dec"][:] = 10.0 + SCALE * x, SCALE * y
    table["xErr"][:] = table["yErr"][:] = 0.1
    table["psfFlux"][:], table["psfFluxErr"][:], table["snr"][:] = 100.0, 10.0, 10.0
    for name, values in columns.items():
        table[name][:] = values
    return table


def _truth(x: object, y: object, **columns: object) -> Table:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    table = Table({"objectId": np.arange(100, 100 + len(x)), "x": x, "y": y})
    table["ra"], table["dec"] = 10.0 + SCALE * x, SCALE * y
    table["fluxChange"] = np.full(len(x), 100.0)
    for name, values in columns.items():
        table[name] = np.broadcast_to(values, len(x))
    return standard_truth(table)


def test_injection_catalogue_is_truth_of_what_was_added() -> None:
    table = Table(
        {
            "injection_id": [7, 8, 9],
            "ra": [10.0, 10.1, 10.2],
            "dec": [0.0, 0.0, 0.0],
            "mag": [31.4, 21.4, 22.0],
            "source_type": ["Star", "Sersic", "Star"],
            "injection_flag": [0, 0, 4],
        }
    )
    truth = standard_truth(table)
    # The third was not injected.
    assert list(truth["truthId"]) == [7, 8]
    assert np.allclose(truth["fluxChange"], [1.0, 1e4])
    assert truth["fluxChange"].unit == u.nJy
    assert list(truth["kind"]) == ["Star", "Sersic"]
    assert truth["isChange"].all()


def test_dc2_truth_changes_where_it_says_so() -> None:
    summary = Table(
        {
            "id": ["MS_1", "41", "MS_3"],
            "ra": [1.0, 2.0, 3.0],
            "dec": [0.0, 0.0, 0.0],
            "flux_r": [10.0, 20.0, 30.0],
            "mag_r": [28.9, 28.1, 27.7],
            "is_variable": [1, 0, 1],
            "truth_type": [2, 1, 3],
        }
    )
    truth = standard_truth(summary, band="r")
    assert list(truth["isChange"]) == [True, False, True]
    assert np.isnan(truth["fluxChange"][0]) and truth["fluxChange"][1] == 0
    assert np.allclose(truth["mag"], [28.9, 28.1, 27.7])
    # Identifiers that are text become the numbers of the rows.
    assert list(truth["truthId"]) == [0, 1, 2]
    variability = Table(
        {"id": [5], "obsHistID": [943296], "MJD": [60000.5], "delta_flux": [-50.0], "ra": [1.0], "dec": [2.0]}
    )
    truth = standard_truth(variability)
    assert (truth["fluxChange"][0], truth["visit"][0], truth["mjd"][0]) == (-50.0, 943296, 60000.5)
    assert truth["mag"][0] == pytest.approx(31.4 - 2.5 * np.log10(50.0))


def test_truth_of_the_simulation_knows_everything(small_pair: SimulatedPair) -> None:
    truth = standard_truth(small_pair.truth)
    changed = np.asarray(small_pair.truth["fluxChange"]) != 0
    assert np.array_equal(np.asarray(truth["isChange"]), changed)
    assert np.array_equal(
        np.asarray(truth["idealSnr"])[changed], np.asarray(small_pair.truth["idealSnrWithSources"])[changed]
    )
    for name in ("hostSurfaceBrightness", "hostSeparation"):
        assert truth[name].unit == small_pair.truth[name].unit
        assert np.isfinite(truth[name]).any()


def test_units_are_converted_and_names_given() -> None:
    table = Table({"lon": [0.1] * u.rad, "lat": [0.0] * u.rad, "dF": [1.0] * u.uJy})
    truth = standard_truth(table, names={"ra": "lon", "dec": "lat", "fluxChange": "dF"})
    assert truth["ra"][0] == pytest.approx(np.rad2deg(0.1))
    assert truth["fluxChange"][0] == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "has neither ra, dec nor x, y; it has"),
        ({"ra": "nowhere"}, "has no column 'nowhere' for ra"),
        ({"colour": "lon"}, "Unknown columns of a truth table"),
        ({"ra": "lon", "dec": "word"}, "Column word of the truth table"),
    ],
)
def test_errors_say_what_is_missing(names: dict[str, str], message: str) -> None:
    with pytest.raises(TruthError, match=message):
        standard_truth(Table({"lon": [1.0], "lat": [2.0], "word": ["north"]}), names=names)


def test_truth_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "truth.ecsv"
    Table({"ra": [1.0], "dec": [2.0], "mag": [20.0]}).write(path)
    assert len(read_truth(path)) == 1
    with pytest.raises(TruthError, match="no such file"):
        read_truth(tmp_path / "none.ecsv")
    Table({"a": [1.0]}).write(path, overwrite=True)
    with pytest.raises(TruthError, match=r"truth.ecsv: .* neither ra, dec"):
        read_truth(path)


def test_objects_get_pixels_from_the_sky_and_sky_from_pixels(small_pair: SimulatedPair) -> None:
    projection = small_pair.science.sky_projection
    truth = standard_truth(small_pair.truth)
    for kept in (("ra", "dec"), ("x", "y")):
        other = standard_truth(small_pair.truth[[*kept, "fluxChange"]])
        placed = place_truth(other, projection)
        sky = projection.pixel_to_sky(x=np.asarray(placed["x"]), y=np.asarray(placed["y"]))
        assert np.allclose(sky.ra.deg, placed["ra"], atol=1e-9)
        assert np.allclose(placed[kept[0]], truth[kept[0]], atol=1e-9)


def _best_by_trying(first: np.ndarray, second: np.ndarray, radius: float) -> float:
    """Largest sum of 1 - (d / r)^2 over all sets of pairs."""
    best = 0.0
    for order in itertools.permutations(range(len(second)), len(first)):
        distance = np.hypot(*(first - second[list(order)]).T)
        gain = np.where(distance <= radius, 1.0 - (distance / radius) ** 2, 0.0).sum()
        best = max(best, float(gain))
    return best


def test_pairs_are_unique_and_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        first, second = rng.uniform(0.0, 3.0, (5, 2)), rng.uniform(0.0, 3.0, (6, 2))
        pairs = match_positions(first, second, 1.0)
        assert len(np.unique(pairs.first)) == len(pairs.first)
        assert len(np.unique(pairs.second)) == len(pairs.second)
        assert np.allclose(pairs.distance, np.hypot(*(first[pairs.first] - second[pairs.second]).T))
        assert (1.0 - pairs.distance**2).sum() == pytest.approx(_best_by_trying(first, second, 1.0))


def test_positions_that_are_not_finite_have_no_pair() -> None:
    first = np.array([[0.0, 0.0], [np.nan, 0.0]])
    pairs = match_positions(first, np.array([[np.nan, np.nan], [0.0, 0.0]]), 1.0)
    assert (list(pairs.first), list(pairs.second), list(pairs.distance)) == ([0], [1], [0.0])
    with pytest.raises(ValueError, match="radius of a match must be positive"):
        match_positions(first, first, 0.0)


def test_tangent_plane_keeps_small_distances_across_zero_of_right_ascension() -> None:
    plane = tangent_plane(np.array([359.999, 0.001]), np.array([60.0, 60.0]), 0.0, 60.0)
    assert np.hypot(*(plane[1] - plane[0])) == pytest.approx(0.002 * 0.5 * 3600.0, rel=1e-6)


def test_each_object_and_each_source_has_one_row() -> None:
    # An object with two sources, one missed, one constant; a spurious source.
    truth = _truth(
        [100, 200, 300], [100, 100, 100], fluxChange=[100.0, 100.0, 0.0], kind=["transient"] * 2 + ["star"]
    )
    sources = _sources([100.5, 101.5, 301.0], [100, 100, 100], psfFlux=[120.0, 100.0, 100.0])
    matches = match_truth(sources, truth, MatchSettings(radius=0.5))
    assert list(matches["isTruth"]) == [True, True, False, False]
    assert list(matches["isDetected"]) == [True, False, False, False]
    assert list(matches["isDuplicate"]) == [False, False, True, False]
    assert list(matches["isSpurious"]) == [False, False, False, True]
    assert list(matches["diaSourceId"]) == [1, 0, 2, 3]
    assert list(matches["truthId"]) == [100, 101, 100, -1]
    assert matches["nDuplicates"][0] == 1
    assert matches["separation"][0] == pytest.approx(0.1, abs=1e-6)
    assert matches["fluxPull"][0] == pytest.approx(2.0)
    assert matches["xPull"][0] == pytest.approx(5.0, rel=1e-6)
    assert np.isnan(matches["fluxPull"][1:]).all()
    # The constant star is no change, but it is what the spurious source lies on.
    assert matches["nearestKind"][3] == "star"
    assert matches["nearestSeparation"][3] == pytest.approx(0.2, abs=1e-5)
    told = source_truth(matches)
    assert list(told["diaSourceId"]) == [1, 2, 3]
    assert list(told["truthIsReal"]) == [True, False, False]


def test_sign_time_and_significance_decide_what_may_match() -> None:
    truth = _truth(
        [100, 200, 300, 400],
        [100] * 4,
        fluxChange=[-100.0, 100.0, 100.0, 100.0],
        mjd=[60000.0, 60000.0, 60001.0, 60000.0],
        idealSnr=[10.0, 10.0, 10.0, 0.3],
    )
    sources = _sources([100, 200, 300, 400], [100] * 4, midpointMjdTai=60000.0)
    matches = match_truth(sources, truth, MatchSettings())
    # The fourth has not changed enough to be looked for at all.
    assert list(matches["truthId"][matches["isTruth"]]) == [100, 101, 102]
    assert list(matches["isDetected"][matches["isTruth"]]) == [False, True, False]
    relaxed = MatchSettings(same_sign=False, time_window=1e6, least_ideal_snr=0.0)
    assert match_truth(sources, truth, relaxed)["isDetected"].sum() == 4


def test_sky_sources_are_not_detections() -> None:
    sources = _sources([100.0, 100.2], [100.0, 100.0])
    sources["sky_source"] = np.array([False, True])
    matches = match_truth(sources, _truth([100], [100]), MatchSettings())
    assert len(matches) == 1 and matches["diaSourceId"][0] == 1


def test_what_could_not_be_detected_is_not_fiducial() -> None:
    good = np.ones((300, 300), dtype=bool)
    good[:, :100] = False
    area = FiducialArea(good, Box.from_shape((300, 300)))
    truth = _truth([50, 150, 250], [100, 100, 100])
    matches = match_truth(_sources([150, 60, 170], [100, 200, 200]), truth, MatchSettings(), area=area)
    assert list(matches["isFiducial"]) == [False, True, True, False, True]
    counts = count_matches(matches, 0.5)
    assert [counts[name][0] for name in ("fiducialArea", "nTruth", "nDetected", "nSpurious")] == [
        0.5,
        2,
        1,
        1,
    ]
    # Beyond the image nothing is good, and asking does no harm.
    assert list(area.contains(np.array([-5.0, 299.4, 299.6, np.nan]), np.full(4, 10.0))) == [
        False,
        True,
        False,
        False,
    ]


def test_flags_and_wanted_columns_of_sources_and_diagnostics_are_copied() -> None:
    sources = _sources([100, 200], [100, 100], pixelFlags_edge=[True, False], psfChi2=[3.0, 4.0])
    diagnostics = Table(
        {"diaSourceId": [2, 1], "modes_flag": [True, False], "modes_bic": [2.0, 1.0], "other": [0.0, 0.0]}
    )
    settings = MatchSettings(copied_columns=("psfChi2", "modes_*"))
    matches = match_truth(sources, _truth([100, 150], [100, 100]), settings, diagnostics=diagnostics)
    assert list(matches["diaSourceId"]) == [1, 0, 2]
    assert list(matches["pixelFlags_edge"]) == [True, False, False]
    assert list(matches["modes_flag"]) == [False, False, True]
    assert np.array_equal(matches["modes_bic"], [1.0, np.nan, 2.0], equal_nan=True)
    assert matches["psfChi2"][0] == 3.0 and "other" not in matches.colnames


@pytest.mark.parametrize(("n_sources", "n_truth"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_match_makes_a_table_all_the_same(n_sources: int, n_truth: int) -> None:
    sources, truth = (
        _sources(np.arange(n_sources), np.zeros(n_sources)),
        _truth(np.arange(n_truth), np.zeros(n_truth)),
    )
    full = match_truth(_sources([1.0], [1.0]), _truth([1.0], [1.0]), MatchSettings())
    matches = match_truth(sources[:n_sources], truth[:n_truth], MatchSettings())
    assert len(matches) == n_sources + n_truth - min(n_sources, n_truth)
    assert matches.colnames == full.colnames
    assert [matches[name].dtype for name in matches.colnames] == [full[name].dtype for name in full.colnames]


def test_chance_makes_as_many_matches_as_displaced_sources_say() -> None:
    """Unrelated sources and objects: the matches found are Poisson with the mean that is reported."""
    rng = np.random.default_rng(2)
    size, found, expected = 1000, 0, 0.0
    box = Box.from_shape((size, size))
    area = FiducialArea(np.ones((size, size), dtype=bool), box)
    n_trials, n = 60, 150
    for _ in range(n_trials):
        sources = _sources(*rng.uniform(0, size - 1, (2, n)))
        truth = _truth(*rng.uniform(0, size - 1, (2, n)))
        matches = match_truth(sources, truth, MatchSettings(radius=0.6, least_ideal_snr=0.0), area=area)
        found += int(matches["isDetected"].sum())
        expected += float(matches["chanceMatch"].sum())
    # n^2 pi r^2 / A, with r = 3 pixels, less the few that lose a competition.
    assert expected / n_trials == pytest.approx(n**2 * np.pi * 9.0 / size**2, rel=0.05)
    assert abs(found - expected) < 4.0 * np.sqrt(expected)


def test_displacements_must_leave_the_own_object() -> None:
    with pytest.raises(ValueError, match="could find their own object"):
        MatchSettings(radius=4.0)


def test_tables_made_without_the_fakes_match_them_as_often_as_chance_says() -> None:
    """A null test on real data: DC2 sources of alert production against a catalogue of stars that were not in it."""
    folder = DATA / "dia_tables_ap_verify" / "dc2"
    if not folder.exists():
        pytest.skip(f"There is no {folder}: set DIAINSPECT_TESTDATA_DIR to the folder of the test data.")
    catalogues = [read_truth(path) for path in sorted(folder.glob("injection_catalog_r_*.parq"))]
    assert sum(len(catalogue) for catalogue in catalogues) == 644
    (path,) = folder.glob("preloaded_dia_source_*_982985_*.parq")
    tables = [read_dia_sources(path)]
    tables += [
        table
        for table in (
            read_dia_sources(other) for other in folder.glob("preloaded_dia_source_*_943296_*.parq")
        )
        if len(table)
    ]
    n_sources = sum(len(table) for table in tables)
    assert n_sources == 119
    for radius in (1.0, 5.0):
        found, expected = 0, 0.0
        settings = MatchSettings(radius=radius, same_sign=False, chance_distances=(20.0, 30.0, 40.0))
        for table, catalogue in itertools.product(tables, catalogues):
            matches = match_truth(table, catalogue, settings)
            found += int(matches["isDetected"].sum())
            expected += float(matches["chanceMatch"].sum())
        # About 644 objects on 0.14 square degrees, 119 sources.
        assert expected == pytest.approx(0.15 * radius**2, rel=0.7)
        assert abs(found - expected) <= 4.0 * np.sqrt(expected) + 1.0
