"""The unit of inspection: every source cut once, from all images, with what is needed to interpret it."""

from __future__ import annotations

__all__ = ["MODELS", "PLANES", "StampSet"]

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import astropy.units as u
import numpy as np
from astropy.table import Column, Table

from ..masks import MASK_BITS, PLANES_BAD_FOR_SUBTRACTION
from ..psf import centre_crop
from ._detector_context import DetectorContext
from ._fine_images import FineImages
from ._partial_planes import PartialPlanes
from ._pixel_weights import weigh_pixels
from ._plane_names import PLANES, describe_plane
from ._stamp_model import StampModel

MODELS: dict[str, str] = {
    "sciencePsf": "PSF of the science image.",
    "templatePsf": "PSF of the template.",
    "differencePsf": "PSF of the difference image.",
    "scienceFilter": "Filter that the difference applies to the science image.",
    "templateFilter": "Filter that the difference applies to the template, which is then subtracted.",
}
"""Small images at each source that a stamp set may have, as combinations of a shared basis."""

_PLANES_OF_THE_OTHER_IMAGE = {
    "science": frozenset({"SAT_TEMPLATE"}),
    "template": frozenset({"SATURATED", "COSMIC_RAY", "UNMASKED_NAN"}),
}
"""Planes of a difference's mask that come from the one image and say nothing about the other."""

_TERMS_SUFFIX = "Terms"


def _stored_names(planes: Iterable[str], models: Iterable[str]) -> list[str]:
    """Return the columns in which planes and models are stored."""
    return [*planes, *models, *(name + _TERMS_SUFFIX for name in models)]


@dataclass(frozen=True)
class StampSet:
    """Stamps of N sources.

    Parameters
    ----------
    sources : `astropy.table.Table`
        N rows: the source table's columns and ``x0``, ``y0`` (pixel coordinates of each stamp's lower-left
        pixel) and ``pixelToSky`` (N, 2, 2: derivatives of (ra cos dec, dec) by (x, y) [deg / pixel]).
    planes : mapping [`str`, `numpy.ndarray`]
        Pixels (N, size, size) by name, of `PLANES` or those of another method, as ``zogy_difference``. Pixels off
        the image are NaN (bit OFF_IMAGE in the mask).
    models : mapping [`str`, `StampModel`]
        PSFs and filters at the sources by name, of `MODELS`.
    context : `DetectorContext`
        What is known of the detector besides.

    Notes
    -----
    What several diagnostics need (weights, PSFs at the sources' positions, the inner part of every plane) is kept
    from its first use on, so pixels are not to be changed after that. A slice starts with nothing kept; the inner part
    of stamps, and a choice of sources, take what there is.
    """

    sources: Table
    planes: Mapping[str, np.ndarray]
    models: Mapping[str, StampModel] = field(default_factory=dict)
    context: DetectorContext = field(default_factory=DetectorContext)
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        unknown = {name for name in self.planes if describe_plane(name) is None}
        unknown |= set(self.models) - set(MODELS)
        if unknown:
            raise ValueError(
                f"Unknown stamp planes or models {sorted(unknown)}; known are {[*PLANES, *MODELS]}."
            )
        taken = set(self.sources.colnames) & set(_stored_names(self.planes, self.models))
        if taken:
            raise ValueError(
                f"Columns {sorted(taken)} of the source table have the names of stamp planes or models: "
                f"rename them."
            )
        if isinstance(self.planes, PartialPlanes):
            return
        shapes = {name: plane.shape for name, plane in self.planes.items()}
        if len(set(shapes.values())) > 1 or any(shape[0] != len(self.sources) for shape in shapes.values()):
            raise ValueError(
                f"Planes of a stamp set of {len(self.sources)} sources disagree in shape: {shapes}."
            )
        for name, model in self.models.items():
            if len(model) != len(self.sources):
                raise ValueError(f"Model {name} has {len(model)} rows for {len(self.sources)} sources.")

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def size(self) -> int:
        """Side of the stamps [pixel]; 0 when there are no planes."""
        if isinstance(self.planes, PartialPlanes):
            return self.planes.size
        return next((plane.shape[-1] for plane in self.planes.values()), 0)

    @property
    def provides(self) -> frozenset[str]:
        """Names of the planes and models that are there."""
        return frozenset(self.planes) | frozenset(self.models)

    @property
    def dx(self) -> np.ndarray:
        """Source positions in x with respect to the stamps' pixel size // 2 [pixel], (N,)."""
        return self.keep("dx", lambda: self._offset("x"))

    @property
    def dy(self) -> np.ndarray:
        """Source positions in y with respect to the stamps' pixel size // 2 [pixel], (N,)."""
        return self.keep("dy", lambda: self._offset("y"))

    def _offset(self, axis: str) -> np.ndarray:
        return np.asarray(self.sources[axis], dtype=float) - (
            np.asarray(self.sources[f"{axis}0"]) + self.size // 2
        )

    def keep[T](self, key: Any, make: Callable[[], T]) -> T:
        """Return what was made for a key before, or make it: for what several diagnostics need of these stamps."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def __getitem__(self, index: slice | np.ndarray) -> StampSet:
        return StampSet(
            self.sources[index],
            {name: plane[index] for name, plane in self.planes.items()},
            {name: model[index] for name, model in self.models.items()},
            self.context,
        )

    def chosen(self, rows: np.ndarray) -> StampSet:
        """Return some sources, for use while these stamps are: planes and weights are taken when they are asked for.

        Parameters
        ----------
        rows : `numpy.ndarray`, (n,), int
            Which.
        """
        models = {name: model[rows] for name, model in self.models.items()}
        planes = PartialPlanes(self.planes, (rows,), self.size)
        part = StampSet(self.sources[rows], planes, models, self.context)
        part._kept["whole"] = (weakref.ref(self), (rows,))
        return part

    def with_context(self, context: DetectorContext) -> StampSet:
        """Return the same stamps with what is known of their detector."""
        return replace(self, context=context)

    def cropped(self, size: int) -> StampSet:
        """Return the inner pixels of all stamps; the models are the same.

        Parameters
        ----------
        size : `int`
            Side [pixel]. Stamps that are not larger are returned as they are.

        Returns
        -------
        stamps : `StampSet`
            Kept: diagnostics that ask for the same size share its planes and weights.
        """
        if size >= self.size:
            return self
        return self.keep(("cropped", size), lambda: self._crop(size))

    def _crop(self, size: int) -> StampSet:
        low = self.size // 2 - size // 2
        inner = slice(low, low + size)
        index = (slice(None), inner, inner)
        # A slice takes half the time of a copy, and shares the data too.
        sources = self.sources[:]
        for axis in ("x0", "y0"):
            sources[axis] = sources[axis] + low
        crop = StampSet(sources, PartialPlanes(self.planes, index, size), self.models, self.context)
        # What was evaluated for the whole stamps is cut out of that. Weakly, because the whole keeps its crops: a
        # cycle would hold the pixels of every chunk until the garbage collector comes by.
        crop._kept["whole"] = (weakref.ref(self), index)
        # They have no other positions, and no other models.
        for name in ("dx", "dy"):
            crop._kept[name] = getattr(self, name)
        return crop

    def _whole(self) -> tuple[StampSet | None, tuple[slice | np.ndarray, ...]]:
        """Return the stamps that these are part of, if they are still there, and which part."""
        if "whole" not in self._kept:
            return None, ()
        reference, index = self._kept["whole"]
        return reference(), index

    def model_images(self, name: str) -> np.ndarray:
        """Return a PSF or filter of every source, (N, model size, model size), float32, centred; kept."""
        return self.keep(("images", name), lambda: self._model_images(name))

    def _model_images(self, name: str) -> np.ndarray:
        model = self.models[name]
        if model.coefficients is None:
            return np.asarray(model.basis, dtype=np.float32)
        return StampModel(
            model.coefficients.astype(np.float32), model.basis.astype(np.float32, copy=False)
        ).images()

    def fine_model(self, name: str) -> FineImages:
        """Return a PSF of every source in a form in which it is moved again and again; kept."""
        return self.keep(("fine", name), lambda: self.models[name].fine_images())

    def centred_model(self, name: str) -> np.ndarray:
        """Return a PSF at the position of every source, on the pixels of its stamp; kept.

        Returns
        -------
        images : `numpy.ndarray`, (N, size, size), float32
            Within 1e-4 of the peak of a shift in the Fourier plane; zero where the source has no position.
        """
        return self.keep(("centred", name), lambda: self._centred_model(name))

    def _centred_model(self, name: str) -> np.ndarray:
        whole, index = self._whole()
        if whole is not None and ("centred", name) in whole._kept:
            return np.ascontiguousarray(whole.centred_model(name)[index])
        return self.models[name].shifted(self.dx, self.dy, self.size)

    def centred_gradient(self, name: str, size: int) -> np.ndarray:
        """Return a PSF at the position of every source, and its derivatives by that; the largest is kept.

        Parameters
        ----------
        name : `str`
            Which PSF.
        size : `int`
            Side of the images [pixel], of the parity of the stamps.

        Returns
        -------
        images : `numpy.ndarray`, (N, 3, size, size), float32
            PSF and derivatives by x and y [1 / pixel], on the middle of the stamps.
        """
        key = ("gradient", name)
        if key not in self._kept or self._kept[key].shape[-1] < size:
            self._kept[key] = self.models[name].shifted_with_gradient(self.dx, self.dy, size)
        return centre_crop(self._kept[key], size)

    def good_pixels(self, plane: str) -> np.ndarray:
        """Return the pixels of a plane with zero where `weight` is zero, (N, size, size); kept."""
        return self._weighed(plane)[1]

    def weight(self, plane: str) -> np.ndarray:
        """Return inverse variances (N, size, size) of a plane, zero where pixels say nothing about the sky; kept.

        Those are NaN, off the image, or in one of `lsst.diainspect.masks.PLANES_BAD_FOR_SUBTRACTION` if there is
        a mask: their values on the difference come from what the subtraction filled in. Without a variance plane
        every good pixel has unit weight.
        """
        return self._weighed(plane)[0]

    def _weighed(self, plane: str) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and good pixels of a plane, which are made together."""
        return self.keep(("weighed", plane), lambda: self._weigh(plane))

    def _weigh(self, plane: str) -> tuple[np.ndarray, np.ndarray]:
        if self._whole()[0] is not None:
            weight, good = (np.ascontiguousarray(array) for array in self._part_of_weighed(plane))
            return weight, good
        names = set(PLANES_BAD_FOR_SUBTRACTION) - _PLANES_OF_THE_OTHER_IMAGE.get(plane, frozenset())
        bits = sum(1 << MASK_BITS[name] for name in names)
        return weigh_pixels(
            self.planes[plane], self.planes.get(f"{plane}Variance"), self.planes.get("mask"), bits
        )

    def _part_of_weighed(self, plane: str) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and good pixels as they lie in those of the whole stamps, without a copy of inner pixels."""
        whole, index = self._whole()
        if whole is None or ("weighed", plane) in self._kept:
            return self._weighed(plane)
        weight, good = whole._part_of_weighed(plane)
        return weight[index], good[index]

    def to_table(self) -> Table:
        """Return everything but the models' bases as a table, one row a source."""
        table = self.sources.copy()
        for name, plane in self.planes.items():
            unit, doc = describe_plane(name) or (None, "")
            table[name] = Column(plane, unit=unit, description=doc)
        for name, model in self.models.items():
            if model.coefficients is None:
                table[name] = Column(model.basis, description=MODELS[name])
                continue
            table[name + _TERMS_SUFFIX] = Column(
                model.coefficients.astype(np.float32), description=f"{MODELS[name]} Weights of the basis."
            )
        return table

    def basis_table(self) -> Table:
        """Return the models' bases as a table, one row an image, padded with zeros to one size."""
        rows: list[tuple[str, int, int, np.ndarray]] = []
        shared = {name: model for name, model in self.models.items() if model.coefficients is not None}
        largest = max((model.basis.shape[-1] for model in shared.values()), default=1)
        for name, model in shared.items():
            size = model.basis.shape[-1]
            pad = (largest - size) // 2
            padded = np.pad(model.basis, ((0, 0), (pad, pad), (pad, pad)))
            rows += [(name, term, size, image) for term, image in enumerate(padded)]
        table = Table()
        table["model"] = Column(np.array([row[0] for row in rows], dtype="U32"), description="Model.")
        table["term"] = Column(np.array([row[1] for row in rows], dtype=np.int32), description="Term.")
        table["size"] = Column(
            np.array([row[2] for row in rows], dtype=np.int32),
            unit=u.pix,
            description="Side without padding.",
        )
        images = np.stack([row[3] for row in rows]) if rows else np.zeros((0, largest, largest))
        table["image"] = Column(images, description="Image that multiplies the term.")
        return table

    @classmethod
    def from_tables(cls, table: Table, basis: Table | None = None) -> Self:
        """Put a stamp set together from what `to_table` and `basis_table` made.

        Parameters
        ----------
        table : `astropy.table.Table`
            Stamps; any subset of the planes may have been read.
        basis : `astropy.table.Table`, optional
            Bases of the models; without it the set has only models of one image a source.

        Raises
        ------
        ValueError
            If the basis lacks a model whose weights the table has, or has another number of terms, or the table has
            no columns besides planes and models.
        """
        # Planes are stacks of images; a column of numbers may have a name like theirs.
        there = [
            name for name in table.colnames if table[name].ndim == 3 and describe_plane(name) is not None
        ]
        planes = {name: np.asarray(table[name]) for name in there}
        models = {}
        for name in MODELS:
            column = name + _TERMS_SUFFIX
            if name in table.colnames:
                models[name] = StampModel.from_images(np.asarray(table[name], dtype=float))
                continue
            if basis is None or column not in table.colnames:
                continue
            rows = basis[np.asarray(basis["model"]).astype(str) == name]
            n_terms = table[column].shape[-1]
            if len(rows) != n_terms:
                raise ValueError(
                    f"The table has {n_terms} weights of {name} a source, but its basis {len(rows)} images: "
                    f"they come from different subtractions."
                )
            rows.sort("term")
            size = int(rows["size"][0])
            cut = (rows["image"].shape[-1] - size) // 2
            images = np.asarray(rows["image"])[:, cut : cut + size, cut : cut + size]
            models[name] = StampModel(np.asarray(table[column], dtype=float), images)
        drop = set(_stored_names(planes, MODELS))
        columns = [name for name in table.colnames if name not in drop]
        if not columns:
            raise ValueError(
                "The table has planes but no columns of the sources: read diaSourceId, x, y, x0 and y0 too."
            )
        return cls(table[columns], planes, models)
