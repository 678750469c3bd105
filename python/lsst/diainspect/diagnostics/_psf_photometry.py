"""Forced PSF photometry on difference, science image and template at the position of the source."""

from __future__ import annotations

__all__ = ["PsfPhotometryConfig", "PsfPhotometryDiagnostic", "fit_plane_psf"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np

from ..linear_fit import LinearFit, fit_linear
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import cut_disk, disk_size


class PsfPhotometryConfig(DiagnosticConfig):
    """Configuration of `PsfPhotometryDiagnostic`."""

    radius = pexConfig.RangeField[float](
        doc="Radius of the disk in which the PSF is fitted [pixel].", default=12.0, min=1.0
    )
    coreRadius = pexConfig.RangeField[float](
        doc="Radius within which negative pixels are counted [pixel].", default=3.0, min=0.5
    )


class PsfPhotometryDiagnostic(Diagnostic):
    """PSF flux f = sum(P d / v) / sum(P^2 / v) in each image, chi-square of the fit to the difference, and the
    flux consistency (science - template - difference) in units of the difference's error.

    On the difference the flux is fitted alone; on science image and template together with a constant. Of an image
    whose variance the stamps do not have, all pixels weigh the same and the errors come from the scatter of the
    residuals. The disk is centred on the source; the source must lie within half a pixel of the stamp's central
    pixel, as stamps are cut, or the disk is cut off on one side.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = PsfPhotometryConfig
    needs: ClassVar[frozenset[str]] = frozenset(
        {"difference", "science", "template", "differencePsf", "sciencePsf", "templatePsf"}
    )
    config: PsfPhotometryConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Fluxes, errors, chi-squares."""
        columns = {
            "psfFlux": DiagnosticColumn("float32", u.nJy, "PSF flux on the difference."),
            "psfFluxErr": DiagnosticColumn("float32", u.nJy, "Error of psfFlux."),
            "psfChi2": DiagnosticColumn("float32", None, "Chi-square of the fit to the difference."),
            "psfNdata": DiagnosticColumn("int32", None, "Pixels in the fit to the difference."),
            "psfChi2PerDof": DiagnosticColumn("float32", None, "psfChi2 / (psfNdata - 1)."),
        }
        for side, where in (("science", "the science image"), ("template", "the template")):
            columns |= {
                f"{side}Flux": DiagnosticColumn("float32", u.nJy, f"Forced PSF flux on {where}."),
                f"{side}FluxErr": DiagnosticColumn("float32", u.nJy, f"Error of {side}Flux."),
                f"{side}Background": DiagnosticColumn("float32", u.nJy, f"Constant fitted on {where}."),
                f"{side}Chi2PerDof": DiagnosticColumn(
                    "float32", None, f"Chi-square per degree of freedom on {where}; 1 without its variance."
                ),
            }
        columns |= {
            "fluxConsistency": DiagnosticColumn(
                "float32", None, "(scienceFlux - templateFlux - psfFlux) / psfFluxErr."
            ),
            "negativeFraction": DiagnosticColumn(
                "float32",
                None,
                "Fraction of the good pixels of the core that are negative on the difference.",
            ),
        }
        return columns

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        radius = self.config.radius
        difference = fit_plane_psf(stamps, "difference", radius)
        fits = {
            side: fit_plane_psf(stamps, side, radius, with_constant=True) for side in ("science", "template")
        }
        flux, error = difference.amplitude[:, 0], difference.error[:, 0]
        science, template = (fits[side].amplitude[:, 0] for side in ("science", "template"))
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {
                "psfFlux": flux,
                "psfFluxErr": error,
                "psfChi2": difference.chi2,
                "psfNdata": difference.n_data,
                "psfChi2PerDof": difference.chi2 / (difference.n_data - 1),
                "fluxConsistency": (science - template - flux) / error,
                "negativeFraction": self._negative_fraction(stamps),
            }
            for side, fit in fits.items():
                chi2_per_dof = fit.chi2 / (fit.n_data - 2)
                if f"{side}Variance" not in stamps.planes:
                    chi2_per_dof = np.where(np.isfinite(chi2_per_dof), 1.0, np.nan)
                values |= {
                    f"{side}Flux": fit.amplitude[:, 0],
                    f"{side}FluxErr": fit.error[:, 0],
                    f"{side}Background": fit.amplitude[:, 1],
                    f"{side}Chi2PerDof": chi2_per_dof,
                }
        return values

    def _negative_fraction(self, stamps: StampSet) -> np.ndarray:
        size = min(disk_size(self.config.coreRadius), stamps.size)
        pixels, weight = cut_disk(stamps, "difference", self.config.coreRadius, size)
        good = weight > 0
        n_good = good.sum(axis=1)
        n_negative = (good & (pixels < 0)).sum(axis=1)
        return np.where(n_good > 0, n_negative / np.maximum(n_good, 1), np.nan)


def fit_plane_psf(stamps: StampSet, plane: str, radius: float, *, with_constant: bool = False) -> LinearFit:
    """Fit the PSF at the sources' positions to one plane.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps with the plane and its PSF.
    plane : `str`
        "difference", "science" or "template".
    radius : `float`
        Radius of the fitted disk [pixel].
    with_constant : `bool`, optional
        Fit a constant too.

    Returns
    -------
    fit : `LinearFit`
        Flux and, if fitted, constant. Without a variance plane the errors come from the residuals.
    """
    core = stamps.cropped(disk_size(radius))
    n = len(core)
    design = core.centred_model(f"{plane}Psf").reshape(n, 1, -1)
    if with_constant:
        design = np.concatenate([design, np.ones_like(design)], axis=1)
    pixels, weight = cut_disk(stamps, plane, radius, core.size)
    fit = fit_linear(pixels, design, weight, dtype=np.float32)
    return fit if f"{plane}Variance" in stamps.planes else fit.with_errors_from_residuals()


diagnostic_registry.register("psfPhotometry", PsfPhotometryDiagnostic)
