"""Saccadic FFT subtraction (Hu et al. 2022, ApJ 936, 157) by its own package, as one more subtractor.

A plugin like any other package's: it is found by its entry point, or by ``import lsst.diainspect.sfft`` in a
pipeline's configuration, and registers the subtractor ``sfft``. The package solves for the kernel, a delta basis fitted
in Fourier space to images in which all but the matched sources is set to zero; our own decorrelation, background,
variance, score and masks follow, as for Alard & Lupton.
"""

from __future__ import annotations

__all__ = ["SfftConfig", "SfftSubtractor"]

from types import ModuleType
from typing import Any, ClassVar

import lsst.pex.config as pexConfig
import numpy as np
import sep
from astropy.table import Table

from .psf import PixelBasis, PolynomialField, fwhm
from .subtraction import (
    ImagePair,
    SubtractionError,
    SubtractionResult,
    Subtractor,
    SubtractorConfig,
    choose_direction,
    measure_registration,
    select_kernel_sources,
    subtract_matched,
    subtractor_registry,
)

_BACKGROUND_CELL = 128
"""Mesh of the background that is taken from the images before the fit [pixel]."""

_QUIET = 0
"""VERBOSE_LEVEL of the package at which it prints nothing."""

_REGISTRATION_ORDER = 1
"""Spatial order of the offsets about which the stars' jitter is measured."""

_MIN_STARS = 3
"""Fewest stars that tell the jitter."""


class SfftConfig(SubtractorConfig):
    """Configuration of `SfftSubtractor`."""

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
    kernelHalfWidth = pexConfig.RangeField[float](
        doc="Half the side of the kernel [FWHM of the blunter image]; the package's own default is 2, at twice the "
        "cost in time.",
        default=1.5,
        min=0.0,
        inclusiveMin=False,
    )
    kernelOrder = pexConfig.RangeField[int](
        doc="Spatial order of the kernel; the package itself takes 2, which needs many sources.",
        default=1,
        min=0,
        max=3,
    )
    constantRatio = pexConfig.Field[bool](
        doc="Is the flux ratio the same all over the image?", dtype=bool, default=True
    )
    sourceRadius = pexConfig.RangeField[float](
        doc="Radius around matched sources within which pixels enter the fit [FWHM of the blunter image].",
        default=3.0,
        min=1.0,
    )
    minKernelSources = pexConfig.RangeField[int](doc="Fewest sources to fit the kernel on.", default=5, min=1)
    maxKernelSources = pexConfig.RangeField[int](doc="Most sources to fit the kernel on.", default=256, min=1)
    minKernelSourceSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio of a kernel source in both images.", default=20.0, min=0.0
    )
    threads = pexConfig.RangeField[int](doc="Threads of the package.", default=1, min=1)


class SfftSubtractor(Subtractor):
    """Subtraction with the kernel of the package ``sfft``, decorrelated."""

    ConfigClass: ClassVar[type[SubtractorConfig]] = SfftConfig
    outputs: ClassVar[frozenset[str]] = frozenset(
        {"difference", "score", "kernel", "kernelSources", "templateMatched"}
    )
    config: SfftConfig

    def subtract(self, pair: ImagePair, kernel_sources: Table | None = None) -> SubtractionResult:
        """Subtract; see `lsst.diainspect.subtraction.Subtractor.subtract`.

        Raises
        ------
        ModuleNotFoundError
            If the package ``sfft`` is not installed.
        SubtractionError
            For what lies in the data.
        """
        config = self.config
        core = _import_sfft()
        sources = select_kernel_sources(
            pair,
            kernel_sources,
            min_snr=config.minKernelSourceSnr,
            max_sources=config.maxKernelSources,
            stars_only=False,
            min_sources=config.minKernelSources,
        )
        direction = choose_direction(pair, config.convolve)
        stars = sources.reject(~sources.is_star, "wider than the PSF")
        jitter, flux_ratio_error = 0.0, 0.0
        if stars.used.sum() >= _MIN_STARS:
            registration, _ = measure_registration(stars, PolynomialField(pair.bounds, _REGISTRATION_ORDER))
            jitter = registration.jitter
            flux_ratio_error = registration.flux_ratio_error / registration.flux_ratio
        widest = float(max(fwhm(pair.science_psf.centre()), fwhm(pair.template_psf.centre())))
        near = _around(pair, sources.x[sources.used], sources.y[sources.used], config.sourceRadius * widest)
        near &= ~pair.bad
        target, convolved = pair.science, pair.template
        if direction == "science":
            target, convolved = convolved, target
        target_sky, convolved_sky = _background(target, pair.bad), _background(convolved, pair.bad)
        kernel = _solve(
            core,
            np.where(near, target - target_sky, 0.0).astype(float),
            np.where(near, convolved - convolved_sky, 0.0).astype(float),
            pair,
            config,
            int(np.ceil(config.kernelHalfWidth * widest)),
        )
        # What varies is taken from the difference; here its level is.
        level = np.zeros(kernel.field.n_terms)
        level[0] = np.median((target_sky - kernel.centre().sum() * convolved_sky)[::8, ::8])
        return subtract_matched(
            pair,
            kernel,
            level,
            direction,
            sources,
            config,
            flux_ratio_error=flux_ratio_error,
            astrometric_rms=jitter,
            metadata={"nKernelParameters": kernel.field.n_terms * kernel.size**2},
        )


def _import_sfft() -> dict[str, ModuleType]:
    """Import the parts of the package that are used: its solver, which needs neither files nor SExtractor."""
    try:
        from sfft.sfftcore import SFFTConfigure, SFFTSubtract
        from sfft.utils import SFFTSolutionReader
    except ModuleNotFoundError as err:
        raise ModuleNotFoundError(
            f"The subtractor 'sfft' needs the package sfft ({err}): pip install 'lsst-diainspect[sfft]', or choose "
            "another subtractor.",
            name=err.name,
        ) from err
    return {"configure": SFFTConfigure, "subtract": SFFTSubtract, "solution": SFFTSolutionReader}


def _solve(
    core: dict[str, Any],
    target: np.ndarray,
    convolved: np.ndarray,
    pair: ImagePair,
    config: SfftConfig,
    half_size: int,
) -> PixelBasis:
    """Return the kernel that takes one image to the other."""
    height, width = target.shape
    threads = {"BACKEND_4SUBTRACT": "Numpy", "NUM_CPU_THREADS_4SUBTRACT": config.threads}
    # The package calls the first index of an array x. The sky is zero outside the sources, which tells no background.
    setup = core["configure"].SingleSFFTConfigure.SSC(
        NX=height,
        NY=width,
        KerHW=half_size,
        KerPolyOrder=config.kernelOrder,
        BGPolyOrder=0,
        ConstPhotRatio=config.constantRatio,
        VERBOSE_LEVEL=_QUIET,
        **threads,
    )
    solution, _ = core["subtract"].ElementalSFFTSubtract.ESS(
        PixA_I=convolved, PixA_J=target, SFFTConfig=setup, VERBOSE_LEVEL=_QUIET, **threads
    )
    if not np.isfinite(solution).all():
        raise SubtractionError("The package sfft found no finite kernel: use fewer terms or more sources.")
    size = 2 * half_size + 1
    reader = core["solution"].Realize_MatchingKernel

    def kernel_at(x: float, y: float) -> np.ndarray:
        # Coordinates of the package start at 1, as in FITS.
        place = np.array([[y - pair.bounds.y.start + 1.0, x - pair.bounds.x.start + 1.0]])
        return reader(place).FromArray(solution, height, width, size, size, config.kernelOrder, 1)[0]

    return PixelBasis.from_callable(kernel_at, pair.bounds, order=config.kernelOrder)


def _background(image: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return the smooth background of an image."""
    cell = min(_BACKGROUND_CELL, *image.shape)
    return sep.Background(np.ascontiguousarray(image), mask=bad, bw=cell, bh=cell).back()


def _around(pair: ImagePair, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return the pixels near positions, (height, width), bool."""
    near = np.zeros(pair.shape, dtype=bool)
    reach = int(np.ceil(radius))
    for column, row in zip(x - pair.bounds.x.start, y - pair.bounds.y.start, strict=True):
        left, bottom = max(round(column) - reach, 0), max(round(row) - reach, 0)
        part = near[bottom : round(row) + reach + 1, left : round(column) + reach + 1]
        rows, columns = np.indices(part.shape)
        part |= np.hypot(columns + left - column, rows + bottom - row) < radius
    return near


subtractor_registry.register("sfft", SfftSubtractor)
