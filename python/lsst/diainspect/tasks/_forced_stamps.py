"""Stamps of given places, from the images of a subtraction, with everything that diagnostics use."""

from __future__ import annotations

__all__ = ["cut_forced_stamps"]

from astropy.table import Table
from lsst.images import MaskedImage

from ..masks import mask_to_words
from ..stamps import MODELS, StampSet, cut_stamps
from ..subtraction import filters_from_table


def cut_forced_stamps(
    places: Table,
    science: MaskedImage,
    template: MaskedImage,
    difference: MaskedImage,
    filters: Table,
    size: int,
) -> StampSet:
    """Cut stamps at places.

    Parameters
    ----------
    places : `astropy.table.Table`
        Rows with ``diaSourceId``, ``x`` and ``y`` [pixel].
    science, template, difference : `lsst.images.MaskedImage`
        Inputs and result of the subtraction.
    filters : `astropy.table.Table`
        PSFs and filters, as `lsst.diainspect.subtraction.filters_to_table` writes them.
    size : `int`
        Side of the stamps [pixel].
    """
    images = {}
    for name, image in (("science", science), ("template", template), ("difference", difference)):
        images[name] = (image.image.array, image.bbox)
        images[f"{name}Variance"] = (image.variance.array, image.bbox)
    images["mask"] = (mask_to_words(difference.mask), difference.bbox)
    bases = filters_from_table(filters)
    models = {name: bases[name] for name in MODELS if name in bases}
    return cut_stamps(places, images, models, science.sky_projection, size)
