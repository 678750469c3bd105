"""Where a source lies: what is known to spoil a difference there."""

from __future__ import annotations

__all__ = ["PLACES"]

import numpy as np

from ._evidence import Evidence
from ._rule import Rule, falling, greatest, rising

_REACH = 25.0
"""Distance from the edge within which a stamp of the PSF and its filter loses pixels [pixel]."""


def _core(evidence: Evidence, *planes: str) -> np.ndarray:
    """Return the greatest fraction of the core that any of some mask planes covers; NaN where none is known."""
    values = np.stack([evidence.column(f"maskFractions_{plane}_core") for plane in planes])
    known = np.isfinite(values).any(axis=0)
    return np.where(known, np.nan_to_num(values).max(axis=0), np.nan)


def _stamp(evidence: Evidence, *planes: str) -> np.ndarray:
    values = np.stack([evidence.column(f"maskFractions_{plane}_stamp") for plane in planes])
    known = np.isfinite(values).any(axis=0)
    return np.where(known, np.nan_to_num(values).max(axis=0), np.nan)


def _flag(evidence: Evidence, name: str) -> np.ndarray:
    return np.nan_to_num(evidence.column(name))


def _edge(evidence: Evidence) -> np.ndarray:
    return greatest(
        falling(evidence.column("context_edgeDistance"), 6.0, _REACH),
        rising(_core(evidence, "OFF_IMAGE", "DETECTION_EDGE"), 0.0, 0.05),
        _flag(evidence, "pixelFlags_edge") * (1.0 - _flag(evidence, "pixelFlags_nodata")),
    )


def _bright_star_wing(evidence: Evidence) -> np.ndarray:
    near = falling(evidence.column("context_brightStarDistance"), 10.0, 60.0)
    saturated_near = rising(_stamp(evidence, "SATURATED", "SAT_TEMPLATE"), 0.0, 0.01)
    # The star itself is not in its own wing.
    distance = evidence.column("context_brightStarDistance")
    return greatest(near * rising(distance, 3.0, 6.0), saturated_near * (1.0 - _saturated(evidence)))


def _saturated(evidence: Evidence) -> np.ndarray:
    return greatest(
        rising(_core(evidence, "SATURATED", "SAT_TEMPLATE"), 0.0, 0.05),
        _flag(evidence, "pixelFlags_saturatedCenter"),
    )


def _masked(evidence: Evidence) -> np.ndarray:
    return greatest(
        rising(
            _core(evidence, "BAD", "COSMIC_RAY", "NO_DATA", "INTERPOLATED", "STREAK", "FILTER_SPREAD"),
            0.0,
            0.1,
        ),
        rising(evidence.column("aperturePhotometry_apBadFraction"), 0.02, 0.1),
        _flag(evidence, "pixelFlags_bad"),
    )


def _coadd_edge(evidence: Evidence) -> np.ndarray:
    return greatest(
        rising(_stamp(evidence, "SENSOR_EDGE", "INEXACT_PSF"), 0.0, 0.02),
        rising(_core(evidence, "REJECTED", "CLIPPED", "HIGH_VARIANCE"), 0.0, 0.1),
    )


def _kernel_extrapolated(evidence: Evidence) -> np.ndarray:
    return rising(evidence.column("context_kernelSourceDistance"), 300.0, 600.0)


PLACES: dict[str, Rule] = {
    "edge": Rule(
        (
            "context_edgeDistance",
            "maskFractions_OFF_IMAGE_core",
            "maskFractions_DETECTION_EDGE_core",
            "pixelFlags_edge",
        ),
        "Near the edge of the image: from 0 at 25 pixels (half a PSF stamp and its filter) to 1 at 6 (the core's "
        "wings are cut), or 5 % of the core off the image.",
        _edge,
    ),
    "brightStarWing": Rule(
        (
            "context_brightStarDistance",
            "maskFractions_SATURATED_stamp",
            "maskFractions_SAT_TEMPLATE_stamp",
        ),
        "In the wing of a bright star: from 0 at 60 pixels to 1 at 10, where a star of magnitude 18 is above the "
        "noise; or saturated pixels in 1 % of the stamp but not in the core.",
        _bright_star_wing,
    ),
    "saturated": Rule(
        (
            "maskFractions_SATURATED_core",
            "maskFractions_SAT_TEMPLATE_core",
            "pixelFlags_saturatedCenter",
        ),
        "On saturated pixels of either image: 1 from 5 % of the core, which are two or three pixels.",
        _saturated,
    ),
    "masked": Rule(
        (
            *(
                f"maskFractions_{plane}_core"
                for plane in ("BAD", "COSMIC_RAY", "NO_DATA", "INTERPOLATED", "STREAK", "FILTER_SPREAD")
            ),
            "aperturePhotometry_apBadFraction",
            "pixelFlags_bad",
        ),
        "On pixels that were masked or filled: 1 from 10 % of the core or of the PSF's light, from which the noise "
        "model and the shape are off.",
        _masked,
    ),
    "coaddEdge": Rule(
        (
            *(f"maskFractions_{plane}_stamp" for plane in ("SENSOR_EDGE", "INEXACT_PSF")),
            *(f"maskFractions_{plane}_core" for plane in ("REJECTED", "CLIPPED", "HIGH_VARIANCE")),
        ),
        "Where the template's inputs change, and with them its PSF and depth: 1 from 2 % of the stamp (a line of "
        "pixels through it), or 10 % of the core where inputs were rejected. Needs these planes among those of "
        "maskFractions; without them the score is 0.",
        _coadd_edge,
    ),
    "kernelExtrapolated": Rule(
        ("context_kernelSourceDistance",),
        "Far from the sources on which the images were matched: from 0 at 300 pixels to 1 at 600, a tenth and a "
        "fifth of a detector of 4000 pixels, over which a kernel of second order changes by its own errors.",
        _kernel_extrapolated,
    ),
}
"""Rules of the places, by name; none of them, ``clean``, is the best place where no score reaches one half."""
