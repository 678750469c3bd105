"""Detector maps: registration, PSF errors, flux scale and noise over a detector, as smooth fits to its static stars."""

from ._detector_maps import DetectorMaps, map_unit
from ._parallactic_angle import parallactic_angle
from ._smooth_map import SmoothMap, fit_smooth_map
from ._star_maps import QUANTITIES, fit_detector_maps, kernel_maps
from ._static_stars import static_stars

__all__ = [
    "QUANTITIES",
    "DetectorMaps",
    "SmoothMap",
    "fit_detector_maps",
    "fit_smooth_map",
    "kernel_maps",
    "map_unit",
    "parallactic_angle",
    "static_stars",
]
