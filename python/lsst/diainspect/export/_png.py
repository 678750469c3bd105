"""Science image, template and differences of a source side by side, as pixels of a picture."""

from __future__ import annotations

__all__ = ["triplet_pixels"]

import matplotlib
import numpy as np

from ..plots import shared_sky_norm, shared_symmetric_norm
from ..stamps import StampSet, other_method

_LEAST_SIDE = 200
"""Panels are enlarged by a whole factor to at least this side [pixel]."""

_GAP = 4
_NO_DATA = (110, 110, 110)


def triplet_pixels(stamps: StampSet, row: int) -> np.ndarray:
    """Draw the stamps of a source.

    Science image and template, less their sky, share one asinh stretch, and so do the differences. y points up;
    grey is no data.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps with any of science, template, difference and the differences of other methods.
    row : `int`
        Row of the source.

    Returns
    -------
    pixels : `numpy.ndarray`, (height, width, 3), uint8
        Panels from left to right, the first row on top.

    Raises
    ------
    ValueError
        If none of these planes is there.
    """
    static = [name for name in ("science", "template") if name in stamps.planes]
    differences = [
        name
        for name in stamps.planes
        if name == "difference" or (other_method(name) or ("", ""))[1] == "difference"
    ]
    if not static and not differences:
        raise ValueError("There is no science, template or difference plane to draw.")
    images = {name: np.asarray(stamps.planes[name][row], dtype=float) for name in [*static, *differences]}
    for name in static:
        finite = images[name][np.isfinite(images[name])]
        if len(finite):
            # The sky of a stamp may be raised by a galaxy: the faint side tells.
            images[name] = images[name] - np.percentile(finite, 20.0)
    norms = {
        **dict.fromkeys(static, ("gray_r", shared_sky_norm([images[name] for name in static]))),
        **dict.fromkeys(
            differences, ("RdBu_r", shared_symmetric_norm([images[name] for name in differences]))
        ),
    }
    zoom = max(1, -(-_LEAST_SIDE // stamps.size))
    panels = []
    for name, image in images.items():
        colour_map, norm = norms[name]
        colours = matplotlib.colormaps[colour_map](norm(image), bytes=True)[..., :3]
        colours[~np.isfinite(image)] = _NO_DATA
        panel = colours[::-1].repeat(zoom, axis=0).repeat(zoom, axis=1)
        panels += [panel, np.full((len(panel), _GAP, 3), 255, dtype=np.uint8)]
    pixels: np.ndarray = np.concatenate(panels[:-1], axis=1)
    return pixels
