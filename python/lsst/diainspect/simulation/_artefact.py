"""What a camera adds that is not sky: one record an artefact, and the table of them that goes with the truth."""

from __future__ import annotations

__all__ = ["Artefact", "artefact_table", "draw_number", "from_components"]

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import astropy.units as u
import numpy as np
from astropy.table import Table
from lsst.images import Box
from scipy import ndimage

type ArtefactKind = Literal[
    "cosmic_ray",
    "bleed",
    "bad_column",
    "crosstalk",
    "ghost",
    "streak",
    "coadd_edge",
    "coadd_rejected",
    "coadd_hole",
]

_CAUSES: dict[str, str] = {
    "cosmic_ray": "cosmic_ray",
    "bleed": "saturation",
    "bad_column": "bad_pixels",
    "crosstalk": "ghost_or_crosstalk",
    "ghost": "ghost_or_crosstalk",
    "streak": "satellite_trail",
    "coadd_edge": "template_artefact",
    "coadd_rejected": "template_artefact",
    "coadd_hole": "template_artefact",
}


@dataclass(frozen=True)
class Artefact:
    """One artefact.

    Parameters
    ----------
    kind : `str`
        What it is.
    x, y : `float`
        Its middle [pixel].
    extent, width : `float`
        Length along its longest direction and size across it [pixel].
    angle : `float`
        Direction of the length, from +x to +y [degree].
    flux : `float`
        What it adds to the image in all [nJy]; NaN where it adds nothing or replaces pixels.
    n_pixels : `int`
        Pixels that it touches.
    is_flagged : `bool`
        Whether the mask says so.
    source_id : `int`, optional
        objectId of the source that it comes from, -1 for none.
    """

    kind: ArtefactKind
    x: float
    y: float
    extent: float
    width: float
    angle: float
    flux: float
    n_pixels: int
    is_flagged: bool
    source_id: int = -1


def artefact_table(science: Iterable[Artefact], template: Iterable[Artefact] = ()) -> Table:
    """Write artefacts as a table.

    Parameters
    ----------
    science, template : iterable [`Artefact`]
        Those in each image.

    Returns
    -------
    artefacts : `astropy.table.Table`
        One row an artefact; each column has a description.
    """
    entries = [("science", entry) for entry in science] + [("template", entry) for entry in template]
    columns: list[tuple[str, np.ndarray, u.UnitBase | None, str]] = [
        (
            "artefactId",
            np.arange(len(entries), dtype=np.int64),
            None,
            "Counter within the visit and detector.",
        ),
        (
            "kind",
            np.array([entry.kind for _, entry in entries], dtype="U14"),
            None,
            "cosmic_ray, bleed, bad_column, crosstalk, ghost, streak; in coadds coadd_edge (the edge of an input "
            "image), coadd_rejected (an input pixel left out), coadd_hole (no data).",
        ),
        (
            "cause",
            np.array([_CAUSES[entry.kind] for _, entry in entries], dtype="U18"),
            None,
            "What to blame a detection on it on: cosmic_ray, saturation, bad_pixels, ghost_or_crosstalk, "
            "satellite_trail or template_artefact.",
        ),
        (
            "image",
            np.array([name for name, _ in entries], dtype="U8"),
            None,
            "The image that has it: science or template.",
        ),
        ("x", _floats(entry.x for _, entry in entries), u.pix, "Its middle."),
        ("y", _floats(entry.y for _, entry in entries), u.pix, "Its middle."),
        (
            "extent",
            _floats(entry.extent for _, entry in entries),
            u.pix,
            "Length along its longest direction.",
        ),
        ("width", _floats(entry.width for _, entry in entries), u.pix, "Size across its longest direction."),
        (
            "angle",
            _floats(entry.angle for _, entry in entries),
            u.deg,
            "Direction of the length, from +x to +y.",
        ),
        (
            "flux",
            _floats(entry.flux for _, entry in entries),
            u.nJy,
            "What it adds to the image in all; NaN where it replaces pixels.",
        ),
        (
            "nPixels",
            np.array([entry.n_pixels for _, entry in entries], dtype=np.int64),
            None,
            "Pixels that it touches.",
        ),
        (
            "isFlagged",
            np.array([entry.is_flagged for _, entry in entries], dtype=bool),
            None,
            "Whether the mask says so.",
        ),
        (
            "sourceId",
            np.array([entry.source_id for _, entry in entries], dtype=np.int64),
            None,
            "objectId of the source that it comes from, -1 for none.",
        ),
    ]
    table = Table()
    for name, values, unit, description in columns:
        table[name] = values
        table[name].unit = unit
        table[name].description = description
    return table


def _floats(values: Iterable[float]) -> np.ndarray:
    return np.array(list(values), dtype=float)


def draw_number(rng: np.random.Generator, mean: float) -> int:
    """Draw how many there are: the whole part of the mean, and one more with the chance that is the rest."""
    whole = int(np.floor(mean))
    return whole + int(rng.uniform() < mean - whole)


def from_components(
    kind: ArtefactKind,
    touched: np.ndarray,
    bounds: Box,
    *,
    is_flagged: bool,
    added: np.ndarray | None = None,
    core: np.ndarray | None = None,
    source_map: np.ndarray | None = None,
) -> list[Artefact]:
    """Describe each connected area as one artefact.

    Parameters
    ----------
    kind : `str`
        What they are.
    touched : `numpy.ndarray`, (height, width), bool
        Pixels that have it; pixels that touch at a corner belong together.
    bounds : `lsst.images.Box`
        Of the image.
    is_flagged : `bool`
        Whether the mask says so.
    added : `numpy.ndarray`, (height, width), optional
        What it adds to the pixels [nJy].
    core : `numpy.ndarray`, (height, width), bool, optional
        Only areas with a pixel of these count.
    source_map : `numpy.ndarray`, (height, width), int, optional
        objectId of the source whose centre is at the pixel, -1 elsewhere.
    """
    labels, n_labels = ndimage.label(touched, np.ones((3, 3), dtype=int))
    artefacts = []
    for label, window in enumerate(ndimage.find_objects(labels, n_labels), start=1):
        own = labels[window] == label
        if core is not None and not (own & core[window]).any():
            continue
        height, width = own.shape
        is_tall = height >= width
        source_id = -1 if source_map is None else int(np.where(own, source_map[window], -1).max())
        artefacts.append(
            Artefact(
                kind=kind,
                x=bounds.x.start + window[1].start + 0.5 * (width - 1),
                y=bounds.y.start + window[0].start + 0.5 * (height - 1),
                extent=float(max(height, width)),
                width=float(min(height, width)),
                angle=90.0 if is_tall else 0.0,
                flux=float("nan") if added is None else float(added[window][own].sum()),
                n_pixels=int(own.sum()),
                is_flagged=is_flagged,
                source_id=source_id,
            )
        )
    return artefacts
