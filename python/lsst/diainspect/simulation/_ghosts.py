"""Ghosts: reflections between optical surfaces that put an out-of-focus ring far from a bright star."""

from __future__ import annotations

__all__ = ["Ghosts"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ._artefact import Artefact
from ._counts import flux_of_magnitude


@dataclass(frozen=True)
class Ghosts:
    """Rings from bright stars, on the other side of the middle of the detector.

    Parameters
    ----------
    magnitude_limit : `float`
        Stars brighter than this have a ghost (AB).
    fraction : `float`
        Part of the star's light in the ghost.
    radius : `float`
        Outer radius of the ring [arcsec].
    inner : `float`
        Inner radius, as a part of the outer: the shadow of the secondary mirror.
    offset : `float`
        Distance of the ghost from the middle of the detector, as a multiple of the star's, to the other side.
    """

    magnitude_limit: float = 16.0
    fraction: float = 0.01
    radius: float = 10.0
    inner: float = 0.6
    offset: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.inner < 1:
            raise ValueError(f"inner must be in [0, 1), got {self.inner}.")
        if not self.radius > 0:
            raise ValueError(f"radius must be positive, got {self.radius}.")

    def add(
        self,
        light: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        flux: np.ndarray,
        object_id: np.ndarray,
        bounds: Box,
        pixel_scale: float,
    ) -> list[Artefact]:
        """Add the ghosts of stars in place.

        Parameters
        ----------
        light : `numpy.ndarray`, (height, width)
            The image [nJy].
        x, y, flux, object_id : `numpy.ndarray`, (N,)
            Positions [pixel], fluxes [nJy] and identifiers of the stars.
        bounds : `lsst.images.Box`
            The detector.
        pixel_scale : `float`
            Pixel scale [arcsec / pixel].
        """
        radius = self.radius / pixel_scale
        middle_x = 0.5 * (bounds.x.start + bounds.x.stop - 1)
        middle_y = 0.5 * (bounds.y.start + bounds.y.stop - 1)
        artefacts = []
        rows = np.arange(bounds.y.start, bounds.y.stop)[:, None]
        columns = np.arange(bounds.x.start, bounds.x.stop)[None, :]
        area = np.pi * radius**2 * (1.0 - self.inner**2)
        for index in np.flatnonzero(flux > flux_of_magnitude(self.magnitude_limit)):
            ghost_x = middle_x - self.offset * (float(x[index]) - middle_x)
            ghost_y = middle_y - self.offset * (float(y[index]) - middle_y)
            distance = np.hypot(columns - ghost_x, rows - ghost_y)
            # The edges are one pixel soft.
            ring = np.clip(radius - distance + 0.5, 0.0, 1.0) * np.clip(
                distance - self.inner * radius + 0.5, 0.0, 1.0
            )
            added = self.fraction * float(flux[index]) / area * ring
            light += added
            n_pixels = int((ring > 0).sum())
            if n_pixels > 0:
                artefacts.append(
                    Artefact(
                        kind="ghost",
                        x=ghost_x,
                        y=ghost_y,
                        extent=2.0 * radius,
                        width=2.0 * radius,
                        angle=0.0,
                        flux=float(added.sum()),
                        n_pixels=n_pixels,
                        is_flagged=False,
                        source_id=int(object_id[index]),
                    )
                )
        return artefacts
