"""Alard & Lupton subtraction with decorrelation (Alard & Lupton 1998; Alard 2000; Reiss & Lupton 2016)."""

from __future__ import annotations

__all__ = ["AlConfig", "AlSubtractor"]

from dataclasses import replace
from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
import scipy.signal
from astropy.table import Table

from ..psf import PixelBasis, PolynomialField, fwhm, noise_equivalent_area, shift_images
from ._assemble import contaminated, filter_window, finish_subtraction
from ._cell_filters import LocalFilters, filter_in_cells
from ._cells import CellGrid
from ._decorrelation import decorrelation_transfer
from ._image_pair import ImagePair
from ._kernel_basis import gaussian_polynomial_basis
from ._kernel_fit import KernelFit, ModelSources, SpatialOrders, fit_kernel
from ._kernel_sources import KernelSources, check_enough, select_kernel_sources
from ._registration import Registration, measure_registration
from ._sky_variance import SkyVariance
from ._subtraction import SubtractionResult, Subtractor, SubtractorConfig, subtractor_registry
from ._transfer import image_from_transfer, transfer_from_image
from ._varying_convolution import evaluate_polynomial

_SIGMA_PER_FWHM = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))

_MIN_MATCHING_SIGMA = 0.7
"""Least width [pixel] of the middle Gaussian: narrower ones are not sampled by pixels."""

_REGISTRATION_ORDER = 1
"""Spatial order of the offset map with which the PSF models are registered."""

_MODEL_GRID = 5
"""Positions a side of the sources that stand for the PSF models."""

_MIN_STARS = 3
"""Fewest stars from which registration and flux ratio are measured."""

_SOURCES_PER_TERM = 4
"""Kernel sources wanted for each spatial term; with fewer, the kernel's spatial order is lowered."""


class AlConfig(SubtractorConfig):
    """Configuration of `AlSubtractor`."""

    convolve = pexConfig.ChoiceField[str](
        doc="Which image the kernel convolves.",
        dtype=str,
        default="auto",
        allowed={
            "auto": "The one with the sharper PSF.",
            "template": "The template, even where that means deconvolution.",
            "science": "The science image.",
        },
    )
    kernelSigmaRatios = pexConfig.ListField[float](
        doc="Widths of the Gaussians of the basis, as ratios to the width that matches the two PSFs.",
        dtype=float,
        default=[0.5, 1.0, 2.0, 4.0],
    )
    kernelDegrees = pexConfig.ListField[int](
        doc="Degree of the polynomial on each Gaussian.", dtype=int, default=[6, 4, 2, 0]
    )
    kernelVaryingDegree = pexConfig.RangeField[int](
        doc="Kernels of the basis up to this degree vary over the field. Widths and ellipticities, which is what "
        "varies in a PSF, are of degree two; letting all kernels vary needs hundreds of kernel sources.",
        default=2,
        min=0,
    )
    kernelOrder = pexConfig.RangeField[int](doc="Spatial order of the kernel's shape.", default=2, min=0)
    kernelSumOrder = pexConfig.RangeField[int](doc="Spatial order of the kernel's sum.", default=1, min=0)
    backgroundOrder = pexConfig.RangeField[int](doc="Spatial order of the background.", default=2, min=0)
    minKernelSources = pexConfig.RangeField[int](doc="Fewest sources to fit the kernel on.", default=5, min=1)
    maxKernelSources = pexConfig.RangeField[int](doc="Most sources to fit the kernel on.", default=256, min=1)
    minKernelSourceSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio of a kernel source in both images.", default=20.0, min=0.0
    )
    modelError = pexConfig.RangeField[float](
        doc="Relative error of the match added to the noise of kernel sources, for their weights.",
        default=0.01,
        min=0.0,
    )
    psfModelSnr = pexConfig.RangeField[float](
        doc="Signal-to-noise ratio with which the PSF models, registered on the stars, enter the fit as a grid of "
        "noiseless sources; the inverse of their relative error. 0 leaves them out.",
        default=300.0,
        min=0.0,
    )
    clipSigma = pexConfig.RangeField[float](
        doc="Kernel sources whose reduced chi-square is this many robust sigmas high are rejected.",
        default=4.0,
        min=1.0,
    )
    clipIterations = pexConfig.RangeField[int](doc="Rounds of rejection.", default=5, min=0)

    def validate(self) -> None:
        """Check that each Gaussian has a degree."""
        super().validate()
        if len(self.kernelSigmaRatios) != len(self.kernelDegrees):
            raise pexConfig.FieldValidationError(
                AlConfig.kernelDegrees,
                self,
                f"{len(self.kernelDegrees)} degrees for {len(self.kernelSigmaRatios)} Gaussians.",
            )


class AlSubtractor(Subtractor):
    """Alard & Lupton subtraction, decorrelated."""

    ConfigClass: ClassVar[type[SubtractorConfig]] = AlConfig
    outputs: ClassVar[frozenset[str]] = frozenset(
        {"difference", "score", "kernel", "kernelSources", "templateMatched"}
    )
    config: AlConfig

    def subtract(self, pair: ImagePair, kernel_sources: Table | None = None) -> SubtractionResult:
        """Subtract; see `Subtractor.subtract`."""
        config = self.config
        sources = select_kernel_sources(
            pair,
            kernel_sources,
            min_snr=config.minKernelSourceSnr,
            max_sources=config.maxKernelSources,
            stars_only=False,
            min_sources=config.minKernelSources,
        )
        direction = self._direction(pair)
        stars = replace(sources, rejected=np.where(sources.is_star, sources.rejected, "wider than the PSF"))
        models, jitter, flux_ratio_error = None, 0.0, 0.0
        if stars.used.sum() >= _MIN_STARS:
            registration, _ = measure_registration(stars, PolynomialField(pair.bounds, _REGISTRATION_ORDER))
            jitter = registration.jitter
            flux_ratio_error = registration.flux_ratio_error / registration.flux_ratio
            if config.psfModelSnr > 0:
                models = _model_sources(pair, registration, direction, config.psfModelSnr)
        fit = self._fit(pair, sources, direction, models)
        sources = sources.reject(fit.clipped, "bad fit")
        check_enough(sources, config.minKernelSources)

        kernel = fit.kernel
        sharp_psf = pair.template_psf if direction == "template" else pair.science_psf
        # What the kernel makes of a star must be linear in a cell; its pixels by themselves are noisier.
        broadened = scipy.signal.fftconvolve(kernel.basis, sharp_psf.centre()[None], mode="full", axes=(1, 2))
        fields = (pair.science_psf, pair.template_psf, PixelBasis(broadened, kernel.field))
        grid = CellGrid.for_fields(pair.shape, fields, config.cellSize, config.cellHalo)
        x_first, y_first = pair.bounds.x.start, pair.bounds.y.start
        background = evaluate_polynomial(kernel.field, fit.background)

        def kernel_at(x: float, y: float) -> tuple[np.ndarray]:
            return (kernel.at(x + x_first, y + y_first),)

        # K * C is in the flux scale of the target. When the science image was convolved, dividing by the
        # kernel's sum brings the difference to its scale.
        kernel_sum = kernel.centre().sum()
        if direction == "template":
            flux_ratio = float(kernel_sum)
            template_matched = filter_in_cells(grid, (pair.template,), kernel_at)
            matched_difference = pair.science - template_matched
            matched_difference -= background
        else:
            flux_ratio = float(1.0 / kernel_sum)
            inverse_sum = 1.0 / evaluate_polynomial(kernel.field, kernel.basis.sum(axis=(1, 2)))
            template_matched = (pair.template - background) * inverse_sum
            matched_difference = filter_in_cells(grid, (pair.science,), kernel_at)
            matched_difference *= inverse_sum
            matched_difference -= template_matched
            del inverse_sum
        del background
        # Filled pixels and what the kernel made of them say nothing about the sky, and must not ring.
        convolved_inputs = {
            "template": (
                pair.template_variance,
                pair.template_bad,
                pair.template_fill_error,
                kernel.centre(),
            ),
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
        window = filter_window(pair, grid, kernel.size)

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
            astrometric_rms=jitter,
            source_columns={"residualBefore": fit.chi2_before, "residualAfter": fit.chi2_after},
            template_matched=template_matched,
            metadata={
                "convolvedImage": direction,
                "nKernelSources": int(sources.used.sum()),
                "nKernelParameters": fit.n_parameters,
                "kernelOrder": kernel.field.order,
                "kernelCondition": fit.condition,
                "kernelSum": float(kernel_sum),
                "kernelSize": kernel.size,
            },
        )

    def _direction(self, pair: ImagePair) -> str:
        if self.config.convolve != "auto":
            return self.config.convolve
        science = noise_equivalent_area(pair.science_psf.centre())
        template = noise_equivalent_area(pair.template_psf.centre())
        return "template" if template <= science else "science"

    def _fit(
        self, pair: ImagePair, sources: KernelSources, direction: str, models: ModelSources | None
    ) -> KernelFit:
        config = self.config
        science_fwhm = float(fwhm(pair.science_psf.centre()))
        template_fwhm = float(fwhm(pair.template_psf.centre()))
        matching = np.sqrt(abs(science_fwhm**2 - template_fwhm**2)) * _SIGMA_PER_FWHM
        matching = max(matching, _MIN_MATCHING_SIGMA)
        basis, basis_degrees = gaussian_polynomial_basis(
            [ratio * matching for ratio in config.kernelSigmaRatios], list(config.kernelDegrees)
        )
        n_sources = int(sources.used.sum())
        orders = SpatialOrders(
            shape=_affordable(config.kernelOrder, n_sources),
            total=_affordable(config.kernelSumOrder, n_sources),
            background=_affordable(config.backgroundOrder, n_sources),
        )
        field = PolynomialField(pair.bounds, max(orders.shape, orders.total, orders.background))
        images = {
            "science": (pair.science, pair.science_variance, pair.science_psf),
            "template": (pair.template, pair.template_variance, pair.template_psf),
        }
        convolved, convolved_variance, sharp_psf = images[direction]
        target, target_variance, blunt_psf = images["science" if direction == "template" else "template"]
        # A kernel that widens a PSF of noise area A to one of area B has squares that sum to about 1 / (B - A).
        widened = noise_equivalent_area(blunt_psf.centre()) - noise_equivalent_area(sharp_psf.centre())
        return fit_kernel(
            target,
            convolved,
            target_variance,
            convolved_variance,
            pair.bad,
            field,
            orders,
            basis,
            basis_degrees <= config.kernelVaryingDegree,
            sources.x,
            sources.y,
            sources.used,
            half_size=int(np.ceil(2.0 * max(science_fwhm, template_fwhm))),
            models=models,
            squared_kernel_sum=float(1.0 / max(widened, 1.0)),
            model_error=config.modelError,
            clip_sigma=config.clipSigma,
            max_iterations=config.clipIterations,
            min_sources=config.minKernelSources,
        )


def _model_sources(pair: ImagePair, registration: Registration, direction: str, snr: float) -> ModelSources:
    """Make sources from the PSF models on a grid, registered and scaled as the stars are."""
    x, y = PolynomialField(pair.bounds, 0).sample_grid(_MODEL_GRID)
    offset_x, offset_y = registration.offsets_at(x, y)
    science = registration.flux_ratio * pair.science_psf.evaluate(x, y)
    template = pair.template_psf.evaluate(x, y)
    if direction == "template":
        return ModelSources(shift_images(science, offset_x, offset_y), template, x, y, snr)
    return ModelSources(shift_images(template, -offset_x, -offset_y), science, x, y, snr)


def _affordable(order: int, n_sources: int) -> int:
    while order > 0 and n_sources < _SOURCES_PER_TERM * (order + 1) * (order + 2) // 2:
        order -= 1
    return order


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
    local_kernel = kernel.at(x + pair.bounds.x.start, y + pair.bounds.y.start)
    kappa = transfer_from_image(local_kernel, window)
    science_variance, template_variance = (plane.at(x, y) for plane in sky)
    psf = transfer_from_image(pair.science_psf.at(x + pair.bounds.x.start, y + pair.bounds.y.start), window)
    if direction == "template":
        phi = decorrelation_transfer(kappa, science_variance, template_variance)
        return phi, LocalFilters(science=phi, template=phi * kappa, psf=phi * psf)
    kernel_sum = local_kernel.sum()
    kappa = kappa / kernel_sum
    phi = decorrelation_transfer(kappa, template_variance / kernel_sum**2, science_variance)
    return phi, LocalFilters(science=phi * kappa, template=phi / kernel_sum, psf=phi * kappa * psf)


subtractor_registry.register("al", AlSubtractor)
