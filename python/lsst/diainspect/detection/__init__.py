"""Detection of sources on score images, and their first measurements on the difference."""

from ._detect import DetectionSettings, TooManyDetectionsError, detect_dia_sources
from ._dia_source import DIA_SOURCE_COLUMNS, empty_dia_sources
from ._peaks import find_peaks
from ._pixel_flags import PIXEL_FLAGS, measure_pixel_flags

__all__ = [
    "DIA_SOURCE_COLUMNS",
    "PIXEL_FLAGS",
    "DetectionSettings",
    "TooManyDetectionsError",
    "detect_dia_sources",
    "empty_dia_sources",
    "find_peaks",
    "measure_pixel_flags",
]
