"""PSF fluxes of difference stamps, fitted as the pipeline that recorded them does and otherwise.

The pipeline fits one amplitude at the recorded centroid with equal weights, f = sum(P d) / sum(P^2), on the pixels of
the PSF image (41 x 41), and propagates the variance: var f = sum(P^2 v) / sum(P^2)^2. Flux and error are then both
multiplied by an aperture correction, which the alert does not carry; their ratio does not know it.
"""

from __future__ import annotations

__all__ = ["PsfFit", "compare_psf_fluxes", "factor_by_visit", "is_well_inside"]

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Column, Table

from ..linear_fit import fit_linear
from ..stamps import StampSet
from ._recorded import recorded_flag, recorded_value

_INSIDE_RADIUS = 12.0
"""A source is well inside where all pixels within this distance are known [pixel]: some two FWHM."""

_LARGEST_STEP = 1.0
"""Largest step of a source that is recentred, in x and in y [pixel]."""

_FLAGS_OF_A_FAILED_FIT = ("psfFlux_flag", "psfFlux_flag_edge", "psfFlux_flag_noGoodPixels", "centroid_flag")


@dataclass(frozen=True)
class PsfFit:
    """How a PSF is fitted.

    Parameters
    ----------
    weighting : `str`
        "equal" or "variance".
    radius : `float`
        Radius of the disk of pixels that are fitted [pixel]; infinite for all of the stamp.
    recentred : `bool`
        Fit the flux at the position of the largest flux near the recorded one, not at that itself: one Newton step
        of at most a pixel.
    """

    weighting: str = "equal"
    radius: float = np.inf
    recentred: bool = False

    def __post_init__(self) -> None:
        if self.weighting not in ("equal", "variance"):
            raise ValueError(f"weighting must be 'equal' or 'variance', got {self.weighting!r}.")
        if not self.radius > 0:
            raise ValueError(f"radius must be positive, got {self.radius}.")


def is_well_inside(stamps: StampSet, radius: float = _INSIDE_RADIUS) -> np.ndarray:
    """Return which sources have every pixel within a distance on the difference cutout, (N,), bool."""
    outside = (stamps.weight("difference") == 0) & (_distance(stamps) <= radius)
    failed = np.any([recorded_flag(stamps.sources, name) for name in _FLAGS_OF_A_FAILED_FIT], axis=0)
    return ~outside.any(axis=(1, 2)) & ~failed


def compare_psf_fluxes(stamps: StampSet, fit: PsfFit | None = None) -> Table:
    """Fit PSF fluxes on the difference and put the recorded ones beside them.

    Parameters
    ----------
    stamps : `StampSet`
        N stamps with difference, differenceVariance and differencePsf.
    fit : `PsfFit`, optional
        How to fit; as the pipeline does when omitted.

    Returns
    -------
    table : `astropy.table.Table`
        N rows: ``psfFlux``, ``psfFluxErr`` [nJy], ``psfChi2`` (weighted with the variance, whatever the flux was
        fitted with), ``psfNdata``; the recorded ones, ``isNegative`` and ``dipoleFitAttempted`` with ``recorded_`` in
        front; ``wellInside``, of `is_well_inside`.
    """
    fit = fit or PsfFit()
    n = len(stamps)
    inverse_variance = np.asarray(stamps.weight("difference"), dtype=float).reshape(n, -1)
    known = inverse_variance > 0
    used = known & (_distance(stamps) <= fit.radius).reshape(n, -1)
    pixels = np.where(known, stamps.planes["difference"].reshape(n, -1), 0.0).astype(float)
    variance = np.divide(1.0, inverse_variance, out=np.zeros_like(inverse_variance), where=known)
    weight = np.where(used, inverse_variance if fit.weighting == "variance" else 1.0, 0.0)
    dx, dy = stamps.dx, stamps.dy
    if fit.recentred:
        moved = stamps.models["differencePsf"].shifted_with_gradient(dx, dy, stamps.size)
        step = fit_linear(pixels, moved.reshape(n, 3, -1), weight).amplitude
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = np.clip(np.nan_to_num(step[:, 1:] / step[:, :1]), -_LARGEST_STEP, _LARGEST_STEP)
        dx, dy = dx + shift[:, 0], dy + shift[:, 1]
    psf = stamps.models["differencePsf"].shifted(dx, dy, stamps.size).reshape(n, -1).astype(float)
    linear = fit_linear(pixels, psf[:, None, :], weight)
    flux = linear.amplitude[:, 0]
    # The variance for weights that are not the inverse variances.
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt((weight**2 * psf**2 * variance).sum(axis=1)) / (weight * psf**2).sum(axis=1)
    residual = pixels - flux[:, None] * psf

    sources = stamps.sources
    table = Table()
    for name in ("diaSourceId", "visit", "detector"):
        table[name] = sources[name]
    table["psfFlux"] = Column(flux, unit=u.nJy)
    table["psfFluxErr"] = Column(np.where(np.isfinite(flux), error, np.nan), unit=u.nJy)
    table["psfChi2"] = np.where(used, residual**2 * inverse_variance, 0.0).sum(axis=1)
    table["psfNdata"] = used.sum(axis=1)
    for name in ("psfFlux", "psfFluxErr"):
        table[f"recorded_{name}"] = Column(recorded_value(sources, name), unit=u.nJy)
    for name in ("psfChi2", "psfNdata"):
        table[f"recorded_{name}"] = recorded_value(sources, name)
    for name in ("isNegative", "dipoleFitAttempted"):
        table[f"recorded_{name}"] = recorded_flag(sources, name)
    table["wellInside"] = is_well_inside(stamps)
    return table


def factor_by_visit(table: Table, column: str, rows: np.ndarray) -> np.ndarray:
    """Return the median over a visit of ours over the recorded value, for every row.

    Parameters
    ----------
    table : `astropy.table.Table`
        What `compare_psf_fluxes` made, N rows.
    column : `str`
        "psfFlux", or "psfFluxErr", from which the factor follows without a look at the fluxes.
    rows : `numpy.ndarray`, (N,), bool
        Rows to take the median of.

    Returns
    -------
    factor : `numpy.ndarray`, (N,)
        Factors; NaN for visits without such rows.
    """
    ratio = np.asarray(table[column], dtype=float) / np.asarray(table[f"recorded_{column}"], dtype=float)
    visits = np.asarray(table["visit"])
    factor = np.full(len(table), np.nan)
    for visit in np.unique(visits[rows]):
        factor[visits == visit] = np.median(ratio[rows & (visits == visit)])
    return factor


def _distance(stamps: StampSet) -> np.ndarray:
    """Return the distance of every pixel from the source, (N, size, size) [pixel]."""
    y, x = np.mgrid[: stamps.size, : stamps.size] - stamps.size // 2
    return np.hypot(x - stamps.dx[:, None, None], y - stamps.dy[:, None, None])
