"""Outer join of the source tables of several methods by position."""

from __future__ import annotations

__all__ = ["join_sources"]

from collections.abc import Mapping

import astropy.units as u
import numpy as np
import scipy.spatial
from astropy.table import Column, Table

from ..detection import without_sky_sources

_KEYS = ("diaSourceId", "visit", "detector", "band", "midpointMjdTai")


def join_sources(
    sources: Mapping[str, Table],
    diagnostics: Mapping[str, Table],
    radius: float,
    truth: Mapping[str, Table] | None = None,
    classification: Mapping[str, Table] | None = None,
) -> Table:
    """Join sources that several methods found on the same pixels.

    Each method's sources are matched to the groups that the methods before it made, as mutually nearest pairs
    within the radius; a source without a partner makes a group of its own. The sign is not part of the match: the
    same artefact can be positive in one method and negative in another. Sky sources are not detections and are left
    out.

    Parameters
    ----------
    sources : mapping [`str`, `astropy.table.Table`]
        DIA source table of each method.
    diagnostics : mapping [`str`, `astropy.table.Table`]
        Diagnostics of each method, with ``diaSourceId``; a method may be absent.
    radius : `float`
        Largest distance of a match [pixel].
    truth : mapping [`str`, `astropy.table.Table`], optional
        What the truth says of each method's sources, with ``diaSourceId``, as
        `lsst.diainspect.truth.source_truth` makes it; a method may be absent.
    classification : mapping [`str`, `astropy.table.Table`], optional
        Scores of each method's sources, with ``diaSourceId``, as
        `lsst.diainspect.classification.classify_sources` makes them; a method may be absent.

    Returns
    -------
    joined : `astropy.table.Table`
        One row a group: ``x``, ``y``, ``ra``, ``dec`` (of the first method that has it), ``nMethods``, and for
        each method ``{method}_found``, ``{method}_diaSourceId`` (0 where not found) and its other columns with
        the method's name in front (NaN, 0 or False where not found).
    """
    sources = {method: without_sky_sources(table) for method, table in sources.items()}
    x, y = np.zeros(0), np.zeros(0)
    rows: dict[str, np.ndarray] = {}
    for method, table in sources.items():
        own_x, own_y = np.asarray(table["x"], dtype=float), np.asarray(table["y"], dtype=float)
        group = _match(own_x, own_y, x, y, radius)
        new = group < 0
        group[new] = len(x) + np.arange(new.sum())
        x, y = np.concatenate([x, own_x[new]]), np.concatenate([y, own_y[new]])
        rows[method] = group

    n = len(x)
    joined = Table()
    first = _first_values(sources, rows, n)
    for name in ("visit", "detector", "band"):
        if name in first:
            joined[name] = first[name]
    joined["x"] = Column(x, unit=u.pix, description="Position in the first method that has the source.")
    joined["y"] = Column(y, unit=u.pix, description="Position in the first method that has the source.")
    for name in ("ra", "dec"):
        if name in first:
            joined[name] = Column(first[name], unit=u.deg, description="Position (ICRS).")
    found_by = np.zeros(n, dtype=np.int16)
    for group in rows.values():
        found_by[group] += 1
    joined["nMethods"] = Column(found_by, description="Number of methods that found the source.")
    for method, table in sources.items():
        group = rows[method]
        found = np.zeros(n, dtype=bool)
        found[group] = True
        joined[f"{method}_found"] = Column(found, description=f"Found by {method}.")
        _spread(joined, table, group, n, method, skip=set(_KEYS[1:]))
        for measured in (tables.get(method) for tables in (diagnostics, classification or {}, truth or {})):
            if measured is None:
                continue
            _, own, theirs = np.intersect1d(
                np.asarray(table["diaSourceId"]), np.asarray(measured["diaSourceId"]), return_indices=True
            )
            _spread(joined, measured[theirs], group[own], n, method, skip=set(_KEYS))
    return joined


def _match(
    x: np.ndarray, y: np.ndarray, group_x: np.ndarray, group_y: np.ndarray, radius: float
) -> np.ndarray:
    """Return the group of each source, -1 for none: mutually nearest within the radius."""
    group = np.full(len(x), -1)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    finite_group = np.flatnonzero(np.isfinite(group_x) & np.isfinite(group_y))
    if len(finite) == 0 or len(finite_group) == 0:
        return group
    own = scipy.spatial.cKDTree(np.stack([x, y], axis=-1)[finite])
    theirs = scipy.spatial.cKDTree(np.stack([group_x, group_y], axis=-1)[finite_group])
    distance, nearest = theirs.query(own.data)
    _, back = own.query(theirs.data)
    mutual = np.flatnonzero((distance <= radius) & (back[nearest] == np.arange(len(finite))))
    group[finite[mutual]] = finite_group[nearest[mutual]]
    return group


def _first_values(
    sources: Mapping[str, Table], rows: Mapping[str, np.ndarray], n: int
) -> dict[str, np.ndarray]:
    """Return columns common to all methods, each row from the first method that has the group."""
    values: dict[str, np.ndarray] = {}
    for name in ("visit", "detector", "band", "ra", "dec"):
        if not sources or not all(name in table.colnames for table in sources.values()):
            continue
        dtype = np.result_type(*[np.asarray(table[name]).dtype for table in sources.values()])
        column = np.zeros(n, dtype=dtype)
        for method in reversed(list(sources)):
            column[rows[method]] = np.asarray(sources[method][name])
        values[name] = column
    return values


def _spread(joined: Table, table: Table, group: np.ndarray, n: int, method: str, skip: set[str]) -> None:
    """Add a method's columns to the joined table, at the rows of its groups."""
    for name in table.colnames:
        if name in skip:
            continue
        source = table[name]
        values = np.zeros((n, *source.shape[1:]), dtype=source.dtype)
        if values.dtype.kind == "f":
            values[:] = np.nan
        values[group] = np.asarray(source)
        joined[f"{method}_{name}"] = Column(values, unit=source.unit, description=source.description)
