"""Draws a scene as the camera would record it: PSF, noise, variance, saturation, and what the camera adds."""

from __future__ import annotations

__all__ = ["CameraEffects", "Rendering", "draw_light", "grow_saturated", "render"]

from dataclasses import dataclass, field

import galsim
import numpy as np
from lsst.images import Box
from scipy import ndimage

from ._artefact import Artefact, from_components
from ._conditions import ObservingConditions
from ._psf_field import PsfField
from ._scene import Scene

_GALAXY_TRUNCATION = 5.0
"""Galaxies end at this many half-light radii, so that the window drawn holds all of them."""

_MAX_GALAXY_WINDOW = 201
"""Largest side of the window in which a galaxy is drawn [pixel]."""

_SATURATION_GROWTH = 2
"""Pixels by which the saturated area is grown: charge spills over."""


@dataclass(frozen=True)
class Rendering:
    """The pixels of one image.

    Parameters
    ----------
    image : `numpy.ndarray`, (height, width), float32
        Sky-subtracted pixels [nJy].
    variance : `numpy.ndarray`, (height, width), float32
        Expected variance: sky, read noise and the light of the sources [nJy^2].
    saturated : `numpy.ndarray`, (height, width), bool
        Saturated pixels and those next to them.
    planes : `dict` [`str`, `numpy.ndarray`], optional
        Other mask planes by name, (height, width), bool.
    artefacts : `list` [`Artefact`], optional
        What the camera has added.
    """

    image: np.ndarray
    variance: np.ndarray
    saturated: np.ndarray
    planes: dict[str, np.ndarray] = field(default_factory=dict)
    artefacts: list[Artefact] = field(default_factory=list)


def render(
    scene: Scene,
    psf: PsfField,
    rng: np.random.Generator,
    *,
    is_science: bool,
    common_shift: tuple[float, float] = (0.0, 0.0),
    sky_level: float,
    read_noise: float,
    n_epochs: float = 1.0,
    njy_per_electron: float,
    flux_scale: float = 1.0,
    saturation: float = np.inf,
    effects: CameraEffects | None = None,
) -> Rendering:
    """Draw a scene as the science image or as the template.

    Parameters
    ----------
    scene : `Scene`
        The objects.
    psf : `PsfField`
        The PSF; its bounds are those of the image.
    rng : `numpy.random.Generator`
        Source of the noise.
    is_science : `bool`
        Take the objects' fluxes and displacements in the science image, or those in the template.
    common_shift : `tuple` [`float`, `float`], optional
        Displacement x, y of everything [pixel].
    sky_level, read_noise : `float`
        Of one exposure [electron].
    n_epochs : `float`, optional
        Number of exposures of which the image is the mean.
    njy_per_electron : `float`
        Zero point [nJy / electron].
    flux_scale : `float`, optional
        Factor by which all pixels are off.
    saturation : `float`, optional
        Level at which a pixel of one exposure saturates, sky included [electron].
    effects : `CameraEffects`, optional
        What sky and camera add; nothing when omitted.
    """
    bounds = psf.bounds
    x, y = scene.x, scene.y
    if is_science:
        x = x + scene.shift_x + common_shift[0]
        y = y + scene.shift_y + common_shift[1]
    flux = scene.science_flux if is_science else scene.template_flux
    light = draw_light(
        scene,
        psf,
        bounds,
        flux=flux,
        x=x,
        y=y,
        width_change=scene.width_change if is_science else scene.template_brighter_fatter,
    )
    noticed = _Noticed(bounds, njy_per_electron, _source_map(scene, x, y, flux, bounds))
    if effects is not None:
        effects.add_light(noticed, light, scene, x, y, flux)
    expected = light / njy_per_electron + sky_level
    if effects is not None and effects.conditions.sky_gradient is not None:
        expected += effects.conditions.sky_gradient.electrons(bounds)
    # A PSF image or galaxy drawn by Fourier transform can be negative at 1e-8 of its peak.
    np.maximum(expected, 0.0, out=expected)
    electrons = rng.poisson(expected * n_epochs) / n_epochs
    electrons += rng.normal(scale=read_noise / np.sqrt(n_epochs), size=expected.shape)
    variance = (expected + read_noise**2) / n_epochs
    if effects is not None:
        effects.add_cosmic_rays(noticed, electrons, variance)
    is_saturated = electrons >= saturation
    if effects is not None:
        is_saturated |= effects.bleed(noticed, electrons, is_saturated, saturation)
    np.minimum(electrons, saturation, out=electrons)
    is_saturated = grow_saturated(is_saturated)
    if effects is not None:
        effects.read_out(noticed, electrons, sky_level, read_noise)
    scale: float | np.ndarray = njy_per_electron * flux_scale
    if effects is not None and effects.conditions.calibration_gradient is not None:
        scale = scale * effects.conditions.calibration_gradient.factors(bounds)
    return Rendering(
        image=((electrons - sky_level) * scale).astype(np.float32),
        variance=(variance * scale**2).astype(np.float32),
        saturated=is_saturated,
        planes=noticed.planes,
        artefacts=noticed.artefacts,
    )


@dataclass
class _Noticed:
    """What the effects leave behind in one image, as they come."""

    bounds: Box
    njy_per_electron: float
    source_map: np.ndarray
    planes: dict[str, np.ndarray] = field(default_factory=dict)
    artefacts: list[Artefact] = field(default_factory=list)


@dataclass(frozen=True)
class CameraEffects:
    """The effects of sky and camera on one image, with their randomness.

    Parameters
    ----------
    conditions : `ObservingConditions`
        Which effects there are.
    pixel_scale : `float`
        Pixel scale [arcsec / pixel].
    streak_rng, cosmic_ray_rng : `numpy.random.Generator`
        Randomness of the visit.
    column_rng : `numpy.random.Generator`
        Randomness of the detector.
    """

    conditions: ObservingConditions
    pixel_scale: float
    streak_rng: np.random.Generator
    cosmic_ray_rng: np.random.Generator
    column_rng: np.random.Generator

    def add_light(
        self,
        noticed: _Noticed,
        light: np.ndarray,
        scene: Scene,
        x: np.ndarray,
        y: np.ndarray,
        flux: np.ndarray,
    ) -> None:
        """Add what comes through the lens: ghosts and streaks."""
        if self.conditions.ghosts is not None:
            points = scene.kind != "galaxy"
            noticed.artefacts += self.conditions.ghosts.add(
                light,
                x[points],
                y[points],
                flux[points],
                scene.object_id[points],
                noticed.bounds,
                self.pixel_scale,
            )
        if self.conditions.streaks is not None:
            touched, streaks = self.conditions.streaks.add(
                self.streak_rng, light, noticed.bounds, self.pixel_scale
            )
            noticed.artefacts += streaks
            if self.conditions.streaks.is_flagged:
                noticed.planes["STREAK"] = touched

    def add_cosmic_rays(self, noticed: _Noticed, electrons: np.ndarray, variance: np.ndarray) -> None:
        """Add cosmic rays; pipelines take their charge for signal, so the variance has it too."""
        if self.conditions.cosmic_rays is None:
            return
        charge, flagged, tracks = self.conditions.cosmic_rays.hit(
            self.cosmic_ray_rng, noticed.bounds, noticed.njy_per_electron
        )
        electrons += charge
        variance += charge
        noticed.planes["COSMIC_RAY"] = flagged
        noticed.artefacts += tracks

    def bleed(
        self, noticed: _Noticed, electrons: np.ndarray, full: np.ndarray, saturation: float
    ) -> np.ndarray:
        """Let full pixels bleed, and return those that received charge."""
        if self.conditions.bleed_trails is None or not full.any():
            return np.zeros_like(full)
        bled = self.conditions.bleed_trails.apply(electrons, saturation)
        noticed.artefacts += from_components(
            "bleed",
            bled | full,
            noticed.bounds,
            is_flagged=True,
            core=bled,
            source_map=noticed.source_map,
        )
        return bled

    def read_out(self, noticed: _Noticed, electrons: np.ndarray, sky_level: float, read_noise: float) -> None:
        """Add what reading out does: crosstalk, then bad columns."""
        crosstalk, columns = self.conditions.crosstalk, self.conditions.bad_columns
        if crosstalk is not None:
            seen, images = crosstalk.add(
                electrons,
                sky_level,
                read_noise,
                noticed.bounds,
                noticed.njy_per_electron,
                noticed.source_map,
            )
            noticed.artefacts += images
            if crosstalk.is_flagged:
                noticed.planes["CROSSTALK"] = seen
        if columns is not None:
            spoilt, bad = columns.spoil(self.column_rng, electrons, noticed.bounds, noticed.njy_per_electron)
            noticed.artefacts += bad
            if columns.is_flagged:
                noticed.planes["BAD"] = spoilt


def grow_saturated(is_saturated: np.ndarray) -> np.ndarray:
    """Return saturated pixels with those that their charge spills into."""
    if not is_saturated.any():
        return is_saturated
    return ndimage.binary_dilation(
        is_saturated, ndimage.generate_binary_structure(2, 2), iterations=_SATURATION_GROWTH
    )


def _source_map(scene: Scene, x: np.ndarray, y: np.ndarray, flux: np.ndarray, bounds: Box) -> np.ndarray:
    """Return the objectId of the source at each pixel's centre, the brightest of several, -1 for none."""
    sources = np.full((bounds.y.size, bounds.x.size), -1, dtype=np.int64)
    column, row = np.rint(x).astype(int) - bounds.x.start, np.rint(y).astype(int) - bounds.y.start
    inside = (column >= 0) & (column < bounds.x.size) & (row >= 0) & (row < bounds.y.size) & (flux > 0)
    order = np.flatnonzero(inside)[np.argsort(flux[inside], kind="stable")]
    sources[row[order], column[order]] = scene.object_id[order]
    return sources


def draw_light(
    scene: Scene,
    psf: PsfField,
    bounds: Box,
    *,
    flux: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    width_change: np.ndarray,
    psf_x: np.ndarray | None = None,
    psf_y: np.ndarray | None = None,
    rotation: float = 0.0,
) -> np.ndarray:
    """Draw the noiseless sources.

    Parameters
    ----------
    scene : `Scene`
        The objects.
    psf : `PsfField`
        The PSF.
    bounds : `lsst.images.Box`
        Of the image.
    flux, x, y, width_change : `numpy.ndarray`, (N,)
        Flux [nJy], position [pixel] and relative widening of each object.
    psf_x, psf_y : `numpy.ndarray`, (N,), optional
        Where the PSF is taken, in its own coordinates; at x, y when omitted.
    rotation : `float`, optional
        Angle by which galaxies are turned, from +x to +y [radian].

    Returns
    -------
    light : `numpy.ndarray`, (height, width)
        Light in each pixel [nJy].
    """
    canvas = np.zeros((bounds.y.size, bounds.x.size))
    psf_x = x if psf_x is None else psf_x
    psf_y = y if psf_y is None else psf_y
    enclosed = psf.enclosed()
    for index in np.flatnonzero(flux != 0):
        centre_x, centre_y = round(float(x[index])), round(float(y[index]))
        dx, dy = float(x[index]) - centre_x, float(y[index]) - centre_y
        # No stamp is larger than a galaxy's largest but that of a long trail.
        reach = _MAX_GALAXY_WINDOW + int(scene.trail_length[index])
        if not (
            bounds.x.start - reach <= centre_x < bounds.x.stop + reach
            and bounds.y.start - reach <= centre_y < bounds.y.stop + reach
        ):
            continue
        at = float(psf_x[index]), float(psf_y[index])
        if scene.kind[index] == "galaxy":
            stamp = _draw_galaxy(scene, int(index), psf, *at, dx, dy, rotation) / enclosed
        else:
            stamp = psf.star_image(
                *at,
                dx=dx,
                dy=dy,
                width_change=float(width_change[index]),
                trail=(float(scene.trail_length[index]), float(scene.trail_angle[index])),
            )
        _add(canvas, stamp * flux[index], centre_x - bounds.x.start, centre_y - bounds.y.start)
    return canvas


def _draw_galaxy(
    scene: Scene, index: int, psf: PsfField, x: float, y: float, dx: float, dy: float, rotation: float
) -> np.ndarray:
    """Draw a galaxy of unit flux in a window that holds it and the PSF."""
    radius = float(scene.half_light_radius[index])
    # The truncation follows the radius, so GalSim computes each Sersic profile once for all sizes.
    galaxy = galsim.Sersic(
        n=float(scene.sersic_index[index]), half_light_radius=radius, trunc=_GALAXY_TRUNCATION * radius
    ).shear(g1=float(scene.g1[index]), g2=float(scene.g2[index]))
    if rotation != 0.0:
        galaxy = galaxy.rotate(rotation * galsim.radians)
    window = min(psf.size + 2 * int(np.ceil(_GALAXY_TRUNCATION * radius)), _MAX_GALAXY_WINDOW)
    convolved = galsim.Convolve(galaxy, psf.profile(x, y))
    return convolved.drawImage(nx=window, ny=window, scale=1.0, offset=(dx, dy), dtype=float).array


def _add(canvas: np.ndarray, stamp: np.ndarray, column: int, row: int) -> None:
    """Add an odd-sized stamp to a canvas in place, centred on a pixel; what falls outside is lost."""
    half = stamp.shape[0] // 2
    top, left = row - half, column - half
    rows = slice(max(top, 0), min(top + stamp.shape[0], canvas.shape[0]))
    columns = slice(max(left, 0), min(left + stamp.shape[1], canvas.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    canvas[rows, columns] += stamp[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
