"""Our differences of real pairs beside those that come with the pairs, by what can be measured without truth."""

from __future__ import annotations

__all__ = ["RealResult", "compare_on_pair", "shared_noise"]

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import scipy.ndimage
import scipy.signal
from astropy.table import Table
from scipy.spatial import cKDTree

from lsst.diainspect.psf import disk_mask, fwhm
from lsst.diainspect.sky import source_pixels
from lsst.diainspect.subtraction import ImagePair, SubtractionError, SubtractionResult, subtractor_registry

from ._blocks import N_DRAWS, Blocks, draw_weights
from ._detections import find_extrema
from ._methods import OWN_METHODS
from ._real_calibration import calibrate_pair
from ._real_pairs import RealPair
from ._sky_statistics import grow

REFERENCE = "reference"

_N_FOLDS = 3
"""Parts of the matched stars, each of which is held out once."""

_HELD_OUT_RADIUS = 6.0
"""A candidate this near to a held-out star is that star [pixel]."""

_BAD_GROWTH = 12
"""Pixels around bad ones that are not counted in any difference."""

_SOURCE_GROWTH = 6
"""Pixels by which sources are grown for the sky."""

_CHANGE_RADIUS = 6.0
"""A detection this near to a known change is that change's, or its wings' [pixel]."""

_SMOOTH = 3.0
"""Width of the Gaussian above which light counts as background where images' noise is compared [pixel]."""

_THRESHOLD = 5.0
_BRIGHT_SNR = 200.0
"""Stars are told apart at this S/N in the science image: below it noise, above it the match decides the residual."""


@dataclass(frozen=True)
class RealResult:
    """What was measured on one pair.

    Parameters
    ----------
    name, reference : `str`
        The pair, and what made the difference that comes with it; empty for none.
    mpix, sky_mpix : `float`
        Common pixels, and those in blank sky [Mpix].
    shared_noise : `float`
        Correlation of the two images' noise: no method that takes it for independent predicts its noise then.
    figures : `dict` [`str`, `dict` [`str`, `numpy.ndarray`]]
        By row and method (or "reference") the value and its bootstrap draws; the first is the value. Draws of the same
        row are paired between methods.
    n_stars : `dict` [`str`, `int`]
        Stars by row.
    calibration : `dict` [`str`, `list`]
        By method what `calibrate_pair` found.
    """

    name: str
    reference: str
    mpix: float
    sky_mpix: float
    shared_noise: float
    figures: dict[str, dict[str, np.ndarray]]
    n_stars: dict[str, int] = field(default_factory=dict)
    calibration: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)


def compare_on_pair(real: RealPair, seed: int = 1) -> RealResult:
    """Subtract a pair with our methods and measure their differences and the reference on the same pixels.

    Parameters
    ----------
    real : `RealPair`
        The pair.
    seed : `int`, optional
        Seed of the bootstraps and of the parts that are held out.
    """
    rng = np.random.default_rng(seed)
    pair = real.pair
    ours = {method: _subtract(real, method) for method in OWN_METHODS}
    usable = ~grow(pair.science_bad | pair.template_bad, _BAD_GROWTH)
    for result in ours.values():
        usable &= ~(result.bad | result.spread | result.edge)
    sources = _source_pixels(pair)
    noise = {method: result.difference / np.sqrt(result.variance) for method, result in ours.items()}
    psfs = {method: result.psf.centre() for method, result in ours.items()}
    if real.reference is not None:
        usable &= np.isfinite(real.reference.difference)
        noise[REFERENCE] = _reference_noise(real, usable & ~sources)
        psfs[REFERENCE] = (
            psfs[real.reference.psf] if isinstance(real.reference.psf, str) else real.reference.psf
        )
    sky = usable & ~sources
    blocks = Blocks.of_shape(usable.shape, 64 if min(usable.shape) > 512 else 32)
    weights = draw_weights(blocks.number, rng)
    figures: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    psf = pair.science_psf.centre()
    for method, values in noise.items():
        claims = method != REFERENCE or (real.reference is not None and real.reference.sigma is not None)
        if claims:
            figures["skySigma"][method] = blocks.robust_sigma(values, sky, weights)
        figures["correlation"][method] = blocks.neighbour_correlation(values, sky, weights)
        scale = blocks.robust_sigma(values, sky, weights)
        figures["whiteScore"][method] = (
            blocks.robust_sigma(_correlate(values, usable, psf), sky, weights) / scale
        )
        plain = _correlate(values, usable, psfs[method])
        score = plain
        if method != REFERENCE:
            score = ours[method].score
            figures["scoreSigma"][method] = blocks.robust_sigma(score, sky, weights)
        up, down = _count(real, plain, usable, sky, blocks, weights)
        figures["nPlain"][method] = up + down
        positive, negative = _count(real, score, usable, sky, blocks, weights)
        figures["nPositive"][method], figures["nNegative"][method] = positive, negative
        figures["imbalance"][method] = positive - negative
    n_stars = _measure_stars(real, ours, noise, usable, figures, rng)
    return RealResult(
        real.name,
        "" if real.reference is None else real.reference.name,
        float(usable.sum() / 1e6),
        float(sky.sum() / 1e6),
        shared_noise(pair),
        dict(figures),
        n_stars,
        {method: calibrate_pair(real, result) for method, result in ours.items()},
    )


def _source_pixels(pair: ImagePair) -> np.ndarray:
    sources = np.zeros(pair.shape, dtype=bool)
    for image, variance in ((pair.science, pair.science_variance), (pair.template, pair.template_variance)):
        sources |= source_pixels(image, variance, pair.science_bad | pair.template_bad)
    return grow(sources, _SOURCE_GROWTH)


def shared_noise(pair: ImagePair) -> float:
    """Return the correlation of the two images' pixels in blank sky: 0 unless they have exposures in common."""
    sky = ~(_source_pixels(pair) | pair.science_bad | pair.template_bad)
    pulls = []
    for image, variance in ((pair.science, pair.science_variance), (pair.template, pair.template_variance)):
        pull = image / np.sqrt(variance)
        # What is smooth is background, not noise.
        pulls.append(pull - scipy.ndimage.gaussian_filter(pull, _SMOOTH))
        sky &= np.abs(pull) < _THRESHOLD
    return float(np.corrcoef(pulls[0][sky], pulls[1][sky])[0, 1])


def _subtract(real: RealPair, method: str, candidates: Table | None = None) -> SubtractionResult:
    algorithm = subtractor_registry[method]
    return algorithm(algorithm.ConfigClass()).subtract(real.pair, candidates)


def _reference_noise(real: RealPair, sky: np.ndarray) -> np.ndarray:
    """Return the reference over its sigma, where that is not known over the sky's times what sources add to it."""
    reference = real.reference
    assert reference is not None
    if reference.sigma is not None:
        return reference.difference / reference.sigma
    total = real.pair.science_variance + real.pair.template_variance
    values = reference.difference / np.sqrt(total / np.median(total[sky]))
    values = values - np.median(values[sky])
    low, high = np.percentile(values[sky], [25.0, 75.0])
    return values * 1.34898 / (high - low)


def _correlate(noise: np.ndarray, usable: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Correlate with a PSF, in units of the sigma that white noise of unit variance would have."""
    filled = np.where(usable, np.nan_to_num(noise), 0.0)
    return scipy.signal.fftconvolve(filled, psf[::-1, ::-1], mode="same") / np.sqrt(np.sum(psf**2))


def _count(
    real: RealPair,
    score: np.ndarray,
    usable: np.ndarray,
    sky: np.ndarray,
    blocks: Blocks,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Count detections that are no known changes, positive and negative, for each draw."""
    low, high = np.percentile(score[sky], [25.0, 75.0])
    found = find_extrema(score * 1.34898 / (high - low), usable, _THRESHOLD)
    unknown = np.ones(len(found), dtype=bool)
    if len(real.changes) and len(found):
        distance, _ = cKDTree(real.changes).query(np.column_stack([found.x, found.y]))
        unknown = distance > _CHANGE_RADIUS
    up = found.height > 0
    return (
        blocks.count(found.x[unknown & up], found.y[unknown & up], weights),
        blocks.count(found.x[unknown & ~up], found.y[unknown & ~up], weights),
    )


def _measure_stars(
    real: RealPair,
    ours: dict[str, SubtractionResult],
    noise: dict[str, np.ndarray],
    usable: np.ndarray,
    figures: dict[str, dict[str, np.ndarray]],
    rng: np.random.Generator,
) -> dict[str, int]:
    """Measure stars in differences that were made without them; add rows to the figures; return their numbers.

    The reference was made with whichever of them its author used.
    """
    sources = next(
        (result.kernel_sources for result in ours.values() if result.kernel_sources is not None), None
    )
    if sources is None:
        return {}
    stars = np.asarray(sources["used"]) & np.asarray(sources["isStar"])
    x, y = (np.asarray(sources[axis], dtype=float) for axis in ("x", "y"))
    snr = np.asarray(sources["scienceFlux"]) / np.asarray(sources["scienceFluxErr"])
    if len(real.changes):
        distance, _ = cKDTree(real.changes).query(np.column_stack([x, y]))
        stars &= distance > 3.0 * _CHANGE_RADIUS
    chosen = rng.permutation(np.flatnonzero(stars))
    radius = float(max(fwhm(real.pair.science_psf.centre()), fwhm(real.pair.template_psf.centre())))
    rms = {method: np.full(len(chosen), np.nan) for method in noise}
    for part in range(_N_FOLDS):
        here = np.arange(part, len(chosen), _N_FOLDS)
        if len(here) == 0:
            continue
        distance, _ = cKDTree(np.column_stack([x, y])[chosen[here]]).query(np.column_stack([x, y]))
        candidates = Table({"x": x[distance > _HELD_OUT_RADIUS], "y": y[distance > _HELD_OUT_RADIUS]})
        for method in OWN_METHODS:
            try:
                result = _subtract(real, method, candidates)
            except SubtractionError:
                # Too few are left to match the images on.
                continue
            values = result.difference / np.sqrt(result.variance)
            rms[method][here] = _star_rms(values, usable, x[chosen[here]], y[chosen[here]], radius)
    if REFERENCE in noise:
        rms[REFERENCE] = _star_rms(noise[REFERENCE], usable, x[chosen], y[chosen], radius)
    measured = np.all([np.isfinite(values) for values in rms.values()], axis=0)
    numbers = {}
    for name, which in (
        ("brightStars", measured & (snr[chosen] >= _BRIGHT_SNR)),
        ("faintStars", measured & (snr[chosen] < _BRIGHT_SNR)),
    ):
        numbers[name] = int(which.sum())
        if numbers[name] == 0:
            continue
        entries = np.flatnonzero(which)
        drawn = np.concatenate([entries[None], rng.choice(entries, (N_DRAWS, len(entries)))])
        figures[name] = {method: np.median(values[drawn], axis=1) for method, values in rms.items()}
    return numbers


def _star_rms(
    noise: np.ndarray, usable: np.ndarray, x: np.ndarray, y: np.ndarray, radius: float
) -> np.ndarray:
    """Return the rms within a radius of each star, (N,); NaN where a pixel is not usable."""
    half = int(np.ceil(radius)) + 1
    rms = np.full(len(x), np.nan)
    for entry, (column, row) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)):
        window = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
        stamp = noise[window]
        if min(row, column) < half or stamp.shape != (2 * half + 1, 2 * half + 1) or not usable[window].all():
            continue
        aperture = disk_mask(2 * half + 1, np.array([x[entry] - column]), np.array([y[entry] - row]), radius)[
            0
        ]
        rms[entry] = np.sqrt(np.mean(stamp[aperture] ** 2))
    return rms
