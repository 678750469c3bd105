"""The simulated sky: stars, galaxies, transients, variables and moving objects, and what each does between template
and science image.

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
from astropy.coordinates import SkyCoord
from astropy.table import Table
from lsst.images import Box, SkyProjection
from scipy.spatial import cKDTree
from scipy.special import gamma, gammaincinv

from lsst.diainspect.psf import PixelBasisPsf

from ._conditions import ObservingConditions
from ._counts import draw_fluxes, lsst_density, lsst_fluxes, magnitude_of_flux

type Kind = Literal["star", "galaxy", "transient", "variable", "moving"]
type Counts = Literal["power_law", "lsst"]
_COUNTS = ("power_law", "lsst")
type HostSelection = Literal["random", "surface_brightness"]
_HOST_SELECTIONS = ("random", "surface_brightness")
type Perturbation = Literal["shift", "width"]
_PERTURBATIONS = ("shift", "width")

_ID_STRIDE = 1 << 20
"""More than the objects of one detector: identifiers are (detector, or visit and detector) times this + counter."""

_DETECTORS = 256
"""More than the detectors of the camera."""

_SERSIC_INDICES = (1.0, 2.5, 4.0)
_SERSIC_FRACTIONS = (0.7, 0.2, 0.1)

_MAX_SHEAR = 0.6
_MAX_HALF_LIGHT_RADIUS = 12.0
"""Largest galaxy [pixel]."""

_CANDIDATES_PER_HOST = 40
"""Places tried for each transient that is to have a given surface brightness below it."""

_BLUE_STARS = (0.45, 0.6, 0.15)
_RED_STARS = (0.55, 2.2, 0.35)
"""Fraction, mean and root mean square of g - i: turn-off stars and M dwarfs, the two peaks at high latitude [mag]."""
_GALAXY_COLOUR = (1.0, 0.5)
_TRANSIENT_COLOUR = (0.3, 0.4)
_MOVING_COLOUR = (0.8, 0.1)
"""Mean and root mean square of g - i [mag]; asteroids reflect sunlight."""


@dataclass(frozen=True)
class SceneConfig:
    """What the sky holds.

    Parameters
    ----------
    blank : `bool`
        Leave the sky empty: noise only.
    counts : {'power_law', 'lsst'}
        Number and magnitudes of stars and galaxies: from the densities and slopes below; or as LSST will find
        them at the galactic latitude of DC2, between the magnitudes below.
    density_factor : `float`
        Multiplies the numbers of stars and galaxies.
    star_density, galaxy_density : `float`
        Sources per square arcminute; for ``power_law``.
    star_magnitudes, galaxy_magnitudes : `tuple` [`float`, `float`]
        Brightest and faintest AB magnitude.
    star_slope, galaxy_slope : `float`
        s in dN/dm ~ 10^(s m); for ``power_law``.
    n_transients : `int`
        Transients that appear or fade.
    transient_snr : `tuple` [`float`, `float`]
        Range of their ideal S/N in the difference; log-uniform.
    host_fraction : `float`
        Fraction of the transients placed on a galaxy.
    host_selection : {'random', 'surface_brightness'}
        Take any galaxies; or places spread evenly over the surface brightness that galaxies offer.
    host_offset : `tuple` [`float`, `float`]
        Range of the distance of a transient from its host, uniform in area [half-light radius].
    fading_fraction : `float`
        Fraction that is in the template and gone from the science image.
    n_left_in_template : `int`
        Transients among them that had begun when the template was taken. Their S/N is that of the change.
    left_in_fraction : `float`
        The part of their flux that the template has.
    n_moving : `int`
        Moving objects, in the science image only.
    moving_rate : `tuple` [`float`, `float`]
        Range of their motion; log-uniform [arcsec / hour].
    moving_snr : `tuple` [`float`, `float`]
        Range of their ideal S/N in the difference, the trail known; log-uniform.
    n_proper_motion : `int`
        Constant stars that move.
    proper_motion : `tuple` [`float`, `float`]
        Range of their proper motion; log-uniform [mas / year].
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
    counts: Counts = "power_law"
    density_factor: float = 1.0
    star_density: float = 10.0
    star_magnitudes: tuple[float, float] = (15.0, 25.0)
    star_slope: float = 0.15
    galaxy_density: float = 20.0
    galaxy_magnitudes: tuple[float, float] = (18.0, 25.0)
    galaxy_slope: float = 0.3
    n_transients: int = 30
    transient_snr: tuple[float, float] = (5.0, 100.0)
    host_fraction: float = 0.6
    host_selection: HostSelection = "random"
    host_offset: tuple[float, float] = (0.0, 1.0)
    fading_fraction: float = 0.2
    n_left_in_template: int = 0
    left_in_fraction: float = 0.3
    n_moving: int = 0
    moving_rate: tuple[float, float] = (20.0, 2000.0)
    moving_snr: tuple[float, float] = (5.0, 100.0)
    n_proper_motion: int = 0
    proper_motion: tuple[float, float] = (100.0, 1000.0)
    n_variables: int = 10
    variable_amplitude: tuple[float, float] = (0.05, 0.5)
    n_perturbed: int = 0
    perturbation: Perturbation = "shift"
    perturbed_snr: tuple[float, float] = (100.0, 1000.0)
    shift_amplitude: float = 0.1
    width_change: float = 0.02
    isolation: float = 32.0

    def __post_init__(self) -> None:
        for name in (
            "density_factor",
            "star_density",
            "galaxy_density",
            "n_transients",
            "n_left_in_template",
            "n_variables",
            "n_moving",
            "n_proper_motion",
            "n_perturbed",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("host_fraction", "fading_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")
        for name in ("star_magnitudes", "galaxy_magnitudes"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name} must be (brightest, faintest), got {(low, high)}.")
        if not 0 <= self.left_in_fraction < 1:
            raise ValueError(f"left_in_fraction must be in [0, 1), got {self.left_in_fraction}.")
        if not 0 <= self.host_offset[0] <= self.host_offset[1]:
            raise ValueError(f"host_offset must be a range (low, high), got {self.host_offset}.")
        for name in (
            "transient_snr",
            "variable_amplitude",
            "perturbed_snr",
            "moving_rate",
            "moving_snr",
            "proper_motion",
        ):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a positive range (low, high), got {(low, high)}.")
        if self.perturbation not in _PERTURBATIONS:
            raise ValueError(f"perturbation must be one of {_PERTURBATIONS}, got {self.perturbation!r}.")
        if self.counts not in _COUNTS:
            raise ValueError(f"counts must be one of {_COUNTS}, got {self.counts!r}.")
        if self.host_selection not in _HOST_SELECTIONS:
            raise ValueError(
                f"host_selection must be one of {_HOST_SELECTIONS}, got {self.host_selection!r}."
            )
        if not self.width_change > -1:
            raise ValueError(f"width_change must be above -1, got {self.width_change}.")


@dataclass(frozen=True)
class Scene:
    """The objects of one visit and detector: one array an attribute, one entry an object.

    ``x``, ``y`` are positions in the template [pixel]; ``shift_x``, ``shift_y`` the object's own displacement
    in the science image, to which the visit's common shift is added. Galaxies have a half-light radius [pixel],
    Sersic index and shear; for point sources these are NaN.

    ``shift_x``, ``shift_y`` and ``width_change`` are the sums of what is asked for by ``perturbation`` and of the
    effects listed each on its own: jitter, refraction, proper motion [pixel], brighter-fatter widening.
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
    colour: np.ndarray
    jitter_x: np.ndarray
    jitter_y: np.ndarray
    refraction_x: np.ndarray
    refraction_y: np.ndarray
    proper_motion_x: np.ndarray
    proper_motion_y: np.ndarray
    brighter_fatter: np.ndarray
    template_brighter_fatter: np.ndarray
    trail_length: np.ndarray
    trail_angle: np.ndarray
    host_offset: np.ndarray
    host_surface_brightness: np.ndarray

    def __len__(self) -> int:
        return len(self.object_id)


def ideal_difference_sigma(
    science_psf: np.ndarray,
    template_psf: np.ndarray,
    science_variance: float,
    template_variance: float,
    *,
    trail: tuple[np.ndarray, np.ndarray] | None = None,
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
    trail : `tuple` [`numpy.ndarray`, `numpy.ndarray`], optional
        Lengths [pixel] and directions [degree] of the trails of moving sources; their information at each k is
        that of a point source times sinc^2(k L).

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
    if trail is not None:
        length, angle = trail[0][:, None, None], np.deg2rad(trail[1])[:, None, None]
        frequency = scipy.fft.fftfreq(size)
        along = np.cos(angle) * frequency[None, None, :] + np.sin(angle) * frequency[None, :, None]
        density = density * np.sinc(along * length) ** 2
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
        "colour": 0.0,
        "jitter_x": 0.0,
        "jitter_y": 0.0,
        "refraction_x": 0.0,
        "refraction_y": 0.0,
        "proper_motion_x": 0.0,
        "proper_motion_y": 0.0,
        "brighter_fatter": 0.0,
        "template_brighter_fatter": 0.0,
        "trail_length": 0.0,
        "trail_angle": np.nan,
        "host_offset": np.nan,
        "host_surface_brightness": np.nan,
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
    x, y, flux = _static_sources("star", config, bounds, area, sky_rng)
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
    x, y, flux = _static_sources("galaxy", config, bounds, area, sky_rng)
    n_galaxies = len(x)
    magnitude = magnitude_of_flux(flux)
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

    first_visit_id = ((visit + 1) * _DETECTORS + detector) * _ID_STRIDE
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
            first_id=first_visit_id,
            pixel_scale=pixel_scale,
        ),
    )
    # Streams of their own, so that what is switched on does not change anything else.
    colour_rng, motion_rng = sky_rng.spawn(2)
    moving_rng, new_colour_rng, jitter_rng = visit_rng.spawn(3)
    if config.n_moving > 0:
        x, y = _positions(moving_rng, bounds, config.n_moving)
        rate = _log_uniform(moving_rng, config.moving_rate, config.n_moving)
        length = rate * conditions.exposure_time / 3600.0 / pixel_scale
        angle = moving_rng.uniform(0.0, 360.0, config.n_moving)
        snr = _log_uniform(moving_rng, config.moving_snr, config.n_moving)
        images = science_psf.evaluate(x, y), template_psf.evaluate(x, y)
        sigma = ideal_difference_sigma(*images, science_variance, template_variance, trail=(length, angle))
        keep = _is_far(x, y, x_perturbed, y_perturbed, config.isolation)
        gatherer.add(
            "moving",
            object_id=first_visit_id + config.n_transients + np.flatnonzero(keep),
            x=x[keep],
            y=y[keep],
            science_flux=(snr * sigma)[keep],
            template_flux=np.zeros(int(keep.sum())),
            trail_length=length[keep],
            trail_angle=angle[keep],
            ideal_snr=snr[keep],
            science_snr=(snr * sigma)[keep] / science_sigma(x[keep], y[keep]),
        )
    scene = gatherer.joined()
    if conditions.position_jitter > 0:
        scene.jitter_x[:] += visit_rng.normal(scale=conditions.position_jitter, size=len(scene))
        scene.jitter_y[:] += visit_rng.normal(scale=conditions.position_jitter, size=len(scene))
    if conditions.astrometric_jitter is not None:
        jitter = conditions.astrometric_jitter.displacements(
            jitter_rng, scene.x, scene.y, bounds, pixel_scale
        )
        scene.jitter_x[:] += jitter[0]
        scene.jitter_y[:] += jitter[1]
    _set_colours(scene, colour_rng, new_colour_rng)
    if conditions.chromatic_refraction is not None:
        refraction = conditions.chromatic_refraction.displacements(scene.colour, conditions.band, pixel_scale)
        scene.refraction_x[:], scene.refraction_y[:] = refraction
    _set_proper_motions(scene, config, motion_rng, conditions.template_age, pixel_scale)
    scene.shift_x[:] += scene.jitter_x + scene.refraction_x + scene.proper_motion_x
    scene.shift_y[:] += scene.jitter_y + scene.refraction_y + scene.proper_motion_y
    if conditions.brighter_fatter is not None:
        _set_brighter_fatter(scene, conditions, science_psf, template_psf)
    return scene


def _static_sources(
    kind: Literal["star", "galaxy"], config: SceneConfig, bounds: Box, area: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw positions and fluxes of the stars or galaxies in an area [arcmin^2]."""
    is_star = kind == "star"
    magnitudes = config.star_magnitudes if is_star else config.galaxy_magnitudes
    if config.counts == "lsst":
        density = lsst_density(kind, magnitudes)
    else:
        density = config.star_density if is_star else config.galaxy_density
    x, y = _positions(rng, bounds, rng.poisson(config.density_factor * density * area))
    if config.counts == "lsst":
        return x, y, lsst_fluxes(rng, len(x), kind, magnitudes)
    slope = config.star_slope if is_star else config.galaxy_slope
    return x, y, draw_fluxes(rng, len(x), magnitudes, slope)


def _set_colours(scene: Scene, sky_rng: np.random.Generator, visit_rng: np.random.Generator) -> None:
    """Draw g - i [mag]; what stays on the sky keeps its colour."""
    is_new = (scene.kind == "transient") | (scene.kind == "moving")
    stays = np.flatnonzero(~is_new)
    # In the order of their identifiers, which a change of the configuration for the visit does not change.
    stays = stays[np.argsort(scene.object_id[stays], kind="stable")]
    chance, deviate = sky_rng.uniform(size=len(stays)), sky_rng.normal(size=len(stays))
    is_blue = chance < _BLUE_STARS[0]
    star_colour = np.where(
        is_blue, _BLUE_STARS[1] + _BLUE_STARS[2] * deviate, _RED_STARS[1] + _RED_STARS[2] * deviate
    )
    galaxy_colour = _GALAXY_COLOUR[0] + _GALAXY_COLOUR[1] * deviate
    scene.colour[stays] = np.where(scene.kind[stays] == "galaxy", galaxy_colour, star_colour)
    deviate = visit_rng.normal(size=int(is_new.sum()))
    is_moving = scene.kind[is_new] == "moving"
    scene.colour[is_new] = np.where(
        is_moving,
        _MOVING_COLOUR[0] + _MOVING_COLOUR[1] * deviate,
        _TRANSIENT_COLOUR[0] + _TRANSIENT_COLOUR[1] * deviate,
    )


def _set_proper_motions(
    scene: Scene, config: SceneConfig, rng: np.random.Generator, years: float, pixel_scale: float
) -> None:
    """Let some of the constant stars move; the same ones on every visit."""
    stars = np.flatnonzero((scene.kind == "star") & (scene.perturbation == "none"))
    chosen = rng.permutation(stars)[: config.n_proper_motion]
    n = len(chosen)
    moved = _log_uniform(rng, config.proper_motion, n) * 1e-3 / pixel_scale * years
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    scene.proper_motion_x[chosen] = moved * np.cos(angle)
    scene.proper_motion_y[chosen] = moved * np.sin(angle)


def _set_brighter_fatter(
    scene: Scene, conditions: ObservingConditions, science_psf: PixelBasisPsf, template_psf: PixelBasisPsf
) -> None:
    """Widen point sources that do not move by what their peaks ask for."""
    effect = conditions.brighter_fatter
    assert effect is not None
    points = np.isin(scene.kind, ("star", "variable", "transient"))
    if not points.any():
        return
    x, y = scene.x[points], scene.y[points]

    def widening(psf: PixelBasisPsf, flux: np.ndarray) -> np.ndarray:
        peak = psf.evaluate(x, y).max(axis=(1, 2)) * flux / conditions.njy_per_electron
        return effect.widening(peak, conditions.saturation)

    scene.brighter_fatter[points] = widening(science_psf, scene.science_flux[points])
    scene.width_change[:] = (1.0 + scene.width_change) * (1.0 + scene.brighter_fatter) - 1.0
    if effect.in_template:
        scene.template_brighter_fatter[points] = widening(template_psf, scene.template_flux[points])


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
    pixel_scale: float,
) -> dict[str, np.ndarray]:
    """Place transients, those on hosts within the host's light, and give them the flux of their S/N."""
    n = config.n_transients
    x, y = _positions(rng, bounds, n)
    host_id = np.full(n, -1, dtype=np.int64)
    host_offset, surface_brightness = np.full(n, np.nan), np.full(n, np.nan)
    hosted = np.flatnonzero(rng.uniform(size=n) < config.host_fraction)
    n_galaxies = len(galaxies["x"])
    if n_galaxies > 0:
        if config.host_selection == "random":
            # Each galaxy hosts once, unless there are fewer galaxies than transients.
            order = rng.permutation(n_galaxies)
            chosen = order[np.arange(len(hosted)) % n_galaxies]
            distance, angle = _host_offsets(config, galaxies, chosen, rng)
        else:
            tried = rng.integers(0, n_galaxies, _CANDIDATES_PER_HOST * len(hosted))
            distance, angle = _host_offsets(config, galaxies, tried, rng)
            offered = _surface_brightness(
                galaxies, tried, distance * np.cos(angle), distance * np.sin(angle), pixel_scale
            )
            best = _spread_evenly(offered, len(hosted), rng)
            chosen, distance, angle = tried[best], distance[best], angle[best]
        dx, dy = distance * np.cos(angle), distance * np.sin(angle)
        x[hosted] = galaxies["x"][chosen] + dx
        y[hosted] = galaxies["y"][chosen] + dy
        host_id[hosted] = galaxies["object_id"][chosen]
        host_offset[hosted] = distance / galaxies["half_light_radius"][chosen]
        surface_brightness[hosted] = _surface_brightness(galaxies, chosen, dx, dy, pixel_scale)
    x = np.clip(x, bounds.x.start, bounds.x.stop - 1)
    y = np.clip(y, bounds.y.start, bounds.y.stop - 1)
    snr = _log_uniform(rng, config.transient_snr, n)
    fades = rng.uniform(size=n) < config.fading_fraction
    flux = snr * difference_sigma(x, y)
    science_flux = np.where(fades, 0.0, flux)
    template_flux = np.where(fades, flux, 0.0)
    left_in = np.flatnonzero(~fades)[: config.n_left_in_template]
    science_flux[left_in] /= 1.0 - config.left_in_fraction
    template_flux[left_in] = science_flux[left_in] - flux[left_in]
    columns = {
        "object_id": first_id + np.arange(n),
        "x": x,
        "y": y,
        "science_flux": science_flux,
        "template_flux": template_flux,
        "host_id": host_id,
        "host_offset": host_offset,
        "host_surface_brightness": surface_brightness,
        "ideal_snr": snr,
        "science_snr": np.where(fades, 0.0, science_flux / science_sigma(x, y)),
    }
    keep = _is_far(x, y, *avoid, config.isolation)
    return {name: values[keep] for name, values in columns.items()}


def _host_offsets(
    config: SceneConfig, galaxies: dict[str, np.ndarray], chosen: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw distances [pixel] and directions [radian] from the hosts, uniform in area."""
    low, high = config.host_offset
    area = low**2 + (high**2 - low**2) * rng.uniform(0.0, 1.0, len(chosen))
    return galaxies["half_light_radius"][chosen] * np.sqrt(area), rng.uniform(0.0, 2.0 * np.pi, len(chosen))


def _surface_brightness(
    galaxies: dict[str, np.ndarray], chosen: np.ndarray, dx: np.ndarray, dy: np.ndarray, pixel_scale: float
) -> np.ndarray:
    """Return the surface brightness of Sersic profiles off their centres, before the PSF [AB mag / arcsec^2].

    I(r) = F b^(2n) / (2 pi n R^2 Gamma(2n)) exp(-b (r / R)^(1/n)), where R holds half of the light F and r is the
    radius on the circle that the shear makes the ellipse of.
    """
    n, radius = galaxies["sersic_index"][chosen], galaxies["half_light_radius"][chosen]
    g1, g2 = galaxies["g1"][chosen], galaxies["g2"][chosen]
    # The inverse of a shear that keeps areas.
    norm = np.sqrt(1.0 - g1**2 - g2**2)
    u = ((1.0 - g1) * dx - g2 * dy) / norm
    v = (-g2 * dx + (1.0 + g1) * dy) / norm
    b = gammaincinv(2.0 * n, 0.5)
    centre = (
        galaxies["science_flux"][chosen] * b ** (2.0 * n) / (2.0 * np.pi * n * radius**2 * gamma(2.0 * n))
    )
    intensity = centre * np.exp(-b * (np.hypot(u, v) / radius) ** (1.0 / n))
    return magnitude_of_flux(intensity / pixel_scale**2)


def _spread_evenly(values: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Choose n of the values, each once, that cover the range of the middle nine tenths evenly."""
    chosen = np.zeros(n, dtype=int)
    if n == 0:
        return chosen
    remaining = values.copy()
    faint, bright = np.percentile(values, 95.0), np.percentile(values, 5.0)
    for index, wanted in enumerate(rng.uniform(bright, faint, n)):
        chosen[index] = np.argmin(np.abs(remaining - wanted))
        remaining[chosen[index]] = np.inf
    return chosen


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


def truth_table(
    scene: Scene,
    projection: SkyProjection[Any],
    conditions: ObservingConditions,
    saturated: np.ndarray,
    *,
    bounds: Box | None = None,
    ideal_snr_with_sources: np.ndarray | None = None,
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
    bounds : `lsst.images.Box`, optional
        The detector, for the calibration gradient.
    ideal_snr_with_sources : `numpy.ndarray`, (N,), optional
        Ideal S/N with the noise of all light at the object's place; NaN when omitted.

    Returns
    -------
    truth : `astropy.table.Table`
        One row an object; each column has a description.
    """
    sky = projection.pixel_to_sky(x=scene.x, y=scene.y) if len(scene) else None
    brightest = np.maximum(scene.science_flux, scene.template_flux)
    x, y = scene.x + scene.shift_x + conditions.shift_x, scene.y + scene.shift_y + conditions.shift_y
    flux_scale = np.full(len(scene), conditions.flux_scale)
    if conditions.calibration_gradient is not None and bounds is not None:
        flux_scale *= conditions.calibration_gradient.at(x, y, bounds)
    columns: list[tuple[str, np.ndarray, u.UnitBase | None, str]] = [
        (
            "objectId",
            scene.object_id.astype(np.int64),
            None,
            "Identifier; the same on every visit for what stays.",
        ),
        ("kind", scene.kind, None, "star, galaxy, transient, variable or moving."),
        (
            "x",
            x,
            u.pix,
            "Position in the science image, all displacements included.",
        ),
        (
            "y",
            y,
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
        ("mag", magnitude_of_flux(brightest), u.mag, "AB magnitude of the brighter of the two fluxes."),
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
            "idealSnrWithSources",
            np.full(len(scene), np.nan) if ideal_snr_with_sources is None else ideal_snr_with_sources,
            None,
            "|fluxChange| over its error in the best possible difference, the noise of its own light, of its "
            "host's and of all else at its place included; NaN for what does not change.",
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
        ("color", scene.colour, u.mag, "g - i."),
        (
            "jitterX",
            scene.jitter_x,
            u.pix,
            "Part of shiftX that is astrometric jitter: of the source alone, correlated and smooth.",
        ),
        ("jitterY", scene.jitter_y, u.pix, "Part of shiftY that is astrometric jitter."),
        ("dcrShiftX", scene.refraction_x, u.pix, "Part of shiftX that is differential chromatic refraction."),
        ("dcrShiftY", scene.refraction_y, u.pix, "Part of shiftY that is differential chromatic refraction."),
        (
            "properMotionShiftX",
            scene.proper_motion_x,
            u.pix,
            "Part of shiftX that is proper motion since the template.",
        ),
        (
            "properMotionShiftY",
            scene.proper_motion_y,
            u.pix,
            "Part of shiftY that is proper motion since the template.",
        ),
        (
            "brighterFatterWidth",
            scene.brighter_fatter,
            None,
            "Part of widthChange that is the brighter-fatter effect.",
        ),
        (
            "templateBrighterFatterWidth",
            scene.template_brighter_fatter,
            None,
            "Relative widening of its image in the template by the brighter-fatter effect.",
        ),
        ("isMoving", scene.kind == "moving", None, "A moving object, in the science image only."),
        ("trailLength", scene.trail_length, u.pix, "Path during the exposure; 0 for what does not move."),
        ("trailAngle", scene.trail_angle, u.deg, "Moving objects: direction of the path, from +x to +y."),
        (
            "hostOffset",
            scene.host_offset,
            None,
            "Transients: distance from the host in its half-light radii.",
        ),
        (
            "hostSeparation",
            _host_separation(scene, sky),
            u.arcsec,
            "Transients: distance from the host's centre.",
        ),
        (
            "hostSurfaceBrightness",
            scene.host_surface_brightness,
            u.mag / u.arcsec**2,
            "Transients: surface brightness of the host below it, before the PSF (AB).",
        ),
        (
            "isLeftInTemplate",
            (scene.kind == "transient") & (scene.template_flux > 0) & (scene.science_flux > 0),
            None,
            "A transient whose beginning is in the template.",
        ),
        (
            "fluxScale",
            flux_scale,
            None,
            "Error of the science image's calibration at its place: the image has this times scienceFlux.",
        ),
    ]
    table = Table()
    for name, values, unit, description in columns:
        table[name] = values
        table[name].unit = unit
        table[name].description = description
    return table


def _host_separation(scene: Scene, sky: SkyCoord | None) -> np.ndarray:
    """Return the distance of each object from its host [arcsec]; NaN for those without one."""
    separation = np.full(len(scene), np.nan)
    hosted = np.flatnonzero(scene.host_id >= 0)
    if sky is None or len(hosted) == 0:
        return separation
    order = np.argsort(scene.object_id)
    host = order[np.searchsorted(scene.object_id, scene.host_id[hosted], sorter=order)]
    separation[hosted] = sky[hosted].separation(sky[host]).arcsec
    return separation
