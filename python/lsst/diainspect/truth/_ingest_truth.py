"""Writes a truth table of a file into a repository."""

from __future__ import annotations

__all__ = ["TruthIngest", "ingest_truth"]

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from astropy.table import Table
from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType

from ..catalogs import CatalogError, choose_instrument, known_detector_images, stack_tables
from ._truth_table import TruthError, read_truth

_LEVELS: dict[str, tuple[str, ...]] = {
    "instrument": (),
    "visit": ("visit",),
    "detector": ("visit", "detector"),
}

type Level = Literal["instrument", "visit", "detector"]


@dataclass(frozen=True)
class TruthIngest:
    """What was written, and what was not.

    Parameters
    ----------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        The datasets.
    dimensions : `tuple` [`str`, ...]
        Their dimensions.
    n_objects, n_changes : `int`
        Objects in them, and those of them that changed.
    n_left_out : `int`
        Objects of visits and detectors that the repository does not know.
    """

    refs: list[DatasetRef]
    dimensions: tuple[str, ...]
    n_objects: int
    n_changes: int
    n_left_out: int


def ingest_truth(
    repo: str | os.PathLike[str],
    files: list[str | os.PathLike[str]],
    *,
    name: str = "truth",
    instrument: str | None = None,
    run: str | None = None,
    per: Level | None = None,
    names: Mapping[str, str] | None = None,
    band: str = "",
) -> TruthIngest:
    """Write truth tables as datasets.

    Parameters
    ----------
    repo : `str` or path-like
        Repository that knows the instrument, and the visits if the truth is of visits.
    files : `list` [`str` or path-like]
        Files, as `read_truth` reads them.
    name : `str`, optional
        Name of the dataset type.
    instrument : `str`, optional
        Instrument; the only one of the repository when omitted.
    run : `str`, optional
        RUN collection to write; ``{instrument}/{name}`` when omitted.
    per : {'instrument', 'visit', 'detector'}, optional
        One dataset for all images, one a visit or one a detector image; as fine as the table has columns
        ``visit`` and ``detector`` when omitted.
    names, band : optional
        As for `standard_truth`.

    Raises
    ------
    TruthError
        If a file cannot be used, the repository knows none of its visits, or has one of the datasets already.
    """
    if not name.isidentifier():
        raise TruthError(f"A dataset type's name has letters, digits and underscores only, got {name!r}.")
    repo = os.fspath(repo)
    if not Butler.has_repo_config(repo):
        raise TruthError(f"{repo} is not a butler repository.")
    truth = stack_tables([read_truth(file, names=names, band=band) for file in files])
    level = per if per is not None else _finest(truth)
    missing = [key for key in _LEVELS[level] if key not in truth.colnames]
    if missing:
        raise TruthError(
            f"The truth has no column {' and '.join(missing)}, so it cannot be written per {level}."
        )
    with Butler.from_config(repo, writeable=True) as butler:
        try:
            instrument = choose_instrument(butler, instrument)
        except CatalogError as error:
            raise TruthError(str(error)) from error
        groups, n_left_out = _group(butler, instrument, truth, level)
        dimensions = ("instrument", *_LEVELS[level])
        run = run or f"{instrument}/{name}"
        butler.registry.registerDatasetType(
            DatasetType(name, dimensions, "ArrowAstropy", universe=butler.dimensions)
        )
        butler.collections.register(run, CollectionType.RUN)
        refs = []
        with butler.transaction():
            for key, rows in groups.items():
                data_id = {"instrument": instrument, **dict(zip(_LEVELS[level], key, strict=True))}
                if butler.find_dataset(name, data_id, collections=run) is not None:
                    raise TruthError(f"Collection {run} already has {name} of {data_id}: use another run.")
                refs.append(butler.put(rows, name, data_id, run=run))
    tables = list(groups.values())
    return TruthIngest(
        refs,
        dimensions,
        sum(len(rows) for rows in tables),
        sum(int(np.asarray(rows["isChange"]).sum()) for rows in tables),
        n_left_out,
    )


def _finest(truth: Table) -> Level:
    if "visit" not in truth.colnames:
        return "instrument"
    return "detector" if "detector" in truth.colnames else "visit"


def _group(
    butler: Butler, instrument: str, truth: Table, level: Level
) -> tuple[dict[tuple[int, ...], Table], int]:
    """Return the rows of each dataset by visit and detector, and how many belong to none."""
    names = _LEVELS[level]
    if not names:
        return {(): truth}, 0
    keys = np.stack([np.asarray(truth[name], dtype=np.int64) for name in names], axis=-1)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    wanted = [tuple(map(int, key)) for key in unique]
    known = known_detector_images(butler, instrument, wanted)
    groups = {key: truth[inverse.ravel() == index] for index, key in enumerate(wanted) if key in known}
    if not groups:
        raise TruthError(
            f"The repository knows none of the {' and '.join(names)} numbers of {instrument} that the truth has: "
            f"{wanted[:5]}{' ...' if len(wanted) > 5 else ''}."
        )
    return groups, len(truth) - sum(len(rows) for rows in groups.values())
