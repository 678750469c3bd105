"""What the server of ``pipetask run --start-method forkserver`` imports once for all quanta: every task, and what the
butler and the tasks import only when they first need it."""

from __future__ import annotations

import importlib
from contextlib import suppress

from . import _TASKS

_NEEDED_LATER = (
    "lsst.daf.butler.formatters.json",
    "lsst.daf.butler.formatters.logs",
    "lsst.daf.butler.formatters.parquet",
    "lsst.images.formatters",
    "lsst.pipe.base.mp_graph_executor",
    "lsst.pipe.base.single_quantum_executor",
    "matplotlib.backends.backend_agg",
    "piff",
)

for _module in _TASKS:
    importlib.import_module(f".{_module}", __package__)

for _module in _NEEDED_LATER:
    # In another version of the stack one may have another name: then each quantum imports it for itself.
    with suppress(ImportError):
        importlib.import_module(_module)
