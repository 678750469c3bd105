"""The results of a subtraction as lsst.images objects."""

from __future__ import annotations

__all__ = [
    "kernel_to_lsst",
    "make_difference_image",
    "make_matched_template",
    "make_score_image",
    "result_filters",
]

import astropy.units as u
import numpy as np
from lsst.images import Box, DifferenceImage, Image, Mask, MaskedImage, VisitImage
from lsst.images.convolution_kernels import ImageBasisConvolutionKernel
from lsst.images.fields import ChebyshevField

from ..masks import get_plane, make_mask_schema
from ..psf import PixelBasis, PixelBasisPsf
from ._image_pair import ImagePair
from ._subtraction import SubtractionResult

_SCIENCE_PLANES_DROPPED = frozenset({"DETECTED", "DETECTED_NEGATIVE", "DETECTION_EDGE"})
"""Planes about detections in the science image, which say nothing about the difference."""

_TEMPLATE_PLANES = {
    "SATURATED": "SAT_TEMPLATE",
    "SAT_TEMPLATE": "SAT_TEMPLATE",
    "NO_DATA": "NO_DATA",
    "BAD": "BAD",
    "HIGH_VARIANCE": "HIGH_VARIANCE",
    "CLIPPED": "CLIPPED",
    "REJECTED": "REJECTED",
    "INEXACT_PSF": "INEXACT_PSF",
    "SENSOR_EDGE": "SENSOR_EDGE",
    "STREAK": "STREAK",
    "INJECTED": "INJECTED_TEMPLATE",
    "INJECTED_CORE": "INJECTED_CORE_TEMPLATE",
}
"""Planes of the template and what they are called on the difference."""


def kernel_to_lsst(kernel: PixelBasis) -> ImageBasisConvolutionKernel:
    """Write a matching kernel, which is applied by convolution, as lsst-images' kernel."""
    fields = [
        ChebyshevField(kernel.bounds, kernel.field.chebyshev_matrix(unit_vector))
        for unit_vector in np.eye(kernel.field.n_terms)
    ]
    return ImageBasisConvolutionKernel(kernel.basis, fields)


def result_filters(result: SubtractionResult, pair: ImagePair) -> dict[str, PixelBasis]:
    """Return the PSFs and filters that stamps need, by their names in `lsst.diainspect.stamps.MODELS`."""
    return {
        "sciencePsf": pair.science_psf,
        "templatePsf": pair.template_psf,
        "differencePsf": result.psf,
        "scienceFilter": result.science_filter,
        "templateFilter": result.template_filter,
    }


def make_difference_image(
    result: SubtractionResult, pair: ImagePair, science: VisitImage, template: MaskedImage
) -> DifferenceImage:
    """Make the difference image, with the kernel attached where there is one.

    Parameters
    ----------
    result : `SubtractionResult`
        Result of the subtraction.
    pair : `ImagePair`
        What was subtracted.
    science : `lsst.images.VisitImage`
        Science image, whose projection, detector and observation the difference takes over.
    template : `lsst.images.MaskedImage`
        Template, whose mask planes are carried over.
    """
    return DifferenceImage(
        _image(result.difference, pair.bounds, science, u.nJy),
        variance=_image(result.variance, pair.bounds, science, u.nJy**2),
        mask=_difference_mask(result, pair, science, template),
        psf=result.psf.to_piff(),
        kernel=kernel_to_lsst(result.kernel) if result.kernel is not None else None,
        **_observation(science),
    )


def make_score_image(result: SubtractionResult, pair: ImagePair, difference: DifferenceImage) -> VisitImage:
    """Make the score image: dimensionless, of unit variance, with the difference's mask.

    Its PSF is the response of the score to a point source, the autocorrelation of the difference's PSF.
    """
    return VisitImage(
        _image(result.score, pair.bounds, difference, u.dimensionless_unscaled),
        variance=_image(np.ones_like(result.score), pair.bounds, difference, u.dimensionless_unscaled),
        mask=difference.mask,
        psf=_autocorrelation(result.psf).to_piff(),
        **_observation(difference),
    )


def make_matched_template(
    result: SubtractionResult, pair: ImagePair, difference: DifferenceImage
) -> VisitImage:
    """Make the image of the matched template; raises ValueError when the method has none."""
    if result.template_matched is None:
        raise ValueError("This subtraction method does not make a matched template.")
    return VisitImage(
        _image(result.template_matched, pair.bounds, difference, u.nJy),
        variance=difference.variance,
        mask=difference.mask,
        psf=pair.science_psf.to_piff(),
        **_observation(difference),
    )


def _image(array: np.ndarray, bounds: Box, like: VisitImage, unit: u.UnitBase) -> Image:
    return Image(
        np.asarray(array, dtype=np.float32), bbox=bounds, unit=unit, sky_projection=like.sky_projection
    )


def _observation(image: VisitImage) -> dict:
    return {
        "obs_info": image.obs_info,
        "detector": image.detector,
        "band": image.band,
        "summary_stats": image.summary_stats,
    }


def _difference_mask(
    result: SubtractionResult, pair: ImagePair, science: VisitImage, template: MaskedImage
) -> Mask:
    schema = make_mask_schema()
    mask = Mask(0, schema=schema, bbox=pair.bounds)
    science_mask, template_mask = science.mask[pair.bounds], template.mask[pair.bounds]
    for name in (science_mask.schema.names & schema.names) - _SCIENCE_PLANES_DROPPED:
        mask.set(name, science_mask.get(name))
    for name, carried in _TEMPLATE_PLANES.items():
        mask.set(carried, get_plane(template_mask, name))
    mask.set("UNMASKED_NAN", ~np.isfinite(science.image[pair.bounds].array))
    mask.set("NO_DATA", pair.template_bad & ~np.isfinite(template.image[pair.bounds].array))
    mask.set("FILTER_SPREAD", result.spread)
    mask.set("DETECTION_EDGE", result.edge)
    return mask


_LEAST_HELD = 0.5
"""Least part of the response that a stamp of the PSF's size must hold, or it is stored on a larger one."""


def _autocorrelation(psf: PixelBasisPsf) -> PixelBasisPsf:
    """Return the autocorrelation of a PSF, normalised to unit sum.

    That of a PSF whose noise filter has left it with wide negative wings can have a negative sum over a stamp of the
    PSF's size; over all of it the sum is that of the PSF, squared.
    """
    whole = 2 * psf.size - 1

    def response(x: float, y: float, size: int) -> np.ndarray:
        image = psf.at(x, y)
        transform = np.fft.rfft2(image, s=(whole + 1, whole + 1))
        correlation = np.fft.irfft2(np.abs(transform) ** 2, s=(whole + 1, whole + 1))
        return np.roll(correlation, (size // 2, size // 2), axis=(0, 1))[:size, :size]

    centre = psf.bounds.x.start + 0.5 * psf.bounds.x.size, psf.bounds.y.start + 0.5 * psf.bounds.y.size
    size = psf.size if response(*centre, psf.size).sum() > _LEAST_HELD else whole
    return PixelBasisPsf.from_callable(lambda x, y: response(x, y, size), psf.bounds, order=psf.field.order)
