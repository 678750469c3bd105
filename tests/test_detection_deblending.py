"""Sources that overlap are measured without each other's light, and none is lost or found twice."""

from __future__ import annotations

import numpy as np
import pytest

from detection_field import PSF_SIGMA, SKY_VARIANCE, X_FIRST, Y_FIRST, Field, match
from lsst.diainspect.detection._cutouts import FittedImage
from lsst.diainspect.detection._deblend import find_blends, fit_jointly

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0)) * PSF_SIGMA


def pairs(separation: float, bright: float, faint: float, seed: int, noise: float = 1.0) -> Field:
    """64 pairs of random angle, 60 pixels apart."""
    rng = np.random.default_rng(seed)
    grid = np.arange(8) * 60.0 + 46.0
    x, y = (values.ravel() + rng.uniform(-5, 5, 64) for values in np.meshgrid(grid, grid))
    angle = rng.uniform(0, 2 * np.pi, 64)
    x = np.concatenate([x, x + separation * np.cos(angle)])
    y = np.concatenate([y, y + separation * np.sin(angle)])
    return Field(x + X_FIRST, y + Y_FIRST, np.repeat([bright, faint], 64), seed=seed, noise=noise)


def fitted_image(field: Field) -> FittedImage:
    return FittedImage(field.difference, field.variance, field.words, field.psf, FWHM, 31, ())


def test_joint_fluxes_are_those_of_a_fit_to_all_pixels():
    rng = np.random.default_rng(2)
    x = X_FIRST + 100.0 + np.array([0.2, 6.4, 3.1, 60.0])
    y = Y_FIRST + 120.0 + np.array([0.7, 1.2, 7.7, 0.0])
    field = Field(x, y, [20.0, 35.0, 15.0, 30.0], variance=SKY_VARIANCE * rng.uniform(0.5, 2.0, (512, 512)))
    blends = find_blends(x, y, 3.0 * FWHM)
    joint = fit_jointly(fitted_image(field), x, y, blends)
    models = [Field([xi], [yi], [1.0], noise=0.0).difference for xi, yi in zip(x[:3], y[:3], strict=True)]
    design = np.stack(models).reshape(3, -1) / field.flux_error
    normal = design / field.variance.ravel() @ design.T
    expected = np.linalg.solve(normal, design / field.variance.ravel() @ field.difference.ravel())
    np.testing.assert_allclose(joint.flux[:3], expected, rtol=1e-4)
    np.testing.assert_allclose(joint.flux_error[:3], np.sqrt(np.diag(np.linalg.inv(normal))), rtol=1e-4)
    assert np.isnan(joint.flux[3])
    np.testing.assert_array_equal(blends.group_sizes, [3, 3, 3, 1])


def test_close_pairs_have_unbiased_fluxes_and_positions_with_pulls_of_unit_width():
    # At this distance a fit that ignores the neighbour is off by one sigma.
    field = pairs(1.7 * FWHM, 60.0, 50.0, seed=3)
    sources = field.detect()
    assert len(sources) == 128
    matched = sources[match(field, sources)]
    assert (matched["nBlended"] == 2).all()
    expected = field.flux + field.flux_error**2 / field.flux
    pulls = {"psfFlux": (matched["psfFlux"] - expected) / matched["psfFluxErr"]}
    pulls |= {name: (matched[name] - getattr(field, name)) / matched[f"{name}Err"] for name in "xy"}
    for name, pull in pulls.items():
        assert abs(pull.mean()) < 4.0 / np.sqrt(128), name
        assert abs(pull.std() - 1.0) < 4.0 / np.sqrt(2 * 128), name


def test_joint_errors_are_larger_than_those_of_a_source_alone():
    close, alone = pairs(1.3 * FWHM, 60.0, 60.0, seed=4), Field([X_FIRST + 99.0], [Y_FIRST + 99.0], [60.0])
    sources = close.detect()
    # Two unit-norm Gaussians at 1.3 FWHM have the product exp(-d^2 / 4 sigma^2) = c, and errors 1 / sqrt(1 - c^2).
    product = np.exp(-((1.3 * FWHM) ** 2) / (4.0 * PSF_SIGMA**2))
    ratio = np.median(sources["psfFluxErr"]) / alone.detect()["psfFluxErr"][0]
    assert ratio == pytest.approx(1.0 / np.sqrt(1.0 - product**2), rel=0.01)


def test_faint_sources_beside_bright_ones_are_found_once_and_measured():
    field = pairs(2.2 * FWHM, 150.0, 25.0, seed=5)
    sources = field.detect()
    # One row for each bright source and one for each faint one.
    assert len(sources) == 128
    faint = sources[match(field, sources)[64:]]
    pull = (faint["psfFlux"] - field.flux[64:]) / faint["psfFluxErr"]
    assert np.abs(pull).max() < 5.0


def test_sources_that_stand_alone_are_measured_as_without_deblending(monkeypatch):
    field = Field([X_FIRST + 100.2, X_FIRST + 400.0], [Y_FIRST + 100.0, Y_FIRST + 300.4], [50.0, -20.0])
    together = field.detect()
    monkeypatch.setattr("lsst.diainspect.detection._detect._BLENDING_IN_FWHM", 0.0)
    apart = field.detect(merging_distance=0.0)
    for name in together.colnames:
        np.testing.assert_array_equal(together[name], apart[name])
    assert (together["nBlended"] == 1).all()


def test_a_source_without_good_pixels_does_not_spoil_its_group():
    field = pairs(1.6 * FWHM, 60.0, 40.0, seed=6, noise=0.0)
    x, y = field.x, field.y
    column, row = int(x[64]) - X_FIRST, int(y[64]) - Y_FIRST
    image = fitted_image(field)
    image.difference[row - 17 : row + 18, column - 17 : column + 18] = np.nan
    joint = fit_jointly(image, x, y, find_blends(x, y, 3.0 * FWHM))
    assert np.isnan(joint.flux[64])
    others = np.delete(np.arange(128), [0, 64])
    np.testing.assert_allclose(joint.flux[others], field.flux[others], rtol=1e-3)


def test_large_groups_fall_apart_at_their_longest_links():
    x = np.arange(300) * 10.0
    x[150:] += 3.0
    blends = find_blends(x, np.zeros(300), 14.0)
    assert blends.group_sizes.max() <= 64
    assert find_blends(x[:60], np.zeros(60), 14.0).group_sizes.tolist() == [60] * 60
    short = find_blends(np.array([0.0, 1.0, 9.0, 30.0]), np.zeros(4), 10.0)
    np.testing.assert_array_equal(short.group_sizes, [3, 3, 3, 1])
    np.testing.assert_array_equal(short.blended, [0, 1, 2])


def test_small_pieces_are_fitted_like_one(monkeypatch):
    field = pairs(1.6 * FWHM, 60.0, 40.0, seed=7)
    whole = field.detect()
    monkeypatch.setattr("lsst.diainspect.detection._deblend._PAIRS", 7)
    monkeypatch.setattr("lsst.diainspect.detection._measure._CHUNK", 11)
    pieces = field.detect()
    for name in whole.colnames:
        if whole[name].dtype.kind == "f":
            np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-6)
        else:
            np.testing.assert_array_equal(pieces[name], whole[name])
