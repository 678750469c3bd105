"""The inner pixels of stamps, cut out plane by plane when they are asked for."""

from __future__ import annotations

__all__ = ["CroppedPlanes"]

from collections.abc import Iterator, Mapping

import numpy as np


class CroppedPlanes(Mapping[str, np.ndarray]):
    """Planes (N, size, size) cut out of larger ones, each on its first use.

    Parameters
    ----------
    planes : mapping [`str`, `numpy.ndarray`]
        Planes to cut from.
    inner : `slice`
        Rows, and columns, that are kept.
    """

    def __init__(self, planes: Mapping[str, np.ndarray], inner: slice) -> None:
        self._planes = planes
        self._inner = inner
        self._cut: dict[str, np.ndarray] = {}

    @property
    def size(self) -> int:
        """Side [pixel]."""
        return self._inner.stop - self._inner.start

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._cut:
            self._cut[name] = np.ascontiguousarray(self._planes[name][:, self._inner, self._inner])
        return self._cut[name]

    def __contains__(self, name: object) -> bool:
        return name in self._planes

    def __iter__(self) -> Iterator[str]:
        return iter(self._planes)

    def __len__(self) -> int:
        return len(self._planes)
