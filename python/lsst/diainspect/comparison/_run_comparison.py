"""What changed between two tables of sources found on the same images, by two pipelines or two methods."""

from __future__ import annotations

__all__ = ["RunComparison", "compare_runs", "join_runs"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.spatial
from astropy.stats import mad_std
from astropy.table import Column, Table, vstack

from ._join import join_sources

_SNR_EDGES = (0.0, 5.0, 6.0, 8.0, 12.0, 20.0, 50.0, np.inf)
_EDGE = 50.0
"""Sources closer to the edge of the image than this lie at the edge [pixel]."""

_NEIGHBOURHOOD = 20.0
"""Another source this close is probably part of the same thing on the sky [pixel]."""

_THIRDS = 3
_NOT_FLAGS = frozenset({"found"})
_SAME_PLACE = 1.0
"""Sources of two images this close on the sky show the same thing [arcsec]."""
_CHANCE_OFFSETS = (40.0, 60.0, 80.0)
"""Displacements, in eight directions each, by which chance pairs are counted [pixel]."""


@dataclass(frozen=True)
class RunComparison:
    """What two runs have in common and what not.

    Parameters
    ----------
    names : `tuple` [`str`, `str`]
        Names of the runs, which the columns of ``joined`` carry in front.
    joined : `astropy.table.Table`
        Sources of all images, joined, one row a source of either.
    images : `astropy.table.Table`
        One row an image: ``visit``, ``detector``, ``nFirst``, ``nSecond``, ``nCommon``, ``nOnlyFirst`` and
        ``nOnlySecond``.
    quantities : `astropy.table.Table`
        What changed for common sources: ``quantity``, ``subset`` (all, or clean: no flag in either run), ``median``,
        ``error`` (of the median), ``scatter`` (robust sigma), ``n``, ``unit``.
    flags : `astropy.table.Table`
        One row a flag that some source has: ``flag``; parts of the sources that have it: ``first``, ``second``,
        ``commonFirst``, ``commonSecond``, ``onlyFirst``, ``onlySecond`` (NaN where a run does not have the flag);
        numbers of common sources that have ``lost`` and ``gained`` it.
    snr : `astropy.table.Table`
        One row a bin of S/N: ``low``, ``high``, ``onlyFirst``, ``common`` (by the S/N in the first run) and
        ``onlySecond``.
    places : `astropy.table.Table`
        One row a group (common, onlyFirst, onlySecond): ``n``, parts that are ``negative``, ``atEdge``,
        ``nearOther`` (a source of the other run within 20 pixels) and ``nearOwn``, ``recurring`` (a source of the same
        run within 1 arcsec on another image), and ``grid``, (3, 3): numbers in thirds of the image in y and x.
    chance : `float`
        Number of common sources expected by chance, from displaced positions.
    """

    names: tuple[str, str]
    joined: Table
    images: Table
    quantities: Table
    flags: Table
    snr: Table
    places: Table
    chance: float

    def select(self, group: str) -> np.ndarray:
        """Return which rows of ``joined`` are in a group: common, onlyFirst or onlySecond."""
        first, second = (np.asarray(self.joined[f"{name}_found"], dtype=bool) for name in self.names)
        return {"common": first & second, "onlyFirst": first & ~second, "onlySecond": second & ~first}[group]


def join_runs(runs: Mapping[str, Table], radius: float) -> Table:
    """Join the sources of several runs image by image.

    Parameters
    ----------
    runs : mapping [`str`, `astropy.table.Table`]
        DIA sources of each run, with ``visit``, ``detector``, ``x`` and ``y``.
    radius : `float`
        Largest distance of a match [pixel].

    Returns
    -------
    joined : `astropy.table.Table`
        As `join_sources` makes it, of all images.
    """
    keys = sorted(
        {
            (int(visit), int(detector))
            for table in runs.values()
            for visit, detector in zip(table["visit"], table["detector"], strict=True)
        }
    )
    parts = []
    for visit, detector in keys or [(0, 0)]:
        part = {
            name: table[(np.asarray(table["visit"]) == visit) & (np.asarray(table["detector"]) == detector)]
            for name, table in runs.items()
        }
        parts.append(join_sources(part, {}, radius))
    return vstack(parts, metadata_conflicts="silent") if len(parts) > 1 else parts[0]


def compare_runs(joined: Table, first: str, second: str, radius: float) -> RunComparison:
    """Compare two runs whose sources are joined.

    Parameters
    ----------
    joined : `astropy.table.Table`
        As `join_runs` makes it, or ``subtraction_comparison`` tables stacked.
    first, second : `str`
        Names of the runs.
    radius : `float`
        Radius with which they were joined [pixel].

    Returns
    -------
    comparison : `RunComparison`
        What changed.

    Raises
    ------
    ValueError
        If the table does not have the sources of both.
    """
    for name in (first, second):
        if f"{name}_found" not in joined.colnames:
            have = sorted(
                column.removesuffix("_found") for column in joined.colnames if column.endswith("_found")
            )
            raise ValueError(f"The joined table has no sources of {name}; it has {have}.")
    found = {name: np.asarray(joined[f"{name}_found"], dtype=bool) for name in (first, second)}
    joined = joined[found[first] | found[second]]
    found = {name: np.asarray(joined[f"{name}_found"], dtype=bool) for name in (first, second)}
    groups = {
        "common": found[first] & found[second],
        "onlyFirst": found[first] & ~found[second],
        "onlySecond": found[second] & ~found[first],
    }
    flags = _compare_flags(joined, first, second, found, groups)
    return RunComparison(
        (first, second),
        joined,
        _count_images(joined, first, second, found, groups),
        _compare_quantities(joined, first, second, groups["common"], list(flags["flag"])),
        flags,
        _count_snr(joined, first, second, groups),
        _describe_places(joined, first, second, found, groups),
        _count_chance(joined, first, second, found, radius),
    )


def _count_images(
    joined: Table, first: str, second: str, found: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray]
) -> Table:
    visit, detector = (np.asarray(joined[name], dtype=np.int64) for name in ("visit", "detector"))
    rows = []
    for key in sorted(set(zip(visit.tolist(), detector.tolist(), strict=True))):
        here = (visit == key[0]) & (detector == key[1])
        members = (
            found[first],
            found[second],
            *(groups[name] for name in ("common", "onlyFirst", "onlySecond")),
        )
        rows.append((*key, *(int((here & member).sum()) for member in members)))
    names = ("visit", "detector", "nFirst", "nSecond", "nCommon", "nOnlyFirst", "nOnlySecond")
    return (
        Table(rows=rows, names=names, dtype=[np.int64] * len(names))
        if rows
        else Table({name: np.zeros(0, np.int64) for name in names})
    )


def _values(joined: Table, run: str, name: str) -> np.ndarray | None:
    column = f"{run}_{name}"
    if column not in joined.colnames or joined[column].dtype.kind not in "fiub":
        return None
    return np.asarray(joined[column], dtype=float)


def _compare_quantities(
    joined: Table, first: str, second: str, common: np.ndarray, flags: Sequence[str]
) -> Table:
    clean = common.copy()
    for run in (first, second):
        for flag in flags:
            # A negative source has nothing wrong with it.
            if flag != "isNegative" and f"{run}_{flag}" in joined.colnames:
                clean &= ~np.asarray(joined[f"{run}_{flag}"], dtype=bool)
    rows = []
    for quantity, name, kind, unit in (
        ("x, second - first", "x", "difference", "pix"),
        ("y, second - first", "y", "difference", "pix"),
        ("PSF flux, second / first", "psfFlux", "ratio", ""),
        ("PSF flux error, second / first", "psfFluxErr", "ratio", ""),
        ("S/N, second / first", "snr", "ratio", ""),
        ("aperture flux, second / first", "apFlux", "ratio", ""),
        ("science flux, second / first", "scienceFlux", "ratio", ""),
    ):
        one, other = _values(joined, first, name), _values(joined, second, name)
        if one is None or other is None:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            values = other - one if kind == "difference" else other / one
        for subset, member in (("all", common), ("clean", clean)):
            own = values[member & np.isfinite(values)]
            n = len(own)
            scatter = float(mad_std(own)) if n > 1 else np.nan
            # The standard error of a median of normal deviates.
            error = scatter * np.sqrt(0.5 * np.pi / n) if n > 1 else np.nan
            rows.append((quantity, subset, float(np.median(own)) if n else np.nan, error, scatter, n, unit))
    names = ("quantity", "subset", "median", "error", "scatter", "n", "unit")
    return Table(rows=rows or None, names=names, dtype=["U64", "U8", float, float, float, int, "U8"])


def _compare_flags(
    joined: Table, first: str, second: str, found: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray]
) -> Table:
    flags: list[str] = []
    for run in (first, second):
        for column in joined.colnames:
            name = column.removeprefix(f"{run}_")
            if name == column or joined[column].dtype.kind != "b" or name in _NOT_FLAGS or name in flags:
                continue
            if np.asarray(joined[column])[found[run]].any():
                flags.append(name)
    rows = []
    for flag in flags:
        has = {
            run: np.asarray(joined[f"{run}_{flag}"], dtype=bool)
            if f"{run}_{flag}" in joined.colnames
            else None
            for run in (first, second)
        }

        def part(run: str, member: np.ndarray, has: Mapping[str, np.ndarray | None] = has) -> float:
            values = has[run]
            return float(values[member].mean()) if values is not None and member.any() else np.nan

        lost = gained = -1
        one, other = has[first], has[second]
        if one is not None and other is not None:
            lost = int((groups["common"] & one & ~other).sum())
            gained = int((groups["common"] & ~one & other).sum())
        rows.append(
            (
                flag,
                *(part(first, found[first]), part(second, found[second])),
                *(part(first, groups["common"]), part(second, groups["common"])),
                *(part(first, groups["onlyFirst"]), part(second, groups["onlySecond"])),
                *(lost, gained),
            )
        )
    names = (
        "flag",
        "first",
        "second",
        "commonFirst",
        "commonSecond",
        "onlyFirst",
        "onlySecond",
        "lost",
        "gained",
    )
    return Table(rows=rows or None, names=names, dtype=["U64", *[float] * 6, int, int])


def _count_snr(joined: Table, first: str, second: str, groups: Mapping[str, np.ndarray]) -> Table:
    table = Table({"low": np.array(_SNR_EDGES[:-1]), "high": np.array(_SNR_EDGES[1:])})
    for group, run in (("onlyFirst", first), ("common", first), ("onlySecond", second)):
        values = _values(joined, run, "snr")
        table[group] = (
            np.zeros(len(table), dtype=int)
            if values is None
            else np.histogram(np.abs(values[groups[group]]), np.array(_SNR_EDGES))[0]
        )
    return table


def _describe_places(
    joined: Table, first: str, second: str, found: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray]
) -> Table:
    x, y = (np.asarray(joined[name], dtype=float) for name in ("x", "y"))
    # The tables do not say how large the images are; the outermost sources do.
    left, right = (float(np.nanmin(x)), float(np.nanmax(x))) if len(x) else (0.0, 1.0)
    bottom, top = (float(np.nanmin(y)), float(np.nanmax(y))) if len(y) else (0.0, 1.0)
    at_edge = (x < left + _EDGE) | (x > right - _EDGE) | (y < bottom + _EDGE) | (y > top - _EDGE)
    rows = []
    for group, (own, other) in {
        "common": (first, second),
        "onlyFirst": (first, second),
        "onlySecond": (second, first),
    }.items():
        member = groups[group]
        n = int(member.sum())
        negative = _values(joined, own, "isNegative")
        near = {
            name: _near_others(joined, x, y, member, found[run] & (~member if group == "common" else True))
            for name, run in (("other", other), ("own", own))
        }
        grid, _, _ = np.histogram2d(
            y[member],
            x[member],
            bins=_THIRDS,
            range=[[bottom, max(top, bottom + 1)], [left, max(right, left + 1)]],
        )
        rows.append(
            (
                *(group, n),
                float(negative[member].mean()) if n and negative is not None else np.nan,
                float(at_edge[member].mean()) if n else np.nan,
                *(float(near[name].mean()) if n else np.nan for name in ("other", "own")),
                _recurring_part(joined, member, found[own]),
                grid.astype(int),
            )
        )
    table = Table()
    names = ("group", "n", "negative", "atEdge", "nearOther", "nearOwn", "recurring", "grid")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        table[name] = Column(np.array(values))
    return table


def _recurring_part(joined: Table, member: np.ndarray, found: np.ndarray) -> float:
    """Return the part of the members at whose place on the sky the run has a source on another image."""
    if not member.any() or not {"ra", "dec"} <= set(joined.colnames):
        return np.nan
    ra, dec = (np.deg2rad(np.asarray(joined[name], dtype=float)) for name in ("ra", "dec"))
    sky = np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    visit, detector = (np.asarray(joined[name], dtype=np.int64) for name in ("visit", "detector"))
    finite = np.isfinite(sky).all(axis=1)
    rows, targets = np.flatnonzero(member & finite), np.flatnonzero(found & finite)
    if len(rows) == 0:
        return np.nan
    lists = scipy.spatial.cKDTree(sky[targets]).query_ball_point(sky[rows], np.deg2rad(_SAME_PLACE / 3600.0))
    recurs = [
        any(
            (visit[targets[index]], detector[targets[index]]) != (visit[row], detector[row])
            for index in indices
        )
        for indices, row in zip(lists, rows, strict=True)
    ]
    return float(np.mean(recurs))


def _near_others(
    joined: Table, x: np.ndarray, y: np.ndarray, member: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Return, for each member, whether one of the others, not itself, is near on the same image."""
    rows = np.flatnonzero(member)
    near = np.zeros(len(rows), dtype=bool)
    visit, detector = (np.asarray(joined[name], dtype=np.int64) for name in ("visit", "detector"))
    finite = np.isfinite(x) & np.isfinite(y)
    for key in set(zip(visit.tolist(), detector.tolist(), strict=True)):
        here = (visit == key[0]) & (detector == key[1]) & finite
        targets = np.flatnonzero(here & others)
        own = np.flatnonzero(here[rows])
        if len(targets) == 0 or len(own) == 0:
            continue
        tree = scipy.spatial.cKDTree(np.column_stack([x, y])[targets])
        lists = tree.query_ball_point(np.column_stack([x, y])[rows[own]], _NEIGHBOURHOOD)
        near[own] = [
            any(targets[index] != row for index in indices)
            for indices, row in zip(lists, rows[own], strict=True)
        ]
    return near


def _count_chance(
    joined: Table, first: str, second: str, found: Mapping[str, np.ndarray], radius: float
) -> float:
    """Count pairs of the sources of one run with displaced ones of the other, on the same images."""
    visit, detector = (np.asarray(joined[name], dtype=np.int64) for name in ("visit", "detector"))
    total, trials = 0, len(_CHANCE_OFFSETS) * 8
    positions = {
        run: np.column_stack([np.asarray(joined[f"{run}_{axis}"], dtype=float) for axis in ("x", "y")])
        for run in (first, second)
    }
    for key in set(zip(visit.tolist(), detector.tolist(), strict=True)):
        here = (visit == key[0]) & (detector == key[1])
        one, other = (positions[run][here & found[run]] for run in (first, second))
        one, other = one[np.isfinite(one).all(axis=1)], other[np.isfinite(other).all(axis=1)]
        if len(one) == 0 or len(other) == 0:
            continue
        tree = scipy.spatial.cKDTree(one)
        for distance in _CHANCE_OFFSETS:
            for angle in 2.0 * np.pi * np.arange(8) / 8:
                moved = other + distance * np.array([np.cos(angle), np.sin(angle)])
                total += int((tree.query(moved)[0] <= radius).sum())
    return total / trials
