"""DiaAlerts, the instrument under which alerts are kept, with the visit and detector numbers of their survey."""

from __future__ import annotations

__all__ = ["DiaAlerts"]

import datetime

from astropy.time import Time
from lsst.daf.butler import Registry

from ._dia_fits import DiaFits
from ._sync_instrument import sync_instrument

_VISIT_LIMIT = 10**15
"""Visits of LSSTCam have 13 digits, those of ZTF 14. They are never packed: alerts bring their identifiers."""

_DETECTOR_LIMIT = 10**4


class DiaAlerts(DiaFits):
    """An instrument without a camera: detectors, filters and visits are added as alerts are ingested."""

    @classmethod
    def getName(cls) -> str:
        return "DiaAlerts"

    def register(self, registry: Registry, *, update: bool = False) -> None:
        sync_instrument(
            registry, self, visit_limit=_VISIT_LIMIT, detector_limit=_DETECTOR_LIMIT, update=update
        )

    @staticmethod
    def observing_day(visit: int, begin: Time) -> int:
        """Return the night of a visit as YYYYMMDD: what its number begins with where that is a date, else in UTC.

        LSSTCam and ZTF number visits by the night, which need not be the date in UTC.
        """
        utc = begin.utc.datetime
        for days in (-1, 0, 1):
            day = (utc + datetime.timedelta(days=days)).strftime("%Y%m%d")
            if visit >= 10 ** len(day) and str(visit).startswith(day):
                return int(day)
        return int(utc.strftime("%Y%m%d"))

    @staticmethod
    def sequence_number(visit: int) -> int:
        """Return the number of a visit within its night: the last five digits, as LSSTCam counts."""
        return visit % 100_000
