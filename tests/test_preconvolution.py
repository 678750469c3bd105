"""Convolving the science image with its own PSF first makes the same score as what Alard & Lupton already does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.signal
from astropy.stats import mad_std

from lsst.diainspect.detection import find_peaks, noise_peak_density
from lsst.diainspect.psf import PolynomialField, fwhm
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, SimulatedPair, simulate_pair
from lsst.diainspect.subtraction import AlConfig, AlSubtractor, ImagePair, SubtractionResult
from lsst.diainspect.subtraction._kernel_basis import KernelBasis, gaussian_polynomial_basis
from lsst.diainspect.subtraction._kernel_fit import KernelEquations, KernelModel, SpatialOrders
from lsst.diainspect.subtraction._transfer import image_from_transfer, transfer_from_image

WINDOW, FILTER_SIZE = 256, 101
CLIPPING = {"clip_sigma": 4.0, "max_iterations": 3, "min_sources": 5}


class Scores(NamedTuple):
    """A sharper science image subtracted as Alard & Lupton do, and after pre-convolution."""

    simulated: SimulatedPair
    result: SubtractionResult
    exact: np.ndarray
    fitted: np.ndarray

    @property
    def sky(self) -> np.ndarray:
        truth, shape = self.simulated.truth, self.result.score.shape
        sources = np.ones(shape, dtype=bool)
        row, column = (np.rint(truth[name]).astype(int).clip(0, shape[0] - 1) for name in ("y", "x"))
        sources[row, column] = False
        distance = scipy.ndimage.distance_transform_edt(sources)
        return (distance > 12) & ~(self.result.bad | self.result.spread | self.result.edge)


def score_of(pair: ImagePair, science_psf: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the optimal score of P_s^T * S - K' * T: its noise whitened, then matched.

    The pre-convolved difference has the noise power |P_s|^2 v_s + |K'|^2 v_t and a point source leaves |P_s|^2 in it.
    """
    v_s, v_t = np.median(pair.science_variance), np.median(pair.template_variance)
    power = np.abs(science_psf) ** 2 * v_s + np.abs(kernel) ** 2 * v_t
    # Where the PSF has vanished both are zero.
    matched = np.abs(science_psf) ** 2 / (power + 1e-9 * power[0, 0])
    science, template = (
        image_from_transfer(transfer, WINDOW, FILTER_SIZE)
        for transfer in (matched * np.conj(science_psf), matched * kernel)
    )

    def convolve(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return scipy.signal.fftconvolve(image.astype(float), weights, mode="same")

    score = convolve(pair.science - np.median(pair.science), science)
    score -= convolve(pair.template - np.median(pair.template), template)
    variance = convolve(pair.science_variance, science**2) + convolve(pair.template_variance, template**2)
    return score / np.sqrt(variance)


@pytest.fixture(scope="module")
def scores() -> Scores:
    conditions = ObservingConditions(
        science_seeing=0.7, template_seeing=0.9, fwhm_variation=0.0, ellipticity_variation=0.0
    )
    simulated = simulate_pair(conditions, SceneConfig(n_transients=60, n_variables=0), 51, size=768)
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    result = AlSubtractor(AlConfig()).subtract(pair)

    psf = pair.science_psf.centre()
    science_psf = transfer_from_image(psf, WINDOW)
    template_psf = transfer_from_image(pair.template_psf.centre(), WINDOW)
    floor = 1e-4 * np.exp(-(np.abs(template_psf) ** 2) / 1e-8)
    exact = score_of(pair, science_psf, np.abs(science_psf) ** 2 / (template_psf + floor))

    # The kernel as ip_diffim finds it: fitted to the pre-convolved image, whose noise is correlated.
    preconvolved = scipy.signal.fftconvolve(pair.science.astype(float), psf[::-1, ::-1], mode="same")
    matching = np.sqrt(2 * fwhm(psf) ** 2 - fwhm(pair.template_psf.centre()) ** 2) / 2.355
    images, degrees = gaussian_polynomial_basis([0.5 * matching, matching, 2 * matching], [4, 4, 2])
    sources = result.kernel_sources
    equations = KernelEquations(
        preconvolved,
        pair.template,
        pair.science_variance * (psf**2).sum(),
        pair.template_variance,
        pair.bad,
        pair.bounds,
        KernelBasis("gaussians", images, degrees <= 2),
        np.asarray(sources["x"]),
        np.asarray(sources["y"]),
        np.asarray(sources["used"]),
        14,
        squared_kernel_sum=0.03,
        model_error=0.01,
    )
    fit = equations.fit(KernelModel(SpatialOrders(0, 0, 0)), **CLIPPING)
    assert fit.kernel.field == PolynomialField(pair.bounds, 0)
    fitted = score_of(pair, science_psf, transfer_from_image(fit.kernel.centre(), WINDOW))
    return Scores(simulated, result, exact, fitted)


def test_science_image_is_the_one_that_is_convolved(scores: Scores) -> None:
    assert scores.result.kernel_convolves == "science"


def test_score_in_the_sky_is_the_same(scores: Scores) -> None:
    sky = scores.sky
    assert sky.sum() > 2e5
    # The sky's background is subtracted in other ways, and the fitted kernel has noise; a score has sigma 1.
    assert mad_std((scores.exact - scores.result.score)[sky]) < 0.06
    assert np.corrcoef(scores.exact[sky], scores.result.score[sky])[0, 1] > 0.997


def test_pre_convolution_with_a_fitted_kernel_is_no_closer_to_the_exact_score(scores: Scores) -> None:
    sky = scores.sky

    def noise_of_the_match(score: np.ndarray) -> float:
        """Return how far a score is from the exact one, without the local background that only ours is free of."""
        difference = np.where(sky, score - scores.exact, 0.0)
        local, fraction = (
            scipy.ndimage.uniform_filter(plane, 41) for plane in (difference, sky.astype(float))
        )
        return float(mad_std((difference - local / np.maximum(fraction, 0.05))[sky]))

    assert noise_of_the_match(scores.result.score) < noise_of_the_match(scores.fitted) < 0.02


def test_transients_are_equally_significant(scores: Scores) -> None:
    truth = scores.simulated.truth
    rows = truth[np.asarray(truth["isTransient"]) & (np.asarray(truth["idealSnr"]) > 10)]
    row, column = np.rint(rows["y"]).astype(int), np.rint(rows["x"]).astype(int)
    flagged = scores.result.bad | scores.result.spread | scores.result.edge
    good = (np.minimum(row, column) > 60) & (np.maximum(row, column) < 708)
    good &= ~flagged[row.clip(0, 767), column.clip(0, 767)]
    # On a host galaxy our score knows of what the match leaves, which the plain one does not.
    good &= np.asarray(rows["hostId"]) <= 0
    ours, exact = (score[row[good], column[good]] for score in (scores.result.score, scores.exact))
    assert good.sum() > 5
    np.testing.assert_allclose(np.median(ours / exact), 1.0, atol=0.02)


@pytest.mark.parametrize("name", ["result", "exact", "fitted"])
def test_scores_have_unit_sigma_and_no_more_peaks_than_noise_makes(scores: Scores, name: str) -> None:
    score = scores.result.score if name == "result" else getattr(scores, name)
    sky = scores.sky
    # 300,000 pixels, some 12,000 of them independent.
    assert mad_std(score[sky]) == pytest.approx(1.0, abs=0.025)
    threshold = 3.5
    found = find_peaks(score.astype(np.float32), sky, threshold, separation=3.0)
    expected = 2 * sky.sum() * noise_peak_density(scores.simulated.science_psf.centre(), threshold)
    assert len(found.x) == pytest.approx(expected, abs=5 * np.sqrt(expected) + 0.25 * expected)
