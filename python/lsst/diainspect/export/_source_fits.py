"""One FITS file a source: every plane an extension with its coordinates on the sky."""

from __future__ import annotations

__all__ = ["iterate_source_fits"]

from collections.abc import Iterator

import numpy as np
from astropy.io import fits

from ..plots import DetectorLabel
from ..stamps import StampSet, stamp_wcs
from ._fits_parts import image_hdu, origin_header, source_table_hdu

_CHUNK = 256
"""Sources whose PSFs are made at a time, which bounds memory."""


def iterate_source_fits(
    stamps: StampSet, label: DetectorLabel, method: str
) -> Iterator[tuple[int, fits.HDUList]]:
    """Make the FITS files of sources one after another.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of one detector.
    label : `lsst.diainspect.plots.DetectorLabel`
        Instrument, visit, detector and band.
    method : `str`
        Subtraction method.

    Yields
    ------
    identifier : `int`
        diaSourceId.
    file : `astropy.io.fits.HDUList`
        Primary header with the source's identity and place, an image extension for each plane and PSF, named like
        them in capitals, and the table SOURCE with all columns. The planes have the WCS and their unit; MASK has the
        bit of each mask plane as ``MP_name``.
    """
    for start in range(0, len(stamps), _CHUNK):
        chunk = stamps[start : start + _CHUNK]
        models = {name: model.images() for name, model in chunk.models.items()}
        for row in range(len(chunk)):
            yield int(chunk.sources["diaSourceId"][row]), _file(chunk, row, models, label, method)


def _file(
    stamps: StampSet, row: int, models: dict[str, np.ndarray], label: DetectorLabel, method: str
) -> fits.HDUList:
    source = stamps.sources[row]
    primary = fits.PrimaryHDU(header=origin_header(label, method))
    primary.header["DIASRCID"] = (int(source["diaSourceId"]), "diaSourceId")
    for key, name, comment in (
        ("X", "x", "[pixel] in the image, from 0"),
        ("Y", "y", "[pixel] in the image, from 0"),
        ("RA", "ra", "[deg] ICRS"),
        ("DEC", "dec", "[deg] ICRS"),
    ):
        if name in source.colnames and np.isfinite(float(source[name])):
            primary.header[key] = (float(source[name]), comment)
    primary.header["X0"] = (int(source["x0"]), "x in the image of the first pixel")
    primary.header["Y0"] = (int(source["y0"]), "y in the image of the first pixel")
    if "stamp_flag_edge" in source.colnames:
        primary.header["EDGE"] = (bool(source["stamp_flag_edge"]), "reaches beyond an image (NaN there)")
    wcs = stamp_wcs(source, of_stamp=True)
    header = fits.Header() if wcs is None else wcs.to_header()
    parts: list[fits.hdu.base._BaseHDU] = [primary]
    parts += [image_hdu(plane[row], name, header) for name, plane in stamps.planes.items()]
    parts += [image_hdu(images[row].astype(np.float32), name) for name, images in models.items()]
    parts.append(source_table_hdu(stamps.sources[row : row + 1], "SOURCE"))
    return fits.HDUList(parts)
