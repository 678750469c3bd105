"""What a method hands over to the measurements."""

from __future__ import annotations

__all__ = ["MethodOutput"]

from dataclasses import dataclass, field

import numpy as np

from lsst.diainspect.psf import PixelBasisPsf


@dataclass(frozen=True)
class MethodOutput:
    """A difference and its score.

    Parameters
    ----------
    score : `numpy.ndarray`, (height, width)
        Detection statistic; nominally in units of its own sigma. NaN where the method has none.
    difference : `numpy.ndarray` or `None`
        Difference [nJy, flux scale of the science image].
    variance : `numpy.ndarray` or `None`
        Its variance; None where the method does not say.
    psf : `PixelBasisPsf` or `None`
        PSF of the difference, of unit sum; None where the method does not say.
    metadata : `dict`
        What the method says about itself.
    """

    score: np.ndarray
    difference: np.ndarray | None
    variance: np.ndarray | None
    psf: PixelBasisPsf | None
    metadata: dict[str, int | float | str] = field(default_factory=dict)
