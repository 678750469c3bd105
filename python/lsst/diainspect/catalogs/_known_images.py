"""Which instrument, visits and detectors of a table a repository knows."""

from __future__ import annotations

__all__ = ["choose_instrument", "known_detector_images"]

from collections.abc import Iterable

from lsst.daf.butler import Butler

from ._read_columns import CatalogError


def choose_instrument(butler: Butler, instrument: str | None) -> str:
    """Return the instrument that is asked for, or the only one there is.

    Raises
    ------
    CatalogError
        If the repository does not have it, or has several and none is asked for.
    """
    names = sorted(record.name for record in butler.registry.queryDimensionRecords("instrument"))
    if instrument is None:
        if len(names) != 1:
            raise CatalogError(f"The repository has the instruments {names}: say which took the visits.")
        return names[0]
    if instrument not in names:
        raise CatalogError(f"The repository has no instrument {instrument}; it has {names}.")
    return instrument


def known_detector_images[Key: tuple[int, ...]](
    butler: Butler, instrument: str, keys: Iterable[Key]
) -> set[Key]:
    """Return those of the keys, (visit,) or (visit, detector), that the repository knows."""
    keys = set(keys)
    registry = butler.registry
    detectors = {record.id for record in registry.queryDimensionRecords("detector", instrument=instrument)}
    visits = {
        visit
        for visit in {key[0] for key in keys}
        if list(registry.queryDimensionRecords("visit", instrument=instrument, visit=visit))
    }
    return {key for key in keys if key[0] in visits and detectors.issuperset(key[1:])}
