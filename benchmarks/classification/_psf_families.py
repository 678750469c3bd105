"""PSF families of the simulated detectors: two for training, two others for validation."""

from __future__ import annotations

__all__ = ["FAMILIES", "TRAINING_FAMILIES", "VALIDATION_FAMILIES", "psf_family"]

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import galsim
import numpy as np

from lsst.diainspect.simulation import PsfField

_MOFFAT_BETA = 2.6
"""Wings heavier than those of a Kolmogorov PSF, which resembles a Moffat profile of 3.5 to 4.8."""

_OPTICS = 0.42
"""Part of the width that the optics have; the rest is the atmosphere."""

_AIRY_WIDTH = 1.0 / 0.95
"""lambda / D of an Airy disk with an obscuration of 0.6 in units of its full width at half maximum."""


_WING_FLUX = 0.12
_WING_WIDTH = 2.2
"""Flux of the wider of two Gaussians, and its width in units of the other's."""


class _OtherField(PsfField, abc.ABC):
    """Widths and shears vary as those of `PsfField`; the profile is another and has no coma."""

    @abc.abstractmethod
    def round_profile(self, fwhm: float) -> galsim.GSObject:
        """Return the profile before shear, for a full width at half maximum [pixel]."""

    def profile(self, x: float, y: float) -> galsim.GSObject:
        """Return the profile at a position: see `PsfField.profile`."""
        u = 2.0 * (x - self.bounds.x.start + 0.5) / self.bounds.x.size - 1.0
        v = 2.0 * (y - self.bounds.y.start + 0.5) / self.bounds.y.size - 1.0
        terms = np.array([u, v, u * u - 1.0 / 3.0, u * v, v * v - 1.0 / 3.0])
        g1, g2 = self.shear[0] + terms @ self.g1_terms, self.shear[1] + terms @ self.g2_terms
        fwhm = self.fwhm * (1.0 + terms @ self.fwhm_terms)
        return self.round_profile(float(fwhm)).shear(g1=float(g1), g2=float(g2))


class TwoGaussiansField(_OtherField):
    """Two Gaussians: wings that end, and a core rounder than Kolmogorov's."""

    def round_profile(self, fwhm: float) -> galsim.GSObject:
        """Return the sum of the two."""
        core = galsim.Gaussian(sigma=1.0, flux=1.0 - _WING_FLUX)
        both = core + galsim.Gaussian(sigma=_WING_WIDTH, flux=_WING_FLUX)
        return both.dilate(fwhm / both.calculateFWHM())


class MoffatField(_OtherField):
    """Moffat profiles with heavy wings."""

    def round_profile(self, fwhm: float) -> galsim.GSObject:
        """Return a Moffat profile that ends at 8 widths."""
        return galsim.Moffat(beta=_MOFFAT_BETA, fwhm=fwhm, trunc=8.0 * fwhm)


class OpticsField(_OtherField):
    """A Kolmogorov atmosphere behind the diffraction of an obscured aperture."""

    def round_profile(self, fwhm: float) -> galsim.GSObject:
        """Return the convolution of the two; widths are added as powers of 5/3, within some per cent."""
        airy = galsim.Airy(lam_over_diam=_AIRY_WIDTH * _OPTICS * fwhm, obscuration=0.6)
        atmosphere = galsim.Kolmogorov(fwhm=fwhm * (1.0 - _OPTICS ** (5.0 / 3.0)) ** 0.6)
        return galsim.Convolve(atmosphere, airy)


FAMILIES: dict[str, type[PsfField]] = {
    "kolmogorov": PsfField,
    "gaussians": TwoGaussiansField,
    "moffat": MoffatField,
    "optics": OpticsField,
}

TRAINING_FAMILIES, VALIDATION_FAMILIES = ("kolmogorov", "gaussians"), ("moffat", "optics")


@contextmanager
def psf_family(name: str) -> Iterator[None]:
    """Draw all simulated images with PSFs of a family."""
    field = FAMILIES[name]
    with (
        mock.patch("lsst.diainspect.simulation._simulated_pair.PsfField", field),
        mock.patch("lsst.diainspect.simulation._coadd_template.PsfField", field),
    ):
        yield
