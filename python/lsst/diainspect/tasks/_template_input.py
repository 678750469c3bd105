"""The template as an input of several tasks: one image, or the components of one that has no detector.

A template that the stack stitched together has no detector, without which the butler cannot convert it to
lsst.images' types as a whole; its components can be.
"""

from __future__ import annotations

__all__ = ["TemplateConnections", "assemble_template", "drop_template_connections", "template_as_field"]

from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images import MaskedImage, VisitImage

_DIMENSIONS = ("instrument", "visit", "detector")
_COMPONENTS = ("templateImage", "templateMask", "templateVariance")


class TemplateConnections(
    pipeBase.PipelineTaskConnections,
    dimensions=_DIMENSIONS,
    defaultTemplates={"scienceName": "visit_image", "templateName": "template_detector"},
):
    """Science image and template; a task keeps the template as one image or as components."""

    science = cT.Input(
        doc="Science image.", name="{scienceName}", storageClass="VisitImage", dimensions=_DIMENSIONS
    )
    template = cT.Input(
        doc="Template on the science image's pixel grid.",
        name="{templateName}",
        storageClass="DifferenceImage",
        dimensions=_DIMENSIONS,
    )
    templateImage = cT.Input(
        doc="Pixels of the template.",
        name="{templateName}.image",
        storageClass="ImageV2",
        dimensions=_DIMENSIONS,
    )
    templateMask = cT.Input(
        doc="Mask of the template.",
        name="{templateName}.mask",
        storageClass="MaskV2",
        dimensions=_DIMENSIONS,
    )
    templateVariance = cT.Input(
        doc="Variance of the template.",
        name="{templateName}.variance",
        storageClass="ImageV2",
        dimensions=_DIMENSIONS,
    )


def template_as_field() -> pexConfig.ChoiceField:
    """Make the configuration field ``templateAs``."""
    return pexConfig.ChoiceField(
        doc="How the template is read.",
        dtype=str,
        default="image",
        allowed={
            "image": "As one DifferenceImage.",
            "components": "As image, mask and variance (and PSF), for templates without a detector; the projection "
            "is the science image's.",
        },
    )


def drop_template_connections(connections: pipeBase.PipelineTaskConnections, template_as: str | None) -> None:
    """Delete the connections that are not needed.

    Parameters
    ----------
    connections : `lsst.pipe.base.PipelineTaskConnections`
        Instance of a subclass of `TemplateConnections`.
    template_as : `str` or `None`
        Value of the field ``templateAs``; None when the task needs no template at all.
    """
    if template_as != "image":
        del connections.template
    if template_as != "components":
        for name in _COMPONENTS:
            delattr(connections, name)


def assemble_template(inputs: dict[str, Any], science: VisitImage | None) -> dict[str, Any]:
    """Return a task's inputs with the components of a template, if they are there, put together.

    Parameters
    ----------
    inputs : `dict`
        What was read, by connection.
    science : `lsst.images.VisitImage` or `None`
        Image whose projection the template has.
    """
    if _COMPONENTS[0] not in inputs:
        return inputs
    image, mask, variance = (inputs.pop(name) for name in _COMPONENTS)
    projection = science.sky_projection if science is not None else image.sky_projection
    inputs["template"] = MaskedImage(image, mask=mask, variance=variance, sky_projection=projection)
    return inputs
