"""The error of a difference with more detections than any sky could cause."""

from __future__ import annotations

__all__ = ["TooManyDetectionsError"]

from lsst.pipe.base import AlgorithmError


class TooManyDetectionsError(AlgorithmError):
    """A difference has more peaks than any sky could cause: the subtraction failed.

    Parameters
    ----------
    n_peaks : `int`
        Number of peaks.
    n_allowed : `int`
        Largest number accepted.
    field : `str`
        Configuration field that sets it.
    """

    def __init__(self, n_peaks: int, n_allowed: int, field: str) -> None:
        super().__init__(
            f"{n_peaks} peaks above the threshold where at most {n_allowed} are accepted: the subtraction has "
            f"failed, or raise the configuration field {field} for a crowded field."
        )
        self._metadata = {"nPeaks": n_peaks, "nAllowed": n_allowed}
        self._field = field

    def __reduce__(self) -> tuple[type[TooManyDetectionsError], tuple[int, int, str]]:
        # Exceptions are pickled with their message as the only argument unless they say otherwise.
        return type(self), (self._metadata["nPeaks"], self._metadata["nAllowed"], self._field)

    @property
    def metadata(self) -> dict[str, int]:
        """Numbers that belong to the failure."""
        return self._metadata
