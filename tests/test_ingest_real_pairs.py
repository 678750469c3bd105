"""Real image pairs are ingested with measured PSFs, and subtracted by both methods."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.stats import mad_std
from scipy import ndimage

from lsst.diainspect.ingest import FitsImageSource, FitsPair, NoiseSettings, PixelUnit, read_fits_pair
from lsst.diainspect.sky import source_pixels
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    SubtractionResult,
    ZogyConfig,
    ZogySubtractor,
)

_METHODS: dict[str, tuple[Any, Any]] = {"al": (AlSubtractor, AlConfig), "zogy": (ZogySubtractor, ZogyConfig)}
_NJY_PER_ADU = 3.630780548


def _folder(name: str) -> Path:
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR", default)) / name
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set DIAINSPECT_TESTDATA_DIR")
    return folder


def _subtract(pair: FitsPair, method: str) -> SubtractionResult:
    images = ImagePair.from_images(pair.science, pair.template, pair.science.psf, pair.template.psf)
    subtractor, config = _METHODS[method]
    return subtractor(config()).subtract(images)


def _blank(pair: FitsPair, result: SubtractionResult) -> np.ndarray:
    sources = result.bad | result.spread | result.edge
    for image in (pair.science, pair.template):
        sources = sources | source_pixels(image.image.array, image.variance.array, result.bad)
    return ~ndimage.binary_dilation(sources, iterations=6)


@pytest.fixture(scope="module")
def decam() -> FitsPair:
    folder = _folder("pair_decam_sfft_decorrelation") / "4check"
    # Five exposures of gain 4 were averaged, at a zero point chosen here.
    science, template = (
        FitsImageSource(
            folder / f"Stack-DEC-OBS{night}.fits.gz",
            pixel_unit=PixelUnit(zero_point=30.0),
            noise_settings=NoiseSettings(gain=20.0),
        )
        for night in ("04", "18")
    )
    return read_fits_pair(science, template, band="i", physical_filter="i_decam")


@pytest.fixture(scope="module", params=_METHODS)
def decam_result(request: pytest.FixtureRequest, decam: FitsPair) -> tuple[str, SubtractionResult]:
    return request.param, _subtract(decam, request.param)


def test_decam_psfs_come_from_its_few_stars(decam: FitsPair) -> None:
    for table in (decam.science_psf_stars, decam.template_psf_stars):
        assert table is not None
        used = table[table["used"]]
        assert 3 <= len(used) <= 8
        # The residuals of fainter stars are noise.
        bright = used[used["snr"] > 200]
        assert len(bright) >= 3
        assert np.all(bright["peakResidual"] < 0.04)
    assert decam.science.metadata["diainspect_psf_order"] == 0
    assert decam.science.metadata["diainspect_psf_fwhm"] == pytest.approx(6.2, abs=0.3)


def test_decam_source_is_recovered(decam_result: tuple[str, SubtractionResult]) -> None:
    _, result = decam_result
    usable = ~(result.bad | result.spread | result.edge)
    peaks = usable & (result.score == ndimage.maximum_filter(result.score, 15)) & (result.score > 8.0)
    found = np.argwhere(peaks)
    assert len(found) == 1
    row, column = found[0]
    # The host galaxy's misregistration of a fraction of a pixel draws the peak of the score by one.
    assert np.hypot(column - 128.6, row - 127.6) < 2.0


def test_decam_noise_is_white_and_as_predicted(
    decam: FitsPair, decam_result: tuple[str, SubtractionResult]
) -> None:
    _, result = decam_result
    blank = _blank(decam, result)
    pull = result.difference / np.sqrt(result.variance)
    assert np.std(pull[blank]) == pytest.approx(1.0, abs=0.03)
    both = blank[:, 1:] & blank[:, :-1]
    assert abs(np.mean((pull[:, 1:] * pull[:, :-1])[both])) < 0.03
    # 20000 pixels in areas of about 100 that the score correlates.
    assert mad_std(result.score[blank]) == pytest.approx(1.0, abs=0.15)


def test_decam_difference_agrees_with_the_reference(
    decam: FitsPair, decam_result: tuple[str, SubtractionResult]
) -> None:
    method, result = decam_result
    path = _folder("pair_decam_sfft_decorrelation") / "4check" / "FinalDifference.DeCorr.fits.gz"
    reference = fits.getdata(path).astype(float)
    blank = _blank(decam, result)
    sigma = mad_std(reference[blank])
    box = np.s_[118:138, 118:138]
    flux = result.difference[box].sum() / _NJY_PER_ADU
    # The flux of the source, within the noise of the 400 pixels.
    assert flux == pytest.approx(reference[box].sum(), abs=3.0 * 20.0 * sigma)
    # In blank sky both are the same noise through another filter: at the scales of the PSF they are coherent.
    ours = np.where(blank, result.difference / np.sqrt(result.variance), 0.0)
    theirs = np.where(blank, (reference - np.median(reference[blank])) / sigma, 0.0)
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :])
    a, b = np.fft.rfft2(ours), np.fft.rfft2(theirs)
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.3)):
        band = (k >= low) & (k < high)
        coherence = (a * b.conj())[band].sum().real / np.sqrt(
            (np.abs(a[band]) ** 2).sum() * (np.abs(b[band]) ** 2).sum()
        )
        assert coherence > 0.96
    if method == "al":
        # Same method, so the same pixels up to the sharpness of the PSF.
        assert np.corrcoef(ours[blank], theirs[blank])[0, 1] > 0.95


@pytest.fixture(scope="module")
def goto() -> FitsPair:
    folder = _folder("pair_goto_zogyp")
    science, template = (
        FitsImageSource(
            folder / f"{number}.fits.xz",
            pixel_unit=PixelUnit(zero_point=27.149),
            noise_settings=NoiseSettings(gain="sky", saturation=40000.0),
            psf_order=2,
        )
        for number in (1, 2)
    )
    return read_fits_pair(science, template)


def test_goto_pair_is_read_from_compressed_files_with_measured_psfs(goto: FitsPair) -> None:
    assert goto.exposure.observing_day == 20180511
    assert goto.science.band == "L"
    for image, table in ((goto.science, goto.science_psf_stars), (goto.template, goto.template_psf_stars)):
        assert table is not None
        used = table[table["used"]]
        assert len(used) > 60
        # The PSF is 2.5 pixels wide in x and changes by half over the field: order 2 leaves 2 % of its width.
        assert abs(np.median(used["sizeResidual"])) < 0.01
        assert mad_std(used["sizeResidual"]) < 0.03
        assert mad_std(used["e1Residual"]) < 0.03
        metadata = image.metadata
        assert metadata["diainspect_noise"] == "estimated from the sky"
        assert 500 < metadata["diainspect_saturatedPixels"] < 5000
        sky = ~source_pixels(image.image.array, image.variance.array, image.mask.get("SATURATED"))
        pull = (image.image.array / np.sqrt(image.variance.array))[sky]
        assert mad_std(pull) == pytest.approx(1.0, abs=0.03)
