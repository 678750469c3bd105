"""What is left of constant stars that no method has fitted on, and what the jitter alone must leave.

A star of flux F that lies d away from where its neighbours say leaves F f_s * (P_n(x - d) - P_n(x)) in the best
difference, f_s being what the difference does to the science image. With the unit noise of D / sigma the least root
mean square over an aperture is sqrt(1 + mean of that squared over sigma squared).
"""

from __future__ import annotations

__all__ = ["STAR_MAGNITUDES", "StarResiduals", "measure_stars"]

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.spatial import cKDTree

from lsst.diainspect.psf import fwhm, shift_images

from ._ideal import ideal_filters
from ._scenes import FLUX_SCALE, BenchmarkScene

STAR_MAGNITUDES = (16.0, 18.0, 20.0)
"""Edges of the bins of stars [mag]."""

_BLEND_DISTANCE = 15.0
_BLEND_MAGNITUDES = 3.0
"""Stars with another object this near that is less than this much fainter are left out [pixel, mag]."""

_CHANGE_DISTANCE = 25.0
"""Stars with a change this near are left out [pixel]."""


@dataclass(frozen=True)
class StarResiduals:
    """Residuals at stars, each array (N,).

    Parameters
    ----------
    object_id, magnitude : `numpy.ndarray`
        The stars.
    held_out : `numpy.ndarray`, bool
        Whether methods were kept from fitting on it.
    rms : `numpy.ndarray`
        Root mean square of D / sigma within one FWHM of the blunter image.
    floor : `numpy.ndarray`
        What noise and the star's own jitter leave in the best difference.
    """

    object_id: np.ndarray
    magnitude: np.ndarray
    held_out: np.ndarray
    rms: np.ndarray
    floor: np.ndarray


def measure_stars(scene: BenchmarkScene, noise: np.ndarray, usable: np.ndarray) -> StarResiduals:
    """Measure what is left at unsaturated, unblended constant stars.

    Parameters
    ----------
    scene : `BenchmarkScene`
        The scene.
    noise : `numpy.ndarray`, (height, width)
        Difference over its sigma.
    usable : `numpy.ndarray`, (height, width), bool
        Pixels that count; a star needs all of its aperture.
    """
    truth = scene.truth
    chosen = _clean_stars(scene)
    x, y = np.asarray(truth["x"])[chosen], np.asarray(truth["y"])[chosen]
    radius = max(fwhm(scene.true_science_psf.centre()), fwhm(scene.true_template_psf.centre()))
    half = int(np.ceil(radius)) + 1
    sky = scene.info["scienceSkyVariance"], float(np.median(scene.template_variance))
    rms, floor = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    for entry, (star, star_x, star_y) in enumerate(zip(chosen, x, y, strict=True)):
        column, row = round(float(star_x)), round(float(star_y))
        rows, columns = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
        if min(row, column) < half or not usable[rows, columns].all():
            continue
        stamp = noise[rows, columns]
        if stamp.shape != (2 * half + 1, 2 * half + 1):
            continue
        v, u = np.mgrid[-half : half + 1, -half : half + 1]
        aperture = np.hypot(u - (star_x - column), v - (star_y - row)) <= radius
        rms[entry] = np.sqrt(np.mean(stamp[aperture] ** 2))
        floor[entry] = np.sqrt(1.0 + np.mean(_jitter_residual(scene, int(star), half, sky)[aperture] ** 2))
    kept = np.isfinite(floor)
    return StarResiduals(
        object_id=np.asarray(truth["objectId"])[chosen][kept],
        magnitude=np.asarray(truth["mag"])[chosen][kept],
        held_out=np.asarray(truth["heldOut"])[chosen][kept],
        rms=rms[kept],
        floor=floor[kept],
    )


def _clean_stars(scene: BenchmarkScene) -> np.ndarray:
    truth = scene.truth
    magnitude = np.asarray(truth["mag"])
    x, y = np.asarray(truth["x"]), np.asarray(truth["y"])
    stars = np.asarray(truth["kind"] == "star") & (magnitude > STAR_MAGNITUDES[0])
    stars &= (magnitude < STAR_MAGNITUDES[-1]) & ~np.asarray(truth["isSaturated"])
    changed = np.asarray(truth["fluxChange"]) != 0
    clean = []
    tree = cKDTree(np.column_stack([x, y]))
    for star in np.flatnonzero(stars):
        others = [
            other for other in tree.query_ball_point((x[star], y[star]), _CHANGE_DISTANCE) if other != star
        ]
        distance = np.hypot(x[others] - x[star], y[others] - y[star])
        blended = (distance < _BLEND_DISTANCE) & (magnitude[others] < magnitude[star] + _BLEND_MAGNITUDES)
        if not (blended | changed[others]).any():
            clean.append(star)
    return np.array(clean, dtype=int)


def _jitter_residual(scene: BenchmarkScene, star: int, half: int, sky: tuple[float, float]) -> np.ndarray:
    """Return what the star's jitter leaves in the ideal difference over its sigma, (2 half + 1, 2 half + 1)."""
    truth = scene.truth[star]
    x, y = float(truth["x"]), float(truth["y"])
    column, row = round(x), round(y)
    size = scene.true_science_psf.size
    window = scipy.fft.next_fast_len(2 * size, real=True)
    # The filters at a star are those of its surroundings: they do not know of its light.
    filters = ideal_filters(scene, x, y, window, *sky)

    def filtered(image: np.ndarray, transfer: np.ndarray) -> np.ndarray:
        padded = np.zeros((window, window))
        padded[: image.shape[0], : image.shape[1]] = image
        full = scipy.fft.irfft2(transfer * scipy.fft.rfft2(padded), s=(window, window))
        middle = image.shape[0] // 2
        return full[middle - half : middle + half + 1, middle - half : middle + half + 1]

    def power(transfer: np.ndarray) -> np.ndarray:
        return scipy.fft.rfft2(scipy.fft.irfft2(transfer, s=(window, window)) ** 2)

    psf = scene.true_science_psf.at(x, y)[None]
    shift = np.array([x - column]), np.array([y - row])
    jitter = np.array([float(truth["jitterX"])]), np.array([float(truth["jitterY"])])
    here = shift_images(psf, *shift)[0]
    without = shift_images(psf, shift[0] - jitter[0], shift[1] - jitter[1])[0]
    flux = float(truth["scienceFlux"]) * FLUX_SCALE
    residual = filtered(flux * (here - without), filters.science)
    reach = size // 2
    rows = np.clip(np.arange(row - reach, row + reach + 1), 0, scene.science.shape[0] - 1)
    columns = np.clip(np.arange(column - reach, column + reach + 1), 0, scene.science.shape[1] - 1)
    # Variance beyond the stamp is the sky's: only what exceeds it is filtered, and the sky's is added.
    variance = np.zeros((2 * half + 1, 2 * half + 1))
    for plane, transfer, level in (
        (scene.science_variance, filters.science, sky[0]),
        (scene.template_variance, filters.template, sky[1]),
    ):
        total = float(np.sum(scipy.fft.irfft2(transfer, s=(window, window)) ** 2))
        variance += filtered(plane[np.ix_(rows, columns)] - level, power(transfer)) + level * total
    return residual / np.sqrt(variance)
