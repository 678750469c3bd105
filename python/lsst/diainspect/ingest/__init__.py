"""Images from elsewhere into a butler repository: science and template FITS files on one pixel grid."""

from ._fits_file import IngestError
from ._fits_pair import FitsImageSource, FitsPair, ingest_pair, read_fits_pair
from ._fits_psf import read_psf
from ._pixel_unit import PixelUnit

__all__ = [
    "FitsImageSource",
    "FitsPair",
    "IngestError",
    "PixelUnit",
    "ingest_pair",
    "read_fits_pair",
    "read_psf",
]
