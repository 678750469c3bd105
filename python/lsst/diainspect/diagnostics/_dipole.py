"""Dipoles: a positive and a negative lobe fitted together, and what can be said when they overlap.

The model is D = (m + q / 2) P(x - c - s / 2) - (m - q / 2) P(x - c + s / 2), with P the difference's PSF, c the
centre, s the separation from the negative to the positive lobe, m the mean flux of the lobes and q their difference.
For |s| small against the PSF's width the image depends on q and on the dipole moment p = m s alone,
D = q P - p . grad P: mean flux and separation are then degenerate, and only their product is measured.
"""

from __future__ import annotations

__all__ = ["DipoleConfig", "DipoleDiagnostic"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np

from ..linear_fit import fit_linear
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import cut_disk, disk_size
from ._point_source_fit import LOBES, POINT, PointSourceFit, fit_point_sources
from ._sky_direction import sky_length_and_angle

_CENTRE, _SEPARATION, _MEAN, _DIFFERENCE = slice(0, 2), slice(2, 4), 4, 5
"""Places of the parameters."""


class DipoleConfig(DiagnosticConfig):
    """Configuration of `DipoleDiagnostic`."""

    radius = pexConfig.RangeField[float](doc="Radius of the fitted disk [pixel].", default=10.0, min=4.0)
    minMomentChi2 = pexConfig.RangeField[float](
        doc="Fit two lobes where a dipole moment lowers chi-square by this (2 degrees of freedom).",
        default=25.0,
        min=0.0,
    )
    minDeltaChi2 = pexConfig.RangeField[float](
        doc="Least fall of chi-square from a point source at its best position to two lobes for isDipole.",
        default=25.0,
        min=0.0,
    )
    maxFluxFraction = pexConfig.RangeField[float](
        doc="Largest part of the absolute flux that one lobe may have for isDipole.",
        default=0.65,
        min=0.5,
        max=1.0,
    )
    maxCorrelation = pexConfig.RangeField[float](
        doc="Mean flux and separation with an anticorrelation beyond this are flagged as degenerate.",
        default=0.95,
        min=0.0,
        max=1.0,
    )
    minStaticSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio on science image and template, at the lobes, to use their fluxes.",
        default=10.0,
        min=0.0,
    )
    staticFluxTolerance = pexConfig.RangeField[float](
        doc="Fractional uncertainty with which the mean flux of the lobes is that of science image and template.",
        default=0.05,
        min=0.0,
    )


class DipoleDiagnostic(Diagnostic):
    """Two lobes fitted to the difference, and once more with the mean flux that science image and template show.

    The moment is fitted to every source, linearly, at the source's position. Two lobes are fitted where it is
    significant (dipoleFitAttempted). isDipole needs three things: the fit to be better than a point source at its
    best position, lobes of opposite sign, and neither with most of the flux.

    The second fit (joint) adds to chi-square [(m - (F_science + F_template) / 2) / sigma]^2, with the PSF fluxes of
    the static source at the lobes. The mean of the two images' fluxes has, for equal noise, errors independent of
    their difference, so nothing is counted twice.

    Limits: lobes are point sources; on galaxies the separations come out too small and chi-square large. Below half
    a full width at half maximum flux and separation are degenerate (flag_degenerate, with the correlation):
    use the joint columns, or dipoleMoment, which of a Gaussian PSF comes out low by exp(-s^2 / 16 sigma^2). Errors are
    those of white noise.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = DipoleConfig
    needs: ClassVar[frozenset[str]] = frozenset({"difference", "differencePsf"})
    config: DipoleConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """The DPDD's dipole columns, the moment, the joint fit and flags."""
        moment = u.nJy * u.arcsec
        columns = {
            "dipoleMoment": DiagnosticColumn("float32", moment, "Mean flux times separation."),
            "dipoleMomentErr": DiagnosticColumn("float32", moment, "Error of dipoleMoment."),
            "dipoleMomentX": DiagnosticColumn("float32", u.nJy * u.pix, "Moment in x."),
            "dipoleMomentY": DiagnosticColumn("float32", u.nJy * u.pix, "Moment in y."),
            "dipoleMomentAngle": DiagnosticColumn(
                "float32", u.deg, "Angle of the moment, negative to positive, east of north."
            ),
            "dipoleMomentChi2": DiagnosticColumn(
                "float32", None, "Rise of chi-square without the moment (2 degrees of freedom)."
            ),
            "dipoleFitAttempted": DiagnosticColumn("bool", None, "Two lobes were fitted."),
            "isDipole": DiagnosticColumn("bool", None, "The source is well fitted by a dipole."),
            "dipoleMeanFlux": DiagnosticColumn("float32", u.nJy, "Mean absolute flux of the two lobes."),
            "dipoleMeanFluxErr": DiagnosticColumn("float32", u.nJy, "Error of dipoleMeanFlux."),
            "dipoleFluxDiff": DiagnosticColumn(
                "float32", u.nJy, "Absolute flux of the positive minus that of the negative lobe."
            ),
            "dipoleFluxDiffErr": DiagnosticColumn("float32", u.nJy, "Error of dipoleFluxDiff."),
            "dipoleLength": DiagnosticColumn("float32", u.arcsec, "Separation of the lobes."),
            "dipoleLengthErr": DiagnosticColumn("float32", u.arcsec, "Error of dipoleLength."),
            "dipoleLengthPixels": DiagnosticColumn("float32", u.pix, "Separation of the lobes."),
            "dipoleAngle": DiagnosticColumn(
                "float32", u.deg, "Direction from the negative to the positive lobe, east of north."
            ),
            "dipoleAngleErr": DiagnosticColumn("float32", u.deg, "Error of dipoleAngle."),
            "dipoleX": DiagnosticColumn("float64", u.pix, "Midpoint of the lobes."),
            "dipoleY": DiagnosticColumn("float64", u.pix, "Midpoint of the lobes."),
            "dipoleChi2": DiagnosticColumn("float32", None, "Chi-square of the two lobes."),
            "dipoleNdata": DiagnosticColumn("int32", None, "Pixels in the fit."),
            "dipoleDeltaChi2": DiagnosticColumn(
                "float32", None, "Fall of chi-square from a point source at its best position to two lobes."
            ),
            "dipoleCorrelation": DiagnosticColumn(
                "float32", None, "Correlation of dipoleMeanFlux and dipoleLength."
            ),
            "jointMeanFlux": DiagnosticColumn(
                "float32", u.nJy, "Mean flux of the lobes, with science image and template."
            ),
            "jointMeanFluxErr": DiagnosticColumn("float32", u.nJy, "Error of jointMeanFlux."),
            "jointLength": DiagnosticColumn(
                "float32", u.arcsec, "Separation of the lobes, with science image and template."
            ),
            "jointLengthErr": DiagnosticColumn("float32", u.arcsec, "Error of jointLength."),
            "jointAngle": DiagnosticColumn("float32", u.deg, "Direction of the joint fit, east of north."),
            "jointChi2": DiagnosticColumn("float32", None, "Chi-square of the difference in the joint fit."),
            "flag_degenerate": DiagnosticColumn(
                "bool", None, "dipoleMeanFlux and dipoleLength are degenerate: use their product."
            ),
            "flag_notConverged": DiagnosticColumn("bool", None, "The fit of two lobes did not converge."),
        }
        return columns

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        n = len(stamps)
        core = stamps.cropped(disk_size(self.config.radius))
        data, weight = cut_disk(stamps, "difference", self.config.radius, core.size)
        values = {
            name: np.full(n, np.nan) if np.dtype(column.dtype).kind == "f" else np.zeros(n, column.dtype)
            for name, column in self.columns.items()
        }
        gradient = stamps.centred_gradient("differencePsf", core.size)
        self._measure_moment(core, gradient, data, weight, values)
        if "differenceVariance" not in core.planes:
            # Without a variance nothing is significant; the residuals of the moment's fit set the scale.
            degrees = np.maximum((weight > 0).sum(axis=1) - 3, 1)
            weight = weight * (degrees / np.maximum(values["chi2"], 1e-30))[:, None].astype(np.float32)
        values.pop("chi2")
        candidates = np.flatnonzero(values["dipoleMomentChi2"] >= self.config.minMomentChi2)
        if len(candidates):
            measured = self._measure_lobes(core.chosen(candidates), data[candidates], weight[candidates])
            for name, value in measured.items():
                values[name][candidates] = value
        return values

    def _measure_moment(
        self,
        core: StampSet,
        gradient: np.ndarray,
        data: np.ndarray,
        weight: np.ndarray,
        values: dict[str, np.ndarray],
    ) -> None:
        """Fit flux and moment linearly."""
        n = len(core)
        fit = fit_linear(data, gradient.reshape(n, 3, -1), weight, dtype=np.float32)
        if "differenceVariance" not in core.planes:
            fit = fit.with_errors_from_residuals()
        # P(x - c - s / 2) - P(x - c + s / 2) = s . dP / dc.
        moment, covariance = fit.amplitude[:, 1:], fit.covariance[:, 1:, 1:]
        length, angle = sky_length_and_angle(core, moment[:, 0], moment[:, 1])
        pixels = np.hypot(moment[:, 0], moment[:, 1])
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = moment / pixels[:, None]
            error = np.sqrt(np.einsum("ni,nij,nj->n", unit, covariance, unit)) * length / pixels
        values |= {
            "dipoleMoment": length,
            "dipoleMomentErr": error,
            "dipoleMomentX": moment[:, 0],
            "dipoleMomentY": moment[:, 1],
            "dipoleMomentAngle": angle,
            "dipoleMomentChi2": fit.rise([1, 2]),
            "chi2": fit.chi2,
        }

    def _measure_lobes(self, core: StampSet, data: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Fit two lobes to sources with a significant moment."""
        every = np.arange(len(core))
        fit = self._fit_lobes(core, every, data, weight, self._start(core, data, weight))
        point_chi2 = self._fit_point(core, data, weight)
        parameters, covariance = _orient(fit)
        mean, difference = parameters[:, _MEAN], parameters[:, _DIFFERENCE]
        separation = parameters[:, _SEPARATION]
        pixels = np.hypot(separation[:, 0], separation[:, 1])
        length, angle = sky_length_and_angle(core, separation[:, 0], separation[:, 1])
        x_centre = np.asarray(core.sources["x0"], dtype=float) + core.size // 2
        y_centre = np.asarray(core.sources["y0"], dtype=float) + core.size // 2
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
            along = separation / pixels[:, None]
            across = np.stack([-along[:, 1], along[:, 0]], axis=-1)
            block = covariance[:, _SEPARATION, _SEPARATION]
            along_error = np.sqrt(np.einsum("ni,nij,nj->n", along, block, along))
            across_error = np.sqrt(np.einsum("ni,nij,nj->n", across, block, across))
            with_mean = np.einsum("ni,ni->n", along, covariance[:, _SEPARATION, _MEAN])
            correlation = with_mean / (along_error * error[:, _MEAN])
            fraction = (mean + 0.5 * np.abs(difference)) / (2.0 * mean)
        delta_chi2 = point_chi2 - fit.chi2
        # A curvature that cannot be inverted is a degeneracy too, and so is a second lobe that is not needed.
        degenerate = ~(np.abs(correlation) < self.config.maxCorrelation)
        degenerate |= ~(delta_chi2 >= self.config.minDeltaChi2)
        values = {
            "dipoleFitAttempted": np.ones(len(core), dtype=bool),
            "isDipole": (
                (delta_chi2 >= self.config.minDeltaChi2) & (fraction <= self.config.maxFluxFraction)
            ),
            "dipoleMeanFlux": mean,
            "dipoleMeanFluxErr": error[:, _MEAN],
            "dipoleFluxDiff": difference,
            "dipoleFluxDiffErr": error[:, _DIFFERENCE],
            "dipoleLength": length,
            "dipoleLengthErr": along_error * length / pixels,
            "dipoleLengthPixels": pixels,
            "dipoleAngle": angle,
            "dipoleAngleErr": np.degrees(across_error / pixels),
            "dipoleX": x_centre + parameters[:, 0],
            "dipoleY": y_centre + parameters[:, 1],
            "dipoleChi2": fit.chi2,
            "dipoleNdata": fit.n_data,
            "dipoleDeltaChi2": delta_chi2,
            "dipoleCorrelation": correlation,
            "flag_degenerate": degenerate,
            "flag_notConverged": ~fit.converged,
        }
        return values | self._measure_joint(core, data, weight, parameters)

    def _measure_joint(
        self, core: StampSet, data: np.ndarray, weight: np.ndarray, start: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Fit two lobes with the mean flux expected from science image and template."""
        flux, error = self._static_flux(core, start)
        known = np.flatnonzero(np.isfinite(flux) & (error > 0) & (flux > 0))
        names = ("MeanFlux", "MeanFluxErr", "Length", "LengthErr", "Angle", "Chi2")
        values = {f"joint{name}": np.full(len(core), np.nan) for name in names}
        if len(known) == 0:
            return values
        first = start[known].copy()
        # The moment is what the free fit knows: the separation starts where flux times separation stays.
        first[:, _SEPARATION] *= (first[:, _MEAN] / flux[known])[:, None]
        first[:, _MEAN] = flux[known]
        expected, stiffness = np.zeros_like(first), np.zeros_like(first)
        expected[:, _MEAN] = flux[known]
        stiffness[:, _MEAN] = 1.0 / error[known] ** 2
        fit = self._fit_lobes(core, known, data, weight, first, (expected, stiffness))
        parameters, covariance = _orient(fit)
        separation = parameters[:, _SEPARATION]
        pixels = np.hypot(separation[:, 0], separation[:, 1])
        length, angle = sky_length_and_angle(core.chosen(known), separation[:, 0], separation[:, 1])
        with np.errstate(invalid="ignore", divide="ignore"):
            along = separation / pixels[:, None]
            block = covariance[:, _SEPARATION, _SEPARATION]
            along_error = np.sqrt(np.einsum("ni,nij,nj->n", along, block, along)) * length / pixels
            mean_error = np.sqrt(covariance[:, _MEAN, _MEAN])
        results = (parameters[:, _MEAN], mean_error, length, along_error, angle, fit.chi2)
        for name, result in zip(names, results, strict=True):
            values[f"joint{name}"][known] = result
        return values

    def _static_flux(self, core: StampSet, lobes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean flux of science image and template at the lobes, with its error; NaN without."""
        n = len(core)
        if not {"science", "template", "sciencePsf", "templatePsf"} <= core.provides:
            return np.full(n, np.nan), np.full(n, np.nan)
        fluxes, errors = [], []
        for side, sign in (("science", 0.5), ("template", -0.5)):
            position = lobes[:, _CENTRE] + sign * lobes[:, _SEPARATION]
            design = np.ones((n, 2, core.size**2), dtype=np.float32)
            model = core.fine_model(f"{side}Psf")
            design[:, 0] = model.at(np.arange(n), position[:, 0], position[:, 1], core.size).reshape(n, -1)
            pixels, weight = cut_disk(core, side, self.config.radius, core.size)
            fit = fit_linear(pixels, design, weight, dtype=np.float32)
            if f"{side}Variance" not in core.planes:
                fit = fit.with_errors_from_residuals()
            fluxes.append(fit.amplitude[:, 0])
            errors.append(fit.error[:, 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.all(
                [f / e >= self.config.minStaticSnr for f, e in zip(fluxes, errors, strict=True)], 0
            )
        flux = np.where(found, 0.5 * (fluxes[0] + fluxes[1]), np.nan)
        error = np.hypot(0.5 * np.hypot(*errors), self.config.staticFluxTolerance * flux)
        return flux, error

    def _start(self, core: StampSet, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return parameters to start from: lobes at the extremes of the difference, smoothed with the PSF."""
        n, size = len(core), core.size
        smooth = _smooth(np.where(weight > 0, data, 0.0).reshape(n, size, size)).reshape(n, -1)
        smooth = np.where(weight > 0, smooth, 0.0)
        positions = []
        for extreme in (smooth.argmax(axis=1), smooth.argmin(axis=1)):
            positions.append(np.stack([extreme % size, extreme // size], axis=-1) - float(size // 2))
        start = np.zeros((n, 6))
        start[:, _CENTRE] = 0.5 * (positions[0] + positions[1])
        start[:, _SEPARATION] = positions[0] - positions[1]
        model = core.fine_model("differencePsf")
        lobes = [model.at(np.arange(n), at[:, 0], at[:, 1], size).reshape(n, -1) for at in positions]
        design = np.stack([lobes[0] - lobes[1], 0.5 * (lobes[0] + lobes[1])], axis=1)
        amplitude = fit_linear(data, design, weight, dtype=np.float32).amplitude
        start[:, [_MEAN, _DIFFERENCE]] = np.nan_to_num(amplitude)
        return start

    def _fit_lobes(
        self,
        core: StampSet,
        rows: np.ndarray,
        data: np.ndarray,
        weight: np.ndarray,
        start: np.ndarray,
        prior: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> PointSourceFit:
        """Fit two lobes to some rows."""
        reach = self.config.radius
        return fit_point_sources(
            LOBES,
            core.fine_model("differencePsf"),
            rows,
            data,
            weight,
            start,
            limits=np.array([0.5 * reach, 0.5 * reach, 1.5 * reach, 1.5 * reach, np.inf, np.inf]),
            prior=prior,
            max_iterations=20,
            tolerance=0.03,
        )

    def _fit_point(self, core: StampSet, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return chi-square of a point source at its best position, found from the largest pixel."""
        every = np.arange(len(core))
        model = core.fine_model("differencePsf")
        smooth = _smooth(np.where(weight > 0, data, 0.0).reshape(len(core), core.size, core.size))
        brightest = np.abs(smooth.reshape(len(core), -1) * (weight > 0)).argmax(axis=1)
        start = np.zeros((len(core), 3))
        start[:, 0] = brightest % core.size - core.size // 2
        start[:, 1] = brightest // core.size - core.size // 2
        image = model.at(every, start[:, 0], start[:, 1], core.size).reshape(len(core), 1, -1)
        start[:, 2] = np.nan_to_num(fit_linear(data, image, weight, dtype=np.float32).amplitude[:, 0])
        reach = 0.5 * self.config.radius
        return fit_point_sources(
            POINT,
            model,
            every,
            data,
            weight,
            start,
            limits=np.array([reach, reach, np.inf]),
            max_iterations=8,
        ).chi2


_SMOOTHING_SIGMA = 1.2
"""Width of the Gaussian that keeps single pixels from being taken for lobes [pixel]."""


def _smooth(images: np.ndarray) -> np.ndarray:
    """Return images (N, size, size) smoothed with a small Gaussian, by one matrix product an axis."""
    grid = np.arange(images.shape[-1], dtype=np.float32)
    kernel = np.exp(-0.5 * np.minimum(((grid - grid[:, None]) / np.float32(_SMOOTHING_SIGMA)) ** 2, 60.0))
    return kernel @ (images.astype(np.float32) @ kernel)


def _orient(fit: PointSourceFit) -> tuple[np.ndarray, np.ndarray]:
    """Return parameters and covariance with the separation pointing to the positive lobe: m > 0."""
    sign = np.where(fit.parameters[:, _MEAN] < 0, -1.0, 1.0)
    flip = np.ones((len(sign), 6))
    flip[:, 2:5] = sign[:, None]
    return fit.parameters * flip, fit.covariance * flip[:, :, None] * flip[:, None, :]


diagnostic_registry.register("dipole", DipoleDiagnostic)
