"""Draws a scene as the camera would record it: PSF, noise, variance and saturation."""

from __future__ import annotations

__all__ = ["Rendering", "render"]

from dataclasses import dataclass

import galsim
import numpy as np
from lsst.images import Box
from scipy import ndimage

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
    """

    image: np.ndarray
    variance: np.ndarray
    saturated: np.ndarray


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
    """
    bounds = psf.bounds
    light = _draw_light(scene, psf, is_science, common_shift, bounds)
    expected = light / njy_per_electron + sky_level
    # A PSF image or galaxy drawn by Fourier transform can be negative at 1e-8 of its peak.
    np.maximum(expected, 0.0, out=expected)
    electrons = rng.poisson(expected * n_epochs) / n_epochs
    electrons += rng.normal(scale=read_noise / np.sqrt(n_epochs), size=expected.shape)
    variance = (expected + read_noise**2) / n_epochs
    is_saturated = electrons >= saturation
    np.minimum(electrons, saturation, out=electrons)
    if is_saturated.any():
        is_saturated = ndimage.binary_dilation(
            is_saturated, ndimage.generate_binary_structure(2, 2), iterations=_SATURATION_GROWTH
        )
    scale = njy_per_electron * flux_scale
    return Rendering(
        image=((electrons - sky_level) * scale).astype(np.float32),
        variance=(variance * scale**2).astype(np.float32),
        saturated=is_saturated,
    )


def _draw_light(
    scene: Scene, psf: PsfField, is_science: bool, common_shift: tuple[float, float], bounds: Box
) -> np.ndarray:
    """Draw the noiseless sources [nJy]."""
    canvas = np.zeros((bounds.y.size, bounds.x.size))
    flux = scene.science_flux if is_science else scene.template_flux
    x, y = scene.x, scene.y
    if is_science:
        x = x + scene.shift_x + common_shift[0]
        y = y + scene.shift_y + common_shift[1]
    enclosed = psf.enclosed()
    for index in np.flatnonzero(flux != 0):
        centre_x, centre_y = round(float(x[index])), round(float(y[index]))
        dx, dy = float(x[index]) - centre_x, float(y[index]) - centre_y
        if scene.kind[index] == "galaxy":
            stamp = _draw_galaxy(scene, int(index), psf, float(x[index]), float(y[index]), dx, dy) / enclosed
        else:
            stamp = psf.star_image(
                float(x[index]),
                float(y[index]),
                dx=dx,
                dy=dy,
                width_change=float(scene.width_change[index]) if is_science else 0.0,
            )
        _add(canvas, stamp * flux[index], centre_x - bounds.x.start, centre_y - bounds.y.start)
    return canvas


def _draw_galaxy(
    scene: Scene, index: int, psf: PsfField, x: float, y: float, dx: float, dy: float
) -> np.ndarray:
    """Draw a galaxy of unit flux in a window that holds it and the PSF."""
    radius = float(scene.half_light_radius[index])
    # The truncation follows the radius, so GalSim computes each Sersic profile once for all sizes.
    galaxy = galsim.Sersic(
        n=float(scene.sersic_index[index]), half_light_radius=radius, trunc=_GALAXY_TRUNCATION * radius
    ).shear(g1=float(scene.g1[index]), g2=float(scene.g2[index]))
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
