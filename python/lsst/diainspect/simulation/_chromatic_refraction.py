"""Differential chromatic refraction: the atmosphere lifts blue sources more than red ones towards the zenith."""

from __future__ import annotations

__all__ = ["ChromaticRefraction"]

from dataclasses import dataclass

import numpy as np

_MAS_PER_MAGNITUDE = {"u": 90.0, "g": 45.0, "r": 8.4, "i": 3.2, "z": 1.4, "y": 1.1}
"""Displacement by 1 mag in g - i at a zenith distance of 45 degrees [mas]: for g to y as measured for DECam by
Bernstein et al. (2017, PASP 129, 074503), whose filters are close to LSST's; for u twice that of g."""


@dataclass(frozen=True)
class ChromaticRefraction:
    """Refraction in the science image, relative to the template, which is taken to be free of it.

    A source moves by -c (colour - reference_colour) tan(z) along the direction to the zenith, which is at the
    parallactic angle q, east of north. On the simulated detectors, with north up and east left, this direction is
    (-sin q, cos q).

    Parameters
    ----------
    airmass : `float`
        sec(z).
    parallactic_angle : `float`
        Angle from north through east to the zenith [degree].
    reference_colour : `float`
        g - i of the stars that the astrometry is fitted to [mag].
    mas_per_mag : `float`, optional
        c [mas / mag]; that of the band when omitted.
    """

    airmass: float = 1.3
    parallactic_angle: float = 60.0
    reference_colour: float = 1.0
    mas_per_mag: float | None = None

    def __post_init__(self) -> None:
        if not self.airmass >= 1:
            raise ValueError(f"airmass must be at least 1, got {self.airmass}.")

    def displacements(
        self, colour: np.ndarray, band: str, pixel_scale: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the displacements of sources of given g - i [mag], in x and y [pixel].

        Raises
        ------
        ValueError
            If ``mas_per_mag`` is not given and the band has no known coefficient.
        """
        coefficient = self.mas_per_mag
        if coefficient is None:
            if band not in _MAS_PER_MAGNITUDE:
                raise ValueError(
                    f"No refraction coefficient is known for band {band!r}, only for "
                    f"{sorted(_MAS_PER_MAGNITUDE)}: set mas_per_mag."
                )
            coefficient = _MAS_PER_MAGNITUDE[band]
        tangent = np.sqrt(self.airmass**2 - 1.0)
        to_zenith = -coefficient * tangent * (colour - self.reference_colour) * 1e-3 / pixel_scale
        angle = np.deg2rad(self.parallactic_angle)
        return -np.sin(angle) * to_zenith, np.cos(angle) * to_zenith
