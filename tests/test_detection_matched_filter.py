"""The matched filter of a difference is the S/N of a point source, and noise crosses thresholds as theory says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from lsst.images import Box

from detection_field import SKY_VARIANCE, X_FIRST, Y_FIRST, Field, grid_field
from lsst.diainspect.detection import find_peaks, matched_filter_score, noise_peak_density
from lsst.diainspect.masks import words_masked_by
from lsst.diainspect.psf import PixelBasisPsf


def score_of(field: Field, bad: np.ndarray | None = None) -> np.ndarray:
    blank = np.zeros(field.shape, dtype=bool)
    return matched_filter_score(field.difference, field.variance, blank if bad is None else bad, field.psf)


@pytest.mark.parametrize("cell", [1024, 200])
def test_score_is_the_flux_of_a_psf_fit_over_its_error(monkeypatch, cell):
    monkeypatch.setattr("lsst.diainspect.detection._matched_filter._CELL", cell)
    rng = np.random.default_rng(1)
    shape = (380, 450)
    field = Field([], [], [], shape=shape, variance=SKY_VARIANCE * rng.uniform(0.3, 3.0, shape), seed=2)
    bad = rng.random(shape) < 0.05
    field.difference[rng.random(shape) < 0.01] = np.nan
    field.variance[rng.random(shape) < 0.01] = 0.0
    score = score_of(field, bad)
    good = ~bad & np.isfinite(field.difference) & (field.variance > 0)
    model = field.psf.centre()
    for y, x in ((200, 200), (199, 400), (0, 0), (379, 449), (5, 300), (190, 10)):
        rows, columns = (slice(max(c - 15, 0), c + 16) for c in (y, x))
        inner = tuple(
            slice(part.start - c + 15, part.start - c + 15 + len(range(*part.indices(length))))
            for part, c, length in ((rows, y, shape[0]), (columns, x, shape[1]))
        )
        keep = good[rows, columns]
        profile, weight = model[inner][keep], 1.0 / field.variance[rows, columns][keep]
        flux = (profile * weight * field.difference[rows, columns][keep]).sum()
        expected = flux / np.sqrt((profile**2 * weight).sum())
        assert score[y, x] == pytest.approx(expected, abs=1e-4)


def test_score_follows_a_psf_that_varies_and_an_image_that_is_not_square():
    shape = (300, 400)
    box = Box.factory[Y_FIRST : Y_FIRST + shape[0], X_FIRST : X_FIRST + shape[1]]

    def draw(x: float, y: float) -> np.ndarray:
        y_grid, x_grid = np.mgrid[:31, :31] - 15
        sigma = 1.5 + (x - X_FIRST) / 400.0
        return np.exp(-0.5 * (x_grid**2 + y_grid**2) / sigma**2)

    psf = PixelBasisPsf.from_callable(draw, box, order=2)
    difference = np.zeros(shape)
    for x in (50, 350):
        difference[135:166, x - 15 : x + 16] += psf.at(X_FIRST + x, Y_FIRST + 150)
    score = matched_filter_score(difference, np.ones(shape), np.zeros(shape, dtype=bool), psf)
    for x in (50, 350):
        optimal = np.sqrt((psf.at(X_FIRST + x, Y_FIRST + 150) ** 2).sum())
        # One PSF for the whole cell: a width 20 % off costs 2 % of the S/N.
        assert 0.95 * optimal < score[150, x] < 1.001 * optimal


def test_blank_noise_has_a_score_of_unit_variance_whatever_its_depth():
    variance = SKY_VARIANCE * np.where(np.arange(600) < 300, 1.0, 9.0)[None, :] * np.ones((600, 1))
    score = score_of(Field([], [], [], shape=(600, 600), variance=variance))
    for half in (score[:, :300], score[:, 300:]):
        # 4 pi sigma^2 = 50 pixels are one independent one.
        assert half.std() == pytest.approx(1.0, abs=4.0 / np.sqrt(2.0 * half.size / 50.0))


def test_pixels_that_see_too_little_have_no_score():
    field = Field([], [], [])
    bad = np.zeros(field.shape, dtype=bool)
    bad[100:200, 100:200] = True
    score = score_of(field, bad)
    assert np.isnan(score[110:190, 110:190]).all()
    assert np.isfinite(score[:90]).all()
    assert np.isnan(score_of(field, np.ones(field.shape, dtype=bool))).all()


def test_sources_on_a_filtered_difference_are_those_on_its_score():
    field = grid_field(20.0)
    given = field.detect()
    field.mask("COSMIC_RAY", slice(10, 12), slice(200, 230))
    field.difference[10:12, 200:230] = 1e6
    field.score = score_of(field, words_masked_by(field.words, ("COSMIC_RAY",)))
    found = field.detect()
    assert len(found) == len(given)
    order = [np.argsort(table["x"]) for table in (given, found)]
    for name in ("x", "y", "psfFlux"):
        np.testing.assert_allclose(found[name][order[1]], given[name][order[0]], rtol=1e-3)
    np.testing.assert_allclose(found["snr"][order[1]], given["snr"][order[0]], rtol=0.01)


def test_density_of_noise_peaks_is_that_of_a_gaussian_psf():
    for sigma in (1.5, 3.0):
        y, x = np.mgrid[:41, :41] - 20
        psf = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
        for nu in (3.5, 5.0):
            expected = nu * np.exp(-0.5 * nu**2) / (2.0**2.5 * np.pi**1.5 * sigma**2)
            assert noise_peak_density(7.0 * psf, nu) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stretch", [1.0, 1.6])
def test_noise_makes_as_many_peaks_of_each_sign_as_theory_says(stretch):
    n, threshold = 2048, 3.8
    y, x = np.mgrid[:41, :41] - 20
    psf = np.exp(-0.5 * ((x / stretch) ** 2 + y**2) / 1.5**2)
    psf /= psf.sum()
    box = Box.factory[0:n, 0:n]
    noise = np.random.default_rng(17).normal(size=(n, n)).astype(np.float32)
    bad = np.zeros((n, n), dtype=bool)
    score = matched_filter_score(noise, np.ones((n, n)), bad, PixelBasisPsf.from_image(psf, box))
    peaks = find_peaks(score, ~bad, threshold, 1.5)
    expected = n**2 * noise_peak_density(psf, threshold)
    assert expected > 100
    for count in ((peaks.score > 0).sum(), (peaks.score < 0).sum()):
        assert count == pytest.approx(expected, abs=4.0 * np.sqrt(expected))


def test_sources_at_the_limit_are_found_half_of_the_time_wherever_they_lie_on_the_pixels():
    narrow = np.random.default_rng(3).uniform(-0.5, 0.5, (2, 900))
    grid = np.mgrid[:30, :30].reshape(2, -1) * 24.0 + 24.0
    y, x = np.rint(grid) + narrow
    image = np.random.default_rng(4).normal(size=(768, 768))
    sigma = 1.2
    norm = np.sqrt(4.0 * np.pi) * sigma
    rows, columns = np.mgrid[-10:11, -10:11]
    for xi, yi, dx, dy in zip(grid[1], grid[0], narrow[1], narrow[0], strict=True):
        profile = np.exp(-0.5 * ((columns - dx) ** 2 + (rows - dy) ** 2) / sigma**2) / (2 * np.pi * sigma**2)
        image[int(yi) - 10 : int(yi) + 11, int(xi) - 10 : int(xi) + 11] += 8.0 * norm * profile
    score = scipy.ndimage.gaussian_filter(image, sigma) * norm
    peaks = find_peaks(score, np.ones(score.shape, dtype=bool), 8.0, 2.0)
    distance = np.hypot(x[:, None] - peaks.x, y[:, None] - peaks.y).min(axis=1)
    n_found = int((distance < 1.0).sum())
    # The maximum over two coordinates lies 1 / 8 sigma above the truth on average.
    chance = scipy.stats.norm.sf(-1.0 / 8.0)
    assert n_found == pytest.approx(900 * chance, abs=4.0 * np.sqrt(900 * chance * (1 - chance)))
