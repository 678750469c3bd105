"""Images that every stamp has but few numbers describe: PSFs and filters at the sources."""

from __future__ import annotations

__all__ = ["StampModel"]

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..psf import PixelBasis


@dataclass(frozen=True)
class StampModel:
    """N centred images, as linear combinations of M shared ones or each by itself.

    Parameters
    ----------
    coefficients : `numpy.ndarray`, (N, M), or `None`
        Weights of the shared images for each source; None when each source has an image of its own.
    basis : `numpy.ndarray`, (M, size, size) or (N, size, size)
        The shared images, or those of the sources; of odd size.
    """

    coefficients: np.ndarray | None
    basis: np.ndarray

    @classmethod
    def from_pixel_basis(cls, basis: PixelBasis, x: np.ndarray, y: np.ndarray) -> Self:
        """Take a PSF or filter that varies over a detector at the positions of sources [pixel]."""
        return cls(basis.coefficients(x, y), basis.basis)

    @classmethod
    def from_images(cls, images: np.ndarray) -> Self:
        """Hold one image (N, size, size) for each source, as alert packets have them."""
        return cls(None, np.asarray(images))

    def __len__(self) -> int:
        return len(self.basis if self.coefficients is None else self.coefficients)

    def images(self) -> np.ndarray:
        """Return the images, shape (N, size, size)."""
        if self.coefficients is None:
            return self.basis
        size = self.basis.shape[-1]
        return (self.coefficients @ self.basis.reshape(len(self.basis), -1)).reshape(-1, size, size)

    def __getitem__(self, index: slice | np.ndarray) -> StampModel:
        if self.coefficients is None:
            return StampModel(None, self.basis[index])
        return StampModel(self.coefficients[index], self.basis)
