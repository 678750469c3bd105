"""``diainspect stamps`` in a repository; diagnostics and figures from stamps when all images are gone."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner, Result
from lsst.daf.butler import Butler, DatasetType
from lsst.pipe.base import Pipeline

from commands import run_pipeline
from lsst.diainspect.cli import main
from lsst.diainspect.masks import PLANES_BAD_FOR_SUBTRACTION, words_masked_by
from lsst.diainspect.stamps import read_stamps, uniform_by_id
from lsst.diainspect.tasks import CutStampsTask

COLLECTION = "u/test/stamps"
METHODS = ("al", "zogy")
FOLDERS = ("00000001-r-000", "00000001-r-001")
PIPELINE = "resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml"
AFTER_STAMPS = "diagnoseAl,diagnoseZogy,compareSubtractions,plotSources"


@pytest.fixture(scope="module")
def repo(simulate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the methods have run, and what makes differences again was kept."""
    made = tmp_path_factory.mktemp("stamps") / "repo"
    shutil.copytree(simulate(visits=[{"visit": 1}], detectors=[0, 1], size=320, seed=5), made)
    keep = [
        part
        for method in ("Al", "Zogy")
        for part in (
            "-c",
            f"subtract{method}:doWriteRegeneration=True",
            "-c",
            f"cutStamps{method}:stampSize=64",
        )
    ]
    steps = ",".join(
        f"{step}{method}" for step in ("subtract", "detect", "cutStamps") for method in ("Al", "Zogy")
    )
    run_pipeline(made, COLLECTION, *keep, pipeline=f"{PIPELINE}#{steps},{AFTER_STAMPS}").check()
    return made


@pytest.fixture
def butler(repo: Path) -> Iterator[Butler]:
    with Butler.from_config(str(repo), collections=COLLECTION, instrument="DiaSim") as butler:
        yield butler


def stamps(repo: Path, out: Path, *options: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(
        main, ["stamps", "-b", str(repo), "-i", COLLECTION, "-o", str(out), *options], catch_exceptions=False
    )


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def identifiers(directory: Path) -> set[int]:
    return {int(path.stem) for path in directory.glob("*/*.fits")}


def test_every_source_becomes_a_file(repo: Path, butler: Butler, tmp_path: Path) -> None:
    result = stamps(repo, tmp_path / "out", "-s", "100")
    assert result.exit_code == 0, result.output
    n_edge = 0
    for detector, folder in enumerate(FOLDERS):
        sources = butler.get("al_dia_source", visit=1, detector=detector)
        difference = butler.get("al_difference_image", visit=1, detector=detector)
        zogy = butler.get("zogy_difference_image", visit=1, detector=detector)
        assert {int(path.stem) for path in (tmp_path / "out" / folder).iterdir()} == set(
            sources["diaSourceId"]
        )
        for source in sources:
            with fits.open(tmp_path / "out" / folder / f"{source['diaSourceId']}.fits") as file:
                x0, y0 = file[0].header["X0"], file[0].header["Y0"]
                inside = np.isfinite(file["SCIENCE"].data)
                assert file[0].header["EDGE"] == (not inside.all())
                n_edge += file[0].header["EDGE"]
                assert (x0, y0) == (np.floor(source["x"] + 0.5) - 50, np.floor(source["y"] + 0.5) - 50)
                y, x = np.nonzero(inside)
                for name, image in (("DIFFERENCE", difference), ("ZOGY_DIFFERENCE", zogy)):
                    np.testing.assert_array_equal(file[name].data[inside], image.image.array[y + y0, x + x0])
                assert file["DIFFERENCE"].shape == (100, 100)
    assert f"{n_edge} of them reach beyond an edge" in result.output
    assert n_edge > 0
    assert "[2/2] DiaSim visit 1, detector 1" in result.output


def test_second_run_changes_nothing_and_other_settings_are_refused(repo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert stamps(repo, out, "-s", "31").exit_code == 0
    before = files(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = stamps(repo, out, "-s", "31")
    assert "there already" in again.output
    assert files(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    other = stamps(repo, out, "-s", "32")
    assert other.exit_code != 0
    assert "size: 31 there, 32 now" in other.output
    assert files(out) == before


def test_killed_run_is_taken_up_to_the_same_bytes(repo: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert stamps(repo, whole, "-s", "41").exit_code == 0
    arguments = ["stamps", "-b", str(repo), "-i", COLLECTION, "-o", str(cut), "-s", "41"]
    process = subprocess.Popen(
        [sys.executable, "-c", f"from lsst.diainspect.cli import main; main({arguments!r})"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120.0
        while len(identifiers(cut)) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    there = identifiers(cut)
    assert 3 <= len(there) < len(identifiers(whole))
    for path in cut.glob("*/*.fits"):
        assert path.read_bytes() == (whole / path.relative_to(cut)).read_bytes()
    assert stamps(repo, cut, "-s", "41").exit_code == 0
    assert files(cut) == files(whole)


def test_sources_are_selected_on_the_command_line(repo: Path, butler: Butler, tmp_path: Path) -> None:
    tables = [butler.get("al_dia_source", visit=1, detector=detector) for detector in (0, 1)]
    ids = np.concatenate([table["diaSourceId"] for table in tables])
    snr = np.concatenate([table["snr"] for table in tables])
    cases = {
        "where": (["--where", "snr > 10"], set(ids[snr > 10])),
        "fraction": (["--fraction", "0.5", "--seed", "3"], set(ids[uniform_by_id(ids, 3) < 0.5])),
        "ids": (["--ids", f"{ids[0]},{ids[-1]}"], {ids[0], ids[-1]}),
        "query": (["-d", "detector=1"], set(tables[1]["diaSourceId"])),
    }
    for name, (options, expected) in cases.items():
        result = stamps(
            repo, tmp_path / name, "-s", "11", "--plane", "difference", "--no-psf", "-q", *options
        )
        assert result.exit_code == 0, result.output
        assert identifiers(tmp_path / name) == {int(identifier) for identifier in expected}
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, [ids[0], 3])))
    result = stamps(repo, tmp_path / "listed", "-s", "11", "--ids", str(listed))
    assert identifiers(tmp_path / "listed") == {int(ids[0])}
    assert "1 of 2 ids are on none of the images: 3" in result.output


def test_positions_are_cut_and_those_on_no_image_reported(repo: Path, butler: Butler, tmp_path: Path) -> None:
    image = butler.get("visit_image", visit=1, detector=1)
    sky = image.sky_projection.pixel_to_sky(
        x=np.array([100.0, 2.0, 9000.0]), y=np.array([150.0, 200.0, 150.0])
    )
    Table({"ra": sky.ra.deg, "dec": sky.dec.deg}).write(tmp_path / "positions.ecsv")
    result = stamps(repo, tmp_path / "out", "-s", "21", "--positions", str(tmp_path / "positions.ecsv"))
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out" / FOLDERS[1]).iterdir()} == {"1.fits", "2.fits"}
    with fits.open(tmp_path / "out" / FOLDERS[1] / "1.fits") as file:
        np.testing.assert_array_equal(file["SCIENCE"].data, image.image.array[140:161, 90:111])
    with fits.open(tmp_path / "out" / FOLDERS[1] / "2.fits") as file:
        assert file[0].header["EDGE"]
    assert "1 of 3 positions are on none of the images: 3" in result.output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--where", "snrr > 3"], "Did you mean snr"),
        (["--where", "snr >"], "cannot be understood"),
        (["--plane", "picture"], "unknown names"),
        (["--plane", "templateMatched"], "no al_template_matched"),
        (["--method", "sfft"], "no sources of sfft"),
        (["-d", "visit=77"], "no datasets al_dia_source"),
        (["--ids", "one,two"], "neither a file nor a list"),
    ],
)
def test_what_cannot_be_done_is_said(repo: Path, tmp_path: Path, options: list[str], reason: str) -> None:
    result = stamps(repo, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert reason in result.output
    # Corrected, the same command works in the same place.
    assert stamps(repo, tmp_path / "out", "-s", "5", "--plane", "difference", "--no-psf").exit_code == 0


def test_stored_stamps_are_read_in_part(butler: Butler) -> None:
    table = butler.get("al_dia_stamps", visit=1, detector=0)
    ids = table["diaSourceId"][[2, 0]].tolist()
    handle = butler.getDeferred("al_dia_stamps", visit=1, detector=0)
    filters = butler.get("al_difference_filters", visit=1, detector=0)
    some = read_stamps(handle, filters, ids=ids, planes=["difference"])
    assert some.sources["diaSourceId"].tolist() == ids
    np.testing.assert_array_equal(some.planes["difference"], table["difference"][[2, 0]])
    assert "differencePsf" in some.models


def test_differences_are_made_again_when_they_were_not_kept(repo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repo"
    shutil.copytree(repo, copy)
    assert stamps(repo, tmp_path / "stored", "-s", "33").exit_code == 0
    _remove(copy, ["al_difference_image", "al_score_image", "zogy_difference_image", "zogy_score_image"])
    result = stamps(copy, tmp_path / "again", "-s", "33", "--regenerate")
    assert result.exit_code == 0, result.output
    deviations = []
    for path in sorted((tmp_path / "stored").glob("*/*.fits")):
        with (
            fits.open(path) as stored,
            fits.open(tmp_path / "again" / path.relative_to(tmp_path / "stored")) as again,
        ):
            np.testing.assert_array_equal(again["MASK"].data, stored["MASK"].data)
            np.testing.assert_array_equal(again["SCIENCE"].data, stored["SCIENCE"].data)
            bad = [*PLANES_BAD_FOR_SUBTRACTION, "OFF_IMAGE", "FILTER_SPREAD", "DETECTION_EDGE"]
            good = ~words_masked_by(stored["MASK"].data, bad)
            deviation = again["DIFFERENCE"].data - stored["DIFFERENCE"].data
            deviations.append((deviation / np.sqrt(stored["DIFFERENCEVARIANCE"].data))[good])
    assert np.concatenate(deviations).std() < 0.04
    # Few sources are read in boxes through the butler.
    one = sorted((tmp_path / "stored").glob("*/*.fits"))[5]
    few = stamps(copy, tmp_path / "few", "-s", "33", "--regenerate", "--ids", one.stem)
    assert few.exit_code == 0, few.output
    relative = one.relative_to(tmp_path / "stored")
    with fits.open(tmp_path / "few" / relative) as a, fits.open(tmp_path / "again" / relative) as b:
        np.testing.assert_allclose(a["DIFFERENCE"].data, b["DIFFERENCE"].data, atol=0.5)


def test_regeneration_without_what_it_needs_says_so(repo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repo"
    shutil.copytree(repo, copy)
    _remove(copy, ["al_difference_regeneration"])
    result = stamps(copy, tmp_path / "out", "--regenerate")
    assert result.exit_code == 1
    assert "no al_difference_regeneration" in result.output


def _remove(repo: Path, names: list[str]) -> None:
    """Delete all datasets of these types."""
    with Butler.from_config(str(repo), writeable=True) as butler:
        refs = [
            ref for name in names for ref in butler.query_datasets(name, collections="*", find_first=False)
        ]
        assert refs
        butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)


def test_diagnostics_and_figures_run_from_stamps_when_all_images_are_gone(repo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repo"
    shutil.copytree(repo, copy)
    made_again = {f"{method}_dia_diagnostics" for method in METHODS} | {"subtraction_comparison"}
    with Butler.from_config(str(copy)) as butler:
        types = list(butler.registry.queryDatasetTypes("*"))
    # Only tables are kept, and of those only what was there before.
    _remove(
        copy,
        [
            dataset_type.name
            for dataset_type in types
            if dataset_type.storageClass_name != "ArrowAstropy" or dataset_type.name in made_again
        ],
    )
    assert not list(copy.rglob("*.fits"))
    run_pipeline(
        copy,
        "u/test/again",
        *("-c", "compareSubtractions:whereScience=False"),
        pipeline=f"{PIPELINE}#{AFTER_STAMPS}",
        inputs=COLLECTION,
    ).check()
    for detector in (0, 1):
        with (
            Butler.from_config(str(repo), collections=COLLECTION, instrument="DiaSim") as before,
            Butler.from_config(str(copy), collections="u/test/again", instrument="DiaSim") as after,
        ):
            data_id = {"visit": 1, "detector": detector}
            for method in METHODS:
                first, second = (one.get(f"{method}_dia_diagnostics", data_id) for one in (before, after))
                assert len(first) > 3
                assert first.colnames == second.colnames
                for name in first.colnames:
                    expected, got = np.asarray(first[name]), np.asarray(second[name])
                    if expected.dtype.kind != "f":
                        np.testing.assert_array_equal(got, expected, err_msg=name)
                        continue
                    # Single precision, with sums whose order is the linear algebra library's.
                    scale = np.nanmax(np.abs(expected), initial=0.0, where=np.isfinite(expected))
                    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * scale, err_msg=name)
            for plot in ("plot_stamps", "plot_snr"):
                assert after.getURI(plot, data_id).size() > 10_000


def test_cut_stamps_task_takes_positions_and_other_methods(repo: Path) -> None:
    with Butler.from_config(str(repo), writeable=True, collections=COLLECTION, instrument="DiaSim") as butler:
        image = butler.get("visit_image", visit=1, detector=0)
        sky = image.sky_projection.pixel_to_sky(x=np.array([100.0, 200.0]), y=np.array([150.0, 60.0]))
        butler.registry.registerDatasetType(
            DatasetType("stamp_positions", (), "ArrowAstropy", universe=butler.dimensions)
        )
        positions = Table({"diaSourceId": [7, 9], "ra": sky.ra.deg, "dec": sky.dec.deg})
        butler.collections.register("u/test/positions")
        butler.put(positions, "stamp_positions", run="u/test/positions")
    run_pipeline(
        repo,
        "u/test/forced",
        *("-c", "cutStampsAl:sourcesFrom=positions", "-c", "cutStampsAl:connections.stamps=al_forced_stamps"),
        *("-c", "cutStampsAl:planes=['difference', 'zogy_difference', 'zogy_differenceVariance']"),
        *("-c", "cutStampsAl:where=diaSourceId > 8", "-d", "detector=0"),
        pipeline=f"{PIPELINE}#cutStampsAl",
        inputs=f"{COLLECTION},u/test/positions",
    ).check()
    with Butler.from_config(
        str(repo), collections=["u/test/forced", COLLECTION], instrument="DiaSim"
    ) as butler:
        table = butler.get("al_forced_stamps", visit=1, detector=0)
        zogy = butler.get("zogy_difference_image", visit=1, detector=0)
    assert list(table["diaSourceId"]) == [9]
    np.testing.assert_array_equal(table["zogy_difference"][0], zogy.image.array[40:81, 180:221])
    np.testing.assert_array_equal(table["zogy_differenceVariance"][0], zogy.variance.array[40:81, 180:221])


def test_missing_image_of_another_method_costs_only_its_plane(repo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repo"
    shutil.copytree(repo, copy)
    with Butler.from_config(str(copy), writeable=True, collections=COLLECTION, instrument="DiaSim") as butler:
        ref = butler.find_dataset("zogy_difference_image", visit=1, detector=0)
        butler.pruneDatasets([ref], disassociate=True, unstore=True, purge=True)
    assert stamps(copy, tmp_path / "out", "-s", "9").exit_code == 0
    for folder, there in zip(FOLDERS, (False, True), strict=True):
        path = next((tmp_path / "out" / folder).iterdir())
        with fits.open(path) as file:
            assert np.isfinite(file["ZOGY_DIFFERENCE"].data).any() == there
            assert np.isfinite(file["DIFFERENCE"].data).any()


def test_pipeline_with_regeneration_reads_no_difference_image() -> None:
    pipeline = Pipeline.from_uri(f"{PIPELINE}#cutStampsAl")
    pipeline.addConfigOverride("cutStampsAl", "differenceFrom", "filters")
    inputs = {
        edge.parent_dataset_type_name for edge in pipeline.to_graph().tasks["cutStampsAl"].iter_all_inputs()
    }
    assert inputs == {
        "al_dia_source",
        "al_difference_filters",
        "al_difference_regeneration",
        "visit_image",
        "template_detector",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("where", "snr >"), ("planes", ["zogy_science"]), ("fraction", 0.0), ("stampSize", 0)],
)
def test_wrong_configuration_is_refused(field: str, value: object) -> None:
    config = CutStampsTask.ConfigClass()
    with pytest.raises(ValueError):
        setattr(config, field, value)
        config.validate()
