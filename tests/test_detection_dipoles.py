"""Peaks of both signs that lie together are one row, a dipole candidate."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from detection_field import PSF_SIGMA, SKY_VARIANCE, X_FIRST, Y_FIRST, Field
from lsst.diainspect.detection._lobes import merge_lobes

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0)) * PSF_SIGMA
X, Y = X_FIRST + 200.3, Y_FIRST + 150.8


def shifted_source(shift: float, snr: float, change: float = 0.0) -> Field:
    """A source of a S/N whose image moved in x by a shift [pixel] between the images, and brightened by a S/N."""
    return Field([X + 0.5 * shift, X - 0.5 * shift, X], [Y] * 3, [snr, -snr, change], noise=0.0)


@pytest.mark.parametrize("shift", [0.2, 1.0, 3.0])
def test_a_shifted_source_is_one_row_between_its_lobes(shift):
    field = shifted_source(shift, 60.0 / shift)
    (source,) = field.detect()
    assert source["isDipoleCandidate"]
    assert source["nPeaks"] == 2
    assert source["lobeRatio"] == pytest.approx(1.0, abs=0.01)
    assert (source["x"], source["y"]) == pytest.approx((X, Y), abs=0.05)
    # Lobes of an unresolved dipole lie sqrt(2) sigma to each side in the score.
    assert source["positiveX"] - X == pytest.approx(np.sqrt(2.0) * PSF_SIGMA, rel=0.1)
    assert source["negativeX"] - X == pytest.approx(-np.sqrt(2.0) * PSF_SIGMA, rel=0.1)
    assert (source["positiveY"], source["negativeY"]) == pytest.approx((Y, Y), abs=0.05)
    assert 0.0 < source["xErr"] < 0.5
    assert abs(source["psfFlux"]) < 0.1 * field.flux[0]


def test_without_merging_the_lobes_are_two_rows():
    sources = shifted_source(1.0, 60.0).detect(merging_distance=0.0)
    assert len(sources) == 2
    assert sorted(sources["isNegative"]) == [False, True]
    assert not sources["isDipoleCandidate"].any()
    assert np.isnan(sources["positiveX"]).all()
    assert (sources["lobeRatio"] == 0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_candidate_has_the_sign_and_score_of_its_brighter_lobe(sign):
    field = shifted_source(sign * 0.5, 100.0, sign * 8.0)
    (source,) = field.detect()
    assert source["isDipoleCandidate"]
    assert source["isNegative"] == (sign < 0)
    x = np.linspace(-6.0, 6.0, 1001)
    lobes = [np.exp(-((x - dx) ** 2) / (4.0 * PSF_SIGMA**2)) for dx in (0.25, -0.25, 0.0)]
    score = 100.0 * (lobes[0] - lobes[1]) + 8.0 * lobes[2]
    assert source["snr"] == pytest.approx(score.max(), rel=0.01)
    assert source["lobeRatio"] == pytest.approx(-score.min() / score.max(), rel=0.02)


def test_a_bright_source_with_a_ring_is_one_row_at_its_own_place():
    angles = np.arange(6) * np.pi / 3.0
    x = np.concatenate([[X], X + 1.5 * FWHM * np.cos(angles)])
    y = np.concatenate([[Y], Y + 1.5 * FWHM * np.sin(angles)])
    field = Field(x, y, [100.0, *[-25.0] * 6], noise=0.0)
    (source,) = field.detect()
    assert source["nPeaks"] == 7
    assert not source["isNegative"]
    assert (source["x"], source["y"]) == pytest.approx((X, Y), abs=0.02)
    assert 0.1 < source["lobeRatio"] < 0.3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bright_star_with_a_wrong_psf_width_is_one_row(seed):
    field = Field([X], [Y], [9000.0], noise=0.0, shape=(301, 401))
    wide = scipy.ndimage.gaussian_filter(field.difference, 0.4)
    rng = np.random.default_rng(seed)
    noise = np.sqrt(field.variance) * rng.normal(size=field.shape)
    field.difference = field.difference - wide + noise
    field.score = scipy.ndimage.gaussian_filter(field.difference, PSF_SIGMA, mode="constant")
    field.score *= np.sqrt(4.0 * np.pi) * PSF_SIGMA / np.sqrt(SKY_VARIANCE)
    # A core of some 90 sigma in a ring of the other sign of some 12 sigma, in which the noise makes several peaks.
    assert field.score.max() > 60.0
    assert field.score.min() < -8.0
    assert len(field.detect(merging_distance=0.0)) > 2
    (source,) = field.detect()
    assert not source["isNegative"]
    assert (source["x"], source["y"]) == pytest.approx((X, Y), abs=0.3)


def test_sources_of_opposite_sign_farther_apart_stay_two():
    field = Field([X, X + 2.0 * FWHM], [Y, Y], [30.0, -30.0], noise=0.0)
    sources = field.detect()
    assert len(sources) == 2
    assert not sources["isDipoleCandidate"].any()
    assert len(field.detect(merging_distance=2.2)) == 1


def test_candidates_are_where_the_source_is_within_their_errors():
    rng = np.random.default_rng(11)
    grid = np.arange(12) * 40.0 + 36.0
    x, y = (values.ravel() + rng.uniform(-5, 5, 144) for values in np.meshgrid(grid, grid))
    field = Field(
        np.concatenate([x + 1.0, x - 1.0]) + X_FIRST,
        np.concatenate([y, y]) + Y_FIRST,
        np.repeat([30.0, -30.0], 144),
        seed=12,
    )
    sources = field.detect()
    assert len(sources) == 144
    assert sources["isDipoleCandidate"].all()
    distance = np.hypot(x[:, None] + X_FIRST - sources["x"], y[:, None] + Y_FIRST - sources["y"])
    matched = sources[distance.argmin(axis=1)]
    for truth, name in ((x + X_FIRST, "x"), (y + Y_FIRST, "y")):
        pull = (matched[name] - truth) / matched[f"{name}Err"]
        assert abs(pull.mean()) < 4.0 * pull.std() / np.sqrt(144)
        # The two lobes share some of their noise, which the errors do not know.
        assert 0.7 < pull.std() < 1.3


def test_lobes_belong_to_the_brightest_source_and_nothing_chains():
    x = np.array([0.0, 4.0, 8.0, 12.0, 2.0])
    score = np.array([100.0, -50.0, 20.0, -10.0, 7.0])
    # The second is a lobe of the first; so the third, near the second only, is a source, with the fourth as its lobe;
    # the fifth has the sign of the first.
    np.testing.assert_array_equal(merge_lobes(x, np.zeros(5), score, 5.0), [0, 0, 2, 2, 4])
    np.testing.assert_array_equal(merge_lobes(x, np.zeros(5), score, 0.0), np.arange(5))
    assert merge_lobes(x[:0], x[:0], x[:0], 5.0).shape == (0,)
