"""One alert, whichever survey sent it: its source, its pixels and its PSFs."""

from __future__ import annotations

__all__ = ["MAX_COORDINATE", "Alert", "AlertError", "Cutout", "SkippedAlert"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_COORDINATE = 1e6
"""Pixel coordinates beyond this are not those of a detector."""


class AlertError(ValueError):
    """An alert that cannot be used; the message says why."""


@dataclass(frozen=True)
class SkippedAlert:
    """An alert, or what should have been one, that was left out.

    Parameters
    ----------
    packet : `str`
        File, with the member of an archive after "::".
    record : `int`
        Number of the record in the file, from 0.
    dia_source_id : `int`
        Its source, 0 where that is not known.
    reason : `str`
        Why it was left out.
    """

    packet: str
    record: int
    dia_source_id: int
    reason: str


@dataclass(frozen=True)
class Cutout:
    """A cutout's pixels and where they lie.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (height, width), float32
        Pixels [nJy]; NaN off the image.
    x0, y0 : `int`
        Coordinates of the array's first pixel in the frame of the source's x, y.
    variance : `numpy.ndarray`, (height, width), float32, optional
        Variance [nJy**2].
    psf : `numpy.ndarray`, (height, width), float32, optional
        PSF, centred on pixel size // 2.
    """

    pixels: np.ndarray
    x0: int
    y0: int
    variance: np.ndarray | None = None
    psf: np.ndarray | None = None


@dataclass(frozen=True)
class Alert:
    """An alert.

    Parameters
    ----------
    packet : `str`
        File, with the member of an archive after "::".
    record : `int`
        Number of the record in the file, from 0.
    survey : `str`
        "rubin" or "ztf".
    source : mapping
        Columns of the source by DPDD name, None for what was not measured; ``diaSourceId``, ``visit``, ``detector``,
        ``x``, ``y``, ``ra``, ``dec`` and ``psfFlux`` are there.
    cutouts : mapping [`str`, `Cutout`]
        Cutouts of ``science``, ``template`` and ``difference``.
    pixel_to_sky : `numpy.ndarray`, (2, 2)
        Derivatives of (ra cos dec, dec) by (x, y) [deg / pixel]; NaN if the alert does not tell.
    has_variance, has_psf : `bool`
        Whether alerts of this survey carry variances and PSFs.
    """

    packet: str
    record: int
    survey: str
    source: Mapping[str, Any]
    cutouts: Mapping[str, Cutout]
    pixel_to_sky: np.ndarray = field(default_factory=lambda: np.full((2, 2), np.nan))
    has_variance: bool = True
    has_psf: bool = True

    @property
    def dia_source_id(self) -> int:
        """Identifier of the source."""
        return int(self.source["diaSourceId"])
