"""Some sources, or the inner pixels, of stamps: taken plane by plane when they are asked for."""

from __future__ import annotations

__all__ = ["PartialPlanes"]

from collections.abc import Iterator, Mapping

import numpy as np


class PartialPlanes(Mapping[str, np.ndarray]):
    """Planes (N, size, size) that are part of others, each taken on its first use.

    Parameters
    ----------
    planes : mapping [`str`, `numpy.ndarray`]
        Planes to take from.
    index : `tuple`
        Index of what is taken.
    size : `int`
        Side of the result [pixel].
    """

    def __init__(
        self, planes: Mapping[str, np.ndarray], index: tuple[slice | np.ndarray, ...], size: int
    ) -> None:
        self._planes = planes
        self._index = index
        self.size = size
        self._taken: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._taken:
            self._taken[name] = np.ascontiguousarray(self._planes[name][self._index])
        return self._taken[name]

    def __contains__(self, name: object) -> bool:
        return name in self._planes

    def __iter__(self) -> Iterator[str]:
        return iter(self._planes)

    def __len__(self) -> int:
        return len(self._planes)
