"""Differences made from the cutouts of alerts against the difference that the survey made."""

from __future__ import annotations

__all__ = ["compare_differences", "flux_ratio_by_visit", "is_isolated"]

import astropy.units as u
import numpy as np
from astropy.stats import mad_std
from astropy.table import Table

from ..diagnostics import fit_plane_psf
from ..stamps import StampSet
from ..subtraction import subtract_stamps
from ._psf_fluxes import compare_psf_fluxes

_CORE_RADIUS = 8.0
"""Radius of the disk in which pixels are compared [pixel]."""

_ISOLATION_RADIUS = 12.0
"""Radius in which an isolated source has no other light on the template [pixel]."""

_STATIC_SIGMA = 5.0
"""What counts as light: pixels this much above the sky, in sigma of the difference."""

_STATIC_SNR = 100.0
_LEAST_STATIC = 10
"""S/N on the template of sources that tell the flux ratio of a visit, and how many there must be."""

_LEAST_PIXELS = 100
"""Pixels of the core that are to be there for a comparison."""


def is_isolated(stamps: StampSet) -> np.ndarray:
    """Return which sources have no static light around them.

    Parameters
    ----------
    stamps : `StampSet`
        N stamps with science image, template and their variances.

    Returns
    -------
    isolated : `numpy.ndarray`, (N,), bool
        No pixel of the template within 12 pixels of the source is brighter than the template's median by more than
        5 sigma, sigma^2 being the medians of the two variances together.
    """
    near = _within(stamps, _ISOLATION_RADIUS)
    template = stamps.planes["template"]
    with np.errstate(invalid="ignore"):
        sky = _median(template)
        noise = np.sqrt(
            _median(stamps.planes["scienceVariance"]) + _median(stamps.planes["templateVariance"])
        )
        bright = np.abs(template - sky[:, None, None]) > _STATIC_SIGMA * noise[:, None, None]
    return np.isfinite(noise) & ~(bright & near).any(axis=(1, 2))


def compare_differences(
    stamps: StampSet, method: str, *, convolve: str = "auto", flux_ratio: float | np.ndarray = 1.0
) -> Table:
    """Subtract the cutouts and compare the result with the recorded difference.

    Parameters
    ----------
    stamps : `StampSet`
        N stamps of alerts, with the recorded difference, its variance and its PSF.
    method, convolve, flux_ratio
        As for `lsst.diainspect.subtraction.subtract_stamps`.

    Returns
    -------
    table : `astropy.table.Table`
        N rows: ``pixelMedian`` and ``pixelScatter`` (robust), of (ours - recorded) / sigma over the pixels within 8 of
        the source, sigma^2 being the recorded variance; ``nPixels`` there; ``recordedSky``, the median of the recorded
        difference beyond 12 pixels in units of sigma, which our difference does not have; ``psfFlux`` of ours and
        ``recorded_psfFlux`` of the recorded difference, each fitted with its own PSF above its own sky, on the same
        pixels with equal weights [nJy]; ``recorded_psfFluxErr`` [nJy]; ``peakStatic``, the brightest template pixel
        of the core in sigma of the difference; ``templateFlux`` and ``templateFluxErr``, the PSF flux on the template
        [nJy]; ``isolated``.
    """
    ours = subtract_stamps(stamps, method, convolve=convolve, flux_ratio=flux_ratio)
    recorded, sigma = stamps.planes["difference"], np.sqrt(stamps.planes["differenceVariance"])
    core = _within(stamps, _CORE_RADIUS)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.where(core, (ours.planes["difference"] - recorded) / sigma, np.nan)
        static = np.where(
            core, (stamps.planes["template"] - _median(stamps.planes["template"])[:, None, None]), np.nan
        )
        static = np.abs(static) / sigma
    deviation = deviation.reshape(len(stamps), -1)
    n_pixels = np.isfinite(deviation).sum(axis=1)
    enough = n_pixels >= _LEAST_PIXELS
    median, scatter = (np.full(len(stamps), np.nan) for _ in range(2))
    median[enough] = np.nanmedian(deviation[enough], axis=1)
    scatter[enough] = mad_std(deviation[enough], axis=1, ignore_nan=True)

    # Both fluxes from the pixels that both have, above the sky of each by the same estimate.
    both = np.isfinite(ours.planes["difference"]) & np.isfinite(recorded)
    away = both & ~_within(stamps, _ISOLATION_RADIUS)
    fluxes, skies = {}, {}
    for name, own in (("ours", ours), ("recorded", stamps)):
        planes = dict(own.planes)
        skies[name] = _median(np.where(away, planes["difference"], np.nan))
        planes["difference"] = np.where(both, planes["difference"] - skies[name][:, None, None], np.nan)
        fluxes[name] = compare_psf_fluxes(StampSet(own.sources, planes, own.models))

    table = Table()
    for name in ("diaSourceId", "visit", "detector"):
        table[name] = stamps.sources[name]
    table["pixelMedian"], table["pixelScatter"], table["nPixels"] = median, scatter, n_pixels
    table["recordedSky"] = skies["recorded"] / _median(sigma)
    table["psfFlux"] = fluxes["ours"]["psfFlux"]
    table["recorded_psfFlux"] = fluxes["recorded"]["psfFlux"]
    table["recorded_psfFluxErr"] = fluxes["recorded"]["psfFluxErr"]
    finite = np.where(np.isfinite(static), static, 0.0)
    table["peakStatic"] = finite.max(axis=(1, 2))
    static_flux = fit_plane_psf(stamps, "template", _ISOLATION_RADIUS, with_constant=True)
    table["templateFlux"], table["templateFluxErr"] = static_flux.amplitude[:, 0], static_flux.error[:, 0]
    table["isolated"] = is_isolated(stamps)
    for name in ("psfFlux", "recorded_psfFlux", "templateFlux", "templateFluxErr"):
        table[name].unit = u.nJy
    return table


def flux_ratio_by_visit(table: Table) -> np.ndarray:
    """Return the science over template flux that the recorded differences of a visit imply.

    A template scaled by 1 + e leaves fluxes that differ from the recorded ones by e times the template's.

    Parameters
    ----------
    table : `astropy.table.Table`
        What `compare_differences` made with a flux ratio of one, N rows.

    Returns
    -------
    flux_ratio : `numpy.ndarray`, (N,)
        One more than the median of (ours - recorded) / template flux of the visit's sources whose template flux has a
        S/N above 100; 1 for visits with fewer than ten of them.
    """
    ours, recorded, flux, error = (
        np.asarray(table[name], dtype=float)
        for name in ("psfFlux", "recorded_psfFlux", "templateFlux", "templateFluxErr")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = (ours - recorded) / flux
        static = np.isfinite(excess) & (flux > _STATIC_SNR * error)
    visits = np.asarray(table["visit"])
    flux_ratio = np.ones(len(table))
    for visit in np.unique(visits):
        here = static & (visits == visit)
        if here.sum() >= _LEAST_STATIC:
            flux_ratio[visits == visit] = 1.0 + np.median(excess[here])
    return flux_ratio


def _within(stamps: StampSet, radius: float) -> np.ndarray:
    y, x = np.mgrid[: stamps.size, : stamps.size] - stamps.size // 2
    return np.hypot(x - stamps.dx[:, None, None], y - stamps.dy[:, None, None]) <= radius


def _median(plane: np.ndarray) -> np.ndarray:
    """Return the median of each stamp; NaN for one without pixels."""
    flat = plane.reshape(len(plane), -1)
    some = np.isfinite(flat).any(axis=1)
    median = np.full(len(flat), np.nan)
    median[some] = np.nanmedian(flat[some], axis=1)
    return median
