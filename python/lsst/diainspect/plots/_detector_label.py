"""Which detector image a figure shows."""

from __future__ import annotations

__all__ = ["DetectorLabel"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class DetectorLabel:
    """What the title of a figure says.

    Parameters
    ----------
    instrument, band : `str`
        Instrument and band; left out of the title when empty.
    visit, detector : `int`
        Visit and detector.
    """

    instrument: str
    visit: int
    detector: int
    band: str = ""

    def __str__(self) -> str:
        band = f", {self.band} band" if self.band else ""
        return f"{self.instrument} visit {self.visit}, detector {self.detector}{band}".strip()

    @property
    def file_stem(self) -> str:
        """Name for files: what tells detectors apart, without spaces."""
        return f"{self.instrument}_visit{self.visit}_detector{self.detector}"

    @classmethod
    def from_data_id(cls, data_id: Mapping[str, Any]) -> Self:
        """Make a label from a data ID with instrument, visit and detector, and the band if it has one."""
        band = data_id.get("band", "")
        return cls(str(data_id["instrument"]), int(data_id["visit"]), int(data_id["detector"]), str(band))
