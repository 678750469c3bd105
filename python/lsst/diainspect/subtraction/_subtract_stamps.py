"""Subtraction of stamps: AL or ZOGY from the science and template cutouts of sources and their own PSFs.

The formulas are those of the full-image methods, but everything is taken at the source: the filters come from
the two PSFs there, the noise from the stamps' own variances, and all stamps are filtered in one batch of
Fourier transforms. What a detector tells beyond one source is not known here: the images are taken as
registered, their flux ratio is given, and the background is a constant of each stamp.
"""

from __future__ import annotations

__all__ = ["subtract_stamps"]

from dataclasses import replace

import numpy as np
import scipy.fft
import scipy.ndimage

from ..masks import MASK_BITS
from ..psf import centre_crop, fwhm, noise_equivalent_area
from ..stamps import StampModel, StampSet
from ._al import AlConfig
from ._cell_filters import LocalFilters
from ._decorrelation import decorrelation_transfer
from ._kernel_basis import gaussian_polynomial_basis
from ._transfer import frequencies, image_from_transfer, transfer_from_image
from ._zogy import proper_filters

_CHUNK = 128
"""Stamps subtracted at a time, which bounds the memory: some 300 MB at 51 pixels."""

_NEEDED = frozenset(f"{side}{plane}" for side in ("science", "template") for plane in ("", "Variance", "Psf"))

_SIGMA_PER_FWHM = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))

_MIN_MATCHING_SIGMA = 0.7
"""Least width [pixel] of the middle Gaussian of the kernel basis: narrower ones are not sampled by pixels."""

_BASIS_CHUNK = 16
"""Stamps whose kernels are fitted at a time: the basis is weighted anew for each."""

_WIDTH_STEP = 1.15
"""Stamps whose matching widths agree to this factor share a kernel basis, whose Gaussians span a factor of eight."""

_MATCH_SNR = 1000.0
"""Signal-to-noise ratio of the source for which the kernel is the best compromise of match and noise. A kernel that
matches better than this would, where it deconvolves, only amplify noise."""

_PSF_FLOOR_FREQUENCY = 0.45
"""Frequency [cycle / pixel] beyond which the transform of a PSF image shows the error of the image: those of alerts are
interpolated, and have 3e-4 to 1e-3 of their sum there."""

_VANISHING_IN_FLOORS = 10.0
_VANISHING_RANGE = (3e-4, 1e-2)
"""ZOGY takes both PSFs to vanish where their transforms are below so many times that error, within these limits. The
ratio of two errors would make filters that reach over the whole stamp."""

_BACKGROUND_RADIUS = 1.5
"""The background is the median outside this distance from the source [FWHM of the blunter image]."""

_LEAST_BACKGROUND = 25
"""Pixels needed outside that distance; with fewer all good pixels of the stamp are used."""

_TOLERATED_SIGMA = 0.3
"""Error that unknown pixels may leave in another, in sigma of the difference, as in the full-image methods."""


def subtract_stamps(
    stamps: StampSet, method: str = "al", *, convolve: str = "auto", flux_ratio: float | np.ndarray = 1.0
) -> StampSet:
    """Subtract the template from the science image in every stamp.

    Parameters
    ----------
    stamps : `StampSet`
        N stamps with science, template, their variances and their PSFs, on one pixel grid.
    method : `str`, optional
        "al": Alard & Lupton (1998) with the kernel that takes one PSF to the other, decorrelated (Reiss & Lupton
        2016). "zogy": proper subtraction (Zackay, Ofek & Gal-Yam 2016, eqs. 13-16).
    convolve : `str`, optional
        For "al", the image that the kernel convolves: "template", "science", or "auto" for the sharper one.
    flux_ratio : `float` or `numpy.ndarray`, (N,), optional
        PSF flux of a static source on the science image over that on the template, by which the template is
        multiplied. Calibrated images may need one too: PSFs that end at a finite radius hold different parts of
        a star's light.

    Returns
    -------
    subtracted : `StampSet`
        The stamps with new ``difference`` [nJy], ``differenceVariance`` [nJy**2], ``differencePsf``,
        ``scienceFilter`` and ``templateFilter``. Pixels that depend on what lies outside the stamp, or on bad pixels,
        by more than 0.3 sigma are NaN and have FILTER_SPREAD in the mask.

    Raises
    ------
    ValueError
        If planes or PSFs are missing, or a name is not known.

    Notes
    -----
    AL: D = phi * (S - K * T - b), phi from `decorrelation_transfer`. K is a sum of Gaussians times polynomials of unit
    sum that minimises |P_s - K * P_t|^2 + sigma^2 |K|^2 for the white noise sigma of a source of S/N 1000. It
    comes from the PSFs alone: fitted to the pixels of a single stamp it would take up the source that is looked for.
    A shift between the images is not taken out, and so shows as a dipole.
    """
    missing = _NEEDED - stamps.provides
    if missing:
        raise ValueError(f"Subtraction of stamps needs {sorted(_NEEDED)}; there is no {sorted(missing)}.")
    if method not in ("al", "zogy"):
        raise ValueError(f"method must be 'al' or 'zogy', got {method!r}.")
    if convolve not in ("auto", "template", "science"):
        raise ValueError(f"convolve must be 'auto', 'template' or 'science', got {convolve!r}.")
    size, n = stamps.size, len(stamps)
    psf_size = max(stamps.models[f"{side}Psf"].size for side in ("science", "template"))
    window = scipy.fft.next_fast_len(max(size, psf_size) + psf_size - 1, real=True)
    model_size = psf_size - 1 + psf_size % 2
    images = {name: np.full((n, size, size), np.nan, dtype=np.float32) for name in ("difference", "variance")}
    models = {
        name: np.zeros((n, model_size, model_size), dtype=np.float32)
        for name in ("differencePsf", "scienceFilter", "templateFilter")
    }
    ratios = np.broadcast_to(np.asarray(flux_ratio, dtype=float), (n,))
    if not (ratios > 0).all():
        raise ValueError(f"flux_ratio must be positive, got {ratios.min() if n else flux_ratio}.")
    for start in range(0, n, _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = _Pair(stamps[rows], window, ratios[rows])
        filters = _al_filters(part, convolve) if method == "al" else _zogy_filters(part)
        images["difference"][rows], images["variance"][rows] = part.filtered(filters)
        for name, transfer in (
            ("differencePsf", filters.psf),
            ("scienceFilter", filters.science),
            ("templateFilter", part.flux_ratio * filters.template),
        ):
            models[name][rows] = image_from_transfer(transfer, window, model_size)
    planes = {**stamps.planes, "difference": images["difference"], "differenceVariance": images["variance"]}
    if "mask" in planes:
        lost = ~np.isfinite(images["difference"])
        spread = np.uint32(1 << MASK_BITS["FILTER_SPREAD"])
        planes["mask"] = np.where(lost, planes["mask"] | spread, planes["mask"])
    return replace(
        stamps,
        planes=planes,
        models={
            **stamps.models,
            **{name: StampModel.from_images(own) for name, own in models.items()},
        },
    )


class _Pair:
    """Stamps of both images on a window with room for the filters, without gaps and backgrounds.

    Parameters
    ----------
    stamps : `StampSet`
        N stamps.
    window : `int`
        Side of the window [pixel].
    flux_ratio : `numpy.ndarray`, (N,)
        Science over template flux of one source.
    """

    def __init__(self, stamps: StampSet, window: int, flux_ratio: np.ndarray) -> None:
        self.window = window
        self.good = (stamps.weight("science") > 0) & (stamps.weight("template") > 0)
        self._size = stamps.size
        self._stamps = stamps
        self.flux_ratio = flux_ratio[:, None, None]
        self._low = (window - stamps.size) // 2
        self.psfs = {side: _unit_psfs(stamps.model_images(f"{side}Psf")) for side in ("science", "template")}
        self.transfers = {side: transfer_from_image(psf, window) for side, psf in self.psfs.items()}
        # A stamp without a good pixel has no noise; any will do, for all its pixels are NaN in the end.
        self.sky_variance = {
            side: np.where(self._any, _median(stamps.planes[f"{side}Variance"], self.good), 1.0)[
                :, None, None
            ]
            for side in ("science", "template")
        }
        # The template counts in the science image's flux scale, as AL's K * T and ZOGY's beta have it.
        self.sky_variance["template"] = self.flux_ratio**2 * self.sky_variance["template"]
        self._nearest = self._nearest_good()

    @property
    def _any(self) -> np.ndarray:
        return self.good.any(axis=(1, 2))

    def _nearest_good(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the row and column of the good pixel that is nearest to each of the window, (N, window, window)."""
        n, low = len(self.good), self._low
        inner = slice(low, low + self._size)
        bad = np.ones((n, self.window, self.window), dtype=bool)
        bad[:, inner, inner] = ~self.good
        bad[~self._any, low, low] = False
        # Between stamps the distance is larger than any within one.
        _, rows, columns = scipy.ndimage.distance_transform_edt(
            bad, sampling=(10.0 * self.window, 1.0, 1.0), return_distances=False, return_indices=True
        )
        return rows - low, columns - low

    def _extended(self, plane: np.ndarray) -> np.ndarray:
        """Return a plane on the window, with the value of the nearest good pixel where there is none."""
        rows, columns = self._nearest
        return np.nan_to_num(plane[np.arange(len(plane))[:, None, None], rows, columns])

    def filtered(self, filters: LocalFilters) -> tuple[np.ndarray, np.ndarray]:
        """Return difference and variance, (N, size, size), NaN where they depend on unknown pixels."""
        window, low, n = self.window, self._low, len(self.good)
        inner = slice(low, low + self._size)
        bad = np.ones((n, window, window), dtype=bool)
        bad[:, inner, inner] = ~self.good
        transform = np.zeros((n, window, window // 2 + 1), dtype=complex)
        variance, error = (np.zeros((n, window, window)) for _ in range(2))
        for side, transfer in (
            ("science", filters.science),
            ("template", -self.flux_ratio * filters.template),
        ):
            plane = self._stamps.planes[side]
            level = np.nan_to_num(_median(plane, self._sky_pixels))[:, None, None]
            pixels = self._extended(plane) - level
            noise = self._extended(self._stamps.planes[f"{side}Variance"])
            transform += transfer * scipy.fft.rfft2(pixels)
            weights = scipy.fft.rfft2(scipy.fft.irfft2(transfer, s=(window, window)) ** 2)
            variance += scipy.fft.irfft2(weights * scipy.fft.rfft2(noise), s=(window, window))
            # What a pixel was filled with may be as wrong as it is far from the sky.
            unknown = np.where(bad, np.maximum(noise, pixels**2), 0.0)
            error += scipy.fft.irfft2(weights * scipy.fft.rfft2(unknown), s=(window, window))
        difference = scipy.fft.irfft2(transform, s=(window, window))[:, inner, inner]
        variance, error = (plane[:, inner, inner] for plane in (variance, error))
        known = self.good & (error < _TOLERATED_SIGMA**2 * variance)
        difference -= np.nan_to_num(_median(difference, self._sky_pixels & known))[:, None, None]
        return (
            np.where(known, difference, np.nan).astype(np.float32),
            np.where(known, variance, np.nan).astype(np.float32),
        )

    @property
    def _sky_pixels(self) -> np.ndarray:
        """Good pixels away from the source, (N, size, size), or all good ones where those are few."""
        y, x = np.mgrid[: self._size, : self._size] - self._size // 2
        distance = np.hypot(x - self._stamps.dx[:, None, None], y - self._stamps.dy[:, None, None])
        width = np.maximum(fwhm(self.psfs["science"]), fwhm(self.psfs["template"]))
        away = self.good & (distance > _BACKGROUND_RADIUS * width[:, None, None])
        enough = away.sum(axis=(1, 2)) >= _LEAST_BACKGROUND
        return np.where(enough[:, None, None], away, self.good)


def _unit_psfs(images: np.ndarray) -> np.ndarray:
    """Return PSFs of unit sum and odd size; a point where a stamp has none."""
    size = images.shape[-1]
    psfs = centre_crop(images, size - 1 + size % 2).astype(float)
    total = psfs.sum(axis=(1, 2))
    absent = ~(np.isfinite(total) & (total > 0))
    psfs[absent] = 0.0
    psfs[absent, size // 2, size // 2] = 1.0
    return psfs / psfs.sum(axis=(1, 2))[:, None, None]


def _median(planes: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the median of each stamp's pixels that are wanted; NaN for a stamp without."""
    values = np.where(where, planes, np.nan).reshape(len(planes), -1)
    some = np.isfinite(values).any(axis=1)
    median = np.full(len(planes), np.nan)
    median[some] = np.nanmedian(values[some], axis=1)
    return median


def _zogy_filters(pair: _Pair) -> LocalFilters:
    ky, kx = frequencies(pair.window)
    beyond = np.hypot(ky, kx) > _PSF_FLOOR_FREQUENCY
    floor = np.max([np.median(np.abs(own[:, beyond]), axis=1) for own in pair.transfers.values()], axis=0)
    return proper_filters(
        pair.transfers["science"],
        pair.transfers["template"],
        1.0,
        pair.sky_variance["science"],
        pair.sky_variance["template"],
        vanishing=np.clip(_VANISHING_IN_FLOORS * floor, *_VANISHING_RANGE)[:, None, None],
    )


def _al_filters(pair: _Pair, convolve: str) -> LocalFilters:
    """Return the filters of AL, stamp by stamp in the direction that is wanted."""
    area = {side: noise_equivalent_area(psf) for side, psf in pair.psfs.items()}
    onto_science = (
        area["template"] <= area["science"]
        if convolve == "auto"
        else np.full(len(area["science"]), convolve == "template")
    )
    which = onto_science[:, None, None]
    science, template = pair.transfers["science"], pair.transfers["template"]
    width = {side: fwhm(psf) for side, psf in pair.psfs.items()}
    kernel = _matching_kernels(
        np.where(which, template, science),
        np.where(which, science, template),
        np.sqrt(np.abs(width["science"] ** 2 - width["template"] ** 2)) * _SIGMA_PER_FWHM,
        pair.window,
    )
    left, convolved = (
        np.where(which, pair.sky_variance[a], pair.sky_variance[b])
        for a, b in (("science", "template"), ("template", "science"))
    )
    phi = decorrelation_transfer(kernel, left, convolved)
    return LocalFilters(
        science=np.where(which, phi, phi * kernel),
        template=np.where(which, phi * kernel, phi),
        psf=phi * np.where(which, science, kernel * science),
    )


def _matching_kernels(
    convolved: np.ndarray, target: np.ndarray, sigma: np.ndarray, window: int
) -> np.ndarray:
    """Return transforms of kernels of unit sum that take one PSF to another.

    Parameters
    ----------
    convolved, target : `numpy.ndarray`, (N, window, window // 2 + 1)
        Transforms of the PSFs.
    sigma : `numpy.ndarray`, (N,)
        Widths of the Gaussians that match them [pixel].
    window : `int`
        Side of the window [pixel].

    Returns
    -------
    kernels : `numpy.ndarray`, (N, window, window // 2 + 1)
        Transforms of the kernels.
    """
    settings = AlConfig()
    step = np.rint(np.log(np.maximum(sigma, _MIN_MATCHING_SIGMA)) / np.log(_WIDTH_STEP)).astype(int)
    # Every frequency but those of the first column, and of the last of an even window, stands for two.
    multiplicity = np.full(window // 2 + 1, 2.0)
    multiplicity[0] = 1.0
    if window % 2 == 0:
        multiplicity[-1] = 1.0
    multiplicity = np.broadcast_to(multiplicity / window**2, (window, window // 2 + 1)).ravel()
    kernels = np.empty_like(target)
    for own in np.unique(step):
        rows = np.flatnonzero(step == own)
        sigmas = [ratio * _WIDTH_STEP**own for ratio in settings.kernelSigmaRatios]
        images, _ = gaussian_polynomial_basis(sigmas, list(settings.kernelDegrees))
        if images.shape[-1] > window:
            images = centre_crop(images, window - 1 + window % 2)
            images = images / np.sqrt((images**2).sum(axis=(1, 2)))[:, None, None]
            images[0] /= images[0].sum()
            images[1:] -= images[1:].sum(axis=(1, 2))[:, None, None] * images[0]
        basis = transfer_from_image(images, window).reshape(len(images), -1)
        for start in range(0, len(rows), _BASIS_CHUNK):
            part = rows[start : start + _BASIS_CHUNK]
            kernels[part] = _fit_kernels(convolved[part], target[part], basis, multiplicity)
    return kernels


def _fit_kernels(
    convolved: np.ndarray, target: np.ndarray, basis: np.ndarray, multiplicity: np.ndarray
) -> np.ndarray:
    """Minimise |target - K convolved|^2 + sigma^2 |K|^2 with K the first kernel and a sum of the others."""
    shape = target.shape
    convolved, target = (plane.reshape(len(plane), -1) for plane in (convolved, target))
    power = multiplicity * np.abs(convolved) ** 2
    power += power.sum(axis=1, keepdims=True) / _MATCH_SNR**2 * multiplicity
    cross = multiplicity * np.conj(convolved) * target
    first, others = basis[0], _as_real(basis[1:])
    normal = (others * np.tile(power, 2)[:, None, :]) @ others.T
    right = (_as_real(cross) - _as_real(power * first)) @ others.T
    scale = 1.0 / np.sqrt(np.diagonal(normal, axis1=1, axis2=2))
    scaled = normal * scale[:, :, None] * scale[:, None, :]
    scaled[:, range(len(others)), range(len(others))] += _RIDGE
    coefficients = scale * np.linalg.solve(scaled, (scale * right)[..., None])[..., 0]
    return (first + coefficients @ basis[1:]).reshape(shape)


def _as_real(transform: np.ndarray) -> np.ndarray:
    """Return real and imaginary parts side by side, so that products of two are real parts of x conj(y)."""
    return np.concatenate([transform.real, transform.imag], axis=-1)


_RIDGE = 1e-9
"""Ridge on the normal matrix, scaled to unit diagonal: above rounding."""
