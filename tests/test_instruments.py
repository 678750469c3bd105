"""Instruments, their detectors and their records in a repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from lsst.daf.butler import Butler
from lsst.images import Box
from lsst.pipe.base import Instrument
from lsst.pipe.base.script.register_instrument import register_instrument

from lsst.diainspect.instruments import (
    DETECTOR_LIMIT,
    VISIT_LIMIT,
    DiaFits,
    DiaSim,
    ExposureRecord,
    check_numbers,
    insert_exposure_records,
    make_detector,
    make_tangent_projection,
    pixel_region,
    single_detector,
)

_BORESIGHT = SkyCoord(62.0, -37.0, unit="deg")


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Butler]:
    """A repository that knows both instruments."""
    root = str(tmp_path_factory.mktemp("instruments") / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        DiaSim().register(butler.registry)
        DiaFits().register(butler.registry)
        yield butler


def _exposure(visit: int, detectors: tuple[int, ...], **changes: object) -> ExposureRecord:
    camera = DiaSim.camera(256)
    record = ExposureRecord(
        instrument="DiaSim",
        visit=visit,
        physical_filter="r",
        begin=Time("2026-02-03T04:00:00", scale="tai"),
        exposure_time=30.0,
        regions={
            detector: pixel_region(
                make_tangent_projection(camera, detector, _BORESIGHT, visit), camera[detector].bbox
            )
            for detector in detectors
        },
        boresight=_BORESIGHT,
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def test_middle_of_the_mosaic_is_on_the_axis() -> None:
    camera = DiaSim.camera(1024)
    for layout in camera.detectors:
        detector = make_detector(camera, layout.id)
        corner_x = 1023 + 25.5 if layout.centre_x < 0 else -25.5
        corner_y = 1023 + 25.5 if layout.centre_y < 0 else -25.5
        focal_plane = detector.to_focal_plane.apply_forward(x=corner_x, y=corner_y)
        assert (focal_plane.x, focal_plane.y) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_field_angle_follows_the_pixel_scale() -> None:
    camera = DiaSim.camera(1024)
    to_field_angle = make_detector(camera, 2).to_field_angle
    first, second = (to_field_angle.apply_forward(x=x, y=10.0) for x in (0.0, 100.0))
    assert np.degrees(second.x - first.x) * 3600 == pytest.approx(100 * camera.pixel_scale)


def test_detector_frame_covers_all_pixels() -> None:
    camera = DiaSim.camera((300, 200), origin=(50, -20))
    detector = make_detector(camera, 1, visit=7)
    assert detector.bbox == detector.frame.bbox == Box.factory[-20:180, 50:350]
    assert (detector.visit, detector.frame.detector) == (7, 1)


def test_projection_agrees_with_the_field_angles() -> None:
    camera = DiaSim.camera(1024)
    for layout in camera.detectors:
        projection = make_tangent_projection(camera, layout.id, _BORESIGHT)
        sky = projection.pixel_to_sky(x=100.0, y=900.0)
        angle = make_detector(camera, layout.id).to_field_angle.apply_forward(x=100.0, y=900.0)
        # The field angle is the tangent-plane distance from the axis.
        assert np.tan(sky.separation(_BORESIGHT).rad) == pytest.approx(np.hypot(angle.x, angle.y), rel=1e-9)


def test_projection_has_north_up_and_east_left() -> None:
    projection = make_tangent_projection(DiaSim.camera(256), 0, _BORESIGHT)
    sky = projection.pixel_to_sky(x=[100.0, 101.0, 100.0], y=[100.0, 100.0, 101.0])
    assert sky[1].ra < sky[0].ra
    assert sky[2].dec > sky[0].dec


def test_unknown_detector_is_refused() -> None:
    with pytest.raises(LookupError, match="no detector 9"):
        make_detector(DiaSim.camera(), 9)


def test_single_detector_can_have_any_number() -> None:
    camera = single_detector("DiaFits", detector=200, bbox=Box.from_shape((10, 20)), pixel_scale=0.1)
    assert make_detector(camera, 200).name == "D200"


def test_registering_twice_changes_nothing(butler: Butler) -> None:
    before = list(butler.registry.queryDimensionRecords("detector"))
    DiaSim().register(butler.registry)
    DiaFits().register(butler.registry)
    assert list(butler.registry.queryDimensionRecords("detector")) == before


def test_butler_command_registers_by_class_name(tmp_path: Path) -> None:
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    register_instrument(root, ["lsst.diainspect.instruments.DiaSim"])
    with Butler.from_config(root) as butler:
        assert isinstance(Instrument.fromName("DiaSim", butler.registry), DiaSim)
        filters = {record.name for record in butler.registry.queryDimensionRecords("physical_filter")}
        assert filters == set("ugrizy")


@pytest.mark.parametrize("instrument", [DiaSim, DiaFits])
def test_packed_numbers_leave_a_positive_source_identifier(
    butler: Butler, instrument: type[Instrument]
) -> None:
    data_id = butler.registry.expandDataId(instrument=instrument.getName())
    packer = instrument().make_default_dimension_packer(data_id, is_exposure=False)
    assert packer.maxBits <= 26
    largest = packer.pack(instrument=instrument.getName(), visit=VISIT_LIMIT - 1, detector=DETECTOR_LIMIT - 1)
    assert 0 < np.int64((largest << 37) + (1 << 37) - 1) <= np.iinfo(np.int64).max
    packed = packer.pack(instrument=instrument.getName(), visit=12, detector=3)
    assert {**packer.unpack(packed).required} == {
        "instrument": instrument.getName(),
        "visit": 12,
        "detector": 3,
    }


@pytest.mark.parametrize(("visit", "detector"), [(-1, 0), (VISIT_LIMIT, 0), (0, -1), (0, DETECTOR_LIMIT)])
def test_numbers_that_cannot_be_packed_are_refused(visit: int, detector: int) -> None:
    with pytest.raises(ValueError, match="must be in 0"):
        check_numbers(visit, detector)


@pytest.mark.parametrize(
    "where",
    [
        "visit.day_obs = 20260203",
        "day_obs > 20260202",
        "visit.exposure_time >= 30.0",
        "visit.seq_num = 11",
        "visit.timespan OVERLAPS (T'2026-02-03T04:00:10/tai', T'2026-02-03T04:00:20/tai')",
        "visit_detector_region.region OVERLAPS POINT(61.985, -36.985)",
        "exposure.obs_id = 'DiaSim-11'",
        "physical_filter = 'r'",
    ],
)
def test_visits_are_found_by_what_is_known_of_them(butler: Butler, where: str) -> None:
    insert_exposure_records(butler, _exposure(11, (0, 3)))
    with butler.query() as query:
        found = query.where(where, instrument="DiaSim", visit=11).data_ids(["visit", "exposure"])
        assert [data_id["visit"] for data_id in found] == [11]


def test_inserting_records_twice_changes_nothing(butler: Butler) -> None:
    insert_exposure_records(butler, _exposure(12, (0, 1)))
    before = list(butler.registry.queryDimensionRecords("visit", instrument="DiaSim", visit=12))
    insert_exposure_records(butler, _exposure(12, (0, 1)))
    assert list(butler.registry.queryDimensionRecords("visit", instrument="DiaSim", visit=12)) == before


def test_region_of_a_visit_grows_with_its_detectors(butler: Butler) -> None:
    insert_exposure_records(butler, _exposure(13, (0,)))
    insert_exposure_records(butler, _exposure(13, (3,)))
    (visit,) = butler.registry.queryDimensionRecords("visit", instrument="DiaSim", visit=13)
    regions = list(
        butler.registry.queryDimensionRecords("visit_detector_region", instrument="DiaSim", visit=13)
    )
    assert {record.detector for record in regions} == {0, 3}
    assert all(visit.region.contains(record.region.getCentroid()) for record in regions)


@pytest.mark.parametrize(
    "changes", [{"exposure_time": 31.0}, {"physical_filter": "g"}, {"target_name": "other"}]
)
def test_conflicting_records_are_refused_with_advice(butler: Butler, changes: dict[str, object]) -> None:
    insert_exposure_records(butler, _exposure(14, (0,)))
    with pytest.raises(ValueError, match="Visit 14 of DiaSim is already in the repository with other values"):
        insert_exposure_records(butler, _exposure(14, (0,), **changes))


def test_same_detector_elsewhere_on_the_sky_is_refused(butler: Butler) -> None:
    insert_exposure_records(butler, _exposure(15, (0, 1)))
    moved = {0: _exposure(15, (1,)).regions[1]}
    with pytest.raises(ValueError, match="at another place or size"):
        insert_exposure_records(butler, _exposure(15, (0,), regions=moved))


def test_filter_with_another_band_is_refused(butler: Butler) -> None:
    DiaFits().register_filter(butler.registry, "F200W", "F200W")
    with pytest.raises(ValueError, match="'F200W' is in the repository with band 'F200W', got 'k'"):
        DiaFits().register_filter(butler.registry, "F200W", "k")
