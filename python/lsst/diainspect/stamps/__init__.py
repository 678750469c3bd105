"""Stamp sets: every source cut once, from all images, with what is needed to interpret it."""

from ._gather import gather_stamps, stamp_origin

__all__ = ["gather_stamps", "stamp_origin"]
