"""Aperture photometry on difference, science image and template, and whether the flux grows as a point source's."""

from __future__ import annotations

__all__ = ["AperturePhotometryConfig", "AperturePhotometryDiagnostic"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np

from ..compiled import compiled
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import disk_size

_SIDES = {"ap": "difference", "scienceAp": "science", "templateAp": "template"}
"""Beginnings of the columns, and the planes they are measured on."""

_FLUX, _VARIANCE, _PSF, _SEEN_PSF = range(4)
_N_SUMS = 4
"""Places of the sums over an aperture."""


class AperturePhotometryConfig(DiagnosticConfig):
    """Configuration of `AperturePhotometryDiagnostic`."""

    radii = pexConfig.ListField[int](
        doc="Radii of the apertures [pixel], increasing.", dtype=int, default=[3, 6, 9, 12]
    )

    def validate(self) -> None:
        """Check that radii are positive and increase."""
        super().validate()
        radii = list(self.radii)
        if len(radii) < 2 or radii[0] < 1 or any(b <= a for a, b in zip(radii, radii[1:], strict=False)):
            raise pexConfig.FieldValidationError(
                AperturePhotometryConfig.radii,
                self,
                f"must be at least two positive radii that increase; got {radii}.",
            )


class AperturePhotometryDiagnostic(Diagnostic):
    """Sums F(r) = sum_i a_i d_i over apertures, with errors sqrt(sum_i a_i^2 v_i), and the growth of the flux
    [F(r_max) / F(r_min)] / [G(r_max) / G(r_min)], where G is the same for the PSF: 1 for a point source.

    Pixels at the rim count by a_i = clip(r + 1/2 - distance, 0, 1), which holds the area pi r^2 to 1 % at 3 pixels.
    Limits: no background is taken off, as images are expected without; bad pixels are left out, so that their
    flux is missing (apBadFraction says how much of the PSF lies on them within the largest aperture); noise
    that is correlated makes the errors of large apertures too small. Errors are NaN without a variance plane.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = AperturePhotometryConfig
    needs: ClassVar[frozenset[str]] = frozenset({"difference", "science", "template", "differencePsf"})
    config: AperturePhotometryConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Fluxes and errors by image and radius, and growth."""
        columns = {}
        for start, plane in _SIDES.items():
            for radius in self.config.radii:
                columns[f"{start}Flux_{radius}"] = DiagnosticColumn(
                    "float32", u.nJy, f"Flux on the {plane} within {radius} pixels."
                )
                columns[f"{start}FluxErr_{radius}"] = DiagnosticColumn(
                    "float32", u.nJy, f"Error of {start}Flux_{radius}."
                )
        smallest, largest = self.config.radii[0], self.config.radii[-1]
        columns |= {
            "growth": DiagnosticColumn(
                "float32",
                None,
                f"apFlux_{largest} / apFlux_{smallest} over the same ratio of the PSF; 1 for a point source.",
            ),
            "growthErr": DiagnosticColumn("float32", None, "Error of growth."),
            "apBadFraction": DiagnosticColumn(
                "float32", None, "Fraction of the PSF in the largest aperture that lies on bad pixels."
            ),
        }
        return columns

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        radii = list(self.config.radii)
        core = stamps.cropped(disk_size(radii[-1]))
        n = len(core)
        values = {}
        located = np.isfinite(core.dx) & np.isfinite(core.dy)
        x, y = (np.where(located, d, 0.0) for d in (core.dx, core.dy))
        # That of the whole stamps, which the local noise needs too.
        psf = stamps.centred_model("differencePsf")
        for start, plane in _SIDES.items():
            sums = np.empty((n, len(radii), _N_SUMS))
            n_good = np.empty(n, dtype=int)
            _add_apertures(
                stamps.good_pixels(plane),
                stamps.weight(plane),
                psf if start == "ap" else psf[:0],
                core.size,
                x,
                y,
                np.array(radii, dtype=np.float32),
                sums,
                n_good,
            )
            sums[~located] = np.nan
            flux = sums[:, :, _FLUX]
            flux[n_good == 0] = np.nan
            if f"{plane}Variance" not in core.planes:
                sums[:, :, _VARIANCE] = np.nan
            error = np.sqrt(sums[:, :, _VARIANCE])
            for column, radius in enumerate(radii):
                values[f"{start}Flux_{radius}"] = flux[:, column]
                values[f"{start}FluxErr_{radius}"] = np.where(np.isnan(flux[:, 0]), np.nan, error[:, column])
            if start == "ap":
                with np.errstate(invalid="ignore", divide="ignore"):
                    expected = sums[:, :, _SEEN_PSF]
                    scale = expected[:, 0] / expected[:, -1]
                    growth = flux[:, -1] / flux[:, 0] * scale
                    # The inner flux is part of the outer: F_out = F_in + F_ring with independent errors.
                    ring = np.sqrt(np.maximum(error[:, -1] ** 2 - error[:, 0] ** 2, 0.0)) / flux[:, 0]
                    inner = error[:, 0] * (flux[:, -1] - flux[:, 0]) / flux[:, 0] ** 2
                    values["growth"] = growth
                    values["growthErr"] = np.abs(scale) * np.hypot(ring, inner)
                    values["apBadFraction"] = 1.0 - expected[:, -1] / sums[:, -1, _PSF]
        return values


@compiled
def _add_apertures(
    pixels: np.ndarray,
    weight: np.ndarray,
    psf: np.ndarray,
    size: int,
    x: np.ndarray,
    y: np.ndarray,
    radii: np.ndarray,
    sums: np.ndarray,
    n_good: np.ndarray,
) -> None:
    """Fill the sums (N, n_radii, 4) over the apertures about (x, y) of pixels, a^2 variance, PSF, and PSF seen.

    They are in the middle, of a size, of stamps; what is good there is counted. Without PSFs their sums are zero.
    """
    low, n_pixels = pixels.shape[1] // 2 - size // 2, size * size
    distance, variance = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    data, inverse = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    model, seen = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    for source in range(len(pixels)):
        own_x, own_y = np.float32(x[source] + size // 2), np.float32(y[source] + size // 2)
        for i in range(size):
            up = (np.float32(i) - own_y) ** 2
            away, row = distance[i * size : (i + 1) * size], data[i * size : (i + 1) * size]
            weight_row = inverse[i * size : (i + 1) * size]
            for j in range(size):
                away[j] = np.sqrt(up + (np.float32(j) - own_x) ** 2)
                row[j] = pixels[source, low + i, low + j]
                weight_row[j] = weight[source, low + i, low + j]
            if len(psf):
                model_row = model[i * size : (i + 1) * size]
                for j in range(size):
                    model_row[j] = psf[source, low + i, low + j]
        number = 0
        for k in range(n_pixels):
            good = inverse[k] > zero
            variance[k] = one / inverse[k] if good else zero
            seen[k] = model[k] if good else zero
            number += good
        n_good[source] = number
        for r in range(len(radii)):
            rim = radii[r] + half
            flux, squared, whole, there = zero, zero, zero, zero
            for k in range(n_pixels):
                part = min(max(rim - distance[k], zero), one)
                flux += part * data[k]
                squared += part * part * variance[k]
            if len(psf):
                for k in range(n_pixels):
                    part = min(max(rim - distance[k], zero), one)
                    whole += part * model[k]
                    there += part * seen[k]
            sums[source, r, _FLUX], sums[source, r, _VARIANCE] = flux, squared
            sums[source, r, _PSF], sums[source, r, _SEEN_PSF] = whole, there


diagnostic_registry.register("aperturePhotometry", AperturePhotometryDiagnostic)
