"""Causes that one source alone cannot tell apart: how they share the score of what they have in common.

The model scores labels: a flux change, a shift, a width error and so on. What made a shift (registration, proper
motion, refraction) or a width error (PSF model, brighter-fatter effect, ringing of the kernel) shows only in an
ensemble: where there are maps of the detector, how well each hypothesis agrees with them decides; where there are
none, priors do, and the source is ambiguous. The shares of a label's causes add up to its score.
"""

from __future__ import annotations

__all__ = ["CAUSES", "SHARED", "shares"]

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr

from ..maps import DetectorMaps
from ._evidence import Evidence
from ._rule import rising

SHARED: dict[str, tuple[str, ...]] = {
    "real": ("realUp", "realDown", "templateContaminated"),
    "moving": ("moving",),
    "shift": ("registration", "properMotion", "dcr"),
    "width": ("psfWidth", "brighterFatter", "kernelRinging"),
    "psfEllipticity": ("psfEllipticity",),
    "background": ("background",),
    "fluxScale": ("fluxScale",),
    "cosmicRay": ("cosmicRay",),
    "ghostOrCrosstalk": ("ghostOrCrosstalk",),
    "templateArtefact": ("templateArtefact",),
    "noise": ("noise",),
}
"""Labels of the model, and the causes that share each."""

CAUSES: dict[str, str] = {
    "realUp": "A flux change of a source at rest, brighter on the science image.",
    "realDown": "A flux change of a source at rest, fainter on the science image.",
    "moving": "Something that moved during the exposure: a trail of an asteroid or satellite.",
    "registration": "The two images are not aligned here.",
    "properMotion": "The star has moved since the template.",
    "dcr": "Differential chromatic refraction has moved the source.",
    "psfWidth": "A PSF is wider or narrower than the match supposes.",
    "psfEllipticity": "A PSF is of another ellipticity than the match supposes.",
    "background": "Background was left in an image.",
    "brighterFatter": "The image of a bright star is wider than that of a faint one.",
    "fluxScale": "The flux scales of the two images differ here.",
    "cosmicRay": "A cosmic ray that was not masked.",
    "templateContaminated": "The template holds a transient, asteroid or artefact where now nothing is.",
    "templateArtefact": "The inputs of the template change here: edges, rejected pixels, holes.",
    "ghostOrCrosstalk": "Light of another source, by reflections or crosstalk.",
    "kernelRinging": "The matching kernel rings.",
    "noise": "A peak of the noise.",
    "unknown": "None of the others reaches a score of one half.",
}
"""Causes by name."""

_SHIFT_PRIOR = {"registration": 0.7, "properMotion": 0.15, "dcr": 0.15}
"""All stars are misregistered; few move or are of extreme colour."""

_SHIFT_RMS = 30.0
"""Scatter of the registration where there are no maps, as the default prior of residualModes [mas]."""

_PROPER_MOTIONS = (20.0, 60.0, 200.0)
"""Widths of the Gaussians, in equal parts, that displacements by proper motion are drawn from [mas]."""

_REFRACTION = 30.0
"""Width of the Gaussian that displacements by refraction are drawn from [mas]: 1 mag of g - i in r at 45 degrees."""

_WIDTH_PRIOR = {"psfWidth": 0.8, "brighterFatter": 0.1, "kernelRinging": 0.1}

_EMPTY = 3.0
"""S/N on the science image below which nothing is there."""


def shares(
    label: str, evidence: Evidence, maps: DetectorMaps | None, x: np.ndarray, y: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Return the share of each cause in the score of a label, (N,) each; they add up to 1.

    Parameters
    ----------
    label : `str`
        Label, of `SHARED`.
    evidence : `Evidence`
        Evidence about N sources.
    maps : `lsst.diainspect.maps.DetectorMaps` or `None`
        Maps of the detector.
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel]; NaN where not known.
    """
    if label == "real":
        return _flux_shares(evidence)
    if label == "shift":
        return _shift_shares(evidence, maps, x, y)
    if label == "width":
        return _width_shares(evidence, maps, x, y)
    (cause,) = SHARED[label]
    return {cause: np.ones(len(evidence))}


def _flux_shares(evidence: Evidence) -> dict[str, np.ndarray]:
    """Tell up from down by the sign of fluxGivenArtefacts; fading and a contaminated template look the same."""
    with np.errstate(invalid="ignore", divide="ignore"):
        change = evidence.column("residualModes_fluxGivenArtefacts") / evidence.column(
            "residualModes_fluxGivenArtefactsErr"
        )
        detected = evidence.column("psfPhotometry_psfFlux") / evidence.column("psfPhotometry_psfFluxErr")
        science = evidence.column("psfPhotometry_scienceFlux") / evidence.column(
            "psfPhotometry_scienceFluxErr"
        )
    negative = np.nan_to_num(evidence.column("isNegative")) > 0.5
    change = np.where(np.isfinite(change), change, detected)
    up = np.where(np.isfinite(change), ndtr(np.nan_to_num(change)), np.where(negative, 0.0, 1.0))
    gone = np.abs(science) < _EMPTY
    contaminated = np.where(gone, 0.5, 0.0) * (1.0 - up)
    return {"realUp": up, "realDown": 1.0 - up - contaminated, "templateContaminated": contaminated}


def _shift_shares(
    evidence: Evidence, maps: DetectorMaps | None, x: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    """Compare a shift with what the maps of registration let expect."""
    east, north = evidence.column("residualModes_shiftEast"), evidence.column("residualModes_shiftNorth")
    east_error = evidence.column("residualModes_shiftEastErr")
    north_error = evidence.column("residualModes_shiftNorthErr")
    pixels = np.hypot(evidence.column("residualModes_shiftX"), evidence.column("residualModes_shiftY"))
    with np.errstate(invalid="ignore", divide="ignore"):
        scales = np.hypot(east, north) / pixels
    # [mas / pixel]
    scale = np.median(scales[np.isfinite(scales)]) if np.isfinite(scales).any() else np.nan
    rms = np.full(len(evidence), _SHIFT_RMS)
    told = _has(maps, "residualShiftX", "residualShiftY") and np.isfinite(scale)
    if maps is not None and told:
        scatter = [maps[f"residualShift{axis}"].scatter(x, y) for axis in "XY"]
        rms = scale * np.hypot(*scatter) / np.sqrt(2.0)
    along = evidence.column("residualModes_shiftParallactic")
    directed = np.isfinite(along)
    total2 = east**2 + north**2
    error2 = 0.5 * (east_error**2 + north_error**2)
    likelihood = {"registration": _isotropic(total2, error2 + rms**2)}
    # What is misregistered besides is so by the same scatter.
    likelihood["properMotion"] = np.mean(
        [_isotropic(total2, error2 + rms**2 + width**2) for width in _PROPER_MOTIONS], axis=0
    )
    across2 = np.maximum(total2 - along**2, 0.0)
    anyhow = _isotropic(total2, error2 + rms**2 + _REFRACTION**2)
    refracted = _line(along**2, error2 + rms**2 + _REFRACTION**2) * _line(across2, error2 + rms**2)
    likelihood["dcr"] = np.where(directed, refracted, anyhow)
    is_galaxy = np.nan_to_num(evidence.column("residualModes_isExtended")) > 0.5
    weights = {name: _SHIFT_PRIOR[name] * values for name, values in likelihood.items()}
    weights["properMotion"] = np.where(is_galaxy, 0.0, weights["properMotion"])
    # Without maps the priors alone decide.
    if not told:
        weights = {
            name: np.where(is_galaxy & (name == "properMotion"), 0.0, prior)
            for name, prior in _SHIFT_PRIOR.items()
        }
    return _normalised(weights, _SHIFT_PRIOR)


def _width_shares(
    evidence: Evidence, maps: DetectorMaps | None, x: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    """Compare a width error with the map's; what a bright star has beyond it is brighter-fatter, rings are ringing."""
    width = evidence.column("residualModes_width") / 100.0
    error = evidence.column("residualModes_widthErr") / 100.0
    with np.errstate(invalid="ignore", divide="ignore"):
        static = evidence.column("residualModes_staticFlux") / evidence.column("residualModes_staticFluxErr")
    bright = rising(static, 200.0, 600.0)
    beyond = np.zeros(len(evidence))
    if maps is not None and _has(maps, "width"):
        with np.errstate(invalid="ignore", divide="ignore"):
            excess = (width - maps["width"].evaluate(x, y)) / np.hypot(error, maps["width"].scatter(x, y))
        beyond = rising(excess, 2.0, 4.0)
    rings = rising(evidence.column("localNoise_ringChi2"), 3.0, 10.0)
    prior = _WIDTH_PRIOR
    weights = {
        "psfWidth": prior["psfWidth"] * (1.0 - 0.9 * bright * beyond) * (1.0 - 0.5 * rings),
        "brighterFatter": np.where(width < 0, 0.0, prior["brighterFatter"] + bright * beyond),
        "kernelRinging": prior["kernelRinging"] + 0.5 * rings,
    }
    return _normalised(weights, prior)


def _has(maps: DetectorMaps | None, *names: str) -> bool:
    return maps is not None and all(name in maps for name in names)


def _isotropic(squared: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the density of a vector in two dimensions."""
    with np.errstate(invalid="ignore", under="ignore"):
        return np.asarray(np.exp(-0.5 * squared / variance) / variance)


def _line(squared: np.ndarray, variance: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", under="ignore"):
        return np.asarray(np.exp(-0.5 * squared / variance) / np.sqrt(variance))


def _normalised(weights: Mapping[str, np.ndarray], prior: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Divide by the sum; where there is nothing to go by the priors are the shares."""
    total = np.sum(list(weights.values()), axis=0)
    told = np.isfinite(total) & (total > 0)
    return {
        name: np.where(told, values / np.where(told, total, 1.0), prior[name])
        for name, values in weights.items()
    }
