"""One FITS file a detector: every plane an extension with the stamps of all sources."""

from __future__ import annotations

__all__ = ["write_detector_fits"]

from pathlib import Path

import numpy as np
from astropy.io import fits

from ..plots import DetectorLabel
from ..stamps import StampSet
from ._fits_parts import image_hdu, origin_header, source_table_hdu


def write_detector_fits(stamps: StampSet, path: Path, label: DetectorLabel, method: str) -> None:
    """Write all stamps of a detector to one multi-extension FITS file.

    Each plane is an image of three axes, one layer a source, in the order of the rows of the table SOURCES. That has
    ``ra``, ``dec``, ``x``, ``y``, ``x0``, ``y0`` and ``pixelToSky``, the terms of each stamp's WCS.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of one detector.
    path : `pathlib.Path`
        File to write; an existing one is replaced.
    label : `lsst.diainspect.plots.DetectorLabel`
        Instrument, visit, detector and band.
    method : `str`
        Subtraction method.
    """
    primary = fits.PrimaryHDU(header=origin_header(label, method))
    primary.header["NSTAMPS"] = (len(stamps), "Number of stamps")
    parts: list[fits.hdu.base._BaseHDU] = [primary, source_table_hdu(stamps.sources, "SOURCES")]
    if len(stamps):
        parts += [image_hdu(plane, name) for name, plane in stamps.planes.items()]
        parts += [image_hdu(model.images().astype(np.float32), name) for name, model in stamps.models.items()]
    fits.HDUList(parts).writeto(path, overwrite=True)
