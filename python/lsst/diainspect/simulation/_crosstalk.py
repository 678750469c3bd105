"""Crosstalk: amplifiers that are read at once see a little of one another's signal."""

from __future__ import annotations

__all__ = ["Crosstalk"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ._artefact import Artefact, from_components


@dataclass(frozen=True)
class Crosstalk:
    """Faint mirror images of bright sources in the neighbouring amplifiers.

    The detector is read by amplifiers side by side, each as high as the detector. Neighbours are read in
    opposite directions, so that the image of a source is mirrored at their common edge.

    Parameters
    ----------
    coefficient : `float`
        Part of the signal seen by the neighbours; negative values make dark images.
    n_amplifiers : `int`
        Amplifiers along x.
    is_flagged : `bool`
        Flag pixels CROSSTALK where the image is above the noise of the sky.
    """

    coefficient: float = 5e-4
    n_amplifiers: int = 8
    is_flagged: bool = False

    def __post_init__(self) -> None:
        if not abs(self.coefficient) < 0.1:
            raise ValueError(f"coefficient must be below 0.1, got {self.coefficient}.")
        if self.n_amplifiers < 2:
            raise ValueError(f"n_amplifiers must be at least 2, got {self.n_amplifiers}.")

    def mirror(self, signal: np.ndarray) -> np.ndarray:
        """Return what each pixel's amplifier sees of its neighbours, before the coefficient.

        Columns that are left when the width is not a multiple of the number of amplifiers see nothing.
        """
        from_left, from_right = self._sides(signal)
        return from_left + from_right

    def _sides(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what each pixel sees of the amplifier to its left, and of that to its right."""
        height, width = signal.shape
        step = width // self.n_amplifiers
        mirrored = signal[:, : step * self.n_amplifiers].reshape(height, self.n_amplifiers, step)[:, :, ::-1]
        from_left, from_right = np.zeros_like(signal), np.zeros_like(signal)
        n_seen = step * (self.n_amplifiers - 1)
        from_left[:, step : step + n_seen] = mirrored[:, :-1].reshape(height, n_seen)
        from_right[:, :n_seen] = mirrored[:, 1:].reshape(height, n_seen)
        return from_left, from_right

    def add(
        self,
        electrons: np.ndarray,
        sky_level: float,
        read_noise: float,
        bounds: Box,
        njy_per_electron: float,
        source_map: np.ndarray,
    ) -> tuple[np.ndarray, list[Artefact]]:
        """Add the mirror images in place.

        Parameters
        ----------
        electrons : `numpy.ndarray`, (height, width)
            Charge [electron]. The image of the sky itself is part of the bias and taken off with it.
        sky_level, read_noise : `float`
            Sky and read noise [electron].
        bounds : `lsst.images.Box`
            The detector.
        njy_per_electron : `float`
            Zero point [nJy / electron].
        source_map : `numpy.ndarray`, (height, width), int
            objectId of the source whose centre is at the pixel, -1 elsewhere.

        Returns
        -------
        flagged : `numpy.ndarray`, (height, width), bool
            Pixels where the images are above the noise of the sky.
        artefacts : `list` [`Artefact`]
            The images of which any pixel is.
        """
        added = self.coefficient * self.mirror(electrons - sky_level)
        electrons += added
        noticed = np.abs(added) > np.sqrt(sky_level + read_noise**2)
        # Counted from 1, so that a pixel that sees no amplifier has no source either.
        mirrored_sources = np.maximum(*self._sides(source_map + 1)) - 1
        artefacts = from_components(
            "crosstalk",
            noticed,
            bounds,
            is_flagged=self.is_flagged,
            added=added * njy_per_electron,
            source_map=mirrored_sources,
        )
        return noticed, artefacts
