"""What the template is a coadd of: exposures each with its own PSF, pointing, rotation, edges and defects."""

from __future__ import annotations

__all__ = ["WarpedCoadd"]

from dataclasses import dataclass


@dataclass(frozen=True)
class WarpedCoadd:
    """A template made like a survey's: exposures on their own pixels, resampled with Lanczos-3, and averaged.

    Resampling correlates the noise. Where an exposure ends, depth and PSF change in a step.

    Parameters
    ----------
    n_epochs : `int`
        Exposures, each with the noise of the science image.
    seeing_scatter : `float`
        Root mean square of the logarithm of their seeing around the conditions' ``template_seeing``.
    dither : `float`
        Their pointings differ by up to this, in each coordinate [arcsec].
    rotation : `float`
        Their position angles differ from the science image's by up to this [degree].
    registration : `float`
        Root mean square, in each coordinate, of the error of their registration [mas].
    n_edges : `int`
        Exposures whose sensor ends within the template, at a random place.
    edge_width : `float`
        Distance from such an end within which pixels are flagged SENSOR_EDGE and INEXACT_PSF [pixel]. The PSF
        model, smooth over the image, is off further away too.
    n_rejected : `float`
        Mean number of round areas left out of each exposure, as for satellites and cosmic rays; flagged REJECTED,
        CLIPPED and INEXACT_PSF.
    rejected_radius : `tuple` [`float`, `float`]
        Range of their radius [pixel].
    n_holes : `float`
        Mean number of round areas that no exposure has; flagged NO_DATA, pixels NaN.
    hole_radius : `float`
        Their radius [pixel].
    high_variance_below : `float`
        Pixels made of less than this part of the exposures are flagged HIGH_VARIANCE.
    """

    n_epochs: int = 6
    seeing_scatter: float = 0.1
    dither: float = 10.0
    rotation: float = 2.0
    registration: float = 0.0
    n_edges: int = 2
    edge_width: float = 5.0
    n_rejected: float = 4.0
    rejected_radius: tuple[float, float] = (3.0, 15.0)
    n_holes: float = 0.0
    hole_radius: float = 15.0
    high_variance_below: float = 0.7

    def __post_init__(self) -> None:
        if self.n_epochs < 1:
            raise ValueError(f"n_epochs must be at least 1, got {self.n_epochs}.")
        if not 0 <= self.n_edges <= self.n_epochs:
            raise ValueError(f"n_edges must be between 0 and n_epochs {self.n_epochs}, got {self.n_edges}.")
        for name in ("seeing_scatter", "dither", "registration", "edge_width", "n_rejected", "n_holes"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.rotation <= 45:
            raise ValueError(f"rotation must be between 0 and 45 degrees, got {self.rotation}.")
        low, high = self.rejected_radius
        if not 0 < low <= high:
            raise ValueError(f"rejected_radius must be a positive range (low, high), got {(low, high)}.")
        if not self.hole_radius > 0:
            raise ValueError(f"hole_radius must be positive, got {self.hole_radius}.")
        if not 0 <= self.high_variance_below <= 1:
            raise ValueError(f"high_variance_below must be between 0 and 1, got {self.high_variance_below}.")
