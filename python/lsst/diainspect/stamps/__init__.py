"""Stamp sets: every source cut once, from all images, with what is needed to interpret it."""

from ._cut import cut_stamps
from ._gather import gather_stamps, stamp_origin
from ._sky_derivatives import sky_derivatives
from ._stamp_model import StampModel
from ._stamp_set import MODELS, PLANES, StampSet

__all__ = [
    "MODELS",
    "PLANES",
    "StampModel",
    "StampSet",
    "cut_stamps",
    "gather_stamps",
    "sky_derivatives",
    "stamp_origin",
]
