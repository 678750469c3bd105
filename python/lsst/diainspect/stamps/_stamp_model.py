"""Images that every stamp has but few numbers describe: PSFs and filters at the sources."""

from __future__ import annotations

__all__ = ["StampModel"]

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..psf import PixelBasis
from ._fine_images import FineImages
from ._movable_images import MovableImages
from ._shifted_basis import ShiftedBasis


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
    _shifted: ShiftedBasis | None = field(default=None, repr=False, compare=False)
    """The basis prepared for shifts, one for all the slices of a set."""

    def __post_init__(self) -> None:
        if self.coefficients is not None and self._shifted is None:
            object.__setattr__(self, "_shifted", ShiftedBasis.of(self.basis))

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

    @property
    def size(self) -> int:
        """Side of the images [pixel]."""
        return int(self.basis.shape[-1])

    def images(self) -> np.ndarray:
        """Return the images, shape (N, size, size)."""
        if self.coefficients is None:
            return self.basis
        size = self.basis.shape[-1]
        return (self.coefficients @ self.basis.reshape(len(self.basis), -1)).reshape(-1, size, size)

    def fine_images(self) -> FineImages:
        """Return the images in a form in which they are moved again and again, by distances that differ."""
        if self.coefficients is None:
            return FineImages.from_images(self.basis)
        assert self._shifted is not None
        return self._shifted.fine_images(self.coefficients)

    def shifted(self, dx: np.ndarray, dy: np.ndarray, size: int) -> np.ndarray:
        """Return the images moved to positions of sources.

        Parameters
        ----------
        dx, dy : `numpy.ndarray`, (N,)
            Translation towards larger x and y [pixel], of any length; where it is not finite the image is zero.
        size : `int`
            Side of the result [pixel]: images are cropped, or padded with zeros.

        Returns
        -------
        images : `numpy.ndarray`, (N, size, size), float32
            Images with their centres (dx, dy) from pixel size // 2, within 1e-4 of their peak of those of sinc
            interpolation.
        """
        if self.coefficients is None:
            return self._moved_images(dx, dy, size, with_gradient=False)[0]
        assert self._shifted is not None
        return self._shifted.evaluate(self.coefficients, dx, dy, size)

    def shifted_with_gradient(self, dx: np.ndarray, dy: np.ndarray, size: int) -> np.ndarray:
        """Return the images as `shifted` does, and their derivatives by ``dx`` and ``dy`` [1 / pixel]; (N, 3, size,
        size)."""
        if self.coefficients is None:
            return np.stack(self._moved_images(dx, dy, size, with_gradient=True), axis=1)
        assert self._shifted is not None
        return self._shifted.evaluate_with_gradient(self.coefficients, dx, dy, size)

    def _moved_images(
        self, dx: np.ndarray, dy: np.ndarray, size: int, *, with_gradient: bool
    ) -> list[np.ndarray]:
        """Move images that have no basis in common."""
        finite = np.isfinite(dx) & np.isfinite(dy)
        dx, dy = (np.where(finite, d, 0.0) for d in (dx, dy))
        own = MovableImages(self.basis)
        every = slice(None)
        moved = (
            list(own.at_with_gradient(every, dx, dy, size))
            if with_gradient
            else [own.at(every, dx, dy, size)]
        )
        for image in moved:
            image[~finite] = 0.0
        return moved

    def __getitem__(self, index: slice | np.ndarray) -> StampModel:
        if self.coefficients is None:
            return StampModel(None, self.basis[index])
        return StampModel(self.coefficients[index], self.basis, self._shifted)
