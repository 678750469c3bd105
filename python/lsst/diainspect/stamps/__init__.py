"""Stamp sets: every source cut once, from all images, with what is needed to interpret it."""

from ._cut import cut_stamps
from ._detector_context import DetectorContext
from ._fine_images import NOWHERE, FineImages, fine_weights, move_fine_image, row_length
from ._gather import gather_stamps, stamp_origin
from ._movable_images import MovableImages
from ._plane_names import PLANES, describe_plane, other_method
from ._query import Query, QueryError
from ._read_stamps import read_stamps
from ._selection import Selection, uniform_by_id
from ._shifted_basis import ShiftedBasis
from ._sky_derivatives import sky_derivatives
from ._sky_positions import sources_at_positions
from ._stamp_image import stamp_image, stamp_wcs
from ._stamp_model import StampModel
from ._stamp_set import MODELS, StampSet

__all__ = [
    "MODELS",
    "NOWHERE",
    "PLANES",
    "DetectorContext",
    "FineImages",
    "MovableImages",
    "Query",
    "QueryError",
    "Selection",
    "ShiftedBasis",
    "StampModel",
    "StampSet",
    "cut_stamps",
    "describe_plane",
    "fine_weights",
    "gather_stamps",
    "move_fine_image",
    "other_method",
    "read_stamps",
    "row_length",
    "sky_derivatives",
    "sources_at_positions",
    "stamp_image",
    "stamp_origin",
    "stamp_wcs",
    "uniform_by_id",
]
