"""Names of the pixel planes: those of the stamps' own method, and those of other methods beside them."""

from __future__ import annotations

__all__ = ["PLANES", "describe_plane", "other_method"]

import re

import astropy.units as u

PLANES: dict[str, tuple[u.UnitBase | None, str]] = {
    "science": (u.nJy, "Science image."),
    "template": (u.nJy, "Template."),
    "difference": (u.nJy, "Difference image."),
    "templateMatched": (u.nJy, "Template brought to the science image's PSF."),
    "score": (None, "Score image, in units of its sigma."),
    "scienceVariance": (u.nJy**2, "Variance of the science image."),
    "templateVariance": (u.nJy**2, "Variance of the template."),
    "differenceVariance": (u.nJy**2, "Variance of the difference image."),
    "mask": (None, "Mask words of the difference image, with the bits of lsst.diainspect.masks."),
}
"""Pixel planes of a stamp set, with their units and meanings."""

_OF_A_METHOD = ("difference", "differenceVariance", "score", "templateMatched")
"""Planes that another method may have too, as ``zogy_difference``."""

_OTHER = re.compile(rf"(?P<method>[A-Za-z]\w*?)_(?P<plane>{'|'.join(_OF_A_METHOD)})")


def other_method(name: str) -> tuple[str, str] | None:
    """Split the name of another method's plane, as ``zogy_difference``, into method and plane; None for others."""
    match = _OTHER.fullmatch(name)
    return None if match is None else (match["method"], match["plane"])


def describe_plane(name: str) -> tuple[u.UnitBase | None, str] | None:
    """Return unit and meaning of a plane, or None if there is no such plane."""
    if name in PLANES:
        return PLANES[name]
    found = other_method(name)
    if found is None:
        return None
    unit, doc = PLANES[found[1]]
    return unit, f"{doc.removesuffix('.')}, of the method {found[0]}."
