"""Alard & Lupton subtraction with decorrelation (Alard & Lupton 1998; Alard 2000; Reiss & Lupton 2016)."""

from __future__ import annotations

__all__ = ["AlConfig", "AlSubtractor"]

from dataclasses import replace
from typing import Any, ClassVar

import lsst.pex.config as pexConfig
import numpy as np
from astropy.table import Column, Table

from ..psf import PolynomialField, fwhm, noise_equivalent_area, shift_images
from ._image_pair import ImagePair
from ._kernel_basis import KernelBasis, delta_basis, gaussian_polynomial_basis, roughness_matrix
from ._kernel_fit import KernelEquations, KernelFit, KernelModel, ModelSources, SpatialOrders
from ._kernel_quality import kernel_quality
from ._kernel_selection import KernelCandidate, choose_kernel_model
from ._kernel_sources import KernelSources, check_enough, select_kernel_sources
from ._matched_subtraction import choose_direction, subtract_matched
from ._registration import VARIABLE, Registration, measure_registration
from ._subtraction import SubtractionResult, Subtractor, SubtractorConfig, subtractor_registry

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

_BASES = ("gaussians", "delta")
"""Names of the kernel bases."""

_CROSS_VALIDATED = ("order", "basis", "smoothing")
"""What can be chosen by cross-validation."""

_SMOOTHING_FACTORS = (1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Strengths of the penalty that cross-validation tries, relative to the configured one."""


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
    kernelBasis = pexConfig.ChoiceField[str](
        doc="Functions whose sum is the kernel.",
        dtype=str,
        default="gaussians",
        allowed={
            "gaussians": "Gaussians times polynomials.",
            "delta": "Single pixels, with a penalty on roughness.",
        },
    )
    crossValidate = pexConfig.ListField[str](
        doc="What is chosen by cross-validation on held-out kernel sources, of 'order' (spatial order of the kernel's "
        "shape, up to kernelOrder or deltaOrder), 'basis' and 'smoothing' (of the delta basis); nothing when empty.",
        dtype=str,
        default=[],
    )
    nFolds = pexConfig.RangeField[int](
        doc="Parts of the kernel sources that are held out in turn.", default=5, min=2
    )
    maxKernelSumError = pexConfig.RangeField[float](
        doc="Relative formal error of the kernel's sum above which the kernel counts as extrapolated.",
        default=0.01,
        min=0.0,
        inclusiveMin=False,
    )
    kernelSigmas = pexConfig.ListField[float](
        doc="Widths of the Gaussians [pixel]; when empty they follow from the PSFs and kernelSigmaRatios.",
        dtype=float,
        default=[],
    )
    kernelSigmaRatios = pexConfig.ListField[float](
        doc="Widths of the Gaussians of the basis, as ratios to the width that matches the two PSFs.",
        dtype=float,
        default=[0.5, 1.0, 2.0, 4.0],
    )
    kernelDegrees = pexConfig.ListField[int](
        doc="Degree of the polynomial on each Gaussian.", dtype=int, default=[6, 4, 2, 0]
    )
    deltaHalfWidth = pexConfig.RangeField[float](
        doc="Half the side of the kernel in the delta basis [FWHM of the blunter image]. With less the wings of stars "
        "are not matched.",
        default=1.5,
        min=0.0,
        inclusiveMin=False,
    )
    deltaOrder = pexConfig.RangeField[int](
        doc="Spatial order of the kernel's shape in the delta basis, in which all kernels vary.",
        default=1,
        min=0,
    )
    deltaPenalty = pexConfig.ChoiceField[str](
        doc="What counts as roughness in the delta basis.",
        dtype=str,
        default="central",
        allowed={
            "forward": "First differences of neighbouring pixels.",
            "central": "Second differences.",
        },
    )
    deltaSmoothing = pexConfig.RangeField[float](
        doc="Strength of the penalty on roughness, relative to the normal matrix.", default=1e-2, min=0.0
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
        """Check that each Gaussian has a degree, and what is to be cross-validated."""
        super().validate()
        widths = AlConfig.kernelSigmas if self.kernelSigmas else AlConfig.kernelSigmaRatios
        n_widths = len(self.kernelSigmas or self.kernelSigmaRatios)
        if n_widths != len(self.kernelDegrees):
            raise pexConfig.FieldValidationError(
                AlConfig.kernelDegrees, self, f"{len(self.kernelDegrees)} degrees for {n_widths} Gaussians."
            )
        if min(self.kernelSigmas or self.kernelSigmaRatios) <= 0:
            raise pexConfig.FieldValidationError(widths, self, "Widths must be positive.")
        unknown = set(self.crossValidate) - set(_CROSS_VALIDATED)
        if unknown:
            raise pexConfig.FieldValidationError(
                AlConfig.crossValidate,
                self,
                f"{', '.join(sorted(unknown))} cannot be cross-validated, only {', '.join(_CROSS_VALIDATED)}.",
            )


class AlSubtractor(Subtractor):
    """Alard & Lupton subtraction, decorrelated."""

    ConfigClass: ClassVar[type[SubtractorConfig]] = AlConfig
    outputs: ClassVar[frozenset[str]] = frozenset(
        {"difference", "score", "kernel", "kernelSources", "kernelQuality", "templateMatched"}
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
        direction = choose_direction(pair, config.convolve)
        stars = replace(sources, rejected=np.where(sources.is_star, sources.rejected, "wider than the PSF"))
        models, jitter, flux_ratio_error = None, 0.0, 0.0
        if stars.used.sum() >= _MIN_STARS:
            registration, stars = measure_registration(
                stars, PolynomialField(pair.bounds, _REGISTRATION_ORDER)
            )
            steady = sources.reject(stars.rejected == VARIABLE, VARIABLE)
            if steady.used.sum() >= config.minKernelSources:
                sources = steady
            jitter = registration.jitter
            flux_ratio_error = registration.flux_ratio_error / registration.flux_ratio
            if config.psfModelSnr > 0:
                models = _model_sources(pair, registration, direction, config.psfModelSnr)
        fit, chosen, tried = self._fit(pair, sources, direction, models)
        sources = sources.reject(fit.clipped, "bad fit")
        check_enough(sources, config.minKernelSources)
        basis, model = chosen.equations.basis, chosen.model
        quality = kernel_quality(
            fit,
            sources,
            basis=basis.name,
            order=model.orders.shape,
            smoothing=model.smoothing if basis.penalty is not None else np.nan,
            max_sum_error=config.maxKernelSumError,
        )
        result = subtract_matched(
            pair,
            fit.kernel,
            fit.background,
            direction,
            sources,
            config,
            flux_ratio_error=flux_ratio_error,
            astrometric_rms=jitter,
            source_columns={
                "residualBefore": fit.chi2_before,
                "residualAfter": fit.chi2_after,
                "residualHeldOut": Column(
                    fit.chi2_held_out,
                    description="The same with a kernel that was fitted to other sources only (al).",
                ),
            },
            metadata={
                "kernelBasis": basis.name,
                "kernelShapeOrder": model.orders.shape,
                "nKernelParameters": fit.n_parameters,
                "kernelCondition": fit.condition,
                "chi2Fitted": float(quality["chi2Fitted"][0]),
                "chi2HeldOut": float(quality["chi2HeldOut"][0]),
                **tried,
            },
        )
        return replace(result, kernel_quality=quality)

    def _fit(
        self, pair: ImagePair, sources: KernelSources, direction: str, models: ModelSources | None
    ) -> tuple[KernelFit, KernelCandidate, dict[str, int | float | str]]:
        """Fit the kernel; also returns the model that was fitted and what cross-validation tried."""
        config = self.config
        candidates = self._candidates(pair, sources, direction, models)
        clipping: dict[str, Any] = {
            "clip_sigma": config.clipSigma,
            "max_iterations": config.clipIterations,
            "min_sources": config.minKernelSources,
        }
        chosen, tried = candidates[0], {}
        if len(candidates) > 1:
            choice = choose_kernel_model(candidates, n_folds=config.nFolds, **clipping)
            chosen, tried = choice.chosen, choice.to_metadata()
        return chosen.equations.fit(chosen.model, n_folds=config.nFolds, **clipping), chosen, tried

    def _candidates(
        self, pair: ImagePair, sources: KernelSources, direction: str, models: ModelSources | None
    ) -> list[KernelCandidate]:
        """Return the models to try, the configured one first."""
        config = self.config
        n_sources = int(sources.used.sum())
        others = [name for name in _BASES if name != config.kernelBasis and "basis" in config.crossValidate]
        factors = (1.0, *(f for f in _SMOOTHING_FACTORS if f != 1.0 and "smoothing" in config.crossValidate))
        candidates = []
        for name in (config.kernelBasis, *others):
            equations = self._equations(pair, sources, direction, models, name)
            largest = _affordable(config.deltaOrder if name == "delta" else config.kernelOrder, n_sources)
            for shape in range(largest, -1, -1) if "order" in config.crossValidate else [largest]:
                orders = SpatialOrders(
                    shape=shape,
                    total=_affordable(config.kernelSumOrder, n_sources),
                    background=_affordable(config.backgroundOrder, n_sources),
                )
                strengths = factors if equations.basis.penalty is not None else (1.0,)
                candidates += [
                    KernelCandidate(equations, KernelModel(orders, factor * config.deltaSmoothing))
                    for factor in strengths
                ]
        return candidates

    def _equations(
        self,
        pair: ImagePair,
        sources: KernelSources,
        direction: str,
        models: ModelSources | None,
        basis_name: str,
    ) -> KernelEquations:
        science_fwhm = float(fwhm(pair.science_psf.centre()))
        template_fwhm = float(fwhm(pair.template_psf.centre()))
        images = {
            "science": (pair.science, pair.science_variance, pair.science_psf),
            "template": (pair.template, pair.template_variance, pair.template_psf),
        }
        convolved, convolved_variance, sharp_psf = images[direction]
        target, target_variance, blunt_psf = images["science" if direction == "template" else "template"]
        # A kernel that widens a PSF of noise area A to one of area B has squares that sum to about 1 / (B - A).
        widened = noise_equivalent_area(blunt_psf.centre()) - noise_equivalent_area(sharp_psf.centre())
        return KernelEquations(
            target,
            convolved,
            target_variance,
            convolved_variance,
            pair.bad,
            pair.bounds,
            self._basis(basis_name, science_fwhm, template_fwhm),
            sources.x,
            sources.y,
            sources.used,
            half_size=int(np.ceil(2.0 * max(science_fwhm, template_fwhm))),
            models=models,
            squared_kernel_sum=float(1.0 / max(widened, 1.0)),
            model_error=self.config.modelError,
        )

    def _basis(self, name: str, science_fwhm: float, template_fwhm: float) -> KernelBasis:
        config = self.config
        if name == "delta":
            half_size = int(np.ceil(config.deltaHalfWidth * max(science_fwhm, template_fwhm)))
            images = delta_basis(half_size)
            penalty = roughness_matrix(images, config.deltaPenalty)
            return KernelBasis(name, images, np.ones(len(images), dtype=bool), penalty)
        sigmas = list(config.kernelSigmas)
        if not sigmas:
            matching = np.sqrt(abs(science_fwhm**2 - template_fwhm**2)) * _SIGMA_PER_FWHM
            matching = max(matching, _MIN_MATCHING_SIGMA)
            sigmas = [ratio * matching for ratio in config.kernelSigmaRatios]
        images, degrees = gaussian_polynomial_basis(sigmas, list(config.kernelDegrees))
        return KernelBasis(name, images, degrees <= config.kernelVaryingDegree)


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


subtractor_registry.register("al", AlSubtractor)
