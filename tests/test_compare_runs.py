"""What changed between two runs on the same images is counted, located and said in words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from astropy.time import Time
from click.testing import CliRunner
from lsst.daf.butler import Butler
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from commands import run_command, run_pipeline
from lsst.diainspect.catalogs import read_dia_sources
from lsst.diainspect.cli import main
from lsst.diainspect.comparison import RunComparison, compare_runs, join_runs, render_run_comparison
from lsst.diainspect.instruments import DiaAlerts, ExposureRecord, insert_exposure_records

DATA = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
IMAGES = ((943296, 168), (982985, 164))
SKY = ConvexPolygon(
    [
        UnitVector3d(LonLat.fromDegrees(ra, dec))
        for ra, dec in ((55.5, -32.6), (56.0, -32.6), (56.0, -32.2), (55.5, -32.2))
    ]
)
"""Where both images are."""


def _apdb(name: str) -> Path:
    path = DATA / "dc2_apdb_analysis_ap" / f"{name}.sqlite3.gz"
    if not path.exists():
        pytest.skip(f"There is no {path}: set DIAINSPECT_TESTDATA_DIR to the folder of the test data.")
    return path


def _run(positions: np.ndarray, **columns: object) -> Table:
    """Sources of visit 1, detector 0 at positions (N, 2), with everything else given or the same for all."""
    n = len(positions)
    table = Table(
        {
            "diaSourceId": np.arange(1, n + 1),
            "visit": np.ones(n, dtype=int),
            "detector": np.zeros(n, dtype=int),
            "x": positions[:, 0],
            "y": positions[:, 1],
            "ra": 10.0 + positions[:, 0] * 0.2 / 3600.0,
            "dec": positions[:, 1] * 0.2 / 3600.0,
            "snr": np.full(n, 10.0),
            "psfFlux": np.full(n, 100.0),
            "psfFluxErr": np.full(n, 10.0),
            "isNegative": np.zeros(n, dtype=bool),
        }
    )
    for name, values in columns.items():
        table[name] = np.broadcast_to(values, n)
    return table


@pytest.fixture
def positions() -> np.ndarray:
    """Forty positions on a grid, 100 pixels apart."""
    y, x = np.divmod(np.arange(40), 8)
    return np.column_stack([100.0 * x + 60.0, 100.0 * y + 60.0])


@pytest.fixture
def constructed(positions: np.ndarray) -> RunComparison:
    """The second run lacks ten sources, which were dipoles; has four fragments; is 1.1 times as bright, and shifted."""
    first = _run(positions, isDipole=np.arange(40) < 10, snr=np.where(np.arange(40) < 5, 80.0, 10.0))
    kept = positions[10:]
    fragments = kept[:4] + np.array([10.0, 0.0])
    second = _run(
        np.concatenate([kept + np.array([0.3, -0.2]), fragments]),
        psfFlux=110.0,
        isDipole=np.arange(34) == 33,
        isNegative=np.arange(34) < 2,
    )
    return compare_runs(join_runs({"a": first, "b": second}, 3.0), "a", "b", 3.0)


def test_sources_are_counted_by_image(constructed: RunComparison) -> None:
    assert list(constructed.images[0]) == [1, 0, 40, 34, 30, 10, 4]
    assert {name: constructed.select(name).sum() for name in ("common", "onlyFirst", "onlySecond")} == {
        "common": 30,
        "onlyFirst": 10,
        "onlySecond": 4,
    }


def test_changes_of_common_sources_are_measured(constructed: RunComparison) -> None:
    clean = {row["quantity"]: row for row in constructed.quantities if row["subset"] == "clean"}
    assert clean["x, second - first"]["median"] == pytest.approx(0.3)
    assert clean["y, second - first"]["median"] == pytest.approx(-0.2)
    assert clean["PSF flux, second / first"]["median"] == pytest.approx(1.1)
    assert clean["PSF flux, second / first"]["n"] == 30


def test_flags_say_what_was_lost(constructed: RunComparison) -> None:
    flags = {row["flag"]: row for row in constructed.flags}
    dipole = flags["isDipole"]
    assert (dipole["first"], dipole["onlyFirst"], dipole["commonFirst"]) == (0.25, 1.0, 0.0)
    assert dipole["onlySecond"] == 0.25
    assert (flags["isNegative"]["gained"], flags["isNegative"]["lost"]) == (2, 0)


def test_fragments_are_seen_near_what_they_belong_to(constructed: RunComparison) -> None:
    places = {row["group"]: row for row in constructed.places}
    assert places["onlySecond"]["nearOther"] == 1.0
    assert places["onlyFirst"]["nearOther"] == 0.0
    assert places["common"]["nearOther"] == pytest.approx(4 / 30)
    assert np.asarray(places["common"]["grid"]).sum() == 30


def test_what_recurs_on_another_image_is_seen(positions: np.ndarray) -> None:
    again = _run(positions[:12], visit=2)
    first = Table(np.concatenate([_run(positions).as_array(), again.as_array()]))
    comparison = compare_runs(join_runs({"a": first, "b": _run(positions[:0])}, 3.0), "a", "b", 3.0)
    only = next(row for row in comparison.places if row["group"] == "onlyFirst")
    assert only["recurring"] == pytest.approx(24 / 52)
    assert len(comparison.images) == 2


def test_unrelated_runs_have_in_common_what_chance_predicts() -> None:
    rng = np.random.default_rng(1)
    found, expected = 0, 0.0
    for _ in range(40):
        first, second = (_run(rng.uniform(0.0, 1000.0, (100, 2))) for _ in range(2))
        comparison = compare_runs(join_runs({"a": first, "b": second}, 3.0), "a", "b", 3.0)
        found += int(comparison.select("common").sum())
        expected += comparison.chance
    # 100 x 100 pi 3^2 / 10^6 each.
    assert expected / 40 == pytest.approx(0.283, rel=0.1)
    assert abs(found - expected) < 4.0 * np.sqrt(expected)


def test_report_says_it_in_words(constructed: RunComparison) -> None:
    text = render_run_comparison(constructed)
    assert "a has 40 sources and b 34, on 1 images. 30 are common (75 % of a, 88 % of b)" in text
    assert "PSF flux of clean common sources is 1.100" in text
    assert "100 % of the sources only in a are isDipole, 0 % of the common ones." in text
    assert "100 % of the sources only in b lie within 20 pixels of a source of a" in text
    assert "50 % of the sources only in a are above S/N 50, 0 % of the common ones." in text


def test_a_run_without_sources_is_compared() -> None:
    empty = _run(np.zeros((0, 2)))
    comparison = compare_runs(join_runs({"a": empty, "b": empty}, 3.0), "a", "b", 3.0)
    assert "a has 0 sources and b 0" in render_run_comparison(comparison)
    with pytest.raises(ValueError, match="no sources of c"):
        compare_runs(comparison.joined, "a", "c", 3.0)


def test_two_versions_of_a_pipeline_on_dc2_are_compared_as_files(tmp_path: Path) -> None:
    report, table = tmp_path / "report.md", tmp_path / "joined.ecsv"
    run_command(
        "diainspect",
        *("compare", _apdb("539cbd7_apdb"), _apdb("apdb"), "--names", "older,now"),
        *("--out", report, "--table", table),
    ).check()
    text = report.read_text()
    assert "older has 499 sources and now 290, on 2 images." in text
    joined = Table.read(table)
    # Whatever the match, each source of either run is in one row.
    for name, count in (("older", 499), ("now", 290)):
        ids = np.asarray(joined[f"{name}_diaSourceId"])[np.asarray(joined[f"{name}_found"])]
        assert len(np.unique(ids)) == len(ids) == count
    comparison = compare_runs(joined, "older", "now", 3.0)
    common = int(comparison.select("common").sum())
    # They are the same images: most of what is bright and clean is in both, far more than chance makes.
    assert common > 100 * comparison.chance
    clean = {row["quantity"]: row for row in comparison.quantities if row["subset"] == "clean"}
    for name in ("PSF flux, second / first", "PSF flux error, second / first"):
        assert clean[name]["median"] == pytest.approx(1.0, abs=0.15)
    # The newer pipeline drops what saturated stars leave, and most dipoles.
    assert int(comparison.snr["onlyFirst"][-1]) > 5 * int(comparison.snr["onlySecond"][-1])
    dipole = next(row for row in comparison.flags if row["flag"] == "isDipole")
    assert dipole["second"] < dipole["first"]


def test_two_versions_of_a_pipeline_on_dc2_are_compared_as_methods(tmp_path: Path) -> None:
    versions = {"older": _apdb("539cbd7_apdb"), "now": _apdb("apdb")}
    repo = tmp_path / "repo"
    Butler.makeRepo(str(repo))
    with Butler.from_config(str(repo), writeable=True) as butler:
        instrument = DiaAlerts()
        instrument.register(butler.registry)
        instrument.register_filter(butler.registry, "r", "r")
        for _, detector in IMAGES:
            instrument.register_detector(butler.registry, detector)
        # As in a repository of a camera, every visit has every detector.
        for visit, _ in IMAGES:
            insert_exposure_records(
                butler,
                ExposureRecord(
                    "DiaAlerts",
                    visit,
                    "r",
                    Time(60000.0 + visit % 100, format="mjd"),
                    30.0,
                    {number: SKY for _, number in IMAGES},
                    is_packed=False,
                ),
            )
    for method, file in versions.items():
        result = CliRunner().invoke(main, ["ingest-sources", str(repo), str(file), "--method", method])
        assert result.exit_code == 0, result.output
    run_pipeline(
        repo,
        "u/compare",
        *("-c", "parameters:methods=['older','now']"),
        *(
            "-c",
            "gatherVisit:tablesOfMethods=['dia_source']",
            "-c",
            "gatherSurvey:tablesOfMethods=['dia_source']",
        ),
        pipeline="resource://lsst.diainspect/pipelines/_ingredients/compare.yaml",
        inputs="DiaAlerts/older,DiaAlerts/now",
    ).check()
    with Butler.from_config(str(repo), collections="u/compare", instrument="DiaAlerts") as butler:
        joined = butler.get("subtraction_comparison_summary")
    by_task = compare_runs(joined, "older", "now", 3.0)
    direct = join_runs({name: read_dia_sources(file) for name, file in versions.items()}, 3.0)
    assert (int(joined["older_found"].sum()), int(joined["now_found"].sum())) == (499, 290)
    assert by_task.select("common").sum() == compare_runs(direct, "older", "now", 3.0).select("common").sum()
    report = CliRunner().invoke(
        main, ["compare", "older", "now", "-b", str(repo), "-i", "u/compare,DiaAlerts/older,DiaAlerts/now"]
    )
    assert report.exit_code == 0, report.output
    assert "older has 499 sources and now 290, on 2 images." in report.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--names", "a,a"], "Two different names"),
        (["--repo", "somewhere"], "go together"),
        ([], "no such file"),
    ],
)
def test_command_says_what_is_wrong(options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["compare", "one.ecsv", "two.ecsv", *options])
    assert result.exit_code != 0
    assert message in result.output
