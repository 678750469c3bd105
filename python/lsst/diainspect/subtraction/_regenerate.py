"""The difference around few positions made again from the images and the stored filters.

D = F_s * S - F_t * T - b, with the filters of the position. The filters with which stamps are interpreted are cut to
the size of a PSF. Those of ZOGY have 1e-4 of their peak there, which matters next to bright stars: so for this purpose
they are stored on images of twice the size. They are polynomials over the detector, while the subtraction worked in
cells. What is smooth in the deviation, the background that the subtraction took away above all, is measured where the
difference still exists (`measure_regeneration`) and stored beside the filters.
"""

from __future__ import annotations

__all__ = ["CALIBRATION", "RegeneratedStamps", "measure_regeneration", "regenerate_difference"]

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal
from lsst.images import Box, MaskedImage

from ..masks import MASK_BITS, PLANES_BAD_FOR_SUBTRACTION, get_plane, mask_to_words
from ..psf import PixelBasis, PixelBasisPsf, PolynomialField, centre_crop, fwhm
from ..stamps import gather_stamps
from ._assemble import _bright_star_wings, contaminated
from ._image_pair import ImagePair
from ._output_images import _SCIENCE_PLANES_DROPPED, _TEMPLATE_PLANES
from ._subtraction import SubtractionResult
from ._transfer import filter_radius

_BACKGROUND, _VARIANCE = "regenerationBackground", "regenerationVariance"

CALIBRATION = (_BACKGROUND, _VARIANCE)
"""Background [nJy] that is subtracted and factor of the variance, over the detector, as images of one pixel."""

_WIDENING = 2
"""Side of the filters stored for this purpose, in units of those with which stamps are interpreted."""

_CALIBRATION_ORDER = 6
_CALIBRATION_GRID = 9
_CALIBRATION_SIDE = 32
"""Spatial order, boxes a side of the detector, and side of a box [pixel] of the calibration. The deviation has the
noise of neither image, so that small boxes suffice; a mesh of the background finer than the polynomial is left as it
is, at most 1 % of the noise."""

_MIN_GOOD = 0.25
"""Least fraction of a box that must be untouched by bad pixels and edges."""

_FILL_MARGIN = 12
"""Pixels read beyond the filters' reach, from which bad ones are filled."""

_CHUNK = 128
"""Stamps filtered at a time, which bounds memory."""

_WHOLE_FRACTION = 0.5
"""Sub-boxes that amount to more than this part of the image are read as one."""

type ReadPair = Callable[[Box], tuple[MaskedImage, MaskedImage]]


@dataclass(frozen=True)
class RegeneratedStamps:
    """Stamps of N positions, each (N, size, size).

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, float32
        Difference [nJy] and its variance [nJy^2]; NaN off the common pixels of the images.
    mask : `numpy.ndarray`, uint32
        Mask words as of the difference image, with the bits of `lsst.diainspect.masks`; OFF_IMAGE off the images.
    science, template, science_variance, template_variance : `numpy.ndarray`, float32
        Pixels of the images as they are [nJy, nJy^2]; NaN off the common pixels.
    """

    difference: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    science: np.ndarray
    template: np.ndarray
    science_variance: np.ndarray
    template_variance: np.ndarray


def regenerate_difference(
    x0: np.ndarray,
    y0: np.ndarray,
    size: int,
    filters: Mapping[str, PixelBasis],
    read: ReadPair,
    bounds: Box,
    bad_planes: Sequence[str] = PLANES_BAD_FOR_SUBTRACTION,
) -> RegeneratedStamps:
    """Make stamps of the difference again.

    Parameters
    ----------
    x0, y0 : `numpy.ndarray`, (N,), int
        Lower-left pixels of the stamps.
    size : `int`
        Their side [pixel].
    filters : mapping [`str`, `PixelBasis`]
        PSFs as the subtraction stored them, and all that `measure_regeneration` made.
    read : callable
        Takes a box within ``bounds`` and returns science image and template there. Called with a box for each stamp,
        or once with all of ``bounds`` where the stamps cover much of it.
    bounds : `lsst.images.Box`
        Common pixels of the images.
    bad_planes : sequence [`str`], optional
        Planes that the subtraction filled.

    Returns
    -------
    stamps : `RegeneratedStamps`
        Where bad pixels were filled (FILTER_SPREAD in the mask) the difference need not be what it was.

    Raises
    ------
    ValueError
        If the filters were stored without calibration.
    """
    missing = [name for name in CALIBRATION if name not in filters]
    if missing:
        raise ValueError(
            f"The filters lack {', '.join(missing)}, without which a difference cannot be made again: run the "
            f"subtraction with doWriteRegeneration."
        )
    x0, y0 = (np.asarray(origin, dtype=np.int64) for origin in (x0, y0))
    n = len(x0)
    nan = {name: np.full((n, size, size), np.nan, dtype=np.float32) for name in _FLOAT_PLANES}
    mask = np.full((n, size, size), 1 << MASK_BITS["OFF_IMAGE"], dtype=np.uint32)
    margin = max(filters[name].size for name in ("scienceFilter", "templateFilter")) // 2 + _FILL_MARGIN
    for box, rows in _regions(x0, y0, size, margin, bounds):
        region = _Region.make(read(box), filters, bad_planes, bounds)
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            planes = region.stamps(x0[some], y0[some], size, filters)
            mask[some] = planes.pop("mask")
            for name, stamps in planes.items():
                nan[name][some] = stamps
    return RegeneratedStamps(mask=mask, **nan)


_FLOAT_PLANES = (
    "difference",
    "variance",
    "science",
    "template",
    "science_variance",
    "template_variance",
)


def _regions(
    x0: np.ndarray, y0: np.ndarray, size: int, margin: int, bounds: Box
) -> list[tuple[Box, np.ndarray]]:
    """Return the boxes to read, each with the stamps that lie in it; stamps off the image are in none."""
    x_start, x_stop = (
        np.clip(edge, bounds.x.start, bounds.x.stop) for edge in (x0 - margin, x0 + size + margin)
    )
    y_start, y_stop = (
        np.clip(edge, bounds.y.start, bounds.y.stop) for edge in (y0 - margin, y0 + size + margin)
    )
    on_image = (x0 < bounds.x.stop) & (x0 + size > bounds.x.start)
    on_image &= (y0 < bounds.y.stop) & (y0 + size > bounds.y.start)
    rows = np.flatnonzero(on_image)
    area = ((x_stop - x_start) * (y_stop - y_start))[rows].sum()
    if area > _WHOLE_FRACTION * bounds.x.size * bounds.y.size:
        return [(bounds, rows)]
    return [
        (
            Box.factory[int(y_start[row]) : int(y_stop[row]), int(x_start[row]) : int(x_stop[row])],
            np.array([row]),
        )
        for row in rows
    ]


@dataclass(frozen=True)
class _Region:
    """The images in a box, with bad pixels filled, and what their mask becomes."""

    pair: ImagePair
    raw: Mapping[str, np.ndarray]
    words: np.ndarray

    @classmethod
    def make(
        cls,
        images: tuple[MaskedImage, MaskedImage],
        filters: Mapping[str, PixelBasis],
        bad_planes: Sequence[str],
        bounds: Box,
    ) -> _Region:
        science, template = images
        psfs = [
            PixelBasisPsf(filters[name].basis, filters[name].field) for name in ("sciencePsf", "templatePsf")
        ]
        with warnings.catch_warnings():
            # A box may have no good pixel at all.
            warnings.simplefilter("ignore", RuntimeWarning)
            pair = ImagePair.from_images(
                science, template, psfs[0], psfs[1], bad_planes=tuple(bad_planes), min_good_fraction=0.0
            )
        box = pair.bounds
        science, template = science[box], template[box]
        raw = {
            "science": np.where(pair.science_bad, _pixels(science), pair.science),
            "template": np.where(pair.template_bad, _pixels(template), pair.template),
            "science_variance": pair.science_variance,
            "template_variance": pair.template_variance,
        }
        return cls(pair, raw, _mask_words(pair, science, template, filters, bounds))

    def stamps(
        self, x0: np.ndarray, y0: np.ndarray, size: int, filters: Mapping[str, PixelBasis]
    ) -> dict[str, np.ndarray]:
        box = self.pair.bounds
        x, y = x0 - box.x.start, y0 - box.y.start
        planes = {name: gather_stamps(array, x, y, size, np.nan) for name, array in self.raw.items()}
        off = 1 << MASK_BITS["OFF_IMAGE"]
        planes["mask"] = gather_stamps(self.words, x, y, size, off)
        difference, variance = _filter_stamps(self.pair, x0, y0, size, filters)
        centre_x, centre_y = _within(x0 + size // 2, box.x), _within(y0 + size // 2, box.y)
        background, factor = (filters[name].evaluate(centre_x, centre_y) for name in CALIBRATION)
        outside = (planes["mask"] & off) != 0
        planes["difference"] = np.where(outside, np.nan, difference - background).astype(np.float32)
        planes["variance"] = np.where(outside, np.nan, factor * variance).astype(np.float32)
        return planes


def _pixels(image: MaskedImage) -> np.ndarray:
    return np.asarray(image.image.array, dtype=np.float32)


def _within(position: np.ndarray, interval: Box) -> np.ndarray:
    """Keep positions in an interval: a polynomial means nothing beyond it."""
    return np.clip(position, interval.start, interval.stop - 1)


def _filter_stamps(
    pair: ImagePair, x0: np.ndarray, y0: np.ndarray, size: int, filters: Mapping[str, PixelBasis]
) -> tuple[np.ndarray, np.ndarray]:
    """Return F_s * S - F_t * T and its variance around positions, (N, size, size) each.

    The images are continued by reflection at their edges, as the subtraction does.
    """
    box = pair.bounds
    # Positions of stamps beyond the images' edge take the filters of the edge.
    x = _within(np.asarray(x0) + size // 2, filters["scienceFilter"].bounds.x)
    y = _within(np.asarray(y0) + size // 2, filters["scienceFilter"].bounds.y)
    difference = np.zeros((len(x), size, size))
    variance = np.zeros_like(difference)
    for sign, name, pixels, noise in (
        (1.0, "scienceFilter", pair.science, pair.science_variance),
        (-1.0, "templateFilter", pair.template, pair.template_variance),
    ):
        weights = filters[name].evaluate(x, y)
        reach = filters[name].size // 2
        rows = _reflected(np.asarray(y0)[:, None] - box.y.start + np.arange(-reach, size + reach), box.y.size)
        columns = _reflected(
            np.asarray(x0)[:, None] - box.x.start + np.arange(-reach, size + reach), box.x.size
        )
        index = rows[:, :, None], columns[:, None, :]
        difference += sign * _convolve(pixels[index], weights, size)
        variance += _convolve(noise[index], weights**2, size)
    return difference, np.maximum(variance, 0.0)


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Map indices beyond an axis to those of its mirror images."""
    index = np.mod(index, 2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def _convolve(pixels: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Convolve images (N, size + 2 reach, ...) with one filter each; returns the middle, (N, size, size)."""
    window = scipy.fft.next_fast_len(pixels.shape[-1], real=True)
    shape = (window, window)
    product = scipy.fft.rfft2(pixels.astype(float), s=shape)
    product *= scipy.fft.rfft2(weights, s=shape)
    start = weights.shape[-1] - 1
    return scipy.fft.irfft2(product, s=shape)[:, start : start + size, start : start + size]


def _convolve_image(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Convolve an image, continued by reflection, with one filter."""
    padded = np.pad(pixels, weights.shape[0] // 2, mode="symmetric")
    convolved: np.ndarray = scipy.signal.oaconvolve(padded, weights, mode="valid")
    return convolved


def _mask_words(
    pair: ImagePair,
    science: MaskedImage,
    template: MaskedImage,
    filters: Mapping[str, PixelBasis],
    bounds: Box,
) -> np.ndarray:
    """Return the mask words that the difference has in the pair's box."""

    def bit(name: str) -> np.uint32:
        return np.uint32(1 << MASK_BITS[name])

    words = mask_to_words(science.mask)
    for name in _SCIENCE_PLANES_DROPPED:
        words &= ~bit(name)
    for name, carried in _TEMPLATE_PLANES.items():
        # A plane of the template replaces that of the science image, as in the difference's mask.
        words = np.where(get_plane(template.mask, name), words | bit(carried), words)
    # Masks were made with filters of the PSFs' size.
    size = max(filters[name].size for name in ("sciencePsf", "templatePsf"))
    science_filter, template_filter = (
        centre_crop(filters[name].centre(), size) for name in ("scienceFilter", "templateFilter")
    )
    variance = _convolve_image(pair.science_variance, science_filter**2)
    variance += _convolve_image(pair.template_variance, template_filter**2)
    spread = contaminated(
        lambda part: variance[part],
        (pair.science_variance, pair.science_bad, pair.science_fill_error, science_filter),
        (pair.template_variance, pair.template_bad, pair.template_fill_error, template_filter),
    )
    spread |= _bright_star_wings(pair)
    words[spread & ~pair.bad] |= bit("FILTER_SPREAD")
    words[~np.isfinite(science.image.array)] |= bit("UNMASKED_NAN")
    words[pair.template_bad & ~np.isfinite(template.image.array)] |= bit("NO_DATA")
    border = max(filter_radius(science_filter), filter_radius(template_filter))
    border += int(np.ceil(fwhm(filters["differencePsf"].centre())))
    x = np.arange(pair.bounds.x.start, pair.bounds.x.stop)
    y = np.arange(pair.bounds.y.start, pair.bounds.y.stop)
    edge_x = (x < bounds.x.start + border) | (x >= bounds.x.stop - border)
    edge_y = (y < bounds.y.start + border) | (y >= bounds.y.stop - border)
    words[edge_y[:, None] | edge_x[None, :]] |= bit("DETECTION_EDGE")
    return words


def measure_regeneration(result: SubtractionResult, pair: ImagePair) -> dict[str, PixelBasis]:
    """Return what makes the difference again: wide filters, and how their difference deviates from that made.

    Parameters
    ----------
    result : `SubtractionResult`
        The subtraction.
    pair : `ImagePair`
        Its inputs.

    Returns
    -------
    filters : `dict` [`str`, `PixelBasis`]
        ``scienceFilter`` and ``templateFilter``, wider than those of the result where it can sample them so, and the
        two of `CALIBRATION`: what is subtracted from F_s * S - F_t * T [nJy], and by what its variance is multiplied;
        zero and one if no part of the image is free of bad pixels.
    """
    filters = {"scienceFilter": result.science_filter, "templateFilter": result.template_filter}
    if result.sample_filters is not None:
        wide = result.sample_filters(_WIDENING * (result.science_filter.size // 2) * 2 + 1)
        filters = dict(zip(filters, wide, strict=True))
    box = pair.bounds
    x, y = PolynomialField(box, 0).sample_grid(_CALIBRATION_GRID)
    side = min(_CALIBRATION_SIDE, *pair.shape)
    x0 = np.clip(np.rint(x).astype(int) - side // 2, box.x.start, box.x.stop - side)
    y0 = np.clip(np.rint(y).astype(int) - side // 2, box.y.start, box.y.stop - side)
    again, variance = _filter_stamps(pair, x0, y0, side, filters)
    at = x0 - box.x.start, y0 - box.y.start
    good = gather_stamps(~(result.bad | result.spread | result.edge), *at, side, False)
    usable = good.mean(axis=(1, 2)) >= _MIN_GOOD
    deviation = np.where(good, again - gather_stamps(result.difference, *at, side, 0.0), np.nan)[usable]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(good, gather_stamps(result.variance, *at, side, 0.0) / variance, np.nan)[usable]
    values = (np.nanmedian(stack, axis=(1, 2)) for stack in (deviation, ratio))
    order = _CALIBRATION_ORDER
    # Half as many points again as terms, or chance would shape the polynomial.
    while order > 0 and usable.sum() < 0.75 * (order + 1) * (order + 2):
        order -= 1
    if not usable.any():
        centre = np.array([x.mean()]), np.array([y.mean()])
        constants = {_BACKGROUND: 0.0, _VARIANCE: 1.0}
        return filters | {
            name: PixelBasis.from_images(np.full((1, 1, 1), value), *centre, box, order=0)
            for name, value in constants.items()
        }
    centre_x, centre_y = (x0 + 0.5 * (side - 1))[usable], (y0 + 0.5 * (side - 1))[usable]
    return filters | {
        name: PixelBasis.from_images(value[:, None, None], centre_x, centre_y, box, order=order)
        for name, value in zip(CALIBRATION, values, strict=True)
    }
