"""The photon noise of sources, which the filters of a difference make correlated.

Blank sky is white in a decorrelated difference, sources are not: their noise, white in the images, is spread by the
filters h. With weights W = 1 / variance a least-squares fit of columns A has the covariance
  (A^T W A)^-1 (A^T W C W A) (A^T W A)^-1,   C = sky + sum_i h_i diag(v_i) h_i^T,
v_i the variance by which the source exceeds the sky in image i. Only the matrix in the middle has to be measured:
A^T W h_i is the correlation of the weighted columns with the filter.
"""

from __future__ import annotations

__all__ = ["add_source_noise"]

from dataclasses import replace

import numpy as np
import scipy.fft

from ..psf import centre_crop
from ..stamps import StampSet
from ._normal_equations import NormalEquations
from ._stamp_quantile import stamp_quantile

_BRIGHT = 1.0
"""Least variance of the source at its peak, in units of the sky's, from which its correlation is followed."""

_FILTER_SIZE = 25
"""Side of the inner part of the filters that is followed [pixel]; what they do beyond is below the noise."""

_SKY_QUANTILE = 0.25


def add_source_noise(
    equations: NormalEquations, columns: np.ndarray, weight: np.ndarray, stamps: StampSet, which: np.ndarray
) -> NormalEquations:
    """Return normal equations whose errors follow the correlated noise of bright sources.

    Parameters
    ----------
    equations : `NormalEquations`
        Of N stamps.
    columns : `numpy.ndarray`, (N, P, size * size), float32
        Their columns, times the root of the weight.
    weight : `numpy.ndarray`, (M, size * size)
        Inverse variances of all the stamps.
    stamps : `StampSet`
        M stamps, of which these are some, with the filters of the difference and its variance; without them the
        equations are returned as they are. Without the variances of the two images these are estimated from the
        difference's variance.
    which : `numpy.ndarray`, (N,)
        Their rows.
    """
    if (
        not {"scienceFilter", "templateFilter"} <= stamps.models.keys()
        or "differenceVariance" not in stamps.planes
    ):
        return equations
    variance = stamps.planes["differenceVariance"][which]
    sky = stamp_quantile(variance, _SKY_QUANTILE)
    with np.errstate(invalid="ignore", divide="ignore"):
        core = centre_crop(variance, min(7, stamps.size))
        peak = np.nanmax(np.where(np.isfinite(core), core, 0.0), axis=(1, 2)) / sky
    rows = np.flatnonzero((peak > 1.0 + _BRIGHT) & np.isfinite(peak))
    if len(rows) == 0:
        return equations
    bright = stamps.chosen(which[rows])
    size = stamps.size
    window = scipy.fft.next_fast_len(size + _FILTER_SIZE // 2 + 1, real=True)
    filters, spread = [], []
    for name in ("scienceFilter", "templateFilter"):
        images = centre_crop(np.asarray(bright.models[name].images(), dtype=np.float32), _FILTER_SIZE)
        filters.append(scipy.fft.rfft2(_wrapped(images, window)))
        spread.append(scipy.fft.rfft2(_wrapped(images**2, window)))
    excess = variance[rows] - sky[rows, None, None]
    sources = _source_variances(bright, excess, sky[rows], filters, spread, window)
    weighted = columns[rows].reshape(len(rows), -1, size, size)
    root = np.sqrt(weight[which[rows]], dtype=np.float32).reshape(len(rows), size, size)
    transform = scipy.fft.rfft2(weighted * root[:, None], s=(window, window))
    noise = equations.matrix.copy()
    extra = np.zeros_like(noise[rows])
    on_difference = np.zeros((len(rows), size, size), dtype=np.float32)
    for own, own_spread, source in zip(filters, spread, sources, strict=True):
        correlated = scipy.fft.irfft2(transform * np.conj(own)[:, None], s=(window, window))
        correlated = correlated[..., :size, :size] * np.sqrt(source)[:, None]
        flat = correlated.reshape(*correlated.shape[:2], -1)
        extra += flat @ flat.transpose(0, 2, 1)
        on_difference += _convolve(source, own_spread, window)
    # The same noise, as the weights have it: without correlation. It cannot be more than all of theirs, whatever the
    # images' variances say, or errors would become imaginary.
    part = np.clip(root**2 * on_difference, 0.0, 1.0)
    diagonal = (weighted * np.sqrt(part)[:, None]).reshape(len(rows), -1, size**2)
    extra -= diagonal @ diagonal.transpose(0, 2, 1)
    noise[rows] += extra
    return replace(equations, noise=noise)


def _source_variances(
    stamps: StampSet,
    excess: np.ndarray,
    sky: np.ndarray,
    filters: list[np.ndarray],
    spread: list[np.ndarray],
    window: int,
) -> list[np.ndarray]:
    """Return by how much the variances of science image and template exceed the sky's, (N, size, size) each.

    Where the stamps do not have the variances, those of sources are taken to be proportional to the images, as photon
    noise is, with factors in the proportion of the skies' variances, as under skies alike. The excess of the
    difference's variance gives the rest.
    """
    names = ("science", "template")
    if all(f"{name}Variance" in stamps.planes for name in names):
        planes = [stamps.planes[f"{name}Variance"] for name in names]
        return [_above(plane, stamp_quantile(plane, _SKY_QUANTILE)) for plane in planes]
    images = []
    for name, variance in zip(names, _sky_variances(filters, sky), strict=True):
        plane = stamps.planes[name]
        above = _above(plane, stamp_quantile(plane, 0.5))
        images.append(above * variance[:, None, None].astype(np.float32))
    shape = sum(_convolve(image, own, window) for image, own in zip(images, spread, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.einsum("nij,nij->n", shape, np.nan_to_num(excess)) / np.einsum("nij,nij->n", shape, shape)
    factor = np.maximum(np.nan_to_num(factor, posinf=0.0), 0.0).astype(np.float32)
    return [image * factor[:, None, None] for image in images]


def _sky_variances(filters: list[np.ndarray], sky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variances of the two skies for which the filters make a difference of white noise, (N,) each.

    Least squares over k of |h_s|^2 v_s + |h_t|^2 v_t = v, with v the variance of the difference.
    """
    a, b = (np.abs(own.reshape(len(own), -1)) ** 2 for own in filters)
    aa, bb, ab = (np.einsum("nk,nk->n", p, q, dtype=float) for p, q in ((a, a), (b, b), (a, b)))
    sa, sb = a.sum(axis=1, dtype=float), b.sum(axis=1, dtype=float)
    determinant = aa * bb - ab**2
    with np.errstate(invalid="ignore", divide="ignore"):
        science, template = (bb * sa - ab * sb) / determinant, (aa * sb - ab * sa) / determinant
        # Filters alike say nothing of the proportion, and it does not matter for the noise that they make.
        alike = ~(determinant > 1e-3 * aa * bb)
        science, template = np.where(alike, sa / aa, science), np.where(alike, sb / bb, template)
    return sky * np.maximum(science, 0.0), sky * np.maximum(template, 0.0)


def _above(planes: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return by how much pixels exceed a level, at least zero."""
    return np.maximum(np.nan_to_num(planes - level[:, None, None]), 0.0).astype(np.float32)


def _wrapped(images: np.ndarray, window: int) -> np.ndarray:
    """Put centred images (N, s, s) on a window with their centres on its first pixel."""
    size = images.shape[-1]
    padded = np.zeros((len(images), window, window), dtype=np.float32)
    padded[:, :size, :size] = images
    return np.roll(padded, (-(size // 2), -(size // 2)), axis=(1, 2))


def _convolve(images: np.ndarray, transfer: np.ndarray, window: int) -> np.ndarray:
    size = images.shape[-1]
    return scipy.fft.irfft2(scipy.fft.rfft2(images, s=(window, window)) * transfer, s=(window, window))[
        :, :size, :size
    ]
