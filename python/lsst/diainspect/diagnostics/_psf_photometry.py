"""Forced PSF photometry on difference, science image and template at the position of the source."""

from __future__ import annotations

__all__ = ["PsfPhotometryConfig", "PsfPhotometryDiagnostic"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np

from ..linear_fit import LinearFit, fit_linear
from ..psf import centre_crop, disk_mask, shift_images
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry


class PsfPhotometryConfig(DiagnosticConfig):
    """Configuration of `PsfPhotometryDiagnostic`."""

    radius = pexConfig.RangeField[float](
        doc="Radius of the disk in which the PSF is fitted [pixel].", default=12.0, min=1.0
    )


class PsfPhotometryDiagnostic(Diagnostic):
    """PSF flux f = sum(P d / v) / sum(P^2 / v) in each image, chi-square of the fit to the difference, and the
    flux consistency (science - template - difference) in units of the difference's error.

    On the difference the flux is fitted alone; on science image and template together with a constant. Of an image
    whose variance the stamps do not have, all pixels weigh the same and the errors come from the scatter of the
    residuals.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = PsfPhotometryConfig
    needs: ClassVar[frozenset[str]] = frozenset(
        {"difference", "science", "template", "differencePsf", "sciencePsf", "templatePsf"}
    )
    config: PsfPhotometryConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Fluxes, errors, chi-square."""
        return {
            "psfFlux": DiagnosticColumn("float32", u.nJy, "PSF flux on the difference."),
            "psfFluxErr": DiagnosticColumn("float32", u.nJy, "Error of psfFlux."),
            "psfChi2": DiagnosticColumn("float32", None, "Chi-square of the fit to the difference."),
            "psfNdata": DiagnosticColumn("int32", None, "Pixels in the fit to the difference."),
            "scienceFlux": DiagnosticColumn("float32", u.nJy, "Forced PSF flux on the science image."),
            "scienceFluxErr": DiagnosticColumn("float32", u.nJy, "Error of scienceFlux."),
            "templateFlux": DiagnosticColumn("float32", u.nJy, "Forced PSF flux on the template."),
            "templateFluxErr": DiagnosticColumn("float32", u.nJy, "Error of templateFlux."),
            "fluxConsistency": DiagnosticColumn(
                "float32", None, "(scienceFlux - templateFlux - psfFlux) / psfFluxErr."
            ),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        difference = self._fit(stamps, "difference", with_constant=False)
        science = self._fit(stamps, "science", with_constant=True)
        template = self._fit(stamps, "template", with_constant=True)
        flux, error = difference.amplitude[:, 0], difference.error[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            consistency = (science.amplitude[:, 0] - template.amplitude[:, 0] - flux) / error
        return {
            "psfFlux": flux,
            "psfFluxErr": error,
            "psfChi2": difference.chi2,
            "psfNdata": difference.n_data,
            "scienceFlux": science.amplitude[:, 0],
            "scienceFluxErr": science.error[:, 0],
            "templateFlux": template.amplitude[:, 0],
            "templateFluxErr": template.error[:, 0],
            "fluxConsistency": consistency,
        }

    def _fit(self, stamps: StampSet, plane: str, *, with_constant: bool) -> LinearFit:
        n, size = len(stamps), stamps.size
        psf = shift_images(stamps.models[f"{plane}Psf"].images(), stamps.dx, stamps.dy)
        columns = [centre_crop(psf, size)]
        if with_constant:
            columns.append(np.ones((n, size, size)))
        design = np.stack(columns, axis=1).reshape(n, len(columns), -1)
        disk = disk_mask(size, stamps.dx, stamps.dy, self.config.radius)
        weight = np.where(disk, stamps.weight(plane), 0.0)
        fit = fit_linear(stamps.planes[plane].reshape(n, -1), design, weight.reshape(n, -1))
        return fit if f"{plane}Variance" in stamps.planes else fit.with_errors_from_residuals()


diagnostic_registry.register("psfPhotometry", PsfPhotometryDiagnostic)
