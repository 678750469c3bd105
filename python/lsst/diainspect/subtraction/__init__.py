"""Image subtraction: Alard & Lupton and ZOGY behind one interface, and the registry for others."""

from ._adopt import adopt_difference
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
from ._kernel_sources import KernelSources, select_kernel_sources
from ._matched_subtraction import choose_direction, subtract_matched
from ._output_images import (
    kernel_to_lsst,
    make_difference_image,
    make_matched_template,
    make_score_image,
    result_filters,
)
from ._regenerate import CALIBRATION, RegeneratedStamps, measure_regeneration, regenerate_difference
from ._registration import Registration, measure_registration
from ._subtract_stamps import subtract_stamps
from ._subtraction import SubtractionResult, Subtractor, SubtractorConfig, subtractor_registry
from ._varying_convolution import convolve_varying
from ._zogy import ZogyConfig, ZogySubtractor, proper_filters

__all__ = [
    "CALIBRATION",
    "AlConfig",
    "AlSubtractor",
    "AllPixelsMaskedError",
    "ImagePair",
    "KernelSources",
    "NoOverlapError",
    "NoPsfError",
    "RegeneratedStamps",
    "Registration",
    "SubtractionError",
    "SubtractionResult",
    "Subtractor",
    "SubtractorConfig",
    "TooFewKernelSourcesError",
    "UnitMismatchError",
    "ZogyConfig",
    "ZogySubtractor",
    "adopt_difference",
    "choose_direction",
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
    "measure_registration",
    "proper_filters",
    "regenerate_difference",
    "result_filters",
    "select_kernel_sources",
    "subtract_matched",
    "subtract_stamps",
    "subtractor_registry",
]
