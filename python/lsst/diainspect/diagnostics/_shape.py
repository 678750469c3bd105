"""Shape of a source on the difference: adaptive second moments against those of the PSF."""

from __future__ import annotations

__all__ = ["ShapeConfig", "ShapeDiagnostic", "source_moments"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np
import scipy.special

from ..psf import noise_equivalent_area
from ..stamps import StampSet
from ._adaptive_moments import AdaptiveMoments, adaptive_moments
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import disk_size


class ShapeConfig(DiagnosticConfig):
    """Configuration of `ShapeDiagnostic`."""

    radius = pexConfig.RangeField[float](
        doc="Half side of the square in which moments are measured [pixel]; some 5 sigma of the PSF or more.",
        default=12.0,
        min=4.0,
    )
    extendedTolerance = pexConfig.RangeField[float](
        doc="Fractional excess of the moments' trace up to which a source counts as point-like, for errors of the "
        "PSF model.",
        default=0.05,
        min=0.0,
    )


class ShapeDiagnostic(Diagnostic):
    """Adaptive moments of |difference| and of its PSF.

    A negative source is turned positive first. Errors are those of white noise at the maximum of the likelihood of a
    Gaussian, with nu the S/N of its flux at fixed shape: 2 sqrt(2) ixx / nu, 2 sqrt(2) iyy / nu and
    2 sqrt(ixx iyy + ixy^2) / nu. extendedness is the probability that the trace exceeds the PSF's by more than
    extendedTolerance, for Gaussian errors.

    Limits: the moments of two lobes of either sign mean nothing (NaN in most cases); bad pixels are replaced by the
    PSF with the flux of the peak; below S/N 8 or so the moments scatter by more than themselves and
    many do not converge; the Gaussian's moments are smaller than unweighted ones.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = ShapeConfig
    needs: ClassVar[frozenset[str]] = frozenset({"difference", "differencePsf"})
    config: ShapeConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Moments with errors, the PSF's, and extendedness."""
        area = u.pix**2
        return {
            "ixx": DiagnosticColumn("float32", area, "Adaptive second moment in x."),
            "iyy": DiagnosticColumn("float32", area, "Adaptive second moment in y."),
            "ixy": DiagnosticColumn("float32", area, "Adaptive second moment in x y."),
            "ixxErr": DiagnosticColumn("float32", area, "Error of ixx."),
            "iyyErr": DiagnosticColumn("float32", area, "Error of iyy."),
            "ixyErr": DiagnosticColumn("float32", area, "Error of ixy."),
            "ixxPSF": DiagnosticColumn("float32", area, "Adaptive second moment of the PSF in x."),
            "iyyPSF": DiagnosticColumn("float32", area, "Adaptive second moment of the PSF in y."),
            "ixyPSF": DiagnosticColumn("float32", area, "Adaptive second moment of the PSF in x y."),
            "centroidX": DiagnosticColumn("float64", u.pix, "Centroid of the best-fitting Gaussian."),
            "centroidY": DiagnosticColumn("float64", u.pix, "Centroid of the best-fitting Gaussian."),
            "sizeRatio": DiagnosticColumn(
                "float32", None, "sqrt(trace / trace of the PSF); 1 for a point source."
            ),
            "sizeRatioErr": DiagnosticColumn("float32", None, "Error of sizeRatio."),
            "ellipticity": DiagnosticColumn(
                "float32", None, "(a^2 - b^2) / (a^2 + b^2) of the moments' axes a, b."
            ),
            "extendedness": DiagnosticColumn("float32", None, "Probability that it is wider than the PSF."),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        core = stamps.cropped(disk_size(self.config.radius))
        source, psf, snr = source_moments(core)
        trace, psf_trace = source.ixx + source.iyy, psf.ixx + psf.iyy
        with np.errstate(invalid="ignore", divide="ignore"):
            ixx_error, iyy_error = (2.0 * np.sqrt(2.0) * moment / snr for moment in (source.ixx, source.iyy))
            ixy_error = 2.0 * np.sqrt(source.ixx * source.iyy + source.ixy**2) / snr
            # For a round Gaussian the errors of ixx and iyy are independent.
            trace_error = np.hypot(ixx_error, iyy_error)
            ratio = np.sqrt(trace / psf_trace)
            excess = trace - psf_trace * (1.0 + self.config.extendedTolerance)
            ellipticity = np.hypot(source.ixx - source.iyy, 2.0 * source.ixy) / trace
            extendedness = 0.5 * (1.0 + scipy.special.erf(excess / (np.sqrt(2.0) * trace_error)))
            ratio_error = 0.5 * ratio * trace_error / trace
        x_centre = np.asarray(core.sources["x0"], dtype=float) + core.size // 2
        y_centre = np.asarray(core.sources["y0"], dtype=float) + core.size // 2
        return {
            "ixx": source.ixx,
            "iyy": source.iyy,
            "ixy": source.ixy,
            "ixxErr": ixx_error,
            "iyyErr": iyy_error,
            "ixyErr": ixy_error,
            "ixxPSF": psf.ixx,
            "iyyPSF": psf.iyy,
            "ixyPSF": psf.ixy,
            "centroidX": x_centre + source.x,
            "centroidY": y_centre + source.y,
            "sizeRatio": ratio,
            "sizeRatioErr": ratio_error,
            "ellipticity": ellipticity,
            "extendedness": extendedness,
        }


def source_moments(core: StampSet) -> tuple[AdaptiveMoments, AdaptiveMoments, np.ndarray]:
    """Return the moments of the sources on the difference, of its PSF, and the S/N of the sources' Gaussians.

    What they are of a set of stamps is kept with it.
    """
    return core.keep("sourceMoments", lambda: _source_moments(core))


def _source_moments(core: StampSet) -> tuple[AdaptiveMoments, AdaptiveMoments, np.ndarray]:
    n, size = len(core), core.size
    psf = core.models["differencePsf"].shifted(np.zeros(n), np.zeros(n), size)
    with np.errstate(invalid="ignore", divide="ignore"):
        start = np.nan_to_num(noise_equivalent_area(psf) / (4.0 * np.pi))
    psf_moments = adaptive_moments(psf, np.zeros(n), np.zeros(n), start, fixed_centre=True)
    weight = core.weight("difference").reshape(n, -1)
    good = (weight > 0).astype(np.float32)
    pixels = core.good_pixels("difference").reshape(n, -1)
    model = core.centred_model("differencePsf").reshape(n, -1)
    seen = model * good
    with np.errstate(invalid="ignore", divide="ignore"):
        flux = np.einsum("ni,ni->n", seen, pixels) / np.einsum("ni,ni->n", seen, seen)
    flux = np.nan_to_num(flux)
    # Bad pixels take what the PSF would have there.
    pixels = pixels + (flux[:, None] * model) * (1.0 - good)
    pixels *= np.where(flux < 0, -1.0, 1.0).astype(np.float32)[:, None]
    first = np.where(np.isfinite(psf_moments.ixx), 0.5 * (psf_moments.ixx + psf_moments.iyy), start)
    moments = adaptive_moments(pixels.reshape(n, size, size), core.dx, core.dy, first)
    n_good = np.maximum(good.sum(axis=1), 1.0)
    if "differenceVariance" in core.planes:
        variance = np.divide(1.0, weight, out=np.zeros_like(weight), where=weight > 0)
        # The variance where the source is.
        with np.errstate(invalid="ignore", divide="ignore"):
            noise = np.sqrt(np.einsum("ni,ni->n", variance, seen * seen) / np.einsum("ni,ni->n", seen, seen))
    else:
        residual = pixels - np.abs(flux)[:, None] * model
        noise = np.sqrt(np.einsum("ni,ni->n", residual * good, residual) / n_good)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = moments.flux / (noise * np.sqrt(moments.effective_area))
    return moments, psf_moments, snr


diagnostic_registry.register("shape", ShapeDiagnostic)
