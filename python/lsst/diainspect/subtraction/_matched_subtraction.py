"""From a matching kernel, however it was found, to a decorrelated difference: what AL and its relatives share.

D = phi * (S - K * T - b), or phi * ((K * S - T + b) / sum K) where the science image is convolved, with phi the
decorrelation of Reiss & Lupton (2016).
"""

from __future__ import annotations

__all__ = ["choose_direction", "subtract_matched"]

from collections.abc import Mapping

import numpy as np
import scipy.signal

from ..psf import PixelBasis, noise_equivalent_area
from ._assemble import contaminated, filter_window, finish_subtraction
from ._cell_filters import LocalFilters, filter_in_cells
from ._cells import CellGrid
from ._decorrelation import decorrelation_transfer
from ._image_pair import ImagePair
from ._kernel_sources import KernelSources
from ._sky_variance import SkyVariance
from ._subtraction import SubtractionResult, SubtractorConfig
from ._transfer import image_from_transfer, transfer_from_image
from ._varying_convolution import polynomial_strips


def choose_direction(pair: ImagePair, convolve: str) -> str:
    """Return which image is convolved, "science" or "template": with ``convolve="auto"`` the sharper one."""
    if convolve != "auto":
        return convolve
    science = noise_equivalent_area(pair.science_psf.centre())
    template = noise_equivalent_area(pair.template_psf.centre())
    return "template" if template <= science else "science"


def subtract_matched(
    pair: ImagePair,
    kernel: PixelBasis,
    background: np.ndarray,
    direction: str,
    sources: KernelSources,
    config: SubtractorConfig,
    *,
    flux_ratio_error: float,
    astrometric_rms: float,
    source_columns: Mapping[str, np.ndarray] | None = None,
    metadata: dict[str, int | float | str],
) -> SubtractionResult:
    """Subtract with a given kernel, decorrelate and finish.

    Parameters
    ----------
    pair : `ImagePair`
        The images.
    kernel : `PixelBasis`
        Matching kernel, by convolution.
    background : `numpy.ndarray`, (n_terms,)
        What the convolved image lacks to the other [nJy, in the other's flux scale], on the terms of
        ``kernel.field``.
    direction : `str`
        Which image the kernel convolves, "science" or "template".
    sources : `KernelSources`
        Sources that the images were matched on.
    config : `SubtractorConfig`
        Cells, background mesh and whitening.
    flux_ratio_error : `float`
        Relative error of the flux ratio.
    astrometric_rms : `float`
        Scatter of single sources' positions between the images, per coordinate [pixel].
    source_columns : mapping [`str`, `numpy.ndarray`], optional
        Further columns of the sources' table.
    metadata : `dict`
        What the method decided; the kernel's sum and size are added.
    """
    sharp_psf = pair.template_psf if direction == "template" else pair.science_psf
    # What the kernel makes of a star must be linear in a cell; its pixels by themselves are noisier.
    broadened = scipy.signal.fftconvolve(kernel.basis, sharp_psf.centre()[None], mode="full", axes=(1, 2))
    fields = (pair.science_psf, pair.template_psf, PixelBasis(broadened, kernel.field))
    window = filter_window(pair, kernel.size)
    grid = CellGrid.for_fields(pair.shape, fields, config.cellSize, config.cellHalo, min_window=window)
    x_first, y_first = pair.bounds.x.start, pair.bounds.y.start

    def kernel_at(x: float, y: float) -> tuple[np.ndarray]:
        return (kernel.at(x + x_first, y + y_first),)

    # K * C is in the flux scale of the target. When the science image was convolved, dividing by the
    # kernel's sum brings the difference to its scale.
    kernel_sum = kernel.centre().sum()
    if direction == "template":
        flux_ratio = float(kernel_sum)
        template_matched = filter_in_cells(grid, (pair.template,), kernel_at)
        matched_difference = np.empty_like(template_matched)
        for rows, (level,) in polynomial_strips(kernel.field, background):
            matched_difference[rows] = pair.science[rows] - template_matched[rows] - level
    else:
        flux_ratio = float(1.0 / kernel_sum)
        matched_difference = filter_in_cells(grid, (pair.science,), kernel_at)
        template_matched = np.empty_like(matched_difference)
        for rows, (level, local_sum) in polynomial_strips(
            kernel.field, background, kernel.basis.sum(axis=(1, 2))
        ):
            inverse_sum = 1.0 / local_sum
            template_matched[rows] = (pair.template[rows] - level) * inverse_sum
            matched_difference[rows] = matched_difference[rows] * inverse_sum - template_matched[rows]
    # Filled pixels and what the kernel made of them say nothing about the sky, and must not ring.
    convolved_inputs = {
        "template": (pair.template_variance, pair.template_bad, pair.template_fill_error, kernel.centre()),
        "science": (pair.science_variance, pair.science_bad, pair.science_fill_error, kernel.centre()),
    }
    spread = contaminated(
        lambda part: pair.science_variance[part] + pair.template_variance[part],
        convolved_inputs[direction],
    )
    matched_difference[pair.bad | spread] = 0.0

    good = ~pair.bad
    sky = (
        SkyVariance(pair.science_variance, good, config.cellSize),
        SkyVariance(pair.template_variance, good, config.cellSize),
    )

    def filters_at(x: float, y: float, window: int) -> LocalFilters:
        return _local_filters(pair, kernel, direction, sky, x, y, window)[1]

    def decorrelation_at(x: float, y: float) -> tuple[np.ndarray]:
        phi, _ = _local_filters(pair, kernel, direction, sky, x, y, window)
        return (image_from_transfer(phi, window, window),)

    difference = filter_in_cells(grid, (matched_difference,), decorrelation_at, linear=False)
    del matched_difference
    return finish_subtraction(
        pair,
        grid,
        difference,
        filters_at,
        background_cell_size=config.backgroundCellSize,
        whiten=config.whiten,
        kernel=kernel,
        kernel_convolves=direction,
        sources=sources,
        flux_ratio=flux_ratio,
        flux_ratio_error=flux_ratio_error,
        astrometric_rms=astrometric_rms,
        source_columns=source_columns,
        template_matched=template_matched,
        metadata={
            "convolvedImage": direction,
            "nKernelSources": int(sources.used.sum()),
            "kernelOrder": kernel.field.order,
            "kernelSum": float(kernel_sum),
            "kernelSize": kernel.size,
            **metadata,
        },
    )


def _local_filters(
    pair: ImagePair,
    kernel: PixelBasis,
    direction: str,
    sky: tuple[SkyVariance, SkyVariance],
    x: float,
    y: float,
    window: int,
) -> tuple[np.ndarray, LocalFilters]:
    """Return the decorrelation filter and the filters it makes, at a position in array coordinates."""
    local_kernel, local_psf = (
        basis.at(x + pair.bounds.x.start, y + pair.bounds.y.start).astype(np.float32)
        for basis in (kernel, pair.science_psf)
    )
    kappa = transfer_from_image(local_kernel, window)
    science_variance, template_variance = (plane.at(x, y) for plane in sky)
    psf = transfer_from_image(local_psf, window)
    if direction == "template":
        phi = decorrelation_transfer(kappa, science_variance, template_variance)
        return phi, LocalFilters(science=phi, template=phi * kappa, psf=phi * psf)
    kernel_sum = float(local_kernel.sum())
    kappa = kappa / kernel_sum
    phi = decorrelation_transfer(kappa, template_variance / kernel_sum**2, science_variance)
    return phi, LocalFilters(science=phi * kappa, template=phi / kernel_sum, psf=phi * kappa * psf)
