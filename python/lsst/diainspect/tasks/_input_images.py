"""Science image and template read in boxes, for tasks that need few of their pixels."""

from __future__ import annotations

__all__ = ["InputImages"]

from typing import Any

from lsst.images import Box, MaskedImage, SkyProjection

_PARTS = ("templateImage", "templateMask", "templateVariance")


class InputImages:
    """The two images of a subtraction behind handles.

    Parameters
    ----------
    inputs : `dict` [`str`, `lsst.daf.butler.DeferredDatasetHandle`]
        ``science`` and either ``template`` or its components.

    Raises
    ------
    ValueError
        If the images share no pixels.
    """

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._science = inputs["science"]
        self._template = inputs.get("template")
        self._parts = [inputs[name] for name in _PARTS if self._template is None]
        science: Box = self._science.get(component="bbox")
        # A component's own components cannot be had.
        template: Box = (
            self._parts[0].get().bbox if self._template is None else self._template.get(component="bbox")
        )
        x = max(science.x.start, template.x.start), min(science.x.stop, template.x.stop)
        y = max(science.y.start, template.y.start), min(science.y.stop, template.y.stop)
        if x[0] >= x[1] or y[0] >= y[1]:
            raise ValueError(f"Science image {science} and template {template} share no pixels.")
        self.bounds = Box.factory[y[0] : y[1], x[0] : x[1]]

    @property
    def sky_projection(self) -> SkyProjection:
        """Pixels to sky."""
        return self._science.get(component="sky_projection")

    def read(self, box: Box) -> tuple[MaskedImage, MaskedImage]:
        """Return science image and template in a box within ``bounds``."""
        parameters = {"bbox": box}
        science = self._science.get(component="masked_image", parameters=parameters)
        if self._template is not None:
            return science, self._template.get(component="masked_image", parameters=parameters)
        image, mask, variance = (part.get(parameters=parameters) for part in self._parts)
        return science, MaskedImage(
            image, mask=mask, variance=variance, sky_projection=science.sky_projection
        )
