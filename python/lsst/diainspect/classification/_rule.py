"""A stated rule: a score between 0 and 1 from evidence columns, with its threshold and the reason for it."""

from __future__ import annotations

__all__ = ["Rule", "falling", "greatest", "rising"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._evidence import Evidence


@dataclass(frozen=True)
class Rule:
    """How the score of a value is made.

    Parameters
    ----------
    columns : `tuple` [`str`]
        Evidence columns.
    doc : `str`
        What the value means, the thresholds and their reason.
    score : callable
        Takes `Evidence` of N sources, returns scores (N,).
    """

    columns: tuple[str, ...]
    doc: str
    score: Callable[[Evidence], np.ndarray]


def rising(value: np.ndarray, none: float, full: float) -> np.ndarray:
    """Return a ramp from 0 at ``none`` to 1 at ``full`` and beyond; 0 where the value is NaN: no evidence, no score."""
    return np.nan_to_num(np.clip((value - none) / (full - none), 0.0, 1.0), nan=0.0)


def falling(value: np.ndarray, full: float, none: float) -> np.ndarray:
    """Return a ramp from 1 at ``full`` and below to 0 at ``none``; 0 where the value is NaN."""
    return rising(-value, -none, -full)


def greatest(*scores: np.ndarray) -> np.ndarray:
    """Return the greatest of scores, source by source."""
    return np.asarray(np.maximum.reduce(scores))
