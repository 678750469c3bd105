"""One simulated pair in memory: science image, template, truth and the PSFs, no repository needed."""

from __future__ import annotations

__all__ = ["SimulatedPair", "simulate_pair"]

from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time, TimeDelta
from lsst.images import Box, DifferenceImage, Image, Mask, VisitImage

from lsst.diainspect.instruments import (
    CameraLayout,
    DiaSim,
    ExposureRecord,
    make_detector,
    make_observation_info,
    make_tangent_projection,
)
from lsst.diainspect.masks import PLANES_BAD_FOR_SUBTRACTION, make_mask_schema, masked_by
from lsst.diainspect.psf import PixelBasisPsf, measure_psf

from ._artefact import artefact_table
from ._coadd_template import coadd_epochs, coadd_psf, draw_epochs
from ._conditions import ObservingConditions
from ._ideal_snr import ideal_snr
from ._psf_field import PsfField
from ._render import CameraEffects, Rendering, render
from ._scene import Scene, SceneConfig, make_scene, truth_table

_DEFAULT_BORESIGHT = SkyCoord(62.0, -37.0, unit="deg")
"""In the area of DC2."""

_FIRST_NIGHT = Time("2026-01-01T04:00:00", format="isot", scale="tai")

# What a random number is for, so that more of one kind never changes another.
(
    _SKY,
    _CHANGES,
    _PSFS,
    _SCIENCE_NOISE,
    _TEMPLATE_NOISE,
    _EPOCHS,
    _STREAKS,
    _COSMIC_RAYS,
    _COLUMNS,
) = range(9)


@dataclass(frozen=True)
class SimulatedPair:
    """A science image and a template on one pixel grid, with the truth.

    Parameters
    ----------
    science : `lsst.images.VisitImage`
        Science image [nJy].
    template : `lsst.images.DifferenceImage`
        Template [nJy]; this class can play the template's role and needs no kernel for it.
    truth : `astropy.table.Table`
        Truth, one row an object (see `simulate_pair`).
    science_psf, template_psf : `lsst.diainspect.psf.PixelBasisPsf`
        The PSFs that the images carry: exact or measured.
    conditions : `ObservingConditions`
        Conditions of the visit.
    artefacts : `astropy.table.Table`
        What the camera and the coadd have put into the images, one row an artefact (see `artefact_table`).
    true_science_psf, true_template_psf : `lsst.diainspect.psf.PixelBasisPsf`
        The PSFs that the images were drawn with.
    """

    science: VisitImage
    template: DifferenceImage
    truth: Table
    science_psf: PixelBasisPsf
    template_psf: PixelBasisPsf
    conditions: ObservingConditions
    artefacts: Table
    true_science_psf: PixelBasisPsf
    true_template_psf: PixelBasisPsf


def exposure_record(
    camera: CameraLayout, visit: int, conditions: ObservingConditions, boresight: SkyCoord
) -> ExposureRecord:
    """Return the record of a simulated visit without its sky regions; each visit is a night after the last."""
    return ExposureRecord(
        instrument=camera.instrument,
        visit=visit,
        physical_filter=conditions.band,
        begin=_FIRST_NIGHT + TimeDelta(visit * u.day),
        exposure_time=conditions.exposure_time,
        boresight=boresight,
        target_name="simulated field",
        science_program="simulation",
        is_simulated=True,
    )


def simulate_pair(
    conditions: ObservingConditions | None = None,
    scene: SceneConfig | None = None,
    seed: int = 1,
    *,
    size: int | tuple[int, int] = DiaSim.DEFAULT_SIZE,
    origin: tuple[int, int] = (0, 0),
    visit: int = 1,
    detector: int = 0,
    boresight: SkyCoord = _DEFAULT_BORESIGHT,
) -> SimulatedPair:
    """Simulate the science image and template of one visit and detector of `lsst.diainspect.instruments.DiaSim`.

    The same arguments give the same pixels. Stars and galaxies depend on seed and detector only, so that two
    visits see the same sky; transients, PSFs and noise depend on the visit too.

    Parameters
    ----------
    conditions : `ObservingConditions`, optional
        Seeing, noise, calibration, registration.
    scene : `SceneConfig`, optional
        What the sky holds.
    seed : `int`, optional
        Seed of all randomness.
    size : `int` or `tuple` [`int`, `int`], optional
        Size of the detector, one side or (x, y) [pixel].
    origin : `tuple` [`int`, `int`], optional
        Coordinates x, y of the lower left pixel.
    visit, detector : `int`, optional
        Data ID.
    boresight : `astropy.coordinates.SkyCoord`, optional
        Pointing.

    Returns
    -------
    pair : `SimulatedPair`
        Images, truth and PSFs. Columns of the truth are objectId, kind (star, galaxy, transient, variable, moving),
        x, y (in the science image), templateX, templateY, ra, dec, mag, scienceFlux, templateFlux, fluxChange,
        idealSnr, idealSnrWithSources, scienceSnr, hostId, isTransient, isVariable, isSaturated, halfLightRadius,
        sersicIndex, g1, g2, perturbation (none, shift, width), shiftX, shiftY, widthChange; color; what the
        effects did to the object: jitterX, Y, dcrShiftX, Y, properMotionShiftX, Y, brighterFatterWidth,
        templateBrighterFatterWidth, fluxScale; isMoving, trailLength, trailAngle; hostOffset, hostSeparation,
        hostSurfaceBrightness, isLeftInTemplate. Each has unit and description.

    Raises
    ------
    lsst.diainspect.psf.TooFewStars
        If the PSFs are to be measured and an image has too few stars for that.
    """
    conditions = conditions if conditions is not None else ObservingConditions()
    scene = scene if scene is not None else SceneConfig()
    if min((size,) if isinstance(size, int) else size) < 64:
        raise ValueError(f"Simulated detectors need at least 64 pixels a side, got {size}.")
    camera = DiaSim.camera(size, origin)
    bbox = camera[detector].bbox
    projection = make_tangent_projection(camera, detector, boresight, visit)

    def rng(purpose: int, *numbers: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, detector, *numbers)))

    psf_rng = rng(_PSFS, visit)
    pixel_scale = camera.pixel_scale
    stamp_size = conditions.stamp_size(pixel_scale)
    coma = conditions.coma
    science_field, template_field = (
        PsfField.random(
            psf_rng,
            bbox,
            fwhm=seeing / pixel_scale,
            ellipticity=conditions.ellipticity,
            ellipticity_variation=conditions.ellipticity_variation,
            fwhm_variation=conditions.fwhm_variation,
            size=stamp_size,
            coma=(coma.x / pixel_scale, coma.y / pixel_scale)
            if coma is not None and is_science
            else (0.0, 0.0),
            coma_gradient=coma.gradient / pixel_scale if coma is not None and is_science else 0.0,
        )
        for is_science, seeing in ((True, conditions.science_seeing), (False, conditions.template_seeing))
    )
    science_psf = science_field.sampled()
    epochs = []
    if conditions.warped_coadd is None:
        template_psf = template_field.sampled()
    else:
        epochs = draw_epochs(
            conditions, bbox, rng(_EPOCHS, visit), pixel_scale=pixel_scale, stamp_size=stamp_size
        )
        template_psf = coadd_psf(epochs, bbox)
    objects = make_scene(
        scene,
        conditions,
        bbox,
        science_psf=science_psf,
        template_psf=template_psf,
        pixel_scale=pixel_scale,
        sky_rng=rng(_SKY),
        visit_rng=rng(_CHANGES, visit),
        visit=visit,
        detector=detector,
    )
    detection: dict[str, Any] = {
        "sky_level": conditions.sky_level,
        "read_noise": conditions.read_noise,
        "njy_per_electron": conditions.njy_per_electron,
        "saturation": conditions.saturation,
    }
    science = render(
        objects,
        science_field,
        rng(_SCIENCE_NOISE, visit),
        is_science=True,
        common_shift=(conditions.shift_x, conditions.shift_y),
        flux_scale=conditions.flux_scale,
        effects=CameraEffects(
            conditions,
            pixel_scale,
            streak_rng=rng(_STREAKS, visit),
            cosmic_ray_rng=rng(_COSMIC_RAYS, visit),
            column_rng=rng(_COLUMNS),
        ),
        **detection,
    )
    template_rng = rng(_TEMPLATE_NOISE, visit)
    if conditions.warped_coadd is None:
        template = render(
            objects,
            template_field,
            template_rng,
            is_science=False,
            n_epochs=conditions.template_epochs,
            **detection,
        )
    else:
        template = coadd_epochs(objects, epochs, conditions, bbox, template_rng)
    record = exposure_record(camera, visit, conditions, boresight)

    def planes(rendering: Rendering) -> dict[str, Any]:
        mask = Mask(schema=make_mask_schema(), bbox=bbox)
        mask.set("SATURATED", rendering.saturated)
        for name, plane in rendering.planes.items():
            mask.set(name, plane)
        return {
            "image": Image(rendering.image, bbox=bbox, unit=u.nJy),
            "mask": mask,
            "variance": Image(rendering.variance, bbox=bbox, unit=u.nJy**2),
            "sky_projection": projection,
            "obs_info": make_observation_info(record, detector, camera[detector].name),
            "detector": make_detector(camera, detector, visit),
            "band": conditions.band,
        }

    science_planes, template_planes = planes(science), planes(template)
    carried = [science_psf, template_psf]
    if conditions.psf == "piff":
        carried = [
            measure_psf(
                entry["image"].array,
                entry["variance"].array,
                masked_by(entry["mask"], PLANES_BAD_FOR_SUBTRACTION),
                bbox,
                order=None,
                size=stamp_size,
                name=f"{name} of visit {visit}, detector {detector}",
            ).psf
            for name, entry in (("science image", science_planes), ("template", template_planes))
        ]
    column = np.clip(np.rint(objects.x).astype(int) - bbox.x.start, 0, bbox.x.size - 1)
    row = np.clip(np.rint(objects.y).astype(int) - bbox.y.start, 0, bbox.y.size - 1)
    saturated = (science.saturated | template.saturated)[row, column]
    return SimulatedPair(
        science=VisitImage(psf=carried[0].to_piff(), **science_planes),
        template=DifferenceImage(psf=carried[1].to_piff(), **template_planes),
        truth=truth_table(
            objects,
            projection,
            conditions,
            saturated,
            bounds=bbox,
            ideal_snr_with_sources=_ideal_snr_with_sources(
                objects, conditions, bbox, (science_psf, template_psf), (science.variance, template.variance)
            ),
        ),
        science_psf=carried[0],
        template_psf=carried[1],
        conditions=conditions,
        artefacts=artefact_table(science.artefacts, template.artefacts),
        true_science_psf=science_psf,
        true_template_psf=template_psf,
    )


def _ideal_snr_with_sources(
    objects: Scene,
    conditions: ObservingConditions,
    bbox: Box,
    psfs: tuple[PixelBasisPsf, PixelBasisPsf],
    variances: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return the ideal S/N of each object that changed, with the noise of all light at its place; NaN for others."""
    snr = np.full(len(objects), np.nan)
    changed = np.flatnonzero(objects.science_flux != objects.template_flux)
    x, y = objects.x[changed], objects.y[changed]
    shift_x = conditions.shift_x + objects.shift_x[changed]
    shift_y = conditions.shift_y + objects.shift_y[changed]
    scale = conditions.flux_scale**2
    template_sky = conditions.template_sky_variance
    template_variance = variances[1]
    if conditions.warped_coadd is not None:
        # Resampled pixels have less noise on their own than the sums over many that a PSF takes.
        template_variance = template_variance * (template_sky / np.nanmedian(template_variance))
    snr[changed] = ideal_snr(
        (objects.science_flux - objects.template_flux)[changed],
        (x + shift_x, y + shift_y),
        (x, y),
        psfs=psfs,
        variances=(variances[0] / scale, template_variance),
        sky_variances=(conditions.science_sky_variance / scale, template_sky),
        box=bbox,
        trail=(objects.trail_length[changed], np.nan_to_num(objects.trail_angle[changed])),
    )
    return snr
