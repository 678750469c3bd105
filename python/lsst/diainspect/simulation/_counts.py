"""How many stars and galaxies there are: counts by magnitude, and AB magnitudes of fluxes."""

from __future__ import annotations

__all__ = ["draw_fluxes", "flux_of_magnitude", "lsst_density", "lsst_fluxes", "magnitude_of_flux"]

from typing import Literal

import numpy as np
import numpy.typing as npt

_AB_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy."""

_STAR_MAGNITUDES = np.array([10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 22.0, 24.0, 26.0, 28.0])
_STAR_DENSITIES = np.array([0.0015, 0.008, 0.035, 0.12, 0.33, 0.80, 1.6, 2.9, 4.6, 6.6])
"""Stars per square arcminute brighter than r: the shape of the counts towards galactic latitude -48 degrees, the
middle of DC2's field; a dex from r = 15 to 20 and half a dex from there to 25."""

_GALAXY_DENSITY = 46.0
_GALAXY_SLOPE = 0.31
_R_MINUS_I = 0.4
"""Galaxies per square arcminute brighter than i: 46 x 10^(0.31 (i - 25)) (LSST Science Book, 2009, section 3.7), with a
typical r - i of faint galaxies."""


def flux_of_magnitude(magnitude: npt.ArrayLike) -> np.ndarray:
    """Return fluxes [nJy] of AB magnitudes."""
    return 10.0 ** (0.4 * (_AB_ZERO_POINT - np.asarray(magnitude, dtype=float)))


def magnitude_of_flux(flux: np.ndarray) -> np.ndarray:
    """Return AB magnitudes of fluxes [nJy]; infinite for no flux."""
    with np.errstate(divide="ignore"):
        return _AB_ZERO_POINT - 2.5 * np.log10(flux)


def draw_fluxes(
    rng: np.random.Generator, n: int, magnitudes: tuple[float, float], slope: float
) -> np.ndarray:
    """Draw fluxes [nJy] with counts that grow as 10^(slope m)."""
    low, high = (10.0 ** (slope * magnitude) for magnitude in magnitudes)
    uniform = rng.uniform(size=n)
    if slope == 0:
        magnitude = magnitudes[0] + uniform * (magnitudes[1] - magnitudes[0])
    else:
        magnitude = np.log10(low + uniform * (high - low)) / slope
    return 10.0 ** (0.4 * (_AB_ZERO_POINT - magnitude))


def _cumulative(kind: Literal["star", "galaxy"], magnitude: npt.ArrayLike) -> np.ndarray:
    magnitude = np.asarray(magnitude, dtype=float)
    if kind == "galaxy":
        return _GALAXY_DENSITY * 10.0 ** (_GALAXY_SLOPE * (magnitude - _R_MINUS_I - 25.0))
    return 10.0 ** np.interp(magnitude, _STAR_MAGNITUDES, np.log10(_STAR_DENSITIES))


def lsst_density(kind: Literal["star", "galaxy"], magnitudes: tuple[float, float]) -> float:
    """Return the number per square arcminute between two r magnitudes, at the galactic latitude of DC2."""
    brightest, faintest = _cumulative(kind, magnitudes)
    return float(faintest - brightest)


def lsst_fluxes(
    rng: np.random.Generator, n: int, kind: Literal["star", "galaxy"], magnitudes: tuple[float, float]
) -> np.ndarray:
    """Draw fluxes [nJy] between two r magnitudes from the counts of `lsst_density`."""
    grid = np.linspace(*magnitudes, 1001)
    counts = _cumulative(kind, grid)
    return flux_of_magnitude(np.interp(rng.uniform(counts[0], counts[-1], n), counts, grid))
