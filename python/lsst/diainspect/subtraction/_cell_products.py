"""Products of a cell's transforms with filters, each in one pass: array operations move all numbers through memory once
for every product and every sum."""

from __future__ import annotations

__all__ = ["add_products", "slope_products"]

import numpy as np

from ..compiled import compiled


@compiled
def add_products(filters: tuple[np.ndarray, ...], transforms: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the sum over one or two images of filter times transform.

    Parameters
    ----------
    filters, transforms : `tuple` [`numpy.ndarray`, ...], each (window, window // 2 + 1), complex64
        Filters, and transforms of the images that they filter.
    """
    total = np.empty_like(transforms[0])
    for j in range(total.shape[0]):
        # Rows, of which the compiler can see that they do not wrap around.
        row, kernel, image = total[j], filters[0][j], transforms[0][j]
        if len(filters) > 1:
            other_kernel, other_image = filters[1][j], transforms[1][j]
            for i in range(len(row)):
                row[i] = kernel[i] * image[i] + other_kernel[i] * other_image[i]
        else:
            for i in range(len(row)):
                row[i] = kernel[i] * image[i]
    return total


@compiled
def slope_products(
    before: tuple[np.ndarray, ...], behind: tuple[np.ndarray, ...], transforms: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Return the sum over one or two images of the difference of two filters, ``behind - before``, times transform.

    Parameters
    ----------
    before, behind, transforms : `tuple` [`numpy.ndarray`, ...], each (window, window // 2 + 1), complex64
        Filters at two positions, and transforms of the images that they filter.
    """
    total = np.empty_like(transforms[0])
    for j in range(total.shape[0]):
        row, near, far, image = total[j], before[0][j], behind[0][j], transforms[0][j]
        if len(before) > 1:
            other_near, other_far, other_image = before[1][j], behind[1][j], transforms[1][j]
            for i in range(len(row)):
                row[i] = (far[i] - near[i]) * image[i] + (other_far[i] - other_near[i]) * other_image[i]
        else:
            for i in range(len(row)):
                row[i] = (far[i] - near[i]) * image[i]
    return total
