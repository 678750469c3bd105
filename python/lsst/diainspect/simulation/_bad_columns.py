"""Bad columns: hot or dead columns of the detector."""

from __future__ import annotations

__all__ = ["BadColumns"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ._artefact import Artefact, draw_number


@dataclass(frozen=True)
class BadColumns:
    """Columns, or the upper parts of them, that do not record the sky; the same on each visit.

    Parameters
    ----------
    number : `float`
        Mean number on a detector.
    hot_fraction : `float`
        Fraction that is hot; the others are dead and read nothing.
    excess : `float`
        What a hot column adds [electron / pixel].
    is_flagged : `bool`
        Flag them BAD.
    """

    number: float = 3.0
    hot_fraction: float = 0.5
    excess: float = 500.0
    is_flagged: bool = True

    def __post_init__(self) -> None:
        if not self.number >= 0:
            raise ValueError(f"number must not be negative, got {self.number}.")
        if not 0 <= self.hot_fraction <= 1:
            raise ValueError(f"hot_fraction must be between 0 and 1, got {self.hot_fraction}.")

    def spoil(
        self, rng: np.random.Generator, electrons: np.ndarray, bounds: Box, njy_per_electron: float
    ) -> tuple[np.ndarray, list[Artefact]]:
        """Spoil columns in place.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Randomness of the detector, not of the visit.
        electrons : `numpy.ndarray`, (height, width)
            Charge, sky included [electron].
        bounds : `lsst.images.Box`
            The detector.
        njy_per_electron : `float`
            Zero point [nJy / electron], for the flux of the artefacts.

        Returns
        -------
        spoilt : `numpy.ndarray`, (height, width), bool
            Pixels of bad columns.
        artefacts : `list` [`Artefact`]
            The columns.
        """
        height, width = electrons.shape
        spoilt = np.zeros((height, width), dtype=bool)
        artefacts = []
        for column in rng.permutation(width)[: draw_number(rng, self.number)]:
            # A trap blocks the column from its own row up, away from the readout.
            first = int(rng.integers(0, height)) if rng.uniform() < 0.5 else 0
            is_hot = bool(rng.uniform() < self.hot_fraction)
            if is_hot:
                electrons[first:, column] += self.excess
            else:
                electrons[first:, column] = 0.0
            spoilt[first:, column] = True
            n_pixels = height - first
            artefacts.append(
                Artefact(
                    kind="bad_column",
                    x=float(bounds.x.start + column),
                    y=bounds.y.start + 0.5 * (first + height - 1),
                    extent=float(n_pixels),
                    width=1.0,
                    angle=90.0,
                    flux=self.excess * njy_per_electron * n_pixels if is_hot else float("nan"),
                    n_pixels=n_pixels,
                    is_flagged=self.is_flagged,
                )
            )
        return spoilt, artefacts
