"""Writes alerts into a repository as stamp sets and source tables, one of each a visit and detector."""

from __future__ import annotations

__all__ = ["AlertIngest", "ingest_alerts"]

import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.time import Time
from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from ..catalogs import stack_tables
from ..instruments import DiaAlerts, ExposureRecord, insert_exposure_records
from ..stamps import MODELS, PLANES
from ._alert import AlertError
from ._alert_stamps import DEFAULT_CHUNK, DEFAULT_PSF_SIZE, DEFAULT_SIZE, Paths, check_sizes, iterate_stamps
from ._estimated_planes import estimate_planes

_DIMENSIONS = ("instrument", "visit", "detector")

_NOT_OF_SOURCES = {"x0", "y0", "pixelToSky", *PLANES, *MODELS}
"""Columns of the stamps that the source table does not have."""

_RECORD_COLUMNS = ["band", "midpointMjdTai", "ra", "dec"]

_HALF_STAMP_DEG = 10.0 / 3600.0
"""Half the side of the sky around a source that counts as covered [deg]: alerts do not tell where detectors end."""


@dataclass(frozen=True)
class AlertIngest:
    """What was written, and what was not.

    Parameters
    ----------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        The datasets.
    n_alerts : `int`
        Alerts in them.
    skipped : `astropy.table.Table`
        Alerts that were left out and why, as in `AlertStamps`.
    """

    refs: list[DatasetRef]
    n_alerts: int
    skipped: Table


def ingest_alerts(
    repo: str | os.PathLike[str],
    paths: Paths,
    *,
    method: str = "alert",
    instrument: str | None = None,
    run: str | None = None,
    size: int = DEFAULT_SIZE,
    psf_size: int = DEFAULT_PSF_SIZE,
    exposure_time: float = 30.0,
    estimate: bool = False,
    chunk: int = DEFAULT_CHUNK,
    report: Callable[[str], None] = lambda message: None,
) -> AlertIngest:
    """Write ``{method}_dia_stamps`` and ``{method}_dia_source`` for every visit and detector that alerts are of.

    Stamps wait on disk, in a temporary folder, until all files are read: memory holds one chunk, or the alerts of one
    detector of a visit.

    Parameters
    ----------
    repo : `str` or path-like
        Root of the repository, which is created when missing.
    paths : path-like or iterable of path-like
        Files, archives or folders, as for `iterate_alerts`.
    method : `str`, optional
        Name of the method in the names of the datasets.
    instrument : `str`, optional
        Instrument of the repository that took the visits; its records of visits and detectors must be there. When
        omitted it is ``DiaAlerts``, whose records are made of what the alerts say.
    run : `str`, optional
        RUN collection to write; ``{instrument}/input`` when omitted.
    size, psf_size : `int`, optional
        Sides of stamps and PSF images [pixel].
    exposure_time : `float`, optional
        Exposure time to record for the visits, of which alerts tell only the middle [s].
    estimate : `bool`, optional
        Estimate variances and PSFs that the alerts do not have, as `estimate_planes` does for each chunk.
    chunk : `int`, optional
        Alerts in memory at a time.
    report : callable, optional
        Called with a line of progress now and then.

    Returns
    -------
    ingest : `AlertIngest`
        Datasets and report.

    Raises
    ------
    AlertError
        If no alert could be read, the repository lacks records, or has one of the datasets already.
    ModuleNotFoundError
        If fastavro is not installed.
    """
    if not method.isidentifier():
        raise AlertError(f"A method's name has letters, digits and underscores only, got {method!r}.")
    check_sizes(size, psf_size)
    repo = os.fspath(repo)
    with tempfile.TemporaryDirectory() as folder:
        parts: dict[tuple[int, int], list[Path]] = {}
        skipped, n_alerts = [], 0
        for read in iterate_stamps(paths, size=size, psf_size=psf_size, chunk=chunk):
            skipped.append(read.skipped)
            n_alerts += len(read.stamps)
            stamps = estimate_planes(read.stamps) if estimate and len(read.stamps) else read.stamps
            _spill(stamps.to_table(), Path(folder), parts)
            report(f"{n_alerts} alerts of {len(parts)} detectors read")
        left_out = stack_tables(skipped) if skipped else None
        if not n_alerts or left_out is None:
            first = f" The first: {left_out['packet'][0]} {left_out['reason'][0]}." if left_out else ""
            raise AlertError(f"None of the files has an alert that can be used.{first}")
        if not Butler.has_repo_config(repo):
            Butler.makeRepo(repo)
        with Butler.from_config(repo, writeable=True) as butler:
            refs = _write(butler, parts, method, instrument, run, exposure_time)
    return AlertIngest(refs, n_alerts, left_out)


def _spill(table: Table, folder: Path, parts: dict[tuple[int, int], list[Path]]) -> None:
    """Write the rows of each visit and detector to a file of their own."""
    keys = np.stack([np.asarray(table[name], dtype=np.int64) for name in ("visit", "detector")], axis=-1)
    if not len(keys):
        return
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    order = np.argsort(inverse, kind="stable")
    edges = np.searchsorted(inverse[order], np.arange(len(unique) + 1))
    for index, (visit, detector) in enumerate(unique):
        files = parts.setdefault((int(visit), int(detector)), [])
        file = folder / f"{visit}_{detector}_{len(files)}.pickle"
        rows = order[edges[index] : edges[index + 1]]
        # Pickles that only this process sees: Parquet takes a quarter of a second for a table of so many columns.
        file.write_bytes(pickle.dumps(table[rows]))
        files.append(file)


def _write(
    butler: Butler,
    parts: dict[tuple[int, int], list[Path]],
    method: str,
    instrument: str | None,
    run: str | None,
    exposure_time: float,
) -> list[DatasetRef]:
    own = instrument is None or instrument == DiaAlerts.getName()
    name = DiaAlerts.getName() if instrument is None else instrument
    run = run or f"{name}/input"
    if own:
        DiaAlerts().register(butler.registry)
    else:
        _check_records(butler, name, list(parts))
    butler.collections.register(run, CollectionType.RUN)
    types = [f"{method}_dia_stamps", f"{method}_dia_source"]
    for dataset_type in types:
        butler.registry.registerDatasetType(
            DatasetType(dataset_type, _DIMENSIONS, "ArrowAstropy", universe=butler.dimensions)
        )
        for visit, detector in _present(butler, dataset_type, run) & parts.keys():
            raise AlertError(
                f"Collection {run} already has {dataset_type} of visit {visit}, detector {detector}: use another run."
            )
    if own:
        _insert_records(butler, parts, exposure_time)
    refs = []
    for (visit, detector), files in sorted(parts.items()):
        table = _read_parts(files)
        data_id = {"instrument": name, "visit": visit, "detector": detector}
        sources = table[[column for column in table.colnames if column not in _NOT_OF_SOURCES]]
        for dataset_type, content in zip(types, (table, sources), strict=True):
            refs.append(butler.put(content, dataset_type, data_id, run=run))
    return refs


def _read_parts(files: list[Path]) -> Table:
    return stack_tables([pickle.loads(file.read_bytes()) for file in files])


def _present(butler: Butler, dataset_type: str, run: str) -> set[tuple[int, int]]:
    with butler.query() as query:
        return {
            (int(ref.dataId["visit"]), int(ref.dataId["detector"]))
            for ref in query.datasets(dataset_type, collections=run)
        }


def _check_records(butler: Butler, instrument: str, keys: list[tuple[int, int]]) -> None:
    registry = butler.registry
    if not list(registry.queryDimensionRecords("instrument", instrument=instrument)):
        raise AlertError(
            f"The repository has no instrument {instrument}; without one named, DiaAlerts is made."
        )
    detectors = {record.id for record in registry.queryDimensionRecords("detector", instrument=instrument)}
    unknown = sorted({detector for _, detector in keys} - detectors)
    if unknown:
        raise AlertError(f"{instrument} has no detectors {unknown[:5]} in the repository.")
    missing = [
        visit
        for visit in sorted({visit for visit, _ in keys})
        if not list(registry.queryDimensionRecords("visit", instrument=instrument, visit=visit))
    ]
    if missing:
        raise AlertError(f"The repository has no records of the visits {missing[:5]} of {instrument}.")


def _insert_records(butler: Butler, parts: dict[tuple[int, int], list[Path]], exposure_time: float) -> None:
    """Make detectors, filters and visits known to the repository, as far as the alerts tell."""
    instrument = DiaAlerts()
    by_visit: dict[int, dict[int, Table]] = {}
    for (visit, detector), files in parts.items():
        by_visit.setdefault(visit, {})[detector] = _read_parts(files)[_RECORD_COLUMNS]
    try:
        for detector in sorted({detector for _, detector in parts}):
            instrument.register_detector(butler.registry, detector)
        bands = {visit: _band(next(iter(tables.values()))) for visit, tables in by_visit.items()}
        for band in sorted(set(bands.values())):
            instrument.register_filter(butler.registry, band, band)
        for visit, tables in by_visit.items():
            _insert_visit(butler, instrument, visit, bands[visit], tables, exposure_time)
    except ValueError as error:
        raise AlertError(str(error)) from error


def _band(table: Table) -> str:
    return str(table["band"][0]) or "unknown"


def _insert_visit(
    butler: Butler,
    instrument: DiaAlerts,
    visit: int,
    band: str,
    tables: dict[int, Table],
    exposure_time: float,
) -> None:
    """Insert the records of one visit; those of a visit or detector that is there already stay as they are."""
    key = {"instrument": instrument.getName(), "visit": visit}
    registry = butler.registry
    known = list(registry.queryDimensionRecords("visit", **key))
    regions = {detector: _region(table) for detector, table in tables.items()}
    if known:
        if known[0].physical_filter != band:
            raise ValueError(
                f"Visit {visit} is in the repository in {known[0].physical_filter}, but the alerts are in {band}: "
                f"alerts of surveys with the same visit numbers need repositories of their own."
            )
        begin, duration = known[0].timespan.begin, known[0].exposure_time
        there = {record.detector for record in registry.queryDimensionRecords("visit_detector_region", **key)}
        regions = {detector: region for detector, region in regions.items() if detector not in there}
        if not regions:
            return
    else:
        table = next(iter(tables.values()))
        middle = float(table["midpointMjdTai"][0])
        if not np.isfinite(middle):
            raise ValueError(f"The alerts of visit {visit} do not tell its time (midpointMjdTai).")
        begin = Time(middle, format="mjd", scale="tai") - 0.5 * exposure_time * u.s
        duration = exposure_time
    insert_exposure_records(
        butler,
        ExposureRecord(
            instrument=instrument.getName(),
            visit=visit,
            physical_filter=band,
            begin=begin,
            exposure_time=duration,
            regions=regions,
            seq_num=instrument.sequence_number(visit),
            day_obs=instrument.observing_day(visit, begin),
            is_packed=False,
        ),
    )


def _region(table: Table) -> ConvexPolygon:
    """Return the hull of squares about the sources, as large as their stamps may be."""
    ra, dec = (np.asarray(table[name], dtype=float) for name in ("ra", "dec"))
    half = _HALF_STAMP_DEG
    dec_low, dec_high = np.clip(dec - half, -90.0, 90.0), np.clip(dec + half, -90.0, 90.0)
    half_ra = half / np.maximum(np.cos(np.radians(dec)), half)
    corners = [
        UnitVector3d(LonLat.fromDegrees(float(lon), float(lat)))
        for side in (-half_ra, half_ra)
        for edge in (dec_low, dec_high)
        for lon, lat in zip((ra + side) % 360.0, edge, strict=True)
    ]
    return ConvexPolygon.convexHull(corners)
