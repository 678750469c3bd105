"""Everything that is measured on one method's output for one scene, as numbers and lists that JSON holds."""

from __future__ import annotations

__all__ = ["BORDER", "DETECTION_THRESHOLD", "measure"]

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ._detections import find_extrema, match_detections
from ._fluxes import forced_fluxes, score_at
from ._gaussian_field import continuum_density, maxima_density, score_correlation
from ._ideal import ideal_filters
from ._output import MethodOutput
from ._scenes import FLUX_SCALE, BenchmarkScene
from ._sky_statistics import grow, neighbour_correlation, robust_sigma, sources_mask
from ._stars import measure_stars

BORDER = 48
"""Pixels along the border that are left out for every method."""

DETECTION_THRESHOLD = 5.0
"""Sigma."""

_LOWEST_THRESHOLD = 3.5
"""Sigma to which detections are kept, for the ROC."""

_CORE_GROWTH = 20
"""Pixels by which saturated cores are grown before they are masked."""

_CHANGE_ISOLATION = 25.0
"""Distance to the next change of an isolated one [pixel]."""

_BRIGHT_DISTANCE = 20.0
_BRIGHT_MAGNITUDE = 20.0
"""An isolated change has no object this bright within this distance [pixel, mag]."""


def measure(scene: BenchmarkScene, output: MethodOutput) -> dict[str, Any]:
    """Measure a method's output.

    Parameters
    ----------
    scene : `BenchmarkScene`
        The scene.
    output : `MethodOutput`
        What the method made of it.
    """
    usable = np.ones(scene.science.shape, dtype=bool)
    usable[:BORDER] = usable[-BORDER:] = False
    usable[:, :BORDER] = usable[:, -BORDER:] = False
    usable &= ~grow(scene.bad, _CORE_GROWTH)
    lost = usable & ~np.isfinite(output.score)
    sources = sources_mask(scene)
    sky = usable & ~sources
    median, sigma, sigma_error = robust_sigma(output.score, sky)
    measured: dict[str, Any] = {
        "scoreMedian": median,
        "scoreSigma": sigma,
        "scoreSigmaError": sigma_error,
        "skyMpix": float(sky.sum() / 1e6),
        "lostMpix": float(lost.sum() / 1e6),
    }
    noise = None
    if output.difference is not None:
        noise = output.difference if output.variance is None else output.difference / np.sqrt(output.variance)
        measured["differenceMedian"], difference_sigma, error = robust_sigma(noise, sky)
        if output.variance is not None:
            measured["differenceSigma"], measured["differenceSigmaError"] = difference_sigma, error
        else:
            noise = noise / (difference_sigma * _relative_noise(scene))
        measured["correlation"] = neighbour_correlation(noise, sky)
    correlation = score_correlation(_ideal_psf(scene))
    measured["floorPerMpix"] = 2e6 * maxima_density(correlation, DETECTION_THRESHOLD)
    measured["continuumFloorPerMpix"] = 2e6 * continuum_density(correlation, DETECTION_THRESHOLD)
    score = output.score / sigma if sigma > 0 else np.full_like(output.score, np.nan)
    measured.update(_detections(scene, score, usable & ~lost, sources))
    measured["changes"].update(_changes(scene, output, score))
    if noise is not None:
        stars = measure_stars(scene, noise, usable)
        measured["stars"] = {
            "objectId": stars.object_id.tolist(),
            "mag": stars.magnitude.tolist(),
            "heldOut": stars.held_out.tolist(),
            "rms": stars.rms.tolist(),
            "floor": stars.floor.tolist(),
        }
    return measured


def _relative_noise(scene: BenchmarkScene) -> np.ndarray:
    """Return the noise of each pixel in units of the sky's, for methods that do not say it."""
    sky = scene.info["scienceSkyVariance"] + FLUX_SCALE**2 * scene.info["templateSkyVariance"]
    total = scene.science_variance + FLUX_SCALE**2 * scene.template_variance
    return np.sqrt(np.maximum(total / sky, 1.0))


def _ideal_psf(scene: BenchmarkScene) -> np.ndarray:
    """Return the PSF of the ideal difference in the middle of the scene."""
    middle = 0.5 * (scene.spec.size - 1)
    window = 2 * scene.true_science_psf.size
    filters = ideal_filters(
        scene, middle, middle, window, scene.info["scienceSkyVariance"], scene.info["templateSkyVariance"]
    )
    return np.fft.fftshift(np.fft.irfft2(filters.psf, s=(window, window)))


def _detections(
    scene: BenchmarkScene, score: np.ndarray, usable: np.ndarray, sources: np.ndarray
) -> dict[str, Any]:
    """Find detections and tell what they are."""
    truth = scene.truth
    changes = np.flatnonzero(np.asarray(truth["fluxChange"]) != 0)
    x, y = np.asarray(truth["dx"])[changes], np.asarray(truth["dy"])[changes]
    snr = np.asarray(truth["idealSnr"])[changes] * np.sign(np.asarray(truth["fluxChange"])[changes])
    detections = find_extrema(score, usable, _LOWEST_THRESHOLD)
    psf = _ideal_psf(scene)
    transfer = np.fft.fft2(psf)
    response = np.fft.fftshift(np.fft.ifft2(np.abs(transfer) ** 2).real)
    matches = match_detections(detections, x, y, snr, response / response.max())
    height = np.zeros(len(changes))
    found = matches.detection_of >= 0
    height[found] = np.abs(detections.height[matches.detection_of[found]])
    at_source = sources[detections.y, detections.x] if len(detections) else np.zeros(0, dtype=bool)
    false = matches.false
    second = matches.duplicate_of >= 0
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    size = scene.spec.size
    inside = (column >= 0) & (row >= 0) & (column < size) & (row < size)
    counted = inside.copy()
    counted[inside] = usable[row[inside], column[inside]]
    return {
        "usableMpix": float(usable.sum() / 1e6),
        "blankMpix": float((usable & ~sources).sum() / 1e6),
        "falseHeights": np.round(detections.height[false], 3).tolist(),
        "falseX": detections.x[false].tolist(),
        "falseY": detections.y[false].tolist(),
        "falseAtSource": at_source[false].tolist(),
        "duplicateHeights": np.round(detections.height[second], 3).tolist(),
        "duplicateOf": np.asarray(truth["objectId"])[changes][matches.duplicate_of[second]].tolist(),
        "changes": {
            "objectId": np.asarray(truth["objectId"])[changes].tolist(),
            "kind": [str(kind) for kind in truth["kind"][changes]],
            "snr": snr.tolist(),
            "counted": counted.tolist(),
            "hosted": (np.asarray(truth["hostId"])[changes] >= 0).tolist(),
            "isolated": _isolated(scene, changes).tolist(),
            "height": height.tolist(),
        },
    }


def _isolated(scene: BenchmarkScene, changes: np.ndarray) -> np.ndarray:
    truth = scene.truth
    positions = np.column_stack([np.asarray(truth["dx"]), np.asarray(truth["dy"])])
    among = cKDTree(positions[changes])
    distance, _ = among.query(positions[changes], k=2)
    isolated = distance[:, 1] > _CHANGE_ISOLATION
    bright = (np.asarray(truth["mag"]) < _BRIGHT_MAGNITUDE) & (np.asarray(truth["fluxChange"]) == 0)
    if bright.any():
        nearest, _ = cKDTree(positions[bright]).query(positions[changes])
        isolated &= nearest > _BRIGHT_DISTANCE
    return isolated


def _changes(scene: BenchmarkScene, output: MethodOutput, score: np.ndarray) -> dict[str, Any]:
    """Measure score and forced flux at the true positions."""
    truth = scene.truth
    changes = np.flatnonzero(np.asarray(truth["fluxChange"]) != 0)
    x, y = np.asarray(truth["dx"])[changes], np.asarray(truth["dy"])[changes]
    measured: dict[str, Any] = {
        "scoreAt": score_at(score, x, y).tolist(),
        "flux": (np.asarray(truth["fluxChange"])[changes] * FLUX_SCALE).tolist(),
    }
    if output.difference is not None and output.variance is not None and output.psf is not None:
        flux, error = forced_fluxes(output.difference, output.variance, output.psf, x, y)
        measured["measuredFlux"], measured["fluxError"] = flux.tolist(), error.tolist()
    return measured
