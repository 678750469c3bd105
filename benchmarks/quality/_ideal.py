"""The ruler: ZOGY that is told the true PSFs, flux ratio, registration, variances and astrometric scatter.

With N = beta P_n x + noise of power V_n and R = P_r x + noise of power V_r (Zackay, Ofek & Gal-Yam 2016):

  D(k)   = (P_r N - beta P_n R) / sqrt(V_n |P_r|^2 + beta^2 V_r |P_n|^2)                 (eqs. 13, 14)
  S(k)   = conj(P_D) D                                                                    (eq. 12, 17)
  V_S(x) = k_n^2 * V_n(x) + k_r^2 * V_r(x) + sigma_a^2 |grad(k_r * R)|^2                  (eqs. 25-31)

where k_n, k_r are what S does to the two images and V_n(x), V_r(x) are the true variances, source noise included.
The cells are so small that the PSF's change within one does not matter; each is filtered with real pixels around it.
"""

from __future__ import annotations

__all__ = ["IdealFilters", "ideal_filters", "subtract_ideal"]

from dataclasses import dataclass

import numpy as np
import scipy.fft

from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.simulation import lanczos_weights
from lsst.diainspect.subtraction import fill_bad_pixels

from ._output import MethodOutput
from ._scenes import FLUX_SCALE, SHIFT, BenchmarkScene

_CELLS_A_SIDE = 32
"""Within 1/32 of a field over which the width changes by 3 % either way it changes by 0.1 % from the middle."""

_HALO = 48
"""Real pixels around a cell [pixel]: further than the filters reach."""

_VANISHING = 2e-4
"""Where both PSFs' transforms are below this, they are noise of their stamps' ends and their ratio is taken as 1."""

_PSF_ORDER = 3
_PSF_GRID = 5


@dataclass(frozen=True)
class IdealFilters:
    """Transfer functions at a position, (window, window // 2 + 1): D = science N - template R, of PSF psf."""

    science: np.ndarray
    template: np.ndarray
    psf: np.ndarray


def subtract_ideal(scene: BenchmarkScene) -> MethodOutput:
    """Subtract with everything known."""
    height, width = scene.science.shape
    cell = max(32, height // _CELLS_A_SIDE)
    window = scipy.fft.next_fast_len(max(cell + 2 * _HALO, 2 * scene.true_science_psf.size), real=True)
    pad = (window - cell) // 2
    bad = scene.bad
    # Both lose the same pixels, so that the core of a star saturated in one alone is not left over.
    planes = [
        np.pad(fill_bad_pixels(plane, bad), pad + cell, mode="symmetric")
        for plane in (
            scene.science - scene.sky_left,
            scene.template,
            scene.science_variance,
            scene.template_variance,
        )
    ]
    science_sky = scene.info["scienceSkyVariance"]
    template_sky = float(np.median(scene.template_variance))
    noise_shape = template_noise_power(window) if scene.spec.template == "warped" else 1.0
    outputs = {name: np.zeros((height, width), dtype=np.float32) for name in ("d", "v", "s", "vs")}
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            filters = ideal_filters(
                scene,
                left + 0.5 * (cell - 1),
                top + 0.5 * (cell - 1),
                window,
                science_sky,
                template_sky * noise_shape,
            )
            rows = slice(top + cell, top + cell + window)
            columns = slice(left + cell, left + cell + window)
            parts = _filter_cell([plane[rows, columns] for plane in planes], filters, noise_shape, scene)
            target = slice(top, min(top + cell, height)), slice(left, min(left + cell, width))
            inner = tuple(slice(pad, pad + part.stop - part.start) for part in target)
            for output, part in zip(outputs.values(), parts, strict=True):
                output[target] = part[inner]
    return MethodOutput(
        score=outputs["s"] / np.sqrt(outputs["vs"]),
        difference=outputs["d"],
        variance=outputs["v"],
        psf=_difference_psf(scene, science_sky, template_sky),
        metadata={"cellSize": cell},
    )


def ideal_filters(
    scene: BenchmarkScene,
    x: float,
    y: float,
    window: int,
    science_power: float | np.ndarray,
    template_power: float | np.ndarray,
) -> IdealFilters:
    """Return the filters at a position, in the flux units of the science image: P_D has unit sum."""
    p_n = _transfer(scene.true_science_psf.at(x, y), window)
    p_r = _transfer(scene.true_template_psf.at(x, y), window)
    filling = _VANISHING * np.exp(-(np.abs(p_n) ** 2 + np.abs(p_r) ** 2) / _VANISHING**2)
    n, r = p_n + filling, p_r + filling
    power = science_power * np.abs(r) ** 2 + FLUX_SCALE**2 * template_power * np.abs(n) ** 2
    science = r / np.sqrt(power)
    scale = 1.0 / np.abs(science[0, 0] * p_n[0, 0])
    ky = scipy.fft.fftfreq(window)[:, None]
    kx = scipy.fft.rfftfreq(window)[None, :]
    # The template's sources lie at the science image's less the common shift.
    ramp = np.exp(-2j * np.pi * (kx * SHIFT[0] + ky * SHIFT[1]))
    return IdealFilters(
        science=scale * science,
        template=scale * FLUX_SCALE * n / np.sqrt(power) * ramp,
        psf=scale * science * p_n,
    )


def template_noise_power(window: int) -> np.ndarray:
    """Return the power of noise resampled with Lanczos-3 at all phases, in units of the pixels' variance.

    At a phase the noise of pixels m apart has the covariance sum_i w_i w_{i+m}; a small rotation brings all phases.
    """
    weights = lanczos_weights((np.arange(1024) + 0.5) / 1024)
    taps = weights.shape[1]
    covariance = np.zeros(window)
    for lag in range(taps):
        value = (weights[:, : taps - lag] * weights[:, lag:]).sum(axis=1).mean()
        covariance[lag] = covariance[-lag] = value
    power = scipy.fft.fft(covariance / covariance[0]).real
    return power[:, None] * power[None, : window // 2 + 1]


def _filter_cell(
    planes: list[np.ndarray], filters: IdealFilters, noise_shape: np.ndarray | float, scene: BenchmarkScene
) -> tuple[np.ndarray, ...]:
    shape = planes[0].shape

    def image(transfer: np.ndarray) -> np.ndarray:
        return scipy.fft.irfft2(transfer, s=shape)

    def squared(transfer: np.ndarray) -> np.ndarray:
        return scipy.fft.rfft2(image(transfer) ** 2)

    science, template, science_variance, template_variance = (
        scipy.fft.rfft2(plane.astype(np.float64)) for plane in planes
    )
    matched = np.conj(filters.psf)
    difference = filters.science * science - filters.template * template
    variances = []
    for science_filter, template_filter in (
        (filters.science, filters.template),
        (matched * filters.science, matched * filters.template),
    ):
        # Correlated noise of a filtered image over what white noise of the same pixel variance would have.
        correlated = 1.0
        if not np.isscalar(noise_shape):
            power = np.abs(template_filter) ** 2
            correlated = _full_mean(power * noise_shape, shape[1]) / _full_mean(power, shape[1])
        variances.append(
            image(
                squared(science_filter) * science_variance
                + correlated * squared(template_filter) * template_variance
            )
        )
    gradient = np.gradient(image(matched * filters.template * template))
    variances[1] += scene.spec.jitter**2 * (gradient[0] ** 2 + gradient[1] ** 2)
    return image(difference), variances[0], image(matched * difference), variances[1]


def _full_mean(half: np.ndarray, width: int) -> float:
    """Return the mean over all frequencies of a function given on half of them."""
    weights = np.full(half.shape[1], 2.0)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return float((half * weights).sum() / (half.shape[0] * width))


def _transfer(image: np.ndarray, window: int) -> np.ndarray:
    """Return the transform of an image centred on its central pixel."""
    half = image.shape[0] // 2
    padded = np.zeros((window, window))
    padded[: image.shape[0], : image.shape[1]] = image
    return scipy.fft.rfft2(np.roll(padded, (-half, -half), axis=(0, 1)))


def _difference_psf(scene: BenchmarkScene, science_sky: float, template_sky: float) -> PixelBasisPsf:
    size = scene.true_science_psf.size
    window = scipy.fft.next_fast_len(3 * size, real=True)
    noise_shape = template_noise_power(window) if scene.spec.template == "warped" else 1.0

    def draw(x: float, y: float) -> np.ndarray:
        filters = ideal_filters(scene, x, y, window, science_sky, template_sky * noise_shape)
        full = scipy.fft.irfft2(filters.psf, s=(window, window))
        return np.roll(full, (size // 2, size // 2), axis=(0, 1))[:size, :size]

    return PixelBasisPsf.from_callable(draw, scene.bounds, order=_PSF_ORDER, n_grid=_PSF_GRID)
