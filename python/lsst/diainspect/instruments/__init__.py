"""Instruments that need no camera package, their detectors, and their records in a repository."""

from ._camera import (
    CameraLayout,
    DetectorLayout,
    make_detector,
    make_tangent_projection,
    mosaic,
    single_detector,
)
from ._dia_alerts import DiaAlerts
from ._dia_fits import DiaFits
from ._dia_sim import DiaSim
from ._dimension_records import ExposureRecord, insert_exposure_records, make_observation_info, pixel_region
from ._numbering import DETECTOR_LIMIT, VISIT_LIMIT, check_numbers

__all__ = [
    "DETECTOR_LIMIT",
    "VISIT_LIMIT",
    "CameraLayout",
    "DetectorLayout",
    "DiaAlerts",
    "DiaFits",
    "DiaSim",
    "ExposureRecord",
    "check_numbers",
    "insert_exposure_records",
    "make_detector",
    "make_observation_info",
    "make_tangent_projection",
    "mosaic",
    "pixel_region",
    "single_detector",
]
