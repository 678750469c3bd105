"""Reads one two-dimensional image from a FITS file, compressed or not, and says clearly why it cannot."""

from __future__ import annotations

__all__ = ["FitsPlane", "IngestError", "read_plane"]

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

_BRACKETS = re.compile(r"^(?P<path>.+)\[(?P<extension>[^\[\]]+)\]$")


class IngestError(ValueError):
    """An input file that cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class FitsPlane:
    """One image of a FITS file.

    Parameters
    ----------
    name : `str`
        File, with the extension in brackets where one was asked for; for messages.
    array : `numpy.ndarray`, (height, width), float64
        Pixels.
    header : `astropy.io.fits.Header`
        Header of the extension, with the primary header's cards where it has none of its own.
    """

    name: str
    array: np.ndarray
    header: fits.Header


def read_plane(source: str | os.PathLike[str]) -> FitsPlane:
    """Read a two-dimensional image.

    Parameters
    ----------
    source : `str` or path-like
        File; ``file.fits[SCI]`` or ``file.fits[1]`` choose an extension by name or number. Without that it is
        the first one that holds a two-dimensional image.

    Raises
    ------
    IngestError
        If the file does not exist, is not FITS, or has no such image.
    """
    name = os.fspath(source)
    path, extension = Path(name), None
    match = _BRACKETS.match(name)
    # A file whose own name ends in brackets is taken as it is.
    if match and not path.exists():
        path, extension = Path(match["path"]), match["extension"]
    if not path.is_file():
        raise IngestError(f"{path}: no such file.")
    try:
        with fits.open(path, memmap=False) as hdus:
            hdu = _choose(hdus, extension, name)
            array = np.array(hdu.data, dtype=np.float64)
            header = hdus[0].header.copy()
            header.update(hdu.header)
    except IngestError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise IngestError(f"{name}: cannot be read as FITS ({error}).") from error
    return FitsPlane(name, array, header)


def _choose(hdus: fits.HDUList, extension: str | None, name: str) -> fits.PrimaryHDU | fits.ImageHDU:
    if extension is not None:
        key = int(extension) if extension.isdigit() else extension
        try:
            hdu = hdus[key]
        except (KeyError, IndexError):
            names = [f"{index} {entry.name}".strip() for index, entry in enumerate(hdus)]
            raise IngestError(f"{name}: no extension {extension}; the file has {names}.") from None
        if not _is_image(hdu):
            raise IngestError(f"{name}: extension {extension} is not a two-dimensional image.")
        return hdu
    for hdu in hdus:
        if _is_image(hdu):
            return hdu
    raise IngestError(f"{name}: has no two-dimensional image.")


def _is_image(hdu: fits.PrimaryHDU | fits.ImageHDU) -> bool:
    return bool(hdu.is_image and hdu.header.get("NAXIS") == 2 and hdu.data is not None)
