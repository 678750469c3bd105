"""What a source looks like on the difference image, whatever made it."""

from __future__ import annotations

__all__ = ["LOOKS"]

import numpy as np

from ._evidence import Evidence
from ._rule import Rule, falling, greatest, rising


def _snr(evidence: Evidence) -> np.ndarray:
    """Return the significance of a point source, without sign."""
    with np.errstate(invalid="ignore", divide="ignore"):
        fitted = np.abs(
            evidence.column("psfPhotometry_psfFlux") / evidence.column("psfPhotometry_psfFluxErr")
        )
    return np.where(np.isfinite(fitted), fitted, np.abs(evidence.column("snr")))


def _peak(evidence: Evidence) -> np.ndarray:
    """Return the significance of the detection: that of its peak, else of a point source."""
    peak = np.abs(evidence.column("snr"))
    return np.where(np.isfinite(peak), peak, _snr(evidence))


def _dipole(evidence: Evidence) -> np.ndarray:
    two_lobes = rising(evidence.column("dipole_dipoleDeltaChi2"), 10.0, 40.0)
    balance = np.abs(evidence.column("dipole_dipoleFluxDiff")) / (
        2.0 * np.abs(evidence.column("dipole_dipoleMeanFlux"))
    )
    # A lobe with two thirds of the light or less; 1/2 - 1/2 is a pure dipole.
    return np.asarray(
        greatest(two_lobes * falling(balance, 0.3, 0.6), np.nan_to_num(evidence.column("dipole_isDipole")))
    )


def _streak(evidence: Evidence) -> np.ndarray:
    better = rising(evidence.column("trail_trailDeltaChi2"), 10.0, 40.0)
    x0, y0, x1, y1 = (evidence.column(f"trail_trail{end}") for end in ("X0", "Y0", "X1", "Y1"))
    length = np.hypot(x1 - x0, y1 - y0) / _psf_sigma(evidence)
    fitted = better * rising(length, 1.5, 3.0)
    return greatest(
        fitted * np.where(_dipole(evidence) > 0.5, 0.0, 1.0),
        np.nan_to_num(evidence.column("maskFractions_STREAK_core") > 0.1).astype(float),
    )


def _psf_sigma(evidence: Evidence) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(0.5 * (evidence.column("shape_ixxPSF") + evidence.column("shape_iyyPSF"))))


def _extended(evidence: Evidence) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = (evidence.column("shape_sizeRatio") - 1.0) / evidence.column("shape_sizeRatioErr")
    wider = rising(evidence.column("shape_extendedness"), 0.9, 0.99) * rising(excess, 2.0, 4.0)
    one_sign = rising(np.abs(evidence.column("psfPhotometry_negativeFraction") - 0.5), 0.2, 0.35)
    return np.asarray(wider * one_sign * (1.0 - greatest(_dipole(evidence), _streak(evidence))))


def _ring(evidence: Evidence) -> np.ndarray:
    rings = rising(evidence.column("localNoise_ringChi2"), 2.0, 6.0)
    with np.errstate(invalid="ignore"):
        width = np.abs(evidence.column("residualModes_width") / evidence.column("residualModes_widthErr"))
        flux = np.abs(
            evidence.column("residualModes_fluxGivenArtefacts")
            / evidence.column("residualModes_fluxGivenArtefactsErr")
        )
    core_and_ring = rising(width, 3.0, 6.0) * rising(width - flux, 0.0, 2.0)
    return greatest(rings * falling(_snr(evidence), 20.0, 60.0), core_and_ring)


def _noise(evidence: Evidence) -> np.ndarray:
    faint = falling(_peak(evidence), 5.0, 6.5)
    shapeless = greatest(
        rising(np.abs(np.log(np.maximum(evidence.column("shape_sizeRatio"), 1e-3))), 0.3, 0.7),
        np.where(np.isnan(evidence.column("shape_sizeRatio")), 1.0, 0.0),
        falling(_snr(evidence), 3.0, 4.5),
    )
    return np.asarray(faint * shapeless)


def _point(evidence: Evidence) -> np.ndarray:
    significant = rising(_snr(evidence), 3.0, 5.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.abs(evidence.column("shape_sizeRatio") - 1.0) / np.hypot(
            evidence.column("shape_sizeRatioErr"), 0.05
        )
    like_psf = np.where(np.isfinite(excess), falling(excess, 2.0, 5.0), 0.5)
    chi2 = evidence.column("psfPhotometry_psfChi2PerDof")
    fits = np.where(np.isfinite(chi2), falling(chi2, 1.5, 3.0), 0.5)
    others = greatest(_dipole(evidence), _streak(evidence), _extended(evidence), _ring(evidence))
    return np.asarray(significant * greatest(like_psf, 0.5 * fits) * (1.0 - others))


LOOKS: dict[str, Rule] = {
    "point": Rule(
        (
            "psfPhotometry_psfFlux",
            "psfPhotometry_psfFluxErr",
            "psfPhotometry_psfChi2PerDof",
            "shape_sizeRatio",
            "shape_sizeRatioErr",
        ),
        "As the PSF: S/N of the PSF fit from 3 (score 0) to 5, size within 2 (score 1) to 5 of its errors, 5 % of "
        "which are allowed for the PSF model, or a chi-square per degree of freedom below 1.5, and none of dipole, "
        "streak, extended, ring.",
        _point,
    ),
    "dipole": Rule(
        ("dipole_dipoleDeltaChi2", "dipole_dipoleFluxDiff", "dipole_dipoleMeanFlux", "dipole_isDipole"),
        "Two lobes of opposite sign: they fit better than a point by a chi-square of 10 (3 sigma for the two more "
        "parameters) to 40, and differ by less than 0.3 to 0.6 of their light; or the dipole fit says so.",
        _dipole,
    ),
    "ring": Rule(
        (
            "localNoise_ringChi2",
            "residualModes_width",
            "residualModes_widthErr",
            "residualModes_fluxGivenArtefacts",
            "residualModes_fluxGivenArtefactsErr",
        ),
        "Core and ring of opposite sign: a width error of 3 to 6 sigma that exceeds the flux; or rings around a "
        "source of S/N below 20 to 60 (the wings of brighter ones are rings too) with a chi-square of 2 to 6 per "
        "ring, its scatter in noise being 0.5.",
        _ring,
    ),
    "streak": Rule(
        (
            "trail_trailDeltaChi2",
            *(f"trail_trail{end}" for end in ("X0", "Y0", "X1", "Y1")),
            "maskFractions_STREAK_core",
        ),
        "A line: it fits better than a point by a chi-square of 10 to 40 and is longer than 1.5 to 3 sigma of the "
        "PSF (below two, trail and point differ at second order only), or 10 % of the core is masked STREAK.",
        _streak,
    ),
    "extended": Rule(
        (
            "shape_extendedness",
            "shape_sizeRatio",
            "shape_sizeRatioErr",
            "psfPhotometry_negativeFraction",
        ),
        "Of one sign and wider than the PSF, by 2 to 4 of its errors with a probability of 0.9 to 0.99.",
        _extended,
    ),
    "noise": Rule(
        ("snr", "psfPhotometry_psfFlux", "psfPhotometry_psfFluxErr", "shape_sizeRatio"),
        "Faint and without the PSF's shape: peak below 5 (score 1) to 6.5, beyond which noise makes less than one in "
        "10^10 pixels; and a size off by 1.35 to 2 times or not measured, or a PSF flux below 3 to 4.5 sigma.",
        _noise,
    ),
}
"""Rules of the looks, by name."""
