"""Detection of sources on score images, and their first measurements on the difference."""

from ._detect import DetectionSettings, detect_dia_sources
from ._dia_source import DIA_SOURCE_COLUMNS, OWN_COLUMNS, empty_dia_sources, without_sky_sources
from ._matched_filter import matched_filter_score
from ._noise_peaks import noise_peak_density
from ._peaks import find_peaks
from ._pixel_flags import PIXEL_FLAGS, measure_pixel_flags
from ._too_many_detections import TooManyDetectionsError

__all__ = [
    "DIA_SOURCE_COLUMNS",
    "OWN_COLUMNS",
    "PIXEL_FLAGS",
    "DetectionSettings",
    "TooManyDetectionsError",
    "detect_dia_sources",
    "empty_dia_sources",
    "find_peaks",
    "matched_filter_score",
    "measure_pixel_flags",
    "noise_peak_density",
    "without_sky_sources",
]
