"""The noise that warping correlates: the autocorrelation of white noise after interpolation, from the warp itself."""

from __future__ import annotations

__all__ = ["NoisePower"]

from dataclasses import dataclass
from typing import Self

import astropy.units as u
import numpy as np
import scipy.fft
from astropy.table import Table
from lsst.images import Box

from ._cardinal_spline import CardinalSpline
from ._pixel_map import PixelMap

_MAX_LAG = 8
"""Largest lag [pixel]: beyond it the autocovariance of an interpolated image is below 1e-4."""

_N_SAMPLES = 16
"""Positions a side at which the autocovariance is averaged: it depends on where pixels fall between pixels."""


@dataclass(frozen=True)
class NoisePower:
    """Autocorrelation of noise over the square root of its variance, which is what a variance plane cannot tell.

    Parameters
    ----------
    covariance : `numpy.ndarray`, (2 L + 1, 2 L + 1)
        Autocorrelation by lag [y, x]; 1 at the centre.
    variance_factor : `float`
        Mean variance of a pixel over that before the warp and the change of pixel area.
    """

    covariance: np.ndarray
    variance_factor: float

    @classmethod
    def from_warp(cls, pixel_map: PixelMap, bounds: Box, spline: CardinalSpline) -> Self:
        """Derive the noise power of an image of white noise that is interpolated at the positions of a map.

        Parameters
        ----------
        pixel_map : `PixelMap`
            From array coordinates of the output to those of the input.
        bounds : `lsst.images.Box`
            Array of the output, starting at zero.
        spline : `CardinalSpline`
            The interpolant.
        """
        # Positions from an irrational step fall on all phases alike when the map's own phases vary.
        golden = 0.5 * (np.sqrt(5.0) - 1.0)
        number = np.arange(_N_SAMPLES**2)
        x = np.rint((number * golden % 1.0) * (bounds.x.size - 1))
        y = np.rint((number + 0.5) / len(number) * (bounds.y.size - 1))
        lag = np.arange(-_MAX_LAG, _MAX_LAG + 1)
        lag_y, lag_x = (grid.ravel() for grid in np.meshgrid(lag, lag, indexing="ij"))
        here_x, here_y = pixel_map(x[:, None], y[:, None])
        there_x, there_y = pixel_map(x[:, None] + lag_x, y[:, None] + lag_y)
        covariance = spline.covariance(here_x, there_x) * spline.covariance(here_y, there_y)
        here = spline.variance_factor(here_x) * spline.variance_factor(here_y)
        there = spline.variance_factor(there_x) * spline.variance_factor(there_y)
        mean = (covariance / np.sqrt(here * there)).mean(axis=0).reshape(len(lag), len(lag))
        return cls(0.5 * (mean + mean[::-1, ::-1]), float(here.mean()))

    @property
    def neighbour_correlation(self) -> float:
        """Mean correlation of neighbours in x and y."""
        centre = len(self.covariance) // 2
        return float(0.5 * (self.covariance[centre, centre + 1] + self.covariance[centre + 1, centre]))

    def power(self, window: int) -> np.ndarray:
        """Return the power by frequency on a window, shape (window, window // 2 + 1); its mean over all is 1."""
        size = len(self.covariance)
        if window < size:
            raise ValueError(f"The window must be at least {size} pixels, got {window}.")
        padded = np.zeros((window, window))
        padded[:size, :size] = self.covariance
        shift = size // 2
        power = scipy.fft.rfft2(np.roll(padded, (-shift, -shift), axis=(0, 1))).real
        return np.maximum(power, 0.0)

    def to_table(self) -> Table:
        """Return the autocorrelation as a table of one row."""
        table = Table()
        table["covariance"] = self.covariance[None].astype(float)
        table[
            "covariance"
        ].description = "Autocorrelation by lag [y, x] of noise over the square root of its variance."
        table["varianceFactor"] = np.array([self.variance_factor]) * u.dimensionless_unscaled
        table["varianceFactor"].description = "Mean variance over that before the warp, pixel area aside."
        return table

    @classmethod
    def from_table(cls, table: Table) -> Self:
        """Take back what `to_table` made."""
        return cls(np.asarray(table["covariance"][0], dtype=float), float(table["varianceFactor"][0]))
