"""Bleed trails: charge that a full pixel cannot hold runs along its column."""

from __future__ import annotations

__all__ = ["BleedTrails"]

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BleedTrails:
    """Overflow of saturated pixels along the columns.

    Parameters
    ----------
    fraction : `float`
        Part of the overflow that stays in the column, half of it up and half down; the rest is lost.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must be between 0 and 1, got {self.fraction}.")

    def apply(self, electrons: np.ndarray, saturation: float) -> np.ndarray:
        """Let the charge above saturation run, in place.

        Parameters
        ----------
        electrons : `numpy.ndarray`, (height, width)
            Charge [electron]; nothing is above ``saturation`` afterwards.
        saturation : `float`
            What a pixel holds [electron].

        Returns
        -------
        bled : `numpy.ndarray`, (height, width), bool
            Pixels that received charge.
        """
        bled = np.zeros(electrons.shape, dtype=bool)
        full = electrons > saturation
        for column in np.flatnonzero(full.any(axis=0)):
            charge = electrons[:, column]
            edges = np.flatnonzero(
                np.diff(np.concatenate([[False], full[:, column], [False]]).astype(np.int8))
            )
            for start, stop in edges.reshape(-1, 2):
                half = 0.5 * self.fraction * float((charge[start:stop] - saturation).sum())
                charge[start:stop] = saturation
                for trail in (slice(stop, None), slice(start - 1, None, -1) if start > 0 else slice(0, 0)):
                    room = np.maximum(saturation - charge[trail], 0.0)
                    before = np.cumsum(room) - room
                    received = np.clip(half - before, 0.0, room)
                    charge[trail] += received
                    bled[trail, column] |= received > 0
        np.minimum(electrons, saturation, out=electrons)
        return bled
