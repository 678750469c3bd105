"""The commands that bring images into a repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner, Result
from lsst.daf.butler import Butler
from threadpoolctl import threadpool_info, threadpool_limits

from lsst.diainspect.cli import main
from lsst.diainspect.simulation import simulate_pair


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _assert_clear_error(result: Result, message: str) -> None:
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_simulate_writes_a_survey(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    options = ["--visits", 1, "--detectors", 2, "--size", 64, "--seed", 3, "--transients", 4]
    result = _run("simulate", repo, *options, "--break", "1,1,no_template")
    assert result.exit_code == 0, result.output
    assert "[2/2] visit 1 detector 1" in result.output
    assert f"7 datasets in collection DiaSim/input of {repo}" in result.output
    with Butler.from_config(str(repo), collections="DiaSim/input", instrument="DiaSim") as butler:
        truth = butler.get("dia_truth", visit=1, detector=0)
        assert truth["isTransient"].sum() == 4
    _assert_clear_error(_run("simulate", repo, *options), "already has visit_image")


def test_commands_use_one_thread_of_linear_algebra(tmp_path: Path) -> None:
    with threadpool_limits(limits=2):
        if max(pool["num_threads"] for pool in threadpool_info()) == 1:
            pytest.skip("linear algebra has one thread on this machine")
        assert _run("simulate", tmp_path / "repo", "--visits", 1, "--size", 64, "--blank").exit_code == 0
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}


def test_simulate_reads_a_survey_file_and_options_override_it(tmp_path: Path) -> None:
    config = tmp_path / "survey.yaml"
    config.write_text("size: 128\nvisits: [{visit: 3, science_seeing: 0.9}]\ndetectors: [2]\n")
    repo = tmp_path / "repo"
    result = _run("simulate", repo, "--config", config, "--size", 64, "--blank", "--run", "blank/in")
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="blank/in", instrument="DiaSim") as butler:
        assert butler.get("visit_image", visit=3, detector=2).image.array.shape == (64, 64)
        assert len(butler.get("dia_truth", visit=3, detector=2)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", 10], "Invalid value for '--size'"),
        (["--config", "nothing.yaml"], "nothing.yaml does not exist"),
        (["--break", "1"], "is not VISIT,DETECTOR"),
        (["--break", "1,1,burnt"], "how must be one of"),
        (["--break", "9,1"], "not in the survey"),
    ],
)
def test_simulate_says_what_is_wrong(tmp_path: Path, options: list[object], message: str) -> None:
    _assert_clear_error(_run("simulate", tmp_path / "repo", *options), message)


def test_simulate_takes_visits_from_one_place(tmp_path: Path) -> None:
    config = tmp_path / "survey.yaml"
    config.write_text("seed: 1\n")
    result = _run("simulate", tmp_path / "repo", "--config", config, "--visits", 2)
    _assert_clear_error(result, "--visits cannot be used with --config")


@pytest.fixture(scope="module")
def fits_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated pair as FITS files without units."""
    folder = tmp_path_factory.mktemp("fits")
    pair = simulate_pair(size=64, seed=2)
    header = WCS_HEADER.copy()
    for side, image, psf in (
        ("science", pair.science, pair.science_psf),
        ("template", pair.template, pair.template_psf),
    ):
        fits.writeto(folder / f"{side}.fits", image.image.array / 0.5, header)
        fits.writeto(folder / f"{side}.noise.fits", np.sqrt(image.variance.array) / 0.5)
        fits.writeto(folder / f"{side}.psf.fits", psf.centre())
    fits.writeto(folder / "mask.fits", np.eye(64, dtype=np.uint8))
    return folder


WCS_HEADER = fits.Header(
    {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 10.0,
        "CRVAL2": 20.0,
        "CRPIX1": 32.0,
        "CRPIX2": 32.0,
        "CD1_1": -5e-5,
        "CD2_2": 5e-5,
        "DATE-OBS": "2025-01-02T03:04:05",
        "EXPTIME": 30.0,
    }
)


def _ingest(repo: Path, folder: Path, *options: object) -> Result:
    return _run(
        *("ingest-pair", repo, folder / "science.fits", folder / "template.fits"),
        *("--science-psf", folder / "science.psf.fits", "--template-psf", folder / "template.psf.fits"),
        *(
            "--science-noise",
            folder / "science.noise.fits",
            "--template-noise",
            folder / "template.noise.fits",
        ),
        *options,
    )


def test_ingest_pair_writes_the_pair(tmp_path: Path, fits_files: Path) -> None:
    repo = tmp_path / "repo"
    options = ["--band", "r", "--njy-per-unit", 0.5, "--mask", fits_files / "mask.fits", "--visit", 8]
    result = _ingest(repo, fits_files, *options, "--template-njy-per-unit", 2.0)
    assert result.exit_code == 0, result.output
    assert f"2 datasets in collection DiaFits/input of {repo}" in result.output
    pair = simulate_pair(size=64, seed=2)
    with Butler.from_config(str(repo), collections="DiaFits/input", instrument="DiaFits") as butler:
        science = butler.get("visit_image", visit=8, detector=0)
        template = butler.get("template_detector", visit=8, detector=0)
    assert np.allclose(science.image.array, pair.science.image.array, rtol=1e-6)
    assert np.allclose(science.variance.array, pair.science.variance.array, rtol=1e-5)
    assert np.allclose(template.image.array, 4.0 * pair.template.image.array, rtol=1e-6)
    assert np.array_equal(template.mask.get("BAD"), np.eye(64, dtype=bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--band", "r"], "science.fits: has no BUNIT"),
        (["--band", "r", "--unit", "adu"], "neither flux nor surface brightness"),
        (["--unit", "nJy", "--zero-point", 31.4], "not several"),
        (["--unit", "nJy"], "has no FILTER"),
        (["--unit", "nJy", "--band", "r", "--psf-size", 10], "PSF size must be odd"),
        (["--unit", "nJy", "--band", "r", "--science-variance", "v.fits"], "either a noise or a variance"),
        (["--unit", "nJy", "--band", "r", "--mask", "nothing.fits"], "nothing.fits: no such file"),
    ],
)
def test_ingest_pair_says_what_is_wrong(
    tmp_path: Path, fits_files: Path, options: list[object], message: str
) -> None:
    _assert_clear_error(_ingest(tmp_path / "repo", fits_files, *options), message)


def test_script_for_an_eups_setup_runs() -> None:
    script = Path(__file__).parents[1] / "bin" / "diainspect"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert "simulate" in done.stdout
    assert "ingest-pair" in done.stdout
