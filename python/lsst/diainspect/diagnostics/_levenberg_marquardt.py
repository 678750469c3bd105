"""Non-linear weighted least squares for many stamps at once: the method of Levenberg and Marquardt, in step."""

from __future__ import annotations

__all__ = ["NonLinearFit", "fit_levenberg_marquardt"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..linear_fit import add_products

_FIRST_DAMPING = 1e-2
_LARGEST_DAMPING = 1e8


@dataclass(frozen=True)
class NonLinearFit:
    """Result of `fit_levenberg_marquardt` for N stamps and P parameters.

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


def fit_levenberg_marquardt(
    evaluate: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    data: np.ndarray,
    weight: np.ndarray,
    start: np.ndarray,
    *,
    restrict: Callable[[np.ndarray], np.ndarray],
    prior: tuple[np.ndarray, np.ndarray] | None = None,
    max_iterations: int = 30,
    tolerance: float = 0.01,
) -> NonLinearFit:
    """Minimise sum_i w_i (d_i - m_i(p))^2 in each stamp.

    Parameters
    ----------
    evaluate : callable
        Takes the numbers (n,) of stamps and their parameters (n, P); returns the models (n, n_pixels) and their
        derivatives (n, P, n_pixels).
    data, weight : `numpy.ndarray`, (N, n_pixels)
        Pixels, which must be finite, and inverse variances, zero for pixels to leave out.
    start : `numpy.ndarray`, (N, P)
        Parameters to start from.
    restrict : callable
        Takes parameters (n, P) after a step and returns them brought back to where they make sense.
    prior : `tuple` [`numpy.ndarray`, `numpy.ndarray`], optional
        Expected parameters and inverse variances of them, (N, P); zero for no expectation.
    max_iterations : `int`, optional
        Most steps.
    tolerance : `float`, optional
        A step that lowers chi-square by less ends the fit.

    Returns
    -------
    fit : `NonLinearFit`
        The stamps are fitted in step, and each drops out when it has converged.
    """
    n, n_parameters = start.shape
    parameters = np.array(start, dtype=float)
    n_data = (weight > 0).sum(axis=1)
    expected, stiffness = prior if prior is not None else (np.zeros_like(parameters),) * 2
    curvature = np.full((n, n_parameters, n_parameters), np.nan)
    slope = np.full((n, n_parameters), np.nan)
    cost = np.full(n, np.inf)
    chi2 = np.full(n, np.nan)
    converged = np.zeros(n, dtype=bool)
    damping = np.full(n, _FIRST_DAMPING)

    def linearise(rows: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        model, derivative = evaluate(rows, at)
        residual = data[rows] - model
        weighted = weight[rows]
        pixels = np.einsum("ni,ni->n", residual * weighted, residual).astype(float)
        normal, right = np.empty((len(rows), n_parameters, n_parameters)), np.empty((len(rows), n_parameters))
        add_products(residual, derivative, weighted, normal, right)
        offset = expected[rows] - at
        diagonal = np.arange(n_parameters)
        normal[:, diagonal, diagonal] += stiffness[rows]
        right += stiffness[rows] * offset
        return pixels, pixels + (stiffness[rows] * offset**2).sum(axis=1), normal, right

    active = np.flatnonzero((n_data > n_parameters) & np.isfinite(parameters).all(axis=1))
    if len(active):
        chi2[active], cost[active], curvature[active], slope[active] = linearise(active, parameters[active])
    for _ in range(max_iterations):
        if len(active) == 0:
            break
        damped = curvature[active].copy()
        diagonal = np.arange(n_parameters)
        own = damped[:, diagonal, diagonal]
        # A parameter that the pixels say nothing about stays where it is.
        own = np.maximum(own, 1e-12 * own.max(axis=1, keepdims=True) + 1e-300)
        damped[:, diagonal, diagonal] = own * (1.0 + damping[active, None])
        scale = 1.0 / np.sqrt(own)
        scaled = damped * scale[:, :, None] * scale[:, None, :]
        solvable = np.isfinite(scaled).all(axis=(1, 2))
        scaled[~solvable] = np.eye(n_parameters)
        step = np.linalg.solve(scaled, (slope[active] * scale)[..., None])[..., 0] * scale
        step[~solvable] = 0.0
        proposed = restrict(parameters[active] + step)
        pixels, total, normal, right = linearise(active, proposed)
        fall = cost[active] - total
        better = fall >= 0
        rows = active[better]
        parameters[rows], chi2[rows], cost[rows] = proposed[better], pixels[better], total[better]
        curvature[rows], slope[rows] = normal[better], right[better]
        damping[active] = np.where(better, 0.2 * damping[active], 8.0 * damping[active])
        done = (better & (fall < tolerance)) | (damping[active] > _LARGEST_DAMPING)
        converged[active[done & better]] = True
        # Where no step lowers chi-square any more the minimum is reached as well as float32 can tell.
        converged[active[done & ~better]] = True
        active = active[~done]
    covariance = _invert(curvature)
    parameters[~np.isfinite(cost)] = np.nan
    return NonLinearFit(parameters, covariance, chi2, n_data, converged)


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
