"""Cosmic rays: charged particles leave straight tracks that no PSF has touched."""

from __future__ import annotations

__all__ = ["CosmicRays"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ._artefact import Artefact, draw_number

_STEPS_PER_PIXEL = 8
"""Steps at which a track is sampled: what a pixel gets is then right to some per cent."""


@dataclass(frozen=True)
class CosmicRays:
    """Tracks in one exposure.

    Parameters
    ----------
    per_megapixel : `float`
        Mean number in 1024 x 1024 pixels.
    length : `tuple` [`float`, `float`]
        Range of the length of the tracks; log-uniform [pixel].
    charge : `tuple` [`float`, `float`]
        Range of the mean charge along a track; log-uniform [electron / pixel of length].
    fluctuation : `float`
        Root mean square of the relative change of the charge from step to step.
    flagged_fraction : `float`
        Fraction whose pixels are flagged COSMIC_RAY; the others were missed.
    """

    per_megapixel: float = 10.0
    length: tuple[float, float] = (1.0, 40.0)
    charge: tuple[float, float] = (300.0, 5000.0)
    fluctuation: float = 0.3
    flagged_fraction: float = 1.0

    def __post_init__(self) -> None:
        if not self.per_megapixel >= 0:
            raise ValueError(f"per_megapixel must not be negative, got {self.per_megapixel}.")
        for name in ("length", "charge"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a positive range (low, high), got {(low, high)}.")
        if not 0 <= self.flagged_fraction <= 1:
            raise ValueError(f"flagged_fraction must be between 0 and 1, got {self.flagged_fraction}.")
        if not self.fluctuation >= 0:
            raise ValueError(f"fluctuation must not be negative, got {self.fluctuation}.")

    def hit(
        self, rng: np.random.Generator, bounds: Box, njy_per_electron: float
    ) -> tuple[np.ndarray, np.ndarray, list[Artefact]]:
        """Draw tracks.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of randomness.
        bounds : `lsst.images.Box`
            The detector.
        njy_per_electron : `float`
            Zero point [nJy / electron], for the flux of the artefacts.

        Returns
        -------
        electrons : `numpy.ndarray`, (height, width)
            Charge added [electron].
        flagged : `numpy.ndarray`, (height, width), bool
            Pixels of tracks that were found.
        artefacts : `list` [`Artefact`]
            The tracks.
        """
        height, width = bounds.y.size, bounds.x.size
        electrons = np.zeros((height, width))
        flagged = np.zeros((height, width), dtype=bool)
        artefacts = []
        for _ in range(draw_number(rng, self.per_megapixel * height * width / 2**20)):
            length = float(np.exp(rng.uniform(*np.log(self.length))))
            charge = float(np.exp(rng.uniform(*np.log(self.charge))))
            middle_x, middle_y = rng.uniform(-0.5, width - 0.5), rng.uniform(-0.5, height - 0.5)
            angle = rng.uniform(0.0, np.pi)
            n_steps = max(int(np.ceil(length * _STEPS_PER_PIXEL)), 1)
            along = length * ((np.arange(n_steps) + 0.5) / n_steps - 0.5)
            x = np.rint(middle_x + along * np.cos(angle)).astype(int)
            y = np.rint(middle_y + along * np.sin(angle)).astype(int)
            weights = np.maximum(1.0 + self.fluctuation * rng.normal(size=n_steps), 0.0)
            deposits = charge * length / n_steps * weights
            is_found = bool(rng.uniform() < self.flagged_fraction)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            x, y, deposits = x[inside], y[inside], deposits[inside]
            if len(x) == 0:
                continue
            np.add.at(electrons, (y, x), deposits)
            if is_found:
                flagged[y, x] = True
            artefacts.append(
                Artefact(
                    kind="cosmic_ray",
                    x=bounds.x.start + middle_x,
                    y=bounds.y.start + middle_y,
                    extent=length,
                    width=1.0,
                    angle=float(np.rad2deg(angle)),
                    flux=float(deposits.sum()) * njy_per_electron,
                    n_pixels=len(set(zip(x.tolist(), y.tolist(), strict=True))),
                    is_flagged=is_found,
                )
            )
        return electrons, flagged, artefacts
