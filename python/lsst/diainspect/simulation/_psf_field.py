"""The true PSF of a simulated image: a Kolmogorov profile whose width, shear and coma vary over the detector."""

from __future__ import annotations

__all__ = ["PsfField"]

from dataclasses import dataclass

import galsim
import numpy as np
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf

from ._coma import coma_rays

_SAMPLING_ORDER = 4
"""Pixels are quadratic in a width and shear that are quadratic in position: with a 3 % variation this order leaves
1e-5 of the peak, order 3 leaves 4e-4 in the corners."""

_PATH_WIDTH = 1e-3
"""Width of the line along which a moving source is spread [pixel]: far below anything the PSF resolves."""

_N_TERMS = 5
"""Terms u, v, u^2 - 1/3, u v, v^2 - 1/3 in coordinates u, v that run from -1 to 1 over the detector."""


@dataclass(frozen=True)
class PsfField:
    """A Kolmogorov PSF that varies over a detector.

    Width and shear are quadratic polynomials of position; the images include the pixel, end at the side of the
    stamp and have unit sum there.

    Parameters
    ----------
    bounds : `lsst.images.Box`
        The detector.
    fwhm : `float`
        Mean full width at half maximum before the pixel [pixel].
    shear : `tuple` [`float`, `float`]
        Mean reduced shear g1, g2.
    fwhm_terms, g1_terms, g2_terms : `numpy.ndarray`, (5,)
        Coefficients of the variation: relative for the width, absolute for the shear.
    size : `int`
        Side of the stamps, odd [pixel].
    coma : `tuple` [`float`, `float`], optional
        Coma vector in the middle, see `lsst.diainspect.simulation.Coma` [pixel].
    coma_gradient : `float`, optional
        Growth of the coma from the middle to an edge, away from the middle [pixel].
    """

    bounds: Box
    fwhm: float
    shear: tuple[float, float]
    fwhm_terms: np.ndarray
    g1_terms: np.ndarray
    g2_terms: np.ndarray
    size: int
    coma: tuple[float, float] = (0.0, 0.0)
    coma_gradient: float = 0.0

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        bounds: Box,
        *,
        fwhm: float,
        ellipticity: float,
        ellipticity_variation: float,
        fwhm_variation: float,
        size: int,
        coma: tuple[float, float] = (0.0, 0.0),
        coma_gradient: float = 0.0,
    ) -> PsfField:
        """Draw a field with a random orientation and random patterns of variation.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of randomness.
        bounds : `lsst.images.Box`
            The detector.
        fwhm : `float`
            Mean width [pixel].
        ellipticity : `float`
            Absolute value of the mean shear.
        ellipticity_variation, fwhm_variation : `float`
            Amplitudes of the variation over the detector, absolute and relative.
        size : `int`
            Side of the stamps [pixel].
        coma, coma_gradient
            As for `PsfField`.
        """
        angle = rng.uniform(0.0, 2.0 * np.pi)
        patterns = rng.normal(size=(3, _N_TERMS))
        # Mostly a slope, with some curvature: each pattern stays within about the amplitude.
        patterns[:, 2:] *= 0.3
        patterns /= np.abs(patterns).sum(axis=1, keepdims=True)
        return cls(
            bounds=bounds,
            fwhm=fwhm,
            shear=(ellipticity * np.cos(angle), ellipticity * np.sin(angle)),
            fwhm_terms=fwhm_variation * patterns[0],
            g1_terms=ellipticity_variation * patterns[1],
            g2_terms=ellipticity_variation * patterns[2],
            size=size,
            coma=coma,
            coma_gradient=coma_gradient,
        )

    def profile(self, x: float, y: float) -> galsim.GSObject:
        """Return the GalSim profile at a position [pixel], without the pixel, in units of pixels."""
        box_x, box_y = self.bounds.x, self.bounds.y
        u = 2.0 * (x - box_x.start + 0.5) / box_x.size - 1.0
        v = 2.0 * (y - box_y.start + 0.5) / box_y.size - 1.0
        terms = np.array([u, v, u * u - 1.0 / 3.0, u * v, v * v - 1.0 / 3.0])
        fwhm = self.fwhm * (1.0 + terms @ self.fwhm_terms)
        g1 = self.shear[0] + terms @ self.g1_terms
        g2 = self.shear[1] + terms @ self.g2_terms
        profile = galsim.Kolmogorov(fwhm=float(fwhm)).shear(g1=float(g1), g2=float(g2))
        coma_x, coma_y = self.coma[0] + self.coma_gradient * u, self.coma[1] + self.coma_gradient * v
        if coma_x == 0.0 and coma_y == 0.0:
            return profile
        rays = coma_rays(coma_x, coma_y)
        # Points to convolve with: the profile itself is then evaluated once only.
        points = galsim.Sum([galsim.DeltaFunction().shift(*ray) for ray in rays]) / len(rays)
        return galsim.Convolve(profile, points)

    def star_image(
        self,
        x: float,
        y: float,
        *,
        dx: float = 0.0,
        dy: float = 0.0,
        width_change: float = 0.0,
        trail: tuple[float, float] = (0.0, 0.0),
    ) -> np.ndarray:
        """Draw the image of a point source, which may move during the exposure.

        Parameters
        ----------
        x, y : `float`
            Where the PSF is taken [pixel].
        dx, dy : `float`, optional
            Offset of the source from the centre of the central pixel [pixel].
        width_change : `float`, optional
            Relative widening of the whole image of the star, pixel included: I(r) -> I(r / (1 + w)).
        trail : `tuple` [`float`, `float`], optional
            Length [pixel] and direction [degree] of the path that a moving source draws at constant speed.

        Returns
        -------
        image : `numpy.ndarray`, (size, size)
            Unit-sum image; larger by the length of the trail.
        """
        profile = self.profile(x, y)
        size = self.size
        if trail[0] > 0.0:
            path = galsim.Box(trail[0], _PATH_WIDTH).rotate(trail[1] * galsim.degrees)
            profile = galsim.Convolve(profile, path)
            size += 2 * int(np.ceil(0.5 * trail[0]))
        if width_change == 0.0:
            method = "auto"
        else:
            profile = galsim.Convolve(profile, galsim.Pixel(1.0)).dilate(1.0 + width_change)
            method = "no_pixel"
        image = profile.drawImage(
            nx=size, ny=size, scale=1.0, offset=(dx, dy), method=method, dtype=float
        ).array
        return image / image.sum()

    def enclosed(self) -> float:
        """Return the fraction of the untruncated profile's light that falls in the stamp, at the middle."""
        box_x, box_y = self.bounds.x, self.bounds.y
        middle = self.profile(0.5 * (box_x.start + box_x.stop - 1), 0.5 * (box_y.start + box_y.stop - 1))
        return float(middle.drawImage(nx=self.size, ny=self.size, scale=1.0, dtype=float).array.sum())

    def sampled(self, order: int = _SAMPLING_ORDER) -> PixelBasisPsf:
        """Return the PSF as a pixel basis, as a user of the images gets it."""
        return PixelBasisPsf.from_callable(
            lambda x, y: self.star_image(x, y), self.bounds, order=order, n_grid=order + 3
        )
