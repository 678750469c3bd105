"""Stamp sets as files: FITS, PNG, HDF5, alert packets, in a directory that an interrupted run can go on with."""

from ._detector_fits import write_detector_fits
from ._hdf5 import write_hdf5
from ._png import triplet_pixels
from ._source_fits import iterate_source_fits
from ._stamp_directory import FORMATS, ExportRecord, StampDirectory, folder_name

__all__ = [
    "FORMATS",
    "ExportRecord",
    "StampDirectory",
    "folder_name",
    "iterate_source_fits",
    "triplet_pixels",
    "write_detector_fits",
    "write_hdf5",
]
