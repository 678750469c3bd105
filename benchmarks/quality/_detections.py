"""Detections on a score image and what they are: a change of the truth, a second detection of one, or false.

The same code serves every method: local maxima and minima of the score, in units of its robust sigma in blank sky.
"""

from __future__ import annotations

__all__ = ["Detections", "Matches", "find_extrema", "match_detections"]

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from scipy.spatial import cKDTree

MATCH_RADIUS = 3.0
"""Largest distance between a change and its detection [pixel]: at S/N 5 the scatter is 0.4 in each coordinate."""

_EXPECTED_RESPONSE = 2.5
"""A detection where the response to a change is at least this [sigma] is a second detection of it."""

_ENVELOPE_RADIUS = 40


@dataclass(frozen=True)
class Detections:
    """Extrema of the score: pixel positions and heights with their sign [sigma], each (N,)."""

    x: np.ndarray
    y: np.ndarray
    height: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Matches:
    """What detections and changes have to do with each other.

    Parameters
    ----------
    detection_of : `numpy.ndarray`, (n_changes,), int
        The detection of each change, -1 for none.
    duplicate_of : `numpy.ndarray`, (n_detections,), int
        For second detections the change that they belong to, -1 for others.
    false : `numpy.ndarray`, (n_detections,), bool
        Detections that belong to no change.
    """

    detection_of: np.ndarray
    duplicate_of: np.ndarray
    false: np.ndarray


def find_extrema(score: np.ndarray, usable: np.ndarray, threshold: float) -> Detections:
    """Return local maxima above the threshold and minima below its negative, among the eight neighbours.

    Parameters
    ----------
    score : `numpy.ndarray`, (height, width)
        Score in units of its sigma; NaN is never a detection.
    usable : `numpy.ndarray`, (height, width), bool
        Pixels that count.
    threshold : `float`
        Threshold [sigma].
    """
    found = []
    for sign in (1.0, -1.0):
        field = np.where(np.isfinite(score), sign * score, -np.inf)
        peak = (field > threshold) & usable
        peak &= field >= scipy.ndimage.maximum_filter(field, size=3)
        y, x = np.nonzero(peak)
        found.append((x, y, score[y, x]))
    x, y, height = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Detections(x, y, height.astype(float))


def match_detections(
    detections: Detections,
    x: np.ndarray,
    y: np.ndarray,
    snr: np.ndarray,
    response: np.ndarray,
) -> Matches:
    """Tell detections of changes from second and from false ones.

    Each change, the strongest first, takes the nearest detection of its sign that is free within `MATCH_RADIUS`; for
    changes above 20 sigma the highest one. Others that lie where the response to a change is significant are second
    detections of it.

    Parameters
    ----------
    detections : `Detections`
        Detections.
    x, y : `numpy.ndarray`, (n_changes,)
        Where the changes are [pixel].
    snr : `numpy.ndarray`, (n_changes,)
        Their S/N with sign.
    response : `numpy.ndarray`, (size, size)
        Response of the score to a point source, 1 at its centre: the autocorrelation of the difference's PSF.
    """
    n = len(detections)
    detection_of = np.full(len(x), -1)
    duplicate_of = np.full(n, -1)
    taken = np.zeros(n, dtype=bool)
    if n == 0 or len(x) == 0:
        return Matches(detection_of, duplicate_of, ~taken)
    tree = cKDTree(np.column_stack([detections.x, detections.y]))
    order = np.argsort(-np.abs(snr), kind="stable")
    for change in order:
        near = [
            entry
            for entry in tree.query_ball_point((x[change], y[change]), MATCH_RADIUS)
            if not taken[entry] and detections.height[entry] * snr[change] > 0
        ]
        if not near:
            continue
        if abs(snr[change]) > 20:
            best = max(near, key=lambda entry: abs(detections.height[entry]))
        else:
            best = min(
                near,
                key=lambda entry: np.hypot(detections.x[entry] - x[change], detections.y[entry] - y[change]),
            )
        detection_of[change] = best
        taken[best] = True
    envelope = _envelope(response)
    for change in order:
        expected = np.abs(snr[change]) * envelope
        reach = int(np.searchsorted(-expected, -_EXPECTED_RESPONSE))
        if reach == 0:
            continue
        for entry in tree.query_ball_point((x[change], y[change]), float(reach)):
            if not taken[entry] and duplicate_of[entry] < 0:
                duplicate_of[entry] = change
    return Matches(detection_of, duplicate_of, ~taken & (duplicate_of < 0))


def _envelope(response: np.ndarray) -> np.ndarray:
    """Return the largest modulus of the response at or beyond each whole radius."""
    half = response.shape[0] // 2
    y, x = np.indices(response.shape) - half
    radius = np.floor(np.hypot(x, y)).astype(int)
    largest = np.zeros(_ENVELOPE_RADIUS)
    for r in range(min(_ENVELOPE_RADIUS, half + 1)):
        largest[r] = np.abs(response[radius == r]).max(initial=0.0)
    return np.maximum.accumulate(largest[::-1])[::-1]
