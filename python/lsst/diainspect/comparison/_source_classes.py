"""What the sources of a method are, in one word each, from whatever columns say it."""

from __future__ import annotations

__all__ = ["FALLBACK_SCHEME", "source_classes"]

import re

import numpy as np
from astropy.table import Table

SCHEMES = ("class", "verdict", "place", "look", "cause")
"""Names of the columns that say what a source is, after those of the method and of the diagnostic."""

FALLBACK_SCHEME = "evidence"
"""Scheme made of mask and diagnostic columns, where no other is there."""

_FLAGS_OF_NO_FAULT = ("injected", "edge")
"""Pixel flags that do not say that something is wrong with a source."""

_STATIC_SNR = 5.0
"""Significance of a static source above which it counts as there."""


def source_classes(joined: Table, method: str) -> dict[str, np.ndarray]:
    """Return a class for each source of a method, for each scheme that the columns allow.

    A scheme is a column of text whose name ends in one of ``class``, ``verdict``, ``place``, ``look`` and ``cause``,
    or a family of scores ``..._look_{class}``, of which the largest counts. Where there is none, mask and diagnostic
    columns say it: ``dipole``, ``masked``, ``on a static source`` or ``isolated``, the first that holds.

    Parameters
    ----------
    joined : `astropy.table.Table`
        Sources of all methods, as `join_sources` makes them.
    method : `str`
        Method.

    Returns
    -------
    classes : `dict` [`str`, `numpy.ndarray`]
        For each scheme the class of each row, text; meaningless where the method did not find the source.
    """
    schemes: dict[str, np.ndarray] = {}
    prefix = f"{method}_"
    names = [name for name in joined.colnames if name.startswith(prefix)]
    for scheme in SCHEMES:
        text = [
            name
            for name in names
            if re.split("_", name)[-1].lower() == scheme and joined[name].dtype.kind in "US"
        ]
        scores = [name for name in names if re.search(rf"_{scheme}_[A-Za-z]+$", name, re.IGNORECASE)]
        scores = [name for name in scores if joined[name].dtype.kind in "fb" and joined[name].ndim == 1]
        if text:
            schemes[scheme] = np.char.strip(np.asarray(joined[text[0]]).astype(str))
            schemes[scheme] = np.where(schemes[scheme] == "", "unknown", schemes[scheme])
        elif scores:
            values = np.nan_to_num(np.stack([np.asarray(joined[name], dtype=float) for name in scores]))
            words = np.array([*(name.rsplit("_", 1)[-1] for name in scores), "unknown"])
            best = np.where(values.max(axis=0) > 0, values.argmax(axis=0), len(scores))
            schemes[scheme] = words[best]
    return schemes or {FALLBACK_SCHEME: _from_evidence(joined, prefix)}


def _from_evidence(joined: Table, prefix: str) -> np.ndarray:
    def flag(name: str) -> np.ndarray:
        here = f"{prefix}{name}"
        return (
            np.asarray(joined[here], dtype=bool)
            if here in joined.colnames
            else np.zeros(len(joined), dtype=bool)
        )

    masked = np.zeros(len(joined), dtype=bool)
    for name in joined.colnames:
        if not name.startswith(f"{prefix}pixelFlags_") or not name.endswith("Center"):
            continue
        if not any(fault in name for fault in _FLAGS_OF_NO_FAULT):
            masked |= np.asarray(joined[name], dtype=bool)
    static = np.zeros(len(joined), dtype=bool)
    flux, error = f"{prefix}residualModes_staticFlux", f"{prefix}residualModes_staticFluxErr"
    if flux in joined.colnames and error in joined.colnames:
        with np.errstate(invalid="ignore", divide="ignore"):
            static = np.asarray(joined[flux], dtype=float) > _STATIC_SNR * np.asarray(
                joined[error], dtype=float
            )
    dipole = flag("isDipoleCandidate") | flag("isDipole")
    return np.select([dipole, masked, static], ["dipole", "masked", "on a static source"], default="isolated")
