"""What truly made each detection: every mechanism's expected signal-to-noise ratio at its place.

Signals follow from the truth table: a displacement d of a source of S/N nu and Gaussian width s makes
nu d / (sqrt(2) s), a widening w makes sqrt(2) nu w, a shear e makes nu e, an error of the flux scale q makes nu q; a
galaxy's width is that of its convolved image, and its modes are fainter by powers of the ratio of the widths. An
artefact of the camera is credited with the whole detection where its area covers it.
"""

from __future__ import annotations

__all__ = ["MECHANISMS", "true_causes"]

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from lsst.diainspect.simulation import SimulatedPair

from ._surveys import DetectorPlan

MECHANISMS = (
    "real",
    "moving",
    "registration",
    "properMotion",
    "dcr",
    "psfWidth",
    "psfEllipticity",
    "brighterFatter",
    "fluxScale",
    "background",
    "cosmicRay",
    "ghostOrCrosstalk",
    "templateArtefact",
    "other",
)
"""Mechanisms, each with a column ``true_...`` of its S/N; other is saturation, bleeding and bad pixels."""

_REACH = 3.5
"""Largest distance of a detection from what made it [pixel]."""

_RESOLVED_TRAIL = 1.0
"""A moving object with a shorter trail cannot be told from one at rest [FWHM]."""

_ARTEFACTS = {
    "cosmic_ray": "cosmicRay",
    "crosstalk": "ghostOrCrosstalk",
    "ghost": "ghostOrCrosstalk",
    "streak": "moving",
    "coadd_edge": "templateArtefact",
    "coadd_rejected": "templateArtefact",
    "coadd_hole": "templateArtefact",
    "bleed": "other",
    "bad_column": "other",
}
_COADD_REACH = 8.0
"""The PSF of a coadd is off to this distance from where its inputs change [pixel]."""


def true_causes(plan: DetectorPlan, pair: SimulatedPair, sources: Table, diagnostics: Table) -> Table:
    """Return the expected S/N of each mechanism at each detection, and the S/N and distance of the static source.

    Parameters
    ----------
    plan : `DetectorPlan`
        What was done to the detector.
    pair : `lsst.diainspect.simulation.SimulatedPair`
        The images and their truth.
    sources, diagnostics : `astropy.table.Table`
        Detections and their diagnostics, for errors and the width of the PSF.
    """
    n = len(sources)
    found = {name: np.zeros(n) for name in MECHANISMS}
    x, y = (np.asarray(sources[axis], dtype=float) for axis in "xy")
    error = np.asarray(diagnostics["psfPhotometry_psfFluxErr"], dtype=float)
    error = np.where(error > 0, error, np.nanmedian(error))
    sigma = np.sqrt(0.5 * np.asarray(diagnostics["shape_ixxPSF"] + diagnostics["shape_iyyPSF"], dtype=float))
    sigma = np.where(sigma > 0, sigma, np.nanmedian(sigma))
    signal = np.abs(np.asarray(sources["snr"], dtype=float))
    truth = pair.truth

    def column(name: str) -> np.ndarray:
        return np.asarray(truth[name], dtype=float)

    kind = np.asarray(truth["kind"]).astype(str)
    change, size = column("fluxChange"), np.nan_to_num(column("halfLightRadius")) / 1.18
    shifts = {
        "dcr": (column("dcrShiftX"), column("dcrShiftY")),
        "properMotion": (column("properMotionShiftX"), column("properMotionShiftY")),
    }
    shifts["registration"] = tuple(
        column(f"shift{a}") - shifts["dcr"][j] - shifts["properMotion"][j] for j, a in enumerate("XY")
    )
    static = np.isin(kind, ("star", "galaxy", "variable"))
    matched_on = static & (column("mag") < 22.0)
    # What is common to the detector is taken by the match.
    shifts = {
        name: tuple(values - np.median(values[matched_on]) for values in pair_of)
        if name != "properMotion"
        else pair_of
        for name, pair_of in shifts.items()
    }
    fatter = column("brighterFatterWidth") - column("templateBrighterFatterWidth")
    width = column("widthChange") - column("brighterFatterWidth") + plan.width_error
    scale = column("fluxScale") / np.median(column("fluxScale")[matched_on]) - 1.0
    shear = float(np.hypot(*plan.shear_error))

    for place in ("", "template"):
        tree_x, tree_y = (column(a if not place else f"template{a.upper()}") for a in "xy")
        tree = cKDTree(np.column_stack([tree_x, tree_y]))
        reach = _REACH + 0.5 * np.nan_to_num(column("trailLength"))
        for row, near in enumerate(tree.query_ball_point(np.column_stack([x, y]), float(reach.max()))):
            for j in near:
                distance = _from_segment(
                    x[row] - tree_x[j],
                    y[row] - tree_y[j],
                    float(np.nan_to_num(truth["trailLength"][j])),
                    float(np.nan_to_num(truth["trailAngle"][j])),
                )
                if distance > _REACH:
                    continue
                expected = {}
                if change[j] != 0.0:
                    resolved = truth["trailLength"][j] > _RESOLVED_TRAIL * 2.355 * sigma[row]
                    name = "moving" if resolved else "real"
                    dimming = sigma[row] / np.hypot(sigma[row], 0.29 * truth["trailLength"][j])
                    expected[name] = abs(change[j]) / error[row] * np.sqrt(dimming)
                if static[j]:
                    total = np.hypot(sigma[row], size[j])
                    nu = min(truth["templateFlux"][j], truth["scienceFlux"][j]) / error[row]
                    thin = sigma[row] / total
                    for name, (dx, dy) in shifts.items():
                        expected[name] = nu * thin * np.hypot(dx[j], dy[j]) / (np.sqrt(2.0) * total)
                    expected["psfWidth"] = np.sqrt(2.0) * nu * abs(width[j]) * thin**3
                    expected["brighterFatter"] = np.sqrt(2.0) * nu * abs(fatter[j])
                    expected["psfEllipticity"] = nu * shear * thin**3
                    expected["fluxScale"] = nu * thin * abs(scale[j])
                    if bool(truth["isSaturated"][j]):
                        expected["other"] = signal[row]
                for name, value in expected.items():
                    found[name][row] = max(found[name][row], value)
    _add_camera(found, pair, x, y, signal)
    if plan.conditions.sky_gradient is not None:
        bounds = pair.science.bbox
        level = plan.conditions.sky_gradient.electrons(bounds)
        level = (level - np.median(level)) * plan.conditions.njy_per_electron
        ix, iy = (
            np.clip(np.rint(v).astype(int), 0, SIDE - 1)
            for v, SIDE in ((x, bounds.x.size), (y, bounds.y.size))
        )
        found["background"] = np.abs(level[iy, ix]) * 4.0 * np.pi * sigma**2 / error
    bright = static & (column("templateFlux") > 0)
    tree = cKDTree(np.column_stack([column("x")[bright], column("y")[bright]]))
    distance, nearest = tree.query(np.column_stack([x, y]))
    table = Table({f"true_{name}": values.astype(np.float32) for name, values in found.items()})
    table["true_staticSnr"] = (column("templateFlux")[bright][nearest] / error).astype(np.float32)
    table["true_staticDistance"] = distance.astype(np.float32)
    return table


def _from_segment(dx: float, dy: float, length: float, angle: float) -> float:
    """Return the distance of a point from a segment centred on the origin [pixel; degree]."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    along, across = dx * cosine + dy * sine, -dx * sine + dy * cosine
    return float(np.hypot(max(abs(along) - 0.5 * length, 0.0), across))


def _add_camera(
    found: dict[str, np.ndarray], pair: SimulatedPair, x: np.ndarray, y: np.ndarray, signal: np.ndarray
) -> None:
    """Credit the camera's artefacts with the detections in their areas."""
    for row in pair.artefacts:
        kind = str(row["kind"])
        reach = _COADD_REACH if kind.startswith("coadd") else _REACH
        angle = np.deg2rad(row["angle"])
        along = (x - row["x"]) * np.cos(angle) + (y - row["y"]) * np.sin(angle)
        across = -(x - row["x"]) * np.sin(angle) + (y - row["y"]) * np.cos(angle)
        inside = (np.abs(along) < 0.5 * row["extent"] + reach) & (np.abs(across) < 0.5 * row["width"] + reach)
        name = _ARTEFACTS[kind]
        found[name] = np.where(inside, np.maximum(found[name], signal), found[name])
