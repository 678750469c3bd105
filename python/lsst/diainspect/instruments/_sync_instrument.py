"""The dimension record of an instrument whose visits and exposures are numbered alike."""

from __future__ import annotations

__all__ = ["sync_instrument"]

from lsst.daf.butler import Registry
from lsst.pipe.base import Instrument
from lsst.utils.introspection import get_full_type_name


def sync_instrument(
    registry: Registry, instrument: Instrument, *, visit_limit: int, detector_limit: int, update: bool
) -> None:
    """Insert an instrument's record, or check the one that is there.

    Parameters
    ----------
    registry : `lsst.daf.butler.Registry`
        Registry of the repository.
    instrument : `lsst.pipe.base.Instrument`
        Instrument to register.
    visit_limit, detector_limit : `int`
        Visit (and exposure) and detector numbers are below these.
    update : `bool`
        Replace a record that differs; it is an error otherwise.
    """
    registry.syncDimensionData(
        "instrument",
        {
            "name": instrument.getName(),
            "class_name": get_full_type_name(instrument),
            "visit_max": visit_limit,
            "exposure_max": visit_limit,
            "detector_max": detector_limit,
            "visit_system": 0,
        },
        update=update,
    )
