"""Unique pairs of two sets of positions, the best of all possible sets of pairs."""

from __future__ import annotations

__all__ = ["Pairs", "match_positions", "tangent_plane"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.spatial


@dataclass(frozen=True)
class Pairs:
    """Pairs of a first and a second set of positions.

    Parameters
    ----------
    first, second : `numpy.ndarray`, (P,)
        Index in each set; no index is there twice.
    distance : `numpy.ndarray`, (P,)
        Their distance, in the unit of the positions.
    """

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray


def tangent_plane(ra: np.ndarray, dec: np.ndarray, ra_centre: float, dec_centre: float) -> np.ndarray:
    """Project sky positions to a plane (gnomonic).

    Parameters
    ----------
    ra, dec : `numpy.ndarray`, (N,)
        Positions [degree].
    ra_centre, dec_centre : `float`
        Point of contact [degree].

    Returns
    -------
    position : `numpy.ndarray`, (N, 2)
        Offsets to the east and the north [arcsec].
    """
    longitude = np.deg2rad(np.asarray(ra, dtype=float) - ra_centre)
    latitude, latitude0 = np.deg2rad(np.asarray(dec, dtype=float)), np.deg2rad(dec_centre)
    cosine = np.sin(latitude0) * np.sin(latitude) + np.cos(latitude0) * np.cos(latitude) * np.cos(longitude)
    east = np.cos(latitude) * np.sin(longitude)
    north = np.cos(latitude0) * np.sin(latitude) - np.sin(latitude0) * np.cos(latitude) * np.cos(longitude)
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = np.stack([east, north], axis=-1) / np.where(cosine > 0, cosine, np.nan)[..., None]
    return np.rad2deg(plane) * 3600.0


def match_positions(
    first: np.ndarray,
    second: np.ndarray,
    radius: float,
    compatible: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Pairs:
    """Pair two sets of positions, each position at most once.

    Of all sets of pairs closer than the radius that one is taken which makes the sum of 1 - (distance / radius)^2
    largest: what is most likely where positions have Gaussian errors and a pair at the radius is worth no more
    than none.

    Parameters
    ----------
    first, second : `numpy.ndarray`, (N, 2) and (M, 2)
        Positions on a plane; those that are not finite have no pair.
    radius : `float`
        Largest distance of a pair, in the unit of the positions.
    compatible : callable, optional
        Function of indices in the first and the second set that tells which pairs may be.

    Returns
    -------
    pairs : `Pairs`
        The pairs, in the order of the first set.
    """
    if not radius > 0:
        raise ValueError(f"The radius of a match must be positive, got {radius}.")
    rows, columns, distance = _close_pairs(first, second, radius)
    if compatible is not None and len(rows):
        allowed = compatible(rows, columns)
        rows, columns, distance = rows[allowed], columns[allowed], distance[allowed]
    if len(rows) == 0:
        return Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    n_first, n_second = len(first), len(second)
    graph = scipy.sparse.coo_array(
        (np.ones(len(rows)), (rows, n_first + columns)), shape=(n_first + n_second,) * 2
    )
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    component = label[rows]
    size = np.bincount(component)
    alone = size[component] == 1
    chosen = [np.flatnonzero(alone)]
    # Positions that compete for each other are few: each such group is solved on its own.
    order = np.argsort(component, kind="stable")
    order = order[~alone[order]]
    edges = np.flatnonzero(np.diff(component[order])) + 1
    for members in np.split(order, edges) if len(order) else ():
        own_rows, row = np.unique(rows[members], return_inverse=True)
        own_columns, column = np.unique(columns[members], return_inverse=True)
        gain = np.zeros((len(own_rows), len(own_columns)))
        number = np.full(gain.shape, -1)
        gain[row, column] = 1.0 - (distance[members] / radius) ** 2
        number[row, column] = members
        best = number[scipy.optimize.linear_sum_assignment(gain, maximize=True)]
        chosen.append(best[best >= 0])
    pairs = np.concatenate(chosen)
    pairs = pairs[np.argsort(rows[pairs], kind="stable")]
    return Pairs(rows[pairs], columns[pairs], distance[pairs])


def _close_pairs(
    first: np.ndarray, second: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    good_first = np.flatnonzero(np.isfinite(first).all(axis=-1))
    good_second = np.flatnonzero(np.isfinite(second).all(axis=-1))
    if len(good_first) == 0 or len(good_second) == 0:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    near = scipy.spatial.cKDTree(first[good_first]).sparse_distance_matrix(
        scipy.spatial.cKDTree(second[good_second]), radius, output_type="ndarray"
    )
    return good_first[near["i"]], good_second[near["j"]], near["v"]
