"""The calibration of one difference image, from forced measurements where nothing has changed."""

from __future__ import annotations

__all__ = ["calibrate"]

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from ._pulls import pull_sigma
from ._star_floor import star_floor
from ._statistic import Statistic
from ._symmetry import symmetry_purity

_SYMMETRY = (
    "1 - negative / positive detections at or above low in |S/N|. Valid where the template holds no transients: a "
    "fading source counts as false."
)


def calibrate(
    blank: Table,
    on_sources: Table,
    stars: Table,
    dia_sources: Table,
    *,
    static_snr_edges: Sequence[float],
    aperture_radii: Sequence[int],
    snr_thresholds: Sequence[float],
) -> list[Statistic]:
    """Calibrate.

    Parameters
    ----------
    blank, on_sources : `astropy.table.Table`
        Diagnostics psfPhotometry and aperturePhotometry forced at random places of blank sky and of static sources.
    stars : `astropy.table.Table`
        Static stars with residualModes and psfPhotometry, and ``used``: whether the images were matched on them.
    dia_sources : `astropy.table.Table`
        Detections with ``snr`` and ``isNegative``, without sky sources.
    static_snr_edges : sequence [`float`]
        Edges of the bins in the local static flux over its error, template.
    aperture_radii : sequence [`int`]
        Radii of the apertures in blank sky [pixel].
    snr_thresholds : sequence [`float`]
        Thresholds of the symmetry purity.

    Returns
    -------
    statistics : `list` [`Statistic`]
        What was found.
    """
    found = _pulls("blankSky", "Forced PSF flux / error at random places of blank sky", *_psf_flux(blank))
    for radius in aperture_radii:
        if f"aperturePhotometry_apFlux_{radius}" not in blank.colnames:
            continue
        flux, error = (
            _column(blank, f"aperturePhotometry_apFlux_{radius}"),
            _column(blank, f"aperturePhotometry_apFluxErr_{radius}"),
        )
        found += _pulls(
            f"aperture{radius}",
            f"Flux within {radius} pixels / error at random places of blank sky",
            flux,
            error,
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        static = _column(on_sources, "psfPhotometry_templateFlux") / _column(
            on_sources, "psfPhotometry_templateFluxErr"
        )
    flux, error = _psf_flux(on_sources)
    for low, high in zip(static_snr_edges[:-1], static_snr_edges[1:], strict=True):
        inside = (static >= low) & (static < high)
        found += _pulls(
            "onSources",
            "Forced PSF flux / error at random places of static sources, by local static flux / error",
            flux[inside],
            error[inside],
            low,
            high,
        )
    found += _star_statistics(stars)
    snr = np.abs(_column(dia_sources, "snr"))
    snr[np.asarray(dia_sources["isNegative"], dtype=bool)] *= -1.0
    for threshold in snr_thresholds:
        purity = symmetry_purity(snr, threshold)
        n = purity.n_positive + purity.n_negative
        found.append(
            Statistic("symmetryPurity", purity.purity, purity.error, n, _SYMMETRY, threshold, np.inf)
        )
    return found


def _star_statistics(stars: Table) -> list[Statistic]:
    if len(stars) == 0 or "residualModes_staticFlux" not in stars.colnames:
        return []
    static = _column(stars, "residualModes_staticFlux")
    residual, error = (
        _column(stars, f"residualModes_{name}") for name in ("discoveryFlux", "discoveryFluxErr")
    )
    found = _pulls("stars", "Forced PSF flux / error on static stars", residual, error)
    floor = star_floor(residual, error, static)
    found += [
        Statistic(
            "starFluxMean",
            floor.mean,
            floor.mean_error,
            floor.n,
            "Flux left of static stars over their flux: the error of the flux scale.",
        ),
        Statistic(
            "starErrorFloor",
            floor.floor,
            floor.floor_error,
            floor.n,
            "f for which the flux left of static stars scatters by sqrt(error^2 + (f flux)^2).",
        ),
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        reduced = _column(stars, "psfPhotometry_psfChi2") / (_column(stars, "psfPhotometry_psfNdata") - 1.0)
    used = np.asarray(stars["used"], dtype=bool)
    for name, which, doc in (
        ("usedStarsChi2", used, "on which the images were matched"),
        ("heldOutStarsChi2", ~used, "on which the images were not matched"),
    ):
        values = reduced[which & np.isfinite(reduced)]
        n = len(values)
        middle = float(np.median(values)) if n else np.nan
        # The scatter of the stars themselves, 1.253 for a median.
        spread = float(1.253 * np.std(values) / np.sqrt(n)) if n > 1 else np.nan
        found.append(
            Statistic(name, middle, spread, n, f"Median reduced chi-square of PSF fits to stars {doc}.")
        )
    return found


def _pulls(
    name: str,
    description: str,
    value: np.ndarray,
    error: np.ndarray,
    low: float = np.nan,
    high: float = np.nan,
) -> list[Statistic]:
    pulls = pull_sigma(value, error)
    tail_error = float(np.sqrt(max(pulls.tail_fraction, 1.0 / pulls.n) / pulls.n)) if pulls.n else np.nan
    rows = (
        ("PullSigma", pulls.sigma, pulls.sigma_error, "robust sigma; 1 when errors are right."),
        ("PullMean", pulls.mean, pulls.mean_error, "median; 0 without bias."),
        ("PullTail", pulls.tail_fraction, tail_error, "fraction beyond 4 sigma; 6e-5 for a Gaussian."),
    )
    return [
        Statistic(f"{name}{kind}", number, uncertainty, pulls.n, f"{description}: {doc}", low, high)
        for kind, number, uncertainty, doc in rows
    ]


def _psf_flux(table: Table) -> tuple[np.ndarray, np.ndarray]:
    return _column(table, "psfPhotometry_psfFlux"), _column(table, "psfPhotometry_psfFluxErr")


def _column(table: Table, name: str) -> np.ndarray:
    return np.asarray(table[name], dtype=float) if name in table.colnames else np.full(len(table), np.nan)
