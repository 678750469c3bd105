"""Writes DIA source tables of another pipeline into a repository, one dataset a visit and detector."""

from __future__ import annotations

__all__ = ["SourceIngest", "ingest_sources"]

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType, MissingDatasetTypeError
from lsst.images import SkyProjection

from ._known_images import choose_instrument, known_detector_images
from ._read_columns import CatalogError
from ._read_dia_sources import read_dia_sources
from ._standard_table import stack_tables

_DIMENSIONS = ("instrument", "visit", "detector")


@dataclass(frozen=True)
class SourceIngest:
    """What was written, and what was not.

    Parameters
    ----------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        The datasets.
    n_sources : `int`
        Sources in them.
    unknown : `dict` [`tuple` [`int`, `int`], `int`]
        Number of sources of each (visit, detector) that the repository does not know, which were left out.
    """

    refs: list[DatasetRef]
    n_sources: int
    unknown: dict[tuple[int, int], int]


def ingest_sources(
    repo: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    *,
    method: str,
    instrument: str | None = None,
    run: str | None = None,
    projection_from: str = "visit_image",
    collections: Sequence[str] = (),
    visit: int | None = None,
    detector: int | None = None,
    band: str | None = None,
) -> SourceIngest:
    """Write ``{method}_dia_source`` for every visit and detector of DIA source tables.

    Parameters
    ----------
    repo : `str` or path-like
        Repository that knows the visits and detectors.
    files : sequence of `str` or path-like
        Files, as `read_dia_sources` reads them. Of sources with one identifier the first is taken.
    method : `str`
        Name of the method in the names of the datasets.
    instrument : `str`, optional
        Instrument that took the visits; the only one of the repository when omitted.
    run : `str`, optional
        RUN collection to write; ``{instrument}/{method}`` when omitted.
    projection_from : `str`, optional
        Dataset type of the image whose coordinate system gives x and y where a table lacks them.
    collections : sequence [`str`], optional
        Where to find that image.
    visit, detector, band : optional
        As for `read_dia_sources`.

    Raises
    ------
    CatalogError
        If a file cannot be used, the repository knows none of the visits, or has one of the datasets already.
    """
    _check_method(method)
    repo = os.fspath(repo)
    if not Butler.has_repo_config(repo):
        raise CatalogError(f"{repo} is not a butler repository.")
    with Butler.from_config(repo, writeable=True) as butler:
        instrument = choose_instrument(butler, instrument)
        run = run or f"{instrument}/{method}"

        def projection(visit: int, detector: int) -> SkyProjection[Any]:
            data_id = {"instrument": instrument, "visit": visit, "detector": detector}
            try:
                return butler.get(f"{projection_from}.sky_projection", data_id, collections=list(collections))
            except (LookupError, MissingDatasetTypeError, TypeError, ValueError) as error:
                raise CatalogError(
                    f"x and y are computed from ra, dec by {projection_from} of visit {visit}, detector {detector}, "
                    f"which is not in the collections {list(collections)}."
                ) from error

        table = stack_tables(
            [
                read_dia_sources(file, projection=projection, visit=visit, detector=detector, band=band)
                for file in files
            ]
        )
        _, first = np.unique(np.asarray(table["diaSourceId"]), return_index=True)
        groups = _group(table[np.sort(first)])
        known = known_detector_images(butler, instrument, groups.keys())
        unknown = {key: len(rows) for key, rows in groups.items() if key not in known}
        if not known:
            raise CatalogError(
                f"The repository knows none of the visits and detectors of {instrument} that the tables have: "
                f"{sorted(unknown)[:5]}{' ...' if len(unknown) > 5 else ''}."
            )
        name = f"{method}_dia_source"
        butler.registry.registerDatasetType(
            DatasetType(name, _DIMENSIONS, "ArrowAstropy", universe=butler.dimensions)
        )
        butler.collections.register(run, CollectionType.RUN)
        refs = []
        with butler.transaction():
            for key in sorted(known):
                data_id = {"instrument": instrument, "visit": key[0], "detector": key[1]}
                if butler.find_dataset(name, data_id, collections=run) is not None:
                    raise CatalogError(
                        f"Collection {run} already has {name} of visit {key[0]}, detector {key[1]}: use another run."
                    )
                refs.append(butler.put(groups[key], name, data_id, run=run))
    return SourceIngest(refs, sum(len(groups[key]) for key in known), unknown)


def _check_method(method: str) -> None:
    if not method.isidentifier():
        raise CatalogError(f"A method's name has letters, digits and underscores only, got {method!r}.")


def _group(table: Table) -> dict[tuple[int, int], Table]:
    keys = np.stack([np.asarray(table[name], dtype=np.int64) for name in ("visit", "detector")], axis=-1)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    edges = np.searchsorted(inverse.ravel()[order], np.arange(len(unique) + 1))
    return {
        (int(visit), int(detector)): table[order[edges[index] : edges[index + 1]]]
        for index, (visit, detector) in enumerate(unique)
    }
