"""The brighter-fatter effect: charge in the wells pushes later charge away, so bright stars are wider."""

from __future__ import annotations

__all__ = ["BrighterFatter"]

from dataclasses import dataclass

import numpy as np

_REFERENCE_PEAK = 1.0e5
"""Peak at which the growth is given [electron]."""


@dataclass(frozen=True)
class BrighterFatter:
    """Widening of the images of point sources in proportion to their peak.

    Parameters
    ----------
    growth : `float`
        Relative widening of a star whose brightest pixel has 1e5 electrons.
    in_template : `bool`
        The exposures that the template is made of have it too.
    """

    growth: float = 0.02
    in_template: bool = True

    def __post_init__(self) -> None:
        if not self.growth > -0.5:
            raise ValueError(f"growth must be above -0.5, got {self.growth}.")

    def widening(self, peak: np.ndarray, saturation: float) -> np.ndarray:
        """Return the relative widening for the brightest pixels of unwidened stars [electron]."""
        return self.growth * np.minimum(peak, saturation) / _REFERENCE_PEAK
