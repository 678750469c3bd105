"""Models of point sources and of their residual modes at the sources of a detector.

The images of a source's mode are known up to a few coefficients: those of the PSF, and of the filter that made the
difference. The first time that a detector's models are met, a `SubpixelTable` is made of them; after that the images
of all sources are matrix products. Sources that each bring a PSF of their own, as alerts do, are transformed one by
one.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "ModeModels"]

from collections.abc import Mapping

import numpy as np
import scipy.fft

from ..psf import centre_crop, residual_modes, shift_images
from ..stamps import StampModel
from ._match_shift import match_shift
from ._subpixel_table import SubpixelTable, compress

COLUMNS = ("source", "shiftX", "shiftY", "width", "e1", "e2", "width2")
"""What there is of each source: the PSF, its modes, and the second derivative by the width."""

_REACH = 4
"""Largest whole-pixel move of a model [pixel]."""

_ROOM = 16
"""Pixels beyond the region that is asked for in which images are kept before they are moved."""

_TOLERANCE = 1e-5
"""Variations of a PSF or filter over the detector below this, relative to the largest, are left out."""

_MATCH_GRID = 6
"""Positions a side at which the shift that the match took is measured; it is a polynomial in between."""

_PAIRS = {
    "difference": ("differencePsf", None),
    "science": ("sciencePsf", None),
    "template": ("templatePsf", None),
    "filtered": ("sciencePsf", "scienceFilter"),
}
"""PSF of each kind of model, and the filter that it is pushed through."""


class ModeModels:
    """Models for the sources of one detector.

    Parameters
    ----------
    models : mapping [`str`, `lsst.diainspect.stamps.StampModel`]
        PSFs and filters of any sources of the detector, by their names in `lsst.diainspect.stamps.MODELS`.
    size, static_size : `int`
        Side of the largest images that will be asked for, of the difference and of static sources on the science
        image and the template [pixel].
    """

    def __init__(self, models: Mapping[str, StampModel], size: int, static_size: int) -> None:
        self._bases = {name: model.basis for name, model in models.items() if model.coefficients is not None}
        self._canvas = {
            kind: 2 * _REACH + (static_size if kind in ("science", "template") else size) for kind in _PAIRS
        }
        self._tables: dict[str, SubpixelTable] = {}
        self._reduce: dict[str, list[np.ndarray]] = {}
        self._match: np.ndarray | None = None
        self._match_order = 0

    def is_for(self, models: Mapping[str, StampModel]) -> bool:
        """Return whether sources have these models: whether their bases are the same arrays."""
        shared = {name: model.basis for name, model in models.items() if model.coefficients is not None}
        return shared.keys() == self._bases.keys() and all(
            basis is self._bases[name] for name, basis in shared.items()
        )

    def images(
        self,
        kind: str,
        models: Mapping[str, StampModel],
        dx: np.ndarray,
        dy: np.ndarray,
        size: int,
        columns: tuple[str, ...] = ("source",),
        images: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return images of N sources.

        Parameters
        ----------
        kind : {'difference', 'science', 'template', 'filtered'}
            Which image the source is in; "filtered" is the science PSF through the filter of the difference.
            Without that filter it is approximated by the difference's PSF.
        models : mapping [`str`, `lsst.diainspect.stamps.StampModel`]
            Models of the sources.
        dx, dy : `numpy.ndarray`, (N,)
            Finite positions with respect to pixel size // 2 of the result [pixel].
        size : `int`
            Side of the result [pixel].
        columns : `tuple` [`str`], optional
            Which of `COLUMNS`.
        images : `numpy.ndarray`, (N, len(columns), size, size), float32, optional
            Where to put the result; the images of one source follow each other in memory.

        Returns
        -------
        images : `numpy.ndarray`, (N, len(columns), size, size), float32
            Images; the modes per pixel of shift and unit of width and shear.
        """
        psf_name, filter_name = _PAIRS[kind]
        if filter_name is not None and filter_name not in models:
            psf_name, filter_name = "differencePsf", None
        index = tuple(COLUMNS.index(name) for name in columns)
        parts = [models[name] for name in (psf_name, filter_name) if name is not None]
        if images is None:
            images = np.empty((len(dx), len(columns), size, size), dtype=np.float32)
        if any(model.coefficients is None for model in parts):
            images[:] = _direct(parts, dx, dy, size, index)
            return images
        if kind not in self._tables:
            self._make_table(kind, [model.basis for model in parts])
        weights = np.ones((len(dx), 1))
        for model, reduce in zip(parts, self._reduce[kind], strict=True):
            outer = weights[:, :, None] * (model.coefficients @ reduce)[:, None, :]
            weights = outer.reshape(len(outer), outer.shape[1] * outer.shape[2])
        self._tables[kind].evaluate(weights, dx, dy, index, images)
        return images

    def _make_table(self, kind: str, bases: list[np.ndarray]) -> None:
        canvas = self._canvas[kind]
        roomy = canvas + _ROOM
        reduced = []
        self._reduce[kind] = []
        for basis in bases:
            combine, images = compress(np.asarray(basis, dtype=float).reshape(len(basis), -1), _TOLERANCE)
            self._reduce[kind].append(combine)
            reduced.append(centre_crop(images.reshape(-1, *basis.shape[1:]), min(roomy, basis.shape[-1])))
        images = _convolved(reduced, only_source=kind == "difference")
        self._tables[kind] = SubpixelTable(centre_crop(images, roomy), canvas)

    def match_shift(self, models: Mapping[str, StampModel]) -> tuple[np.ndarray, np.ndarray]:
        """Return the science minus template position that the match took, (N,) each [pixel].

        Zero where the filters are not known.
        """
        names = ("sciencePsf", "scienceFilter", "templatePsf", "templateFilter")
        n = len(next(iter(models.values())))
        if any(name not in models for name in names):
            return np.zeros(n), np.zeros(n)
        orders = [order for name in names if (order := _order(models[name])) is not None]
        if len(orders) < len(names):
            return match_shift(*(models[name].images() for name in names))
        widest = max(names, key=lambda name: _order(models[name]) or 0)
        coefficients = models[widest].coefficients
        assert coefficients is not None
        u, v = (coefficients[:, 1], coefficients[:, 2]) if _order(models[widest]) else (np.zeros(n),) * 2
        if self._match is None:
            order = _MATCH_GRID - 1 if _order(models[widest]) else 0
            nodes = np.cos(np.pi * (np.arange(_MATCH_GRID) + 0.5) / _MATCH_GRID) if order else np.zeros(1)
            grid_u, grid_v = (grid.ravel() for grid in np.meshgrid(nodes, nodes))
            images = (
                np.tensordot(_chebyshev(grid_u, grid_v, own), models[name].basis, axes=1)
                for name, own in zip(names, orders, strict=True)
            )
            sampled = np.stack(match_shift(*images), axis=-1)
            self._match = np.linalg.lstsq(_chebyshev(grid_u, grid_v, order), sampled)[0]
            self._match_order = order
        shift = _chebyshev(u, v, self._match_order) @ self._match
        return shift[:, 0], shift[:, 1]


def _order(model: StampModel) -> int | None:
    """Return the order of the spatial polynomial that a model's weights are the terms of; None when they are not."""
    if model.coefficients is None:
        return None
    n_terms = model.coefficients.shape[1]
    order = round((float(np.sqrt(8 * n_terms + 1)) - 3) / 2)
    return order if (order + 1) * (order + 2) // 2 == n_terms else None


def _chebyshev(u: np.ndarray, v: np.ndarray, order: int) -> np.ndarray:
    """Evaluate the terms of `lsst.diainspect.psf.PolynomialField` at normalised coordinates."""
    t_u, t_v = (np.polynomial.chebyshev.chebvander(w, order) for w in (u, v))
    return np.stack(
        [t_u[:, total - q] * t_v[:, q] for total in range(order + 1) for q in range(total + 1)], axis=-1
    )


def with_modes(images: np.ndarray) -> np.ndarray:
    """Return images (N, size, size) with all of `COLUMNS`, (N, 7, size, size)."""
    modes = residual_modes(images)
    width = modes[:, 2]
    return np.concatenate([images[:, None], modes, residual_modes(width)[:, 2:3]], axis=1)


def _convolved(bases: list[np.ndarray], *, only_source: bool) -> np.ndarray:
    """Return the images of a PSF's basis, convolved with each image of a filter's, (M, P, size, size)."""
    own = np.asarray(bases[0], dtype=np.float32)
    images = own[:, None] if only_source else with_modes(own)
    if len(bases) == 1:
        return images
    return _convolve(images[:, None], np.asarray(bases[1], dtype=np.float32)[None, :, None]).reshape(
        -1, images.shape[1], *(2 * (own.shape[-1] + bases[1].shape[-1] - 1,))
    )


def _convolve(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Convolve images of odd size, centred on size // 2, with broadcasting; the result holds all of both."""
    full = first.shape[-1] + second.shape[-1] - 1
    window = scipy.fft.next_fast_len(full, real=True)
    product = scipy.fft.rfft2(first, s=(window, window)) * scipy.fft.rfft2(second, s=(window, window))
    return scipy.fft.irfft2(product, s=(window, window))[..., :full, :full]


def _direct(
    parts: list[StampModel], dx: np.ndarray, dy: np.ndarray, size: int, index: tuple[int, ...]
) -> np.ndarray:
    images = with_modes(np.asarray(parts[0].images(), dtype=np.float32))[:, list(index)]
    for model in parts[1:]:
        images = _convolve(images, np.asarray(model.images(), dtype=np.float32)[:, None])
    images = centre_crop(images, size + 2 * _REACH)
    flat = images.reshape(-1, *images.shape[2:])
    moved = shift_images(flat, np.repeat(dx, len(index)), np.repeat(dy, len(index)))
    return centre_crop(moved.reshape(images.shape), size)
