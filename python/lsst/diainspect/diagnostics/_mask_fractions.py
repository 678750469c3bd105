"""Which mask planes touch a source, and how much of it."""

from __future__ import annotations

__all__ = ["MaskFractionsConfig", "MaskFractionsDiagnostic"]

from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np

from ..masks import MASK_BITS, words_masked_by
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import central_disk, disk_size


class MaskFractionsConfig(DiagnosticConfig):
    """Configuration of `MaskFractionsDiagnostic`."""

    planes = pexConfig.ListField[str](
        doc="Mask planes to report.",
        dtype=str,
        default=[
            "BAD",
            "SATURATED",
            "SAT_TEMPLATE",
            "INTERPOLATED",
            "COSMIC_RAY",
            "NO_DATA",
            "STREAK",
            "DETECTION_EDGE",
            "OFF_IMAGE",
            "FILTER_SPREAD",
        ],
    )
    coreRadius = pexConfig.RangeField[float](doc="Radius of the core [pixel].", default=4.0, min=0.0)

    def validate(self) -> None:
        """Check the names of the planes."""
        super().validate()
        unknown = set(self.planes) - MASK_BITS.keys()
        if unknown:
            raise pexConfig.FieldValidationError(
                MaskFractionsConfig.planes,
                self,
                f"unknown mask planes {sorted(unknown)}; known are {list(MASK_BITS)}.",
            )


class MaskFractionsDiagnostic(Diagnostic):
    """Fraction of the pixels of the core and of the whole stamp that carry each plane."""

    ConfigClass: ClassVar[type[DiagnosticConfig]] = MaskFractionsConfig
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    config: MaskFractionsConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Two columns a plane."""
        columns = {}
        for plane in self.config.planes:
            columns[f"{plane}_core"] = DiagnosticColumn(
                "float32", None, f"Fraction of the core with {plane}."
            )
            columns[f"{plane}_stamp"] = DiagnosticColumn(
                "float32", None, f"Fraction of the stamp with {plane}."
            )
        return columns

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        n = len(stamps)
        words = stamps.planes["mask"].reshape(n, -1)
        core = stamps.cropped(disk_size(self.config.coreRadius))
        core_words = core.planes["mask"].reshape(n, -1)
        disk = central_disk(core, self.config.coreRadius)
        n_core = disk.sum(axis=1)
        # Most stamps have none of the planes.
        together = np.bitwise_or.reduce(words, axis=1)
        touched = np.flatnonzero(words_masked_by(together, self.config.planes))
        values = {}
        for plane in self.config.planes:
            in_core, in_stamp = np.zeros(n), np.zeros(n)
            in_core[n_core == 0] = np.nan
            own = touched[words_masked_by(together[touched], [plane])]
            if len(own):
                masked = words_masked_by(core_words[own], [plane])
                with np.errstate(invalid="ignore"):
                    in_core[own] = (masked * disk[own]).sum(axis=1) / n_core[own]
                in_stamp[own] = words_masked_by(words[own], [plane]).mean(axis=1)
            values[f"{plane}_core"], values[f"{plane}_stamp"] = in_core, in_stamp
        return values


diagnostic_registry.register("maskFractions", MaskFractionsDiagnostic)
