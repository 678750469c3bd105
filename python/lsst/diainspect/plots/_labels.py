"""What figures of a visit or a survey show."""

from __future__ import annotations

__all__ = ["SurveyLabel", "VisitLabel"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class VisitLabel:
    """What the title of a figure of a visit says.

    Parameters
    ----------
    instrument, band : `str`
        Instrument and band; left out of the title when empty.
    visit : `int`
        Visit.
    """

    instrument: str
    visit: int
    band: str = ""

    def __str__(self) -> str:
        band = f", {self.band} band" if self.band else ""
        return f"{self.instrument} visit {self.visit}{band}".strip()

    @property
    def file_stem(self) -> str:
        """Name for files."""
        return f"{self.instrument}_visit{self.visit}"

    @classmethod
    def from_data_id(cls, data_id: Mapping[str, Any]) -> Self:
        """Make a label from a data ID with instrument and visit, and the band if it has one."""
        return cls(str(data_id["instrument"]), int(data_id["visit"]), str(data_id.get("band", "")))


@dataclass(frozen=True)
class SurveyLabel:
    """What the title of a figure of a survey says.

    Parameters
    ----------
    instrument : `str`
        Instrument.
    """

    instrument: str

    def __str__(self) -> str:
        return f"{self.instrument} survey"

    @property
    def file_stem(self) -> str:
        """Name for files."""
        return f"{self.instrument}_survey"

    @classmethod
    def from_data_id(cls, data_id: Mapping[str, Any]) -> Self:
        """Make a label from a data ID with an instrument."""
        return cls(str(data_id["instrument"]))
