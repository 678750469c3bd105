"""Point-spread functions: any PSF as a spatial polynomial of pixel images, evaluated for all sources at once."""

from ._fit import PsfFit, centre_crop, disk_mask, fit_psf
from ._fourier_shift import shift_images
from ._measure_psf import MeasuredPsf, TooFewStars, measure_psf
from ._modes import MODE_NAMES, gradient_images, residual_modes
from ._pixel_basis import PixelBasis
from ._pixel_basis_psf import PixelBasisPsf
from ._polynomial_field import PolynomialField
from ._shape import fwhm, noise_equivalent_area, second_moments

__all__ = [
    "MODE_NAMES",
    "MeasuredPsf",
    "PixelBasis",
    "PixelBasisPsf",
    "PolynomialField",
    "PsfFit",
    "TooFewStars",
    "centre_crop",
    "disk_mask",
    "fit_psf",
    "fwhm",
    "gradient_images",
    "measure_psf",
    "noise_equivalent_area",
    "residual_modes",
    "second_moments",
    "shift_images",
]
