"""Pairs that ip_diffim subtracted and measured, with truth: ours against the stack's own answer."""

from __future__ import annotations

import os
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.spatial
from astropy.table import Table
from lsst.daf.butler.formatters.parquet import arrow_to_astropy
from lsst.images import DifferenceImage, Image, MaskedImage, VisitImage

from lsst.diainspect.detection import DetectionSettings, detect_dia_sources
from lsst.diainspect.masks import mask_to_words
from lsst.diainspect.psf import PixelBasis, PolynomialField
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    ZogyConfig,
    ZogySubtractor,
    convolve_varying,
    make_difference_image,
)
from lsst.diainspect.subtraction._star_fit import fit_stars

DATA = (
    Path(os.environ.get("DIAINSPECT_TESTDATA_DIR", Path(__file__).parents[2] / "shared" / "data"))
    / "ip_diffim_reference"
)
METHODS = {"al": AlSubtractor(AlConfig()), "zogy": ZogySubtractor(ZogyConfig())}
MATCH_RADIUS = 3.0

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"The ip_diffim reference is not there ({DATA}); set DIAINSPECT_TESTDATA_DIR."
)


def as_njy(image: VisitImage) -> MaskedImage:
    """Call the electrons of the reference nJy: its zero points are placeholders."""
    return MaskedImage(
        Image(image.image.array, bbox=image.bbox, unit=u.nJy, sky_projection=image.sky_projection),
        mask=image.mask,
        variance=Image(image.variance.array, bbox=image.bbox, unit=u.nJy**2),
    )


@pytest.fixture(scope="module", params=["f1k_1", "r1k_1"])
def reference(request):
    directory = DATA / request.param
    science = VisitImage.read(directory / "science.fits")
    template = DifferenceImage.read(directory / "template.fits")
    pair = ImagePair.from_images(as_njy(science), as_njy(template), science.psf, template.psf)
    truth = arrow_to_astropy(pq.read_table(directory / "truth.parquet"))
    extras = np.load(directory / "extras.npz")
    ours = {}
    for method, subtractor in METHODS.items():
        result = subtractor.subtract(pair)
        sources = detect_dia_sources(
            result.score,
            result.difference,
            result.variance,
            mask_to_words(make_difference_image(result, pair, science, template).mask),
            result.psf,
            science.sky_projection,
            DetectionSettings(),
        )
        ours[method] = (result, sources)
    theirs = arrow_to_astropy(pq.read_table(directory / "dia_sources.parquet"))
    return directory, pair, truth, float(extras["flux_scale"]), ours, theirs


def positions(truth: Table) -> np.ndarray:
    """Return the positions in the science image; those of the template where these are not known."""
    x, y = np.asarray(truth["x_science"], dtype=float), np.asarray(truth["y_science"], dtype=float)
    known = np.isfinite(x)
    return np.stack([np.where(known, x, truth["x"]), np.where(known, y, truth["y"])], axis=-1)


def changing(truth: Table) -> Table:
    return truth[np.asarray(truth["is_variable"]) | (np.asarray(truth["kind"]).astype(str) == "transient")]


def n_false(x: np.ndarray, y: np.ndarray, truth: Table) -> int:
    tree = scipy.spatial.cKDTree(positions(changing(truth)))
    distance, _ = tree.query(np.stack([np.asarray(x), np.asarray(y)], axis=-1))
    return int((distance > MATCH_RADIUS).sum())


@pytest.mark.parametrize("method", METHODS)
def test_false_detections_are_no_more_than_noise_makes(reference, method):
    *_, ours, theirs = reference
    truth = reference[2]
    _, sources = ours[method]
    # 0.3 per 1024 x 1024 pixels from noise alone: more than 3 has a chance of 3e-4.
    false = n_false(sources["x"], sources["y"], truth)
    assert false <= 3
    assert false < n_false(theirs["ip_diffim_DipoleFit_x"], theirs["ip_diffim_DipoleFit_y"], truth)


@pytest.mark.parametrize("method", METHODS)
def test_transients_above_the_threshold_are_found(reference, method):
    _, _, truth, _, ours, _ = reference
    result, sources = ours[method]
    transients = truth[np.asarray(truth["kind"]).astype(str) == "transient"]
    where = positions(transients)
    column, row = np.rint(where.T).astype(int)
    usable = ~(result.edge | result.spread | result.bad)[row, column] & (np.asarray(transients["snr"]) > 8)
    tree = scipy.spatial.cKDTree(np.stack([sources["x"], sources["y"]], axis=-1))
    distance, _ = tree.query(where[usable])
    assert usable.sum() > 50
    assert (distance < MATCH_RADIUS).all()


@pytest.mark.parametrize("method", METHODS)
def test_fluxes_are_unbiased(reference, method):
    _, _, truth, flux_scale, ours, _ = reference
    result, _ = ours[method]
    transients = truth[np.asarray(truth["kind"]).astype(str) == "transient"]
    where = positions(transients)
    column, row = np.rint(where.T).astype(int)
    usable = ~(result.edge | result.spread | result.bad)[row, column] & (np.asarray(transients["snr"]) > 15)
    _, _, fit = fit_stars(
        result.difference, result.variance, result.bad, result.psf, *where[usable].T, 12.0, iterations=1
    )
    true = np.asarray(transients["dflux"])[usable] * flux_scale
    weight = (true / fit.flux_error) ** 2
    # ip_diffim's own PSF fluxes are off by +2 % and -8 % here: its difference keeps the science image's PSF.
    assert np.average(fit.flux / true, weights=weight) == pytest.approx(1.0, abs=0.01 + weight.sum() ** -0.5)


def test_a_kernel_of_ip_diffim_is_flipped_before_it_convolves(reference):
    """afw correlates: convolving with the flipped kernel and the decorrelation kernel gives its difference."""
    directory, pair, *_ = reference
    extras = np.load(directory / "extras.npz")
    stored = DifferenceImage.read(directory / "difference.fits")
    centre = stored.kernel.compute_kernel_image(x=512, y=512).array
    cutout = np.s_[512 - 100 : 512 + 100, 512 - 100 : 512 + 100]
    bounds = stored.bbox
    residual = {}
    for name, image in (("flipped", centre[::-1, ::-1]), ("as stored", centre)):
        kernel = PixelBasis(image[None].astype(float), PolynomialField(bounds, 0))
        decorrelation = PixelBasis(
            extras["decorrelation_kernel"][None].astype(float), PolynomialField(bounds, 0)
        )
        matched = convolve_varying(pair.template, kernel)
        difference = convolve_varying(pair.science - matched, decorrelation)
        residual[name] = np.std((difference - stored.image.array)[cutout])
    # The kernel varies over the field, so one kernel is exact at its own place only.
    assert residual["flipped"] < 0.5 * residual["as stored"]
