"""Pairs from a table, and visits as each other's template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner, Result
from lsst.daf.butler import Butler
from lsst.images import DifferenceImage

from lsst.diainspect.cli import main
from lsst.diainspect.ingest import (
    IngestError,
    PairSettings,
    ingest_pairs,
    ingest_visit_as_template,
    read_pair_table,
)
from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.warping import NoisePower

_SIZE = 96
_SCALE = 0.2 / 3600.0


def _header(dx: float = 0.0, mjd: float = 60000.0) -> fits.Header:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 30.0, -20.0
    header["CRPIX1"], header["CRPIX2"] = 48.0 + dx, 48.0
    header["CD1_1"], header["CD2_2"] = -_SCALE, _SCALE
    header["BUNIT"], header["FILTER"], header["EXPTIME"] = "nJy", "r", 30.0
    header["MJD-OBS"] = mjd
    return header


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    grid = np.mgrid[:25, :25] - 12
    fits.writeto(tmp_path / "psf.fits", np.exp(-0.5 * (grid**2).sum(axis=0) / 1.8**2))
    for number in (1, 2, 3):
        pixels = rng.normal(size=(_SIZE, _SIZE)).astype(np.float32)
        pixels[48, 48 + 2 * number] += 100.0
        header = _header(2.0 * number, 60000.0 + number)
        fits.writeto(tmp_path / f"sci{number}.fits", pixels, header)
        fits.writeto(
            tmp_path / f"ref{number}.fits", rng.normal(size=(_SIZE, _SIZE)).astype(np.float32), header
        )
    fits.writeto(tmp_path / "noise.fits", np.ones((_SIZE, _SIZE), dtype=np.float32))
    return tmp_path


def _rows(n: int = 3) -> list[dict[str, object]]:
    files = {name: "psf.fits" for name in ("science_psf", "template_psf")}
    files |= {name: "noise.fits" for name in ("science_noise", "template_noise")}
    return [
        {"science": f"sci{k}.fits", "template": f"ref{k}.fits", **files, "visit": k} for k in range(1, n + 1)
    ]


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _write(folder: Path, kind: str, rows: list[dict[str, object]]) -> Path:
    path = folder / f"pairs.{kind}"
    if kind == "yaml":
        import yaml

        path.write_text(yaml.safe_dump(rows))
    else:
        Table(rows=rows).write(path, format="ascii.ecsv" if kind == "ecsv" else "ascii.csv")
    return path


@pytest.mark.parametrize("kind", ["csv", "ecsv", "yaml"])
def test_tables_of_all_kinds_are_ingested(folder: Path, kind: str) -> None:
    table = _write(folder, kind, _rows(2))
    result = _run("ingest-pairs", folder / "repo", table)
    assert result.exit_code == 0, result.output
    assert "2 of 2 pairs in collection DiaFits/input" in result.output
    with Butler.from_config(str(folder / "repo"), collections="DiaFits/input") as butler:
        assert {ref.dataId["visit"] for ref in butler.query_datasets("visit_image")} == {1, 2}


def test_a_pair_that_fails_does_not_stop_the_others(folder: Path) -> None:
    rows = _rows()
    rows[1]["template"] = "nothing.fits"
    result = _run("ingest-pairs", folder / "repo", _write(folder, "csv", rows))
    assert result.exit_code == 1
    assert "[1/3]" in result.output and "[3/3]" in result.output
    assert "nothing.fits: no such file" in result.output
    assert "2 of 3 pairs in collection" in result.output
    assert "1 of 3 pairs failed: rows 2" in result.output
    assert "Traceback" not in result.output
    with Butler.from_config(str(folder / "repo"), collections="DiaFits/input") as butler:
        assert {ref.dataId["visit"] for ref in butler.query_datasets("visit_image")} == {1, 3}


def test_pairs_without_a_visit_are_numbered_by_row(folder: Path) -> None:
    rows = _rows(2)
    for row in rows:
        del row["visit"]
    outcomes = list(ingest_pairs(folder / "repo", read_pair_table(_write(folder, "yaml", rows))))
    assert [(o.row, o.visit, o.detector, o.succeeded) for o in outcomes] == [(1, 1, 0, True), (2, 2, 0, True)]


def test_yaml_defaults_apply_to_all_pairs(folder: Path) -> None:
    path = folder / "pairs.yaml"
    path.write_text(
        "defaults: {zero_point: 31.4, date: 2024-05-06}\npairs: [{science: a.fits, template: b.fits}]\n"
    )
    (row,) = read_pair_table(path)
    settings = PairSettings.from_row(row)
    assert (settings.zero_point, settings.date) == (31.4, "2024-05-06")
    assert settings.science == str(folder / "a.fits")


def test_empty_fields_are_as_omitted(folder: Path) -> None:
    path = folder / "pairs.csv"
    path.write_text("science,template,gain,psf_order,background\na.fits,b.fits,,2,no\n")
    settings = PairSettings.from_row(read_pair_table(path)[0])
    assert (settings.gain, settings.psf_order, settings.background) == (None, 2, False)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.csv", "science,template\n", "has no pairs"),
        ("pairs.txt", "x", "is .csv, .ecsv or .yaml"),
        ("pairs.yaml", "{a: 1}", "a mapping has 'pairs'"),
        ("pairs.yaml", "[1, 2]", "must hold a list of mappings"),
        ("pairs.yaml", "[", "cannot be read"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(IngestError, match=message):
        read_pair_table(tmp_path / name)
    result = _run("ingest-pairs", tmp_path / "repo", tmp_path / name)
    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="no such file"):
        read_pair_table(tmp_path / "pairs.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"science": "a"}, "has no template image"),
        ({"science": "a", "template": "b", "colour": 1}, r"Unknown columns \['colour'\]"),
        ({"science": "a", "template": "b", "visit": "one"}, "visit must be of type int"),
        ({"science": "a", "template": "b", "zero_point": "x"}, "zero_point must be of type float"),
        ({"science": "a", "template": "b", "background": "maybe"}, "background must be of type bool"),
    ],
)
def test_bad_rows_are_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(IngestError, match=message):
        PairSettings.from_row(row)


def test_options_of_the_command_are_the_columns_of_a_table() -> None:
    command = main.commands["ingest-pair"]  # type: ignore[attr-defined]
    options = {parameter.name for parameter in command.params} - {"repo", "run"}
    assert options == set(PairSettings.names())


@pytest.fixture
def repo(folder: Path) -> Path:
    rows = read_pair_table(_write(folder, "yaml", _rows()))
    assert all(outcome.succeeded for outcome in ingest_pairs(folder / "repo", rows))
    return folder / "repo"


def test_another_visit_becomes_the_template_on_the_grid_of_the_science_image(repo: Path) -> None:
    pytest.importorskip("reproject")
    result = _run("ingest-template", repo, "--visit", 1, "--from-visit", 3)
    assert result.exit_code == 0, result.output
    assert "2 datasets in collection DiaFits/templates" in result.output
    with Butler.from_config(
        str(repo), collections=["DiaFits/templates", "DiaFits/input"], instrument="DiaFits"
    ) as butler:
        science = butler.get("visit_image", visit=1, detector=0)
        other = butler.get("visit_image", visit=3, detector=0)
        template = butler.get("template_detector", visit=1, detector=0)
        power = NoisePower.from_table(butler.get("template_noise_power", visit=1, detector=0))
    assert isinstance(template, DifferenceImage)
    assert template.sky_projection == science.sky_projection
    # The reference pixel of visit 3 is 4 pixels to the right of that of visit 1.
    np.testing.assert_allclose(template.image.array[5:-5, 5:90], other.image.array[5:-5, 9:94], atol=1e-3)
    np.testing.assert_allclose(template.variance.array[5:-5, 5:90], 1.0, atol=1e-3)
    assert template.mask.get("NO_DATA")[:, -4:].all()
    assert template.metadata["diainspect_templateVisit"] == 3
    assert abs(power.neighbour_correlation) < 1e-3
    psf = PixelBasisPsf.from_point_spread_function(template.psf, template.bbox)
    expected = PixelBasisPsf.from_point_spread_function(other.psf, other.bbox)
    np.testing.assert_allclose(psf.centre(), expected.centre(), atol=1e-5)


def test_a_template_is_written_once_and_needs_its_visits(repo: Path) -> None:
    pytest.importorskip("reproject")
    options = {"visit": 1, "detector": 0, "from_visit": 2}
    ingest_visit_as_template(repo, **options)  # type: ignore[arg-type]
    with pytest.raises(IngestError, match="already has template_detector"):
        ingest_visit_as_template(repo, **options)  # type: ignore[arg-type]
    with pytest.raises(IngestError, match="There is no visit_image of DiaFits visit 9"):
        ingest_visit_as_template(repo, visit=1, detector=0, from_visit=9)
    with pytest.raises(IngestError, match="cannot be its own template"):
        ingest_visit_as_template(repo, visit=1, detector=0, from_visit=1)
