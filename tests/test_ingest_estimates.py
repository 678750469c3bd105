"""What FITS images do not bring along is estimated: background, noise, saturation, missing areas, PSFs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler

from lsst.diainspect.ingest import FitsImageSource, IngestError, NoiseSettings, ingest_pair, read_fits_pair
from lsst.diainspect.psf import PixelBasisPsf, TooFewStars, second_moments

_SIZE = 300
_SKY, _SIGMA, _GAIN = 500.0, 15.0, 2.0
_WIDTH = 1.9


def header(**cards: object) -> fits.Header:
    values: dict[str, object] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 30.0,
        "CRVAL2": -20.0,
        "CRPIX1": 150.0,
        "CRPIX2": 150.0,
        "CD1_1": -5e-5,
        "CD2_2": 5e-5,
        "BUNIT": "nJy",
        "MJD-OBS": 60000.25,
        "EXPTIME": 30.0,
        "FILTER": "r",
        "GAIN": _GAIN,
    }
    values.update(cards)
    result = fits.Header()
    for name, value in values.items():
        if value is not None:
            result[name.replace("_OBS", "-OBS")] = value
    return result


def stars(seed: int, *, slope: float = 0.0, n_side: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """An image of stars with photon noise on a sloping sky, and the expected variance."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:_SIZE, :_SIZE].astype(float)
    light = np.zeros((_SIZE, _SIZE))
    positions = np.random.default_rng(99)
    grid = (np.arange(n_side) + 0.5) * _SIZE / n_side
    for cx in grid:
        for cy in grid:
            dx, dy = positions.uniform(-4, 4, 2)
            flux = np.exp(positions.uniform(np.log(2e4), np.log(1e5)))
            light += (
                flux
                * np.exp(-0.5 * ((x - cx - dx) ** 2 + (y - cy - dy) ** 2) / _WIDTH**2)
                / (2 * np.pi * _WIDTH**2)
            )
    variance = _SIGMA**2 + light / _GAIN
    sky = _SKY + slope * (x - 0.5 * _SIZE)
    return light + sky + rng.normal(size=light.shape) * np.sqrt(variance), variance


class Pair:
    def __init__(self, folder: Path, **cards: object) -> None:
        self.folder = folder
        self.cards = cards
        for seed, side in ((1, "sci"), (2, "ref")):
            self.pixels, self.variance = stars(seed, slope=0.05)
            self.write(side, self.pixels)

    def write(self, side: str, pixels: np.ndarray, **cards: object) -> None:
        fits.writeto(
            self.folder / f"{side}.fits",
            pixels.astype(np.float32),
            header(**{**self.cards, **cards}),
            overwrite=True,
        )

    def source(self, side: str, **options: object) -> FitsImageSource:
        options.setdefault("psf_order", 0)
        return FitsImageSource(self.folder / f"{side}.fits", **options)  # type: ignore[arg-type]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_background_and_noise_are_those_of_the_image(pair: Pair) -> None:
    result = read_fits_pair(pair.source("sci"), pair.source("ref"))
    for image in (result.science, result.template):
        sky = pair.variance < 1.01 * _SIGMA**2
        # The mean of 60000 sky pixels has an error of 0.06; sources' wings below the threshold add some.
        assert abs(np.mean(image.image.array[sky])) < 0.03 * _SIGMA
        left, right = image.image.array[:, :75][sky[:, :75]], image.image.array[:, 225:][sky[:, 225:]]
        assert abs(left.mean() - right.mean()) < 0.1 * _SIGMA
        assert np.median(image.variance.array[sky]) == pytest.approx(_SIGMA**2, rel=0.03)
        metadata = image.metadata
        assert metadata["diainspect_noise"] == "estimated from the sky"
        assert metadata["diainspect_gainFrom"] == "header"
        assert metadata["diainspect_backgroundMedian"] == pytest.approx(_SKY, abs=3.0)


def test_photon_noise_of_sources_follows_the_gain(pair: Pair) -> None:
    image = read_fits_pair(pair.source("sci"), pair.source("ref")).science
    bright = pair.variance > 4 * _SIGMA**2
    ratio = image.variance.array[bright] / pair.variance[bright]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def test_unknown_gain_leaves_the_variance_of_the_sky_and_says_so(tmp_path: Path) -> None:
    pair = Pair(tmp_path, GAIN=None)
    image = read_fits_pair(pair.source("sci"), pair.source("ref")).science
    assert image.variance.array.max() < 1.3 * _SIGMA**2
    assert "without the photon noise of sources" in image.metadata["diainspect_noise"]
    assert image.metadata["diainspect_gainFrom"] == "unknown"


def test_gain_follows_from_the_sky_on_request(pair: Pair) -> None:
    source = pair.source("sci", noise_settings=NoiseSettings(gain="sky"))
    metadata = read_fits_pair(source, pair.source("ref")).science.metadata
    assert metadata["diainspect_gain"] == pytest.approx(_SKY / _SIGMA**2, rel=0.05)


def test_gain_option_wins_over_the_header(pair: Pair) -> None:
    source = pair.source("sci", noise_settings=NoiseSettings(gain=0.5))
    image = read_fits_pair(source, pair.source("ref")).science
    bright = pair.variance > 4 * _SIGMA**2
    assert np.median(image.variance.array[bright] / pair.variance[bright]) > 2.0


def test_background_stays_when_asked(pair: Pair) -> None:
    source = pair.source("sci", noise_settings=NoiseSettings(subtract_background=False))
    with pytest.raises(TooFewStars):
        # A PSF needs an image without background: all pixels belong to one source.
        read_fits_pair(source, pair.source("ref"))
    psf = pair.folder / "psf.fits"
    grid = np.mgrid[:21, :21] - 10
    fits.writeto(psf, np.exp(-0.5 * (grid**2).sum(axis=0) / _WIDTH**2))
    source = pair.source("sci", psf=psf, noise_settings=NoiseSettings(subtract_background=False))
    image = read_fits_pair(source, pair.source("ref", psf=psf)).science
    assert np.median(image.image.array) == pytest.approx(_SKY, abs=3.0)
    assert image.metadata["diainspect_backgroundSubtracted"] is False


def test_saturated_pixels_and_their_bleeds_are_flagged(pair: Pair) -> None:
    pixels = pair.pixels.copy()
    pixels[100, 100] = 30000.0
    pixels[101:110, 100] = 25000.0
    pixels[200, 200] = 25000.0
    pair.write("sci", pixels, SATURATE=28000.0)
    image = read_fits_pair(pair.source("sci"), pair.source("ref")).science
    saturated = image.mask.get("SATURATED")
    assert saturated[98:112, 98:103].all()
    # Bright, but not joined to a saturated pixel.
    assert not saturated[200, 200]
    assert saturated.sum() == 14 * 5
    assert image.metadata["diainspect_saturationLevel"] == 28000.0


def test_saturation_level_can_be_given(pair: Pair) -> None:
    source = pair.source("sci", noise_settings=NoiseSettings(saturation=3000.0))
    assert read_fits_pair(source, pair.source("ref")).science.mask.get("SATURATED").any()


def test_areas_of_zero_and_nan_have_no_data(pair: Pair) -> None:
    pixels = pair.pixels.copy()
    pixels[:, :20] = 0.0
    pixels[50, 50] = np.nan
    pixels[60, 60] = 0.0
    pair.write("sci", pixels)
    image = read_fits_pair(pair.source("sci"), pair.source("ref")).science
    no_data = image.mask.get("NO_DATA")
    assert no_data[:, :20].all()
    assert no_data[50, 50]
    assert not no_data[60, 60]
    assert no_data.sum() == 20 * _SIZE + 1
    assert np.median(image.variance.array[:, 20:]) == pytest.approx(_SIGMA**2, rel=0.05)


def test_psf_is_measured_where_it_is_not_given(pair: Pair) -> None:
    result = read_fits_pair(pair.source("sci"), pair.source("ref"))
    for image, table in (
        (result.science, result.science_psf_stars),
        (result.template, result.template_psf_stars),
    ):
        assert table is not None
        assert table["used"].sum() >= 20
        psf = PixelBasisPsf.from_point_spread_function(image.psf, image.bbox)
        ixx, iyy, _ = (float(m[0]) for m in second_moments(psf.at(150, 150)[None]))
        assert np.sqrt(0.5 * (ixx + iyy)) == pytest.approx(_WIDTH, rel=0.01)
        assert image.metadata["diainspect_psf"] == "measured from stars"
        assert image.metadata["diainspect_psf_nStars"] == table["used"].sum()


def test_psf_quality_tables_are_datasets(pair: Pair) -> None:
    repo = pair.folder / "repo"
    refs = ingest_pair(repo, pair.source("sci"), pair.source("ref"))
    names = [ref.datasetType.name for ref in refs]
    assert names == ["visit_image", "template_detector", "science_psf_stars", "template_psf_stars"]
    with Butler.from_config(str(repo), collections="DiaFits/input", instrument="DiaFits") as butler:
        table = butler.get("science_psf_stars", visit=1, detector=0)
        image = butler.get("visit_image", visit=1, detector=0)
    assert {"x", "y", "snr", "used", "rejected", "sizeResidual", "peakResidual"} <= set(table.colnames)
    assert image.metadata["diainspect_gain"] == _GAIN


def test_too_few_stars_name_the_file_and_what_to_do(pair: Pair) -> None:
    rng = np.random.default_rng(5)
    pair.write("ref", _SKY + rng.normal(scale=_SIGMA, size=(_SIZE, _SIZE)))
    with pytest.raises(TooFewStars, match=r"ref\.fits: 0 of \d+ sources are stars .* Give a PSF file"):
        read_fits_pair(pair.source("sci"), pair.source("ref"))


def test_image_without_noise_needs_a_noise_file(pair: Pair) -> None:
    pair.write("sci", np.full((_SIZE, _SIZE), 3.0))
    with pytest.raises(IngestError, match=r"sci\.fits: its sky has no noise"):
        read_fits_pair(pair.source("sci"), pair.source("ref"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 0.0}, "Gain must be positive"),
        ({"gain": "much"}, "must be a number or 'sky'"),
        ({"saturation": -1.0}, "Saturation level must be positive"),
        ({"mesh": 3}, "at least 16 pixels"),
    ],
)
def test_bad_noise_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(IngestError, match=message):
        NoiseSettings(**options)  # type: ignore[arg-type]


def test_gain_from_a_subtracted_sky_is_refused(pair: Pair) -> None:
    pair.write("sci", pair.pixels - _SKY - 20.0)
    with pytest.raises(IngestError, match="no gain follows"):
        read_fits_pair(pair.source("sci", noise_settings=NoiseSettings(gain="sky")), pair.source("ref"))
