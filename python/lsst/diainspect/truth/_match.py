"""Matches the DIA sources of a detector image with the truth, and estimates how many matches are chance."""

from __future__ import annotations

__all__ = ["MatchSettings", "match_truth"]

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import scipy.spatial
from astropy.table import Column, Table

from ..detection import without_sky_sources
from ._assignment import Pairs, match_positions, tangent_plane
from ._fiducial import FiducialArea

_N_DIRECTIONS = 8
_GOLDEN_TURN = 0.381966

_FROM_SOURCES: dict[str, tuple[str, u.UnitBase | None, str]] = {
    "diaSourceId": ("int64", None, "Identifier of the source; 0 for an object without one."),
    "x": ("float64", u.pix, "Position of the source."),
    "y": ("float64", u.pix, "Position of the source."),
    "ra": ("float64", u.deg, "Position of the source (ICRS)."),
    "dec": ("float64", u.deg, "Position of the source (ICRS)."),
    "snr": ("float64", None, "S/N of the source."),
    "psfFlux": ("float64", u.nJy, "PSF flux of the source on the difference."),
    "psfFluxErr": ("float64", u.nJy, "Error of psfFlux."),
    "isNegative": ("bool", None, "The source is negative."),
}

_FROM_TRUTH: dict[str, tuple[str, str, u.UnitBase | None, str]] = {
    "truthKind": ("kind", "U32", None, "Kind of the object."),
    "truthX": ("x", "float64", u.pix, "Position of the object in the image."),
    "truthY": ("y", "float64", u.pix, "Position of the object in the image."),
    "truthRa": ("ra", "float64", u.deg, "Position of the object (ICRS)."),
    "truthDec": ("dec", "float64", u.deg, "Position of the object (ICRS)."),
    "fluxChange": ("fluxChange", "float64", u.nJy, "True flux change of the object."),
    "mag": (
        "mag",
        "float64",
        u.mag,
        "Magnitude of |fluxChange| where that is known, else of the object (AB).",
    ),
    "idealSnr": (
        "idealSnr",
        "float64",
        None,
        "|fluxChange| over its error in the best possible difference, noise of all light at its place included "
        "where the truth knows it.",
    ),
    "hostSurfaceBrightness": (
        "hostSurfaceBrightness",
        "float64",
        u.mag / u.arcsec**2,
        "Surface brightness of the host at the object (AB).",
    ),
    "hostSeparation": (
        "hostSeparation",
        "float64",
        u.arcsec,
        "Distance of the object from its host's centre.",
    ),
}


@dataclass(frozen=True)
class MatchSettings:
    """Settings of `match_truth`.

    Parameters
    ----------
    radius : `float`
        Largest distance between a source and its object [arcsec].
    time_window : `float`
        Largest difference in time between the exposure and the truth, where the truth has times [second].
    same_sign : `bool`
        A source matches only a change of its own sign.
    least_ideal_snr : `float`
        Objects with a smaller ideal S/N have not changed enough to be what a source shows.
    chance_distances : `tuple` [`float`, ...]
        Distances by which sources are displaced, in eight directions each, to count matches by chance [arcsec].
    copied_columns : `tuple` [`str`, ...]
        Further columns of sources and diagnostics to copy, as patterns of file names are written.
    """

    radius: float = 0.5
    time_window: float = 60.0
    same_sign: bool = True
    least_ideal_snr: float = 1.0
    chance_distances: tuple[float, ...] = (10.0, 15.0, 20.0)
    copied_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"The radius of the match must be positive, got {self.radius} arcsec.")
        close = [distance for distance in self.chance_distances if distance < 3.0 * self.radius]
        if close:
            raise ValueError(
                f"Sources displaced by {close} arcsec could find their own object within {self.radius} arcsec: "
                f"use three radii or more."
            )


def match_truth(
    sources: Table,
    truth: Table,
    settings: MatchSettings,
    *,
    area: FiducialArea | None = None,
    diagnostics: Table | None = None,
) -> Table:
    """Match the sources of one detector image with the truth.

    Parameters
    ----------
    sources : `astropy.table.Table`
        DIA sources; ``ra`` and ``dec`` are what is matched. Sky sources are left out.
    truth : `astropy.table.Table`
        Truth of the same image, as `standard_truth` makes it, with positions on the sky (`place_truth`).
    settings : `MatchSettings`
        Settings.
    area : `FiducialArea`, optional
        Where detection was possible; everywhere when omitted. Displaced sources that leave its image do not count.
    diagnostics : `astropy.table.Table`, optional
        Diagnostics with ``diaSourceId``, from which columns may be copied.

    Returns
    -------
    matches : `astropy.table.Table`
        One row a changed object (``isTruth``) with its source, if it has one (``isDetected``), then one row a
        source without an object: a second one on an object (``isDuplicate``) or a spurious one. All flags of the
        sources and the columns asked for follow.
    """
    sources = without_sky_sources(sources)
    centre = _centre(sources, truth)
    on_plane = tangent_plane(np.asarray(sources["ra"]), np.asarray(sources["dec"]), *centre)
    truth_on_plane = tangent_plane(np.asarray(truth["ra"]), np.asarray(truth["dec"]), *centre)
    snr = np.asarray(truth["idealSnr"], dtype=float)
    is_candidate = np.asarray(truth["isChange"], dtype=bool) & ~(snr < settings.least_ideal_snr)
    candidates = np.flatnonzero(is_candidate)
    in_time = _in_time(sources, truth[candidates], settings)
    negative = np.asarray(sources["isNegative"], dtype=bool)
    change = np.asarray(truth["fluxChange"], dtype=float)[candidates]

    def compatible(source: np.ndarray, truth: np.ndarray) -> np.ndarray:
        allowed = in_time[truth]
        if settings.same_sign:
            allowed = allowed & (~np.isfinite(change[truth]) | (negative[source] == (change[truth] < 0)))
        return allowed

    def match(positions: np.ndarray) -> Pairs:
        return match_positions(positions, truth_on_plane[candidates], settings.radius, compatible)

    pairs = match(on_plane)
    duplicate_of = _duplicates(on_plane, truth_on_plane[candidates], pairs, settings.radius, compatible)
    n_candidates, n_sources = len(candidates), len(sources)
    source_of = np.full(n_candidates, -1)
    source_of[pairs.second] = pairs.first
    separation = np.full(n_candidates, np.nan)
    separation[pairs.second] = pairs.distance
    unmatched = np.setdiff1d(np.arange(n_sources), pairs.first)

    # Rows: the candidates in the order of the truth, then the sources that are left in their own.
    source_row = np.concatenate([source_of, unmatched]).astype(int)
    truth_row = np.concatenate([candidates, np.full(len(unmatched), -1)]).astype(int)
    is_truth = truth_row >= 0
    table = Table()
    table["isTruth"] = Column(is_truth, description="The row is an object that changed.")
    table["isDetected"] = Column(is_truth & (source_row >= 0), description="An object that has a source.")
    duplicates = duplicate_of[unmatched]
    table["isDuplicate"] = Column(
        np.concatenate([np.zeros(n_candidates, dtype=bool), duplicates >= 0]),
        description="A source on an object that has a better one.",
    )
    table["isSpurious"] = Column(
        ~is_truth & ~np.asarray(table["isDuplicate"]), description="A source without an object."
    )
    fiducial = np.ones(len(table), dtype=bool)
    if area is not None:
        fiducial[:n_candidates] = _contains(area, truth[candidates])
        fiducial[n_candidates:] = _contains(area, sources[unmatched])
    table["isFiducial"] = Column(
        fiducial,
        description="It lies within the image where nothing is masked, the object or else the source.",
    )
    truth_id = np.asarray(truth["truthId"], dtype=np.int64)
    ids = np.full(len(table), -1, dtype=np.int64)
    ids[:n_candidates] = truth_id[candidates]
    ids[n_candidates:][duplicates >= 0] = truth_id[candidates][duplicates[duplicates >= 0]]
    table["truthId"] = Column(ids, description="Identifier of the object; -1 for a spurious source.")
    table["separation"] = Column(
        np.concatenate(
            [separation, _own_separation(on_plane, truth_on_plane[candidates], unmatched, duplicates)]
        ),
        unit=u.arcsec,
        description="Distance between source and object.",
    )
    table["nDuplicates"] = Column(
        np.concatenate(
            [np.bincount(duplicates[duplicates >= 0], minlength=n_candidates), np.zeros(len(unmatched), int)]
        ).astype(np.int32),
        description="Further sources on the object.",
    )
    table["chanceMatch"] = Column(
        np.concatenate(
            [_chance(on_plane, sources, match, n_candidates, settings, area), np.zeros(len(unmatched))]
        ),
        description="Mean number of sources, displaced at random, that the object is matched with: their sum over "
        "the objects is what chance makes.",
    )
    for name, (own, dtype, unit, doc) in _FROM_TRUTH.items():
        table[name] = Column(_take(truth, own, truth_row, dtype), unit=unit, description=doc)
    for name, (dtype, unit, doc) in _FROM_SOURCES.items():
        table[name] = Column(_take(sources, name, source_row, dtype), unit=unit, description=doc)
    _add_pulls(table, sources, source_row)
    _add_nearest(table, on_plane, truth_on_plane, truth, source_row)
    _copy_columns(table, sources, source_row, settings.copied_columns)
    if diagnostics is not None:
        _copy_columns(table, diagnostics, _rows_of(table, diagnostics), settings.copied_columns)
    return table


def _contains(area: FiducialArea, table: Table) -> np.ndarray:
    return area.contains(np.asarray(table["x"], dtype=float), np.asarray(table["y"], dtype=float))


def _centre(sources: Table, truth: Table) -> tuple[float, float]:
    for table in (sources, truth):
        ra, dec = np.asarray(table["ra"], dtype=float), np.asarray(table["dec"], dtype=float)
        good = np.isfinite(ra) & np.isfinite(dec)
        if good.any():
            # The first one, not the mean: right ascension may go through zero.
            return float(ra[good][0]), float(dec[good][0])
    return 0.0, 0.0


def _in_time(sources: Table, truth: Table, settings: MatchSettings) -> np.ndarray:
    if "mjd" not in truth.colnames or "midpointMjdTai" not in sources.colnames or len(sources) == 0:
        return np.ones(len(truth), dtype=bool)
    midpoint = np.asarray(sources["midpointMjdTai"], dtype=float)
    midpoint = midpoint[np.isfinite(midpoint)]
    if len(midpoint) == 0:
        return np.ones(len(truth), dtype=bool)
    apart = np.abs(np.asarray(truth["mjd"], dtype=float) - np.median(midpoint)) * 86400.0
    return ~(apart > settings.time_window)


def _duplicates(
    first: np.ndarray, second: np.ndarray, pairs: Pairs, radius: float, compatible: object
) -> np.ndarray:
    """Return, for each source, the matched object that it is a further source of; -1 for none."""
    duplicate_of = np.full(len(first), -1)
    if len(pairs.first) == 0:
        return duplicate_of
    left = np.setdiff1d(np.flatnonzero(np.isfinite(first).all(axis=-1)), pairs.first)
    if len(left) == 0:
        return duplicate_of
    distance, nearest = scipy.spatial.cKDTree(second[pairs.second]).query(first[left])
    objects = pairs.second[nearest]
    near = distance <= radius
    near[near] = compatible(left[near], objects[near])  # type: ignore[operator]
    duplicate_of[left[near]] = objects[near]
    return duplicate_of


def _own_separation(
    first: np.ndarray, second: np.ndarray, unmatched: np.ndarray, duplicates: np.ndarray
) -> np.ndarray:
    separation = np.full(len(unmatched), np.nan)
    is_duplicate = duplicates >= 0
    separation[is_duplicate] = np.hypot(
        *(first[unmatched[is_duplicate]] - second[duplicates[is_duplicate]]).T
    )
    return separation


def _chance(
    positions: np.ndarray,
    sources: Table,
    match: object,
    n_candidates: int,
    settings: MatchSettings,
    area: FiducialArea | None,
) -> np.ndarray:
    """Count how often each object is matched with displaced sources, scaled to all sources."""
    total = np.zeros(n_candidates)
    trials = 0
    if len(positions) == 0 or n_candidates == 0:
        return total
    to_pixels = _pixels_of_plane(positions, sources) if area is not None else None
    for ring, distance in enumerate(settings.chance_distances):
        # Turned from ring to ring, so that the directions do not repeat.
        for angle in 2.0 * np.pi * (np.arange(_N_DIRECTIONS) / _N_DIRECTIONS + ring * _GOLDEN_TURN):
            displaced = positions + distance * np.array([np.cos(angle), np.sin(angle)])
            weight = 1.0
            if to_pixels is not None and area is not None:
                x, y = (np.column_stack([displaced, np.ones(len(displaced))]) @ to_pixels).T
                inside = area.is_in_image(x, y)
                if not inside.any():
                    continue
                displaced = np.where(inside[:, None], displaced, np.nan)
                weight = len(inside) / inside.sum()
            found = match(displaced)  # type: ignore[operator]
            total[found.second] += weight
            trials += 1
    return total / max(trials, 1)


def _pixels_of_plane(positions: np.ndarray, sources: Table) -> np.ndarray | None:
    """Fit pixel positions as a linear function of those on the plane; None where there are too few."""
    target = np.column_stack([np.asarray(sources["x"], dtype=float), np.asarray(sources["y"], dtype=float)])
    good = np.isfinite(target).all(axis=1) & np.isfinite(positions).all(axis=1)
    design = np.column_stack([positions, np.ones(len(positions))])[good]
    if len(design) < 3 or np.linalg.matrix_rank(design) < 3:
        return None
    return np.linalg.lstsq(design, target[good], rcond=None)[0]


def _take(table: Table, name: str, rows: np.ndarray, dtype: str) -> np.ndarray:
    """Take rows of a column; NaN, 0, False or empty where the row is -1 or the column missing."""
    values = np.zeros(len(rows), dtype=dtype)
    if values.dtype.kind == "f":
        values[:] = np.nan
    if name in table.colnames and len(table):
        there = rows >= 0
        values[there] = np.asarray(table[name])[rows[there]].astype(dtype)
    return values


def _add_pulls(table: Table, sources: Table, source_row: np.ndarray) -> None:
    is_truth = np.asarray(table["isTruth"])
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = (np.asarray(table["psfFlux"]) - np.asarray(table["fluxChange"])) / np.asarray(
            table["psfFluxErr"]
        )
        table["fluxPull"] = Column(
            np.where(is_truth, pull, np.nan), description="(psfFlux - fluxChange) / psfFluxErr."
        )
        for axis in ("x", "y"):
            offset = np.asarray(table[axis]) - np.asarray(table[f"truth{axis.upper()}"])
            error = _take(sources, f"{axis}Err", source_row, "float64")
            table[f"{axis}Pull"] = Column(
                np.where(is_truth & (error > 0), offset / error, np.nan),
                description=f"({axis} - truth{axis.upper()}) / {axis}Err.",
            )
        table["snrOverIdeal"] = Column(
            np.where(is_truth, np.asarray(table["snr"]) / np.asarray(table["idealSnr"]), np.nan),
            description="snr / idealSnr: 1 for the best possible difference.",
        )


def _add_nearest(
    table: Table, on_plane: np.ndarray, truth_on_plane: np.ndarray, truth: Table, source_row: np.ndarray
) -> None:
    """Add what lies nearest to each source, changed or not."""
    n = len(table)
    separation, kind = np.full(n, np.nan), np.zeros(n, dtype="U32")
    good = np.flatnonzero(np.isfinite(truth_on_plane).all(axis=1))
    rows = np.flatnonzero(source_row >= 0)
    rows = rows[np.isfinite(on_plane[source_row[rows]]).all(axis=1)] if len(rows) else rows
    if len(good) and len(rows):
        distance, nearest = scipy.spatial.cKDTree(truth_on_plane[good]).query(on_plane[source_row[rows]])
        separation[rows] = distance
        kind[rows] = np.asarray(truth["kind"]).astype("U32")[good[nearest]]
    table["nearestKind"] = Column(
        kind, description="Kind of the object nearest to the source, of all in the truth, changed or not."
    )
    table["nearestSeparation"] = Column(separation, unit=u.arcsec, description="Its distance.")


def _rows_of(table: Table, diagnostics: Table) -> np.ndarray:
    rows = np.full(len(table), -1)
    _, here, there = np.intersect1d(
        np.asarray(table["diaSourceId"]), np.asarray(diagnostics["diaSourceId"]), return_indices=True
    )
    rows[here] = there
    rows[np.asarray(table["diaSourceId"]) == 0] = -1
    return rows


def _copy_columns(table: Table, origin: Table, rows: np.ndarray, patterns: Sequence[str]) -> None:
    for name in origin.colnames:
        column = origin[name]
        wanted = column.dtype.kind == "b" or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        if name in table.colnames or not wanted or column.ndim > 1:
            continue
        table[name] = Column(
            _take(origin, name, rows, column.dtype.str), unit=column.unit, description=column.description
        )
