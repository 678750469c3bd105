"""Residual modes: what, to first order, is left of a static source, and is there a flux change besides?

The difference at a source is
  D = f P_D + F h_s * [dx m_x + dy m_y + w m_w + g1 m_1 + g2 m_2] + b,
with P_D the difference's PSF, F the flux of the static source, h_s the filter that the difference applies to the
science image, m_j the modes of the science PSF (`lsst.diainspect.psf.residual_modes`) and b a constant. (dx, dy)
are the science minus template position that the match left, w the fractional excess of the science PSF's width,
g1, g2 of its shear. All amplitudes are linear; the products F dx ... are fitted and divided by F.

What is common to a detector goes into the match itself: the kernel's centroid or the registration map. That part
follows from the filters h_s, h_t alone, because a static point source vanishes from the difference when
h_s P_s shifted by d equals h_t P_t: it is given as matchShift, and total registration is matchShift + shift.
"""

from __future__ import annotations

__all__ = ["ResidualModesConfig", "ResidualModesDiagnostic"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np
import scipy.fft

from ..linear_fit import fit_linear
from ..psf import MODE_NAMES, centre_crop, disk_mask, fit_psf, residual_modes, shift_images
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry

_DEG_TO_MAS = 3.6e6

_MAX_WIDTH = 0.2
"""Largest fractional width error for which the modes are taken halfway; beyond it the expansion fails anyway."""

_DOCS = {
    "shiftX": (u.pix, "Science minus template position in x that the match left."),
    "shiftY": (u.pix, "Science minus template position in y that the match left."),
    "width": (None, "Fractional excess of the science PSF's width that the match left."),
    "e1": (None, "Excess shear (a - b) / (a + b) of the science PSF along x that the match left."),
    "e2": (None, "Excess shear of the science PSF along the diagonal that the match left."),
}


class ResidualModesConfig(DiagnosticConfig):
    """Configuration of `ResidualModesDiagnostic`."""

    radius = pexConfig.RangeField[float](
        doc="Radius of the fitted disk [pixel]; 15.5 or more, or flux and background are degenerate.",
        default=16.0,
        min=4.0,
    )
    minStaticSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio of the static source on the template for modes to be fitted.",
        default=10.0,
        min=0.0,
    )
    maxStaticDistance = pexConfig.RangeField[float](
        doc="Largest distance of the static source from the detection [pixel].", default=3.0, min=0.0
    )


class ResidualModesDiagnostic(Diagnostic):
    """Joint weighted least-squares fit of flux, shift, width, shear and background to the difference.

    Limits: the static source is taken to be a point source; on galaxies the amplitudes measure what a point
    source would need. The modes are first order in shift and shear, good to 2 % for shifts below a tenth of the
    PSF's sigma, and second order in width.
    Without a static source only the flux and the background are fitted.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = ResidualModesConfig
    needs: ClassVar[frozenset[str]] = frozenset(
        {
            "difference",
            "science",
            "template",
            "differencePsf",
            "sciencePsf",
            "templatePsf",
            "scienceFilter",
            "templateFilter",
        }
    )
    config: ResidualModesConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Amplitudes with errors, and the chi-square that each group of modes takes off."""
        columns = {
            "discoveryFlux": DiagnosticColumn("float32", u.nJy, "Flux fitted with a constant only."),
            "discoveryFluxErr": DiagnosticColumn("float32", u.nJy, "Error of discoveryFlux."),
            "flux": DiagnosticColumn("float32", u.nJy, "Flux change fitted jointly with all modes."),
            "fluxErr": DiagnosticColumn("float32", u.nJy, "Error of flux."),
            "staticX": DiagnosticColumn("float64", u.pix, "Position of the static source."),
            "staticY": DiagnosticColumn("float64", u.pix, "Position of the static source."),
            "staticFlux": DiagnosticColumn("float32", u.nJy, "PSF flux of the static source, science image."),
            "staticFluxErr": DiagnosticColumn("float32", u.nJy, "Error of staticFlux."),
        }
        for name in MODE_NAMES:
            unit, doc = _DOCS[name]
            columns[name] = DiagnosticColumn("float32", unit, doc)
            columns[f"{name}Err"] = DiagnosticColumn("float32", unit, f"Error of {name}.")
        columns |= {
            "shiftEast": DiagnosticColumn("float32", u.mas, "Shift towards east on the sky."),
            "shiftNorth": DiagnosticColumn("float32", u.mas, "Shift towards north on the sky."),
            "matchShiftX": DiagnosticColumn("float32", u.pix, "Science minus template x taken by the match."),
            "matchShiftY": DiagnosticColumn("float32", u.pix, "Science minus template y taken by the match."),
            "background": DiagnosticColumn("float32", u.nJy, "Constant."),
            "chi2": DiagnosticColumn("float32", None, "Chi-square of the joint fit."),
            "nData": DiagnosticColumn("int32", None, "Pixels in the fit."),
            "fluxChi2": DiagnosticColumn("float32", None, "Rise of chi-square without the flux."),
            "shiftChi2": DiagnosticColumn("float32", None, "Rise of chi-square without the shift (2 dof)."),
            "widthChi2": DiagnosticColumn("float32", None, "Rise of chi-square without the width."),
            "shearChi2": DiagnosticColumn("float32", None, "Rise of chi-square without the shear (2 dof)."),
        }
        return columns

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        n, size = len(stamps), stamps.size
        pixels = stamps.planes["difference"].reshape(n, -1)
        disk = disk_mask(size, stamps.dx, stamps.dy, self.config.radius)
        weight = np.where(disk, stamps.weight("difference"), 0.0).reshape(n, -1)
        constant = np.ones((n, 1, size, size))
        point = shift_images(stamps.models["differencePsf"].images(), stamps.dx, stamps.dy)
        point = centre_crop(point, size)[:, None]

        discovery = fit_linear(pixels, np.concatenate([point, constant], axis=1).reshape(n, 2, -1), weight)
        values = {
            "discoveryFlux": discovery.amplitude[:, 0],
            "discoveryFluxErr": discovery.error[:, 0],
            "flux": discovery.amplitude[:, 0].copy(),
            "fluxErr": discovery.error[:, 0].copy(),
            "background": discovery.amplitude[:, 1].copy(),
            "chi2": discovery.chi2.copy(),
            "nData": discovery.n_data,
            "fluxChi2": _rise(discovery.amplitude, discovery.covariance, [0]),
        }
        values["matchShiftX"], values["matchShiftY"] = _match_shift(stamps)
        for name in self.columns:
            values.setdefault(name, np.full(n, np.nan))

        static_x, static_y, static_flux, static_error, found = self._static_source(stamps)
        if not found.any():
            return values
        # A finite change of width is its derivative halfway times the change, to second order.
        halfway = np.zeros(int(found.sum()))
        for _ in range(2):
            modes = self._filtered_modes(stamps[found], static_x[found], static_y[found], halfway)
            design = np.concatenate([point[found], modes, constant[found]], axis=1)
            design = design.reshape(len(design), design.shape[1], -1)
            fit = fit_linear(pixels[found], design, weight[found])
            width = fit.amplitude[:, 1 + MODE_NAMES.index("width")] / static_flux[found]
            halfway = 0.5 * np.clip(np.nan_to_num(width), -_MAX_WIDTH, _MAX_WIDTH)
        pixel_to_sky = np.asarray(stamps.sources["pixelToSky"], dtype=float)[found]

        x_centre = np.asarray(stamps.sources["x0"], dtype=float) + size // 2
        y_centre = np.asarray(stamps.sources["y0"], dtype=float) + size // 2
        amplitude, error = fit.amplitude, fit.error
        flux = static_flux[found]
        results = {
            "flux": amplitude[:, 0],
            "fluxErr": error[:, 0],
            "staticX": (x_centre + static_x)[found],
            "staticY": (y_centre + static_y)[found],
            "staticFlux": flux,
            "staticFluxErr": static_error[found],
            "background": amplitude[:, -1],
            "chi2": fit.chi2,
            "fluxChi2": _rise(amplitude, fit.covariance, [0]),
            "shiftChi2": _rise(amplitude, fit.covariance, [1, 2]),
            "widthChi2": _rise(amplitude, fit.covariance, [3]),
            "shearChi2": _rise(amplitude, fit.covariance, [4, 5]),
        }
        for j, name in enumerate(MODE_NAMES, start=1):
            results[name] = amplitude[:, j] / flux
            results[f"{name}Err"] = error[:, j] / np.abs(flux)
        shift = np.stack([results["shiftX"], results["shiftY"]], axis=-1)
        on_sky = np.einsum("nij,nj->ni", pixel_to_sky, shift) * _DEG_TO_MAS
        results["shiftEast"], results["shiftNorth"] = on_sky[:, 0], on_sky[:, 1]
        for name, result in results.items():
            values[name][found] = result
        return values

    def _static_source(
        self, stamps: StampSet
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Find the static source near each detection on the template, and its flux on the science image.

        Returns its offset from the stamps' central pixel, its flux and error, and whether there is one.
        """
        radius = 0.5 * self.config.radius
        template = fit_psf(
            stamps.planes["template"],
            stamps.weight("template"),
            stamps.models["templatePsf"].images(),
            stamps.dx,
            stamps.dy,
            radius,
        )
        x = np.where(np.isfinite(template.dx), template.dx, stamps.dx)
        y = np.where(np.isfinite(template.dy), template.dy, stamps.dy)
        science = fit_psf(
            stamps.planes["science"],
            stamps.weight("science"),
            stamps.models["sciencePsf"].images(),
            x,
            y,
            radius,
            iterations=1,
        )
        distance = np.hypot(x - stamps.dx, y - stamps.dy)
        with np.errstate(invalid="ignore", divide="ignore"):
            snr = template.flux / _calibrated_error(stamps, "template", template.flux_error)
        science_error = _calibrated_error(stamps, "science", science.flux_error)
        found = (snr >= self.config.minStaticSnr) & (distance <= self.config.maxStaticDistance)
        found &= np.isfinite(science.flux) & (science.flux > 0)
        return x, y, science.flux, science_error, found

    def _filtered_modes(
        self, stamps: StampSet, static_x: np.ndarray, static_y: np.ndarray, width: np.ndarray
    ) -> np.ndarray:
        """Return h_s * m_j at the static sources' positions, for PSFs widened by a fraction; (N, 5, size, size)."""
        psf = stamps.models["sciencePsf"].images()
        psf = psf + width[:, None, None] * residual_modes(psf)[:, MODE_NAMES.index("width")]
        modes = residual_modes(psf)
        difference_filter = stamps.models["scienceFilter"].images()
        own, reach = psf.shape[-1], difference_filter.shape[-1]
        window = scipy.fft.next_fast_len(own + reach, real=True)
        transform = scipy.fft.rfft2(modes, s=(window, window))
        transform *= scipy.fft.rfft2(difference_filter, s=(window, window))[:, None]
        ky = scipy.fft.fftfreq(window)
        kx = scipy.fft.rfftfreq(window)
        transform *= np.exp(-2j * np.pi * static_y[:, None] * ky)[:, None, :, None]
        transform *= np.exp(-2j * np.pi * static_x[:, None] * kx)[:, None, None, :]
        filtered = scipy.fft.irfft2(transform, s=(window, window))
        # The centre of a full convolution of two odd images lies at the sum of their half sizes.
        centre = own // 2 + reach // 2
        low = centre - stamps.size // 2
        if low >= 0 and low + stamps.size <= window:
            return filtered[:, :, low : low + stamps.size, low : low + stamps.size]
        return centre_crop(filtered[:, :, : 2 * centre + 1, : 2 * centre + 1], stamps.size)


def _calibrated_error(stamps: StampSet, plane: str, error: np.ndarray) -> np.ndarray:
    """Return flux errors, scaled by the stamps' own scatter when there is no variance plane."""
    if f"{plane}Variance" in stamps.planes:
        return error
    pixels = stamps.planes[plane].reshape(len(stamps), -1)
    with np.errstate(invalid="ignore"):
        low, middle = np.nanpercentile(pixels, [15.9, 50.0], axis=1)
    return error * (middle - low)


def _rise(amplitude: np.ndarray, covariance: np.ndarray, index: list[int]) -> np.ndarray:
    """Return by how much chi-square rises when amplitudes are set to zero and the others refitted."""
    block = covariance[:, index][:, :, index]
    values = amplitude[:, index]
    rise = np.full(len(values), np.nan)
    good = np.isfinite(block).all(axis=(1, 2))
    rise[good] = np.einsum(
        "ni,ni->n", values[good], np.linalg.solve(block[good], values[good][..., None])[..., 0]
    )
    return rise


def _match_shift(stamps: StampSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the shift d with h_s P_s exp(-2 pi i k d) = h_t P_t: the slope of the phase, weighted by power."""
    sides = [
        (stamps.models[f"{side}Psf"].images(), stamps.models[f"{side}Filter"].images())
        for side in ("science", "template")
    ]
    window = scipy.fft.next_fast_len(max(psf.shape[-1] + own.shape[-1] for psf, own in sides), real=True)
    science, template = (
        scipy.fft.rfft2(psf, s=(window, window)) * scipy.fft.rfft2(own, s=(window, window))
        for psf, own in sides
    )
    # Images are centred on pixel size // 2, so sizes that differ between the sides add a known phase.
    science_centre, template_centre = (psf.shape[-1] // 2 + own.shape[-1] // 2 for psf, own in sides)
    offset = science_centre - template_centre
    ky, kx = scipy.fft.fftfreq(window)[:, None], scipy.fft.rfftfreq(window)[None, :]
    cross = template * np.conj(science) * np.exp(-2j * np.pi * offset * (kx + ky))
    power = np.abs(cross)
    phase = -np.angle(cross) / (2.0 * np.pi)
    # Beyond the PSFs' bandwidth the phase is noise; the weight is what the PSFs let through.
    weight = power * (power > 1e-3 * power.max(axis=(1, 2), keepdims=True))
    xx = (weight * kx**2).sum(axis=(1, 2))
    yy = (weight * ky**2).sum(axis=(1, 2))
    xy = (weight * kx * ky).sum(axis=(1, 2))
    x, y = (weight * kx * phase).sum(axis=(1, 2)), (weight * ky * phase).sum(axis=(1, 2))
    determinant = xx * yy - xy**2
    return (yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant


diagnostic_registry.register("residualModes", ResidualModesDiagnostic)
