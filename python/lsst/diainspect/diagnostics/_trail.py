"""Trails: moving objects and streaks fitted as a line of light seen through the PSF.

The model is D = f / L integral P(x - c - l e) dl over l from -L/2 to L/2, with P the difference's PSF, c the midpoint,
L the length and e the direction; the integral is a Gauss-Legendre sum.
"""

from __future__ import annotations

__all__ = ["TrailConfig", "TrailDiagnostic"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np

from ..compiled import compiled
from ..linear_fit import fit_linear
from ..stamps import StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import disk_size
from ._point_source_fit import POINT, TRAIL, PointSourceFit, fit_point_sources
from ._sky_direction import sky_length_and_angle, sky_offset

_X, _Y, _HALF_X, _HALF_Y, _FLUX = range(5)
"""Places of the parameters: midpoint, the vector from there to one end, flux."""


class TrailConfig(DiagnosticConfig):
    """Configuration of `TrailDiagnostic`."""

    radius = pexConfig.RangeField[float](
        doc="Half side of the fitted square [pixel]; a trail that reaches its edge is flagged.",
        default=16.0,
        min=6.0,
    )
    minSnr = pexConfig.RangeField[float](
        doc="Fit a trail to sources of at least this signal-to-noise ratio along the trail.",
        default=7.0,
        min=0.0,
    )
    minElongationChi2 = pexConfig.RangeField[float](
        doc="Fit a trail where two perpendicular quadrupoles lower chi-square by this (2 degrees of freedom).",
        default=20.0,
        min=0.0,
    )
    maxDipoleFraction = pexConfig.RangeField[float](
        doc="Fit no trail where pixels of the other sign hold more than this part of the absolute flux.",
        default=0.35,
        min=0.0,
        max=0.5,
    )
    minDeltaChi2 = pexConfig.RangeField[float](
        doc="Least fall of chi-square from a point source at its best position to a trail for isTrail.",
        default=25.0,
        min=0.0,
    )


class TrailDiagnostic(Diagnostic):
    """A line of light fitted to the elongated sources, of either sign, with the DPDD's trail columns.

    A trail is fitted (trailFitAttempted) where the linear fit of flux, shift and the two quadrupoles
    d2P/dx2 - d2P/dy2 and 2 d2P/dxdy, of which a trail has L^2 / 24 times its flux, finds an elongation.

    Limits: a trail longer than the fitted square is fitted by its part inside (trail_flag_edge); width and direction
    must be constant; an elongated galaxy residual or two blended sources fit too (chi-square says how well); for L
    below half a full width at half maximum the error of L grows as 1 / L. Errors are those of white noise.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = TrailConfig
    needs: ClassVar[frozenset[str]] = frozenset({"difference", "differenceVariance", "differencePsf"})
    config: TrailConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """The DPDD's trail columns, end points and flags."""
        return {
            "elongationChi2": DiagnosticColumn(
                "float32", None, "Rise of chi-square without the quadrupoles (2 degrees of freedom)."
            ),
            "trailFitAttempted": DiagnosticColumn("bool", None, "A trail was fitted."),
            "isTrail": DiagnosticColumn(
                "bool", None, "The source is fitted better by a trail than by a point."
            ),
            "trailFlux": DiagnosticColumn("float32", u.nJy, "Flux of the trail."),
            "trailFluxErr": DiagnosticColumn("float32", u.nJy, "Error of trailFlux."),
            "trailRa": DiagnosticColumn("float64", u.deg, "Midpoint of the trail (ICRS)."),
            "trailRaErr": DiagnosticColumn("float32", u.deg, "Error of trailRa times cos(dec)."),
            "trailDec": DiagnosticColumn("float64", u.deg, "Midpoint of the trail (ICRS)."),
            "trailDecErr": DiagnosticColumn("float32", u.deg, "Error of trailDec."),
            "trailLength": DiagnosticColumn("float32", u.arcsec, "Length of the trail."),
            "trailLengthErr": DiagnosticColumn("float32", u.arcsec, "Error of trailLength."),
            "trailAngle": DiagnosticColumn("float32", u.deg, "Direction, in [0, 180) east of north."),
            "trailAngleErr": DiagnosticColumn("float32", u.deg, "Error of trailAngle."),
            "trailChi2": DiagnosticColumn("float32", None, "Chi-square of the fit."),
            "trailNdata": DiagnosticColumn("int32", None, "Pixels in the fit."),
            "trailDeltaChi2": DiagnosticColumn(
                "float32", None, "Fall of chi-square from a point source at its best position to the trail."
            ),
            "trailX0": DiagnosticColumn("float64", u.pix, "End of the trail with the smaller x."),
            "trailY0": DiagnosticColumn("float64", u.pix, "End of the trail with the smaller x."),
            "trailX1": DiagnosticColumn("float64", u.pix, "End of the trail with the larger x."),
            "trailY1": DiagnosticColumn("float64", u.pix, "End of the trail with the larger x."),
            "trail_flag_edge": DiagnosticColumn(
                "bool", None, "The trail reaches the edge of the fitted square: its length is a lower limit."
            ),
            "flag_notConverged": DiagnosticColumn("bool", None, "The fit of the trail did not converge."),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        n = len(stamps)
        values = {
            name: np.full(n, np.nan) if np.dtype(column.dtype).kind == "f" else np.zeros(n, column.dtype)
            for name, column in self.columns.items()
        }
        chi2, candidates = self._candidates(stamps)
        values["elongationChi2"] = chi2
        if len(candidates):
            for name, value in self._measure_trails(stamps.chosen(candidates)).items():
                values[name][candidates] = value
        return values

    def _candidates(self, stamps: StampSet) -> tuple[np.ndarray, np.ndarray]:
        """Return the chi-square of elongation, and the numbers of the sources that look like a trail."""
        core = stamps.cropped(_ELONGATION_SIZE)
        n = len(core)
        design = np.zeros((n, 6, core.size, core.size), dtype=np.float32)
        _fill_design(stamps.centred_gradient("differencePsf", core.size), design)
        weight = core.weight("difference").reshape(n, -1)
        data = core.good_pixels("difference").reshape(n, -1)
        fit = fit_linear(data, design.reshape(n, 6, -1), weight, dtype=np.float32)
        chi2 = fit.rise([3, 4])
        with np.errstate(invalid="ignore"):
            elongated = np.flatnonzero(chi2 >= self.config.minElongationChi2)
        # Light of one sign: the flux, and the widening that belongs to it, have the same sign.
        sign = np.where(fit.amplitude[elongated, :1] < 0, -1.0, 1.0).astype(np.float32)
        pixels = data[elongated] * sign
        significant = pixels * np.sqrt(weight[elongated])
        positive = np.einsum("ni,ni->n", pixels, (significant > 1.0).astype(pixels.dtype))
        negative = -np.einsum("ni,ni->n", pixels, (significant < -1.0).astype(pixels.dtype))
        one_sign = negative <= self.config.maxDipoleFraction * (positive + negative)
        return chi2, elongated[one_sign]

    def _measure_trails(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Fit trails to the sources that look like one."""
        core = stamps.cropped(disk_size(self.config.radius))
        n, size = len(core), core.size
        weight = np.ascontiguousarray(core.weight("difference").reshape(n, -1))
        data = core.good_pixels("difference").reshape(n, -1)
        fit = self._fit_trail(core, data, weight, _start(core, data, weight))
        point = self._fit_point(core, data, weight, fit.parameters)
        parameters, covariance = fit.parameters, fit.covariance
        with np.errstate(invalid="ignore", divide="ignore"):
            half = parameters[:, [_HALF_X, _HALF_Y]]
            half = half * np.where(half[:, :1] < 0, -1.0, 1.0)
            pixels = 2.0 * np.hypot(half[:, 0], half[:, 1])
            along = 2.0 * half / pixels[:, None]
            across = np.stack([-along[:, 1], along[:, 0]], axis=-1)
            block = covariance[:, _HALF_X : _HALF_Y + 1, _HALF_X : _HALF_Y + 1]
            along_error, across_error = (
                2.0 * np.sqrt(np.einsum("ni,nij,nj->n", way, block, way)) for way in (along, across)
            )
            length, angle = sky_length_and_angle(core, 2.0 * half[:, 0], 2.0 * half[:, 1])
            flux, flux_error = parameters[:, _FLUX], np.sqrt(covariance[:, _FLUX, _FLUX])
            x_error, y_error = (np.sqrt(covariance[:, i, i]) for i in (_X, _Y))
        midpoint_x, midpoint_y = parameters[:, _X], parameters[:, _Y]
        east, north = sky_offset(core, midpoint_x - core.dx, midpoint_y - core.dy)
        ra, dec = _sky_position(core, east, north)
        x_centre = np.asarray(core.sources["x0"], dtype=float) + size // 2
        y_centre = np.asarray(core.sources["y0"], dtype=float) + size // 2
        ends = [(midpoint_x + sign * half[:, 0], midpoint_y + sign * half[:, 1]) for sign in (-1.0, 1.0)]
        reach = np.max([np.maximum(np.abs(x), np.abs(y)) for x, y in ends], axis=0)
        delta_chi2 = point - fit.chi2
        enough = np.abs(flux) >= self.config.minSnr * flux_error
        sky_error = (
            np.abs(sky_offset(core, x_error, np.zeros(n))),
            np.abs(sky_offset(core, np.zeros(n), y_error)),
        )
        return {
            "trailFitAttempted": np.ones(n, dtype=bool),
            "isTrail": enough & (delta_chi2 >= self.config.minDeltaChi2),
            "trailFlux": flux,
            "trailFluxErr": flux_error,
            "trailRa": ra,
            "trailRaErr": np.hypot(sky_error[0][0], sky_error[1][0]) / 3600.0,
            "trailDec": dec,
            "trailDecErr": np.hypot(sky_error[0][1], sky_error[1][1]) / 3600.0,
            "trailLength": length,
            "trailLengthErr": along_error * length / pixels,
            "trailAngle": angle % 180.0,
            "trailAngleErr": np.degrees(across_error / pixels),
            "trailChi2": fit.chi2,
            "trailNdata": fit.n_data,
            "trailDeltaChi2": delta_chi2,
            "trailX0": x_centre + ends[0][0],
            "trailY0": y_centre + ends[0][1],
            "trailX1": x_centre + ends[1][0],
            "trailY1": y_centre + ends[1][1],
            "trail_flag_edge": reach >= size // 2 - 1,
            "flag_notConverged": ~fit.converged,
        }

    def _fit_trail(
        self, core: StampSet, data: np.ndarray, weight: np.ndarray, start: np.ndarray
    ) -> PointSourceFit:
        reach = float(core.size // 2)
        return fit_point_sources(
            TRAIL,
            core.fine_model("differencePsf"),
            np.arange(len(core)),
            data,
            weight,
            start,
            limits=np.array([reach, reach, reach, reach, np.inf]),
            max_iterations=15,
            tolerance=0.1,
        )

    def _fit_point(
        self, core: StampSet, data: np.ndarray, weight: np.ndarray, trail: np.ndarray
    ) -> np.ndarray:
        """Return chi-square of a point source, started at the trail's midpoint."""
        reach = float(core.size // 2)
        return fit_point_sources(
            POINT,
            core.fine_model("differencePsf"),
            np.arange(len(core)),
            data,
            weight,
            trail[:, [_X, _Y, _FLUX]],
            limits=np.array([reach, reach, np.inf]),
            max_iterations=8,
        ).chi2


_ELONGATION_SIZE = 15
"""Side of the square in which an elongation is looked for [pixel]."""


@compiled
def _fill_design(gradient: np.ndarray, design: np.ndarray) -> None:
    """Fill image, both derivatives, the quadrupoles xx - yy and 2 xy, and xx + yy, (N, 6, size, size).

    Second derivatives are central differences of the first (N, 3, size, size), zero at the edges.
    """
    size = design.shape[2]
    half = np.float32(-0.5)
    for n in range(len(design)):
        for part in range(3):
            for i in range(size):
                source, target = gradient[n, part, i], design[n, part, i]
                for j in range(size):
                    target[j] = source[j]
        plus, cross, wide = design[n, 3], design[n, 4], design[n, 5]
        by_dx, by_dy = design[n, 1], design[n, 2]
        for i in range(size):
            for j in range(1, size - 1):
                xx = half * (by_dx[i, j + 1] - by_dx[i, j - 1])
                plus[i, j], wide[i, j] = xx, xx
        for i in range(1, size - 1):
            for j in range(size):
                yy = half * (by_dy[i + 1, j] - by_dy[i - 1, j])
                plus[i, j] -= yy
                wide[i, j] += yy
                cross[i, j] = -(by_dx[i + 1, j] - by_dx[i - 1, j])


def _start(core: StampSet, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return parameters to start from: moments of the pixels well above the noise, about the source."""
    n, size = len(core), core.size
    grid = (np.arange(size) - size // 2).astype(np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, grid))
    monomials = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    psf = core.centred_model("differencePsf").reshape(n, -1)
    sign = np.where(np.einsum("ni,ni->n", psf, data * (weight > 0)) < 0, -1.0, 1.0).astype(np.float32)
    pixels = data * sign[:, None]
    bright = np.where(pixels * np.sqrt(weight) > 2.5, pixels, 0.0)
    sums = (bright @ monomials).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums[:, 1:3] / sums[:, :1]
        second = sums[:, 3:] / sums[:, :1]
        xx, xy, yy = (
            second[:, 0] - mean[:, 0] ** 2,
            second[:, 1] - mean[:, 0] * mean[:, 1],
            second[:, 2] - mean[:, 1] ** 2,
        )
        # A line of length L has the variance L^2 / 12 along it more than across.
        excess = np.hypot(xx - yy, 2.0 * xy)
        half = np.maximum(np.sqrt(3.0 * excess), 0.5)
        angle = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    start = np.stack(
        [mean[:, 0], mean[:, 1], half * np.cos(angle), half * np.sin(angle), sign * sums[:, 0]], axis=-1
    )
    fallback = np.tile([0.0, 0.0, 1.0, 0.0, 0.0], (n, 1))
    return np.where(np.isfinite(start).all(axis=1)[:, None], start, fallback)


def _sky_position(stamps: StampSet, east: np.ndarray, north: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ra, dec [deg] at small offsets [arcsec] from the sources; NaN where their positions are not known."""
    if not {"ra", "dec"} <= set(stamps.sources.colnames):
        return np.full(len(stamps), np.nan), np.full(len(stamps), np.nan)
    ra, dec = (np.asarray(stamps.sources[name], dtype=float) for name in ("ra", "dec"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ra + east / 3600.0 / np.cos(np.radians(dec))) % 360.0, dec + north / 3600.0


diagnostic_registry.register("trail", TrailDiagnostic)
