"""Plugins of other packages: subtractors, diagnostics and metrics found by entry point.

A package joins by an entry point in the group ``lsst.diainspect.plugins`` that names a module; importing it
registers what it brings. Where no distribution metadata exists (EUPS), ``python: import the_module`` in a
pipeline's configuration does the same.
"""

from __future__ import annotations

__all__ = ["ENTRY_POINT_GROUP", "load_plugins"]

from functools import cache
from importlib.metadata import entry_points

from lsst.utils.logging import getLogger

_LOG = getLogger(__name__)

ENTRY_POINT_GROUP = "lsst.diainspect.plugins"


@cache
def load_plugins() -> tuple[str, ...]:
    """Import every plugin module once; one that fails is reported and left out.

    Returns
    -------
    loaded : `tuple` [`str`, ...]
        Names of the entry points that were loaded.
    """
    loaded = []
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()
        except Exception as err:
            _LOG.warning("Plugin %s (%s) could not be loaded: %s", entry_point.name, entry_point.value, err)
            continue
        loaded.append(entry_point.name)
    return tuple(loaded)
