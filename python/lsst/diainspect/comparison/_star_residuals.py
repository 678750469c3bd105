"""What a difference leaves of static stars, star by star, and their mean residual image by magnitude.

A static star should leave noise alone. Stars on which the images were matched show what the match could not fit,
those that it has not seen whether it holds in between: the two are never mixed.
"""

from __future__ import annotations

__all__ = ["BRIGHT_SNR", "ROLES", "StarStack", "measure_star_residuals", "stack_star_residuals"]

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from lsst.images import MaskedImage

from ..masks import PLANES_BAD_FOR_SUBTRACTION, masked_by
from ..psf import disk_mask, shift_images
from ..stamps import gather_stamps, stamp_origin

ROLES = ("fit", "heldOut", "rejected")
"""What became of a star in the match: used, not used although as good, or left out because it did not fit."""

_HELD_OUT = ("enough others nearby", "low signal-to-noise", "near the edge")
"""Why `lsst.diainspect.subtraction` leaves out stars without having looked at how well they fit."""

_STEADY = 0.2
"""Change of flux from the template, beyond 3 sigma, above which a star that was held out counts as rejected: it is a
variable or new, and says nothing of the match. The match left out those that it used and saw vary."""

BRIGHT_SNR = 100.0
"""Least S/N in the science image of stars that count as bright: match errors of 1 % are then as large as noise."""

_BAD_PLANES = (*PLANES_BAD_FOR_SUBTRACTION, "DETECTION_EDGE", "FILTER_SPREAD")

_INPUTS = (
    "x",
    "y",
    "scienceFlux",
    "scienceFluxErr",
    "templateFlux",
    "templateFluxErr",
    "isStar",
    "used",
    "rejected",
)

_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy."""


@dataclass(frozen=True)
class StarStack:
    """Mean residual of the stars of one bin.

    Parameters
    ----------
    role : `str`
        Role of the stars, of `ROLES`.
    low, high : `float`
        Magnitudes of the bin [mag].
    n : `int`
        Stars.
    image, error : `numpy.ndarray`, (size, size)
        Mean of difference / flux of the star, and its standard error from the scatter of the stars; the error is NaN
        for a single star [1 / pixel].
    """

    role: str
    low: float
    high: float
    n: int
    image: np.ndarray
    error: np.ndarray


def measure_star_residuals(difference: MaskedImage, kernel_sources: Table | None, radius: float) -> Table:
    """Measure the residuals of static stars.

    Parameters
    ----------
    difference : `lsst.images.MaskedImage`
        Difference [nJy].
    kernel_sources : `astropy.table.Table` or `None`
        Candidates on which the images were matched: ``x``, ``y`` [pixel], ``scienceFlux``, ``scienceFluxErr``,
        ``templateFlux``, ``templateFluxErr`` [nJy], ``isStar``, ``used``, ``rejected``. None where there are none.
    radius : `float`
        Radius of the disk of pixels [pixel].

    Returns
    -------
    stars : `astropy.table.Table`
        One row a star all of whose pixels are good.
    """
    if kernel_sources is None:
        kernel_sources = Table({name: np.zeros(0) for name in _INPUTS})
    star = np.asarray(kernel_sources["isStar"], dtype=bool)
    x, y, flux, flux_error, template_flux, template_error = (
        np.asarray(kernel_sources[name], dtype=float)[star] for name in _INPUTS[:6]
    )
    used = np.asarray(kernel_sources["used"], dtype=bool)[star]
    reason = np.asarray(kernel_sources["rejected"]).astype(str)[star]
    change = np.abs(flux - template_flux)
    steady = change < _STEADY * np.abs(flux) + 3.0 * np.hypot(flux_error, template_error)
    held_out = np.isin(reason, _HELD_OUT) & steady
    role = np.where(used, "fit", np.where(held_out, "heldOut", "rejected"))
    size = 2 * int(np.ceil(radius)) + 1
    pixels, variance, dx, dy = _cut(difference, x, y, size)
    inside = disk_mask(size, dx, dy, radius)
    good = (np.isfinite(pixels) | ~inside).all(axis=(1, 2)) & (flux > 0) & (flux_error > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = np.where(inside, pixels / np.sqrt(variance), 0.0)
        n_pixels = inside.sum(axis=(1, 2))
        values = {
            "x": (x, u.pix, "Position in the science image."),
            "y": (y, u.pix, "Position in the science image."),
            "magnitude": (_ZERO_POINT - 2.5 * np.log10(flux), u.mag, "AB magnitude in the science image."),
            "snr": (flux / flux_error, None, "Signal-to-noise ratio in the science image."),
            "role": (role.astype("U8"), None, "In the match: fit, heldOut or rejected."),
            "rms": (
                np.sqrt((pull**2).sum(axis=(1, 2)) / n_pixels),
                None,
                "Rms of difference / sqrt(variance) in the disk; 1 for noise alone.",
            ),
            "residual": (
                np.where(inside, pixels, 0.0).sum(axis=(1, 2)) / flux,
                None,
                "Flux left in the disk over the star's flux.",
            ),
            "residualErr": (
                np.sqrt(np.where(inside, variance, 0.0).sum(axis=(1, 2))) / flux,
                None,
                "Standard error of residual, of uncorrelated noise.",
            ),
            "nPixels": (n_pixels.astype(np.int32), None, "Pixels in the disk."),
        }
    stars = Table()
    for name, (array, unit, doc) in values.items():
        stars[name] = Column(array[good], unit=unit, description=doc)
    return stars


def stack_star_residuals(
    difference: MaskedImage, stars: Table, edges: Sequence[float], size: int
) -> list[StarStack]:
    """Stack the residuals of stars in bins of magnitude, each star moved to the middle and divided by its flux.

    Parameters
    ----------
    difference : `lsst.images.MaskedImage`
        Difference [nJy].
    stars : `astropy.table.Table`
        Stars, as `measure_star_residuals` makes them.
    edges : sequence [`float`]
        Edges of the bins [mag].
    size : `int`
        Side of the stacks, odd [pixel].

    Returns
    -------
    stacks : `list` [`StarStack`]
        One for each role and bin that has a star whose stamp is good all over. Rejected stars, which a few that vary
        dominate, are not stacked.
    """
    x, y, magnitude = (np.asarray(stars[name], dtype=float) for name in ("x", "y", "magnitude"))
    role = np.asarray(stars["role"]).astype(str)
    pixels, variance, dx, dy = _cut(difference, x, y, size)
    whole = np.isfinite(pixels).all(axis=(1, 2))
    flux = 10.0 ** (-0.4 * (magnitude - _ZERO_POINT))
    fraction = np.full(pixels.shape, np.nan)
    fraction[whole] = shift_images(pixels[whole].astype(float), -dx[whole], -dy[whole])
    fraction /= flux[:, None, None]
    stacks = []
    for one in ROLES[:2]:
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            member = whole & (role == one) & (magnitude >= low) & (magnitude < high)
            if not member.any():
                continue
            # The weights that are best for a residual in proportion to the flux, on sky noise.
            weight = (flux[member] ** 2 / np.median(variance[member], axis=(1, 2)))[:, None, None]
            weight = weight / weight.sum()
            mean = (weight * fraction[member]).sum(axis=0)
            n = int(member.sum())
            scatter = (weight**2 * (fraction[member] - mean) ** 2).sum(axis=0)
            error = np.sqrt(scatter * n / (n - 1)) if n > 1 else np.full(mean.shape, np.nan)
            stacks.append(StarStack(one, float(low), float(high), n, mean, error))
    return stacks


def _cut(
    difference: MaskedImage, x: np.ndarray, y: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return stamps of the difference and its variance, NaN where not good, and centres in the stamps."""
    good = ~masked_by(difference.mask, _BAD_PLANES) & (difference.variance.array > 0)
    x0, y0 = stamp_origin(x, y, size)
    own_x, own_y = x0 - difference.bbox.x.start, y0 - difference.bbox.y.start
    here = gather_stamps(good, own_x, own_y, size, False)
    pixels, variance = (
        np.where(here, gather_stamps(image.array, own_x, own_y, size, np.nan), np.nan)
        for image in (difference.image, difference.variance)
    )
    return pixels, variance, x - (x0 + size // 2), y - (y0 + size // 2)
