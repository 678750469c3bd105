"""Images from elsewhere into a butler repository: pairs of FITS files, and visits as each other's template."""

from ._estimated_noise import NoiseSettings
from ._fits_file import IngestError
from ._fits_image import FitsImageSource
from ._fits_pair import FitsPair, ingest_pair, read_fits_pair
from ._fits_psf import read_psf
from ._other_visit import ingest_visit_as_template, template_from_visit
from ._pair_settings import PairSettings
from ._pair_table import PairOutcome, ingest_pairs, read_pair_table
from ._pixel_unit import PixelUnit

__all__ = [
    "FitsImageSource",
    "FitsPair",
    "IngestError",
    "NoiseSettings",
    "PairOutcome",
    "PairSettings",
    "PixelUnit",
    "ingest_pair",
    "ingest_pairs",
    "ingest_visit_as_template",
    "read_fits_pair",
    "read_pair_table",
    "read_psf",
    "template_from_visit",
]
