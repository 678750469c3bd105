"""Dimensionless numbers that the cause is judged on, each made from evidence columns."""

from __future__ import annotations

__all__ = ["FEATURES", "REAL_FEATURES", "Feature", "evaluate_features", "is_approximate"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ._evidence import Evidence


@dataclass(frozen=True)
class Feature:
    """A number.

    Parameters
    ----------
    columns : `tuple` [`str`]
        Evidence columns.
    doc : `str`
        What it is.
    value : callable
        Takes those columns as arrays (N,), returns an array (N,); NaN where one that is needed is NaN.
    """

    columns: tuple[str, ...]
    doc: str
    value: Callable[..., np.ndarray]


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _significance(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    return np.abs(value) / error


def _signed(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    return value / error


def _root(chi2: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(chi2, 0.0))


def _sigma(ixx: np.ndarray, iyy: np.ndarray) -> np.ndarray:
    return np.sqrt(0.5 * (ixx + iyy))


def _noise_area(ixx: np.ndarray, iyy: np.ndarray) -> np.ndarray:
    return 4.0 * np.pi * 0.5 * (ixx + iyy)


_MODES = "residualModes_"
_PSF = "psfPhotometry_"
_MOMENTS = ("shape_ixxPSF", "shape_iyyPSF")


_FAINT = 10.0
"""S/N of the PSF flux up to which adaptive moments scatter by more than themselves, or do not converge: that a faint
source has none, or large ones, tells nothing about it."""


def _bright_only(value: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Leave out faint sources, by PSF flux and error that come last."""

    def guarded(*columns: np.ndarray) -> np.ndarray:
        *own, flux, error = columns
        return np.where(np.abs(flux) > _FAINT * error, value(*own), np.nan)

    return guarded


def _with_error(name: str) -> tuple[str, str]:
    return name, f"{name}Err"


_PSF_FLUX = _with_error(f"{_PSF}psfFlux")

_FLUXES: dict[str, Feature] = {
    "peakSnr": Feature(("snr",), "S/N of the detection.", np.abs),
    "psfSnr": Feature(_PSF_FLUX, "S/N of the PSF flux.", _significance),
    "givenSnr": Feature(
        _with_error(f"{_MODES}fluxGivenArtefacts"), "S/N of fluxGivenArtefacts.", _significance
    ),
    "givenOverDiscovery": Feature(
        (f"{_MODES}fluxGivenArtefacts", f"{_MODES}discoveryFlux"),
        "Part of the discovery flux that is left when artefacts are allowed for.",
        lambda given, discovery: np.clip(given / discovery, -3.0, 3.0),
    ),
    "budgetSnr": Feature(
        (f"{_MODES}budgetSnr",), "S/N that expected artefacts can make at this place.", _same
    ),
    "givenOverBudget": Feature(
        (f"{_MODES}fluxGivenArtefacts", f"{_MODES}fluxGivenArtefactsErr", f"{_MODES}budgetSnr"),
        "S/N of fluxGivenArtefacts over that of the budget and 1 in quadrature.",
        lambda flux, error, budget: np.abs(flux) / error / np.hypot(1.0, budget),
    ),
    "modesChi2": Feature(
        (f"{_MODES}chi2", f"{_MODES}nData"),
        "Chi-square per degree of freedom of the joint fit.",
        lambda chi2, n: chi2 / np.maximum(n - 7.0, 1.0),
    ),
    "psfChi2": Feature((f"{_PSF}psfChi2PerDof",), "The same of a point source.", _same),
    "negativeFraction": Feature(
        (f"{_PSF}negativeFraction",),
        "Part of the core whose sign is that of the minority.",
        lambda fraction: np.minimum(fraction, 1.0 - fraction),
    ),
    "fluxConsistency": Feature(
        (f"{_PSF}fluxConsistency",), "|science - template - difference| in errors.", np.abs
    ),
    "scienceSnr": Feature(
        _with_error(f"{_PSF}scienceFlux"), "Signed S/N at the place on the science image.", _signed
    ),
    "templateSnr": Feature(
        _with_error(f"{_PSF}templateFlux"), "Signed S/N at the place on the template.", _signed
    ),
    "staticSnr": Feature(_with_error(f"{_MODES}staticFlux"), "S/N of the static source.", _significance),
    "changeOverStatic": Feature(
        (f"{_PSF}psfFlux", f"{_MODES}staticFlux"),
        "|Flux of the difference| over that of the static source.",
        lambda flux, static: np.abs(flux) / np.abs(static),
    ),
    "isExtended": Feature((f"{_MODES}isExtended",), "Is the static source a galaxy?", _same),
}

_SHAPES: dict[str, Feature] = {
    "sizeRatio": Feature(("shape_sizeRatio", *_PSF_FLUX), "Size over that of the PSF.", _bright_only(_same)),
    "sizeExcess": Feature(
        ("shape_sizeRatio", "shape_sizeRatioErr", *_PSF_FLUX),
        "Excess of the size in its errors.",
        _bright_only(lambda ratio, error: (ratio - 1.0) / error),
    ),
    "ellipticity": Feature(
        ("shape_ellipticity", *_PSF_FLUX), "Ellipticity of the difference.", _bright_only(_same)
    ),
    "weightedSize": Feature(
        ("shape_weightedSizeRatio",), "Size to first order, over that of the PSF.", _same
    ),
    "weightedSizeSnr": Feature(("shape_weightedSizeSnr",), "Its excess in its errors.", _same),
    "weightedShape": Feature(
        ("shape_weightedShapeChi2",), "Significance of an elongation under the PSF's weight.", _root
    ),
    "growth": Feature(("aperturePhotometry_growth",), "Growth of the aperture flux.", _same),
    "elongation": Feature(("trail_elongationChi2",), "Significance of an elongation.", _root),
    "trail": Feature(("trail_trailDeltaChi2",), "By how much a trail is better than a point.", _root),
    "trailLength": Feature(
        ("trail_trailX0", "trail_trailY0", "trail_trailX1", "trail_trailY1", *_MOMENTS),
        "Length of the trail in widths of the PSF.",
        lambda x0, y0, x1, y1, ixx, iyy: np.hypot(x1 - x0, y1 - y0) / _sigma(ixx, iyy),
    ),
    "noise": Feature(("localNoise_sigmaOverPredicted",), "Noise around over the predicted one.", _same),
    "ringPower": Feature(("localNoise_ringPower",), "Power of the annulus around.", _same),
    "ringChi2": Feature(("localNoise_ringChi2",), "Chi-square of rings.", _same),
    "maskedCore": Feature(
        tuple(f"maskFractions_{plane}_core" for plane in ("BAD", "SATURATED", "SAT_TEMPLATE", "NO_DATA")),
        "Part of the core that is bad or saturated.",
        lambda *planes: np.maximum.reduce(planes),
    ),
    "saturatedStamp": Feature(
        tuple(f"maskFractions_{plane}_stamp" for plane in ("SATURATED", "SAT_TEMPLATE")),
        "Part of the stamp that is saturated.",
        lambda *planes: np.maximum.reduce(planes),
    ),
    "spreadStamp": Feature(
        ("maskFractions_FILTER_SPREAD_stamp",),
        "Part of the stamp within a filter's reach of filled pixels.",
        _same,
    ),
    "noDataStamp": Feature(("maskFractions_NO_DATA_stamp",), "Part of the stamp without data.", _same),
}

_ARTEFACTS: dict[str, Feature] = {
    "jointSnr": Feature(_with_error(f"{_MODES}flux"), "S/N of the joint flux.", _significance),
    "shift": Feature((f"{_MODES}shiftChi2",), "Significance of a shift.", _root),
    "shiftLength": Feature(
        (f"{_MODES}shiftX", f"{_MODES}shiftY", *_MOMENTS),
        "Shift in widths of the PSF.",
        lambda x, y, ixx, iyy: np.hypot(x, y) / _sigma(ixx, iyy),
    ),
    "width": Feature(_with_error(f"{_MODES}width"), "Signed significance of a width error.", _signed),
    "widthAmount": Feature((f"{_MODES}width",), "Width error, without sign [per cent].", np.abs),
    "shear": Feature((f"{_MODES}shearChi2",), "Significance of a shear.", _root),
    "shearAmount": Feature((f"{_MODES}e1", f"{_MODES}e2"), "Shear.", np.hypot),
    "budgetShift": Feature(
        (f"{_MODES}budgetShift", f"{_MODES}discoveryFluxErr"), "S/N that expected shifts can make.", _signed
    ),
    "budgetWidth": Feature(
        (f"{_MODES}budgetWidth", f"{_MODES}discoveryFluxErr"), "S/N that expected widths can make.", _signed
    ),
    "budgetScale": Feature(
        (f"{_MODES}budgetScale", f"{_MODES}discoveryFluxErr"),
        "S/N that expected errors of the flux scale can make.",
        _signed,
    ),
    "scienceWidth": Feature(
        _with_error(f"{_MODES}scienceWidth"), "Width excess on the science image, in errors.", _signed
    ),
    "templateWidth": Feature(
        _with_error(f"{_MODES}templateWidth"), "Width excess on the template, in errors.", _signed
    ),
    "scienceShear": Feature(
        (
            *_with_error(f"{_MODES}scienceE1"),
            *_with_error(f"{_MODES}scienceE2"),
        ),
        "Shear excess on the science image, in errors.",
        lambda e1, error1, e2, error2: np.hypot(e1 / error1, e2 / error2),
    ),
    "background": Feature(
        (f"{_MODES}background", f"{_MODES}discoveryFluxErr", *_MOMENTS),
        "Constant left around, times the noise area of the PSF, in errors of the flux.",
        lambda level, error, ixx, iyy: np.abs(level) * _noise_area(ixx, iyy) / error,
    ),
    "dipole": Feature(("dipole_dipoleDeltaChi2",), "By how much two lobes are better than a point.", _root),
    "dipoleMoment": Feature(("dipole_dipoleMomentChi2",), "Significance of the dipole moment.", _root),
    "lobeRatio": Feature(("lobeRatio",), "Peak of the other sign over the highest.", np.abs),
    "neighbour": Feature(
        ("context_templateNeighbourDistancePixels", *_MOMENTS),
        "Distance of the nearest source on the template in widths of the PSF.",
        lambda distance, ixx, iyy: distance / _sigma(ixx, iyy),
    ),
}

REAL_FEATURES: tuple[str, ...] = (*_FLUXES, *_SHAPES)
"""What decides whether a flux changed: fluxes given the artefacts and the shape, never how large the artefacts are."""

FEATURES: dict[str, Feature] = _FLUXES | _SHAPES | _ARTEFACTS
"""All features by name."""


def evaluate_features(evidence: Evidence, names: Iterable[str] = tuple(FEATURES)) -> np.ndarray:
    """Evaluate features.

    Parameters
    ----------
    evidence : `Evidence`
        Evidence about N sources.
    names : iterable [`str`], optional
        Features, of `FEATURES`.

    Returns
    -------
    values : `numpy.ndarray`, (N, n_features), float32
        NaN where a feature cannot be told.
    """
    columns = []
    for name in names:
        feature = FEATURES[name]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            value = feature.value(*(evidence.column(column) for column in feature.columns))
            columns.append(np.where(np.isfinite(value), value, np.nan).astype(np.float32))
    return np.stack(columns, axis=1) if columns else np.zeros((len(evidence), 0), dtype=np.float32)


def is_approximate(evidence: Evidence) -> np.ndarray:
    """Return which sources are judged without the filters or the maps of the detector, as alerts are, (N,) bool."""
    unfiltered = evidence.column(f"{_MODES}isApproximate") != 0.0
    unmapped = np.nan_to_num(evidence.column(f"{_MODES}priorsFromMaps")) == 0.0
    return unfiltered | unmapped & np.isfinite(evidence.column(f"{_MODES}staticFlux"))
