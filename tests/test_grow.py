"""Masks grow by disks."""

import numpy as np
import pytest
import scipy.ndimage

from lsst.diainspect.subtraction._sparse_tiles import grow


@pytest.mark.parametrize("fraction", [0.0, 0.002, 0.3, 1.0])
@pytest.mark.parametrize("radius", [0, 1, 8, 90])
def test_grown_masks_hold_what_is_within_a_radius(fraction, radius):
    mask = np.random.default_rng(1).random((60, 85)) < fraction
    distance = scipy.ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    assert np.array_equal(grow(mask, radius), distance <= radius)
