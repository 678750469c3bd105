"""Instruments that need no camera package, their detectors, and their records in a repository."""

from ._camera import CameraLayout, DetectorLayout, make_detector, make_tangent_projection, mosaic, single_detector
from ._dia_fits import DiaFits
from ._dia_sim import DiaSim
from ._dimension_records import ExposureRecord, insert_exposure_records, pixel_region

__all__ = [
    "CameraLayout",
    "DetectorLayout",
    "DiaFits",
    "DiaSim",
    "ExposureRecord",
    "insert_exposure_records",
    "make_detector",
    "make_tangent_projection",
    "mosaic",
    "pixel_region",
    "single_detector",
]
