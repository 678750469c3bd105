"""DIA source tables of other pipelines come in with today's names, types and units, whatever they were kept in."""

from __future__ import annotations

import datetime
import gzip
import os
import sqlite3
import tarfile
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from astropy.table import MaskedColumn, Table
from click.testing import CliRunner
from lsst.daf.butler import Butler, DatasetType

from commands import run_pipeline
from lsst.diainspect.catalogs import (
    CatalogError,
    dia_source_schema,
    ingest_sources,
    read_dia_sources,
    stack_tables,
    standard_record,
    standard_table,
)
from lsst.diainspect.catalogs._column_names import current_name
from lsst.diainspect.cli import main
from lsst.diainspect.simulation import SimulatedPair

DATA = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR") or Path(__file__).parents[2] / "shared" / "data")


def _data(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"There is no {path}: set DIAINSPECT_TESTDATA_DIR to the folder of the test data.")
    return path


def _table(**changes: object) -> Table:
    columns: dict[str, object] = {
        "diaSourceId": [1, 2, 3],
        "visit": [7, 7, 8],
        "detector": [0, 1, 0],
        "band": ["r", "r", "g"],
        "ra": [10.0, 10.1, 10.2],
        "dec": [-5.0, -5.0, -5.0],
        "x": [1.0, 2.0, 3.0],
        "y": [4.0, 5.0, 6.0],
        "psfFlux": [100.0, -200.0, 300.0],
        "psfFluxErr": [10.0, 10.0, 10.0],
    }
    columns.update(changes)
    return Table({name: column for name, column in columns.items() if column is not None})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("psFlux", "psfFlux"),
        ("psDeclErr", "psfDecErr"),
        ("psRa_psDecl_Cov", "psfRa_psfDec_Cov"),
        ("dipMeanFlux_dipDecl_Cov", "dipoleMeanFlux_dipoleDec_Cov"),
        ("trailDeclErr", "trailDecErr"),
        ("decl", "dec"),
        ("ra_decl_Cov", "ra_dec_Cov"),
        ("midPointTai", "midpointMjdTai"),
        ("filterName", "band"),
        ("is_negative", "isNegative"),
        ("totFlux", "scienceFlux"),
        ("snapDiffFlux", "snapDiffFlux"),
        ("spuriousness", "spuriousness"),
        ("psfFlux", "psfFlux"),
        ("dipoleMeanFlux", "dipoleMeanFlux"),
        ("declination", "declination"),
        ("dipoleFluxDiff_dipoleDec_Cov", "dipoleFluxDiff_dipoleDec_Cov"),
    ],
)
def test_old_names_are_todays(old: str, new: str) -> None:
    assert current_name(old) == new


def test_columns_have_units_without_the_schema_package(monkeypatch: pytest.MonkeyPatch) -> None:
    dia_source_schema.cache_clear()
    monkeypatch.setattr("lsst.diainspect.catalogs._dia_source_schema.find_spec", lambda name: None)
    try:
        schema = dia_source_schema()
    finally:
        dia_source_schema.cache_clear()
    assert schema["psfFlux"].unit == schema["apFlux"].unit == schema["dipoleMeanFlux"].unit == u.nJy
    assert (schema["ixxPSF"].unit, schema["trailRa"].unit, schema["x"].unit) == (u.arcsec**2, u.deg, u.pix)


def test_schema_package_agrees_with_our_units() -> None:
    pytest.importorskip("lsst.sdm.schemas")
    schema = dia_source_schema()
    assert schema["apFluxErr"].unit == u.nJy
    assert schema["timeProcessedMjdTai"].unit == u.d
    assert (schema["dipoleLength"].unit, schema["ixx"].unit) == (u.arcsec, u.arcsec**2)


def test_what_is_missing_is_nan_zero_false_or_empty() -> None:
    table = standard_table(
        {
            "psfFlux": [1.0, None],
            "psfNdata": MaskedColumn([5, 6], mask=[False, True]),
            "isDipole": [True, None],
            "band": ["r", None],
            "ssObjectId": np.array([3.0, np.nan]),
            "other": [None, 2.5],
        }
    )
    assert np.isnan(table["psfFlux"][1]) and np.isnan(table["other"][0])
    assert (list(table["psfNdata"]), list(table["isDipole"])) == ([5, 0], [True, False])
    assert (list(table["band"]), list(table["ssObjectId"])) == (["r", ""], [3, 0])
    assert table["psfFlux"].unit == u.nJy


def test_identifiers_keep_all_their_digits() -> None:
    table = standard_table({"diaSourceId": [2**62 + 1, 2**62 + 2], "diaObjectId": [2**62 + 3, None]})
    assert list(table["diaSourceId"]) == [2**62 + 1, 2**62 + 2]
    assert list(table["diaObjectId"]) == [2**62 + 3, 0]


@pytest.mark.parametrize(
    "columns",
    [{"psfFlux": ["bright", "faint"]}, {"detector": [0, 10**9]}, {"visit": [2**70, 1]}],
)
def test_values_of_another_kind_are_refused(columns: dict[str, list]) -> None:
    with pytest.raises(ValueError, match=f"Column {next(iter(columns))} cannot be read"):
        standard_table(columns)


def test_record_is_checked_value_by_value() -> None:
    record = standard_record(
        {"decl": 1, "isDipole": 1, "extra": "text", "when": datetime.datetime(2025, 1, 2), "nested": {"a": 1}}
    )
    assert record == {"dec": 1.0, "isDipole": True, "extra": "text", "when": "2025-01-02T00:00:00"}
    with pytest.raises(ValueError, match="psfFlux is a list"):
        standard_record({"psfFlux": [1.0]})


def test_stacked_tables_have_the_columns_of_all() -> None:
    first, second = standard_table({"psfFlux": [1.0]}), standard_table({"visit": [2], "band": ["r"]})
    stacked = stack_tables([first, second])
    assert np.isnan(stacked["psfFlux"][1])
    assert (list(stacked["visit"]), list(stacked["band"])) == ([0, 2], ["", "r"])
    assert stacked["psfFlux"].unit == u.nJy


def _write(table: Table, path: Path) -> Path:
    if path.name.endswith(".parq"):
        pyarrow.parquet.write_table(
            pyarrow.table({name: table[name].tolist() for name in table.colnames}), path
        )
    elif path.name.endswith(".sqlite3"):
        with sqlite3.connect(path) as connection:
            connection.execute(f"CREATE TABLE DiaSource ({', '.join(table.colnames)})")
            marks = ", ".join("?" * len(table.colnames))
            rows = [tuple(value.item() for value in row.values()) for row in table]
            connection.executemany(f"INSERT INTO DiaSource VALUES ({marks})", rows)
        connection.close()
    else:
        table.write(path)
    return path


@pytest.mark.parametrize("suffix", ["parq", "sqlite3", "ecsv", "csv", "fits"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_every_kind_of_file_gives_the_same_table(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = _write(_table(), tmp_path / f"sources.{suffix}")
    if packed:
        path = tmp_path / f"{path.name}.gz"
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    sources, expected = read_dia_sources(path), read_dia_sources(_table())
    assert sources.colnames == expected.colnames
    for name in expected.colnames:
        assert np.array_equal(np.asarray(sources[name]).astype(expected[name].dtype), expected[name]), name
        assert sources[name].unit == expected[name].unit


def test_what_can_be_derived_is_added() -> None:
    table = _table(visit=None, detector=None, diaSourceId=None)
    table["ccdVisitId"] = [943296168, 943296168, 982985164]
    sources = read_dia_sources(table)
    assert list(sources["visit"]) == [943296, 943296, 982985]
    assert list(sources["detector"]) == [168, 168, 164]
    assert list(sources["isNegative"]) == [False, True, False]
    assert list(sources["snr"]) == [10.0, 20.0, 30.0]
    assert list(sources["diaSourceId"]) == [1, 2, 3]
    assert "no identifiers" in sources["diaSourceId"].description


def test_rows_of_one_visit_and_detector_are_chosen() -> None:
    assert list(read_dia_sources(_table(), visit=7)["diaSourceId"]) == [1, 2]
    assert list(read_dia_sources(_table(), visit=7, detector=1)["diaSourceId"]) == [2]
    assert list(read_dia_sources(_table(visit=None), visit=9)["visit"]) == [9, 9, 9]


def test_positions_are_computed_from_the_sky(small_pair: SimulatedPair) -> None:
    projection = small_pair.science.sky_projection
    sky = projection.pixel_to_sky(x=np.array([1.0, 20.5, 30.0]), y=np.array([4.0, 5.0, 60.25]))
    table = _table(x=None, y=None, ra=sky.ra.deg, dec=sky.dec.deg)
    for given in (projection, lambda visit, detector: projection):
        sources = read_dia_sources(table, projection=given)
        assert np.allclose(sources["x"], [1.0, 20.5, 30.0], atol=1e-6)
        assert np.allclose(sources["y"], [4.0, 5.0, 60.25], atol=1e-6)
        assert sources["x"].unit == u.pix


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visit": None}, "no column visit"),
        ({"x": None}, "give the projection"),
        ({"x": None, "ra": None}, "neither x, y nor ra, dec"),
        ({"psfFlux": ["a", "b", "c"]}, "psfFlux cannot be read"),
    ],
)
def test_table_that_lacks_something_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        read_dia_sources(_table(**changes))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"hello", "neither Parquet nor SQLite"),
        ("a.parq", b"PAR1 and nothing", "cannot be read as a table"),
        ("a.sqlite3", b"SQLite format 3\x00 broken", "cannot be read as a table"),
        ("a.ecsv", b"not a table", "cannot be read as a table"),
        ("a.gz", b"\x1f\x8b\x08 broken", "cannot be read as a table"),
        ("a.fits", b"SIMPLE", "cannot be read as a table"),
    ],
)
def test_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        read_dia_sources(path)
    with pytest.raises(CatalogError, match="no such file"):
        read_dia_sources(tmp_path / "missing.parq")


def test_database_without_sources_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE DiaObject (id)")
    connection.close()
    with pytest.raises(CatalogError, match=r"no table DiaSource; it has \['DiaObject'\]"):
        read_dia_sources(path)


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("apdb", {(943296, 168): 164, (982985, 164): 126}),
        ("600e657_apdb", {(943296, 168): 164, (982985, 164): 126}),
        ("9188814_apdb", {(943296, 168): 164, (982985, 164): 126}),
        ("539cbd7_apdb", {(943296, 168): 297, (982985, 164): 202}),
        ("972af4c_apdb", {(419000, 76): 15}),
    ],
)
def test_apdb_of_every_age_loads_with_units(file: str, rows: dict[tuple[int, int], int]) -> None:
    sources = read_dia_sources(_data("dc2_apdb_analysis_ap") / f"{file}.sqlite3.gz")
    assert {
        key: int(((sources["visit"] == key[0]) & (sources["detector"] == key[1])).sum()) for key in rows
    } == rows
    assert len(sources) == sum(rows.values()) == len(np.unique(sources["diaSourceId"]))
    _check_units(sources)


def _check_units(sources: Table) -> None:
    for name, unit in {
        "ra": u.deg,
        "dec": u.deg,
        "x": u.pix,
        "psfFlux": u.nJy,
        "psfFluxErr": u.nJy,
        "apFlux": u.nJy,
        "scienceFlux": u.nJy,
        "midpointMjdTai": u.d,
        "trailRa": u.deg,
        "ixx": u.arcsec**2,
        "dipoleLength": u.arcsec,
    }.items():
        assert sources[name].unit == unit, name
    assert sources["isDipole"].dtype == bool


def test_parquet_tables_of_the_pipeline_load_with_units() -> None:
    files = sorted(_data("dia_tables_ap_verify").glob("*/preloaded_dia_source_*.parq"))
    counts: dict[str, int] = {}
    for file in files:
        sources = read_dia_sources(file)
        counts[file.parent.name] = counts.get(file.parent.name, 0) + len(sources)
        _check_units(sources)
    assert len(files) == 18
    assert counts == {"dc2": 119, "decam_hits2015": 1047, "hsc_cosmos": 2416}


def test_earlier_versions_of_the_parquet_tables_load(tmp_path: Path) -> None:
    with tarfile.open(_data("dia_tables_ap_verify") / "dc2" / "history_versions.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    files = [path for path in tmp_path.rglob("*ia*ource*.parq") if "orced" not in path.name]
    assert sum(len(read_dia_sources(file)) for file in files) == 134 + 3 * 119


def test_table_of_analysis_tools_loads() -> None:
    sources = read_dia_sources(_data("comcam_diasource_analysis_tools") / "assocDiaSrc_test.ecsv.gz")
    assert len(sources) == 2994
    assert len(np.unique(np.stack([sources["visit"], sources["detector"]]), axis=1)[0]) > 1
    _check_units(sources)


def test_datasets_of_a_real_repository_are_found_and_their_files_read(tmp_path: Path) -> None:
    with tarfile.open(_data("gen3_butler_repos") / "ap_verify_ci_dc2.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with Butler.from_config(str(tmp_path / "preloaded")) as butler:
        refs = butler.query_datasets("preloaded_dia_source", collections="*", find_first=False)
        # The files are of another version than the registry, which the butler does not let pass.
        with pytest.raises(CatalogError, match="does not match size recorded"):
            read_dia_sources(refs[0], butler=butler)
        tables = [read_dia_sources(butler.getURI(ref).ospath) for ref in refs]
    assert sorted(len(table) for table in tables) == [0, 119]
    with pytest.raises(CatalogError, match="give the butler"):
        read_dia_sources(refs[0])


@pytest.mark.parametrize("storage_class", ["ArrowAstropy", "DataFrame"])
def test_dataset_is_read(repo: Path, storage_class: str) -> None:
    if storage_class == "DataFrame":
        pytest.importorskip("pandas")
    run, name = f"test/{storage_class}", f"dia_source_detector_{storage_class}"
    table = _table(visit=[1, 1, 1], detector=[0, 0, 0])
    with Butler.from_config(str(repo), writeable=True, run=run) as butler:
        dimensions = ("instrument", "visit", "detector")
        butler.registry.registerDatasetType(
            DatasetType(name, dimensions, storage_class, universe=butler.dimensions)
        )
        content = table.to_pandas() if storage_class == "DataFrame" else table
        ref = butler.put(content, name, instrument="DiaSim", visit=1, detector=0)
        sources = read_dia_sources(ref, butler=butler)
    assert list(sources["diaSourceId"]) == [1, 2, 3]
    assert sources["psfFlux"].unit == u.nJy


@pytest.fixture(scope="module")
def repo(simulate) -> Path:  # type: ignore[no-untyped-def]
    return simulate(size=300, visits=[{"visit": 1}], detectors=[0])


def test_sources_are_cut_from_the_images_of_a_repository(
    repo: Path, small_pair: SimulatedPair, tmp_path: Path
) -> None:
    run_pipeline(
        repo, "u/first", pipeline="resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml#al"
    ).check()
    with Butler.from_config(str(repo), collections="u/first", instrument="DiaSim") as butler:
        found = butler.get("al_dia_source", visit=1, detector=0)
    theirs = found["diaSourceId", "visit", "detector", "band", "ra", "dec", "psfFlux", "psfFluxErr"]
    theirs["visit"][0] = 99
    path = tmp_path / "theirs.ecsv"
    theirs.write(path)
    arguments = ["ingest-sources", str(repo), str(path), "--method", "theirs", "--collection", "DiaSim/input"]
    result = CliRunner().invoke(main, arguments)
    # x and y of a visit that is not there cannot be computed.
    assert result.exit_code != 0
    assert "visit 99" in result.output
    result = CliRunner().invoke(main, [*arguments, "--visit", "1"])
    assert result.exit_code == 0, result.output
    assert (
        f"{len(found) - 1} sources in 1 datasets theirs_dia_source in collection DiaSim/theirs"
        in result.output
    )
    again = CliRunner().invoke(main, [*arguments, "--visit", "1"])
    assert "already has theirs_dia_source" in again.output

    run_pipeline(
        repo,
        "u/second",
        *("-i", "u/first,DiaSim/theirs,DiaSim/input"),
        *("-c", "cutStampsAl:connections.diaSources=theirs_dia_source"),
        *("-c", "cutStampsAl:connections.stamps=theirs_dia_stamps"),
        pipeline="resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml#cutStampsAl",
    ).check()
    with Butler.from_config(str(repo), collections="u/second", instrument="DiaSim") as butler:
        stamps = butler.get("theirs_dia_stamps", visit=1, detector=0)
    assert np.allclose(stamps["x"], found["x"][1:], atol=1e-4)
    assert stamps["difference"].shape[1:] == (41, 41)


def test_sources_of_unknown_visits_are_left_out(repo: Path) -> None:
    path = repo.parent / "some.ecsv"
    _table(visit=[1, 1, 55], detector=[0, 0, 0], diaSourceId=[1, 1, 2]).write(path, overwrite=True)
    ingest = ingest_sources(repo, [path], method="some")
    # Of two sources with one identifier the first counts.
    assert (ingest.n_sources, len(ingest.refs), ingest.unknown) == (1, 1, {(55, 0): 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "a b"}, "letters, digits and underscores"),
        ({"method": "a", "instrument": "HSC"}, "has no instrument HSC"),
        ({"method": "a"}, "knows none of the visits"),
    ],
)
def test_ingest_says_what_is_wrong(repo: Path, options: dict[str, str], message: str) -> None:
    path = repo.parent / "wrong.ecsv"
    _table().write(path, overwrite=True)
    with pytest.raises(CatalogError, match=message):
        ingest_sources(repo, [path], **options)
    with pytest.raises(CatalogError, match="is not a butler repository"):
        ingest_sources(repo.parent / "nowhere", [path], method="a")
