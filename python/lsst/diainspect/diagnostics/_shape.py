"""Shape of a source on the difference: adaptive second moments against those of the PSF."""

from __future__ import annotations

__all__ = ["ShapeConfig", "ShapeDiagnostic", "SourceMoments", "source_moments"]

from dataclasses import dataclass
from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np
import scipy.special

from ..compiled import compiled
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

    weighted* take the PSF's Gaussian as weight instead, at the position of the source: linear in the pixels, they
    exist and have Gaussian errors at any S/N (score tests of a width and of an elongation).

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
            "weightedSizeRatio": DiagnosticColumn(
                "float32",
                None,
                "First-order sizeRatio, from second moments under the PSF's Gaussian; exists at any S/N.",
            ),
            "weightedSizeSnr": DiagnosticColumn(
                "float32", None, "Significance of weightedSizeRatio - 1, of either sign."
            ),
            "weightedShapeChi2": DiagnosticColumn(
                "float32",
                None,
                "Chi-square (2 degrees of freedom) of an elongation beyond the PSF's, under its Gaussian.",
            ),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        core = stamps.cropped(disk_size(self.config.radius))
        moments = source_moments(stamps, core.size)
        source, psf, snr = moments.source, moments.psf, moments.snr
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
        weighted_ratio, size_snr, shape_chi2 = _weighted_shape(moments)
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
            "weightedSizeRatio": weighted_ratio,
            "weightedSizeSnr": size_snr,
            "weightedShapeChi2": shape_chi2,
        }


@dataclass(frozen=True)
class SourceMoments:
    """Moments of N sources on the difference.

    Parameters
    ----------
    source : `AdaptiveMoments`
        Those of the sources, first weighted by the PSF's Gaussian.
    psf : `AdaptiveMoments`
        Those of the PSF.
    snr : `numpy.ndarray`, (N,)
        S/N of the sources' Gaussians.
    noise : `numpy.ndarray`, (N,)
        Noise of a pixel [unit of the pixels].
    """

    source: AdaptiveMoments
    psf: AdaptiveMoments
    snr: np.ndarray
    noise: np.ndarray


def source_moments(stamps: StampSet, size: int) -> SourceMoments:
    """Return the moments of the sources in the middle of stamps, of a side [pixel]; kept with the stamps."""
    return stamps.keep(("sourceMoments", size), lambda: _source_moments(stamps, size))


def _weighted_shape(moments: SourceMoments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first-order size ratio, its significance, and the chi-square of an elongation.

    Under a Gaussian weight w of the PSF's own adaptive moments M the PSF has the second moments M / 2. The sums of
    w (u^2 + v^2 - tr M / 2), of w (u^2 - v^2 - (Mxx - Myy) / 2) and of w (2 u v - Mxy) times the pixels vanish for a
    point source of any flux; in white noise their variances are pi sqrt(det M) noise^2 times the fourth moments of a
    Gaussian of moments M / 2.
    """
    psf, noise = moments.psf, moments.noise
    flux, uu, vv, uv = moments.source.weighted
    half_xx, half_yy, half_xy = 0.5 * psf.ixx, 0.5 * psf.iyy, 0.5 * psf.ixy
    size = uu + vv - flux * (half_xx + half_yy)
    plus = uu - vv - flux * (half_xx - half_yy)
    cross = 2.0 * (uv - flux * half_xy)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = noise**2 * psf.effective_area / 4.0
        squares = 2.0 * (half_xx**2 + half_yy**2)
        size_variance = unit * (squares + 4.0 * half_xy**2)
        plus_variance = unit * (squares - 4.0 * half_xy**2)
        cross_variance = unit * 4.0 * (half_xx * half_yy + half_xy**2)
        return (
            (uu + vv) / (flux * (half_xx + half_yy)),
            size / np.sqrt(size_variance),
            plus**2 / plus_variance + cross**2 / cross_variance,
        )


def _source_moments(stamps: StampSet, size: int) -> SourceMoments:
    n = len(stamps)
    psf = stamps.models["differencePsf"].shifted(np.zeros(n), np.zeros(n), size)
    with np.errstate(invalid="ignore", divide="ignore"):
        round_size = np.nan_to_num(noise_equivalent_area(psf) / (4.0 * np.pi))
    start = np.stack([round_size, round_size, np.zeros(n)])
    psf_moments = adaptive_moments(psf, np.zeros(n), np.zeros(n), start, fixed_centre=True)
    own = np.stack([psf_moments.ixx, psf_moments.iyy, psf_moments.ixy])
    first = np.where(np.isfinite(own), own, start)
    images, noise = np.empty((n, size, size), dtype=np.float32), np.empty(n)
    _turn_positive(
        stamps.good_pixels("difference"),
        stamps.weight("difference"),
        stamps.cropped(size).centred_model("differencePsf").reshape(n, -1),
        "differenceVariance" in stamps.planes,
        images.reshape(n, -1),
        noise,
    )
    moments = adaptive_moments(images, stamps.dx, stamps.dy, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = moments.flux / (noise * np.sqrt(moments.effective_area))
    return SourceMoments(moments, psf_moments, snr, noise)


@compiled
def _turn_positive(
    pixels: np.ndarray,
    weight: np.ndarray,
    psf: np.ndarray,
    with_variance: bool,
    images: np.ndarray,
    noise: np.ndarray,
) -> None:
    """Fill the middle of stamps, positive and with what the PSF would have on bad pixels, and the noise of a pixel.

    The noise is that of the variance where the source is, or the scatter about the PSF.
    """
    n_pixels = psf.shape[1]
    size = int(np.rint(np.sqrt(n_pixels)))
    low = pixels.shape[1] // 2 - size // 2
    data, inverse = np.empty(n_pixels, np.float32), np.empty(n_pixels, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for n in range(len(psf)):
        for i in range(size):
            source, own = pixels[n, low + i, low : low + size], weight[n, low + i, low : low + size]
            target, goal = data[i * size : (i + 1) * size], inverse[i * size : (i + 1) * size]
            for j in range(size):
                target[j], goal[j] = source[j], own[j]
        model, image = psf[n], images[n]
        cross, norm, variance, number = zero, zero, zero, zero
        for k in range(n_pixels):
            good = inverse[k] > zero
            seen = model[k] if good else zero
            cross += seen * data[k]
            norm += seen * seen
            variance += seen * seen / (inverse[k] if good else one)
            number += one if good else zero
        flux = cross / norm if norm > zero else zero
        sign = -one if flux < zero else one
        scatter = zero
        for k in range(n_pixels):
            good = inverse[k] > zero
            image[k] = sign * (data[k] if good else flux * model[k])
            residual = image[k] - abs(flux) * model[k]
            scatter += residual * residual if good else zero
        noise[n] = np.sqrt(variance / norm if with_variance else scatter / max(number, one))


diagnostic_registry.register("shape", ShapeDiagnostic)
