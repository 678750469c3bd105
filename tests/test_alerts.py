"""Alert packets become stamps with the pixels, positions and PSFs of the source; bad ones cost only themselves."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner
from lsst.daf.butler import Butler
from lsst.pipe.base import Pipeline

from commands import run_command
from lsst.diainspect.alerts import (
    AlertError,
    AlertStamps,
    SkippedAlert,
    ingest_alerts,
    iterate_alerts,
    iterate_stamps,
    read_alerts,
)
from lsst.diainspect.cli import main
from lsst.diainspect.diagnostics import diagnostic_registry, measure_diagnostics
from lsst.diainspect.masks import words_masked_by
from lsst.diainspect.stamps import StampSet
from lsst.diainspect.tasks import DiagnoseSourcesTask

fastavro = pytest.importorskip("fastavro")
generate_one = pytest.importorskip("fastavro.utils").generate_one

DATA = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR") or Path(__file__).parents[2] / "shared" / "data")

PIPELINE = "resource://lsst.diainspect/pipelines/DiaAlerts/diagnose.yaml"


def _data(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"There is no {path}: set DIAINSPECT_TESTDATA_DIR to the folder of the test data.")
    return path


SIGMA = 1.8
SCALE = 5e-5


def _gaussian(height: int, width: int, x: float, y: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / SIGMA**2) / (2.0 * np.pi * SIGMA**2)


def _cutout(
    pixels: np.ndarray,
    reference: tuple[float, float],
    *,
    psf_shape: tuple[int, int] = (41, 41),
    **cards: object,
) -> bytes:
    """A cutout file as Rubin writes it, around the source at the FITS position ``reference``."""
    header = fits.Header()
    header["BUNIT"] = "nJy"
    header["CRPIX1"], header["CRPIX2"] = reference
    header["PC1_1"], header["PC2_2"] = -SCALE, SCALE
    header["CDELT1"] = header["CDELT2"] = 1.0
    header.update({key: value for key, value in cards.items() if key != "UTYPE"})
    uncertainty = fits.ImageHDU(np.full(pixels.shape, 4.0, dtype=np.float32), name="UNCERT")
    uncertainty.header["UTYPE"] = cards.get("UTYPE", "VarianceUncertainty")
    height, width = psf_shape
    psf = fits.ImageHDU(_gaussian(height, width, width // 2, height // 2), name="PSFIMAGE")
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(pixels.astype(np.float32), header), uncertainty, psf]).writeto(stream)
    return stream.getvalue()


def _rubin(number: int, size: int = 30, flux: float = 1000.0, **changes: object) -> dict[str, Any]:
    """An alert whose difference has a source of known flux and position."""
    rng = np.random.default_rng(number)
    x, y = 1000.0 + 100.0 * number + rng.uniform(), 2000.0 + rng.uniform()
    x0, y0 = int(np.floor(x - 0.5 * size)) + 1, int(np.floor(y - 0.5 * size)) + 1
    pixels = flux * _gaussian(size, size, x - x0, y - y0) + rng.normal(0.0, 2.0, (size, size))
    reference = (x - x0 + 1.0, y - y0 + 1.0)
    source = {
        "diaSourceId": 10**15 + number,
        "visit": 2025052000177,
        "detector": number % 2,
        "midpointMjdTai": 60816.1,
        "band": "r",
        "ra": 30.0,
        "raErr": 1e-5,
        "dec": -20.0,
        "x": x,
        "y": y,
        "psfFlux": flux,
        "psfFluxErr": 5.0,
        "snr": flux / 5.0,
        "isNegative": flux < 0,
        "reliability": None,
        "pixelFlags_bad": None,
        "ssObjectId": None,
    }
    source.update({key: value for key, value in changes.items() if key in source})
    record: dict[str, Any] = {
        "diaSourceId": source["diaSourceId"],
        "diaSource": source,
        "cutoutDifference": _cutout(pixels, reference),
        "cutoutScience": _cutout(pixels + 3.0, reference),
        "cutoutTemplate": _cutout(np.full((size, size), 3.0), reference, psf_shape=(43, 45)),
    }
    record.update({key: value for key, value in changes.items() if key in record})
    return record


_SCHEMA = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "diaSourceId", "type": ["null", "long", "string"]},
        {
            "name": "diaSource",
            "type": [
                "null",
                "string",
                {
                    "type": "record",
                    "name": "source",
                    "fields": [
                        {"name": name, "type": ["null", "boolean", "long", "double", "string", "bytes"]}
                        for name in _rubin(0)["diaSource"]
                    ],
                },
            ],
        },
        *(
            {"name": f"cutout{side}", "type": ["null", "bytes", "string", "long"]}
            for side in ("Difference", "Science", "Template")
        ),
    ],
}


def _write(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    with path.open("wb") as stream:
        fastavro.writer(stream, _SCHEMA, records)
    return path


def test_source_lies_where_its_pixels_are(tmp_path: Path) -> None:
    alerts = read_alerts(_write(tmp_path / "a.avro", [_rubin(n, 30 + n, 1e5) for n in range(8)]), size=41)
    stamps = alerts.stamps
    assert (len(stamps), stamps.size, len(alerts.skipped)) == (8, 41, 0)
    grid = np.arange(41)
    pixels = np.nan_to_num(stamps.planes["difference"])
    near = np.where(pixels > 20.0, pixels, 0.0)
    total = near.sum(axis=(1, 2))
    x = stamps.sources["x0"] + (near * grid).sum(axis=(1, 2)) / total
    y = stamps.sources["y0"] + (near * grid[:, None]).sum(axis=(1, 2)) / total
    # Peaks are 5000 over a noise of 2 a pixel.
    assert np.abs(x - stamps.sources["x"]).max() < 0.02
    assert np.abs(y - stamps.sources["y"]).max() < 0.02


def test_psf_flux_of_the_stamp_is_that_of_the_source(tmp_path: Path) -> None:
    alerts = read_alerts(_write(tmp_path / "a.avro", [_rubin(n, 30 + n) for n in range(20)]))
    name = "psfPhotometry"
    plugin = diagnostic_registry[name](diagnostic_registry[name].ConfigClass())
    table = measure_diagnostics(alerts.stamps, {name: plugin})
    pull = (table["psfPhotometry_psfFlux"] - 1000.0) / table["psfPhotometry_psfFluxErr"]
    # 20 unit Gaussians: their rms is 1 within 3 / sqrt(40), their mean 0 within 3 / sqrt(20).
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1.0, abs=0.47)
    assert abs(pull.mean()) < 0.67


def test_pixels_beyond_the_cutout_are_marked(tmp_path: Path) -> None:
    record = _rubin(1, 30)
    with fits.open(io.BytesIO(record["cutoutDifference"])) as hdus:
        hdus[0].data[:, 0] = np.nan
        stream = io.BytesIO()
        hdus.writeto(stream)
    record["cutoutDifference"] = stream.getvalue()
    stamps = read_alerts(_write(tmp_path / "a.avro", [record]), size=41).stamps
    off = words_masked_by(stamps.planes["mask"], ["OFF_IMAGE"])
    no_data = words_masked_by(stamps.planes["mask"], ["NO_DATA"])
    assert off.sum() == 41**2 - 30**2
    assert no_data.sum() == 30
    assert np.array_equal(off | no_data, np.isnan(stamps.planes["difference"][:]))
    assert np.isnan(stamps.planes["differenceVariance"][off]).all()
    assert (stamps.planes["differenceVariance"][~off] == 4.0).all()


@pytest.mark.parametrize("size", [1, 11, 24, 30, 101])
def test_stamps_have_the_size_that_was_asked_for(tmp_path: Path, size: int) -> None:
    alerts = read_alerts(_write(tmp_path / "a.avro", [_rubin(1), _rubin(2, 63)]), size=size, psf_size=21)
    assert alerts.stamps.planes["difference"].shape == (2, size, size)
    assert alerts.stamps.models["templatePsf"].images().shape == (2, 21, 21)
    peak = alerts.stamps.planes["difference"][:, size // 2, size // 2]
    assert (peak > 30.0).all()


def test_psfs_of_any_shape_keep_their_centre(tmp_path: Path) -> None:
    models = read_alerts(_write(tmp_path / "a.avro", [_rubin(1)]), psf_size=51).stamps.models
    for name in ("sciencePsf", "templatePsf"):
        image = models[name].images()[0]
        assert np.unravel_index(image.argmax(), image.shape) == (25, 25)
        assert image.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("kind", "variance"), [("StdDevUncertainty", 16.0), ("InverseVariance", 0.25)])
def test_uncertainty_is_read_as_what_it_says_it_is(tmp_path: Path, kind: str, variance: float) -> None:
    record = _rubin(1)
    record["cutoutDifference"] = _cutout(np.ones((30, 30)), (15.0, 15.0), UTYPE=kind)
    planes = read_alerts(_write(tmp_path / "a.avro", [record]), size=5).stamps.planes
    assert np.all(planes["differenceVariance"] == np.float32(variance))


def test_other_units_of_flux_are_converted(tmp_path: Path) -> None:
    record = _rubin(1)
    record["cutoutScience"] = _cutout(np.full((30, 30), 2.0), (15.0, 15.0), BUNIT="uJy")
    planes = read_alerts(_write(tmp_path / "a.avro", [record]), size=5).stamps.planes
    assert np.allclose(planes["science"], 2000.0)
    assert np.allclose(planes["scienceVariance"], 4e6)


def test_record_has_the_names_types_and_units_of_the_dpdd(tmp_path: Path) -> None:
    sources = read_alerts(_write(tmp_path / "a.avro", [_rubin(1), _rubin(2)])).stamps.sources
    assert (sources["psfFlux"].unit, sources["ra"].unit, sources["x"].unit) == (u.nJy, u.deg, u.pix)
    assert (sources["diaSourceId"].dtype, sources["isNegative"].dtype) == (
        np.dtype("int64"),
        np.dtype("bool"),
    )
    assert np.isnan(sources["reliability"]).all()
    assert not sources["pixelFlags_bad"].any()
    assert (sources["ssObjectId"] == 0).all()
    assert np.allclose(sources["pixelToSky"], [[-SCALE, 0.0], [0.0, SCALE]])


def test_unmeasured_flux_does_not_cost_the_alert(tmp_path: Path) -> None:
    alerts = read_alerts(_write(tmp_path / "a.avro", [_rubin(1, psfFlux=None, psfFluxErr=None)]))
    assert np.isnan(alerts.stamps.sources["psfFlux"][0])


def test_only_first_alert_of_a_source_is_taken(tmp_path: Path) -> None:
    alerts = read_alerts(_write(tmp_path / "a.avro", [_rubin(1), _rubin(2), _rubin(1)]))
    assert len(alerts.stamps) == 2
    assert "another alert of a source" in alerts.skipped["reason"][0]
    assert alerts.skipped["record"][0] == 2


_HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "missing cutout": ({"cutoutScience": None}, "cutoutScience is missing"),
    "not FITS": ({"cutoutTemplate": b"hello"}, "cutoutTemplate is not a FITS file"),
    "empty cutout": ({"cutoutTemplate": b""}, "cutoutTemplate is not a FITS file"),
    "cutout is text": ({"cutoutDifference": "SIMPLE"}, "cutoutDifference is a str"),
    "cutout is a number": ({"cutoutDifference": 7}, "cutoutDifference is a int"),
    "only a header": ({"cutoutDifference": b"SIMPLE  =                    T"}, "cutoutDifference"),
    "broken gzip": ({"cutoutDifference": b"\x1f\x8b\x08\x00broken"}, "cannot be unpacked"),
    "zip bomb": ({"cutoutDifference": gzip.compress(b"SIMPLE" + bytes(70 * 2**20))}, "bytes when unpacked"),
    "cut off cutout": ({"cutoutDifference": _rubin(1)["cutoutDifference"][:3000]}, "cutoutDifference"),
    "negative size": (
        {
            "cutoutDifference": _rubin(1)["cutoutDifference"].replace(
                b"NAXIS1  =                   30", b"NAXIS1  =                  -30"
            )
        },
        "cutoutDifference",
    ),
    "enormous size": (
        {
            "cutoutDifference": _rubin(1)["cutoutDifference"].replace(
                b"NAXIS1  =                   30", b"NAXIS1  =            900000000"
            )
        },
        "cutoutDifference",
    ),
    "one dimension": (
        {
            "cutoutDifference": _rubin(1)["cutoutDifference"].replace(
                b"NAXIS   =                    2", b"NAXIS   =                    1", 1
            )
        },
        "cutoutDifference",
    ),
    "all NaN": (
        {"cutoutDifference": _cutout(np.full((30, 30), np.nan), (15.0, 15.0))},
        "no pixel that is finite",
    ),
    "unknown unit": ({"cutoutScience": _cutout(np.ones((30, 30)), (15.0, 15.0), BUNIT="parrot")}, "parrot"),
    "unit without flux": (
        {"cutoutScience": _cutout(np.ones((30, 30)), (15.0, 15.0), BUNIT="adu")},
        "no flux",
    ),
    "unknown uncertainty": (
        {"cutoutScience": _cutout(np.ones((30, 30)), (15.0, 15.0), UTYPE="Hope")},
        "Hope",
    ),
    "source elsewhere": ({"cutoutScience": _cutout(np.ones((30, 30)), (500.0, 15.0))}, ""),
    "NaN position": ({"x": float("nan")}, "x is nan"),
    "infinite position": ({"y": float("inf")}, "y is inf"),
    "no position": ({"ra": None}, "ra is None"),
    "impossible position": ({"x": 1e300}, "no position on a detector"),
    "wrong type": ({"psfFlux": "bright"}, "psfFlux is 'bright'"),
    "bytes for a flux": ({"psfFlux": b"\x00"}, "psfFlux is a bytes"),
    "no identifier": ({"diaSourceId": None}, "diaSourceId"),
    "text identifier": ({"diaSourceId": "one"}, "diaSourceId is 'one'"),
    "detector too large": ({"detector": 10**9}, "detector is 1000000000"),
    "visit is a fraction": ({"visit": 1.5}, "visit is 1.5"),
    "no source": ({"diaSource": None}, "diaSource is a NoneType"),
    "source is text": ({"diaSource": "bright"}, "diaSource is a str"),
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_hostile_alert_is_reported_and_the_rest_load(tmp_path: Path, kind: str) -> None:
    changes, message = _HOSTILE[kind]
    path = _write(tmp_path / "a.avro", [_rubin(1), _rubin(2, **changes), _rubin(3)])
    alerts = read_alerts(path)
    if kind == "source elsewhere":
        # A reference pixel that cannot be is not believed: boxes are centred on the source.
        message = "has not the source" if len(alerts.skipped) else ""
    assert len(alerts.stamps) + len(alerts.skipped) == 3
    assert {10**15 + 1, 10**15 + 3} <= set(alerts.stamps.sources["diaSourceId"])
    if message:
        assert list(alerts.skipped["record"]) == [1]
        assert message in alerts.skipped["reason"][0]
        with pytest.raises(AlertError, match="record 1"):
            read_alerts(path, on_error="raise")


def test_file_that_is_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    whole = tmp_path / "whole.avro"
    with whole.open("wb") as stream:
        fastavro.writer(stream, _SCHEMA, [_rubin(n) for n in range(6)], sync_interval=1)
    content = whole.read_bytes()
    cut = tmp_path / "cut.avro"
    cut.write_bytes(content[: len(content) * 2 // 3])
    alerts = read_alerts([cut, _write(tmp_path / "next.avro", [_rubin(9)])])
    assert len(alerts.stamps) == 4 + 1 or len(alerts.stamps) == 3 + 1
    assert "cannot be decoded from here on" in alerts.skipped["reason"][0]
    assert alerts.skipped["record"][0] == len(alerts.stamps) - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello world", "neither an Avro file nor a packet"),
        (b"Obj\x01", "cannot be decoded"),
        (b"Obj\x01" + bytes(range(256)), "cannot be decoded"),
        (b"\x00\x00\x00", "cut off"),
        (b"\x00\x00\x00\x03\x84" + bytes(100), ""),
        (b"\x00\x00\x00\x03\x84" + b"\xff" * 100, "cannot be decoded with schema 900"),
        (b"\x00\xff\xff\xff\xff" + bytes(100), "no version"),
        (b"\x1f\x8b\x08\x00broken", "cannot be read as an archive"),
        (b"\xfd7zXZ\x00broken", "cannot be read as an archive"),
        (b"BZhbroken", "cannot be read as an archive"),
    ],
)
def test_file_that_is_no_packet_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    pytest.importorskip("lsst.alert.packet")
    bad = tmp_path / "bad.avro"
    bad.write_bytes(content)
    alerts = read_alerts([bad, tmp_path / "missing.avro", _write(tmp_path / "good.avro", [_rubin(1)])])
    assert len(alerts.stamps) == 1
    assert len(alerts.skipped) == 2
    assert message in alerts.skipped["reason"][0]
    assert "No such file" in alerts.skipped["reason"][1]


def test_file_without_end_is_left(tmp_path: Path) -> None:
    path = tmp_path / "endless.avro"
    with path.open("wb") as stream:
        fastavro.writer(stream, {"type": "record", "name": "empty", "fields": []}, [{}] * 5000)
    skipped = list(iterate_alerts(path))
    assert len(skipped) == 1001
    assert isinstance(skipped[-1], SkippedAlert)
    assert "the rest is left" in skipped[-1].reason


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz"])
def test_archives_and_folders_are_read(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "alerts"
    (folder / "inner").mkdir(parents=True)
    for number in range(3):
        _write(folder / "inner" / f"{number}.avro", [_rubin(number)])
    (folder / "README.txt").write_text("not an alert")
    (folder / "broken.avro").write_text("not an alert")
    archive = tmp_path / f"alerts.{suffix}"
    mode = "w" if suffix == "tar" else f"w:{suffix.removeprefix('tar.')}"
    with tarfile.open(archive, mode) as target:
        target.add(folder, "alerts")
        link = tarfile.TarInfo("alerts/passwd.avro")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        target.addfile(link)
    from_folder, from_archive = read_alerts(folder), read_alerts(str(archive))
    assert len(from_folder.stamps) == len(from_archive.stamps) == 3
    assert len(from_folder.skipped) == 1
    assert "is not a plain file" in from_archive.skipped["reason"]
    assert f"{archive}::alerts/broken.avro" in from_archive.skipped["packet"]


def test_chunks_together_are_the_whole(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.avro", [_rubin(n) for n in range(5)])
    whole = read_alerts(path, size=21).stamps
    chunks = [chunk.stamps for chunk in iterate_stamps(path, size=21, chunk=2)]
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    pixels = np.concatenate([chunk.planes["difference"] for chunk in chunks])
    assert np.array_equal(pixels, whole.planes["difference"], equal_nan=True)


def test_no_alerts_give_an_empty_stamp_set(tmp_path: Path) -> None:
    alerts = read_alerts(_write(tmp_path / "a.avro", []))
    assert isinstance(alerts, AlertStamps)
    assert (len(alerts.stamps), len(alerts.skipped)) == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "Stamp size"),
        ({"psf_size": 4}, "PSF size"),
        ({"on_error": "ignore"}, "on_error must be"),
    ],
)
def test_wrong_argument_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_alerts(_write(tmp_path / "a.avro", [_rubin(1)]), **options)


@pytest.fixture(scope="module")
def rubin_9() -> AlertStamps:
    return read_alerts(_data("rubin_v9_hsc_lsstcam2025"))


@pytest.fixture(scope="module")
def rubin_7() -> AlertStamps:
    return read_alerts(_data("rubin_v7_4_sim_dc2field"))


@pytest.fixture(scope="module")
def ztf() -> AlertStamps:
    return read_alerts(_data("ztf_2018_skyportal"))


def _measure(alerts: AlertStamps, *names: str) -> Table:
    return measure_diagnostics(
        alerts.stamps,
        {name: diagnostic_registry[name](diagnostic_registry[name].ConfigClass()) for name in names},
    )


def test_all_alerts_of_schema_9_load(rubin_9: AlertStamps) -> None:
    assert len(rubin_9.stamps) == 288
    # Second versions of five sources.
    assert len(rubin_9.skipped) == 5
    assert np.all(np.isfinite(rubin_9.stamps.planes["difference"][:, 16:26, 16:26]).any(axis=(1, 2)))


def test_all_alerts_of_schema_7_load(rubin_7: AlertStamps) -> None:
    assert (len(rubin_7.stamps), len(rubin_7.skipped)) == (100, 0)
    # Its is_negative is isNegative today, and was not set.
    sources = rubin_7.stamps.sources
    assert ("isNegative" in sources.colnames, "is_negative" in sources.colnames) == (True, False)
    assert ((sources["psfFlux"] < 0).sum(), sources["isNegative"].sum()) == (56, 0)


def test_alerts_in_wire_form_load() -> None:
    pytest.importorskip("lsst.alert.packet")
    alerts = read_alerts(sorted(_data("rubin_dc2_alert_boom").glob("*.avro")))
    assert len(alerts.skipped) == 0
    assert set(alerts.stamps.sources["visit"]) == {943296, 59160, 6570001}


@pytest.mark.parametrize("version", ["7.0", "7.1", "7.2", "7.3", "7.4", "8.0", "9.0", "10.0"])
def test_wire_form_of_every_schema_is_read(tmp_path: Path, version: str) -> None:
    packets = pytest.importorskip("lsst.alert.packet")
    major, minor = map(int, version.split("."))
    folder = Path(packets.get_schema_path(major, minor))
    schema = fastavro.schema.load_schema(str(folder / f"lsst.v{major}_{minor}.alert.avsc"))
    random.seed(1)
    record, ours = generate_one(schema), _rubin(1)
    record["diaSource"] |= {name: ours["diaSource"][name] for name in _POSITION}
    record |= {name: value for name, value in ours.items() if name.startswith("cutout")}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, record)
    path = tmp_path / "wire.avro"
    path.write_bytes(b"\x00" + (100 * major + minor).to_bytes(4, "big") + stream.getvalue())
    alerts = read_alerts(path)
    assert list(alerts.skipped["reason"]) == []
    assert alerts.stamps.sources["x"][0] == pytest.approx(ours["diaSource"]["x"], abs=1e-3)
    path.write_bytes(path.read_bytes() + b"more")
    assert "4 bytes beyond what schema" in read_alerts(path).skipped["reason"][0]


_POSITION = ("diaSourceId", "visit", "detector", "band", "midpointMjdTai", "ra", "dec", "x", "y")


def test_alerts_of_another_survey_are_reported() -> None:
    alerts = read_alerts(_data("rubin_dc2_alert_boom") / "other_decam")
    assert (len(alerts.stamps), len(alerts.skipped)) == (0, 2)
    assert all("neither Rubin nor ZTF" in reason for reason in alerts.skipped["reason"])


@pytest.mark.parametrize(
    ("name", "correction"),
    # The fluxes of the real images have aperture corrections of some per cent, those of the simulated sky have none.
    [("rubin_9", 0.975), ("rubin_7", 1.0)],
)
def test_recorded_psf_flux_is_that_of_the_stamps(
    name: str, correction: float, request: pytest.FixtureRequest
) -> None:
    alerts: AlertStamps = request.getfixturevalue(name)
    sources, planes = alerts.stamps.sources, alerts.stamps.planes
    # The pipeline weighs all pixels alike, as this does without variances.
    unweighted = {key: plane for key, plane in planes.items() if not key.endswith("Variance")}
    plugin = diagnostic_registry["psfPhotometry"]
    config = plugin.ConfigClass()
    config.radius = 100.0
    table = measure_diagnostics(
        StampSet(sources, unweighted, alerts.stamps.models), {"psfPhotometry": plugin(config)}
    )
    flux, error = (np.asarray(sources[key], dtype=float) for key in ("psfFlux", "psfFluxErr"))
    significant = np.abs(flux) > 5.0 * error
    ratio = table["psfPhotometry_psfFlux"][significant] / flux[significant]
    assert np.median(ratio) * correction == pytest.approx(1.0, abs=0.01)
    low, high = np.percentile(ratio, [16, 84])
    # Most cutouts have 30 x 30 of the 41 x 41 pixels of the pipeline's fit.
    assert 0.5 * (high - low) < 0.02


def test_source_is_not_one_pixel_away(rubin_9: AlertStamps, rubin_7: AlertStamps) -> None:
    """CUTMINX is one less than the first pixel: with x0 one lower the fluxes disagree."""
    for alerts in rubin_9[:] if isinstance(rubin_9, list) else (rubin_9, rubin_7):
        sources = alerts.stamps.sources

        def disagreement(shift: int, alerts: AlertStamps = alerts, sources: Table = sources) -> float:
            moved = sources.copy()
            moved["x0"] = sources["x0"] - shift
            moved["y0"] = sources["y0"] - shift
            stamps = type(alerts.stamps)(moved, alerts.stamps.planes, alerts.stamps.models)
            table = _measure(AlertStamps(stamps, alerts.skipped), "psfPhotometry")
            pull = (table["psfPhotometry_psfFlux"] - sources["psfFlux"]) / sources["psfFluxErr"]
            return float(np.nanmean(np.minimum(np.abs(pull), 5.0)))

        here = disagreement(0)
        assert here < min(disagreement(1), disagreement(-1))


def test_uncertainty_is_the_variance(rubin_9: AlertStamps, rubin_7: AlertStamps) -> None:
    for alerts in (rubin_9, rubin_7):
        ratio = _measure(alerts, "localNoise")["localNoise_sigmaOverPredicted"]
        assert np.nanmedian(ratio) == pytest.approx(1.0, abs=0.1)


def test_diagnostics_run_on_alerts_and_say_what_they_lack(rubin_7: AlertStamps) -> None:
    names = ("maskFractions", "psfPhotometry", "localNoise", "residualModes")
    table = _measure(rubin_7, *names)
    for name in names[:3]:
        assert not table[f"{name}_flag_failed"].any()
        assert table[f"{name}_flag"].sum() < 5
    assert not table["residualModes_flag_failed"].any()
    assert table["residualModes_flag"].sum() < 5
    assert table["residualModes_isApproximate"][~table["residualModes_flag"]].all()


def test_all_alerts_of_ztf_load(ztf: AlertStamps) -> None:
    assert (len(ztf.stamps), len(ztf.skipped)) == (205, 0)
    assert ztf.stamps.provides == {"science", "template", "difference", "mask"}
    sources = ztf.stamps.sources
    assert sources["isNegative"].sum() == 94
    assert ((sources["rb"] < 0.3).sum(), (sources["rb"] > 0.7).sum()) == (31, 37)
    assert np.all((sources["psfFlux"] < 0) == sources["isNegative"])
    assert np.allclose(-2.5 * np.log10(np.abs(sources["psfFlux"])) + 31.4, sources["magpsf"], atol=1e-4)
    assert sources["zeroPointIsNominal"].all()
    assert sources["magpsf"].unit == u.mag


def test_difference_of_ztf_has_the_recorded_flux_and_position(ztf: AlertStamps) -> None:
    sources, stamps = ztf.stamps.sources, ztf.stamps
    sign = np.where(sources["isNegative"], -1.0, 1.0)[:, None, None]
    pixels = sign * np.nan_to_num(stamps.planes["difference"])
    grid = np.arange(stamps.size) - stamps.size // 2
    distance = np.hypot(grid - stamps.dx[:, None, None], grid[:, None] - stamps.dy[:, None, None])
    flux = np.where(distance <= 4.0, pixels, 0.0).sum(axis=(1, 2))
    bright = (sources["snr"] > 12) & (flux > 0)
    offset = -2.5 * np.log10(flux[bright]) + 31.4 - sources["magap"][bright]
    assert np.median(offset) == pytest.approx(0.0, abs=0.1)
    weight = np.where(distance <= 3.0, pixels, 0.0)[bright]
    centre = (weight * grid).sum(axis=(1, 2)) / weight.sum(axis=(1, 2)) - stamps.dx[bright]
    assert abs(np.median(centre)) < 0.1


def test_command_writes_datasets_that_the_pipeline_diagnoses(tmp_path: Path) -> None:
    repo, output = tmp_path / "repo", tmp_path / "left_out.ecsv"
    good = _write(tmp_path / "a.avro", [_rubin(n) for n in range(4)])
    bad = tmp_path / "bad.avro"
    bad.write_text("not an alert")
    arguments = ["ingest-alerts", str(repo), str(good), str(bad), "--report", str(output)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "4 alerts, 1 left out; 4 datasets in collection DiaAlerts/input" in result.output
    assert "neither an Avro file" in Table.read(output, format="ascii.ecsv")["reason"][0]

    run_command(
        *(
            "pipetask",
            "--log-level",
            "lsst.daf.butler._storage_class=ERROR",
            "run",
            "-b",
            repo,
            "-p",
            PIPELINE,
        ),
        *("-i", "DiaAlerts/input", "-o", "u/x", "--register-dataset-types", "-j", "1"),
    ).check()
    with Butler.from_config(str(repo), collections="u/x", instrument="DiaAlerts") as butler:
        data_id = {"visit": 2025052000177, "detector": 1}
        diagnostics = butler.get("alert_dia_diagnostics", data_id)
        sources = butler.get("alert_dia_source", data_id)
        stamps = butler.get(
            "alert_dia_stamps", data_id, parameters={"columns": ["diaSourceId", "difference"]}
        )
        record = next(iter(butler.query_dimension_records("visit", visit=2025052000177)))
    assert list(diagnostics["diaSourceId"]) == list(sources["diaSourceId"]) == [10**15 + 1, 10**15 + 3]
    assert np.allclose(diagnostics["psfPhotometry_psfFlux"], 1000.0, atol=60.0)
    assert diagnostics["residualModes_isApproximate"].all()
    assert stamps["difference"].shape == (2, 41, 41)
    assert not {"difference", "sciencePsf", "x0"} & set(sources.colnames)
    assert (record.day_obs, record.seq_num, record.physical_filter) == (20250520, 177, "r")
    assert record.timespan.begin.tai.mjd == pytest.approx(60816.1 - 15.0 / 86400.0, abs=1e-8)

    again = CliRunner().invoke(main, arguments)
    assert again.exit_code != 0
    assert "already has alert_dia_stamps" in again.output


def test_alerts_without_noise_and_psfs_are_diagnosed_with_estimates(tmp_path: Path) -> None:
    archive = next(_data("ztf_2018_skyportal").glob("*.tar.xz"))
    with tarfile.open(archive) as members:
        one = next(member for member in members if member.name.endswith(".avro"))
        members.extract(one, tmp_path, filter="data")
    repo = str(tmp_path / "repo")
    result = CliRunner().invoke(main, ["ingest-alerts", repo, str(tmp_path / one.name), "--estimate"])
    assert result.exit_code == 0, result.output
    butler = Butler.from_config(repo, collections="DiaAlerts/input")
    (ref,) = butler.query_datasets("alert_dia_stamps")
    stamps = StampSet.from_tables(butler.get(ref))
    plugin = diagnostic_registry["psfPhotometry"]
    measured = measure_diagnostics(stamps, {"psfPhotometry": plugin(plugin.ConfigClass())})
    assert not measured["psfPhotometry_flag"][0]
    assert (stamps.planes["differenceVariance"][0] > 0).any()


def test_other_alerts_of_a_visit_can_follow_under_another_name(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    ingest_alerts(repo, _write(tmp_path / "a.avro", [_rubin(1)]))
    ingest = ingest_alerts(repo, _write(tmp_path / "b.avro", [_rubin(2), _rubin(3)]), method="other", chunk=1)
    assert len(ingest.refs) == 4
    with pytest.raises(AlertError, match="repositories of their own"):
        ingest_alerts(repo, _write(tmp_path / "c.avro", [_rubin(5, band="g")]), method="third")


def test_visits_of_another_instrument_must_be_known(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    path = _write(tmp_path / "a.avro", [_rubin(1)])
    Butler.makeRepo(str(repo))
    with pytest.raises(AlertError, match="no instrument LSSTCam"):
        ingest_alerts(repo, path, instrument="LSSTCam")


def test_nothing_is_made_of_files_without_alerts(tmp_path: Path) -> None:
    bad = tmp_path / "bad.avro"
    bad.write_text("not an alert")
    result = CliRunner().invoke(main, ["ingest-alerts", str(tmp_path / "repo"), str(bad)])
    assert result.exit_code != 0
    assert "None of the files has an alert" in result.output
    assert not (tmp_path / "repo").exists()


def test_diagnosing_needs_filters_unless_told_otherwise() -> None:
    config = DiagnoseSourcesTask.ConfigClass()
    assert set(config.ConnectionsClass(config=config).inputs) >= {"stamps", "filters", "kernelSources"}
    config.hasFilters = False
    assert set(config.ConnectionsClass(config=config).inputs) == {"stamps"}
    graph = Pipeline.from_uri(PIPELINE).to_graph()
    assert graph.producer_of("alert_dia_diagnostics").label == "diagnoseStamps"
