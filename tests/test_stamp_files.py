"""Stamps read back in part, as images and as files."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import astropy.wcs
import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Column, Table
from lsst.daf.butler.formatters.parquet import astropy_to_arrow
from lsst.images import Box, GeneralFrame, SkyProjection

from lsst.diainspect.alerts import read_alerts, write_alerts
from lsst.diainspect.export import StampDirectory, iterate_source_fits, triplet_pixels, write_hdf5
from lsst.diainspect.masks import MASK_BITS, get_plane
from lsst.diainspect.plots import DetectorLabel
from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.stamps import (
    QueryError,
    StampSet,
    cut_stamps,
    describe_plane,
    other_method,
    read_stamps,
    stamp_image,
)

BOX = Box.factory[1000:1060, 500:580]
LABEL = DetectorLabel("DiaSim", 42, 7, "r")
SIZE = 20


def _wcs() -> astropy.wcs.WCS:
    wcs = astropy.wcs.WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [359.9999, -65.0]
    wcs.wcs.crpix = [541.0, 1031.0]
    cos, sin = np.cos(0.6), np.sin(0.6)
    wcs.wcs.cd = np.array([[cos, sin], [sin, -cos]]) * 0.2 / 3600.0
    wcs.wcs.set()
    return wcs


@pytest.fixture
def stamps() -> StampSet:
    """Four sources, the last two at the edges, with planes of every kind."""
    rng = np.random.default_rng(1)
    x, y = np.array([530.2, 541.7, 501.0, 578.9]), np.array([1030.7, 1025.5, 1002.4, 1059.3])
    sky = _wcs().pixel_to_world(x, y)
    sources = Table()
    sources["diaSourceId"] = Column((np.int64(7) << 37) + np.array([4, 2, 9, 5]))
    sources["x"], sources["y"] = Column(x, unit=u.pix), Column(y, unit=u.pix)
    sources["ra"], sources["dec"] = Column(sky.ra.deg, unit=u.deg), Column(sky.dec.deg, unit=u.deg)
    sources["snr"] = Column(np.array([7.0, 30.0, 12.0, np.nan], dtype=np.float32))
    sources["isDipole"] = [False, True, False, False]
    sources["midpointMjdTai"] = Column(np.full(4, 61000.25), unit=u.d)
    sources["band"] = np.full(4, "r")

    def noise(scale: float = 1.0) -> tuple[np.ndarray, Box]:
        return rng.normal(100.0, scale, (60, 80)).astype(np.float32), BOX

    images = {name: noise(10.0) for name in ("science", "template", "difference", "score", "zogy_difference")}
    images |= {f"{name}Variance": noise() for name in ("science", "template", "difference")}
    images["mask"] = rng.integers(0, 1 << 27, (60, 80), dtype=np.uint32), BOX
    pixel = np.mgrid[:11, :11] - 5
    psf = PixelBasisPsf.from_image(np.exp(-0.5 * (pixel**2).sum(axis=0) / 1.8**2), BOX)
    projection = SkyProjection.from_fits_wcs(_wcs(), GeneralFrame(unit=u.pix))
    models = dict.fromkeys(("sciencePsf", "templatePsf", "differencePsf"), psf)
    return cut_stamps(sources, images, models, projection, SIZE)


@pytest.fixture
def stored(stamps: StampSet, tmp_path: Path) -> Path:
    path = tmp_path / "stamps.parquet"
    pq.write_table(astropy_to_arrow(stamps.to_table()), path)
    return path


def test_edges_are_flagged_and_padded(stamps: StampSet) -> None:
    assert list(stamps.sources["stamp_flag_edge"]) == [False, False, True, True]
    padded = np.isnan(stamps.planes["science"]).any(axis=(1, 2))
    np.testing.assert_array_equal(padded, stamps.sources["stamp_flag_edge"])


def test_planes_of_other_methods_are_planes() -> None:
    assert other_method("zogy_difference") == ("zogy", "difference")
    assert other_method("my_own_differenceVariance") == ("my_own", "differenceVariance")
    assert other_method("difference") is None
    assert describe_plane("zogy_difference") == (u.nJy, "Difference image, of the method zogy.")
    assert describe_plane("zogy_science") is None
    assert describe_plane("zogy_snr") is None


def test_planes_of_other_methods_are_weighted_by_their_own_variance(stamps: StampSet) -> None:
    assert "zogy_difference" in stamps.provides
    planes = {**stamps.planes, "zogy_differenceVariance": np.full_like(stamps.planes["difference"], 4.0)}
    again = StampSet(stamps.sources, planes, stamps.models)
    weight = again.weight("zogy_difference")
    assert set(np.unique(weight)) == {0.0, 0.25}


def test_stamps_are_read_by_identifier_in_the_order_asked_for(stamps: StampSet, stored: Path) -> None:
    ids = stamps.sources["diaSourceId"][[2, 0]].tolist()
    some = read_stamps(stored, ids=ids, planes=["difference", "zogy_difference"])
    assert some.sources["diaSourceId"].tolist() == ids
    assert set(some.planes) == {"difference", "zogy_difference"}
    np.testing.assert_array_equal(some.planes["difference"], stamps.planes["difference"][[2, 0]])
    np.testing.assert_array_equal(some.sources["pixelToSky"], stamps.sources["pixelToSky"][[2, 0]])


def test_stamps_are_read_by_condition_with_their_models(stamps: StampSet, stored: Path) -> None:
    some = read_stamps(stored, stamps.basis_table(), where="snr > 10 and isDipole")
    assert len(some) == 1
    assert some.provides == stamps.provides
    np.testing.assert_array_equal(some.planes["mask"], stamps.planes["mask"][1:2])
    np.testing.assert_allclose(
        some.models["sciencePsf"].images(), stamps.models["sciencePsf"][1:2].images(), atol=1e-7
    )


def test_what_is_not_stored_is_named(stored: Path) -> None:
    with pytest.raises(LookupError, match=r"1 of 1 sources are not among the 4 stored; the first is 3"):
        read_stamps(stored, ids=[3])
    with pytest.raises(LookupError, match="no plane \\['templateMatched'\\]"):
        read_stamps(stored, planes=["templateMatched"])
    with pytest.raises(QueryError, match="isDipol"):
        read_stamps(stored, where="isDipol")


@pytest.mark.parametrize("row", [0, 3])
def test_stamp_as_an_image_has_its_place_mask_and_sky(stamps: StampSet, row: int) -> None:
    image = stamp_image(stamps, row, "science")
    x0, y0 = int(stamps.sources["x0"][row]), int(stamps.sources["y0"][row])
    assert (image.bbox.x.start, image.bbox.y.start) == (x0, y0)
    np.testing.assert_array_equal(image.image.array, stamps.planes["science"][row])
    np.testing.assert_array_equal(image.variance.array, stamps.planes["scienceVariance"][row])
    assert image.unit == u.nJy
    for name in ("SATURATED", "OFF_IMAGE"):
        bit = (stamps.planes["mask"][row] >> MASK_BITS[name]) & 1
        np.testing.assert_array_equal(get_plane(image.mask, name), bit != 0)
    corner = image.sky_projection.pixel_to_sky(x=x0, y=y0)
    # 0.1 mas, over ten pixels of a projection without distortion.
    assert corner.separation(_wcs().pixel_to_world(x0, y0)).mas < 0.1


def test_image_of_a_plane_that_is_not_there_is_refused(stamps: StampSet) -> None:
    with pytest.raises(KeyError, match="templateMatched"):
        stamp_image(stamps, 0, "templateMatched")


def test_fits_file_of_a_source_holds_everything(stamps: StampSet, tmp_path: Path) -> None:
    for row, (identifier, file) in enumerate(iterate_source_fits(stamps, LABEL, "al")):
        assert identifier == stamps.sources["diaSourceId"][row]
        path = tmp_path / f"{identifier}.fits"
        file.writeto(path)
        with fits.open(path) as read:
            read.verify("exception")
            header = read[0].header
            assert (header["DIASRCID"], header["VISIT"], header["DETECTOR"]) == (identifier, 42, 7)
            assert (header["BAND"], header["METHOD"]) == ("r", "al")
            assert header["EDGE"] == stamps.sources["stamp_flag_edge"][row]
            for name, plane in stamps.planes.items():
                np.testing.assert_array_equal(read[name.upper()].data, plane[row])
            assert read["DIFFERENCE"].header["BUNIT"] == "nJy"
            assert u.Unit(read["SCIENCEVARIANCE"].header["BUNIT"]) == u.nJy**2
            assert read["MASK"].header["MP_SAT_TEMPLATE"] == MASK_BITS["SAT_TEMPLATE"]
            assert read["SCIENCEPSF"].data.sum() == pytest.approx(1.0, abs=1e-5)
            wcs = astropy.wcs.WCS(read["ZOGY_DIFFERENCE"].header)
            x, y = (float(stamps.sources[axis][row] - stamps.sources[f"{axis}0"][row]) for axis in "xy")
            sky = wcs.pixel_to_world(x, y)
            assert sky.ra.deg == pytest.approx(stamps.sources["ra"][row], abs=1e-9)
            assert sky.dec.deg == pytest.approx(stamps.sources["dec"][row], abs=1e-9)
            table = Table(read["SOURCE"].data)
            assert table["diaSourceId"][0] == identifier
            assert read["SOURCE"].columns["x"].unit == "pix"
            np.testing.assert_array_equal(table["pixelToSky"][0], stamps.sources["pixelToSky"][row])


def test_detector_file_has_a_layer_for_each_source(stamps: StampSet, tmp_path: Path) -> None:
    directory = StampDirectory(tmp_path / "out", {"format": "detector-fits", "method": "al"})
    directory.write(LABEL, stamps, {})
    with fits.open(tmp_path / "out" / "00000042-r-007.fits") as read:
        for name, plane in stamps.planes.items():
            np.testing.assert_array_equal(read[name.upper()].data, plane)
        np.testing.assert_array_equal(read["SOURCES"].data["diaSourceId"], stamps.sources["diaSourceId"])
        assert read["DIFFERENCEPSF"].shape == (4, 11, 11)


def test_hdf5_file_holds_arrays_of_all_sources(stamps: StampSet, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is an extra")
    write_hdf5(stamps, tmp_path / "stamps.h5", LABEL, "al")
    with h5py.File(tmp_path / "stamps.h5") as file:
        assert dict(file.attrs) == {
            "instrument": "DiaSim",
            "visit": 42,
            "detector": 7,
            "band": "r",
            "method": "al",
        }
        for name, plane in stamps.planes.items():
            np.testing.assert_array_equal(file["planes"][name][:], plane)
        assert file["planes/difference"].attrs["unit"] == "nJy"
        assert file["planes/mask"].attrs["STREAK"] == MASK_BITS["STREAK"]
        np.testing.assert_array_equal(file["sources/snr"][:], stamps.sources["snr"])
        assert file["sources/band"].asstr()[0] == "r"
        assert file["models/templatePsf"].shape == (4, 11, 11)


def test_alert_packets_are_read_back_as_the_stamps_they_were(stamps: StampSet, tmp_path: Path) -> None:
    pytest.importorskip("fastavro", reason="fastavro is an extra")
    path = tmp_path / "alerts.avro"
    write_alerts(stamps, path, visit=42, detector=7, band="r")
    read = read_alerts(path, size=SIZE, psf_size=11)
    assert len(read.skipped) == 0
    again = read.stamps
    for name in ("diaSourceId", "x0", "y0", "isDipole", "snr", "ra", "dec"):
        np.testing.assert_array_equal(again.sources[name], stamps.sources[name])
    assert set(again.sources["visit"]) == {42}
    np.testing.assert_allclose(again.sources["x"], stamps.sources["x"], atol=1e-4)
    np.testing.assert_allclose(
        again.sources["pixelToSky"], stamps.sources["pixelToSky"], rtol=1e-9, atol=1e-15
    )
    for name in ("science", "template", "difference"):
        np.testing.assert_array_equal(again.planes[name], stamps.planes[name])
        np.testing.assert_array_equal(again.planes[f"{name}Variance"], stamps.planes[f"{name}Variance"])
        np.testing.assert_allclose(
            again.models[f"{name}Psf"].images(), stamps.models[f"{name}Psf"].images(), atol=1e-7
        )


def test_stamps_of_alerts_can_be_exported_too(stamps: StampSet, tmp_path: Path) -> None:
    pytest.importorskip("fastavro", reason="fastavro is an extra")
    write_alerts(stamps, tmp_path / "alerts.avro", visit=42, detector=7, band="r")
    read = read_alerts(tmp_path / "alerts.avro", size=SIZE, psf_size=11).stamps
    directory = StampDirectory(tmp_path / "out", {"format": "fits", "method": "alert"})
    assert directory.write(LABEL, read, {}).n_edge == 0
    # Pixels that were NaN in a cutout are NO_DATA there; those beyond the cutout are off the image.
    wider = read_alerts(tmp_path / "alerts.avro", size=SIZE + 4, psf_size=11).stamps
    other = StampDirectory(tmp_path / "wider", {"format": "fits", "method": "alert"})
    assert other.write(LABEL, wider, {}).n_edge == 4


def test_alerts_need_the_three_images(stamps: StampSet, tmp_path: Path) -> None:
    pytest.importorskip("fastavro", reason="fastavro is an extra")
    planes = {"difference": stamps.planes["difference"]}
    with pytest.raises(ValueError, match=r"no \['science', 'template'\]"):
        write_alerts(StampSet(stamps.sources, planes), tmp_path / "a.avro", visit=1, detector=1, band="r")
    del stamps.sources["midpointMjdTai"]
    with pytest.raises(ValueError, match="midpointMjdTai"):
        write_alerts(stamps, tmp_path / "a.avro", visit=1, detector=1, band="r")


def test_pictures_show_every_image_with_shared_stretches(stamps: StampSet) -> None:
    pixels = triplet_pixels(stamps, 0)
    # Four panels of 20 pixels enlarged tenfold, with gaps of 4.
    assert pixels.shape == (200, 4 * 200 + 3 * 4, 3)
    assert pixels.dtype == np.uint8
    # A source that is brighter in the science image makes it darker there and nowhere else.
    planes = dict(stamps.planes)
    planes["science"] = planes["science"].copy()
    planes["science"][0, 10, 5] += 1e4
    brighter = triplet_pixels(StampSet(stamps.sources, planes), 0)
    # Row 10 from below is row 9 from above.
    assert brighter[95, 55].sum() == 0
    np.testing.assert_array_equal(brighter[:, 408:], pixels[:, 408:])
    # No data is grey.
    assert (triplet_pixels(stamps, 3)[0, 199] == 110).all()


def test_directory_refuses_other_settings_and_other_contents(stamps: StampSet, tmp_path: Path) -> None:
    settings = {"format": "png", "method": "al", "size": 20, "planes": ("science", "difference")}
    StampDirectory(tmp_path / "out", settings).write(LABEL, stamps, {"difference": "a"})
    StampDirectory(tmp_path / "out", settings)
    with pytest.raises(ValueError, match="size: 20 there, 21 now"):
        StampDirectory(tmp_path / "out", {**settings, "size": 21})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not empty"):
        StampDirectory(tmp_path / "other", settings)
    with pytest.raises(ValueError, match="Unknown format"):
        StampDirectory(tmp_path / "new", {**settings, "format": "gif"})


def test_directory_without_stamps_takes_new_settings(tmp_path: Path) -> None:
    # A run that failed at once, on a wrong condition for instance, does not spoil the directory.
    StampDirectory(tmp_path / "out", {"format": "png", "method": "al", "where": "snrr > 3"})
    StampDirectory(tmp_path / "out", {"format": "png", "method": "al", "where": "snr > 3"})


def test_directory_knows_what_is_complete_and_of_what(stamps: StampSet, tmp_path: Path) -> None:
    directory = StampDirectory(tmp_path, {"format": "png", "method": "al"})
    assert directory.completed(LABEL, {"difference": "a"}) is None
    record = directory.write(LABEL, stamps, {"difference": "a"})
    assert record.ids == stamps.sources["diaSourceId"].tolist()
    assert record.n_edge == 2
    assert directory.completed(LABEL, {"difference": "a"}) == record
    with pytest.raises(ValueError, match=r"another dataset \(difference\)"):
        directory.completed(LABEL, {"difference": "b"})
    picture = tmp_path / "00000042-r-007" / f"{record.ids[0]}.png"
    assert matplotlib.image.imread(picture).shape == (200, 812, 4)
    picture.unlink()
    assert directory.completed(LABEL, {"difference": "a"}) is None


@pytest.mark.parametrize("file_format", ["fits", "png", "detector-fits", "hdf5", "alerts"])
def test_detector_without_sources_is_complete(stamps: StampSet, tmp_path: Path, file_format: str) -> None:
    pytest.importorskip({"hdf5": "h5py", "alerts": "fastavro"}.get(file_format, "numpy"))
    directory = StampDirectory(tmp_path, {"format": file_format, "method": "al"})
    directory.write(LABEL, stamps[:0], {})
    assert directory.completed(LABEL, {}) is not None


@pytest.mark.parametrize("file_format", ["fits", "png", "detector-fits", "hdf5", "alerts"])
def test_interrupted_writing_leaves_no_partial_file_and_goes_on_to_the_same_bytes(
    stamps: StampSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    pytest.importorskip({"hdf5": "h5py", "alerts": "fastavro"}.get(file_format, "numpy"))
    settings = {"format": file_format, "method": "al"}
    StampDirectory(tmp_path / "whole", settings).write(LABEL, stamps, {})
    directory = StampDirectory(tmp_path / "cut", settings)
    renamed = 0

    def die_at_the_third(source: Path, target: Path) -> None:
        nonlocal renamed
        renamed += 1
        if renamed == 3:
            raise KeyboardInterrupt
        Path(source).rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("lsst.diainspect.export._stamp_directory.os.replace", die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            directory.write(LABEL, stamps, {})
    assert directory.completed(LABEL, {}) is None
    assert not list((tmp_path / "cut").rglob("*.part"))
    again = StampDirectory(tmp_path / "cut", settings)
    again.write(LABEL, stamps, {})
    assert again.completed(LABEL, {}) is not None
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def contents(directory: Path) -> dict[str, bytes]:
    """Return the bytes of every file."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
