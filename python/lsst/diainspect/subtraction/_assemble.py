"""From filtered images to the result of a subtraction: background, score, masks, filters and PSF as datasets."""

from __future__ import annotations

__all__ = ["LocalFilters", "assemble_result"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage
import sep
from astropy.table import Table

from ..psf import PixelBasis, PixelBasisPsf, fwhm
from ._cell_filters import FilteredImages
from ._image_pair import ImagePair
from ._subtraction import SubtractionResult
from ._transfer import filter_radius, image_from_transfer

_FILTER_ORDER = 3
"""Spatial order with which the filters and the difference's PSF are stored."""

_SOURCE_THRESHOLD = 3.0
"""Pixels this many sigma from zero, and their neighbours, are kept out of the difference's background."""


@dataclass(frozen=True)
class LocalFilters:
    """Transfer functions at one position: of the science image, of the template, and of the difference's PSF."""

    science: np.ndarray
    template: np.ndarray
    psf: np.ndarray


def assemble_result(
    pair: ImagePair,
    filtered: FilteredImages,
    filters_at: Callable[[float, float, int], LocalFilters],
    background_cell_size: int,
    *,
    kernel: PixelBasis | None = None,
    kernel_convolves: str | None = None,
    kernel_sources: Table | None = None,
    template_matched: np.ndarray | None = None,
    metadata: dict[str, int | float | str],
) -> SubtractionResult:
    """Finish a subtraction.

    Parameters
    ----------
    pair : `ImagePair`
        The inputs.
    filtered : `FilteredImages`
        Difference and matched difference with their variances.
    filters_at : callable
        Takes a position [pixel, in the frame of the pair's bounds] and a window size; returns `LocalFilters`.
    background_cell_size : `int`
        Mesh of the background taken from the difference [pixel]; 0 for none.
    kernel, kernel_convolves, kernel_sources, template_matched, metadata
        Passed on to `SubtractionResult`.
    """
    size = max(pair.science_psf.size, pair.template_psf.size)
    window = scipy.fft.next_fast_len(2 * size + 2 * (kernel.size if kernel is not None else 8), real=True)
    science_filter, template_filter, psf = _sample_filters(pair, filters_at, size, window)

    difference, matched = filtered.difference, filtered.matched
    if background_cell_size > 0:
        background = _background(difference, filtered.variance, pair.bad, background_cell_size)
        difference = difference - background
        # P_D has unit sum and the background is smooth, so the matched filter passes it as it is.
        matched = matched - background
    reach = max(filter_radius(science_filter.centre()), filter_radius(template_filter.centre()))
    spread = _grow(pair.bad, reach) & ~pair.bad
    edge = np.ones(pair.shape, dtype=bool)
    border = reach + int(np.ceil(fwhm(psf.centre())))
    edge[border:-border, border:-border] = False
    return SubtractionResult(
        difference=difference,
        variance=filtered.variance,
        score=matched / np.sqrt(filtered.matched_variance),
        bad=pair.bad,
        spread=spread,
        edge=edge,
        psf=psf,
        science_filter=science_filter,
        template_filter=template_filter,
        kernel=kernel,
        kernel_convolves=kernel_convolves,
        kernel_sources=kernel_sources,
        template_matched=template_matched,
        metadata={**metadata, "filterReach": reach},
    )


def _sample_filters(
    pair: ImagePair, filters_at: Callable[[float, float, int], LocalFilters], size: int, window: int
) -> tuple[PixelBasis, PixelBasis, PixelBasisPsf]:
    x, y = pair.science_psf.field.__class__(pair.bounds, _FILTER_ORDER).sample_grid(_FILTER_ORDER + 2)
    images: tuple[list[np.ndarray], ...] = ([], [], [])
    for xi, yi in zip(x, y, strict=True):
        local = filters_at(float(xi), float(yi), window)
        for stack, transfer in zip(images, (local.science, local.template, local.psf), strict=True):
            stack.append(image_from_transfer(transfer, window, size))
    science, template, psf = (np.stack(stack) for stack in images)
    return (
        PixelBasis.from_images(science, x, y, pair.bounds, order=_FILTER_ORDER),
        PixelBasis.from_images(template, x, y, pair.bounds, order=_FILTER_ORDER),
        PixelBasisPsf.from_images(psf, x, y, pair.bounds, order=_FILTER_ORDER),
    )


def _background(difference: np.ndarray, variance: np.ndarray, bad: np.ndarray, cell_size: int) -> np.ndarray:
    significant = np.abs(difference - np.median(difference[~bad])) > _SOURCE_THRESHOLD * np.sqrt(variance)
    # A lone pixel at 3 sigma is noise; a blob of them is a source.
    sources = scipy.ndimage.binary_opening(significant, np.ones((2, 2)))
    mask = _grow(sources, 3) | bad
    cell = min(cell_size, *difference.shape)
    return sep.Background(np.ascontiguousarray(difference), mask=mask, bw=cell, bh=cell).back()


def _grow(mask: np.ndarray, radius: int) -> np.ndarray:
    if radius <= 0 or not mask.any():
        return mask
    return scipy.ndimage.distance_transform_edt(~mask) <= radius
