"""Which mask planes touch a source, and how much of it."""

from __future__ import annotations

__all__ = ["MaskFractionsConfig", "MaskFractionsDiagnostic"]

from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np

from ..masks import MASK_BITS, words_masked_by
from ..psf import disk_mask
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry


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
        words = stamps.planes["mask"]
        core = disk_mask(stamps.size, stamps.dx, stamps.dy, self.config.coreRadius)
        n_core = core.sum(axis=(1, 2))
        values = {}
        for plane in self.config.planes:
            masked = words_masked_by(words, [plane])
            with np.errstate(invalid="ignore"):
                values[f"{plane}_core"] = (masked & core).sum(axis=(1, 2)) / n_core
            values[f"{plane}_stamp"] = masked.mean(axis=(1, 2))
        return values


diagnostic_registry.register("maskFractions", MaskFractionsDiagnostic)
