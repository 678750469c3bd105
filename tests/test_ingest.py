"""FITS pairs become the images that the tasks read, or are refused with a message that names the file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from lsst.daf.butler import Butler
from lsst.images import Box, DifferenceImage, VisitImage

from lsst.diainspect.ingest import (
    FitsImageSource,
    IngestError,
    PixelUnit,
    ingest_pair,
    read_fits_pair,
    read_psf,
)
from lsst.diainspect.psf import PixelBasisPsf

_HEIGHT, _WIDTH = 60, 80
_SCALE = 0.2 / 3600.0
_BOX = Box.from_shape((_HEIGHT, _WIDTH))


def _header(**cards: object) -> fits.Header:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 30.0, -20.0
    header["CRPIX1"], header["CRPIX2"] = 40.0, 30.0
    header["CD1_1"], header["CD2_2"] = -_SCALE, _SCALE
    header["RADESYS"] = "ICRS"
    header["BUNIT"] = "nJy"
    header["MJD-OBS"], header["EXPTIME"] = 60000.25, 30.0
    header["FILTER"] = "r"
    for name, value in cards.items():
        key = name.replace("_OBS", "-OBS")
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    return header


def _gaussian(size: int, dx: float = 0.0, dy: float = 0.0, sigma: float = 1.8) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-0.5 * ((x - dx) ** 2 + (y - dy) ** 2) / sigma**2)


def _write(path: Path, array: np.ndarray, header: fits.Header | None = None) -> str:
    fits.writeto(path, np.asarray(array, dtype=np.float32), header, overwrite=True)
    return str(path)


class Files:
    """A pair of images with PSFs and noise on disk."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(1)
        self.folder = folder
        self.pixels = {side: rng.normal(size=(_HEIGHT, _WIDTH)).astype(np.float32) for side in ("sci", "ref")}
        for side, pixels in self.pixels.items():
            self.write(f"{side}.fits", pixels)
            self.write(f"{side}.psf.fits", 3.0 * _gaussian(25), fits.Header())
            self.write(f"{side}.noise.fits", np.full((_HEIGHT, _WIDTH), 2.0))

    def write(self, name: str, array: np.ndarray, header: fits.Header | None = None) -> str:
        return _write(self.folder / name, array, header if header is not None else _header())

    def source(self, side: str, **changes: object) -> FitsImageSource:
        source = FitsImageSource(
            str(self.folder / f"{side}.fits"),
            str(self.folder / f"{side}.psf.fits"),
            noise=str(self.folder / f"{side}.noise.fits"),
        )
        return dataclasses.replace(source, **changes)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_pixels_noise_and_coordinates_are_kept(files: Files) -> None:
    pair = read_fits_pair(files.source("sci"), files.source("ref"), visit=5, detector=3)
    assert isinstance(pair.science, VisitImage)
    assert isinstance(pair.template, DifferenceImage)
    for side, image in (("sci", pair.science), ("ref", pair.template)):
        assert (image.image.unit, image.variance.unit) == (u.nJy, u.nJy**2)
        assert np.array_equal(image.image.array, files.pixels[side])
        assert np.all(image.variance.array == 4.0)
        assert not image.mask.array.any()
        assert (image.detector.id, image.obs_info.visit_id, image.band) == (3, 5, "r")
    expected = WCS(_header()).pixel_to_world(70, 10)
    assert pair.science.sky_projection.pixel_to_sky(x=70, y=10).separation(expected).arcsec < 1e-6
    assert pair.exposure.begin.utc.mjd == pytest.approx(60000.25)
    assert pair.exposure.exposure_time == 30.0


@pytest.mark.parametrize("suffix", [".fits.gz", ".fits"])
def test_compressed_files_and_extensions_are_read(files: Files, suffix: str) -> None:
    path = files.folder / f"multi{suffix}"
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.zeros((3, 3))),
            fits.ImageHDU(files.pixels["sci"], _header(), name="SCI"),
        ]
    ).writeto(path)
    for extension in ("SCI", "2"):
        pair = read_fits_pair(files.source("sci", image=f"{path}[{extension}]"), files.source("ref"))
        assert np.array_equal(pair.science.image.array, files.pixels["sci"])


def test_first_image_of_a_file_is_the_default(files: Files) -> None:
    path = files.folder / "multi.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(files.pixels["sci"], _header())]).writeto(path)
    pair = read_fits_pair(files.source("sci", image=path), files.source("ref"))
    assert np.array_equal(pair.science.image.array, files.pixels["sci"])


_AREA = (0.2 / 3600.0 * np.pi / 180.0) ** 2


@pytest.mark.parametrize(
    ("bunit", "pixel_unit", "factor"),
    [
        ("uJy", PixelUnit(), 1e3),
        ("Jy / pix", PixelUnit(), 1e9),
        ("MJy/sr", PixelUnit(), 1e15 * _AREA),
        ("uJy / arcsec2", PixelUnit(), 1e3 * 0.04),
        ("adu", PixelUnit(njy_per_unit=2.5), 2.5),
        (None, PixelUnit(zero_point=31.4), 1e32 * 10 ** (-0.4 * (31.4 + 48.6))),
        (None, PixelUnit(unit="mJy"), 1e6),
    ],
)
def test_pixels_and_noise_become_njy(
    files: Files, bunit: str | None, pixel_unit: PixelUnit, factor: float
) -> None:
    files.write("sci.fits", files.pixels["sci"], _header(BUNIT=bunit))
    files.write("sci.noise.fits", np.full((_HEIGHT, _WIDTH), 2.0), _header(BUNIT=bunit))
    pair = read_fits_pair(files.source("sci", pixel_unit=pixel_unit), files.source("ref"))
    assert np.allclose(pair.science.image.array, files.pixels["sci"] * factor, rtol=1e-5)
    assert np.allclose(pair.science.variance.array, (2.0 * factor) ** 2, rtol=1e-5)


@pytest.mark.parametrize("bunit", [None, "uJy2"])
def test_variance_files_are_in_squared_units(files: Files, bunit: str | None) -> None:
    files.write("sci.fits", files.pixels["sci"], _header(BUNIT="uJy"))
    variance = files.write("sci.var.fits", np.full((_HEIGHT, _WIDTH), 9.0), _header(BUNIT=bunit))
    pair = read_fits_pair(files.source("sci", noise=None, variance=variance), files.source("ref"))
    assert np.allclose(pair.science.variance.array, 9.0e6)


def test_noise_in_other_units_than_the_image_is_converted(files: Files) -> None:
    files.write("sci.noise.fits", np.full((_HEIGHT, _WIDTH), 2.0), _header(BUNIT="uJy"))
    pair = read_fits_pair(files.source("sci"), files.source("ref"))
    assert np.allclose(pair.science.variance.array, 4.0e6)


def test_pixels_without_value_or_noise_are_masked(files: Files) -> None:
    pixels = files.pixels["ref"].copy()
    pixels[3, 4] = np.nan
    noise = np.full((_HEIGHT, _WIDTH), 2.0)
    noise[5, 6:10] = [0.0, -1.0, np.nan, np.inf]
    files.write("ref.fits", pixels)
    files.write("ref.noise.fits", noise)
    template = read_fits_pair(files.source("sci"), files.source("ref")).template
    assert np.argwhere(template.mask.get("NO_DATA")).tolist() == [[3, 4]]
    assert np.argwhere(template.mask.get("BAD")).tolist() == [[5, 6], [5, 7], [5, 8], [5, 9]]
    assert np.all(template.variance.array == 4.0)


def test_mask_files_set_the_plane_asked_for(files: Files) -> None:
    marked = np.zeros((_HEIGHT, _WIDTH))
    marked[10, 20] = 1
    mask = files.write("mask.fits", marked)
    pair = read_fits_pair(files.source("sci", mask=mask), files.source("ref"), mask_plane="SUSPECT")
    assert np.argwhere(pair.science.mask.get("SUSPECT")).tolist() == [[10, 20]]
    assert not pair.science.mask.get("BAD").any()
    assert not pair.template.mask.array.any()


def test_template_without_coordinates_takes_those_of_the_science_image(files: Files) -> None:
    files.write("ref.fits", files.pixels["ref"], _header(CTYPE1=None, CTYPE2=None))
    pair = read_fits_pair(files.source("sci"), files.source("ref"))
    assert pair.template.sky_projection == pair.science.sky_projection


def test_names_and_times_can_be_given(files: Files) -> None:
    files.write("sci.fits", files.pixels["sci"], _header(FILTER=None, MJD_OBS=None, EXPTIME=None))
    pair = read_fits_pair(
        files.source("sci"), files.source("ref"), band="g", date="2024-05-06T07:08:09", exposure_time=12.0
    )
    assert (pair.science.band, pair.science.physical_filter) == ("g", "g")
    assert pair.exposure.observing_day == 20240506
    assert pair.exposure.exposure_time == 12.0


def test_psf_is_normalised_and_cut(files: Files) -> None:
    psf = read_psf(files.folder / "sci.psf.fits", _BOX, size=15)
    expected = _gaussian(15)
    assert np.allclose(psf.at(3, 5), expected / expected.sum(), atol=1e-8)


def test_small_psf_stays_as_it_is(files: Files) -> None:
    assert read_psf(files.folder / "sci.psf.fits", _BOX, size=51).size == 25


def test_sub_pixel_offset_of_a_psf_is_kept(files: Files) -> None:
    path = files.write("psf.fits", _gaussian(25, 0.4, -0.3))
    expected = _gaussian(25, 0.4, -0.3)
    assert np.allclose(read_psf(path, _BOX).at(0, 0), expected / expected.sum(), atol=1e-8)


def test_psf_off_by_more_than_half_a_pixel_is_moved_by_whole_pixels(files: Files) -> None:
    image = read_psf(files.write("psf.fits", _gaussian(25, 2.2, -1.1)), _BOX).at(0, 0)
    y, x = np.mgrid[:25, :25] - 12
    assert (image * x).sum() == pytest.approx(0.2, abs=1e-3)
    assert (image * y).sum() == pytest.approx(-0.1, abs=1e-3)


def _broken_science(files: Files, array: np.ndarray | None = None, **cards: object) -> FitsImageSource:
    files.write("sci.fits", files.pixels["sci"] if array is None else array, _header(**cards))
    return files.source("sci")


def _broken_psf(files: Files, array: np.ndarray, **cards: object) -> FitsImageSource:
    header = fits.Header()
    header.update(cards)
    files.write("sci.psf.fits", array, header)
    return files.source("sci")


def _not_fits(files: Files) -> FitsImageSource:
    (files.folder / "sci.fits").write_text("not a FITS file")
    return files.source("sci")


def _table_only(files: Files) -> FitsImageSource:
    columns = [fits.Column("a", "E", array=np.arange(3.0))]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(
        files.folder / "sci.fits", overwrite=True
    )
    return files.source("sci")


def _noise(files: Files, array: np.ndarray) -> FitsImageSource:
    files.write("sci.noise.fits", array)
    return files.source("sci")


_BAD_SCIENCE: dict[str, tuple[Callable[[Files], FitsImageSource], str]] = {
    "missing image": (lambda f: f.source("sci", image="nothing.fits"), r"nothing\.fits: no such file"),
    "missing psf": (lambda f: f.source("sci", psf="nothing.fits"), r"nothing\.fits: no such file"),
    "missing noise": (lambda f: f.source("sci", noise="nothing.fits"), r"nothing\.fits: no such file"),
    "missing mask": (lambda f: f.source("sci", mask="nothing.fits"), r"nothing\.fits: no such file"),
    "not FITS": (_not_fits, r"sci\.fits: cannot be read as FITS"),
    "no image": (_table_only, r"sci\.fits: has no two-dimensional image"),
    "no such extension": (
        lambda f: f.source("sci", image=str(f.folder / "sci.fits[ERR]")),
        r"sci\.fits\[ERR\]: no extension ERR",
    ),
    "noise shape": (lambda f: _noise(f, np.ones((3, 3))), r"sci\.noise\.fits: has 3 x 3 pixels"),
    "mask shape": (
        lambda f: f.source("sci", mask=f.write("mask.fits", np.ones((3, 4)))),
        r"mask\.fits: has 4 x 3 pixels",
    ),
    "no positive noise": (
        lambda f: _noise(f, np.zeros((_HEIGHT, _WIDTH))),
        r"sci\.noise\.fits: no pixel has both a value and a positive noise",
    ),
    "all NaN": (
        lambda f: _broken_science(f, np.full((_HEIGHT, _WIDTH), np.nan)),
        r"sci\.fits.*: no pixel has a value",
    ),
    "no WCS": (
        lambda f: _broken_science(f, CTYPE1=None, CTYPE2=None),
        r"sci\.fits: has no celestial coordinate system",
    ),
    "galactic WCS": (
        lambda f: _broken_science(f, CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN", RADESYS=None),
        r"sci\.fits: coordinates must be ICRS or FK5 J2000, got galactic",
    ),
    "no unit": (lambda f: _broken_science(f, BUNIT=None), r"sci\.fits: has no BUNIT"),
    "count unit": (
        lambda f: _broken_science(f, BUNIT="adu"),
        r"sci\.fits: pixels in adu are neither flux nor surface brightness",
    ),
    "strange unit": (lambda f: _broken_science(f, BUNIT="frob"), r"sci\.fits: unit 'frob' is not understood"),
    "no date": (lambda f: _broken_science(f, MJD_OBS=None), r"sci\.fits: has no time of observation"),
    "no exposure time": (lambda f: _broken_science(f, EXPTIME=None), r"sci\.fits: has no exposure time"),
    "no filter": (lambda f: _broken_science(f, FILTER=None), r"sci\.fits: has no FILTER"),
    "psf not square": (
        lambda f: _broken_psf(f, np.ones((25, 27))),
        r"sci\.psf\.fits: a PSF image must be square, got 27 x 25",
    ),
    "psf even": (
        lambda f: _broken_psf(f, _gaussian(24)),
        r"sci\.psf\.fits: a PSF image must have an odd side",
    ),
    "psf NaN": (
        lambda f: _broken_psf(f, np.full((25, 25), np.nan)),
        r"sci\.psf\.fits: the PSF has 625 pixels that are not finite",
    ),
    "psf negative": (
        lambda f: _broken_psf(f, -_gaussian(25)),
        r"sci\.psf\.fits: the PSF has no positive sum",
    ),
    "psf far off": (
        lambda f: _broken_psf(f, _gaussian(25, 9.0)),
        r"sci\.psf\.fits: the PSF is .* pixels off the centre",
    ),
    "psf pixel scale": (
        lambda f: _broken_psf(f, _gaussian(25), PIXELSCL=0.05),
        r"sci\.psf\.fits: the PSF has 0\.05 arcsec pixels",
    ),
    "psf oversampled": (
        lambda f: _broken_psf(f, _gaussian(25), OVERSAMP=4),
        r"sci\.psf\.fits: the PSF is oversampled",
    ),
}


@pytest.mark.parametrize("case", _BAD_SCIENCE)
def test_bad_files_are_refused_by_name(files: Files, case: str) -> None:
    make, message = _BAD_SCIENCE[case]
    with pytest.raises(IngestError, match=message):
        read_fits_pair(make(files), files.source("ref"))


def test_psf_binned_to_the_image_scale_is_accepted(files: Files) -> None:
    source = _broken_psf(files, _gaussian(25), OVERSAMP=4, PIXELSCL=0.2001)
    read_fits_pair(source, files.source("ref"))


def test_template_of_another_shape_is_refused_where_it_cannot_be_warped(files: Files) -> None:
    for cards, warp in (({"CTYPE1": None, "CTYPE2": None}, "auto"), ({}, "never")):
        files.write("ref.fits", np.ones((_HEIGHT, _WIDTH + 1)), _header(**cards))
        with pytest.raises(IngestError, match=r"ref\.fits: has 81 x 60 pixels, .*sci\.fits has 80 x 60"):
            read_fits_pair(files.source("sci"), files.source("ref"), warp=warp)


@pytest.mark.parametrize("cards", [{"CRPIX1": 41.0}, {"CD1_1": -1.05 * _SCALE}, {"CRVAL2": 60.0}])
def test_template_on_another_grid_is_refused_when_it_must_not_be_warped(
    files: Files, cards: dict[str, float]
) -> None:
    files.write("ref.fits", files.pixels["ref"], _header(**cards))
    with pytest.raises(IngestError, match=r"ref\.fits: its coordinate"):
        read_fits_pair(files.source("sci"), files.source("ref"), warp="never")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visit": -1}, "Visit number must be in"),
        ({"detector": 256}, "Detector number must be in"),
        ({"psf_size": 50}, "PSF size must be odd"),
        ({"mask_plane": "UGLY"}, "Mask plane 'UGLY' is not known"),
        ({"date": "yesterday"}, "Date 'yesterday' is not in ISO format"),
        ({"warp": "sometimes"}, "warp must be auto, always or never"),
        ({"exposure_time": -1.0}, "Exposure time must be positive"),
        ({"band": "x" * 33}, "32 characters"),
    ],
)
def test_bad_settings_are_refused(files: Files, changes: dict[str, object], message: str) -> None:
    with pytest.raises(IngestError, match=message):
        read_fits_pair(files.source("sci"), files.source("ref"), **changes)  # type: ignore[arg-type]


def test_noise_and_variance_cannot_both_be_given() -> None:
    with pytest.raises(IngestError, match=r"image\.fits: give either a noise or a variance file, not both"):
        FitsImageSource("image.fits", "psf.fits", noise="a", variance="b")


def test_only_one_way_to_give_the_unit_is_accepted() -> None:
    with pytest.raises(IngestError, match="not several"):
        PixelUnit(unit="nJy", zero_point=27.0)


def test_ingested_pair_comes_back_from_the_repository(files: Files) -> None:
    root = files.folder / "repo"
    refs = ingest_pair(root, files.source("sci"), files.source("ref"), visit=7, detector=2)
    expected = read_fits_pair(files.source("sci"), files.source("ref"), visit=7, detector=2)
    with Butler.from_config(str(root), collections="DiaFits/input") as butler:
        found = butler.query_datasets(
            "visit_image", where="instrument = 'DiaFits' AND day_obs = 20230225 AND visit.exposure_time = 30"
        )
        assert [ref.id for ref in found] == [refs[0].id]
        science, template = (butler.get(ref) for ref in refs)
    assert np.array_equal(science.image.array, expected.science.image.array)
    assert np.array_equal(template.variance.array, expected.template.variance.array)
    psf = PixelBasisPsf.from_point_spread_function(template.psf, template.bbox)
    gaussian = _gaussian(25)
    assert np.allclose(psf.at(40, 20), gaussian / gaussian.sum(), atol=1e-7)


def test_ingesting_twice_is_refused_and_another_detector_is_not(files: Files) -> None:
    root = files.folder / "repo"
    ingest_pair(root, files.source("sci"), files.source("ref"))
    with pytest.raises(IngestError, match="already has visit_image for visit 1, detector 0"):
        ingest_pair(root, files.source("sci"), files.source("ref"))
    assert len(ingest_pair(root, files.source("sci"), files.source("ref"), detector=20)) == 2


def test_other_values_for_a_known_visit_are_refused(files: Files) -> None:
    root = files.folder / "repo"
    ingest_pair(root, files.source("sci"), files.source("ref"))
    with pytest.raises(
        IngestError, match="Visit 1 of DiaFits is already in the repository with other values"
    ):
        ingest_pair(root, files.source("sci"), files.source("ref"), detector=1, exposure_time=60.0)


def _jwst(folder: Path, program: str) -> FitsImageSource:
    def find(pattern: str) -> Path:
        (path,) = folder.glob(pattern)
        return path

    return FitsImageSource(
        find(f"input_data__jw{program}*.fits.gz"),
        find(f"auxiliary__jw{program}*WebbPSF.fits.gz"),
        noise=find(f"auxiliary__jw{program}*noise.fits.gz"),
    )


def test_jwst_pair_is_read_with_its_physical_units() -> None:
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR", default)) / "pair_jwst_nircam_sfft"
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set DIAINSPECT_TESTDATA_DIR")
    source = _jwst(folder, "02561")
    pair = read_fits_pair(source, _jwst(folder, "01324"))
    header = fits.getheader(source.image)
    assert header["BUNIT"] == "MJy/sr"
    # The coordinate system is a plain tangent projection with the pixel side CDELT1.
    area = np.deg2rad(header["CDELT1"]) ** 2
    assert np.allclose(
        pair.science.image.array, fits.getdata(source.image) * 1e15 * area, rtol=1e-4, atol=1e-6
    )
    assert (pair.science.band, pair.exposure.observing_day) == ("F200W", 20221102)
    assert pair.science.mask.get("BAD").sum() == 1
    assert pair.template.mask.get("NO_DATA").sum() == 5
    for image in (pair.science, pair.template):
        psf = PixelBasisPsf.from_point_spread_function(image.psf, image.bbox)
        assert psf.size == 51
        assert psf.at(450, 450).sum() == pytest.approx(1.0)
        assert np.isfinite(image.variance.array).all()
