"""Makes a template as a survey does: draws each exposure on its own pixels, resamples it, averages all."""

from __future__ import annotations

__all__ = ["Epoch", "coadd_epochs", "coadd_psf", "draw_epochs"]

import logging
from dataclasses import dataclass

import numpy as np
from lsst.images import Box
from scipy import ndimage

from lsst.diainspect.psf import PixelBasisPsf

from ._artefact import Artefact, draw_number
from ._conditions import ObservingConditions
from ._lanczos import LANCZOS_TAPS, PixelMap, lanczos_warp
from ._psf_field import PsfField
from ._render import Rendering, draw_light, grow_saturated
from ._scene import Scene

_LOG = logging.getLogger(__name__)

_PSF_ORDER = 4
"""Spatial order of the PSF model, as for a single exposure."""

_EDGE_RANGE = (0.15, 0.85)
"""Where a sensor may end, as a part of the template's side: not where hardly anything is on one of its sides."""

_SIDES = ("left", "right", "lower", "upper")


@dataclass(frozen=True)
class Epoch:
    """One exposure of a coadd.

    Its pixels are turned by ``angle`` around the middle of the template and shifted. Its PSF is in its own
    orientation, with the template's coordinates as those over which it varies.

    Parameters
    ----------
    psf : `PsfField`
        The PSF.
    angle : `float`
        Rotation of its pixels from the template's [radian].
    middle : `tuple` [`float`, `float`]
        The middle of the template in the template's coordinates [pixel].
    offset : `tuple` [`float`, `float`]
        What is added to that to get the middle in the exposure's coordinates [pixel].
    error : `tuple` [`float`, `float`]
        Error of the registration: how far sources are from where they should be [pixel].
    bounds : `lsst.images.Box`
        Its pixels.
    edge : `str`, optional
        The side on which its sensor ends within the template: left, right, lower or upper; empty for none.
    rejected : `tuple` [`tuple` [`float`, `float`, `float`], ...], optional
        Areas left out: x, y in the template and radius [pixel].
    """

    psf: PsfField
    angle: float
    middle: tuple[float, float]
    offset: tuple[float, float]
    error: tuple[float, float]
    bounds: Box
    edge: str = ""
    rejected: tuple[tuple[float, float, float], ...] = ()

    def to_exposure(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where positions in the template are in the exposure [pixel]."""
        old_origin = self.middle[0] + self.offset[0], self.middle[1] + self.offset[1]
        return PixelMap(self.angle, self.middle, old_origin)(x, y)

    def array_map(self, bounds: Box, own: Box) -> PixelMap:
        """Return the map from the array of a box in the template to the array of a box in the exposure."""
        return PixelMap(
            self.angle,
            (self.middle[0] - bounds.x.start, self.middle[1] - bounds.y.start),
            (
                self.middle[0] + self.offset[0] - own.x.start,
                self.middle[1] + self.offset[1] - own.y.start,
            ),
        )

    def covers(self, x: float, y: float) -> bool:
        """Return whether a pixel of the template has all that resampling needs."""
        u, v = self.to_exposure(np.array(x), np.array(y))
        margin = LANCZOS_TAPS // 2
        box_x, box_y = self.bounds.x, self.bounds.y
        return bool(
            box_x.start + margin - 1 <= u < box_x.stop - margin
            and box_y.start + margin - 1 <= v < box_y.stop - margin
        )

    def star_image(self, x: int, y: int) -> np.ndarray:
        """Return the resampled image of a star on a pixel of the template, shape (size, size)."""
        u, v = (float(value) for value in self.to_exposure(np.array(float(x)), np.array(float(y))))
        u, v = u + self.error[0], v + self.error[1]
        column, row = round(u), round(v)
        star = self.psf.star_image(x, y, dx=u - column, dy=v - row)
        half = self.psf.size // 2
        # Turned, the corners of the stamp reach further; errors of registration are much less than a pixel.
        pad = LANCZOS_TAPS + int(np.ceil(half * abs(np.sin(self.angle))))
        own = Box.factory[
            row - half - pad : row + half + pad + 1, column - half - pad : column + half + pad + 1
        ]
        stamp = Box.factory[y - half : y + half + 1, x - half : x + half + 1]
        warped, _, _ = lanczos_warp(np.pad(star, pad), star.shape, self.array_map(stamp, own))
        return warped.astype(float)


def draw_epochs(
    conditions: ObservingConditions,
    bounds: Box,
    rng: np.random.Generator,
    *,
    pixel_scale: float,
    stamp_size: int,
) -> list[Epoch]:
    """Draw the exposures of a coadd.

    Parameters
    ----------
    conditions : `ObservingConditions`
        Conditions, with ``warped_coadd``.
    bounds : `lsst.images.Box`
        The template.
    rng : `numpy.random.Generator`
        Source of randomness.
    pixel_scale : `float`
        Pixel scale [arcsec / pixel].
    stamp_size : `int`
        Side of the PSF stamps [pixel].
    """
    coadd = conditions.warped_coadd
    assert coadd is not None
    middle = 0.5 * (bounds.x.start + bounds.x.stop - 1), 0.5 * (bounds.y.start + bounds.y.stop - 1)
    with_edge = set(rng.permutation(coadd.n_epochs)[: coadd.n_edges].tolist())
    epochs = []
    for index in range(coadd.n_epochs):
        seeing = conditions.template_seeing * np.exp(coadd.seeing_scatter * rng.normal())
        psf = PsfField.random(
            rng,
            bounds,
            fwhm=seeing / pixel_scale,
            ellipticity=conditions.ellipticity,
            ellipticity_variation=conditions.ellipticity_variation,
            fwhm_variation=conditions.fwhm_variation,
            size=stamp_size,
        )
        angle = float(np.deg2rad(rng.uniform(-coadd.rotation, coadd.rotation)))
        offset = rng.uniform(-coadd.dither, coadd.dither, 2) / pixel_scale
        error = rng.normal(scale=coadd.registration * 1e-3 / pixel_scale, size=2)
        side, place = _SIDES[rng.integers(len(_SIDES))], rng.uniform(*_EDGE_RANGE)
        radii = rng.uniform(*coadd.rejected_radius, draw_number(rng, coadd.n_rejected))
        x = rng.uniform(bounds.x.start, bounds.x.stop - 1, len(radii))
        y = rng.uniform(bounds.y.start, bounds.y.stop - 1, len(radii))
        epoch = Epoch(
            psf=psf,
            angle=angle,
            middle=middle,
            offset=(float(offset[0]), float(offset[1])),
            error=(float(error[0]), float(error[1])),
            bounds=bounds,
            edge=side if index in with_edge else "",
            rejected=tuple(zip(x.tolist(), y.tolist(), radii.tolist(), strict=True)),
        )
        epochs.append(_with_bounds(epoch, bounds, place))
    return epochs


def _with_bounds(epoch: Epoch, bounds: Box, place: float) -> Epoch:
    """Give an exposure the pixels that resampling to the template needs, up to where its sensor ends."""
    corners_x = np.array([bounds.x.start, bounds.x.stop - 1] * 2, dtype=float)
    corners_y = np.repeat([bounds.y.start, bounds.y.stop - 1], 2).astype(float)
    u, v = epoch.to_exposure(corners_x, corners_y)
    x_start, x_stop = int(np.floor(u.min())) - LANCZOS_TAPS, int(np.ceil(u.max())) + LANCZOS_TAPS + 1
    y_start, y_stop = int(np.floor(v.min())) - LANCZOS_TAPS, int(np.ceil(v.max())) + LANCZOS_TAPS + 1
    end_x = x_start + round(place * (x_stop - x_start))
    end_y = y_start + round(place * (y_stop - y_start))
    match epoch.edge:
        case "left":
            x_start = end_x
        case "right":
            x_stop = end_x
        case "lower":
            y_start = end_y
        case "upper":
            y_stop = end_y
    return Epoch(
        psf=epoch.psf,
        angle=epoch.angle,
        middle=epoch.middle,
        offset=epoch.offset,
        error=epoch.error,
        bounds=Box.factory[y_start:y_stop, x_start:x_stop],
        edge=epoch.edge,
        rejected=epoch.rejected,
    )


def coadd_psf(epochs: list[Epoch], bounds: Box) -> PixelBasisPsf:
    """Return the PSF of a coadd: at each place the mean over the exposures that are there.

    The spatial polynomial goes smoothly through the steps where exposures end.
    """

    def draw(x: float, y: float) -> np.ndarray:
        column, row = round(x), round(y)
        present = [epoch for epoch in epochs if epoch.covers(column, row)]
        images = [epoch.star_image(column, row) for epoch in present or epochs]
        return np.mean(images, axis=0)

    return PixelBasisPsf.from_callable(draw, bounds, order=_PSF_ORDER, n_grid=_PSF_ORDER + 3)


def coadd_epochs(
    scene: Scene,
    epochs: list[Epoch],
    conditions: ObservingConditions,
    bounds: Box,
    rng: np.random.Generator,
) -> Rendering:
    """Draw, expose, resample and average the exposures of a coadd.

    Parameters
    ----------
    scene : `Scene`
        The objects.
    epochs : `list` [`Epoch`]
        The exposures.
    conditions : `ObservingConditions`
        Noise, saturation, and the settings of the coadd.
    bounds : `lsst.images.Box`
        The template.
    rng : `numpy.random.Generator`
        Source of the noise.

    Returns
    -------
    rendering : `Rendering`
        The template. The variance is right for each pixel on its own.
    """
    coadd = conditions.warped_coadd
    assert coadd is not None
    shape = bounds.y.size, bounds.x.size
    total, total_variance = np.zeros(shape), np.zeros(shape)
    count = np.zeros(shape, dtype=int)
    saturated, near_edge, rejected = (np.zeros(shape, dtype=bool) for _ in range(3))
    artefacts: list[Artefact] = []
    rows = np.arange(bounds.y.start, bounds.y.stop, dtype=float)[:, None]
    columns = np.arange(bounds.x.start, bounds.x.stop, dtype=float)[None, :]
    for epoch in epochs:
        image, variance, full = _expose(scene, epoch, conditions, rng)
        warped, warped_variance, used = lanczos_warp(
            image, shape, epoch.array_map(bounds, epoch.bounds), variance
        )
        assert warped_variance is not None
        for x, y, radius in epoch.rejected:
            area = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
            lost = area & used
            if lost.any():
                rejected |= lost
                used &= ~area
                artefacts.append(_round_artefact("coadd_rejected", x, y, radius, int(lost.sum())))
        total += np.where(used, warped, 0.0)
        total_variance += np.where(used, warped_variance, 0.0)
        count += used
        if epoch.edge:
            edge, artefact = _edge(epoch, columns, rows, coadd.edge_width)
            near_edge |= edge
            artefacts.append(artefact)
        if full.any():
            u, v = epoch.to_exposure(columns, rows)
            i = np.clip(np.rint(u).astype(int) - epoch.bounds.x.start, 0, full.shape[1] - 1)
            j = np.clip(np.rint(v).astype(int) - epoch.bounds.y.start, 0, full.shape[0] - 1)
            saturated |= full[j, i] & used
    for _ in range(draw_number(rng, coadd.n_holes)):
        x, y = rng.uniform(bounds.x.start, bounds.x.stop - 1), rng.uniform(bounds.y.start, bounds.y.stop - 1)
        hole = (columns - x) ** 2 + (rows - y) ** 2 < coadd.hole_radius**2
        count[hole] = 0
        artefacts.append(_round_artefact("coadd_hole", x, y, coadd.hole_radius, int(hole.sum())))
    with np.errstate(divide="ignore", invalid="ignore"):
        image = np.where(count > 0, total / count, np.nan)
        variance = np.where(count > 0, total_variance / count**2, np.nan)
    no_data = count == 0
    # Resampling rings up to three pixels from a full one; the exposures' own areas are grown by two.
    saturated = ndimage.binary_dilation(saturated, np.ones((3, 3), dtype=bool))
    return Rendering(
        image=image.astype(np.float32),
        variance=variance.astype(np.float32),
        saturated=saturated & ~no_data,
        planes={
            "NO_DATA": no_data,
            "INEXACT_PSF": (rejected | near_edge) & ~no_data,
            "SENSOR_EDGE": near_edge & ~no_data,
            "REJECTED": rejected & ~no_data,
            "CLIPPED": rejected & ~no_data,
            "HIGH_VARIANCE": (count < coadd.high_variance_below * len(epochs)) & ~no_data,
        },
        artefacts=artefacts,
    )


def _expose(
    scene: Scene, epoch: Epoch, conditions: ObservingConditions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one exposure [nJy], its variance [nJy^2] and its saturated pixels."""
    x, y = epoch.to_exposure(scene.x, scene.y)
    light = draw_light(
        scene,
        epoch.psf,
        epoch.bounds,
        flux=scene.template_flux,
        x=x + epoch.error[0],
        y=y + epoch.error[1],
        width_change=scene.template_brighter_fatter,
        psf_x=scene.x,
        psf_y=scene.y,
        rotation=epoch.angle,
    )
    expected = np.maximum(light / conditions.njy_per_electron + conditions.sky_level, 0.0)
    electrons = rng.poisson(expected).astype(float)
    electrons += rng.normal(scale=conditions.read_noise, size=electrons.shape)
    full = electrons >= conditions.saturation
    if conditions.bleed_trails is not None and full.any():
        full |= conditions.bleed_trails.apply(electrons, conditions.saturation)
    np.minimum(electrons, conditions.saturation, out=electrons)
    scale = conditions.njy_per_electron
    variance = (expected + conditions.read_noise**2) * scale**2
    return (electrons - conditions.sky_level) * scale, variance, grow_saturated(full)


def _edge(epoch: Epoch, columns: np.ndarray, rows: np.ndarray, width: float) -> tuple[np.ndarray, Artefact]:
    """Return the pixels near the end of an exposure's sensor, and the end as an artefact."""
    u, v = epoch.to_exposure(columns, rows)
    margin = LANCZOS_TAPS // 2
    match epoch.edge:
        case "left":
            distance = u - (epoch.bounds.x.start + margin - 1)
        case "right":
            distance = epoch.bounds.x.stop - margin - u
        case "lower":
            distance = v - (epoch.bounds.y.start + margin - 1)
        case _:
            distance = epoch.bounds.y.stop - margin - v
    near = np.abs(distance) <= width
    is_upright = epoch.edge in ("left", "right")
    angle = ((90.0 if is_upright else 0.0) - np.rad2deg(epoch.angle)) % 180.0
    row, column = np.nonzero(near)
    x, y = columns[0, column], rows[row, 0]
    along = np.cos(np.deg2rad(angle)) * x + np.sin(np.deg2rad(angle)) * y
    return near, Artefact(
        kind="coadd_edge",
        x=float(x.mean()) if len(x) else float("nan"),
        y=float(y.mean()) if len(y) else float("nan"),
        extent=float(np.ptp(along)) if len(x) else 0.0,
        width=2.0 * width,
        angle=float(angle),
        flux=float("nan"),
        n_pixels=int(near.sum()),
        is_flagged=True,
    )


def _round_artefact(kind: str, x: float, y: float, radius: float, n_pixels: int) -> Artefact:
    return Artefact(
        kind=kind,  # type: ignore[arg-type]
        x=x,
        y=y,
        extent=2.0 * radius,
        width=2.0 * radius,
        angle=0.0,
        flux=float("nan"),
        n_pixels=n_pixels,
        is_flagged=True,
    )
