"""Image subtraction: Alard & Lupton and ZOGY behind one interface, and the registry for others."""

from ._al import AlConfig, AlSubtractor
from ._decorrelation import decorrelation_transfer
from ._errors import (
    AllPixelsMaskedError,
    NoOverlapError,
    NoPsfError,
    SubtractionError,
    TooFewKernelSourcesError,
    UnitMismatchError,
)
from ._filter_table import filters_from_table, filters_to_table
from ._image_pair import ImagePair, fill_bad_pixels
from ._output_images import (
    kernel_to_lsst,
    make_difference_image,
    make_matched_template,
    make_score_image,
    result_filters,
)
from ._regenerate import CALIBRATION, RegeneratedStamps, measure_regeneration, regenerate_difference
from ._subtraction import SubtractionResult, Subtractor, SubtractorConfig, subtractor_registry
from ._varying_convolution import convolve_varying
from ._zogy import ZogyConfig, ZogySubtractor, proper_filters

__all__ = [
    "CALIBRATION",
    "AlConfig",
    "AlSubtractor",
    "AllPixelsMaskedError",
    "ImagePair",
    "NoOverlapError",
    "NoPsfError",
    "RegeneratedStamps",
    "SubtractionError",
    "SubtractionResult",
    "Subtractor",
    "SubtractorConfig",
    "TooFewKernelSourcesError",
    "UnitMismatchError",
    "ZogyConfig",
    "ZogySubtractor",
    "convolve_varying",
    "decorrelation_transfer",
    "fill_bad_pixels",
    "filters_from_table",
    "filters_to_table",
    "kernel_to_lsst",
    "make_difference_image",
    "make_matched_template",
    "make_score_image",
    "measure_regeneration",
    "proper_filters",
    "regenerate_difference",
    "result_filters",
    "subtractor_registry",
]
