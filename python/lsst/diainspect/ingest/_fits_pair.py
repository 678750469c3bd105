"""A science image and a template from FITS files, on one pixel grid, as the images that the tasks read."""

from __future__ import annotations

__all__ = ["FitsImageSource", "FitsPair", "ingest_pair", "read_fits_pair"]

import logging
import os
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import FK5, ICRS
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import wcs_to_celestial_frame
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
from lsst.diainspect.psf import PixelBasisPsf

from ._fits_file import FitsPlane, IngestError, read_plane
from ._fits_psf import DEFAULT_PSF_SIZE, read_psf
from ._pixel_unit import PixelUnit

_LOG = logging.getLogger(__name__)

type Path = str | os.PathLike[str]

_GRID_TOLERANCE = 0.5
"""Largest difference of the two images' coordinate systems on what is said to be one grid [pixel]."""

_AREA_TOLERANCE = 0.002
"""Relative difference of the header's nominal pixel area from that of the coordinate system worth a word."""

_DATE_KEYWORDS = ("MJD-OBS", "DATE-OBS", "MJD-BEG", "DATE-BEG")
_EXPOSURE_TIME_KEYWORDS = ("EXPTIME", "EXPOSURE", "XPOSURE")

_DATASET_TYPES = {"visit_image": "VisitImage", "template_detector": "DifferenceImage"}


@dataclass(frozen=True)
class FitsImageSource:
    """The files that make one image. Each may name an extension in brackets: ``file.fits[SCI]``.

    Parameters
    ----------
    image : `str` or path-like
        The image.
    psf : `str` or path-like
        Its PSF, square, of odd side, in the same pixels.
    noise : `str` or path-like, optional
        Standard deviation of each pixel.
    variance : `str` or path-like, optional
        Variance of each pixel; either this or ``noise``.
    mask : `str` or path-like, optional
        Mask: pixels that are not zero are bad.
    pixel_unit : `PixelUnit`, optional
        What a pixel is worth, where the header does not say.
    """

    image: Path
    psf: Path
    noise: Path | None = None
    variance: Path | None = None
    mask: Path | None = None
    pixel_unit: PixelUnit = field(default_factory=PixelUnit)

    def __post_init__(self) -> None:
        if (self.noise is None) == (self.variance is None):
            raise IngestError(f"{os.fspath(self.image)}: give either a noise or a variance file.")


@dataclass(frozen=True)
class FitsPair:
    """A science image and a template read from files.

    Parameters
    ----------
    science : `lsst.images.VisitImage`
        Science image [nJy].
    template : `lsst.images.DifferenceImage`
        Template [nJy].
    exposure : `lsst.diainspect.instruments.ExposureRecord`
        What the repository should know of the science exposure.
    detector : `int`
        Detector number.
    """

    science: VisitImage
    template: DifferenceImage
    exposure: ExposureRecord
    detector: int


@dataclass(frozen=True)
class _Planes:
    image: np.ndarray
    variance: np.ndarray
    bad: np.ndarray
    no_data: np.ndarray


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
) -> FitsPair:
    """Read a science image and a template that are on one pixel grid.

    Pixels that are NaN get NO_DATA; pixels whose noise is not positive and finite get BAD and the median variance;
    pixels that the mask file marks get ``mask_plane``.

    Parameters
    ----------
    science, template : `FitsImageSource`
        Files. The template may lack a coordinate system; if it has one it must agree with the science image's.
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

    Returns
    -------
    pair : `FitsPair`
        The images and the record of the exposure.

    Raises
    ------
    IngestError
        If a file is missing or not usable, or the files do not fit together; the message names the file.
    """
    if mask_plane not in MASK_BITS:
        raise IngestError(f"Mask plane {mask_plane!r} is not known; known are {list(MASK_BITS)}.")
    try:
        check_numbers(visit, detector)
    except ValueError as error:
        raise IngestError(str(error)) from error
    plane = read_plane(science.image)
    wcs = _read_wcs(plane)
    if wcs is None:
        raise IngestError(
            f"{plane.name}: has no celestial coordinate system (CTYPE1, CTYPE2, ...) in its header."
        )
    template_plane = read_plane(template.image)
    _check_shape(template_plane, plane)
    _check_grid(template_plane, plane, wcs)
    bbox = Box.from_shape(plane.array.shape)
    area = _pixel_area(wcs, bbox)
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

    def contents(source: FitsImageSource, image: FitsPlane) -> dict[str, Any]:
        planes = _read_planes(source, image, area)
        mask = Mask(schema=make_mask_schema(), bbox=bbox)
        mask.set("BAD", planes.bad)
        mask.set("NO_DATA", planes.no_data)
        if source.mask is not None:
            mask.set(mask_plane, _read_mask(source.mask, image))
        psf: PixelBasisPsf = read_psf(source.psf, bbox, size=psf_size, pixel_scale=pixel_scale)
        return {
            "image": Image(planes.image, bbox=bbox, unit=u.nJy),
            "mask": mask,
            "variance": Image(planes.variance, bbox=bbox, unit=u.nJy**2),
            "sky_projection": projection,
            "obs_info": make_observation_info(exposure, detector, camera[detector].name),
            "detector": make_detector(camera, detector, visit),
            "psf": psf.to_piff(),
            "band": band if band is not None else filter_name,
        }

    return FitsPair(
        science=VisitImage(**contents(science, plane)),
        template=DifferenceImage(**contents(template, template_plane)),
        exposure=exposure,
        detector=detector,
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
    visit, detector, band, physical_filter, date, exposure_time, psf_size, mask_plane
        As for `read_fits_pair`.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        The datasets ``visit_image`` and ``template_detector`` of instrument ``DiaFits``.

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
    for name, storage_class in _DATASET_TYPES.items():
        butler.registry.registerDatasetType(
            DatasetType(name, ("instrument", "visit", "detector"), storage_class, universe=butler.dimensions)
        )
        if butler.find_dataset(name, data_id, collections=run) is not None:
            raise IngestError(
                f"Collection {run} already has {name} for visit {pair.exposure.visit}, detector {pair.detector}: "
                f"use another visit, another detector or another run."
            )
    return [
        butler.put(pair.science, "visit_image", data_id, run=run),
        butler.put(pair.template, "template_detector", data_id, run=run),
    ]


def _read_wcs(plane: FitsPlane) -> WCS | None:
    """Read the coordinate system; None where there is none.

    Raises
    ------
    IngestError
        If it is not ICRS or FK5 J2000.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(plane.header)
        except Exception as error:
            raise IngestError(f"{plane.name}: its coordinate system cannot be read ({error}).") from error
    if not wcs.has_celestial:
        return None
    frame = wcs_to_celestial_frame(wcs)
    if not isinstance(frame, ICRS) and not (isinstance(frame, FK5) and frame.equinox == Time("J2000")):
        raise IngestError(
            f"{plane.name}: coordinates must be ICRS or FK5 J2000, got {frame.name}; convert the header."
        )
    return wcs


def _check_shape(plane: FitsPlane, science: FitsPlane) -> None:
    if plane.array.shape != science.array.shape:
        height, width = plane.array.shape
        expected_height, expected_width = science.array.shape
        raise IngestError(
            f"{plane.name}: has {width} x {height} pixels, {science.name} has {expected_width} x {expected_height}; "
            f"all must be on one pixel grid."
        )


def _check_grid(template: FitsPlane, science: FitsPlane, science_wcs: WCS) -> None:
    """Refuse a template whose coordinate system says that its pixels are elsewhere."""
    template_wcs = _read_wcs(template)
    if template_wcs is None:
        return
    height, width = science.array.shape
    x = np.array([0.0, width - 1.0, 0.0, width - 1.0, 0.5 * (width - 1)])
    y = np.array([0.0, 0.0, height - 1.0, height - 1.0, 0.5 * (height - 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            there = template_wcs.all_world2pix(science_wcs.all_pix2world(np.column_stack([x, y]), 0), 0)
        except Exception as error:
            raise IngestError(
                f"{template.name}: its coordinates do not overlap with {science.name} ({error})."
            ) from error
    distance = float(np.max(np.hypot(there[:, 0] - x, there[:, 1] - y)))
    if not distance <= _GRID_TOLERANCE:
        raise IngestError(
            f"{template.name}: its coordinate system is up to {distance:.3g} pixels off that of {science.name}; "
            f"resample it to the science image's grid."
        )


def _pixel_area(wcs: WCS, bbox: Box) -> u.Quantity:
    """Return the sky area of the pixel at the centre of the image."""
    x, y = 0.5 * (bbox.x.size - 1), 0.5 * (bbox.y.size - 1)
    pixels = np.array([[x - 0.5, y], [x + 0.5, y], [x, y - 0.5], [x, y + 0.5]])
    ra, dec = np.deg2rad(wcs.all_pix2world(pixels, 0)).T
    unit_vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    along_x = unit_vectors[1] - unit_vectors[0]
    along_y = unit_vectors[3] - unit_vectors[2]
    return float(np.linalg.norm(np.cross(along_x, along_y))) * u.sr


def _read_planes(source: FitsImageSource, plane: FitsPlane, area: u.Quantity) -> _Planes:
    """Read image and noise, converted to nJy, with what is wrong with them."""
    nominal = plane.header.get("PIXAR_SR")
    if isinstance(nominal, float) and abs(nominal / area.to_value(u.sr) - 1.0) > _AREA_TOLERANCE:
        _LOG.info(
            "%s: PIXAR_SR is %.5g, the pixels of its coordinate system are %.5g sr, which is used.",
            plane.name,
            nominal,
            area.to_value(u.sr),
        )
    njy = source.pixel_unit.njy(plane.header, plane.name, area)
    no_data = ~np.isfinite(plane.array)
    is_variance = source.variance is not None
    noise_source = source.variance if source.variance is not None else source.noise
    assert noise_source is not None, "Guaranteed by FitsImageSource."
    noise = read_plane(noise_source)
    _check_shape(noise, plane)
    noise_njy = source.pixel_unit.njy_of_noise(noise.header, noise.name, area, njy, is_variance=is_variance)
    bad = ~np.isfinite(noise.array) | ~(noise.array > 0)
    usable = ~bad & ~no_data
    if not usable.any():
        raise IngestError(f"{plane.name}, {noise.name}: no pixel has both a value and a positive noise.")
    variance = noise.array * noise_njy if is_variance else (noise.array * noise_njy) ** 2
    # Flagged pixels get a value that no sum over the image chokes on.
    variance[bad] = np.median(variance[usable])
    if bad.any() or no_data.any():
        _LOG.info(
            "%s: %d pixels without data, %d without a positive noise.",
            plane.name,
            int(no_data.sum()),
            int(bad.sum()),
        )
    image = np.where(no_data, np.nan, plane.array * njy)
    return _Planes(image.astype(np.float32), variance.astype(np.float32), bad, no_data)


def _read_mask(source: Path, plane: FitsPlane) -> np.ndarray:
    mask = read_plane(source)
    _check_shape(mask, plane)
    return mask.array != 0


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
