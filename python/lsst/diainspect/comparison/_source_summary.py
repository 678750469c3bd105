"""How many sources each method found, alone and with others, and what they are."""

from __future__ import annotations

__all__ = ["SOURCE_SUMMARY_COLUMNS", "summarise_sources"]

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.table import Column, Table

from ..truth import Resampling, bootstrap_ratio, poisson_interval
from ._source_classes import source_classes

SOURCE_SUMMARY_COLUMNS: dict[str, tuple[str, str]] = {
    "method": ("U32", "Method."),
    "found": ("U8", "By whom: only (this method alone), shared (another too) or all (both)."),
    "scheme": (
        "U16",
        "What kind of classes: class, verdict, place, look or cause, or evidence; empty for all.",
    ),
    "class": ("U32", "Class of the sources; empty for all."),
    "n": ("int64", "Sources."),
    "nLower": ("float64", "Lower limit of the interval of one sigma of n."),
    "nUpper": ("float64", "Upper limit of the interval of one sigma of n."),
    "perDetector": ("float64", "Sources on a detector."),
    "medianSnr": ("float64", "Median S/N of the sources; NaN without any."),
    "realFraction": ("float64", "Part that is real, where the truth is known; else NaN."),
    "nDetectors": ("int64", "Detectors that were compared."),
}
"""Type and meaning of the columns of the summary."""


def summarise_sources(joined: Table, methods: Sequence[str], resampling: Resampling | None = None) -> Table:
    """Count the sources of each method.

    Intervals are the wider of the Poisson interval and that of a bootstrap over detectors, where there are five
    or more.

    Parameters
    ----------
    joined : `astropy.table.Table`
        Sources of all methods on all detectors, as `join_sources` makes them.
    methods : sequence [`str`]
        Methods; those that the table lacks are left out.
    resampling : `Resampling`, optional
        How to resample.

    Returns
    -------
    summary : `astropy.table.Table`
        One row a method, kind and class.
    """
    resampling = resampling if resampling is not None else Resampling()
    rows: list[dict[str, Any]] = []
    if len(joined):
        keys = np.stack([np.asarray(joined[name], dtype=np.int64) for name in ("visit", "detector")], axis=-1)
        detectors, detector = np.unique(keys, axis=0, return_inverse=True)
        n_methods = np.asarray(joined["nMethods"])
        for method in (name for name in methods if f"{name}_found" in joined.colnames):
            found = np.asarray(joined[f"{method}_found"], dtype=bool)
            kinds = {"only": found & (n_methods == 1), "shared": found & (n_methods > 1), "all": found}
            snr = np.asarray(joined[f"{method}_snr"], dtype=float)
            real = (
                np.asarray(joined[f"{method}_truthIsReal"], dtype=float)
                if f"{method}_truthIsReal" in joined.colnames
                else np.full(len(joined), np.nan)
            )
            schemes = source_classes(joined, method)
            for kind, member in kinds.items():
                parts = [("", "", member)]
                for scheme, names in schemes.items():
                    parts += [
                        (scheme, str(name), member & (names == name)) for name in np.unique(names[found])
                    ]
                for scheme, name, here in parts:
                    counts = np.bincount(detector[here], minlength=len(detectors)).astype(float)
                    total = counts.sum()
                    lower, upper = (float(limit) for limit in poisson_interval(total, resampling.level))
                    one = np.full(len(detectors), 1.0 / len(detectors))
                    drawn = bootstrap_ratio(counts, one, resampling)
                    rows.append(
                        {
                            "method": method,
                            "found": kind,
                            "scheme": scheme,
                            "class": name,
                            "n": total,
                            "nLower": np.fmin(lower, drawn[0]),
                            "nUpper": np.fmax(upper, drawn[1]),
                            "perDetector": total / len(detectors),
                            "medianSnr": np.median(snr[here]) if total else np.nan,
                            "realFraction": real[here].mean() if total else np.nan,
                            "nDetectors": len(detectors),
                        }
                    )
    summary = Table()
    for name, (dtype, doc) in SOURCE_SUMMARY_COLUMNS.items():
        column = np.array([row[name] for row in rows]).astype(dtype) if rows else np.zeros(0, dtype=dtype)
        summary[name] = Column(column, description=doc)
    return summary
