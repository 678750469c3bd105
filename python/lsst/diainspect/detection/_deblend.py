"""Fluxes of sources that overlap, fitted jointly, and the light of each one's neighbours.

In a group of sources the fluxes f solve A f = b with A_ij = sum w P_i P_j and b_i = sum w P_i D over the good pixels:
the linear least-squares fit of all PSFs to the union of their stamps (Stetson 1987, eq. 4, without its shifts). Where
a source stands alone this is its own PSF fit.
"""

from __future__ import annotations

__all__ = ["Blends", "JointFit", "find_blends", "fit_jointly", "subtract_neighbours"]

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.spatial

from ..stamps import stamp_origin
from ._cutouts import FittedImage

_LARGEST_GROUP = 64
"""Larger groups, as in the residuals of a failed subtraction, fall apart at their longest links."""

_SHRINK = 0.8
"""Factor by which links of too large a group are shortened."""

_MAX_CONDITION = 1e8
"""Groups with a worse normal matrix, of unit diagonal, have no joint solution."""

_PAIRS = 1024
"""Pairs handled at a time, which keeps memory flat."""


@dataclass(frozen=True)
class Blends:
    """Which of N sources overlap.

    Parameters
    ----------
    pairs : `numpy.ndarray`, (M, 2), int
        Pairs of sources of one group that overlap, each once.
    group : `numpy.ndarray`, (N,), int
        Label of the group of each source; one that stands alone has its own.
    """

    pairs: np.ndarray
    group: np.ndarray

    @property
    def blended(self) -> np.ndarray:
        """Indices of the sources with neighbours, sorted by group."""
        members = np.flatnonzero(self.group_sizes > 1)
        return members[np.argsort(self.group[members], kind="stable")]

    @property
    def group_sizes(self) -> np.ndarray:
        """Number of sources in the group of each source, (N,)."""
        return np.bincount(self.group, minlength=1)[self.group] if len(self.group) else self.group


@dataclass(frozen=True)
class JointFit:
    """Fluxes of N sources and their errors [nJy]; NaN for sources that stand alone or could not be fitted."""

    flux: np.ndarray
    flux_error: np.ndarray


def find_blends(x: np.ndarray, y: np.ndarray, distance: float) -> Blends:
    """Link sources to groups.

    Parameters
    ----------
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].
    distance : `float`
        Sources closer than this overlap [pixel].
    """
    n = len(x)
    if n == 0:
        return Blends(np.zeros((0, 2), dtype=int), np.zeros(0, dtype=int))
    pairs = scipy.spatial.cKDTree(np.stack([x, y], axis=-1)).query_pairs(distance, output_type="ndarray")
    length = np.hypot(x[pairs[:, 0]] - x[pairs[:, 1]], y[pairs[:, 0]] - y[pairs[:, 1]])
    while True:
        links = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        _, group = scipy.sparse.csgraph.connected_components(links, directed=False)
        crowded = np.bincount(group)[group[pairs[:, 0]]] > _LARGEST_GROUP
        if not crowded.any():
            return Blends(pairs, group)
        distance *= _SHRINK
        keep = ~crowded | (length <= distance)
        pairs, length = pairs[keep], length[keep]


def fit_jointly(image: FittedImage, x: np.ndarray, y: np.ndarray, blends: Blends) -> JointFit:
    """Fit the PSF fluxes of all sources with neighbours.

    Parameters
    ----------
    image : `FittedImage`
        Image.
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].
    blends : `Blends`
        Groups.
    """
    n = len(x)
    flux, error = np.full(n, np.nan), np.full(n, np.nan)
    diagonal, right, mixed = np.zeros(n), np.zeros(n), np.zeros(len(blends.pairs))
    for chosen in _chunks(blends):
        members, local = np.unique(blends.pairs[chosen], return_inverse=True)
        first, second = local.reshape(-1, 2).T
        cut = image.cut(x[members], y[members])
        model = image.models(x[members], y[members], cut.x0, cut.y0)
        weighted = cut.weight * model
        diagonal[members] = np.einsum("nij,nij->n", weighted, model)
        right[members] = np.einsum("nij,nij->n", weighted, np.where(cut.weight > 0, cut.pixels, 0.0))
        other = _moved(model, second, cut.x0[second] - cut.x0[first], cut.y0[second] - cut.y0[first])
        mixed[chosen] = np.einsum("nij,nij->n", weighted[first], other)

    members = blends.blended
    sizes = blends.group_sizes[members]
    slot = np.zeros(n, dtype=int)
    starts = np.flatnonzero(np.diff(blends.group[members], prepend=-1))
    slot[members] = np.arange(len(members)) - np.repeat(starts, sizes[starts])
    for size in np.unique(sizes):
        these = members[sizes == size].reshape(-1, size)
        row = np.zeros(n, dtype=int)
        row[these] = np.arange(len(these))[:, None]
        normal = np.zeros((len(these), size, size))
        normal[:, np.arange(size), np.arange(size)] = diagonal[these]
        inside = blends.group_sizes[blends.pairs[:, 0]] == size
        i, j = blends.pairs[inside].T
        normal[row[i], slot[i], slot[j]] = normal[row[i], slot[j], slot[i]] = mixed[inside]
        flux[these], error[these] = _solve(normal, right[these])
    return JointFit(flux, error)


def _solve(normal: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve normal equations (G, k, k); sources without good pixels and singular groups are NaN."""
    diagonal = np.diagonal(normal, axis1=1, axis2=2)
    seen = diagonal > 0
    scale = 1.0 / np.sqrt(np.where(seen, diagonal, 1.0))
    scaled = normal * scale[:, :, None] * scale[:, None, :]
    # A source that no pixel shows has a zero row: a one on its diagonal lets the others be solved.
    scaled += np.where(seen, 0.0, 1.0)[:, :, None] * np.eye(normal.shape[1])
    solvable = np.linalg.cond(scaled) < _MAX_CONDITION
    scaled[~solvable] = np.eye(normal.shape[1])
    covariance = np.linalg.inv(scaled) * scale[:, :, None] * scale[:, None, :]
    known = seen & solvable[:, None]
    flux = np.einsum("gij,gj->gi", covariance, right)
    error = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return np.where(known, flux, np.nan), np.where(known, error, np.nan)


def subtract_neighbours(
    pixels: np.ndarray,
    x0: np.ndarray,
    y0: np.ndarray,
    rows: np.ndarray,
    neighbours: np.ndarray,
    image: FittedImage,
    x: np.ndarray,
    y: np.ndarray,
    flux: np.ndarray,
) -> None:
    """Subtract the fitted light of other sources from stamps, in place.

    Parameters
    ----------
    pixels : `numpy.ndarray`, (N, size, size)
        Stamps.
    x0, y0 : `numpy.ndarray`, (N,), int
        Their lower-left pixels.
    rows, neighbours : `numpy.ndarray`, (M,), int
        Which stamp, and the source whose light is taken from it.
    image : `FittedImage`
        Image that the stamps are from.
    x, y, flux : `numpy.ndarray`, (n_sources,)
        Positions [pixel] and fluxes [nJy] of the sources; one without a flux takes nothing away.
    """
    for start in range(0, len(rows), _PAIRS):
        row, other = rows[start : start + _PAIRS], neighbours[start : start + _PAIRS]
        members, local = np.unique(other, return_inverse=True)
        own_x0, own_y0 = stamp_origin(x[members], y[members], image.size)
        light = image.models(x[members], y[members], own_x0, own_y0)
        light *= np.nan_to_num(flux[members])[:, None, None]
        light = _moved(light, local, own_x0[local] - x0[row], own_y0[local] - y0[row])
        np.subtract.at(pixels, row, light.astype(pixels.dtype))


def _chunks(blends: Blends) -> list[np.ndarray]:
    """Split the pairs into pieces in which every member of a pair is there; returns indices of pairs."""
    order = np.argsort(blends.group[blends.pairs[:, 0]], kind="stable")
    return [order[start : start + _PAIRS] for start in range(0, len(order), _PAIRS)]


def _moved(images: np.ndarray, which: np.ndarray, right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return chosen images (M, size, size) moved by whole pixels, zero where nothing comes in."""
    size = images.shape[-1]
    # A row and a column of zeros stand for all that lies outside.
    padded = np.pad(images, ((0, 0), (0, 1), (0, 1)))
    rows, columns = (np.arange(size) - np.asarray(step)[:, None] for step in (up, right))
    rows, columns = (np.where((index >= 0) & (index < size), index, size) for index in (rows, columns))
    return np.asarray(padded[which[:, None, None], rows[:, :, None], columns[:, None, :]])
