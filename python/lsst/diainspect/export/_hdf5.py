"""One HDF5 file a detector, for machine learning: arrays of all stamps, read in part by any reader."""

from __future__ import annotations

__all__ = ["write_hdf5"]

from pathlib import Path
from typing import Any

import numpy as np

from ..masks import MASK_BITS
from ..plots import DetectorLabel
from ..stamps import MODELS, StampSet, describe_plane

_CHUNK = 32
"""Stamps in a chunk of the file, which is what is read and decompressed at least."""


def write_hdf5(stamps: StampSet, path: Path, label: DetectorLabel, method: str) -> None:
    """Write all stamps of a detector to one HDF5 file.

    The group ``planes`` has an array (N, size, size) for each plane, ``models`` one for each PSF, ``sources`` one (N,)
    for each column. Attributes: ``unit`` and ``description`` of each, the bits of the mask planes of ``planes/mask``,
    and of the file the instrument, visit, detector, band and method.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of one detector.
    path : `pathlib.Path`
        File to write; an existing one is replaced.
    label : `lsst.diainspect.plots.DetectorLabel`
        Instrument, visit, detector and band.
    method : `str`
        Subtraction method.

    Raises
    ------
    ModuleNotFoundError
        If h5py is not installed.
    """
    h5py = _h5py()
    with h5py.File(path, "w") as file:
        file.attrs["instrument"] = label.instrument
        file.attrs["visit"] = label.visit
        file.attrs["detector"] = label.detector
        file.attrs["band"] = label.band
        file.attrs["method"] = method
        for name, plane in stamps.planes.items():
            unit, doc = describe_plane(name) or (None, "")
            stored = _put(file, f"planes/{name}", plane, unit, doc)
            if name == "mask":
                for bit_name, bit in MASK_BITS.items():
                    stored.attrs[bit_name] = bit
        for name, model in stamps.models.items():
            _put(file, f"models/{name}", model.images().astype(np.float32), None, MODELS[name])
        for name in stamps.sources.colnames:
            column = stamps.sources[name]
            values = np.asarray(column)
            if values.dtype.kind in "OSU":
                values = values.astype(h5py.string_dtype())
            _put(file, f"sources/{name}", values, column.unit, column.description or "")


def _put(file: Any, name: str, values: np.ndarray, unit: Any, description: str) -> Any:
    images = values.ndim == 3 and len(values) > 0 and not name.startswith("sources/")
    options = (
        {"chunks": (min(_CHUNK, len(values)), *values.shape[1:]), "compression": "gzip"} if images else {}
    )
    stored = file.create_dataset(name, data=values, **options)
    stored.attrs["unit"] = "" if unit is None else str(unit)
    stored.attrs["description"] = description
    return stored


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "HDF5 files are written with h5py: pip install 'lsst-diainspect[hdf5]'."
        ) from error
    return h5py
