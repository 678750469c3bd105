"""Single precision, in which images are filtered, against the same computation in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from lsst.diainspect.simulation import ObservingConditions, SceneConfig, simulate_pair
from lsst.diainspect.subtraction import ImagePair, decorrelation_transfer, proper_filters
from lsst.diainspect.subtraction._cell_filters import LocalFilters, filter_in_cells, score_difference
from lsst.diainspect.subtraction._cells import CellGrid
from lsst.diainspect.subtraction._transfer import image_from_transfer, transfer_from_image

WINDOW = 256
MARGIN = WINDOW // 2


@pytest.fixture(scope="module")
def pair() -> ImagePair:
    """Stars up to saturation, as far above the noise as an image holds them."""
    scene = SceneConfig(star_density=60, star_magnitudes=(15.0, 23.0))
    simulated = simulate_pair(
        ObservingConditions(science_seeing=0.9, template_seeing=0.7), scene, 61, size=512
    )
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    assert pair.science.dtype == np.float32
    assert (pair.science - np.median(pair.science)).max() > 500 * np.sqrt(np.median(pair.science_variance))
    return pair


def local_filters(pair: ImagePair, method: str) -> LocalFilters:
    p_s, p_t = (
        transfer_from_image(psf.centre().astype(float), WINDOW)
        for psf in (pair.science_psf, pair.template_psf)
    )
    v_s, v_t = (float(np.median(plane)) for plane in (pair.science_variance, pair.template_variance))
    if method == "zogy":
        return proper_filters(p_s, p_t, 1.0, v_s, v_t)
    kappa = p_s / np.where(np.abs(p_t) > 1e-3, p_t, 1e-3)
    phi = decorrelation_transfer(kappa, v_s, v_t)
    return LocalFilters(science=phi, template=phi * kappa, psf=phi * p_s)


@pytest.mark.parametrize("method", ["al", "zogy"])
def test_single_precision_changes_nothing_that_noise_does_not_hide(pair: ImagePair, method: str) -> None:
    local = local_filters(pair, method)
    grid = CellGrid(pair.shape, 256, MARGIN)
    images = (
        image_from_transfer(local.science, WINDOW, WINDOW - 1),
        image_from_transfer(local.template, WINDOW, WINDOW - 1),
    )
    single = filter_in_cells(grid, (pair.science, pair.template), lambda x, y: (images[0], -images[1]))
    scored = score_difference(
        grid,
        single,
        pair,
        lambda x, y, window: local,
        WINDOW,
        astrometric_rms=0.01,
        relative_error=1e-3,
    )
    assert single.dtype == scored.score.dtype == scored.variance.dtype == np.float32

    def convolve(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return scipy.signal.fftconvolve(image.astype(np.float64), weights, mode="same")

    double = convolve(pair.science, images[0]) - convolve(pair.template, images[1])
    psf = image_from_transfer(np.conj(local.psf), WINDOW, WINDOW - 1)
    matched = [
        image_from_transfer(np.conj(local.psf) * part, WINDOW, WINDOW - 1)
        for part in (local.science, local.template)
    ]
    variance = convolve(pair.science_variance, images[0] ** 2) + convolve(
        pair.template_variance, images[1] ** 2
    )
    error = convolve(pair.science_variance, matched[0] ** 2) + convolve(
        pair.template_variance, matched[1] ** 2
    )
    level = np.float32(np.median(pair.template[::8, ::8]))
    static = convolve(pair.template - level, matched[1])
    along_y, along_x = np.gradient(static)
    error += 0.01**2 * (along_x**2 + along_y**2) + (1e-3 * static) ** 2
    score = convolve(double, psf) / np.sqrt(error)

    # Beyond the margin the two continue the image in other ways.
    inner = (slice(MARGIN, -MARGIN),) * 2
    sigma = np.sqrt(variance)
    assert np.abs((single - double) / sigma)[inner].max() < 2e-3
    assert np.abs(scored.variance / variance - 1.0)[inner].max() < 1e-4
    assert np.abs(scored.score - score)[inner].max() < 5e-3
