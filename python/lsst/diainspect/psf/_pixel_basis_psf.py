"""The one representation of a PSF: a unit-sum `PixelBasis`.

lsst-images can write Gaussian, PSFEx and Piff PSFs only, so for the butler the same numbers are dressed as a
Piff ``SimplePSF`` of a ``PixelGrid`` with ``BasisPolynomial`` interpolation, whose coefficients Piff reads and writes
as one array: with ``Polynomial`` the time to read grows with the square of the number of pixels.
"""

from __future__ import annotations

__all__ = ["PixelBasisPsf"]

from dataclasses import dataclass
from typing import Self

import numpy as np
from lsst.images import Box
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper, PointSpreadFunction

from ._pixel_basis import PixelBasis
from ._polynomial_field import PolynomialField


@dataclass(frozen=True)
class PixelBasisPsf(PixelBasis):
    """A PSF as a spatial polynomial of pixel images, of unit sum everywhere.

    Parameters
    ----------
    basis, field, sampling_error
        As for `PixelBasis`.
    """

    @classmethod
    def from_image(cls, image: np.ndarray, bounds: Box) -> Self:
        """Make a PSF that is the same everywhere from an image of shape (size, size)."""
        return cls.from_images(
            np.asarray(image, dtype=float)[None], np.array([0.0]), np.array([0.0]), bounds, order=0
        )

    @classmethod
    def from_images(
        cls, images: np.ndarray, x: np.ndarray, y: np.ndarray, bounds: Box, *, order: int
    ) -> Self:
        """Fit the polynomial to PSF images at positions.

        Parameters
        ----------
        images : `numpy.ndarray`, (N, size, size)
            PSF images, centred on pixel size // 2; each is normalised to unit sum first.
        x, y : `numpy.ndarray`, (N,)
            Their positions [pixel].
        bounds : `lsst.images.Box`
            Region in which the PSF is valid.
        order : `int`
            Spatial order.

        Raises
        ------
        ValueError
            If an image is not finite or does not have a positive sum, or the positions do not determine a
            polynomial of this order.
        """
        images = np.asarray(images, dtype=float)
        sums = images.sum(axis=(1, 2))
        if not np.all(np.isfinite(sums)) or np.any(sums <= 0):
            raise ValueError("PSF images must be finite and have a positive sum.")
        return super().from_images(images / sums[:, None, None], x, y, bounds, order=order)

    @classmethod
    def from_point_spread_function(
        cls, psf: PointSpreadFunction, bounds: Box, *, order: int = 3, size: int | None = None
    ) -> PixelBasisPsf:
        """Represent any PSF of lsst-images.

        A PSF written by `to_piff` is taken back coefficient by coefficient; any other is sampled on a grid.

        Parameters
        ----------
        psf : `lsst.images.psfs.PointSpreadFunction`
            The PSF.
        bounds : `lsst.images.Box`
            Region to cover.
        order : `int`, optional
            Spatial order, for a PSF that has to be sampled.
        size : `int`, optional
            Side of the images [pixel], odd; that of the PSF's own images when omitted.
        """
        own = _from_own_piff(psf, bounds)
        if own is None:
            if isinstance(psf, GaussianPointSpreadFunction):
                order = 0

            def draw(x: float, y: float) -> np.ndarray:
                return psf.compute_kernel_image(x=x, y=y).array

            own = cls.from_callable(draw, bounds, order=order)
        return own if size is None else own.resized(size)

    def resized(self, size: int) -> PixelBasisPsf:
        """Return the PSF cut or zero-padded to another odd size, renormalised to unit sum everywhere."""
        if size == self.size:
            return self
        if size < 1 or size % 2 == 0:
            raise ValueError(f"PSF size must be odd and positive, got {size}.")
        if size < self.size:
            cut = (self.size - size) // 2
            basis = self.basis[:, cut : cut + size, cut : cut + size]
            x, y = self.field.sample_grid(self.field.order + 1)
            images = np.tensordot(self.field.evaluate(x, y), basis, axes=1)
            return PixelBasisPsf.from_images(images, x, y, self.bounds, order=self.field.order)
        pad = (size - self.size) // 2
        basis = np.pad(self.basis, ((0, 0), (pad, pad), (pad, pad)))
        return PixelBasisPsf(basis, self.field, self.sampling_error)

    def to_piff(self) -> PiffWrapper:
        """Dress the PSF as a Piff PSF, which lsst-images can write.

        Returns
        -------
        psf : `lsst.images.psfs.PiffWrapper`
            PSF whose images at integer centres are those of this one.
        """
        # Imported where they are used: it takes a second, which every quantum without PSFs would pay too.
        import galsim
        import piff

        # Piff evaluates plain monomials of u = scale * x, so the scale brings u to order unity.
        scale = 1.0 / max(abs(edge) for edge in (*_extent(self.bounds), 1))
        model = piff.PixelGrid(scale=scale, size=self.size, interp="Lanczos(7)", centered=False)
        interpolation = piff.BasisPolynomial(order=self.field.order)
        monomials = _chebyshev_to_monomials(self.field, scale)
        matrices = np.tensordot(self.basis.reshape(self.field.n_terms, -1), monomials, axes=(0, 0))
        interpolation.q = matrices[:, _total_degree_allowed(self.field.order)]
        wrapped = piff.SimplePSF(model, interpolation)
        wrapped.stars = []
        wrapped.wcs = {0: galsim.PixelScale(scale)}
        wrapped.pointing = None
        return PiffWrapper(wrapped, bounds=self.bounds, stamp_size=self.size)


def _extent(bounds: Box) -> tuple[int, int, int, int]:
    return bounds.x.start, bounds.x.stop, bounds.y.start, bounds.y.stop


def _chebyshev_to_monomials(field: PolynomialField, scale: float) -> np.ndarray:
    """Return each Chebyshev term as a matrix of coefficients of u^i v^j, shape (n_terms, order+1, order+1).

    u and v are the pixel coordinates times ``scale``.
    """

    def powers(start: int, size: int) -> list[np.ndarray]:
        slope = 2.0 / (size * scale)
        argument = np.polynomial.Polynomial([-1.0 - (start - 0.5) * 2.0 / size, slope])
        rows = []
        for degree in range(field.order + 1):
            chebyshev = np.polynomial.Chebyshev.basis(degree).convert(kind=np.polynomial.Polynomial)
            coefficients = np.atleast_1d(chebyshev(argument).coef) if degree else np.array([1.0])
            rows.append(np.pad(coefficients, (0, field.order + 1 - len(coefficients))))
        return rows

    in_x = powers(field.bounds.x.start, field.bounds.x.size)
    in_y = powers(field.bounds.y.start, field.bounds.y.size)
    return np.stack([np.outer(in_x[p], in_y[q]) for p, q in field.exponents])


def _total_degree_allowed(order: int) -> np.ndarray:
    """Return which u^i v^j of a matrix of coefficients a `piff.BasisPolynomial` has, in its order."""
    return np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order


def _from_own_piff(psf: PointSpreadFunction, bounds: Box) -> PixelBasisPsf | None:
    """Read back what `PixelBasisPsf.to_piff` made; None for any other PSF."""
    if not isinstance(psf, PiffWrapper):
        return None
    import galsim
    import piff

    if not isinstance(psf.piff_psf, piff.SimplePSF):
        return None
    model, interpolation = psf.piff_psf.model, psf.piff_psf.interp
    wcs = getattr(psf.piff_psf, "wcs", None)
    if (
        not isinstance(model, piff.PixelGrid)
        or not isinstance(interpolation, piff.BasisPolynomial)
        or not isinstance(order := interpolation.kwargs["order"], int)
        or tuple(interpolation.property_names) != ("u", "v")
        or not np.array_equal(interpolation._mask, _total_degree_allowed(order))
        or wcs is None
        or list(wcs) != [0]
        or not isinstance(wcs[0], galsim.PixelScale)
        or wcs[0].scale != model.scale
        or model.size % 2 == 0
    ):
        return None
    field = PolynomialField(bounds, order)
    x, y = field.sample_grid(field.order + 1)
    u, v = x * model.scale, y * model.scale
    matrices = np.zeros((order + 1, order + 1, model.size**2))
    matrices[_total_degree_allowed(order)] = interpolation.q.T
    images = np.polynomial.polynomial.polyval2d(u, v, matrices)
    images = np.moveaxis(images, -1, 0).reshape(-1, model.size, model.size)
    return PixelBasisPsf.from_images(images, x, y, bounds, order=field.order)
