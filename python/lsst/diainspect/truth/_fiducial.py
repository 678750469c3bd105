"""Where in an image detection is possible: within it, and where nothing is masked."""

from __future__ import annotations

__all__ = ["FiducialArea"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from lsst.images import Box, Mask, SkyProjection

from ..masks import masked_by


@dataclass(frozen=True)
class FiducialArea:
    """Pixels in which detection is possible.

    Parameters
    ----------
    good : `numpy.ndarray`, (height, width), bool
        Those pixels.
    box : `lsst.images.Box`
        The image.
    """

    good: np.ndarray
    box: Box

    @classmethod
    def from_mask(cls, mask: Mask, planes: Sequence[str]) -> FiducialArea:
        """Take the pixels in which none of the planes is set."""
        return cls(~masked_by(mask, planes), mask.bbox)

    @property
    def n_pixels(self) -> int:
        """Number of the pixels."""
        return int(self.good.sum())

    def square_degrees(self, projection: SkyProjection[Any]) -> float:
        """Return the area of the pixels on the sky, from the size of one in the middle of the image [deg^2]."""
        left, right, bottom, top = self.limits
        x, y = 0.5 * (left + right), 0.5 * (bottom + top)
        sky = projection.pixel_to_sky(x=np.array([x, x + 1.0, x]), y=np.array([y, y, y + 1.0]))
        (east_x, east_y), (north_x, north_y) = (
            (sky.ra[1:] - sky.ra[0]).wrap_at(180 * u.deg).deg * np.cos(sky.dec[0].rad),
            (sky.dec[1:] - sky.dec[0]).deg,
        )
        return self.n_pixels * float(abs(east_x * north_y - east_y * north_x))

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """Least and largest x, least and largest y of the image, to the edges of its pixels."""
        x, y = self.box.x, self.box.y
        return x.start - 0.5, x.stop - 0.5, y.start - 0.5, y.stop - 0.5

    def is_in_image(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return which positions (N,) are in the image."""
        left, right, bottom, top = self.limits
        return (x >= left) & (x < right) & (y >= bottom) & (y < top)

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return which positions (N,) are on good pixels."""
        inside = self.is_in_image(x, y)
        found = np.zeros(len(inside), dtype=bool)
        column = np.floor(np.asarray(x)[inside] + 0.5).astype(int) - self.box.x.start
        row = np.floor(np.asarray(y)[inside] + 0.5).astype(int) - self.box.y.start
        found[inside] = self.good[row, column]
        return found
