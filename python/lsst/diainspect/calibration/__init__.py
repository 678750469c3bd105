"""Calibration without truth: do the errors of a difference image mean what they say, and are its detections real?"""

from ._calibrate import calibrate
from ._places import draw_positions
from ._pulls import PullSigma, pull_sigma
from ._star_floor import StarFloor, star_floor
from ._statistic import Statistic, statistics_to_table
from ._symmetry import SymmetryPurity, symmetry_purity

__all__ = [
    "PullSigma",
    "StarFloor",
    "Statistic",
    "SymmetryPurity",
    "calibrate",
    "draw_positions",
    "pull_sigma",
    "star_floor",
    "statistics_to_table",
    "symmetry_purity",
]
