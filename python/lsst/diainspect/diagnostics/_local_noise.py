"""Noise around a source: is it as large as predicted, and white?"""

from __future__ import annotations

__all__ = ["LocalNoiseConfig", "LocalNoiseDiagnostic"]

from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
from astropy.stats import mad_std

from ..psf import disk_mask
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry


class LocalNoiseConfig(DiagnosticConfig):
    """Configuration of `LocalNoiseDiagnostic`."""

    innerRadius = pexConfig.RangeField[float](
        doc="Pixels within this radius of the source are left out [pixel].", default=8.0, min=0.0
    )
    clip = pexConfig.RangeField[float](
        doc="Pixels beyond this many sigma do not enter the correlation.", default=4.0, min=1.0
    )


class LocalNoiseDiagnostic(Diagnostic):
    """Robust sigma of difference / sqrt(variance) outside the source, and the correlation of neighbours.

    For N pixels of white Gaussian noise the sigma scatters by 1.17 / sqrt(N) about 1 (the median absolute
    deviation has an efficiency of 37 %) and each correlation by 1 / sqrt(N) about 0. The stamp's median is taken
    off first, so that a background that was left does not read as a correlation.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = LocalNoiseConfig
    needs: ClassVar[frozenset[str]] = frozenset({"difference", "differenceVariance"})
    config: LocalNoiseConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Sigma ratio and correlations."""
        return {
            "sigmaOverPredicted": DiagnosticColumn(
                "float32",
                None,
                "Robust sigma of difference / sqrt(variance) around the source; 1 if predicted.",
            ),
            "correlationX": DiagnosticColumn("float32", None, "Correlation of neighbours in x."),
            "correlationY": DiagnosticColumn("float32", None, "Correlation of neighbours in y."),
            "nPixels": DiagnosticColumn("int32", None, "Pixels used."),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        weight = stamps.weight("difference")
        outside = ~disk_mask(stamps.size, stamps.dx, stamps.dy, self.config.innerRadius)
        pull = np.where(outside & (weight > 0), stamps.planes["difference"] * np.sqrt(weight), np.nan)
        flat = pull.reshape(len(stamps), -1)
        n_pixels = np.isfinite(flat).sum(axis=1)
        sigma = np.full(len(stamps), np.nan)
        measurable = n_pixels >= 2
        if measurable.any():
            flat[measurable] -= np.nanmedian(flat[measurable], axis=1, keepdims=True)
            sigma[measurable] = mad_std(flat[measurable], axis=1, ignore_nan=True)
        pull = flat.reshape(pull.shape)
        with np.errstate(invalid="ignore"):
            clipped = np.where(np.abs(pull) < self.config.clip * sigma[:, None, None], pull, np.nan)
        return {
            "sigmaOverPredicted": sigma,
            "correlationX": _correlation(clipped[:, :, 1:], clipped[:, :, :-1]),
            "correlationY": _correlation(clipped[:, 1:, :], clipped[:, :-1, :]),
            "nPixels": n_pixels,
        }


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    both = np.isfinite(first) & np.isfinite(second)
    a, b = np.where(both, first, 0.0), np.where(both, second, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=(1, 2)) / np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2)))


diagnostic_registry.register("localNoise", LocalNoiseDiagnostic)
