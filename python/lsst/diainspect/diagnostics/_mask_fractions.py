"""Which mask planes touch a source, and how much of it."""

from __future__ import annotations

__all__ = ["MaskFractionsConfig", "MaskFractionsDiagnostic"]

from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np

from ..compiled import compiled
from ..masks import MASK_BITS, words_masked_by
from ..psf import centre_crop, disk_mask
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import disk_size


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
        size = min(disk_size(self.config.coreRadius), stamps.size)
        disk = disk_mask(size, stamps.dx, stamps.dy, self.config.coreRadius).reshape(n, -1)
        n_core = disk.sum(axis=1)
        # Most stamps have none of the planes.
        together = np.bitwise_or.reduce(words, axis=1)
        touched = np.flatnonzero(words_masked_by(together, self.config.planes))
        core_words = centre_crop(stamps.planes["mask"], size)[touched].reshape(len(touched), -1)
        bits = np.array([1 << MASK_BITS[plane] for plane in self.config.planes], dtype=np.uint32)
        counts = np.empty((2, len(touched), len(bits)))
        core_words = np.where(disk[touched], core_words, np.uint32(0))
        # Compiled loops take the machine's byte order only, and files have another.
        for own, rows, count in zip(
            (core_words, words), (np.arange(len(touched)), touched), counts, strict=True
        ):
            _count_masked(np.asarray(own, dtype=np.uint32), rows, bits, count)
        values = {}
        for column, plane in enumerate(self.config.planes):
            in_core, in_stamp = np.zeros(n), np.zeros(n)
            in_core[n_core == 0] = np.nan
            with np.errstate(invalid="ignore"):
                in_core[touched] = counts[0, :, column] / n_core[touched]
            in_stamp[touched] = counts[1, :, column] / words.shape[1]
            values[f"{plane}_core"], values[f"{plane}_stamp"] = in_core, in_stamp
        return values


@compiled
def _count_masked(words: np.ndarray, rows: np.ndarray, bits: np.ndarray, counts: np.ndarray) -> None:
    """Fill the numbers (n, P) of the words in some rows (of N, K) that have each of P bits."""
    for n in range(len(rows)):
        own = words[rows[n]]
        for p in range(len(bits)):
            number, bit = np.uint32(0), bits[p]
            for k in range(len(own)):
                number += np.uint32((own[k] & bit) != 0)
            counts[n, p] = number


diagnostic_registry.register("maskFractions", MaskFractionsDiagnostic)
