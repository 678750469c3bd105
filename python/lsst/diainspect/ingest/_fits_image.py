"""One image from FITS files, calibrated: pixels, variance, mask planes and PSF, what is not given estimated."""

from __future__ import annotations

__all__ = ["FitsImage", "FitsImageSource", "check_shape", "pixel_area", "read_fits_image", "read_wcs"]

import logging
import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import FK5, ICRS
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import wcs_to_celestial_frame
from lsst.images import Box

from lsst.diainspect.masks import MASK_BITS
from lsst.diainspect.psf import PixelBasisPsf, measure_psf

from ._estimated_noise import NoiseSettings, estimate_noise, saturated_pixels, unexposed_pixels
from ._fits_file import FitsPlane, IngestError, read_plane
from ._fits_psf import DEFAULT_PSF_SIZE, read_psf
from ._pixel_unit import PixelUnit

_LOG = logging.getLogger(__name__)

type Path = str | os.PathLike[str]

_AREA_TOLERANCE = 0.002
"""Relative difference of the header's nominal pixel area from that of the coordinate system worth a word."""


@dataclass(frozen=True)
class FitsImageSource:
    """The files that make one image. Each may name an extension in brackets: ``file.fits[SCI]``.

    Parameters
    ----------
    image : `str` or path-like
        The image.
    psf : `str` or path-like, optional
        Its PSF, square, of odd side, in the same pixels; measured from the image's stars when omitted.
    noise : `str` or path-like, optional
        Standard deviation of each pixel.
    variance : `str` or path-like, optional
        Variance of each pixel, in place of ``noise``; estimated from the sky when both are omitted.
    mask : `str` or path-like, optional
        Mask: pixels that are not zero are bad.
    pixel_unit : `PixelUnit`, optional
        What a pixel is worth, where the header does not say.
    noise_settings : `NoiseSettings`, optional
        Gain, saturation and background.
    psf_order : `int`, optional
        Spatial order of a measured PSF; the highest up to 2 that the number of stars allows when omitted.
    min_stars : `int`, optional
        Fewest stars to measure the PSF from; three a term of the spatial polynomial when omitted.
    min_snr : `float`, optional
        Least signal-to-noise ratio of those stars.
    """

    image: Path
    psf: Path | None = None
    noise: Path | None = None
    variance: Path | None = None
    mask: Path | None = None
    pixel_unit: PixelUnit = field(default_factory=PixelUnit)
    noise_settings: NoiseSettings = field(default_factory=NoiseSettings)
    psf_order: int | None = None
    min_stars: int | None = None
    min_snr: float = 30.0

    def __post_init__(self) -> None:
        if self.noise is not None and self.variance is not None:
            raise IngestError(f"{os.fspath(self.image)}: give either a noise or a variance file, not both.")
        if self.psf_order is not None and self.psf_order not in range(5):
            raise IngestError(f"{os.fspath(self.image)}: the PSF order must be 0 to 4, got {self.psf_order}.")
        if self.min_stars is not None and self.min_stars < 1:
            raise IngestError(
                f"{os.fspath(self.image)}: the fewest stars must be at least 1, got {self.min_stars}."
            )


@dataclass(frozen=True)
class FitsImage:
    """A calibrated image on its own pixel grid.

    Parameters
    ----------
    name : `str`
        File, for messages.
    pixels, variance : `numpy.ndarray`, (height, width), float32
        Image [nJy], NaN where there are no data, and variance [nJy^2], positive everywhere.
    planes : `dict` [`str`, `numpy.ndarray`]
        Mask planes by name, bool.
    psf : `PixelBasisPsf`
        PSF.
    psf_stars : `astropy.table.Table` or `None`
        The stars that the PSF was measured from; `None` where it was given.
    wcs : `astropy.wcs.WCS` or `None`
        Coordinate system.
    metadata : `dict`
        What was given and what was estimated.
    """

    name: str
    pixels: np.ndarray
    variance: np.ndarray
    planes: dict[str, np.ndarray]
    psf: PixelBasisPsf
    psf_stars: Table | None
    wcs: WCS | None
    metadata: dict[str, Any]

    @property
    def bounds(self) -> Box:
        """Box of the array."""
        return Box.from_shape(self.pixels.shape)


def read_fits_image(
    source: FitsImageSource,
    plane: FitsPlane,
    wcs: WCS | None,
    area: u.Quantity,
    *,
    psf_size: int = DEFAULT_PSF_SIZE,
    mask_plane: str = "BAD",
) -> FitsImage:
    """Read and calibrate an image; estimate what is not given.

    Parameters
    ----------
    source : `FitsImageSource`
        Files and settings.
    plane : `FitsPlane`
        The image, already read.
    wcs : `astropy.wcs.WCS` or `None`
        Its coordinate system.
    area : `astropy.units.Quantity`
        Area of a pixel.
    psf_size : `int`, optional
        Side of PSF images, odd [pixel].
    mask_plane : `str`, optional
        Plane for pixels that the mask file marks.

    Raises
    ------
    IngestError
        If a file is not usable.
    lsst.diainspect.psf.TooFewStars
        If the PSF has to be measured and there are too few stars.
    """
    if mask_plane not in MASK_BITS:
        raise IngestError(f"Mask plane {mask_plane!r} is not known; known are {list(MASK_BITS)}.")
    if psf_size < 3 or psf_size % 2 == 0:
        raise IngestError(f"PSF size must be odd and at least 3, got {psf_size}.")
    _note_nominal_area(plane, area)
    settings = source.noise_settings
    njy = source.pixel_unit.njy(plane.header, plane.name, area)
    no_data = unexposed_pixels(plane.array)
    if no_data.all():
        raise IngestError(f"{plane.name}: no pixel has a value.")
    saturated, level = saturated_pixels(plane.array, plane.header, settings)
    planes = {"NO_DATA": no_data, "SATURATED": saturated, "BAD": np.zeros_like(no_data)}
    if source.mask is not None:
        planes[mask_plane] = planes.get(mask_plane, np.zeros_like(no_data)) | _read_mask(source.mask, plane)
    metadata: dict[str, Any] = {
        "file": plane.name,
        "njyPerUnit": njy,
        "saturationLevel": level,
        "saturatedPixels": int(saturated.sum()),
        "noDataPixels": int(no_data.sum()),
    }
    unusable = np.logical_or.reduce(list(planes.values()))
    given = source.noise is not None or source.variance is not None
    estimated = None
    if not given or settings.subtract_background:
        estimated = estimate_noise(plane.array, unusable, plane.header, settings, plane.name)
    background: np.ndarray | None = None
    if estimated is not None and settings.subtract_background is not False:
        background = estimated.background
    if given:
        variance, no_noise = _read_noise(source, plane, no_data, area, njy)
        planes["BAD"] |= no_noise
        metadata["noise"] = "file"
    else:
        assert estimated is not None, "Estimated where no file is given."
        variance = estimated.variance * njy**2
        metadata["noise"] = "estimated from the sky"
        metadata["gain"] = estimated.gain
        metadata["gainFrom"] = estimated.gain_from
        metadata["skySigma"] = float(np.sqrt(np.median(variance)))
        if estimated.gain is None:
            metadata["noise"] += ", without the photon noise of sources: the gain is not known"
            _LOG.warning("%s: gain not known; the variance is that of the sky, sources included.", plane.name)
        if level is None:
            _LOG.warning("%s: saturation level not known; no pixel is flagged as saturated.", plane.name)
    metadata["backgroundSubtracted"] = background is not None
    if estimated is not None:
        metadata["backgroundMedian"] = float(np.median(estimated.background) * njy)
    pixels = np.where(
        no_data, np.nan, (plane.array - (0.0 if background is None else background)) * njy
    ).astype(np.float32)
    variance = variance.astype(np.float32)
    bounds = Box.from_shape(plane.array.shape)
    psf_stars = None
    if source.psf is not None:
        psf = read_psf(
            source.psf, bounds, size=psf_size, pixel_scale=float(np.sqrt(area.to_value(u.arcsec**2)))
        )
        metadata["psf"] = "file"
    else:
        measured = measure_psf(
            pixels,
            variance,
            np.logical_or.reduce(list(planes.values())),
            bounds,
            order=source.psf_order,
            size=psf_size,
            min_stars=source.min_stars,
            min_snr=source.min_snr,
            name=plane.name,
        )
        psf, psf_stars = measured.psf, measured.stars
        metadata["psf"] = "measured from stars"
        metadata.update({f"psf_{name}": value for name, value in measured.summary.items()})
    return FitsImage(plane.name, pixels, variance, planes, psf, psf_stars, wcs, metadata)


def read_wcs(plane: FitsPlane) -> WCS | None:
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


def check_shape(plane: FitsPlane, science: FitsPlane) -> None:
    if plane.array.shape != science.array.shape:
        height, width = plane.array.shape
        expected_height, expected_width = science.array.shape
        raise IngestError(
            f"{plane.name}: has {width} x {height} pixels, {science.name} has {expected_width} x {expected_height}; "
            f"all must be on one pixel grid."
        )


def pixel_area(wcs: WCS, bbox: Box) -> u.Quantity:
    """Return the sky area of the pixel at the centre of the image."""
    x, y = 0.5 * (bbox.x.size - 1), 0.5 * (bbox.y.size - 1)
    pixels = np.array([[x - 0.5, y], [x + 0.5, y], [x, y - 0.5], [x, y + 0.5]])
    ra, dec = np.deg2rad(wcs.all_pix2world(pixels, 0)).T
    unit_vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    along_x = unit_vectors[1] - unit_vectors[0]
    along_y = unit_vectors[3] - unit_vectors[2]
    return float(np.linalg.norm(np.cross(along_x, along_y))) * u.sr


def _note_nominal_area(plane: FitsPlane, area: u.Quantity) -> None:
    nominal = plane.header.get("PIXAR_SR")
    if isinstance(nominal, float) and abs(nominal / area.to_value(u.sr) - 1.0) > _AREA_TOLERANCE:
        _LOG.info(
            "%s: PIXAR_SR is %.5g, the pixels of its coordinate system are %.5g sr, which is used.",
            plane.name,
            nominal,
            area.to_value(u.sr),
        )


def _read_noise(
    source: FitsImageSource, plane: FitsPlane, no_data: np.ndarray, area: u.Quantity, njy: float
) -> tuple[np.ndarray, np.ndarray]:
    """Read the variance [nJy^2] and which pixels have none."""
    is_variance = source.variance is not None
    noise_source = source.variance if source.variance is not None else source.noise
    assert noise_source is not None, "Called only where one is given."
    noise = read_plane(noise_source)
    check_shape(noise, plane)
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
    return variance, bad


def _read_mask(source: Path, plane: FitsPlane) -> np.ndarray:
    mask = read_plane(source)
    check_shape(mask, plane)
    return mask.array != 0
