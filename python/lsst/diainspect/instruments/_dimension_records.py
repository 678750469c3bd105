"""The records that make a visit known to a repository: without them no query by time, place or exposure works."""

from __future__ import annotations

__all__ = ["ExposureRecord", "insert_exposure_records", "make_observation_info", "pixel_region"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
from astro_metadata_translator import ObservationInfo
from astropy.coordinates import SkyCoord
from astropy.time import Time
from lsst.daf.butler import Butler, Timespan
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.images import Box, SkyProjection
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from ._numbering import check_numbers

_VISIT_SYSTEM = {"id": 0, "name": "one-to-one"}
"""Each exposure is a visit of the same number; the usual visit system of instruments with single exposures."""


@dataclass(frozen=True)
class ExposureRecord:
    """What the repository should know of one exposure, which is also a visit.

    Parameters
    ----------
    instrument : `str`
        Short name of a registered instrument.
    visit : `int`
        Number of visit and exposure.
    physical_filter : `str`
        Registered filter.
    begin : `astropy.time.Time`
        Start of the exposure.
    exposure_time : `float`
        Exposure time [s].
    regions : mapping [`int`, `lsst.sphgeom.ConvexPolygon`]
        Sky region of each detector.
    boresight : `astropy.coordinates.SkyCoord`, optional
        Pointing.
    seq_num : `int`, optional
        Sequence number; the visit number when omitted.
    day_obs : `int`, optional
        Observing day YYYYMMDD; the UTC date of ``begin`` when omitted.
    target_name, science_program : `str`, optional
        What it was taken for.
    is_simulated : `bool`, optional
        Whether the pixels were simulated.
    is_packed : `bool`, optional
        Whether visit and detector must be small enough to be packed into source identifiers.
    """

    instrument: str
    visit: int
    physical_filter: str
    begin: Time
    exposure_time: float
    regions: Mapping[int, ConvexPolygon] = field(default_factory=dict)
    boresight: SkyCoord | None = None
    seq_num: int | None = None
    day_obs: int | None = None
    target_name: str = "unknown"
    science_program: str = "unknown"
    is_simulated: bool = False
    is_packed: bool = True

    def __post_init__(self) -> None:
        for detector in self.regions if self.is_packed else ():
            check_numbers(self.visit, detector)
        if not self.exposure_time > 0:
            raise ValueError(f"Exposure time must be positive, got {self.exposure_time} s.")

    @property
    def observing_day(self) -> int:
        """Observing day as YYYYMMDD."""
        return self.day_obs if self.day_obs is not None else int(self.begin.utc.strftime("%Y%m%d"))

    @property
    def timespan(self) -> Timespan:
        """Duration of the exposure."""
        return Timespan(begin=self.begin, end=self.begin + self.exposure_time * u.s)


def make_observation_info(exposure: ExposureRecord, detector: int, detector_name: str) -> ObservationInfo:
    """Describe one detector of an exposure in the form that a `lsst.images.VisitImage` carries."""
    return ObservationInfo(
        instrument=exposure.instrument,
        telescope=exposure.instrument,
        visit_id=exposure.visit,
        exposure_id=exposure.visit,
        observation_id=f"{exposure.instrument}-{exposure.visit}",
        observation_type="science",
        physical_filter=exposure.physical_filter,
        datetime_begin=exposure.timespan.begin,
        datetime_end=exposure.timespan.end,
        exposure_time=exposure.exposure_time * u.s,
        observing_day=exposure.observing_day,
        detector_num=detector,
        detector_name=detector_name,
        tracking_radec=None if exposure.boresight is None else exposure.boresight.icrs,
        object=exposure.target_name,
        science_program=exposure.science_program,
        has_simulated_content=exposure.is_simulated,
    )


def pixel_region(projection: SkyProjection[Any], bbox: Box) -> ConvexPolygon:
    """Return the convex sky polygon through the outer corners of a box of pixels."""
    x = [bbox.x.start - 0.5, bbox.x.stop - 0.5, bbox.x.stop - 0.5, bbox.x.start - 0.5]
    y = [bbox.y.start - 0.5, bbox.y.start - 0.5, bbox.y.stop - 0.5, bbox.y.stop - 0.5]
    sky = projection.pixel_to_sky(x=x, y=y)
    points = [
        UnitVector3d(LonLat.fromDegrees(lon, lat)) for lon, lat in zip(sky.ra.deg, sky.dec.deg, strict=True)
    ]
    return ConvexPolygon.convexHull(points)


def insert_exposure_records(butler: Butler, exposure: ExposureRecord) -> None:
    """Insert every record that an exposure and its visit need; what is already there is left as it is.

    Inserted are day_obs, group, exposure, visit_system, visit (with time span and sky region), visit_definition,
    visit_system_membership and one visit_detector_region a detector. The region of a visit is the hull of the
    regions of its detectors, and grows when detectors are added by a later call.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable butler of a repository where the instrument, detectors and filter are registered.
    exposure : `ExposureRecord`
        The exposure.

    Raises
    ------
    ValueError
        If the visit is in the repository with other values.
    """
    registry = butler.registry
    instrument = exposure.instrument
    key = {"instrument": instrument}
    both = {**key, "visit": exposure.visit}
    shared = {
        **key,
        "id": exposure.visit,
        "physical_filter": exposure.physical_filter,
        "day_obs": exposure.observing_day,
        "seq_num": exposure.seq_num if exposure.seq_num is not None else exposure.visit,
        "exposure_time": float(exposure.exposure_time),
        "timespan": exposure.timespan,
        "target_name": exposure.target_name,
        "observation_reason": "science",
        "science_program": exposure.science_program,
    }
    name = f"{instrument}-{exposure.visit}"
    sky = {}
    if exposure.boresight is not None:
        sky = {
            "tracking_ra": float(exposure.boresight.icrs.ra.deg),
            "tracking_dec": float(exposure.boresight.icrs.dec.deg),
        }
    try:
        with registry.transaction():
            registry.syncDimensionData("day_obs", {**key, "id": exposure.observing_day})
            registry.syncDimensionData("group", {**key, "name": str(exposure.visit)})
            registry.syncDimensionData(
                "exposure",
                {
                    **shared,
                    **sky,
                    "obs_id": name,
                    "group": str(exposure.visit),
                    "seq_start": shared["seq_num"],
                    "seq_end": shared["seq_num"],
                    "observation_type": "science",
                    "has_simulated": exposure.is_simulated,
                    "can_see_sky": True,
                },
            )
            registry.syncDimensionData("visit_system", {**key, **_VISIT_SYSTEM})
            regions = _regions_in(butler, instrument, exposure.visit)
            _check_regions(exposure, regions)
            regions.update(exposure.regions)
            visit = {**shared, "name": name}
            if regions:
                visit["region"] = _hull(regions)
            is_known = bool(list(registry.queryDimensionRecords("visit", **both)))
            # A second detector enlarges the region of a visit that is already there; nothing else may differ,
            # which the exposure record has already shown.
            registry.syncDimensionData("visit", visit, update=is_known)
            registry.syncDimensionData("visit_definition", {**both, "exposure": exposure.visit})
            registry.syncDimensionData(
                "visit_system_membership", {**both, "visit_system": _VISIT_SYSTEM["id"]}
            )
            for detector, region in exposure.regions.items():
                registry.syncDimensionData(
                    "visit_detector_region", {**both, "detector": detector, "region": region}
                )
    except ConflictingDefinitionError as error:
        raise ValueError(
            f"Visit {exposure.visit} of {instrument} is already in the repository with other values; use another "
            f"visit number, the same settings as before, or another repository ({error})."
        ) from error


def _regions_in(butler: Butler, instrument: str, visit: int) -> dict[int, ConvexPolygon]:
    records = butler.registry.queryDimensionRecords(
        "visit_detector_region", instrument=instrument, visit=visit
    )
    return {record.detector: record.region for record in records}


def _check_regions(exposure: ExposureRecord, known: Mapping[int, ConvexPolygon]) -> None:
    for detector in known.keys() & exposure.regions.keys():
        if known[detector] != exposure.regions[detector]:
            raise ValueError(
                f"Visit {exposure.visit}, detector {detector} of {exposure.instrument} is already in the repository "
                f"at another place or size; use another visit number, the same settings as before, or another "
                f"repository."
            )


def _hull(regions: Mapping[int, ConvexPolygon]) -> ConvexPolygon:
    return ConvexPolygon.convexHull(
        [vertex for region in regions.values() for vertex in region.getVertices()]
    )
