"""The PSF that an image brings, or a failure that says what is missing."""

from __future__ import annotations

__all__ = ["own_psf"]

from lsst.images import MaskedImage
from lsst.images.psfs import PointSpreadFunction
from lsst.images.serialization import ArchiveReadError

from ..subtraction import NoPsfError


def own_psf(image: MaskedImage, role: str) -> PointSpreadFunction:
    """Return the PSF of an image.

    Parameters
    ----------
    image : `lsst.images.MaskedImage`
        Image.
    role : `str`
        What to call it if it has none.

    Raises
    ------
    NoPsfError
        If there is none or it cannot be read.
    """
    try:
        psf = getattr(image, "psf", None)
    except ArchiveReadError as err:
        raise NoPsfError(f"The PSF of the {role} could not be read: {err}") from err
    if psf is None:
        raise NoPsfError(f"The {role} has no PSF.")
    return psf
