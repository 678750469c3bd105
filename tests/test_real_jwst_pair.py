"""The real JWST NIRCam pair from FITS files to the comparison table, against the reference that comes with it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.stats import mad_std
from lsst.daf.butler import Butler

from commands import run_command, run_pipeline

DATA = (
    Path(os.environ.get("DIAINSPECT_TESTDATA_DIR", Path(__file__).parents[2] / "shared" / "data"))
    / "pair_jwst_nircam_sfft"
)
PIPELINE = "resource://lsst.diainspect/pipelines/DiaFits/inspect.yaml"
METHODS = ("al", "zogy")
DETECTOR = {"visit": 1, "detector": 0}

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"The real JWST pair is not there ({DATA}); set DIAINSPECT_TESTDATA_DIR."
)


def only(pattern: str) -> Path:
    (path,) = DATA.glob(pattern)
    return path


@pytest.fixture(scope="module")
def butler(tmp_path_factory):
    repo = tmp_path_factory.mktemp("jwst") / "repo"
    run_command(
        "diainspect", "ingest-pair", repo,
        only("input_data__jw02561*_stamp.fits.gz"), only("input_data__jw01324*_stamp.fits.gz"),
        "--science-psf", only("auxiliary__jw02561*WebbPSF.fits.gz"),
        "--template-psf", only("auxiliary__jw01324*WebbPSF.fits.gz"),
        "--science-noise", only("auxiliary__jw02561*noise.fits.gz"),
        "--template-noise", only("auxiliary__jw01324*noise.fits.gz"),
        "--band", "f200w",
    ).check()  # fmt: skip
    run_pipeline(repo, "u/test", pipeline=PIPELINE, inputs="DiaFits/input").check()
    return Butler.from_config(repo, collections="u/test", instrument="DiaFits")


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_white_and_scores_are_calibrated(butler, method):
    table = butler.get(f"{method}_difference_metrics", DETECTOR)
    metrics = {str(row["metric"]): float(row["value"]) for row in table}
    # The inputs were resampled: unaccounted for, the score's sigma is 1.6 and the correlation 0.36.
    assert metrics["scoreSigma"] == pytest.approx(1.0, abs=0.05)
    assert metrics["skySigmaOverPredicted"] == pytest.approx(1.0, abs=0.03)
    assert abs(metrics["neighbourCorrelationX"]) < 0.03
    assert abs(metrics["neighbourCorrelationY"]) < 0.03


@pytest.mark.parametrize("method", METHODS)
def test_difference_resembles_the_reference(butler, method):
    image = butler.get(f"{method}_difference_image", DETECTOR)
    ours = image.image.array / np.sqrt(image.variance.array)
    reference = fits.getdata(only("4check*SNR.fits.gz")).astype(float)
    both = (reference != 0) & np.isfinite(reference) & np.isfinite(ours)
    # Both show the noise of the same two exposures; the reference is left correlated (0.44 between neighbours), so
    # that white and correlated forms of one noise correlate by less than one.
    sky = both & (np.abs(reference) < 8)
    assert np.corrcoef(ours[sky], reference[sky])[0, 1] > 0.7
    assert mad_std(ours[both]) < mad_std(reference[both])


def test_a_null_pair_gives_few_sources(butler):
    comparison = butler.get("subtraction_comparison", DETECTOR)
    for method in METHODS:
        assert comparison[f"{method}_found"].sum() < 40
    visit = butler.get("subtraction_comparison_visit", visit=1)
    assert len(visit) == len(comparison)
