"""Residual modes: what, to first order, is left of a static source, and is there a flux change besides?

The difference at a source is
  D = f P_D + F h_s * [dx m_x + dy m_y + w m_w + g1 m_1 + g2 m_2] + b,
with P_D the difference's PSF, F the flux of the static source, h_s the filter that the difference applies to the
science image, m_j the modes of the science PSF (`lsst.diainspect.psf.residual_modes`) and b a constant. (dx, dy)
are the science minus template position that the match left, w the fractional excess of the science PSF's width,
g1, g2 of its shear. All amplitudes are linear; the products F dx ... are fitted and divided by F. Of a galaxy the
modes are derivatives of the matched template.

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
from astropy.table import Table

from ..maps import DetectorMaps
from ..psf import MODE_NAMES
from ..stamps import StampSet
from ._artefact_priors import ArtefactPriors, priors_from_maps
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._disk import cut_disk
from ._extended_source import extended_modes
from ._mode_models import ModeModels
from ._normal_equations import Fit, NormalEquations
from ._source_noise import add_source_noise
from ._static_source import STATIC_MODES, StaticSources, find_static_sources

_DEG_TO_MAS = 3.6e6

_PERCENT = 100.0

_MAX_WIDTH = 0.2
_MAX_SHIFT = 1.0
"""Largest width error and shift [pixel] for which the modes are taken halfway; beyond it the expansion fails anyway."""

_FINITE = 9.0
"""Rise of chi-square from which a shift or a width is large enough for the modes to be taken halfway."""

_RELEASE = 4.0
"""An artefact this many sigma from zero has shown itself: what exceeds that widens its prior."""

# Columns of the fits: the flux at the detection, and the same where the change is.
_FLUX, _SCALE, _CONSTANT = 0, 1 + len(MODE_NAMES), 2 + len(MODE_NAMES)
_MODES = tuple(range(1, 1 + len(MODE_NAMES)))
_CHANGE = _CONSTANT + 1
_N_COLUMNS = _CHANGE + 1
_JOINT = [_CHANGE, *_MODES, _CONSTANT]
_WITH_PRIORS = [_CHANGE, *_MODES, _SCALE, _CONSTANT]

_GROUPS = {"flux": (0,), "shift": (1, 2), "width": (3,), "shear": (4, 5)}
"""Groups of modes that are tested together, as columns of the joint fit."""

_BUDGET = {"Shift": (0, 1), "Width": (2,), "Shear": (3, 4), "Scale": (5,)}
"""Parts of the error budget, as indices of `PRIOR_MODES`."""

_DOCS: dict[str, tuple[u.UnitBase | None, str]] = {
    "shiftX": (u.pix, "Science minus template position in x that the match left."),
    "shiftY": (u.pix, "Science minus template position in y that the match left."),
    "width": (u.percent, "Excess of the science PSF's width that the match left, relative to that width."),
    "e1": (None, "Excess shear (a - b) / (a + b) of the science PSF along x that the match left."),
    "e2": (None, "Excess shear of the science PSF along the diagonal that the match left."),
}


class ResidualModesConfig(DiagnosticConfig):
    """Configuration of `ResidualModesDiagnostic`."""

    radius = pexConfig.RangeField[float](
        doc="Radius of the fitted disk [pixel]; 15.5 or more, or flux and background are degenerate.",
        default=15.5,
        min=4.0,
    )
    staticRadius = pexConfig.RangeField[float](
        doc="Radius of the disk in which static sources are fitted on science image and template [pixel].",
        default=8.0,
        min=3.0,
    )
    minStaticSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio of the static source on the template for modes to be fitted.",
        default=10.0,
        min=0.0,
    )
    maxStaticDistance = pexConfig.RangeField[float](
        doc="Largest distance of the static source from the detection [pixel].", default=3.0, min=0.0
    )
    extendedWidth = pexConfig.RangeField[float](
        doc="A static source whose relative width excess over the template's PSF is above this by three of its errors "
        "is a galaxy, with derivatives of the matched template for modes.",
        default=0.04,
        min=0.0,
    )
    priorShift = pexConfig.RangeField[float](
        doc="Expected shift, per coordinate, where there are no maps of the detector [pixel].",
        default=0.03,
        min=0.0,
        inclusiveMin=False,
    )
    priorWidth = pexConfig.RangeField[float](
        doc="Expected relative width error where there are no maps.",
        default=0.01,
        min=0.0,
        inclusiveMin=False,
    )
    priorShear = pexConfig.RangeField[float](
        doc="Expected shear error where there are no maps.", default=0.005, min=0.0, inclusiveMin=False
    )
    priorFluxScale = pexConfig.RangeField[float](
        doc="Expected relative error of the flux scale where there are no maps.",
        default=0.002,
        min=0.0,
        inclusiveMin=False,
    )


class ResidualModesDiagnostic(Diagnostic):
    """Joint weighted least-squares fit of flux, shift, width, shear and background to the difference.

    Three fluxes: discoveryFlux is fitted with a constant only; flux jointly with all modes, whose correlation with
    the width makes its error 1.5 to 2 times larger; fluxGivenArtefacts with Gaussian priors on the artefacts'
    amplitudes (`ArtefactPriors`), an error of the flux scale among them. An artefact that shows itself by more than
    4 sigma is released from its prior. Without a static source only flux and background are fitted, and the three
    agree.

    Limits: modes are second order in shift and width, first order in shear; of galaxies first order in all. Shifts
    beyond half of the PSF's width, and blends, are not described. Without the filter of the difference (alerts) its
    own PSF stands for the filtered one, which is exact for shifts only: isApproximate.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = ResidualModesConfig
    needs: ClassVar[frozenset[str]] = frozenset(
        {"difference", "science", "template", "differencePsf", "sciencePsf", "templatePsf"}
    )
    config: ResidualModesConfig

    def __init__(self, config: ResidualModesConfig) -> None:
        super().__init__(config)
        self._models: ModeModels | None = None
        self._maps: tuple[Table, DetectorMaps] | None = None

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Amplitudes with errors, what each group of modes takes off chi-square, and the error budget."""
        columns = {}

        def add(
            name: str, unit: u.UnitBase | None, doc: str, *, error: bool = True, dtype: str = "float32"
        ) -> None:
            columns[name] = DiagnosticColumn(dtype, unit, doc)
            if error:
                columns[f"{name}Err"] = DiagnosticColumn(dtype, unit, f"Error of {name}.")

        add("discoveryFlux", u.nJy, "Flux fitted with a constant only.")
        add("flux", u.nJy, "Flux change fitted jointly with all modes.")
        add(
            "fluxGivenArtefacts",
            u.nJy,
            "Flux change fitted with priors on the artefacts: local static flux times what the detector's maps, or "
            "the configuration, let expect.",
        )
        add(
            "staticX", u.pix, "Position of the static source on the difference.", error=False, dtype="float64"
        )
        add(
            "staticY", u.pix, "Position of the static source on the difference.", error=False, dtype="float64"
        )
        add(
            "staticFlux",
            u.nJy,
            "PSF flux of the static source on the template, at the science image's scale.",
        )
        for name in MODE_NAMES:
            add(name, *_DOCS[name])
        add("shiftEast", u.mas, "Shift towards east on the sky.")
        add("shiftNorth", u.mas, "Shift towards north on the sky.")
        add("shiftLength", u.mas, "Length of the shift on the sky.")
        add("shiftAngle", u.deg, "Direction of the shift on the sky, east of north, 0 to 360.")
        add(
            "shiftParallactic",
            u.mas,
            "Shift towards the zenith; NaN where the parallactic angle is not known.",
        )
        for side, title in (("science", "science image"), ("template", "template")):
            add(f"{side}Width", u.percent, f"Excess of the source's width on the {title} over its PSF model.")
            add(f"{side}E1", None, f"Excess shear of the source on the {title} over its PSF model, along x.")
            add(
                f"{side}E2",
                None,
                f"Excess shear of the source on the {title} over its PSF model, along the diagonal.",
            )
        add("matchShiftX", u.pix, "Science minus template x taken by the match.", error=False)
        add("matchShiftY", u.pix, "Science minus template y taken by the match.", error=False)
        add("background", u.nJy, "Constant of the joint fit.", error=False)
        add("chi2", None, "Chi-square of the joint fit.", error=False)
        add("nData", None, "Pixels in the fit.", error=False, dtype="int32")
        for name, index in _GROUPS.items():
            add(
                f"{name}Chi2", None, f"Rise of chi-square without the {name} ({len(index)} dof).", error=False
            )
            add(
                f"{name}DeltaBic",
                None,
                f"Rise of the Bayesian information criterion without the {name}: {name}Chi2 - {len(index)} ln nData; "
                f"above 10 is very strong evidence.",
                error=False,
            )
        for name in _BUDGET:
            add(
                f"budget{name}",
                u.nJy,
                f"What the {name.lower()} errors expected at this place may contribute to discoveryFlux, one sigma.",
                error=False,
            )
        add(
            "budget",
            u.nJy,
            "What all expected artefacts may contribute to discoveryFlux, one sigma.",
            error=False,
        )
        add("budgetSnr", None, "budget in units of discoveryFluxErr.", error=False)
        add("isExtended", None, "Is the static source a galaxy?", error=False, dtype="bool")
        add("priorsFromMaps", None, "Are the priors from maps of the detector?", error=False, dtype="bool")
        add("isApproximate", None, "Are the modes those of the difference's PSF?", error=False, dtype="bool")
        return columns

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        config = self.config
        n = len(stamps)
        core = stamps.cropped(2 * int(config.radius) + 1)
        size = core.size
        models = self._mode_models(core)
        maps = self._detector_maps(stamps)
        placed = np.isfinite(stamps.dx) & np.isfinite(stamps.dy)
        dx, dy = np.where(placed, stamps.dx, 0.0), np.where(placed, stamps.dy, 0.0)
        disk = cut_disk(stamps, "difference", config.radius, size)
        has_filters = {"scienceFilter", "templateFilter"} <= stamps.models.keys()

        values = {name: _empty(n, column.dtype) for name, column in self.columns.items()}
        match = models.match_shift(stamps.models)
        if has_filters:
            values["matchShiftX"], values["matchShiftY"] = match
        values["isApproximate"][:] = not has_filters

        point = models.images("difference", stamps.models, dx, dy, size)[:, 0].reshape(n, -1)
        static = find_static_sources(
            stamps,
            models,
            match,
            radius=config.staticRadius,
            min_snr=config.minStaticSnr,
            max_distance=config.maxStaticDistance,
        )
        self._fit_flux_only(core, point, disk, ~static.found, values)
        rows = np.flatnonzero(static.found)
        if len(rows):
            self._fit_modes(core, models, maps, static, point, disk, rows, values)
        return values

    def _fit_flux_only(
        self,
        stamps: StampSet,
        point: np.ndarray,
        disk: tuple[np.ndarray, np.ndarray],
        where: np.ndarray,
        values: dict[str, np.ndarray],
    ) -> None:
        """Fit flux and background where there is no static source."""
        rows = np.flatnonzero(where)
        if len(rows) == 0:
            return
        columns = np.empty((len(rows), 2, point.shape[1]), dtype=np.float32)
        columns[:, 0], columns[:, 1] = point[rows], 1.0
        equations = _equations(stamps, columns, disk, rows, [0, 1])
        if "differenceVariance" in stamps.planes:
            equations = add_source_noise(equations, columns, disk[1], stamps, rows)
        fit = equations.solve([0, 1])
        for name in ("discoveryFlux", "flux", "fluxGivenArtefacts"):
            values[name][rows], values[f"{name}Err"][rows] = fit.amplitude[:, 0], fit.error[:, 0]
        values["background"][rows] = fit.amplitude[:, 1]
        values["chi2"][rows] = fit.chi2
        values["nData"][rows] = equations.n_data
        _record_tests(values, rows, fit, equations.n_data, {"flux": (0,)})
        for name in (*(f"budget{part}" for part in _BUDGET), "budget", "budgetSnr"):
            values[name][rows] = 0.0

    def _fit_modes(
        self,
        stamps: StampSet,
        models: ModeModels,
        maps: DetectorMaps | None,
        static: StaticSources,
        point: np.ndarray,
        disk: tuple[np.ndarray, np.ndarray],
        rows: np.ndarray,
        values: dict[str, np.ndarray],
    ) -> None:
        """Fit everything where there is a static source."""
        flux = static.flux[rows]
        x, y = static.x[rows], static.y[rows]
        centre_x = np.asarray(stamps.sources["x0"], dtype=float)[rows] + stamps.size // 2
        centre_y = np.asarray(stamps.sources["y0"], dtype=float)[rows] + stamps.size // 2
        extended = self._is_extended(static, maps, rows, centre_x + x, centre_y + y)
        extended &= "templateFilter" in stamps.models

        columns = self._columns(stamps, models, static, point, rows, extended, *np.zeros((3, len(rows))))
        equations = _equations(stamps, columns, disk, rows, _JOINT)
        joint = equations.solve(_JOINT)
        # A finite shift or change of width is its derivative halfway times the change, to second order.
        shifted = joint.rise([1, 2]) > _FINITE
        finite = shifted | (joint.rise([3]) > _FINITE)
        again = np.flatnonzero(finite & ~extended)
        if len(again):
            half = 0.5 * np.nan_to_num(joint.amplitude[again, 1:4] / flux[again, None])
            limits = 0.5 * np.array([_MAX_SHIFT, _MAX_SHIFT, _MAX_WIDTH])
            half = np.clip(half, -limits, limits)
            halfway = self._columns(stamps, models, static, point, rows[again], extended[again], *half.T)
            _move_to_stars(halfway, stamps, models, static, rows[again], shifted[again])
            equations = equations.replaced(again, _equations(stamps, halfway, disk, rows[again], _JOINT))
            columns[again] = halfway
        if "differenceVariance" in stamps.planes:
            equations = add_source_noise(equations, columns, disk[1], stamps, rows)
        joint = equations.solve(_JOINT)
        discovery = equations.solve([_FLUX, _CONSTANT])
        priors = priors_from_maps(
            maps,
            centre_x + x,
            centre_y + y,
            np.array(
                [
                    self.config.priorShift,
                    self.config.priorShift,
                    self.config.priorWidth,
                    self.config.priorShear,
                    self.config.priorShear,
                    self.config.priorFluxScale,
                ]
            ),
        )
        given = _fit_with_priors(equations, joint, priors, flux)
        self._record(values, rows, stamps, maps, static, equations, discovery, joint, given)
        _record_budget(values, rows, equations, discovery, priors, flux)
        values["staticX"][rows], values["staticY"][rows] = centre_x + x, centre_y + y
        values["isExtended"][rows] = extended
        values["priorsFromMaps"][rows] = priors.from_maps

    def _is_extended(
        self,
        static: StaticSources,
        maps: DetectorMaps | None,
        rows: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
    ) -> np.ndarray:
        """Tell galaxies by their widths on the template, which the PSF model's own error is taken off."""
        excess = static.template.shape["width"][rows]
        if maps is not None and "templateWidth" in maps:
            excess = excess - maps["templateWidth"].evaluate(x, y)
        error = static.template.shape_error["width"][rows]
        return np.asarray(excess - 3.0 * error > self.config.extendedWidth)

    def _columns(
        self,
        stamps: StampSet,
        models: ModeModels,
        static: StaticSources,
        point: np.ndarray,
        rows: np.ndarray,
        extended: np.ndarray,
        half_x: np.ndarray,
        half_y: np.ndarray,
        half_width: np.ndarray,
    ) -> np.ndarray:
        """Return the columns of the fits, (N, 9, size * size): modes and flux scale per unit flux."""
        size = stamps.size
        columns: np.ndarray = np.empty((len(rows), _N_COLUMNS, size, size), dtype=np.float32)
        own = {name: model[rows] for name, model in stamps.models.items()}
        # Modes and flux scale are put where they belong; the second derivative for a while where the constant is.
        names = (*MODE_NAMES, "source", *(("width2",) if half_width.any() else ()))
        models.images(
            "filtered",
            own,
            static.x[rows] + half_x,
            static.y[rows] + half_y,
            size,
            names,
            columns[:, 1 : 1 + len(names)],
        )
        columns = columns.reshape(len(rows), _N_COLUMNS, -1)
        if half_width.any():
            columns[:, 1 + MODE_NAMES.index("width")] += columns[:, _CONSTANT] * half_width[:, None].astype(
                np.float32
            )
        columns[:, _FLUX] = columns[:, _CHANGE] = point[rows]
        columns[:, _CONSTANT] = 1.0
        if extended.any():
            galaxies = rows[extended]
            modes = extended_modes(
                stamps.chosen(galaxies),
                static.template_x[galaxies],
                static.template_y[galaxies],
                static.flux[galaxies],
                size,
                self.config.radius,
            ).reshape(len(galaxies), -1, size * size)
            columns[extended, 1:_SCALE], columns[extended, _SCALE] = modes[:, 1:], modes[:, 0]
        return columns

    def _record(
        self,
        values: dict[str, np.ndarray],
        rows: np.ndarray,
        stamps: StampSet,
        maps: DetectorMaps | None,
        static: StaticSources,
        equations: NormalEquations,
        discovery: Fit,
        joint: Fit,
        given: Fit,
    ) -> None:
        """Write what the fits gave."""
        for name, fit in (("discoveryFlux", discovery), ("flux", joint), ("fluxGivenArtefacts", given)):
            values[name][rows], values[f"{name}Err"][rows] = fit.amplitude[:, 0], fit.error[:, 0]
        flux = static.flux[rows]
        values["staticFlux"][rows], values["staticFluxErr"][rows] = flux, static.flux_error[rows]
        relative, error = joint.amplitude[:, 1:6] / flux[:, None], joint.error[:, 1:6] / flux[:, None]
        for j, name in enumerate(MODE_NAMES):
            factor = _PERCENT if name == "width" else 1.0
            values[name][rows], values[f"{name}Err"][rows] = factor * relative[:, j], factor * error[:, j]
        covariance = joint.covariance[:, 1:3, 1:3] / (flux**2)[:, None, None]
        angle = np.nan
        if maps is not None and "parallacticAngle" in maps:
            angle = float(maps["parallacticAngle"].coefficients[0])
        pixel_to_sky = np.asarray(stamps.sources["pixelToSky"], dtype=float)[rows] * _DEG_TO_MAS
        for name, result in _shift_on_sky(relative[:, :2], covariance, pixel_to_sky, angle).items():
            values[name][rows] = result
        for side, image in (("science", static.science), ("template", static.template)):
            for name in STATIC_MODES:
                column = f"{side}{name[0].upper()}{name[1:]}"
                factor = _PERCENT if name == "width" else 1.0
                values[column][rows] = factor * image.shape[name][rows]
                values[f"{column}Err"][rows] = factor * image.shape_error[name][rows]
        values["background"][rows] = joint.amplitude[:, -1]
        values["chi2"][rows] = joint.chi2
        values["nData"][rows] = equations.n_data
        _record_tests(values, rows, joint, equations.n_data, _GROUPS)

    def _mode_models(self, stamps: StampSet) -> ModeModels:
        if self._models is None or not self._models.is_for(stamps.models):
            self._models = ModeModels(stamps.models, stamps.size, 2 * int(self.config.staticRadius) + 1)
        return self._models

    def _detector_maps(self, stamps: StampSet) -> DetectorMaps | None:
        table = stamps.context.maps
        if table is None:
            return None
        if self._maps is None or self._maps[0] is not table:
            self._maps = (table, DetectorMaps.from_table(table))
        return self._maps[1]


def _empty(n: int, dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return np.full(n, np.nan)
    return np.zeros(n, dtype=dtype)


def _move_to_stars(
    columns: np.ndarray,
    stamps: StampSet,
    models: ModeModels,
    static: StaticSources,
    rows: np.ndarray,
    shifted: np.ndarray,
) -> None:
    """Put the change of shifted stars at the star.

    A dipole draws the detection away from a star that has changed, by most of the PSF's width where the two are
    of equal significance. Where there is no dipole the detection is where the change is.
    """
    stars = rows[shifted]
    if len(stars):
        own = {name: model[stars] for name, model in stamps.models.items()}
        images = models.images("difference", own, static.x[stars], static.y[stars], stamps.size)
        columns[shifted, _CHANGE] = images[:, 0].reshape(len(stars), -1)


def _equations(
    stamps: StampSet,
    columns: np.ndarray,
    disk: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray,
    fitted: list[int],
) -> NormalEquations:
    """Return the normal equations of some sources; the columns are multiplied with the roots of the weights.

    ``disk`` are the pixels and weights of all sources, ``fitted`` the columns that describe the source, for the noise
    where there is no variance.
    """
    pixels, own = (array[rows] for array in disk)
    equations = NormalEquations.from_pixels(pixels, columns, own)
    if "differenceVariance" in stamps.planes:
        return equations
    return equations.with_noise_from_residuals(pixels, columns, own, fitted)


def _record_tests(
    values: dict[str, np.ndarray],
    rows: np.ndarray,
    fit: Fit,
    n_data: np.ndarray,
    groups: dict[str, tuple[int, ...]],
) -> None:
    for name, index in groups.items():
        rise = fit.rise(index)
        values[f"{name}Chi2"][rows] = rise
        values[f"{name}DeltaBic"][rows] = rise - len(index) * np.log(np.maximum(n_data, 1))


def _fit_with_priors(equations: NormalEquations, joint: Fit, priors: ArtefactPriors, flux: np.ndarray) -> Fit:
    """Fit the flux with priors on the artefacts; what is larger than its prior by far is released from it."""
    n = len(flux)
    mean = flux[:, None] * priors.mean
    variance = (flux[:, None] * priors.sigma) ** 2
    amplitude, error = joint.amplitude[:, 1:6], joint.error[:, 1:6]
    shown = np.maximum((amplitude - mean[:, :5]) ** 2 - (_RELEASE * error) ** 2, 0.0)
    variance[:, :5] += np.nan_to_num(shown)
    prior_mean = np.zeros((n, len(_WITH_PRIORS)))
    precision = np.zeros_like(prior_mean)
    prior_mean[:, 1:-1], precision[:, 1:-1] = mean, 1.0 / variance
    return equations.solve(_WITH_PRIORS, prior_mean, precision)


def _record_budget(
    values: dict[str, np.ndarray],
    rows: np.ndarray,
    equations: NormalEquations,
    discovery: Fit,
    priors: ArtefactPriors,
    flux: np.ndarray,
) -> None:
    """Project the expected artefacts onto the discovery flux."""
    pair = [_FLUX, _CONSTANT]
    small = equations.matrix[:, pair][:, :, pair]
    determinant = small[:, 0, 0] * small[:, 1, 1] - small[:, 0, 1] ** 2
    artefacts = equations.matrix[:, pair][:, :, [*_MODES, _SCALE]]
    with np.errstate(invalid="ignore", divide="ignore"):
        projection = small[:, 1, 1, None] * artefacts[:, 0] - small[:, 0, 1, None] * artefacts[:, 1]
        projection /= determinant[:, None]
    expected = (flux[:, None] * projection) ** 2 * (priors.sigma**2 + priors.mean**2)
    for name, index in _BUDGET.items():
        values[f"budget{name}"][rows] = np.sqrt(expected[:, list(index)].sum(axis=1))
    total = np.sqrt(expected.sum(axis=1))
    values["budget"][rows] = total
    with np.errstate(invalid="ignore", divide="ignore"):
        values["budgetSnr"][rows] = total / discovery.error[:, 0]


def _shift_on_sky(
    shift: np.ndarray, covariance: np.ndarray, pixel_to_sky: np.ndarray, parallactic_angle: float
) -> dict[str, np.ndarray]:
    """Turn shifts (N, 2) [pixel] with covariances into lengths and directions on the sky.

    ``pixel_to_sky`` is (N, 2, 2) [mas / pixel], the parallactic angle is east of north [degree].
    """
    on_sky = np.einsum("nij,nj->ni", pixel_to_sky, shift)
    sky_covariance = pixel_to_sky @ covariance @ pixel_to_sky.transpose(0, 2, 1)

    def along(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        variance = np.einsum("ni,nij,nj->n", direction, sky_covariance, direction)
        return np.einsum("ni,ni->n", direction, on_sky), np.sqrt(variance)

    length = np.hypot(on_sky[:, 0], on_sky[:, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = on_sky / length[:, None]
        across = np.stack([unit[:, 1], -unit[:, 0]], axis=-1)
        angle_error = np.degrees(along(across)[1] / length)
    zenith = np.deg2rad(parallactic_angle)
    towards_zenith = np.broadcast_to(np.array([np.sin(zenith), np.cos(zenith)]), on_sky.shape)
    parallactic, parallactic_error = along(towards_zenith)
    return {
        "shiftEast": on_sky[:, 0],
        "shiftEastErr": np.sqrt(sky_covariance[:, 0, 0]),
        "shiftNorth": on_sky[:, 1],
        "shiftNorthErr": np.sqrt(sky_covariance[:, 1, 1]),
        "shiftLength": length,
        "shiftLengthErr": along(unit)[1],
        "shiftAngle": np.degrees(np.arctan2(on_sky[:, 0], on_sky[:, 1])) % 360.0,
        # A direction is not known to worse than that of a random one.
        "shiftAngleErr": np.minimum(angle_error, 180.0 / np.sqrt(3.0)),
        "shiftParallactic": parallactic,
        "shiftParallacticErr": parallactic_error,
    }


diagnostic_registry.register("residualModes", ResidualModesDiagnostic)
