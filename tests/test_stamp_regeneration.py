"""Stamps of the difference made again from images and stored filters are those of the difference image."""

from __future__ import annotations

import numpy as np
import pytest
from lsst.images import Box, MaskedImage
from lsst.pipe.base import Struct

from lsst.diainspect.masks import MASK_BITS, PLANES_BAD_FOR_SUBTRACTION, mask_to_words, words_masked_by
from lsst.diainspect.psf import PixelBasis
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, SimulatedPair, simulate_pair
from lsst.diainspect.stamps import gather_stamps
from lsst.diainspect.subtraction import filters_from_table, filters_to_table, regenerate_difference
from lsst.diainspect.tasks import SubtractImagesTask

SIZE = 400
STAMP = 41
NOT_COMPARED = (*PLANES_BAD_FOR_SUBTRACTION, "FILTER_SPREAD", "OFF_IMAGE", "DETECTION_EDGE")
"""Pixels that were filled, or reached by filled ones, or where the filters reach over the edge."""


def _pair(science_seeing: float, template_seeing: float) -> SimulatedPair:
    scene = SceneConfig(
        star_density=60.0,
        star_magnitudes=(16.0, 23.0),
        galaxy_density=15.0,
        n_transients=8,
        transient_snr=(15.0, 100.0),
    )
    conditions = ObservingConditions(science_seeing=science_seeing, template_seeing=template_seeing)
    return simulate_pair(conditions, scene, seed=3, size=SIZE)


def _subtract(pair: SimulatedPair, method: str) -> Struct:
    config = SubtractImagesTask.ConfigClass()
    config.subtractor.name = method
    config.connections.method = method
    config.doWriteRegeneration = True
    return SubtractImagesTask(config=config).run(pair.science, pair.template)


def _filters(result: Struct) -> dict[str, PixelBasis]:
    return {**filters_from_table(result.filters), **filters_from_table(result.regeneration)}


def _origins(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random stamps, some of which reach beyond the image."""
    rng = np.random.default_rng(1)
    return rng.integers(-20, SIZE - 20, n), rng.integers(-20, SIZE - 20, n)


class Reader:
    """Reads boxes of a pair and counts them."""

    def __init__(self, pair: SimulatedPair) -> None:
        self._pair = pair
        self.boxes: list[Box] = []

    def __call__(self, box: Box) -> tuple[MaskedImage, MaskedImage]:
        self.boxes.append(box)
        return self._pair.science[box], self._pair.template[box]


# Interpolation of filters between cells and over the detector: an rms of 1 to 2 % of the noise, most of it at bright
# stars, where it is up to 1 % of their peak in single pixels.
@pytest.mark.parametrize("seeing", [(0.9, 0.75), (0.75, 0.9)])
@pytest.mark.parametrize("method", ["al", "zogy"])
def test_regenerated_difference_is_the_one_that_was_stored(seeing: tuple[float, float], method: str) -> None:
    pair = _pair(*seeing)
    result = _subtract(pair, method)
    stored = result.difference
    x0, y0 = _origins(80)
    again = regenerate_difference(x0, y0, STAMP, _filters(result), Reader(pair), stored.bbox)
    difference, variance, words = (
        gather_stamps(array, x0, y0, STAMP, fill)
        for array, fill in (
            (stored.image.array, np.nan),
            (stored.variance.array, np.nan),
            (mask_to_words(stored.mask), 1 << MASK_BITS["OFF_IMAGE"]),
        )
    )
    np.testing.assert_array_equal(again.mask, words)
    np.testing.assert_array_equal(np.isnan(again.difference), np.isnan(difference))
    good = ~words_masked_by(words, NOT_COMPARED)
    assert good.mean() > 0.4
    deviation = (again.difference - difference)[good] / np.sqrt(variance[good])
    assert deviation.std() < 0.03
    brightest = np.broadcast_to(np.nanmax(again.science, axis=(1, 2))[:, None, None], good.shape)[good]
    assert (np.abs(deviation) < 0.3 + 0.01 * brightest / np.sqrt(variance[good])).all()
    # The background that the subtraction took away is among what is stored.
    assert abs(np.median(deviation)) < 0.003
    assert np.abs(again.variance / variance - 1.0)[good].max() < 0.02
    on_image = np.isfinite(again.science)
    stamps = gather_stamps(pair.science.image.array, x0, y0, STAMP, np.nan)
    np.testing.assert_array_equal(again.science[on_image], stamps[on_image])


def test_background_is_carried() -> None:
    pair = _pair(0.9, 0.75)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    pair.science.image.array[...] += (40.0 + 60.0 * x - 30.0 * y * y).astype(np.float32)
    result = _subtract(pair, "al")
    stored = result.difference
    sigma = float(np.sqrt(np.median(stored.variance.array)))
    x0, y0 = np.array([100, 250]), np.array([250, 120])
    filters = _filters(result)
    again = regenerate_difference(x0, y0, STAMP, filters, Reader(pair), stored.bbox)
    difference = gather_stamps(stored.image.array, x0, y0, STAMP, np.nan)
    assert np.abs(np.median(again.difference - difference, axis=(1, 2))).max() < 0.01 * sigma
    # Without it the background would be there.
    nothing = PixelBasis(
        0.0 * filters["regenerationBackground"].basis, filters["regenerationBackground"].field
    )
    without = regenerate_difference(
        x0, y0, STAMP, {**filters, "regenerationBackground": nothing}, Reader(pair), stored.bbox
    )
    assert np.median(without.difference - difference) > 30.0


def test_few_sources_are_read_in_boxes_around_them_and_come_out_the_same() -> None:
    pair = _pair(0.9, 0.75)
    result = _subtract(pair, "al")
    filters, bounds = _filters(result), result.difference.bbox
    x0, y0 = np.array([180, -30, 5000]), np.array([170, 375, 10])
    few = Reader(pair)
    stamps = regenerate_difference(x0[:1], y0[:1], 21, filters, few, bounds)
    assert len(few.boxes) == 1
    assert few.boxes[0].x.size < bounds.x.size
    many = Reader(pair)
    other_x, other_y = _origins(80)
    together = regenerate_difference(
        np.append(x0, other_x), np.append(y0, other_y), 21, filters, many, bounds
    )
    assert many.boxes == [bounds]
    good = ~words_masked_by(stamps.mask, ["FILTER_SPREAD", *PLANES_BAD_FOR_SUBTRACTION])
    assert good.mean() > 0.5
    sigma = np.sqrt(np.nanmedian(stamps.variance))
    assert np.abs(stamps.difference - together.difference[:1])[good].max() < 1e-3 * sigma
    # Off the image there is nothing.
    assert np.isnan(together.difference[2]).all()
    assert (together.mask[2] == 1 << MASK_BITS["OFF_IMAGE"]).all()


def test_filters_without_their_calibration_are_refused() -> None:
    pair = _pair(0.9, 0.75)
    result = _subtract(pair, "al")
    with pytest.raises(ValueError, match="doWriteRegeneration"):
        regenerate_difference(
            np.array([10]),
            np.array([10]),
            11,
            filters_from_table(result.filters),
            Reader(pair),
            result.difference.bbox,
        )


def test_what_is_stored_survives_its_table() -> None:
    result = _subtract(_pair(0.9, 0.75), "zogy")
    filters = filters_from_table(result.regeneration)
    again = filters_from_table(filters_to_table(filters))
    for name, basis in filters.items():
        np.testing.assert_allclose(again[name].basis, basis.basis, rtol=1e-6, atol=1e-9)
    assert filters["scienceFilter"].size > filters_from_table(result.filters)["scienceFilter"].size
