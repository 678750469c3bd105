"""The mask planes of the package: one list of names, fixed bits for stamps, and the map from afw's names.

Images carry their planes by name in an `lsst.images.MaskSchema`; the bits there depend on the image. Stamps
outlive their images, so their mask words use the bits fixed here, which may be added to but never reordered.
"""

from __future__ import annotations

__all__ = [
    "MASK_BITS",
    "MASK_PLANES",
    "PLANES_BAD_FOR_SUBTRACTION",
    "get_plane",
    "legacy_plane_map",
    "make_mask_schema",
    "mask_to_words",
    "masked_by",
    "words_masked_by",
]

from collections.abc import Iterable, Mapping

import numpy as np
from lsst.images import (
    Mask,
    MaskPlane,
    MaskSchema,
    get_legacy_deep_coadd_mask_planes,
    get_legacy_difference_image_mask_planes,
    get_legacy_optional_mask_planes,
    get_legacy_template_mask_planes,
    get_legacy_visit_image_mask_planes,
)

_BIT_ORDER = (
    "BAD",
    "SATURATED",
    "INTERPOLATED",
    "COSMIC_RAY",
    "DETECTION_EDGE",
    "DETECTED",
    "DETECTED_NEGATIVE",
    "SUSPECT",
    "NO_DATA",
    "SAT_TEMPLATE",
    "HIGH_VARIANCE",
    "STREAK",
    "VIGNETTED",
    "PARTLY_VIGNETTED",
    "CROSSTALK",
    "ITL_DIP",
    "NOT_DEBLENDED",
    "SPIKE",
    "UNMASKED_NAN",
    "CLIPPED",
    "REJECTED",
    "INEXACT_PSF",
    "SENSOR_EDGE",
    "INJECTED",
    "INJECTED_CORE",
    "INJECTED_TEMPLATE",
    "INJECTED_CORE_TEMPLATE",
    "OFF_IMAGE",
    "FILTER_SPREAD",
)

_OWN_DESCRIPTIONS = {
    "OFF_IMAGE": "Stamp pixel beyond the edge of the image it was cut from.",
    "FILTER_SPREAD": "A filled pixel lies within the reach of the filter that made this pixel.",
}

PLANES_BAD_FOR_SUBTRACTION = ("BAD", "SATURATED", "NO_DATA", "COSMIC_RAY", "UNMASKED_NAN", "SAT_TEMPLATE")
"""Planes whose pixels neither enter a fit nor are convolved: their values say nothing about the sky."""


def legacy_plane_map() -> dict[str, MaskPlane]:
    """Map afw's plane names to planes.

    Returns
    -------
    plane_map : `dict` [`str`, `lsst.images.MaskPlane`]
        Every plane that lsst-images maps for visit, difference, coadd and template images and injections.
        Where the kinds describe a plane differently, the visit image's words win.
    """
    plane_map: dict[str, MaskPlane] = {}
    for getter in (
        get_legacy_optional_mask_planes,
        get_legacy_template_mask_planes,
        get_legacy_deep_coadd_mask_planes,
        get_legacy_difference_image_mask_planes,
        get_legacy_visit_image_mask_planes,
    ):
        plane_map.update(getter())
    return plane_map


def _all_planes() -> tuple[MaskPlane, ...]:
    by_name = {plane.name: plane for plane in legacy_plane_map().values()}
    by_name.update({name: MaskPlane(name, text) for name, text in _OWN_DESCRIPTIONS.items()})
    return tuple(by_name[name] for name in _BIT_ORDER)


MASK_PLANES: tuple[MaskPlane, ...] = _all_planes()
"""Every plane the package knows, in the order of `MASK_BITS`."""

MASK_BITS: Mapping[str, int] = {name: bit for bit, name in enumerate(_BIT_ORDER)}
"""Bit of each plane in the uint32 mask words of a stamp."""

_ROWS = 32
"""Rows of an image whose bits are looked at together."""

_IMAGE_PLANES = tuple(plane for plane in MASK_PLANES if plane.name != "OFF_IMAGE")


def make_mask_schema(names: Iterable[str] | None = None) -> MaskSchema:
    """Make the schema of an image mask.

    Parameters
    ----------
    names : iterable [`str`], optional
        Planes wanted, by name; all that an image can have when omitted.

    Returns
    -------
    schema : `lsst.images.MaskSchema`
        Schema with one byte for each eight planes.
    """
    if names is None:
        return MaskSchema(_IMAGE_PLANES)
    wanted = set(names)
    unknown = wanted - MASK_BITS.keys()
    if unknown:
        raise ValueError(f"Unknown mask planes {sorted(unknown)}; known are {list(MASK_BITS)}.")
    return MaskSchema(tuple(plane for plane in MASK_PLANES if plane.name in wanted))


def get_plane(mask: Mask, name: str) -> np.ndarray:
    """Return one plane as booleans of shape (height, width); a plane the mask lacks reads as all False."""
    if name not in mask.schema.names:
        return np.zeros((mask.bbox.y.size, mask.bbox.x.size), dtype=bool)
    return mask.get(name)


def masked_by(mask: Mask, names: Iterable[str]) -> np.ndarray:
    """Return where any of the named planes is set, as booleans of shape (height, width)."""
    present = [name for name in names if name in mask.schema.names]
    if not present:
        return np.zeros((mask.bbox.y.size, mask.bbox.x.size), dtype=bool)
    array, bits = mask.array, mask.schema.bitmask(*present)
    width = array.shape[-1] * array.itemsize
    if width in (1, 2, 4, 8) and array.flags.c_contiguous:
        # All bytes of a pixel as one number, some rows at a time: a plane of the bits would not stay in the cache.
        word = np.dtype(f"u{width}")
        words, wanted = array.view(word)[..., 0], bits.view(word)[0]
        masked = np.empty(words.shape, dtype=bool)
        for start in range(0, len(words), _ROWS):
            rows = slice(start, start + _ROWS)
            np.not_equal(words[rows] & wanted, 0, out=masked[rows])
        return masked
    return ((array & bits) != 0).any(axis=-1)


def mask_to_words(mask: Mask) -> np.ndarray:
    """Translate an image mask to words with the fixed bits.

    Returns
    -------
    words : `numpy.ndarray`, (height, width), uint32
        Planes that are not in `MASK_BITS` are dropped.
    """
    words = np.zeros((mask.bbox.y.size, mask.bbox.x.size), dtype=np.uint32)
    # A table of the words of all 256 values of a byte is several times faster than one pass for each plane.
    array = np.ascontiguousarray(mask.array).view(np.uint8)
    values = np.arange(256)
    tables = np.zeros((array.shape[-1], 256), dtype=np.uint32)
    for name in mask.schema.names & MASK_BITS.keys():
        for index, bits in enumerate(mask.schema.bitmask(name).view(np.uint8)):
            tables[index, (values & int(bits)) != 0] |= np.uint32(1 << MASK_BITS[name])
    for index, table in enumerate(tables):
        if table.any():
            words |= table[array[..., index]]
    return words


def words_masked_by(words: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """Return where any of the named planes is set in mask words of any shape.

    Raises
    ------
    ValueError
        If a name is not in `MASK_BITS`.
    """
    wanted = set(names)
    unknown = wanted - MASK_BITS.keys()
    if unknown:
        raise ValueError(f"Unknown mask planes {sorted(unknown)}; known are {list(MASK_BITS)}.")
    bits = np.uint32(sum(1 << MASK_BITS[name] for name in wanted))
    return (words & bits) != 0
