"""What can foreseeably go wrong in a subtraction, each with the numbers that say why."""

from __future__ import annotations

__all__ = [
    "AllPixelsMaskedError",
    "NoOverlapError",
    "NoPsfError",
    "SubtractionError",
    "TooFewKernelSourcesError",
    "UnitMismatchError",
]

from typing import Any

from lsst.pipe.base import AlgorithmError


class SubtractionError(AlgorithmError):
    """A pair of images cannot be subtracted, for a reason that lies in the data.

    Parameters
    ----------
    message : `str`
        What was wrong and what to do.
    **metadata : `int`, `float` or `str`
        Numbers that belong to the failure; they go into the task's metadata.
    """

    def __init__(self, message: str, **metadata: int | float | str) -> None:
        super().__init__(message)
        self._metadata = metadata

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), str(self), self._metadata)

    @property
    def metadata(self) -> dict[str, int | float | str]:
        """Numbers that belong to the failure."""
        return self._metadata


class NoOverlapError(SubtractionError):
    """Science image and template share no pixels."""


class AllPixelsMaskedError(SubtractionError):
    """Too few pixels are good in both images."""


class TooFewKernelSourcesError(SubtractionError):
    """Too few sources are fit to match the two images on."""


class NoPsfError(SubtractionError):
    """An image has no usable PSF."""


class UnitMismatchError(SubtractionError):
    """The two images do not have units that can be converted to nJy."""


def _restore(
    cls: type[SubtractionError], message: str, metadata: dict[str, int | float | str]
) -> SubtractionError:
    """Make an exception again after it was sent from another process."""
    return cls(message, **metadata)
