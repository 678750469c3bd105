"""Non-linear weighted least squares of a few point sources that depend on common parameters: one, two lobes, a trail.

The model of a stamp is sum_k a_k(p) P(x - c_k(p)), with P its PSF. The method is that of Levenberg and Marquardt; each
stamp is fitted by itself, because all that a stamp's fit needs then stays in the processor's cache.
"""

from __future__ import annotations

__all__ = ["LOBES", "POINT", "TRAIL", "PointSourceFit", "fit_point_sources"]

from dataclasses import dataclass

import numpy as np

from ..compiled import compiled
from ..stamps import NOWHERE, FineImages, fine_weights, move_fine_image, row_length

_FIRST_DAMPING = 1e-2
_LARGEST_DAMPING = 1e8

POINT, LOBES, TRAIL = 0, 1, 2
"""Models, with their parameters: a point source (x, y, flux); two lobes (x, y, separation in x and y from the negative
to the positive one, mean flux m, difference q; the fluxes are m + q / 2 and -(m - q / 2)); a trail (midpoint x, y,
vector from there to one end, flux)."""

_N_PARAMETERS = {POINT: 3, LOBES: 6, TRAIL: 5}

_RULES = [(np.polynomial.legendre.leggauss(n), length) for n, length in ((4, 4.0), (8, 12.0), (15, np.inf))]
"""Gauss-Legendre nodes and weights, and the longest trail [pixel] for which they are enough: a node every 1.5 pixels,
the sigma of a PSF of 3.5 pixels full width at half maximum. The last is good to 30 pixels."""

_MOST_NODES = 15

_LONGEST = np.array([length for _, length in _RULES])
_FIRST_NODE = np.cumsum([0, *(len(nodes) for (nodes, _), _ in _RULES)])
_NODES = np.concatenate([nodes for (nodes, _), _ in _RULES])
_SHARES = np.concatenate([0.5 * shares for (_, shares), _ in _RULES])


@dataclass(frozen=True)
class PointSourceFit:
    """Result of `fit_point_sources` for N stamps and P parameters.

    Parameters
    ----------
    parameters : `numpy.ndarray`, (N, P)
        Best-fitting parameters; NaN where a fit was not possible.
    covariance : `numpy.ndarray`, (N, P, P)
        Inverse of the curvature of chi-square / 2 there; infinite or NaN where it is singular.
    chi2 : `numpy.ndarray`, (N,)
        Chi-square of the pixels.
    n_data : `numpy.ndarray`, (N,)
        Pixels with positive weight.
    converged : `numpy.ndarray`, (N,), bool
        Whether chi-square stopped falling within the iterations.
    """

    parameters: np.ndarray
    covariance: np.ndarray
    chi2: np.ndarray
    n_data: np.ndarray
    converged: np.ndarray


def fit_point_sources(
    kind: int,
    psf: FineImages,
    rows: np.ndarray,
    data: np.ndarray,
    weight: np.ndarray,
    start: np.ndarray,
    *,
    limits: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
    max_iterations: int = 30,
    tolerance: float = 0.01,
) -> PointSourceFit:
    """Minimise sum_i w_i (d_i - m_i(p))^2 in each stamp.

    Parameters
    ----------
    kind : `int`
        `POINT`, `LOBES` or `TRAIL`.
    psf : `FineImages`
        PSFs of stamps.
    rows : `numpy.ndarray`, (n,), int
        Which stamps to fit, by their numbers in all of the other arrays.
    data, weight : `numpy.ndarray`, (N, size * size), float32
        Pixels, which must be finite, and inverse variances, zero for pixels to leave out.
    start : `numpy.ndarray`, (n, P)
        Parameters to start from.
    limits : `numpy.ndarray`, (P,)
        Largest absolute values of parameters, infinite for none.
    prior : `tuple` [`numpy.ndarray`, `numpy.ndarray`], optional
        Expected parameters and inverse variances of them, (n, P); zero for no expectation.
    max_iterations : `int`, optional
        Most steps.
    tolerance : `float`, optional
        A step that lowers chi-square by less ends the fit.

    Returns
    -------
    fit : `PointSourceFit`
        Of the n stamps.
    """
    n, n_parameters = len(rows), _N_PARAMETERS[kind]
    parameters = np.array(start, dtype=float)
    expected, stiffness = prior if prior is not None else (np.zeros_like(parameters),) * 2
    curvature = np.full((n, n_parameters, n_parameters), np.nan)
    chi2 = np.full(n, np.nan)
    n_data, converged = np.zeros(n, dtype=int), np.zeros(n, dtype=bool)
    _fit_all(
        kind,
        psf.samples,
        np.ascontiguousarray(rows),
        np.ascontiguousarray(data),
        np.ascontiguousarray(weight),
        fine_weights(),
        limits,
        expected,
        stiffness,
        max_iterations,
        tolerance,
        parameters,
        curvature,
        chi2,
        n_data,
        converged,
    )
    parameters[np.isnan(chi2)] = np.nan
    return PointSourceFit(parameters, _invert(curvature), chi2, n_data, converged)


def _invert(matrices: np.ndarray) -> np.ndarray:
    """Invert symmetric matrices (N, P, P) scaled to unit diagonal; NaN where one is singular."""
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 1e-300))
    scaled = matrices * scale[:, :, None] * scale[:, None, :]
    possible = np.isfinite(scaled).all(axis=(1, 2))
    scaled[~possible] = np.eye(matrices.shape[-1])
    values, vectors = np.linalg.eigh(scaled)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
    possible &= (values > 1e-10).all(axis=1)
    inverse[~possible] = np.nan
    return inverse * scale[:, :, None] * scale[:, None, :]


@compiled
def _describe(kind: int, at: np.ndarray, places: np.ndarray, share: np.ndarray) -> int:
    """Fill places (K, 2) of point sources and what they add to model and derivatives; return their number K.

    ``share`` (K, P + 1, 3) holds factors of the PSF at the place and of its derivatives by x and y; those of the model
    are last.
    """
    share[:] = 0.0
    model = len(at)
    if kind == LOBES:
        x, y, along_x, along_y, mean, difference = at
        for k in range(2):
            sign = 1.0 if k == 0 else -1.0
            flux = mean + sign * 0.5 * difference
            places[k, 0], places[k, 1] = x + sign * 0.5 * along_x, y + sign * 0.5 * along_y
            share[k, 0, 1] = share[k, 1, 2] = sign * flux
            share[k, 2, 1] = share[k, 3, 2] = 0.5 * flux
            share[k, 4, 0], share[k, 5, 0] = sign, 0.5
            share[k, model, 0] = sign * flux
        return 2
    if kind == TRAIL:
        x, y, half_x, half_y, flux = at
        length = 2.0 * np.hypot(half_x, half_y)
        rule = 0
        while not length <= _LONGEST[rule] and rule < len(_LONGEST) - 1:
            rule += 1
        first = _FIRST_NODE[rule]
        n_nodes = _FIRST_NODE[rule + 1] - first
        for k in range(n_nodes):
            node, part = _NODES[first + k], _SHARES[first + k]
            places[k, 0], places[k, 1] = x + node * half_x, y + node * half_y
            share[k, 0, 1] = share[k, 1, 2] = flux * part
            share[k, 2, 1] = share[k, 3, 2] = flux * part * node
            share[k, 4, 0] = part
            share[k, model, 0] = flux * part
        return n_nodes
    places[0, 0], places[0, 1] = at[0], at[1]
    share[0, 0, 1] = share[0, 1, 2] = at[2]
    share[0, 2, 0], share[0, model, 0] = 1.0, at[2]
    return 1


@compiled
def _solve(matrix: np.ndarray, right: np.ndarray) -> bool:
    """Solve a small system in place, the solution in ``right``; return whether there is one."""
    n = len(right)
    for p in range(n):
        best = p
        for q in range(p + 1, n):
            if abs(matrix[q, p]) > abs(matrix[best, p]):
                best = q
        if not abs(matrix[best, p]) > 0.0:
            return False
        if best != p:
            for r in range(n):
                matrix[p, r], matrix[best, r] = matrix[best, r], matrix[p, r]
            right[p], right[best] = right[best], right[p]
        for q in range(p + 1, n):
            factor = matrix[q, p] / matrix[p, p]
            for r in range(p, n):
                matrix[q, r] -= factor * matrix[p, r]
            right[q] -= factor * right[p]
    for p in range(n - 1, -1, -1):
        total = right[p]
        for r in range(p + 1, n):
            total -= matrix[p, r] * right[r]
        right[p] = total / matrix[p, p]
    return True


@compiled
def _add(target: np.ndarray, factor: np.float32, image: np.ndarray) -> None:
    for k in range(len(target)):
        target[k] += factor * image[k]


@compiled
def _product(first: np.ndarray, second: np.ndarray) -> np.float32:
    total = np.float32(0.0)
    for k in range(len(first)):
        total += first[k] * second[k]
    return total


@compiled
def _fit_all(
    kind: int,
    samples: np.ndarray,
    rows: np.ndarray,
    data: np.ndarray,
    weight: np.ndarray,
    polynomials: np.ndarray,
    limits: np.ndarray,
    expected: np.ndarray,
    stiffness: np.ndarray,
    max_iterations: int,
    tolerance: float,
    parameters: np.ndarray,
    curvature: np.ndarray,
    chi2: np.ndarray,
    n_data: np.ndarray,
    converged: np.ndarray,
) -> None:
    """Fit each of the rows, from its parameters on."""
    n_parameters = parameters.shape[1]
    size = int(np.rint(np.sqrt(data.shape[1])))
    width = row_length(size)
    # For each of the places, since they move little.
    windows, held = (
        np.empty((_MOST_NODES, 2, 2, width, width), np.float32),
        np.empty((_MOST_NODES, 2), np.int64),
    )
    partial = np.empty((2, 2, size * width + width - size), np.float32)
    images = np.empty((3, size * width), np.float32)
    # Model and derivatives; those times the weight.
    columns = np.empty((n_parameters + 1, size * width), np.float32)
    weighted = np.empty((n_parameters + 1, size * width), np.float32)
    own_data, own_weight = np.zeros(size * width, np.float32), np.zeros(size * width, np.float32)
    places, share = np.empty((_MOST_NODES, 2)), np.empty((_MOST_NODES, n_parameters + 1, 3))
    normal, right = np.empty((n_parameters, n_parameters)), np.empty(n_parameters)
    own_normal, own_right = np.empty((n_parameters, n_parameters)), np.empty(n_parameters)
    damped, step, scale = (
        np.empty((n_parameters, n_parameters)),
        np.empty(n_parameters),
        np.empty(n_parameters),
    )
    proposed = np.empty(n_parameters)
    for n in range(len(rows)):
        row, at = rows[n], parameters[n]
        number = 0
        for i in range(size):
            for j in range(size):
                value = weight[row, i * size + j]
                own_data[i * width + j], own_weight[i * width + j] = data[row, i * size + j], value
                number += value > np.float32(0.0)
        n_data[n] = number
        if number <= n_parameters or not np.isfinite(at).all():
            continue
        held[:] = NOWHERE
        damping, cost = _FIRST_DAMPING, np.inf
        proposed[:] = at
        for iteration in range(max_iterations + 1):
            if iteration:
                largest = 0.0
                for p in range(n_parameters):
                    largest = max(largest, own_normal[p, p])
                finite = True
                for p in range(n_parameters):
                    # A parameter that the pixels say nothing about stays where it is.
                    scale[p] = 1.0 / np.sqrt(max(own_normal[p, p], 1e-12 * largest + 1e-300))
                for p in range(n_parameters):
                    step[p] = own_right[p] * scale[p]
                    for q in range(n_parameters):
                        damped[p, q] = own_normal[p, q] * scale[p] * scale[q]
                        finite &= np.isfinite(damped[p, q])
                    damped[p, p] = 1.0 + damping
                if not finite or not _solve(damped, step):
                    step[:] = 0.0
                for p in range(n_parameters):
                    proposed[p] = min(max(at[p] + step[p] * scale[p], -limits[p]), limits[p])
            n_places = _describe(kind, proposed, places, share)
            columns[:] = 0.0
            for k in range(n_places):
                move_fine_image(
                    samples[row],
                    places[k, 0],
                    places[k, 1],
                    size,
                    polynomials,
                    windows[k],
                    held[k],
                    partial,
                    images,
                )
                for p in range(n_parameters + 1):
                    for part in range(3):
                        if share[k, p, part] != 0.0:
                            _add(columns[p], np.float32(share[k, p, part]), images[part])
            residual = columns[n_parameters]
            for k in range(len(residual)):
                residual[k] = own_data[k] - residual[k]
            for p in range(n_parameters + 1):
                for k in range(len(residual)):
                    weighted[p, k] = columns[p, k] * own_weight[k]
            pixels = float(_product(weighted[n_parameters], residual))
            total = pixels
            for p in range(n_parameters):
                offset = expected[n, p] - proposed[p]
                right[p] = _product(weighted[p], residual) + stiffness[n, p] * offset
                total += stiffness[n, p] * offset**2
                for q in range(p + 1):
                    normal[p, q] = normal[q, p] = _product(weighted[p], columns[q])
                normal[p, p] += stiffness[n, p]
            fall = cost - total
            better = fall >= 0 or iteration == 0
            if better:
                at[:], own_normal[:], own_right[:] = proposed, normal, right
                chi2[n], cost = pixels, total
            if iteration == 0:
                continue
            damping *= 0.2 if better else 8.0
            # Where no step lowers chi-square any more the minimum is reached as well as float32 can tell.
            if (better and fall < tolerance) or damping > _LARGEST_DAMPING:
                converged[n] = True
                break
        curvature[n] = own_normal
