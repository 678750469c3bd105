"""What is expected of the artefacts at a place: the priors on the residual modes' amplitudes.

The expected amplitude of a mode is the local static flux times what the detector's map says: its value, and the
scatter of single stars about it. Without a static source nothing is expected.
"""

from __future__ import annotations

__all__ = ["PRIOR_MODES", "ArtefactPriors", "priors_from_maps"]

from dataclasses import dataclass

import numpy as np

from ..maps import DetectorMaps

PRIOR_MODES = ("shiftX", "shiftY", "width", "e1", "e2", "scale")
"""Artefacts with priors: the modes, and an error of the flux scale."""

_QUANTITIES = ("residualShiftX", "residualShiftY", "width", "e1", "e2", "fluxScale")
"""Quantities of the detector's maps for them."""


@dataclass(frozen=True)
class ArtefactPriors:
    """Gaussian priors on relative amplitudes, (N, 6) in the order of `PRIOR_MODES`.

    Parameters
    ----------
    mean, sigma : `numpy.ndarray`, (N, 6)
        Means and standard deviations [pixel for the shifts, otherwise relative].
    from_maps : `bool`
        Whether they are all from maps of the detector.
    """

    mean: np.ndarray
    sigma: np.ndarray
    from_maps: bool


def priors_from_maps(
    maps: DetectorMaps | None, x: np.ndarray, y: np.ndarray, default: np.ndarray
) -> ArtefactPriors:
    """Return the priors at positions.

    Parameters
    ----------
    maps : `lsst.diainspect.maps.DetectorMaps` or `None`
        Maps of the detector.
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].
    default : `numpy.ndarray`, (6,)
        Standard deviations to take where there is no map, about zero.
    """
    n = len(x)
    mean = np.zeros((n, len(PRIOR_MODES)))
    sigma = np.broadcast_to(default, (n, len(PRIOR_MODES))).copy()
    there = [maps is not None and name in maps for name in _QUANTITIES]
    if maps is not None:
        for j, name in enumerate(_QUANTITIES):
            if there[j]:
                mean[:, j] = maps[name].evaluate(x, y)
                sigma[:, j] = maps[name].scatter(x, y)
    return ArtefactPriors(mean, sigma, all(there))
