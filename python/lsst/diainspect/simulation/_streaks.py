"""Streaks: trails of satellites that cross the whole detector."""

from __future__ import annotations

__all__ = ["Streaks"]

from dataclasses import dataclass

import numpy as np
from lsst.images import Box

from ._artefact import Artefact, draw_number
from ._counts import flux_of_magnitude

_HALF_WIDTHS = 3.0
"""Streaks end at this many full widths from their middle."""


@dataclass(frozen=True)
class Streaks:
    """Straight trails with a Gaussian profile across.

    Parameters
    ----------
    number : `float`
        Mean number on a detector.
    surface_brightness : `tuple` [`float`, `float`]
        Range of the surface brightness along the middle, brightest first; uniform [AB mag / arcsec^2].
    fwhm : `float`
        Full width at half maximum, seeing and defocus included [arcsec].
    is_flagged : `bool`
        Flag them STREAK.
    """

    number: float = 0.2
    surface_brightness: tuple[float, float] = (21.0, 24.5)
    fwhm: float = 1.5
    is_flagged: bool = True

    def __post_init__(self) -> None:
        if not self.number >= 0:
            raise ValueError(f"number must not be negative, got {self.number}.")
        if not self.fwhm > 0:
            raise ValueError(f"fwhm must be positive, got {self.fwhm}.")
        low, high = self.surface_brightness
        if not low <= high:
            raise ValueError(f"surface_brightness must be (brightest, faintest), got {(low, high)}.")

    def add(
        self, rng: np.random.Generator, light: np.ndarray, bounds: Box, pixel_scale: float
    ) -> tuple[np.ndarray, list[Artefact]]:
        """Add trails in place.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of randomness.
        light : `numpy.ndarray`, (height, width)
            The image [nJy].
        bounds : `lsst.images.Box`
            The detector.
        pixel_scale : `float`
            Pixel scale [arcsec / pixel].

        Returns
        -------
        touched : `numpy.ndarray`, (height, width), bool
            Pixels within a full width of the middle of a trail.
        artefacts : `list` [`Artefact`]
            The trails.
        """
        height, width = light.shape
        touched = np.zeros((height, width), dtype=bool)
        artefacts = []
        fwhm = self.fwhm / pixel_scale
        sigma = fwhm / np.sqrt(8.0 * np.log(2.0))
        rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
        for _ in range(draw_number(rng, self.number)):
            through_x, through_y = rng.uniform(0, width - 1), rng.uniform(0, height - 1)
            angle = rng.uniform(0.0, np.pi)
            peak = float(flux_of_magnitude(rng.uniform(*self.surface_brightness))) * pixel_scale**2
            cosine, sine = np.cos(angle), np.sin(angle)
            across = (rows - through_y) * cosine - (columns - through_x) * sine
            along = (rows - through_y) * sine + (columns - through_x) * cosine
            profile = np.where(
                np.abs(across) < _HALF_WIDTHS * fwhm, peak * np.exp(-0.5 * (across / sigma) ** 2), 0.0
            )
            light += profile
            core = np.abs(across) < fwhm
            touched |= core
            first, last = float(along[core].min()), float(along[core].max())
            middle = 0.5 * (first + last)
            artefacts.append(
                Artefact(
                    kind="streak",
                    x=bounds.x.start + through_x + middle * cosine,
                    y=bounds.y.start + through_y + middle * sine,
                    extent=last - first,
                    width=fwhm,
                    angle=float(np.rad2deg(angle)),
                    flux=float(profile.sum()),
                    n_pixels=int(core.sum()),
                    is_flagged=self.is_flagged,
                )
            )
        return touched, artefacts
