"""What is known of the detector besides the stamps: what some diagnostics use and none must have."""

from __future__ import annotations

__all__ = ["DetectorContext"]

from dataclasses import dataclass

from astropy.table import Table
from lsst.images import Box


@dataclass(frozen=True)
class DetectorContext:
    """Optional inputs of diagnostics; each is None where it is not known.

    Parameters
    ----------
    bounds : `lsst.images.Box`, optional
        Region of the difference image.
    kernel_sources : `astropy.table.Table`, optional
        Candidates on which the images were matched, as `lsst.diainspect.subtraction.KernelSources.to_table` makes
        them: ``x``, ``y`` [pixel], ``scienceFlux`` [nJy], ``used``.
    stars : `astropy.table.Table`, optional
        Bright stars, with ``x``, ``y`` [pixel] and ``flux`` [nJy]; they may lie off the image.
    maps : `astropy.table.Table`, optional
        Maps of registration, widths, ellipticities, flux scale and noise over the detector.
    """

    bounds: Box | None = None
    kernel_sources: Table | None = None
    stars: Table | None = None
    maps: Table | None = None
