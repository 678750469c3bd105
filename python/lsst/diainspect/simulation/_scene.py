"""The simulated sky: stars, galaxies, transients and variables, and what each does between template and science.

Fluxes are in nJy; positions are pixels. The truth table is all that the renderer sees.
"""

from __future__ import annotations

__all__ = ["Scene", "SceneConfig", "ideal_difference_sigma", "make_scene", "truth_table"]

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import astropy.units as u
import numpy as np
import scipy.fft
from astropy.table import Table
from lsst.images import Box, SkyProjection
from scipy.spatial import cKDTree

from lsst.diainspect.psf import PixelBasisPsf

from ._conditions import ObservingConditions

type Kind = Literal["star", "galaxy", "transient", "variable"]
type Perturbation = Literal["shift", "width"]
_PERTURBATIONS = ("shift", "width")

_AB_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy."""

_ID_STRIDE = 1 << 20
"""More than the objects of one detector: identifiers are (detector, or visit and detector) times this + counter."""

_DETECTORS = 256
"""More than the detectors of the camera."""

_SERSIC_INDICES = (1.0, 2.5, 4.0)
_SERSIC_FRACTIONS = (0.7, 0.2, 0.1)

_MAX_SHEAR = 0.6
_MAX_HALF_LIGHT_RADIUS = 12.0
"""Largest galaxy [pixel]."""


@dataclass(frozen=True)
class SceneConfig:
    """What the sky holds.

    Parameters
    ----------
    blank : `bool`
        Leave the sky empty: noise only.
    star_density, galaxy_density : `float`
        Sources per square arcminute.
    star_magnitudes, galaxy_magnitudes : `tuple` [`float`, `float`]
        Brightest and faintest AB magnitude.
    star_slope, galaxy_slope : `float`
        s in dN/dm ~ 10^(s m).
    n_transients : `int`
        Transients that appear or fade.
    transient_snr : `tuple` [`float`, `float`]
        Range of their ideal S/N in the difference; log-uniform.
    host_fraction : `float`
        Fraction of the transients placed on a galaxy.
    fading_fraction : `float`
        Fraction that is in the template and gone from the science image.
    n_variables : `int`
        Stars that change.
    variable_amplitude : `tuple` [`float`, `float`]
        Range of their relative change; log-uniform, of either sign.
    n_perturbed : `int`
        Isolated constant stars whose image in the science exposure is perturbed.
    perturbation : {'shift', 'width'}
        What is done to them.
    perturbed_snr : `tuple` [`float`, `float`]
        Range of their sky-limited S/N in the science image; log-uniform.
    shift_amplitude : `float`
        Displacement, in a random direction [pixel].
    width_change : `float`
        Relative widening of the star's image.
    isolation : `float`
        Distance of perturbed stars from all else and from the edge [pixel].
    """

    blank: bool = False
    star_density: float = 10.0
    star_magnitudes: tuple[float, float] = (15.0, 25.0)
    star_slope: float = 0.15
    galaxy_density: float = 20.0
    galaxy_magnitudes: tuple[float, float] = (18.0, 25.0)
    galaxy_slope: float = 0.3
    n_transients: int = 30
    transient_snr: tuple[float, float] = (5.0, 100.0)
    host_fraction: float = 0.6
    fading_fraction: float = 0.2
    n_variables: int = 10
    variable_amplitude: tuple[float, float] = (0.05, 0.5)
    n_perturbed: int = 0
    perturbation: Perturbation = "shift"
    perturbed_snr: tuple[float, float] = (100.0, 1000.0)
    shift_amplitude: float = 0.1
    width_change: float = 0.02
    isolation: float = 32.0

    def __post_init__(self) -> None:
        for name in ("star_density", "galaxy_density", "n_transients", "n_variables", "n_perturbed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("host_fraction", "fading_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")
        for name in ("star_magnitudes", "galaxy_magnitudes"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name} must be (brightest, faintest), got {(low, high)}.")
        for name in ("transient_snr", "variable_amplitude", "perturbed_snr"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a positive range (low, high), got {(low, high)}.")
        if self.perturbation not in _PERTURBATIONS:
            raise ValueError(f"perturbation must be one of {_PERTURBATIONS}, got {self.perturbation!r}.")
        if not self.width_change > -1:
            raise ValueError(f"width_change must be above -1, got {self.width_change}.")


@dataclass(frozen=True)
class Scene:
    """The objects of one visit and detector: one array an attribute, one entry an object.

    ``x``, ``y`` are positions in the template [pixel]; ``shift_x``, ``shift_y`` the object's own displacement
    in the science image, to which the visit's common shift is added. Galaxies have a half-light radius [pixel],
    Sersic index and shear; for point sources these are NaN.
    """

    object_id: np.ndarray
    kind: np.ndarray
    x: np.ndarray
    y: np.ndarray
    science_flux: np.ndarray
    template_flux: np.ndarray
    host_id: np.ndarray
    half_light_radius: np.ndarray
    sersic_index: np.ndarray
    g1: np.ndarray
    g2: np.ndarray
    perturbation: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    width_change: np.ndarray
    ideal_snr: np.ndarray
    science_snr: np.ndarray

    def __len__(self) -> int:
        return len(self.object_id)


def ideal_difference_sigma(
    science_psf: np.ndarray, template_psf: np.ndarray, science_variance: float, template_variance: float
) -> np.ndarray:
    """Error of the flux of a point source in the best possible difference of two images.

    From Zackay, Ofek & Gal-Yam (2016): the squared S/N of a unit flux in the proper difference is
    the mean over k of |P_n|^2 |P_r|^2 / (v_n |P_r|^2 + v_r |P_n|^2), times the number of pixels.

    Parameters
    ----------
    science_psf, template_psf : `numpy.ndarray`, (N, size, size)
        Unit-sum PSFs.
    science_variance, template_variance : `float`
        Sky variances [nJy^2].

    Returns
    -------
    sigma : `numpy.ndarray`, (N,)
        Flux error [nJy].
    """
    size = scipy.fft.next_fast_len(science_psf.shape[-1], real=True)
    power_n = np.abs(scipy.fft.fft2(science_psf, s=(size, size))) ** 2
    power_r = np.abs(scipy.fft.fft2(template_psf, s=(size, size))) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        density = power_n * power_r / (science_variance * power_r + template_variance * power_n)
    information = np.nan_to_num(density).mean(axis=(-2, -1))
    return 1.0 / np.sqrt(information)


def _sky_limited_sigma(psf: np.ndarray, variance: float) -> np.ndarray:
    """Return the error of a PSF-fitted flux in blank sky [nJy]."""
    return np.sqrt(variance / (psf**2).sum(axis=(-2, -1)))


@dataclass
class _Gatherer:
    """Collects blocks of objects of one kind and joins them."""

    blocks: list[dict[str, np.ndarray]] = field(default_factory=list)

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "host_id": np.int64(-1),
        "half_light_radius": np.nan,
        "sersic_index": np.nan,
        "g1": np.nan,
        "g2": np.nan,
        "perturbation": "none",
        "shift_x": 0.0,
        "shift_y": 0.0,
        "width_change": 0.0,
        "ideal_snr": 0.0,
        "science_snr": 0.0,
    }

    def add(self, kind: Kind, **columns: np.ndarray) -> None:
        n = len(columns["x"])
        block = {name: np.full(n, value) for name, value in self.DEFAULTS.items()}
        block["kind"] = np.full(n, kind, dtype="U9")
        block["perturbation"] = block["perturbation"].astype("U5")
        block.update(columns)
        self.blocks.append(block)

    def joined(self) -> Scene:
        return Scene(**{name: np.concatenate([b[name] for b in self.blocks]) for name in self.blocks[0]})


def make_scene(
    config: SceneConfig,
    conditions: ObservingConditions,
    bounds: Box,
    *,
    science_psf: PixelBasisPsf,
    template_psf: PixelBasisPsf,
    pixel_scale: float,
    sky_rng: np.random.Generator,
    visit_rng: np.random.Generator,
    visit: int = 0,
    detector: int = 0,
) -> Scene:
    """Draw the objects of one visit and detector.

    Parameters
    ----------
    config : `SceneConfig`
        What the sky holds.
    conditions : `ObservingConditions`
        Noise and registration, which turn S/N into flux.
    bounds : `lsst.images.Box`
        The detector.
    science_psf, template_psf : `lsst.diainspect.psf.PixelBasisPsf`
        PSFs of the two images.
    pixel_scale : `float`
        Pixel scale [arcsec / pixel].
    sky_rng : `numpy.random.Generator`
        Randomness of what stays: the same for every visit to the same sky.
    visit_rng : `numpy.random.Generator`
        Randomness of what changes: transients, variability, displacements.
    visit, detector : `int`, optional
        Numbers that go into the identifiers.

    Raises
    ------
    ValueError
        If the perturbed stars do not fit with the isolation asked for.
    """
    gatherer = _Gatherer()
    if config.blank:
        empty = np.zeros(0)
        gatherer.add(
            "star", object_id=np.zeros(0, np.int64), x=empty, y=empty, science_flux=empty, template_flux=empty
        )
        return gatherer.joined()

    area = bounds.area * (pixel_scale / 60.0) ** 2
    science_variance = conditions.science_sky_variance / conditions.flux_scale**2
    template_variance = conditions.template_sky_variance

    def difference_sigma(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if len(x) == 0:
            return np.zeros(0)
        return ideal_difference_sigma(
            science_psf.evaluate(x, y), template_psf.evaluate(x, y), science_variance, template_variance
        )

    def science_sigma(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if len(x) == 0:
            return np.zeros(0)
        return _sky_limited_sigma(science_psf.evaluate(x, y), science_variance)

    first_id = detector * _ID_STRIDE

    # Perturbed stars come first, so that all else can keep away from them.
    x_perturbed, y_perturbed = _isolated_positions(sky_rng, bounds, config.n_perturbed, config.isolation)
    if config.n_perturbed > 0:
        snr = _log_uniform(sky_rng, config.perturbed_snr, config.n_perturbed)
        flux = snr * science_sigma(x_perturbed, y_perturbed)
        angle = visit_rng.uniform(0.0, 2.0 * np.pi, config.n_perturbed)
        is_shift = config.perturbation == "shift"
        amplitude = config.shift_amplitude if is_shift else 0.0
        gatherer.add(
            "star",
            object_id=first_id + np.arange(config.n_perturbed),
            x=x_perturbed,
            y=y_perturbed,
            science_flux=flux,
            template_flux=flux.copy(),
            perturbation=np.full(config.n_perturbed, config.perturbation, dtype="U5"),
            shift_x=amplitude * np.cos(angle),
            shift_y=amplitude * np.sin(angle),
            width_change=np.full(config.n_perturbed, 0.0 if is_shift else config.width_change),
            science_snr=snr,
        )
    first_id += config.n_perturbed

    # Stars, some of them variable.
    x, y = _positions(sky_rng, bounds, sky_rng.poisson(config.star_density * area))
    flux = _fluxes(sky_rng, len(x), config.star_magnitudes, config.star_slope)
    is_variable = np.zeros(len(x), dtype=bool)
    is_variable[sky_rng.permutation(len(x))[: config.n_variables]] = True
    keep = _is_far(x, y, x_perturbed, y_perturbed, config.isolation)
    x, y, flux, is_variable = x[keep], y[keep], flux[keep], is_variable[keep]
    ids = first_id + np.arange(len(x))
    first_id += len(x)
    constant = ~is_variable
    gatherer.add(
        "star",
        object_id=ids[constant],
        x=x[constant],
        y=y[constant],
        science_flux=flux[constant],
        template_flux=flux[constant],
        science_snr=flux[constant] / science_sigma(x[constant], y[constant]),
    )
    n_variables = int(is_variable.sum())
    change = _log_uniform(visit_rng, config.variable_amplitude, n_variables) * _signs(
        visit_rng, n_variables, 0.5
    )
    base = flux[is_variable]
    gatherer.add(
        "variable",
        object_id=ids[is_variable],
        x=x[is_variable],
        y=y[is_variable],
        science_flux=base * (1.0 + change),
        template_flux=base,
        science_snr=base * (1.0 + change) / science_sigma(x[is_variable], y[is_variable]),
        ideal_snr=np.abs(base * change) / difference_sigma(x[is_variable], y[is_variable]),
    )

    # Galaxies: fainter ones are smaller.
    x, y = _positions(sky_rng, bounds, sky_rng.poisson(config.galaxy_density * area))
    n_galaxies = len(x)
    flux = _fluxes(sky_rng, n_galaxies, config.galaxy_magnitudes, config.galaxy_slope)
    magnitude = _magnitude(flux)
    radius = (
        0.35
        / pixel_scale
        * 10.0 ** (-0.1 * (magnitude - 23.0))
        * np.exp(0.3 * sky_rng.normal(size=n_galaxies))
    )
    shear = np.minimum(np.abs(sky_rng.rayleigh(0.2, n_galaxies)), _MAX_SHEAR)
    angle = sky_rng.uniform(0.0, 2.0 * np.pi, n_galaxies)
    galaxies = {
        "x": x,
        "y": y,
        "science_flux": flux,
        "template_flux": flux.copy(),
        "half_light_radius": np.minimum(radius, _MAX_HALF_LIGHT_RADIUS),
        "sersic_index": sky_rng.choice(_SERSIC_INDICES, n_galaxies, p=_SERSIC_FRACTIONS),
        "g1": shear * np.cos(angle),
        "g2": shear * np.sin(angle),
    }
    keep = _is_far(x, y, x_perturbed, y_perturbed, config.isolation)
    galaxies = {name: values[keep] for name, values in galaxies.items()}
    galaxies["object_id"] = first_id + np.arange(int(keep.sum()))
    gatherer.add("galaxy", **galaxies)

    gatherer.add(
        "transient",
        **_transients(
            config,
            bounds,
            galaxies,
            visit_rng,
            avoid=(x_perturbed, y_perturbed),
            difference_sigma=difference_sigma,
            science_sigma=science_sigma,
            first_id=((visit + 1) * _DETECTORS + detector) * _ID_STRIDE,
        ),
    )
    scene = gatherer.joined()
    if conditions.position_jitter > 0:
        scene.shift_x[:] += visit_rng.normal(scale=conditions.position_jitter, size=len(scene))
        scene.shift_y[:] += visit_rng.normal(scale=conditions.position_jitter, size=len(scene))
    return scene


def _transients(
    config: SceneConfig,
    bounds: Box,
    galaxies: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    avoid: tuple[np.ndarray, np.ndarray],
    difference_sigma: Callable[[np.ndarray, np.ndarray], np.ndarray],
    science_sigma: Callable[[np.ndarray, np.ndarray], np.ndarray],
    first_id: int,
) -> dict[str, np.ndarray]:
    """Place transients, those on hosts within the host's light, and give them the flux of their S/N."""
    n = config.n_transients
    x, y = _positions(rng, bounds, n)
    host_id = np.full(n, -1, dtype=np.int64)
    hosted = np.flatnonzero(rng.uniform(size=n) < config.host_fraction)
    n_galaxies = len(galaxies["x"])
    if n_galaxies > 0:
        # Each galaxy hosts once, unless there are fewer galaxies than transients.
        order = rng.permutation(n_galaxies)
        chosen = order[np.arange(len(hosted)) % n_galaxies]
        distance = galaxies["half_light_radius"][chosen] * np.sqrt(rng.uniform(0.0, 1.0, len(hosted)))
        angle = rng.uniform(0.0, 2.0 * np.pi, len(hosted))
        x[hosted] = galaxies["x"][chosen] + distance * np.cos(angle)
        y[hosted] = galaxies["y"][chosen] + distance * np.sin(angle)
        host_id[hosted] = galaxies["object_id"][chosen]
    x = np.clip(x, bounds.x.start, bounds.x.stop - 1)
    y = np.clip(y, bounds.y.start, bounds.y.stop - 1)
    snr = _log_uniform(rng, config.transient_snr, n)
    fades = rng.uniform(size=n) < config.fading_fraction
    flux = snr * difference_sigma(x, y)
    columns = {
        "object_id": first_id + np.arange(n),
        "x": x,
        "y": y,
        "science_flux": np.where(fades, 0.0, flux),
        "template_flux": np.where(fades, flux, 0.0),
        "host_id": host_id,
        "ideal_snr": snr,
        "science_snr": np.where(fades, 0.0, flux / science_sigma(x, y)),
    }
    keep = _is_far(x, y, *avoid, config.isolation)
    return {name: values[keep] for name, values in columns.items()}


def _positions(rng: np.random.Generator, bounds: Box, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw uniform positions in the pixels of a box."""
    x = rng.uniform(bounds.x.start - 0.5, bounds.x.stop - 0.5, n)
    y = rng.uniform(bounds.y.start - 0.5, bounds.y.stop - 0.5, n)
    return x, y


def _isolated_positions(
    rng: np.random.Generator, bounds: Box, n: int, isolation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions at least ``isolation`` from one another and from the edge, on a jittered grid."""
    if n == 0:
        return np.zeros(0), np.zeros(0)
    width, height = bounds.x.size - 2.0 * isolation, bounds.y.size - 2.0 * isolation
    n_columns = max(int(np.ceil(np.sqrt(n * max(width, 1.0) / max(height, 1.0)))), 1)
    n_rows = int(np.ceil(n / n_columns))
    cell_x, cell_y = width / n_columns, height / n_rows
    if min(cell_x, cell_y) < isolation:
        raise ValueError(
            f"{n} perturbed stars {isolation} pixels apart do not fit in {bounds.x.size} x {bounds.y.size} pixels: "
            f"use fewer, a smaller isolation or a larger image."
        )
    cells = rng.permutation(n_columns * n_rows)[:n]
    # Jitter within what the cell has over the isolation keeps neighbours apart.
    jitter_x = rng.uniform(-0.5, 0.5, n) * (cell_x - isolation)
    jitter_y = rng.uniform(-0.5, 0.5, n) * (cell_y - isolation)
    x = bounds.x.start + isolation + (cells % n_columns + 0.5) * cell_x + jitter_x
    y = bounds.y.start + isolation + (cells // n_columns + 0.5) * cell_y + jitter_y
    return x, y


def _is_far(
    x: np.ndarray, y: np.ndarray, x_other: np.ndarray, y_other: np.ndarray, distance: float
) -> np.ndarray:
    """Return which positions are at least ``distance`` from all others."""
    if len(x_other) == 0 or len(x) == 0:
        return np.ones(len(x), dtype=bool)
    nearest, _ = cKDTree(np.column_stack([x_other, y_other])).query(np.column_stack([x, y]))
    return nearest >= distance


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float], n: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), n))


def _signs(rng: np.random.Generator, n: int, negative_fraction: float) -> np.ndarray:
    return np.where(rng.uniform(size=n) < negative_fraction, -1.0, 1.0)


def _fluxes(rng: np.random.Generator, n: int, magnitudes: tuple[float, float], slope: float) -> np.ndarray:
    """Draw fluxes [nJy] with counts that grow as 10^(slope m)."""
    low, high = (10.0 ** (slope * magnitude) for magnitude in magnitudes)
    uniform = rng.uniform(size=n)
    if slope == 0:
        magnitude = magnitudes[0] + uniform * (magnitudes[1] - magnitudes[0])
    else:
        magnitude = np.log10(low + uniform * (high - low)) / slope
    return 10.0 ** (0.4 * (_AB_ZERO_POINT - magnitude))


def _magnitude(flux: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return _AB_ZERO_POINT - 2.5 * np.log10(flux)


def truth_table(
    scene: Scene,
    projection: SkyProjection[Any],
    conditions: ObservingConditions,
    saturated: np.ndarray,
) -> Table:
    """Write the scene as the truth table of a visit and detector.

    Parameters
    ----------
    scene : `Scene`
        The objects.
    projection : `lsst.images.SkyProjection`
        Projection of the template's grid, to which the science image may be misregistered.
    conditions : `ObservingConditions`
        Conditions of the visit.
    saturated : `numpy.ndarray`, (N,), bool
        Whether an object's centre is saturated in either image.

    Returns
    -------
    truth : `astropy.table.Table`
        One row an object; each column has a description.
    """
    sky = projection.pixel_to_sky(x=scene.x, y=scene.y) if len(scene) else None
    brightest = np.maximum(scene.science_flux, scene.template_flux)
    columns: list[tuple[str, np.ndarray, u.UnitBase | None, str]] = [
        (
            "objectId",
            scene.object_id.astype(np.int64),
            None,
            "Identifier; the same on every visit for what stays.",
        ),
        ("kind", scene.kind, None, "star, galaxy, transient or variable."),
        (
            "x",
            scene.x + scene.shift_x + conditions.shift_x,
            u.pix,
            "Position in the science image, all displacements included.",
        ),
        (
            "y",
            scene.y + scene.shift_y + conditions.shift_y,
            u.pix,
            "Position in the science image, all displacements included.",
        ),
        ("templateX", scene.x, u.pix, "Position in the template."),
        ("templateY", scene.y, u.pix, "Position in the template."),
        (
            "ra",
            sky.ra.deg if sky is not None else np.zeros(0),
            u.deg,
            "ICRS right ascension of templateX, Y.",
        ),
        ("dec", sky.dec.deg if sky is not None else np.zeros(0), u.deg, "ICRS declination of templateX, Y."),
        ("mag", _magnitude(brightest), u.mag, "AB magnitude of the brighter of the two fluxes."),
        (
            "scienceFlux",
            scene.science_flux,
            u.nJy,
            "True flux when the science image was taken, its calibration error (flux_scale) not included.",
        ),
        ("templateFlux", scene.template_flux, u.nJy, "True flux in the template."),
        ("fluxChange", scene.science_flux - scene.template_flux, u.nJy, "scienceFlux - templateFlux."),
        (
            "idealSnr",
            scene.ideal_snr,
            None,
            "|fluxChange| over its error in the best possible difference, blank sky.",
        ),
        (
            "scienceSnr",
            scene.science_snr,
            None,
            "Point sources: scienceFlux over its PSF-fit error in the science image, blank sky.",
        ),
        ("hostId", scene.host_id.astype(np.int64), None, "objectId of the host galaxy, -1 for none."),
        ("isTransient", scene.kind == "transient", None, "Appeared or disappeared."),
        ("isVariable", scene.kind == "variable", None, "A star that changed."),
        (
            "isSaturated",
            saturated,
            None,
            "Its central pixel is saturated in the science image or the template.",
        ),
        ("halfLightRadius", scene.half_light_radius, u.pix, "Galaxies: half-light radius before the PSF."),
        ("sersicIndex", scene.sersic_index, None, "Galaxies: Sersic index."),
        ("g1", scene.g1, None, "Galaxies: reduced shear along x."),
        ("g2", scene.g2, None, "Galaxies: reduced shear at 45 degrees."),
        ("perturbation", scene.perturbation, None, "none, shift or width: what was done to it on purpose."),
        (
            "shiftX",
            scene.shift_x,
            u.pix,
            "Its own displacement in the science image, without the visit's common shift.",
        ),
        (
            "shiftY",
            scene.shift_y,
            u.pix,
            "Its own displacement in the science image, without the visit's common shift.",
        ),
        (
            "widthChange",
            scene.width_change,
            None,
            "Relative widening of its image in the science image, pixel included.",
        ),
    ]
    table = Table()
    for name, values, unit, description in columns:
        table[name] = values
        table[name].unit = unit
        table[name].description = description
    return table
