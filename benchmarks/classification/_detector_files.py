"""The tables of simulated detectors, one file each."""

from __future__ import annotations

__all__ = ["detector_path", "read_detectors", "write_detector"]

import os
from pathlib import Path

import pyarrow.parquet
from astropy.table import Table, vstack
from lsst.daf.butler.formatters.parquet import arrow_to_astropy

from ._chain import make_detector_table


def detector_path(folder: Path, number: int, seed: int, family: str) -> Path:
    """Return where the table of a detector is."""
    return folder / f"{family}_{seed}_{number:04d}.parquet"


def write_detector(task: tuple[Path, int, int, str]) -> Path:
    """Make the table of a detector (folder, number, seed, family) and write it; none where it was refused."""
    path = detector_path(*task)
    table = make_detector_table(*task[1:])
    if table is not None:
        part = path.with_suffix(".part")
        table.write(part, format="parquet", overwrite=True)
        os.replace(part, path)
    return path


def read_detectors(folder: Path, seed: int) -> Table:
    """Read the tables of all detectors of a seed."""
    paths = sorted(folder.glob(f"*_{seed}_*.parquet"))
    if not paths:
        raise FileNotFoundError(f"No detectors of seed {seed} in {folder}: run simulate first.")
    tables = [arrow_to_astropy(pyarrow.parquet.read_table(path)) for path in paths]
    for table in tables:
        table.meta.clear()
    return vstack(tables, join_type="outer", metadata_conflicts="silent")
