"""How good a matching kernel is, as a table: its shape over the field, where it extrapolates, how well it predicts."""

from __future__ import annotations

__all__ = ["kernel_quality"]

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from scipy.spatial import Delaunay, QhullError, cKDTree

from ._kernel_fit import KernelFit
from ._kernel_sources import KernelSources

_GRID = 9
"""Positions a side, corners of the image included: that is where a kernel goes wrong first."""


def kernel_quality(
    fit: KernelFit, sources: KernelSources, *, basis: str, order: int, smoothing: float, max_sum_error: float
) -> Table:
    """Describe a fitted kernel over its field.

    Parameters
    ----------
    fit : `KernelFit`
        The fit.
    sources : `KernelSources`
        Sources; those in use are the ones that the kernel rests on.
    basis : `str`
        Name of the basis.
    order : `int`
        Spatial order of the kernel's shape.
    smoothing : `float`
        Strength of the penalty on roughness; NaN for a basis without.
    max_sum_error : `float`
        Relative formal error of the kernel's sum above which it counts as extrapolated.

    Returns
    -------
    table : `astropy.table.Table`
        One row a position; what holds for the whole detector is repeated in every row.
    """
    box, field = fit.kernel.bounds, fit.kernel.field
    x, y = (
        axis.ravel()
        for axis in np.meshgrid(
            np.linspace(box.x.start, box.x.stop - 1, _GRID), np.linspace(box.y.start, box.y.stop - 1, _GRID)
        )
    )
    images = fit.kernel.evaluate(x, y)
    total, centroid_x, centroid_y, xx, yy, xy = _moments(images)
    terms = field.evaluate(x, y)
    sum_error = np.sqrt(np.einsum("na,ab,nb->n", terms, fit.sum_covariance, terms))
    used = np.stack([sources.x[sources.used], sources.y[sources.used]], axis=-1)
    positions = np.stack([x, y], axis=-1)
    outside = _outside_hull(used, positions)
    nearest = cKDTree(used).query(positions)[0] if len(used) else np.full(len(x), np.inf)

    columns: dict[str, tuple[np.ndarray, u.UnitBase | None, str]] = {
        "x": (x, u.pix, "Position."),
        "y": (y, u.pix, "Position."),
        "kernelSum": (
            total,
            None,
            "Sum of the kernel: flux scale of the unconvolved over the convolved image.",
        ),
        "kernelSumErr": (sum_error, None, "Formal error of the sum."),
        "centroidX": (centroid_x, u.pix, "First moment of the kernel: shift of the convolved image."),
        "centroidY": (centroid_y, u.pix, "First moment of the kernel: shift of the convolved image."),
        "momentXX": (xx, u.pix**2, "Second central moment: what the kernel adds to that of a source."),
        "momentYY": (yy, u.pix**2, "Second central moment: what the kernel adds to that of a source."),
        "momentXY": (xy, u.pix**2, "Second central moment: what the kernel adds to that of a source."),
        "nearestSource": (nearest, u.pix, "Distance to the nearest source that the kernel rests on."),
        "outsideHull": (outside, None, "Outside the convex hull of these sources."),
        "isExtrapolated": (
            outside | ~(sum_error <= max_sum_error * np.abs(total)),
            None,
            "Outside the hull, or the error of the sum is large.",
        ),
    }
    used_chi2, held_out = fit.chi2_after[sources.used], fit.chi2_held_out[sources.used]
    detector: dict[str, tuple[float | int | str, str]] = {
        "chi2Fitted": (_mean(used_chi2), "Mean reduced chi-square of sources in the fit."),
        "chi2HeldOut": (_mean(held_out), "The same, each predicted by a kernel fitted to others only."),
        "chi2HeldOutErr": (_mean_error(held_out), "Standard error of that mean."),
        "nSources": (int(sources.used.sum()), "Sources that the kernel rests on."),
        "nParameters": (fit.n_parameters, "Coefficients fitted."),
        "nEffective": (
            fit.n_effective,
            "How many of them the data determine, the others held by the penalty.",
        ),
        "condition": (fit.condition, "Condition number of the scaled normal matrix."),
        "basis": (basis, "Kernel basis."),
        "kernelOrder": (order, "Spatial order of the kernel's shape."),
        "smoothing": (smoothing, "Strength of the penalty on roughness; NaN for a basis without."),
    }
    table = Table()
    for name, (values, unit, description) in columns.items():
        table[name] = Column(values, unit=unit, description=description)
    for name, (value, description) in detector.items():
        table[name] = Column(np.full(len(x), value), description=description)
    return table


def _moments(images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return sum, centroid and central second moments of images (N, size, size), unweighted.

    A kernel has negative pixels, on which a weight would not converge; and unweighted moments add up under
    convolution.
    """
    size = images.shape[1]
    y, x = np.mgrid[:size, :size] - size // 2
    total = images.sum(axis=(1, 2))
    cx, cy = (np.einsum("nij,ij->n", images, axis) / total for axis in (x, y))
    xx, yy, xy = (np.einsum("nij,ij->n", images, product) / total for product in (x * x, y * y, x * y))
    return total, cx, cy, xx - cx**2, yy - cy**2, xy - cx * cy


def _outside_hull(points: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return which positions are outside the convex hull of points; all when these span no area."""
    try:
        return np.asarray(Delaunay(points).find_simplex(positions) < 0)
    except (QhullError, ValueError):
        return np.ones(len(positions), dtype=bool)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _mean_error(values: np.ndarray) -> float:
    n = int(np.isfinite(values).sum())
    return float(np.nanstd(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
