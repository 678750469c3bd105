"""The two images of a subtraction as arrays, checked once."""

from __future__ import annotations

__all__ = ["ImagePair", "fill_bad_pixels"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import astropy.units as u
import numpy as np
import scipy.ndimage
from lsst.images import Box, MaskedImage
from lsst.images.psfs import PointSpreadFunction

from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by
from ..psf import PixelBasisPsf
from ..quantiles import median
from ._errors import AllPixelsMaskedError, NoOverlapError, NoPsfError, UnitMismatchError
from ._sparse_tiles import around, tiles_with

_FILL_SCALES = (1.5, 4.0, 12.0, 40.0)
"""Widths [pixel] of the Gaussians that fill bad pixels from their neighbours, tried in turn as holes need them."""


_LEVEL_PIXELS = 10_000
"""Pixels that suffice for the median level of an image."""


@dataclass(frozen=True)
class ImagePair:
    """Science image and template on one pixel grid, in nJy, without NaN.

    Parameters
    ----------
    science, template : `numpy.ndarray`, (height, width), float32
        Pixels [nJy], the bad ones filled smoothly from their neighbours.
    science_variance, template_variance : `numpy.ndarray`, (height, width), float32
        Variances [nJy^2], positive everywhere.
    science_bad, template_bad : `numpy.ndarray`, (height, width), bool
        Pixels whose values were filled.
    science_fill_error, template_fill_error : `numpy.ndarray`, (n_bad,)
        How wrong each filled value may be [nJy], in the order of the bad pixels.
    science_psf, template_psf : `PixelBasisPsf`
        PSFs over the box.
    bounds : `lsst.images.Box`
        The common pixels.
    """

    science: np.ndarray
    template: np.ndarray
    science_variance: np.ndarray
    template_variance: np.ndarray
    science_bad: np.ndarray
    template_bad: np.ndarray
    science_fill_error: np.ndarray
    template_fill_error: np.ndarray
    science_psf: PixelBasisPsf
    template_psf: PixelBasisPsf
    bounds: Box

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width [pixel]."""
        return self.science.shape

    @cached_property
    def bad(self) -> np.ndarray:
        """Pixels that are bad in either image."""
        return self.science_bad | self.template_bad

    @classmethod
    def from_images(
        cls,
        science: MaskedImage,
        template: MaskedImage,
        science_psf: PointSpreadFunction | PixelBasisPsf,
        template_psf: PointSpreadFunction | PixelBasisPsf,
        *,
        bad_planes: Sequence[str] = PLANES_BAD_FOR_SUBTRACTION,
        psf_order: int = 3,
        min_good_fraction: float = 0.02,
    ) -> ImagePair:
        """Cut two images to their common pixels and make them safe for Fourier transforms.

        Parameters
        ----------
        science, template : `lsst.images.MaskedImage`
            Images with variance, mask and units convertible to nJy. The template must be on the science pixel
            grid; their bounding boxes may differ.
        science_psf, template_psf : `PointSpreadFunction` or `PixelBasisPsf`
            Their PSFs.
        bad_planes : sequence [`str`], optional
            Mask planes whose pixels are not used; NaN pixels and non-positive variances are added.
        psf_order : `int`, optional
            Spatial order with which a PSF that has to be sampled is represented.
        min_good_fraction : `float`, optional
            Least fraction of the common pixels that must be good in both images.

        Raises
        ------
        NoOverlapError, AllPixelsMaskedError, NoPsfError, UnitMismatchError
            For what their names say.
        """
        bounds = _common_box(science.bbox, template.bbox)
        science, template = science[bounds], template[bounds]
        science_pixels, science_variance, science_bad = _planes(science, "science image", bad_planes)
        template_pixels, template_variance, template_bad = _planes(template, "template", bad_planes)
        good_fraction = 1.0 - np.count_nonzero(science_bad | template_bad) / science_bad.size
        if good_fraction < min_good_fraction:
            raise AllPixelsMaskedError(
                f"Only {good_fraction:.2%} of the {bounds.x.size} x {bounds.y.size} common pixels are good in "
                f"both images (science {1 - science_bad.mean():.2%}, template {1 - template_bad.mean():.2%}); "
                f"at least {min_good_fraction:.0%} are needed. Bad planes: {', '.join(bad_planes)}.",
                good_fraction=good_fraction,
            )
        filled_science, filled_science_variance = _fill_planes(
            (science_pixels, science_variance), science_bad
        )
        filled_template, filled_template_variance = _fill_planes(
            (template_pixels, template_variance), template_bad
        )
        return cls(
            science=filled_science,
            template=filled_template,
            science_variance=filled_science_variance,
            template_variance=filled_template_variance,
            science_bad=science_bad,
            template_bad=template_bad,
            science_fill_error=_fill_error(science_pixels, filled_science, science_bad),
            template_fill_error=_fill_error(template_pixels, filled_template, template_bad),
            science_psf=_pixel_basis(science_psf, bounds, psf_order, "science image"),
            template_psf=_pixel_basis(template_psf, bounds, psf_order, "template"),
            bounds=bounds,
        )


def _common_box(science: Box, template: Box) -> Box:
    x_start, x_stop = max(science.x.start, template.x.start), min(science.x.stop, template.x.stop)
    y_start, y_stop = max(science.y.start, template.y.start), min(science.y.stop, template.y.stop)
    if x_stop <= x_start or y_stop <= y_start:
        raise NoOverlapError(
            f"Science image {science} and template {template} share no pixels: the template must be warped to "
            "the science image's pixel grid."
        )
    return Box.factory[y_start:y_stop, x_start:x_stop]


def _planes(
    image: MaskedImage, role: str, bad_planes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    unit = image.unit
    try:
        factor = 1.0 if unit is None else float(unit.to(u.nJy))
    except u.UnitConversionError:
        raise UnitMismatchError(
            f"The {role} has pixels in {unit}, which cannot be converted to nJy; calibrate it first.",
            unit=str(unit),
        ) from None
    if unit is None:
        raise UnitMismatchError(f"The {role} has pixels without a unit; set it to nJy or calibrate it first.")
    pixels = np.asarray(image.image.array, dtype=np.float32)
    variance = np.asarray(image.variance.array, dtype=np.float32)
    if factor != 1.0:
        pixels, variance = pixels * np.float32(factor), variance * np.float32(factor**2)
    bad = masked_by(image.mask, bad_planes)
    # Extremes are NaN or infinite if a pixel is, and most images need no look at each pixel.
    if not np.isfinite([pixels.min(), pixels.max()]).all():
        bad |= ~np.isfinite(pixels)
    # Not greater than zero is not positive or NaN.
    if not (variance.min() > 0 and np.isfinite(variance.max())):
        bad |= ~((variance > 0) & np.isfinite(variance))
    return pixels, variance, bad


def _pixel_basis(
    psf: PointSpreadFunction | PixelBasisPsf | None, bounds: Box, order: int, role: str
) -> PixelBasisPsf:
    if isinstance(psf, PixelBasisPsf):
        return psf
    if psf is None:
        raise NoPsfError(f"The {role} has no PSF.")
    try:
        return PixelBasisPsf.from_point_spread_function(psf, bounds, order=order)
    except Exception as err:
        raise NoPsfError(f"The PSF of the {role} could not be evaluated over {bounds}: {err}") from err


def _fill_error(pixels: np.ndarray, filled: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return a bound on the error of filled values: twice what was stored or filled in above the sky.

    A saturated pixel's true value exceeds the stored one, by a factor of two in the core of a star two magnitudes
    brighter than saturation.
    """
    level = _level(pixels, bad)
    # Places in one dimension are several times as fast as a mask in two.
    places = np.divmod(np.flatnonzero(bad), bad.shape[1])
    stored = pixels[places]
    stored = np.where(np.isfinite(stored), stored, level)
    return 2.0 * np.maximum(np.abs(stored - level), np.abs(filled[places] - level))


def _level(pixels: np.ndarray, bad: np.ndarray) -> float:
    """Return the median of the good pixels; of an even sample of them where that suffices."""
    for stride in (4, 1):
        good = ~bad[::stride, ::stride]
        if good.sum() >= _LEVEL_PIXELS:
            break
    return median(pixels[::stride, ::stride][good]) if good.any() else 0.0


def fill_bad_pixels(pixels: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Replace bad pixels by a smooth continuation of the good ones around them.

    Normalised convolution with Gaussians of growing width, so that neither a step nor a spike is left for a
    Fourier filter to ring on; what is out of reach of the widest takes the median.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (height, width), float32
        Pixels; bad ones may be NaN.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to replace.

    Returns
    -------
    filled : `numpy.ndarray`, (height, width), float32
        Copy with the bad pixels replaced.
    """
    return _fill_planes((pixels,), bad)[0]


def _fill_planes(planes: Sequence[np.ndarray], bad: np.ndarray) -> list[np.ndarray]:
    """Return copies of planes of one image with the same bad pixels filled in each; see `fill_bad_pixels`."""
    filled = [plane.copy() for plane in planes]
    missing = list(tiles_with(bad))
    for scale in _FILL_SCALES:
        unreached = []
        for tile, rows, columns, index in missing:
            wide, own = around(tile, int(np.ceil(3.0 * scale)) + 1, bad.shape)
            good = ~bad[wide]

            def blur(plane: np.ndarray, scale: float, own: tuple[slice, slice]) -> np.ndarray:
                return scipy.ndimage.gaussian_filter(plane, scale, mode="constant", truncate=3.0)[own]

            norm = blur(good.astype(np.float32), scale, own)[rows, columns]
            near = norm > 0.02
            for plane, result in zip(planes, filled, strict=True):
                blurred = blur(np.where(good, plane[wide], np.float32(0.0)), scale, own)[rows, columns]
                result[tile][rows[near], columns[near]] = blurred[near] / norm[near]
            if not near.all():
                unreached.append((tile, rows[~near], columns[~near], index[~near]))
        missing = unreached
        if not missing:
            return filled
    for plane, result in zip(planes, filled, strict=True):
        level = _level(plane, bad)
        for tile, rows, columns, _ in missing:
            result[tile][rows, columns] = level
    return filled
