"""Another visit of the repository as template of a visit, warped to its pixel grid where needed."""

from __future__ import annotations

__all__ = ["ingest_visit_as_template", "template_from_visit"]

import os
from typing import Any

import numpy as np
from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType
from lsst.images import DifferenceImage, Image, Mask, VisitImage

from lsst.diainspect.masks import make_mask_schema
from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.warping import NoisePower

from ._fits_file import IngestError
from ._warped_template import grid_distance, warp_template

_SAME_GRID = 1e-3
"""Largest difference of two coordinate systems that are one [pixel]."""


def template_from_visit(science: VisitImage, other: VisitImage) -> tuple[DifferenceImage, NoisePower | None]:
    """Make a template of another visit's image.

    Parameters
    ----------
    science : `lsst.images.VisitImage`
        Image to be subtracted from.
    other : `lsst.images.VisitImage`
        Image of the same sky in the same units.

    Returns
    -------
    template : `lsst.images.DifferenceImage`
        The other image on the science image's pixel grid, with variance, mask and PSF.
    noise_power : `lsst.diainspect.warping.NoisePower` or `None`
        Correlation of the noise that warping made; `None` where none was needed.

    Raises
    ------
    IngestError
        If the images have other units or filters, or hardly overlap.
    """
    name = f"Visit {other.obs_info.visit_id}"
    if other.unit is None or science.unit is None or not other.unit.is_equivalent(science.unit):
        raise IngestError(f"{name} has pixels in {other.unit}, the science image in {science.unit}.")
    if other.band != science.band:
        raise IngestError(f"{name} is in band {other.band!r}, the science image in {science.band!r}.")
    factor = float(other.unit.to(science.unit))
    pixels = np.asarray(other.image.array, dtype=np.float32) * np.float32(factor)
    variance = np.asarray(other.variance.array, dtype=np.float32) * np.float32(factor**2)
    bad_variance = ~(np.isfinite(variance) & (variance > 0))
    variance = np.where(bad_variance, np.median(variance[~bad_variance]), variance)
    planes = {plane: other.mask.get(plane) for plane in other.mask.schema.names}
    planes["NO_DATA"] = (
        planes.get("NO_DATA", np.zeros(pixels.shape, bool)) | ~np.isfinite(pixels) | bad_variance
    )
    psf = PixelBasisPsf.from_point_spread_function(other.psf, other.bbox)
    bounds = science.bbox
    science_wcs, other_wcs = (image.sky_projection.as_astropy(image.bbox) for image in (science, other))
    metadata: dict[str, Any] = {"templateVisit": other.obs_info.visit_id, "warped": False}
    noise_power = None
    distance = grid_distance(other_wcs, science_wcs, (bounds.y.size, bounds.x.size))
    if other.bbox != bounds or not distance < _SAME_GRID:
        warped = warp_template(
            name, pixels, variance, planes, psf, other_wcs, science_wcs, bounds, psf_size=psf.size
        )
        pixels, variance, planes, psf = warped.pixels, warped.variance, warped.planes, warped.psf
        noise_power = warped.noise_power
        metadata.update(warped.metadata)
    mask = Mask(schema=make_mask_schema(), bbox=bounds)
    for plane, where in planes.items():
        if plane in mask.schema.names:
            mask.set(plane, where)
    template = DifferenceImage(
        image=Image(pixels, bbox=bounds, unit=science.unit),
        mask=mask,
        variance=Image(variance, bbox=bounds, unit=science.unit**2),
        sky_projection=science.sky_projection,
        obs_info=other.obs_info,
        detector=science.detector,
        psf=psf.to_piff(),
        band=other.band,
        metadata={f"diainspect_{key}": value for key, value in metadata.items()},
    )
    return template, noise_power


def ingest_visit_as_template(
    repo: str | os.PathLike[str],
    *,
    visit: int,
    detector: int,
    from_visit: int,
    from_detector: int | None = None,
    instrument: str = "DiaFits",
    collections: str | list[str] = "DiaFits/input",
    science_name: str = "visit_image",
    run: str | None = None,
) -> list[DatasetRef]:
    """Write another visit's image as the template of a visit.

    Parameters
    ----------
    repo : `str` or path-like
        Root of the repository.
    visit, detector : `int`
        Whose template to write.
    from_visit : `int`
        Visit that becomes the template.
    from_detector : `int`, optional
        Its detector; the same number when omitted.
    instrument : `str`, optional
        Instrument of both.
    collections : `str` or `list` [`str`], optional
        Where the images are.
    science_name : `str`, optional
        Dataset type of the images.
    run : `str`, optional
        RUN collection to write; ``{instrument}/templates`` when omitted. In a pipeline run it goes before the
        images' collection, the templates of which it then replaces.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        ``template_detector``, and ``template_noise_power`` where the template was warped.

    Raises
    ------
    IngestError
        If an image is missing or the two do not fit together, or the run has this template already.
    """
    if from_visit == visit and (from_detector is None or from_detector == detector):
        raise IngestError(f"Visit {visit} cannot be its own template.")
    run = run if run is not None else f"{instrument}/templates"
    data_id = {"instrument": instrument, "visit": visit, "detector": detector}
    other_id = {
        **data_id,
        "visit": from_visit,
        "detector": detector if from_detector is None else from_detector,
    }
    with Butler.from_config(os.fspath(repo), writeable=True) as butler:
        images = []
        for which in (data_id, other_id):
            ref = butler.find_dataset(science_name, which, collections=collections)
            if ref is None:
                raise IngestError(
                    f"There is no {science_name} of {instrument} visit {which['visit']}, detector "
                    f"{which['detector']} in {collections}."
                )
            images.append(butler.get(ref))
        template, noise_power = template_from_visit(*images)
        datasets: dict[str, tuple[str, Any]] = {"template_detector": ("DifferenceImage", template)}
        if noise_power is not None:
            datasets["template_noise_power"] = ("ArrowAstropy", noise_power.to_table())
        butler.collections.register(run, CollectionType.RUN)
        for name, (storage_class, _) in datasets.items():
            butler.registry.registerDatasetType(
                DatasetType(
                    name, ("instrument", "visit", "detector"), storage_class, universe=butler.dimensions
                )
            )
            if butler.find_dataset(name, data_id, collections=run) is not None:
                raise IngestError(
                    f"Collection {run} already has {name} for visit {visit}, detector {detector}: use another run."
                )
        return [butler.put(dataset, name, data_id, run=run) for name, (_, dataset) in datasets.items()]
