"""Basis of matching kernels: Gaussians times polynomials (Alard & Lupton 1998, eq. 6)."""

from __future__ import annotations

__all__ = ["gaussian_polynomial_basis"]

from collections.abc import Sequence

import numpy as np

_EXTENT_IN_SIGMA = 3.0
"""Where the widest Gaussian, which only fits the wings, is cut: there it is 1 % of its peak."""


def gaussian_polynomial_basis(
    sigmas: Sequence[float], degrees: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Make kernels exp(-r^2 / 2 sigma^2) x^i y^j with i + j <= the degree of each Gaussian.

    The first kernel has unit sum and all others zero sum, so that its coefficient is the kernel's sum.

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
