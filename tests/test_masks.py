"""Mask planes: fixed bits, the map from afw's names, and words."""

from __future__ import annotations

import lsst.images
import numpy as np
import pytest
from lsst.images import Box, Mask, MaskPlane, MaskSchema

from lsst.diainspect.masks import (
    MASK_BITS,
    MASK_PLANES,
    PLANES_BAD_FOR_SUBTRACTION,
    get_plane,
    legacy_plane_map,
    make_mask_schema,
    mask_to_words,
    masked_by,
    words_masked_by,
)

BOX = Box.factory[200:207, 100:111]
SHAPE = (7, 11)

FIXED_BITS = {
    "BAD": 0,
    "SATURATED": 1,
    "INTERPOLATED": 2,
    "COSMIC_RAY": 3,
    "DETECTION_EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
    "SAT_TEMPLATE": 9,
    "HIGH_VARIANCE": 10,
    "STREAK": 11,
    "VIGNETTED": 12,
    "PARTLY_VIGNETTED": 13,
    "CROSSTALK": 14,
    "ITL_DIP": 15,
    "NOT_DEBLENDED": 16,
    "SPIKE": 17,
    "UNMASKED_NAN": 18,
    "CLIPPED": 19,
    "REJECTED": 20,
    "INEXACT_PSF": 21,
    "SENSOR_EDGE": 22,
    "INJECTED": 23,
    "INJECTED_CORE": 24,
    "INJECTED_TEMPLATE": 25,
    "INJECTED_CORE_TEMPLATE": 26,
    "OFF_IMAGE": 27,
    "FILTER_SPREAD": 28,
}
"""Stamps on disk have these bits: planes may be added to the end, never moved."""


def random_mask(schema: MaskSchema, seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    mask = Mask(0, schema=schema, bbox=BOX)
    for name in schema.names:
        mask.set(name, rng.random(SHAPE) < 0.3)
    return mask


def test_bits_are_those_of_the_stamps_on_disk():
    assert dict(MASK_BITS) == FIXED_BITS
    assert [plane.name for plane in MASK_PLANES] == list(FIXED_BITS)
    assert max(MASK_BITS.values()) < 32


def test_every_plane_says_what_it_means():
    assert all(plane.description for plane in MASK_PLANES)


def test_every_plane_that_lsst_images_maps_for_afw_has_a_bit():
    getters = [
        name for name in dir(lsst.images) if name.startswith("get_legacy_") and name.endswith("_mask_planes")
    ]
    assert len(getters) >= 5
    mapped = {plane.name for name in getters for plane in getattr(lsst.images, name)().values()}
    assert mapped <= MASK_BITS.keys()
    assert {plane.name for plane in legacy_plane_map().values()} == mapped


@pytest.mark.parametrize(
    ("afw_name", "name"),
    [
        ("SAT", "SATURATED"),
        ("CR", "COSMIC_RAY"),
        ("INTRP", "INTERPOLATED"),
        ("EDGE", "DETECTION_EDGE"),
        ("NO_DATA", "NO_DATA"),
        ("BAD", "BAD"),
    ],
)
def test_afw_names_map_to_planes(afw_name, name):
    assert legacy_plane_map()[afw_name].name == name


def test_image_schema_has_every_plane_but_that_of_stamps():
    assert set(make_mask_schema().names) == MASK_BITS.keys() - {"OFF_IMAGE"}


def test_schema_of_unknown_plane_is_refused():
    with pytest.raises(ValueError, match="NO_SUCH_PLANE"):
        make_mask_schema(["BAD", "NO_SUCH_PLANE"])


def test_absent_planes_read_as_false():
    mask = random_mask(make_mask_schema(["BAD", "STREAK"]), seed=1)
    assert get_plane(mask, "SATURATED").shape == SHAPE
    assert not get_plane(mask, "SATURATED").any()
    assert not masked_by(mask, ["SATURATED", "NO_DATA"]).any()
    assert not masked_by(mask, []).any()
    np.testing.assert_array_equal(masked_by(mask, ["SATURATED", "BAD"]), mask.get("BAD"))


def test_masked_by_is_the_union_of_planes():
    mask = random_mask(make_mask_schema(), seed=2)
    union = np.any([mask.get(name) for name in PLANES_BAD_FOR_SUBTRACTION], axis=0)
    np.testing.assert_array_equal(masked_by(mask, PLANES_BAD_FOR_SUBTRACTION), union)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_words_have_every_plane_of_the_image(dtype):
    schema = MaskSchema(tuple(reversed(list(make_mask_schema()))), dtype=dtype)
    mask = random_mask(schema, seed=3)
    words = mask_to_words(mask)
    assert words.dtype == np.uint32
    for name, bit in MASK_BITS.items():
        expected = get_plane(mask, name)
        np.testing.assert_array_equal(words_masked_by(words, [name]), expected)
        np.testing.assert_array_equal((words >> np.uint32(bit)) & 1 == 1, expected)


def test_words_of_part_of_an_image_are_part_of_its_words():
    mask = random_mask(make_mask_schema(), seed=4)
    part = Box.factory[202:205, 103:110]
    np.testing.assert_array_equal(mask_to_words(mask[part]), mask_to_words(mask)[2:5, 3:10])


def test_planes_without_a_bit_are_dropped_from_words():
    schema = MaskSchema((MaskPlane("PRIVATE", "Somebody's own."), *make_mask_schema(["BAD"])))
    mask = random_mask(schema, seed=5)
    np.testing.assert_array_equal(mask_to_words(mask) == 1, mask.get("BAD"))
    assert set(np.unique(mask_to_words(mask))) == {0, 1}


def test_words_of_any_shape_are_tested_for_the_union_of_planes():
    words = np.array([[0, 1, 2], [256, 257, 4]], dtype=np.uint32)
    np.testing.assert_array_equal(
        words_masked_by(words, ["BAD", "NO_DATA"]), [[False, True, False], [True, True, False]]
    )


def test_unknown_plane_in_words_is_refused():
    with pytest.raises(ValueError, match="SATURATION"):
        words_masked_by(np.zeros(3, dtype=np.uint32), ["SATURATION"])
