"""Reads the FITS file that a cutout is, with bounds on everything that a broken or hostile one could claim.

The images are taken from the file here, not by `astropy.io.fits.open`, which does not come back from a header with a
negative size.
"""

from __future__ import annotations

__all__ = ["FitsCutout", "read_cutout"]

import math
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits

from ._alert import AlertError

_MAX_SIDE = 2048
"""Largest side of a cutout or PSF [pixel]; those of surveys have some tens to hundreds."""

_MAX_BYTES = 64 * 2**20
"""Largest cutout file, unpacked."""

_MAX_PARTS = 32
_MAX_AXES = 8
_MAX_HEADER_BLOCKS = 100
"""Parts of a file, axes of a part, and blocks of a header; real cutouts have 3, 2 and 1."""

_BLOCK = 2880
_CARD = 80

_TYPES: dict[Any, np.dtype[Any]] = {
    8: np.dtype("u1"),
    16: np.dtype(">i2"),
    32: np.dtype(">i4"),
    64: np.dtype(">i8"),
    -32: np.dtype(">f4"),
    -64: np.dtype(">f8"),
}

_PLACEHOLDER = 1e30
"""Values beyond this stand for no value: ZTF's templates have the largest float where there is no image."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class FitsCutout:
    """What a cutout file holds.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (height, width), float32
        First image.
    unit : `astropy.units.UnitBase` or `None`
        Its BUNIT.
    header : `astropy.io.fits.Header`
        Its header.
    variance : `numpy.ndarray` or `None`
        UNCERT as a variance, in the square of the unit.
    psf : `numpy.ndarray` or `None`
        PSFIMAGE.
    """

    pixels: np.ndarray
    unit: u.UnitBase | None
    header: fits.Header
    variance: np.ndarray | None
    psf: np.ndarray | None


def read_cutout(content: Any, name: str) -> FitsCutout:
    """Read a cutout.

    Parameters
    ----------
    content : `bytes`
        FITS file, maybe gzipped.
    name : `str`
        What it is called, for messages.

    Raises
    ------
    AlertError
        If it is not a FITS file with a two-dimensional image, or its extensions do not fit.
    """
    if content is None:
        raise AlertError(f"{name} is missing")
    if not isinstance(content, bytes):
        raise AlertError(f"{name} is a {type(content).__name__}, not a file")
    if content.startswith(_GZIP_MAGIC):
        content = _unpack(content, name)
    if not content.startswith(b"SIMPLE"):
        raise AlertError(f"{name} is not a FITS file (it begins with {content[:8]!r})")
    try:
        images = _read_images(content, name)
    except AlertError:
        raise
    except Exception as error:
        # astropy raises many kinds of errors on broken headers.
        raise AlertError(f"{name} cannot be read as FITS ({type(error).__name__}: {error})") from error
    _, header, pixels = images[0]
    if pixels is None:
        raise AlertError(f"{name} has no image of two dimensions")
    by_name = {key: (own, array) for key, own, array in reversed(images[1:])}
    variance = _variance(by_name, pixels.shape, name)
    psf = _psf(by_name, name)
    if not np.isfinite(pixels).any():
        raise AlertError(f"{name} has no pixel that is finite")
    unit = u.Unit(str(header["BUNIT"]), parse_strict="silent") if header.get("BUNIT") else None
    return FitsCutout(pixels, unit, header, variance, psf)


def _unpack(content: bytes, name: str) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        unpacked = unpacker.decompress(content, _MAX_BYTES)
    except zlib.error as error:
        raise AlertError(f"{name} cannot be unpacked ({error})") from error
    if unpacker.unconsumed_tail:
        raise AlertError(f"{name} is more than {_MAX_BYTES} bytes when unpacked")
    if not unpacker.eof:
        raise AlertError(f"{name} cannot be unpacked (it is cut off)")
    return unpacked


def _read_images(content: bytes, name: str) -> list[tuple[str, fits.Header, np.ndarray | None]]:
    """Return name, header and pixels of every part of the file; None for what is not a two-dimensional image."""
    images: list[tuple[str, fits.Header, np.ndarray | None]] = []
    start = 0
    while start < len(content) and len(images) < _MAX_PARTS:
        header, start = _read_header(content, start, name)
        dtype = _TYPES.get(header.get("BITPIX"))
        n_axes = header.get("NAXIS")
        if dtype is None or not isinstance(n_axes, int) or not 0 <= n_axes <= _MAX_AXES:
            raise AlertError(f"{name} has a part with BITPIX {header.get('BITPIX')} and NAXIS {n_axes}")
        shape = [header.get(f"NAXIS{axis}") for axis in range(n_axes, 0, -1)]
        heap = header.get("PCOUNT", 0)
        if not all(isinstance(n, int) and 0 <= n <= _MAX_BYTES for n in [*shape, heap]):
            raise AlertError(f"{name} has a part of size {shape[::-1]}")
        n_bytes = (math.prod(shape) if shape else 0) * dtype.itemsize + heap
        if n_bytes > len(content) - start:
            raise AlertError(
                f"{name} is cut off: a part of size {shape[::-1]} has {len(content) - start} bytes"
            )
        pixels = None
        if n_axes == 2 and header.get("XTENSION", "IMAGE").strip() == "IMAGE":
            if not all(1 <= n <= _MAX_SIDE for n in shape):
                raise AlertError(f"{name} has an image of size {shape[::-1]}")
            raw = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)
            pixels = _physical(raw, header)
        images.append((str(header.get("EXTNAME", "")).strip(), header, pixels))
        start += -(-n_bytes // _BLOCK) * _BLOCK
    return images


def _read_header(content: bytes, start: int, name: str) -> tuple[fits.Header, int]:
    """Read the cards from a position to END; return them and where the data begin."""
    for n_blocks in range(1, _MAX_HEADER_BLOCKS + 1):
        stop = start + n_blocks * _BLOCK
        block = content[stop - _BLOCK : stop]
        cards = [block[at : at + _CARD] for at in range(0, _BLOCK, _CARD)]
        if any(card.rstrip() == b"END" for card in cards):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return fits.Header.fromstring(content[start:stop].decode("ascii")), stop
        if len(block) < _BLOCK:
            break
    raise AlertError(f"{name} has a header without end")


def _physical(raw: np.ndarray, header: fits.Header) -> np.ndarray:
    """Return the values that stored numbers stand for."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float32)
        scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
        if (scale, zero) != (1.0, 0.0):
            values = values * np.float32(scale) + np.float32(zero)
        if raw.dtype.kind in "iu" and "BLANK" in header:
            values[raw == header["BLANK"]] = np.nan
        values[np.abs(values) > _PLACEHOLDER] = np.nan
    return values


def _variance(
    images: Mapping[str, tuple[fits.Header, np.ndarray | None]], shape: tuple[int, ...], name: str
) -> np.ndarray | None:
    if "UNCERT" not in images:
        return None
    header, values = images["UNCERT"]
    if values is None or values.shape != shape:
        raise AlertError(f"{name} has UNCERT of another shape than its pixels")
    kind = header.get("UTYPE", "VarianceUncertainty")
    with np.errstate(all="ignore"):
        match kind:
            case "VarianceUncertainty":
                return values
            case "StdDevUncertainty":
                return values**2
            case "InverseVariance":
                return 1.0 / values
    raise AlertError(f"{name} has UNCERT of the unknown type {kind!r}")


def _psf(images: Mapping[str, tuple[fits.Header, np.ndarray | None]], name: str) -> np.ndarray | None:
    if "PSFIMAGE" not in images:
        return None
    _, psf = images["PSFIMAGE"]
    if psf is None:
        raise AlertError(f"{name} has PSFIMAGE that is not an image")
    if not np.isfinite(psf).all():
        raise AlertError(f"{name} has PSFIMAGE with pixels that are not finite")
    if not math.isfinite(total := float(psf.sum(dtype=float))) or total <= 0:
        raise AlertError(f"{name} has PSFIMAGE with the sum {total}")
    return psf
