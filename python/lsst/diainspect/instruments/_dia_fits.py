"""DiaFits, the instrument under which FITS images brought by a user are kept."""

from __future__ import annotations

__all__ = ["DiaFits"]

from collections.abc import Mapping
from typing import Any

from lsst.daf.butler import Formatter, FormatterV2, Registry
from lsst.images.formatters import GenericFormatter
from lsst.pipe.base import Instrument

from ._numbering import DETECTOR_LIMIT, VISIT_LIMIT
from ._sync_instrument import sync_instrument

_N_REGISTERED_DETECTORS = 16


class DiaFits(Instrument):
    """An instrument without a camera: numbered detectors, filters added as images are ingested."""

    @classmethod
    def getName(cls) -> str:
        return "DiaFits"

    def register(self, registry: Registry, *, update: bool = False) -> None:
        with registry.transaction():
            sync_instrument(
                registry, self, visit_limit=VISIT_LIMIT, detector_limit=DETECTOR_LIMIT, update=update
            )
            for detector in range(_N_REGISTERED_DETECTORS):
                self.register_detector(registry, detector, update=update)

    def register_detector(self, registry: Registry, detector: int, *, update: bool = False) -> None:
        """Add one detector to the repository, if it is not there."""
        registry.syncDimensionData(
            "detector",
            {
                "instrument": self.getName(),
                "id": detector,
                "full_name": f"D{detector:03d}",
                "name_in_raft": f"{detector:03d}",
                "raft": "D",
                "purpose": "SCIENCE",
            },
            update=update,
        )

    def register_filter(self, registry: Registry, physical_filter: str, band: str) -> None:
        """Add one filter to the repository, if it is not there.

        Raises
        ------
        ValueError
            If the filter is there with another band.
        """
        known = list(
            registry.queryDimensionRecords(
                "physical_filter", instrument=self.getName(), physical_filter=physical_filter
            )
        )
        if known and known[0].band != band:
            raise ValueError(
                f"Filter {physical_filter!r} is in the repository with band {known[0].band!r}, got {band!r}: "
                f"use that band or another filter name."
            )
        registry.syncDimensionData(
            "physical_filter", {"instrument": self.getName(), "name": physical_filter, "band": band}
        )

    def getRawFormatter(self, dataId: Mapping[str, Any]) -> type[Formatter | FormatterV2]:
        return GenericFormatter
