"""What is simulated: detectors under random conditions, each with one or two things that go wrong."""

from __future__ import annotations

__all__ = ["SCENARIOS", "TARGETS", "TARGETS_FROM", "TARGET_NUMBERS", "DetectorPlan", "plan_detector"]

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lsst.diainspect.simulation import (
    AstrometricJitter,
    BrighterFatter,
    CalibrationGradient,
    ChromaticRefraction,
    CosmicRays,
    Crosstalk,
    Ghosts,
    ObservingConditions,
    SceneConfig,
    SkyGradient,
    Streaks,
    WarpedCoadd,
)

SCENARIOS = (
    "quiet",
    "faint_changes",
    "registration",
    "registration",
    "refraction",
    "motion",
    "psf_width",
    "psf_width",
    "psf_ellipticity",
    "psf_ellipticity",
    "brighter_fatter",
    "background",
    "flux_scale",
    "cosmic_rays",
    "ghosts",
    "streaks",
    "coadd",
    "changes_on_dipoles",
    "changes_on_dipoles",
    "changes_on_widths",
)
"""Each detector is one of these, in turn; all have transients, variable stars and moving objects."""

TARGETS_FROM = 1000
"""Detectors numbered from here are those of `TARGETS`, for the validation alone."""

TARGETS = {"shift_8": 32, "shift_12": 36, "hosts": 18, "shift_15": 3, "width_15": 3, "half_change": 4}
"""What single claims are judged on, and by how many detectors: changes of S/N 8 on stars with a shift of S/N 8 or 12,
on galaxies, artefacts of S/N 15, and changes of half of the stars on shifts of S/N 8 to 12."""

_TARGET_STRIDE = 100

TARGET_NUMBERS = tuple(
    (TARGETS_FROM + _TARGET_STRIDE * number, planned) for number, planned in enumerate(TARGETS.values())
)
"""First number and number of detectors of each target."""

_CHANGING = 0.12
_MANY_CHANGING = 0.5
"""Part of the perturbed stars that change where a claim is judged. Two of the others do: a tenth of all stars."""

_TRAINING_CHANGING = 0.2
"""The same for training, where changes are wanted."""

_N_PERTURBED = 60

_WANTED = {"shift_8": 8.0, "shift_12": 13.0, "shift_15": 15.0, "width_15": 15.0}
"""S/N of the artefact, which its true S/N scatters about by a sixth; from 10 to 14 count as 12."""

_MATCHED_SIGMA = 1.0 / (2.355 * 0.2)
"""Gaussian width of a PSF [pixel] by its full width at half maximum [arcsec]."""

_DIFFERENCE_SNR = 0.72
"""S/N of a star in the difference over that in the science image: the template and the star's own light add noise."""

_HIDDEN = ("background", "flux_scale", "changes_on_dipoles", "changes_on_widths", "shift_15", "width_15")
"""Where sources are always detected on the difference, because the score hides what goes wrong."""


@dataclass(frozen=True)
class DetectorPlan:
    """One detector to simulate.

    Parameters
    ----------
    scenario : `str`
        What goes wrong, of `SCENARIOS`.
    method : `str`
        Subtraction: al or zogy.
    conditions : `lsst.diainspect.simulation.ObservingConditions`
        Conditions.
    scene : `lsst.diainspect.simulation.SceneConfig`
        Sky.
    threshold : `float`
        Least score of a detection [sigma]; below 5 on some, for more peaks of noise.
    detect_on : `str`
        Where peaks are found: the score knows of registration errors and hides what they make, the difference does not.
    subtractor : `dict`
        Fields of the subtractor's configuration.
    width_error, shear_error : `float`, `tuple` [`float`, `float`]
        By how much the science PSF exceeds its model.
    injected_snr : `tuple` [`float`, `float`], optional
        Range of the S/N of flux changes that some of the perturbed stars are given, of either sign.
    injected_fraction : `float`
        Part of the perturbed stars that are.
    """

    scenario: str
    method: str
    conditions: ObservingConditions
    scene: SceneConfig
    threshold: float
    detect_on: str
    subtractor: dict[str, Any] = field(default_factory=dict)
    width_error: float = 0.0
    shear_error: tuple[float, float] = (0.0, 0.0)
    injected_snr: tuple[float, float] | None = None
    injected_fraction: float = _TRAINING_CHANGING


def plan_detector(number: int, rng: np.random.Generator) -> DetectorPlan:
    """Draw the conditions of a detector.

    Parameters
    ----------
    number : `int`
        Counter, which says what goes wrong and by which method it is subtracted.
    rng : `numpy.random.Generator`
        Source of randomness.
    """
    is_target = number >= TARGETS_FROM
    scenario = (
        tuple(TARGETS)[(number - TARGETS_FROM) // _TARGET_STRIDE]
        if is_target
        else SCENARIOS[number % len(SCENARIOS)]
    )
    method = "al" if (number + number // len(SCENARIOS)) % 2 == 0 else "zogy"
    conditions: dict[str, Any] = {
        "science_seeing": rng.uniform(0.65, 1.15),
        "template_seeing": rng.uniform(0.6, 1.0),
        "ellipticity": rng.uniform(0.0, 0.06),
        "position_jitter": float(rng.choice([0.0, 0.01, 0.03])),
        "sky_level": float(np.exp(rng.uniform(np.log(400.0), np.log(2500.0)))),
        "template_epochs": rng.uniform(4.0, 20.0),
    }
    scene: dict[str, Any] = {
        "star_density": 22.0,
        "galaxy_density": 25.0,
        "star_magnitudes": (15.5, 22.8),
        "n_transients": 20,
        "transient_snr": (5.0, 80.0),
        "host_fraction": 0.6,
        "host_selection": "surface_brightness",
        "host_offset": (0.0, 2.0),
        "fading_fraction": 0.3,
        "n_variables": 8,
        "variable_amplitude": (0.02, 0.4),
        "n_moving": 3,
        "moving_rate": (100.0, 1500.0),
        "moving_snr": (7.0, 60.0),
    }
    plan: dict[str, Any] = {"subtractor": {}}
    match scenario:
        case "faint_changes":
            scene |= {"n_transients": 30, "transient_snr": (5.0, 12.0), "host_fraction": 0.8}
        case "registration":
            conditions["position_jitter"] = rng.uniform(0.04, 0.12)
            conditions["astrometric_jitter"] = AstrometricJitter(
                smooth=10.0, correlated=rng.uniform(5.0, 25.0)
            )
        case "refraction":
            conditions["chromatic_refraction"] = ChromaticRefraction(
                airmass=rng.uniform(1.2, 1.7), parallactic_angle=rng.uniform(0.0, 360.0), mas_per_mag=30.0
            )
        case "motion":
            conditions["template_age"] = 2.0
            scene |= {"n_proper_motion": 25, "proper_motion": (20.0, 500.0), "n_moving": 10}
        case "psf_width" if number % 3:
            method = "zogy"
            plan["width_error"] = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.01, 0.05))
        case "psf_width":
            scene |= {
                "n_perturbed": 30,
                "perturbation": "width",
                "width_change": float(rng.choice([-1.0, 1.0]) * rng.uniform(0.02, 0.07)),
                "perturbed_snr": (50.0, 600.0),
                "isolation": 24.0,
                "star_density": 15.0,
                "galaxy_density": 15.0,
            }
        case "psf_ellipticity":
            method = "zogy"
            angle, size = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.01, 0.04)
            plan["shear_error"] = (float(size * np.cos(angle)), float(size * np.sin(angle)))
        case "brighter_fatter":
            conditions["brighter_fatter"] = BrighterFatter(growth=rng.uniform(0.02, 0.06), in_template=False)
            scene["star_density"] = 30.0
        case "background":
            method = "al"
            angle, size = (
                rng.uniform(0.0, 2.0 * np.pi),
                rng.uniform(1.5, 3.0) * np.sqrt(conditions["sky_level"]),
            )
            conditions["sky_gradient"] = SkyGradient(x=size * np.cos(angle), y=size * np.sin(angle))
            plan["subtractor"] = {"backgroundOrder": 0}
        case "flux_scale":
            method = "al"
            conditions["calibration_gradient"] = CalibrationGradient(
                x=rng.uniform(0.1, 0.3), y=rng.uniform(-0.2, 0.2)
            )
            plan["subtractor"] = {"kernelSumOrder": 0, "kernelOrder": 0}
            conditions["fwhm_variation"] = conditions["ellipticity_variation"] = 0.0
        case "cosmic_rays":
            conditions["cosmic_rays"] = CosmicRays(
                per_megapixel=120.0, length=(1.0, 12.0), charge=(150.0, 3000.0), flagged_fraction=0.1
            )
        case "ghosts":
            conditions["ghosts"] = Ghosts(magnitude_limit=17.5, fraction=0.03, radius=6.0)
            conditions["crosstalk"] = Crosstalk(coefficient=rng.uniform(1e-3, 4e-3))
            scene |= {"star_density": 35.0, "star_magnitudes": (14.5, 24.0)}
        case "streaks":
            conditions["streaks"] = Streaks(number=1.0, surface_brightness=(22.5, 25.0), is_flagged=False)
        case "changes_on_dipoles" | "changes_on_widths":
            scene |= {
                "n_perturbed": 42,
                "perturbed_snr": (100.0, 300.0),
                "isolation": 24.0,
                "star_density": 12.0,
                "galaxy_density": 10.0,
                "n_transients": 4,
            }
            if scenario == "changes_on_dipoles":
                scene |= {"perturbation": "shift", "shift_amplitude": rng.uniform(0.12, 0.3)}
            else:
                width_change = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.04, 0.1))
                scene |= {"perturbation": "width", "width_change": width_change}
            conditions["position_jitter"] = 0.0
            plan["injected_snr"] = (5.0, 13.0)
        case "shift_8" | "shift_12" | "shift_15" | "width_15" | "half_change":
            star_snr = float(np.exp(rng.uniform(np.log(80.0), np.log(300.0))))
            wanted = rng.uniform(8.0, 12.0) if scenario == "half_change" else _WANTED[scenario]
            relative = wanted / (_DIFFERENCE_SNR * star_snr)
            scene |= {
                "n_perturbed": _N_PERTURBED,
                "perturbed_snr": (0.93 * star_snr, 1.07 * star_snr),
                "isolation": 24.0,
                "star_density": 12.0,
                "galaxy_density": 10.0,
                "n_transients": 4,
                # Isolated stars leave too few galaxies for a spread in surface brightness.
                "host_selection": "random",
                "n_variables": 2,
            }
            conditions["position_jitter"] = 0.0
            if scenario == "width_15":
                width_change = float(rng.choice([-1.0, 1.0]) * relative / np.sqrt(2.0))
                scene |= {"perturbation": "width", "width_change": width_change}
            else:
                sigma = _MATCHED_SIGMA * max(conditions["science_seeing"], conditions["template_seeing"])
                scene |= {"perturbation": "shift", "shift_amplitude": np.sqrt(2.0) * sigma * relative}
            if not scenario.endswith("_15"):
                plan["injected_snr"] = (7.1, 7.9)
                plan["injected_fraction"] = _MANY_CHANGING if scenario == "half_change" else _CHANGING
        case "hosts":
            scene |= {"host_fraction": 1.0, "transient_snr": (7.6, 8.9), "n_variables": 2}
        case "coadd":
            conditions["warped_coadd"] = WarpedCoadd(
                n_epochs=5, seeing_scatter=0.2, n_edges=3, n_rejected=8.0, n_holes=1.0
            )
    # Of the targets either method is detected on either image.
    on_score = (number // 2 if is_target else number) % 2 and scenario not in _HIDDEN
    return DetectorPlan(
        scenario=scenario,
        method=method,
        conditions=ObservingConditions(**conditions),
        scene=SceneConfig(**scene),
        threshold=4.3 if number % 3 == 0 else 5.0,
        detect_on="score" if on_score else "difference",
        **plan,
    )
