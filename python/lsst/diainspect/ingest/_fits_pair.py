"""A science image and a template from FITS files as the images that the tasks read."""

from __future__ import annotations

__all__ = ["FitsPair", "ingest_pair", "read_fits_pair"]

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.time import Time
from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType
from lsst.images import Box, DetectorFrame, DifferenceImage, Image, Mask, SkyProjection, VisitImage

from lsst.diainspect.instruments import (
    DiaFits,
    ExposureRecord,
    check_numbers,
    insert_exposure_records,
    make_detector,
    make_observation_info,
    pixel_region,
    single_detector,
)
from lsst.diainspect.masks import MASK_BITS, make_mask_schema
from lsst.diainspect.warping import NoisePower

from ._fits_file import FitsPlane, IngestError, read_plane
from ._fits_image import FitsImage, FitsImageSource, check_shape, pixel_area, read_fits_image, read_wcs
from ._fits_psf import DEFAULT_PSF_SIZE
from ._warped_template import grid_distance, warp_template

_LOG = logging.getLogger(__name__)

type Path = str | os.PathLike[str]

_GRID_TOLERANCE = 0.5
"""Largest difference of the two images' coordinate systems on what is said to be one grid [pixel]. What is left below
that the subtraction measures from the stars."""

_DATE_KEYWORDS = ("MJD-OBS", "DATE-OBS", "MJD-BEG", "DATE-BEG")
_EXPOSURE_TIME_KEYWORDS = ("EXPTIME", "EXPOSURE", "XPOSURE")

_IMAGE_TYPES = {"visit_image": "VisitImage", "template_detector": "DifferenceImage"}


@dataclass(frozen=True)
class FitsPair:
    """A science image and a template read from files.

    Parameters
    ----------
    science : `lsst.images.VisitImage`
        Science image [nJy].
    template : `lsst.images.DifferenceImage`
        Template on the science image's pixel grid [nJy].
    exposure : `lsst.diainspect.instruments.ExposureRecord`
        What the repository should know of the science exposure.
    detector : `int`
        Detector number.
    science_psf_stars, template_psf_stars : `astropy.table.Table` or `None`
        Stars that the PSFs were measured from, with their quality; `None` for PSFs that were given.
    template_noise_power : `lsst.diainspect.warping.NoisePower` or `None`
        Correlation of the noise of a template that was warped.
    """

    science: VisitImage
    template: DifferenceImage
    exposure: ExposureRecord
    detector: int
    science_psf_stars: Table | None = None
    template_psf_stars: Table | None = None
    template_noise_power: NoisePower | None = None


def read_fits_pair(
    science: FitsImageSource,
    template: FitsImageSource,
    *,
    visit: int = 1,
    detector: int = 0,
    band: str | None = None,
    physical_filter: str | None = None,
    date: str | None = None,
    exposure_time: float | None = None,
    psf_size: int = DEFAULT_PSF_SIZE,
    mask_plane: str = "BAD",
    warp: str = "auto",
) -> FitsPair:
    """Read a science image and a template.

    Pixels that are NaN, and areas of exactly zero, get NO_DATA; pixels whose noise is not positive and finite get BAD
    and the median variance; pixels that the mask file marks get ``mask_plane``; saturated pixels get SATURATED. A
    template on another pixel grid is warped to the science image's.

    Parameters
    ----------
    science, template : `FitsImageSource`
        Files. The template may lack a coordinate system if it is on the science image's pixel grid.
    visit, detector : `int`, optional
        Data ID to give the pair.
    band : `str`, optional
        Band; the physical filter when omitted.
    physical_filter : `str`, optional
        Filter; FILTER of the science header, else the band, when omitted.
    date : `str`, optional
        Start of the science exposure, ISO format, UTC; from the science header when omitted.
    exposure_time : `float`, optional
        Exposure time [s]; from the science header when omitted.
    psf_size : `int`, optional
        Side to which PSFs are cut, odd [pixel].
    mask_plane : `str`, optional
        Plane for pixels that the mask files mark.
    warp : `str`, optional
        Whether to warp the template: ``auto``, where its grid is another shape or more than half a pixel off;
        ``always``; or ``never``, which refuses such a template.

    Returns
    -------
    pair : `FitsPair`
        The images and the record of the exposure.

    Raises
    ------
    IngestError
        If a file is missing or not usable, or the files do not fit together; the message names the file.
    lsst.diainspect.psf.TooFewStars
        If a PSF has to be measured and there are too few stars.
    """
    if warp not in ("auto", "always", "never"):
        raise IngestError(f"warp must be auto, always or never, got {warp!r}.")
    if mask_plane not in MASK_BITS:
        raise IngestError(f"Mask plane {mask_plane!r} is not known; known are {list(MASK_BITS)}.")
    try:
        check_numbers(visit, detector)
    except ValueError as error:
        raise IngestError(str(error)) from error
    plane = read_plane(science.image)
    wcs = read_wcs(plane)
    if wcs is None:
        raise IngestError(
            f"{plane.name}: has no celestial coordinate system (CTYPE1, CTYPE2, ...) in its header."
        )
    template_plane = read_plane(template.image)
    template_wcs = read_wcs(template_plane)
    warped = _must_warp(template_plane, template_wcs, plane, wcs, warp)
    bbox = Box.from_shape(plane.array.shape)
    area = pixel_area(wcs, bbox)
    pixel_scale = float(np.sqrt(area.to_value(u.arcsec**2)))

    filter_name = _filter(plane, physical_filter, band)
    exposure = ExposureRecord(
        instrument=DiaFits.getName(),
        visit=visit,
        physical_filter=filter_name,
        begin=_begin(plane, date),
        exposure_time=_exposure_time(plane, exposure_time),
        target_name=str(plane.header.get("OBJECT") or plane.header.get("TARGNAME") or "unknown")[:64],
    )
    camera = single_detector(DiaFits.getName(), detector=detector, bbox=bbox, pixel_scale=pixel_scale)
    frame = DetectorFrame(instrument=DiaFits.getName(), visit=visit, detector=detector, bbox=bbox)
    projection = SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=bbox)
    exposure = replace(
        exposure,
        regions={detector: pixel_region(projection, bbox)},
        boresight=projection.pixel_to_sky(x=0.5 * (bbox.x.size - 1), y=0.5 * (bbox.y.size - 1)),
    )

    def contents(image: FitsImage) -> dict[str, Any]:
        mask = Mask(schema=make_mask_schema(), bbox=bbox)
        for name, where in image.planes.items():
            mask.set(name, where)
        return {
            "image": Image(image.pixels, bbox=bbox, unit=u.nJy),
            "mask": mask,
            "variance": Image(image.variance, bbox=bbox, unit=u.nJy**2),
            "sky_projection": projection,
            "obs_info": make_observation_info(exposure, detector, camera[detector].name),
            "detector": make_detector(camera, detector, visit),
            "psf": image.psf.to_piff(),
            "band": band if band is not None else filter_name,
            "metadata": {
                f"diainspect_{name}": value for name, value in image.metadata.items() if value is not None
            },
        }

    settings: dict[str, Any] = {"psf_size": psf_size, "mask_plane": mask_plane}
    science_image = read_fits_image(science, plane, wcs, area, **settings)
    noise_power = None
    if warped:
        assert template_wcs is not None, "Guaranteed by _must_warp."
        template_area = pixel_area(template_wcs, Box.from_shape(template_plane.array.shape))
        template_image = read_fits_image(template, template_plane, template_wcs, template_area, **settings)
        template_image, noise_power = _warp(template_image, wcs, bbox, psf_size)
    else:
        template_image = read_fits_image(template, template_plane, wcs, area, **settings)
    return FitsPair(
        science=VisitImage(**contents(science_image)),
        template=DifferenceImage(**contents(template_image)),
        exposure=exposure,
        detector=detector,
        science_psf_stars=science_image.psf_stars,
        template_psf_stars=template_image.psf_stars,
        template_noise_power=noise_power,
    )


def ingest_pair(
    repo: Path,
    science: FitsImageSource,
    template: FitsImageSource,
    *,
    run: str = "DiaFits/input",
    visit: int = 1,
    detector: int = 0,
    band: str | None = None,
    physical_filter: str | None = None,
    date: str | None = None,
    exposure_time: float | None = None,
    psf_size: int = DEFAULT_PSF_SIZE,
    mask_plane: str = "BAD",
    warp: str = "auto",
) -> list[DatasetRef]:
    """Write a science image and a template into a repository, which is created when missing.

    Parameters
    ----------
    repo : `str` or path-like
        Root of the repository.
    science, template : `FitsImageSource`
        Files.
    run : `str`, optional
        RUN collection to write.
    visit, detector, band, physical_filter, date, exposure_time, psf_size, mask_plane, warp
        As for `read_fits_pair`.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        The datasets ``visit_image`` and ``template_detector`` of instrument ``DiaFits``; then
        ``science_psf_stars`` and ``template_psf_stars`` where PSFs were measured, and ``template_noise_power`` where
        the template was warped.

    Raises
    ------
    IngestError
        If the files cannot be used, or the repository has this visit with other values or this pair already.
    """
    pair = read_fits_pair(
        science,
        template,
        visit=visit,
        detector=detector,
        band=band,
        physical_filter=physical_filter,
        date=date,
        exposure_time=exposure_time,
        psf_size=psf_size,
        mask_plane=mask_plane,
        warp=warp,
    )
    repo = os.fspath(repo)
    if not Butler.has_repo_config(repo):
        _LOG.info("Creating the repository %s.", repo)
        Butler.makeRepo(repo)
    with Butler.from_config(repo, writeable=True) as butler:
        return _write(butler, pair, run)


def _write(butler: Butler, pair: FitsPair, run: str) -> list[DatasetRef]:
    instrument = DiaFits()
    instrument.register(butler.registry)
    data_id = {"instrument": instrument.getName(), "visit": pair.exposure.visit, "detector": pair.detector}
    try:
        instrument.register_detector(butler.registry, pair.detector)
        instrument.register_filter(butler.registry, pair.exposure.physical_filter, pair.science.band)
        insert_exposure_records(butler, pair.exposure)
    except ValueError as error:
        raise IngestError(str(error)) from error
    butler.collections.register(run, CollectionType.RUN)
    datasets: dict[str, tuple[str, Any]] = {
        name: (storage_class, image)
        for (name, storage_class), image in zip(
            _IMAGE_TYPES.items(), (pair.science, pair.template), strict=True
        )
    }
    for name, table in (
        ("science_psf_stars", pair.science_psf_stars),
        ("template_psf_stars", pair.template_psf_stars),
        (
            "template_noise_power",
            None if pair.template_noise_power is None else pair.template_noise_power.to_table(),
        ),
    ):
        if table is not None:
            datasets[name] = ("ArrowAstropy", table)
    for name, (storage_class, _) in datasets.items():
        butler.registry.registerDatasetType(
            DatasetType(name, ("instrument", "visit", "detector"), storage_class, universe=butler.dimensions)
        )
        if butler.find_dataset(name, data_id, collections=run) is not None:
            raise IngestError(
                f"Collection {run} already has {name} for visit {pair.exposure.visit}, detector {pair.detector}: "
                f"use another visit, another detector or another run."
            )
    return [butler.put(dataset, name, data_id, run=run) for name, (_, dataset) in datasets.items()]


def _must_warp(
    template: FitsPlane, template_wcs: Any, science: FitsPlane, science_wcs: Any, warp: str
) -> bool:
    """Whether the template is on another pixel grid and is to be warped.

    Raises
    ------
    IngestError
        If it is and cannot or must not be warped.
    """
    if template_wcs is None:
        if warp == "always":
            raise IngestError(f"{template.name}: has no celestial coordinate system, so it cannot be warped.")
        check_shape(template, science)
        return False
    same_shape = template.array.shape == science.array.shape
    distance = grid_distance(template_wcs, science_wcs, science.array.shape)
    if warp == "always" or (warp == "auto" and not (same_shape and distance <= _GRID_TOLERANCE)):
        return True
    check_shape(template, science)
    if not distance <= _GRID_TOLERANCE:
        raise IngestError(
            f"{template.name}: its coordinate system is up to {distance:.3g} pixels off that of {science.name}; "
            f"let it be warped, or resample it to the science image's grid."
        )
    return False


def _warp(image: FitsImage, wcs: Any, bbox: Box, psf_size: int) -> tuple[FitsImage, NoisePower]:
    warped = warp_template(
        image.name,
        image.pixels,
        image.variance,
        image.planes,
        image.psf,
        image.wcs,
        wcs,
        bbox,
        psf_size=psf_size,
    )
    _LOG.info(
        "%s: warped by up to %.1f pixels, pixel scale ratio %.3f.",
        image.name,
        warped.metadata["warpLargestShift"],
        warped.metadata["warpPixelScale"],
    )
    on_science_grid = replace(
        image,
        pixels=warped.pixels,
        variance=warped.variance,
        planes=warped.planes,
        psf=warped.psf,
        wcs=wcs,
        metadata={**image.metadata, **warped.metadata},
    )
    return on_science_grid, warped.noise_power


def _filter(plane: FitsPlane, physical_filter: str | None, band: str | None) -> str:
    name = physical_filter or str(plane.header.get("FILTER", "")).strip() or band
    if not name:
        raise IngestError(f"{plane.name}: has no FILTER in its header; give a band or a physical filter.")
    if len(name) > 32 or len(band or "") > 32:
        raise IngestError(f"Names of filters and bands may have 32 characters, got {name!r}, {band!r}.")
    return name


def _begin(plane: FitsPlane, date: str | None) -> Time:
    if date is not None:
        try:
            return Time(date, scale="utc")
        except ValueError as error:
            raise IngestError(f"Date {date!r} is not in ISO format: {error}") from error
    scale = str(plane.header.get("TIMESYS", "UTC")).strip().lower()
    for keyword in _DATE_KEYWORDS:
        value = plane.header.get(keyword)
        if value in (None, ""):
            continue
        try:
            if keyword.startswith("MJD"):
                return Time(float(value), format="mjd", scale=scale)
            return Time(str(value), scale=scale)
        except (ValueError, TypeError):
            continue
    raise IngestError(f"{plane.name}: has no time of observation ({', '.join(_DATE_KEYWORDS)}); give a date.")


def _exposure_time(plane: FitsPlane, exposure_time: float | None) -> float:
    if exposure_time is not None:
        if not exposure_time > 0:
            raise IngestError(f"Exposure time must be positive, got {exposure_time} s.")
        return exposure_time
    for keyword in _EXPOSURE_TIME_KEYWORDS:
        value = plane.header.get(keyword)
        if isinstance(value, int | float) and value > 0:
            return float(value)
    raise IngestError(
        f"{plane.name}: has no exposure time ({', '.join(_EXPOSURE_TIME_KEYWORDS)}); give an exposure time."
    )
