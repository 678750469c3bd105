"""Bases of matching kernels: Gaussians times polynomials, and one pixel each with a penalty on roughness.

Alard & Lupton (1998, eq. 6); Becker et al. (2012, MNRAS 425, 1341, section 2). In every basis the first kernel has
unit sum and all others zero sum, so that its coefficient is the kernel's sum.
"""

from __future__ import annotations

__all__ = ["KernelBasis", "delta_basis", "gaussian_polynomial_basis", "roughness_matrix"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EXTENT_IN_SIGMA = 3.0
"""Where the widest Gaussian, which only fits the wings, is cut: there it is 1 % of its peak."""


@dataclass(frozen=True)
class KernelBasis:
    """Kernels whose sum is fitted, and how they may vary.

    Parameters
    ----------
    name : `str`
        What kind they are.
    images : `numpy.ndarray`, (n_kernels, size, size)
        Kernels; the first has unit sum, the others zero sum.
    varies : `numpy.ndarray`, (n_kernels,), bool
        Kernels whose coefficients vary over the field; those of the others are constant.
    penalty : `numpy.ndarray` or `None`, (n_kernels, n_kernels)
        Quadratic form of the coefficients that is kept small; none for a basis that is smooth by itself.
    """

    name: str
    images: np.ndarray
    varies: np.ndarray
    penalty: np.ndarray | None = None


def gaussian_polynomial_basis(
    sigmas: Sequence[float], degrees: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Make kernels exp(-r^2 / 2 sigma^2) x^i y^j with i + j <= the degree of each Gaussian.

    Parameters
    ----------
    sigmas : sequence [`float`]
        Widths of the Gaussians [pixel].
    degrees : sequence [`int`]
        Largest total degree of the polynomial on each.

    Returns
    -------
    basis : `numpy.ndarray`, (n_kernels, size, size)
        Kernels on an odd grid that holds the widest Gaussian to 3 sigma.
    degrees : `numpy.ndarray`, (n_kernels,)
        Degree i + j of each kernel.
    """
    half = int(np.ceil(_EXTENT_IN_SIGMA * max(sigmas)))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    kernels, own_degrees = [], []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        gaussian = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
        for i in range(degree + 1):
            for j in range(degree + 1 - i):
                own_degrees.append(i + j)
                kernels.append(gaussian * (x / sigma) ** i * (y / sigma) ** j)
    first = kernels[0] / kernels[0].sum()
    others = [kernel - kernel.sum() * first for kernel in kernels[1:]]
    basis = np.stack([first] + [kernel / np.sqrt((kernel**2).sum()) for kernel in others])
    return basis, np.array(own_degrees)


def delta_basis(half_size: int) -> np.ndarray:
    """Make kernels of one pixel each: the central one, and every other one minus the central one.

    Parameters
    ----------
    half_size : `int`
        Half the side of the kernels, without their centre [pixel].

    Returns
    -------
    basis : `numpy.ndarray`, (size**2, size, size)
        Kernels, with size = 2 half_size + 1.
    """
    size = 2 * half_size + 1
    centre = size**2 // 2
    others = np.delete(np.eye(size**2), centre, axis=0)
    others[:, centre] = -1.0
    first = np.zeros((1, size**2))
    first[0, centre] = 1.0
    return np.concatenate([first, others]).reshape(-1, size, size)


def roughness_matrix(basis: np.ndarray, difference: str) -> np.ndarray:
    """Return the quadratic form of a kernel's coefficients that is the sum of its squared differences.

    Kernels are continued by zeros, so that a step at the border counts too.

    Parameters
    ----------
    basis : `numpy.ndarray`, (n_kernels, size, size)
        Kernels.
    difference : `str`
        "forward": first differences of neighbours in x and in y. "central": second differences, the sum of those in
        x and in y.

    Returns
    -------
    matrix : `numpy.ndarray`, (n_kernels, n_kernels)
        The form.
    """
    padded = np.pad(basis, ((0, 0), (1, 1), (1, 1)))
    if difference == "forward":
        parts = [np.diff(padded, axis=1), np.diff(padded, axis=2)]
    elif difference == "central":
        wider = np.pad(padded, ((0, 0), (1, 1), (1, 1)))
        parts = [np.diff(wider, 2, axis=1)[:, :, 1:-1] + np.diff(wider, 2, axis=2)[:, 1:-1, :]]
    else:
        raise ValueError(f"difference must be 'forward' or 'central', got {difference!r}.")
    flat = np.concatenate([part.reshape(len(basis), -1) for part in parts], axis=1)
    return flat @ flat.T
