"""The PSF of a score image is the response of the score to a point source, whatever the difference's PSF is like."""

from __future__ import annotations

import numpy as np
import pytest
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.subtraction._output_images import _autocorrelation

BOUNDS = Box.factory[0:300, 0:400]
SIZE = 41


def gaussian(sigma: float, size: int) -> np.ndarray:
    grid = np.arange(size) - size // 2
    image = np.exp(-0.5 * (grid[None, :] ** 2 + grid[:, None] ** 2) / sigma**2)
    return image / image.sum()


def as_psf(image: np.ndarray) -> PixelBasisPsf:
    return PixelBasisPsf.from_callable(lambda x, y: image, BOUNDS, order=0)


def test_response_to_a_gaussian_is_wider_by_the_root_of_two():
    response = _autocorrelation(as_psf(gaussian(2.0, SIZE)))
    assert response.size == SIZE
    np.testing.assert_allclose(response.at(100.0, 100.0), gaussian(2.0 * np.sqrt(2.0), SIZE), atol=1e-6)


def test_response_of_a_psf_with_wide_negative_wings_is_stored_whole():
    # As a filter leaves it that takes out noise of long scales: within 41 pixels the response's sum is negative.
    image = 3.0 * gaussian(1.5, SIZE) - 2.0 / SIZE**2
    response = _autocorrelation(as_psf(image))
    assert response.size == 2 * SIZE - 1
    values = response.at(100.0, 100.0)
    assert values.sum() == pytest.approx(1.0)
    assert values.max() == values[SIZE - 1, SIZE - 1] == pytest.approx((image**2).sum(), rel=1e-5)
