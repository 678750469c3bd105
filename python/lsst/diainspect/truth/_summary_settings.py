"""Settings of the summary of a survey against truth."""

from __future__ import annotations

__all__ = ["SummarySettings"]

from dataclasses import dataclass, field

import numpy as np

from ._bootstrap import Resampling


def _default_edges() -> dict[str, tuple[float, ...]]:
    return {
        "idealSnr": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1e6),
        "mag": tuple(np.arange(14.0, 30.01, 0.5).tolist()),
        "hostSurfaceBrightness": tuple(np.arange(16.0, 32.01, 1.0).tolist()),
        "hostSeparation": (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4),
    }


@dataclass(frozen=True)
class SummarySettings:
    """Settings of `summarise_truth`.

    Parameters
    ----------
    edges : `dict` [`str`, `tuple` [`float`, ...]]
        Edges of the bins of each quantity of the objects: idealSnr, mag, hostSurfaceBrightness, hostSeparation.
    cuts : `tuple` [`str`, ...]
        Conditions on the sources whose effect is measured besides that of each flag: sources for which it holds are
        taken away.
    scores : `tuple` [`str`, ...]
        Columns of the sources, larger for what is rather real, for ROC and precision-recall curves.
    least_snr : `float`
        Least ideal S/N of the objects whose pulls and S/N ratios are measured: fainter ones are detected because
        noise helped, and their fluxes are biased.
    resampling : `Resampling`
        How uncertainties are found.
    """

    edges: dict[str, tuple[float, ...]] = field(default_factory=_default_edges)
    cuts: tuple[str, ...] = ()
    scores: tuple[str, ...] = ("snr",)
    least_snr: float = 10.0
    resampling: Resampling = field(default_factory=Resampling)
