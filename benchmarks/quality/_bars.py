"""What the figures of the tables are held to, and whether they reach it.

A figure that misses its bar, or meets it, by less than its own statistical error is marked as open.
"""

from __future__ import annotations

__all__ = ["Bar", "bar_of"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._pool import Figure, PooledResults

_NOISE_TOLERANCE = 0.01
_FALSE_EXCESS = {"f": 0.4, "r": 0.7}
_LEAST_COMPLETENESS = -0.02
_HALF_TOLERANCE = 0.015
_LEAST_SNR = 0.98
_STAR_RATIO = {"al": 1.25, "zogy": 1.10}
_STAR_RATIO_STILL = 1.05
_FLUX_BIAS = 0.005
_FFT_PAIRS = {"al": 25.0, "zogy": 20.0}
_SIZE = 4096
"""Side of the scenes that are held to bars [pixel]."""
_MEMORY = 1.5
_PEER_RATIO = 10.0


@dataclass(frozen=True)
class Bar:
    """A bar: what it says, and by how much a method's figures clear it.

    Parameters
    ----------
    text : `str`
        What it says.
    margin : callable
        Takes what was pooled for a method; returns the margin to the bar, positive where it is met, with the error that
        it is known to; NaN where it does not apply to the method.
    """

    text: str
    margin: Callable[[PooledResults], Figure]

    def verdict(self, row: PooledResults) -> str:
        """Return "met", "missed" or "open", with its method; empty where the bar does not apply."""
        margin = self.margin(row)
        if not np.isfinite(margin.value):
            return ""
        if np.isfinite(margin.error) and abs(margin.value) < margin.error:
            return "open"
        return "met" if margin.value >= 0 else "missed"


def _near(name: str, target: float, tolerance: float) -> Callable[[PooledResults], Figure]:
    def margin(row: PooledResults) -> Figure:
        figure = row.figures[name]
        return Figure(tolerance - abs(figure.value - target), figure.error)

    return margin


def _at_least(name: str, least: float) -> Callable[[PooledResults], Figure]:
    return lambda row: Figure(row.figures[name].value - least, row.figures[name].error)


def _at_most(name: str, most: dict[str, float] | float) -> Callable[[PooledResults], Figure]:
    def margin(row: PooledResults) -> Figure:
        bound = most.get(row.method, np.nan) if isinstance(most, dict) else most
        return Figure(bound - row.figures[name].value, row.figures[name].error)

    return margin


def _false_margin(excess: float) -> Callable[[PooledResults], Figure]:
    # The limit holds the statistical error already.
    return lambda row: Figure(row.figures["floor"].value + excess - row.figures["falseLimit"].value)


def _flux_margin(name: str) -> Callable[[PooledResults], Figure]:
    def margin(row: PooledResults) -> Figure:
        figure = row.figures[name]
        return Figure(_FLUX_BIAS + figure.error - abs(figure.value))

    return margin


def bar_of(name: str, group: str) -> Bar | None:
    """Return the bar of a figure in a group of scenes; `None` where there is none.

    Parameters
    ----------
    name : `str`
        Name of the row, that of its figure.
    group : `str`
        Name of the group, which says size, seeing order, PSFs, template and jitter.
    """
    size, order, psf, template, jitter, *blank = group.split("-")
    if blank or (int(size) != _SIZE and name != "peerRatio"):
        # Small scenes have too few sources to tell.
        return None
    if psf == "exact" and name in ("scoreSigma", "differenceSigma"):
        return Bar("within 1 % of 1", _near(name, 1.0, _NOISE_TOLERANCE))
    if psf == "exact" and name == "correlation":
        return Bar("below 0.01", _near(name, 0.0, _NOISE_TOLERANCE))
    if psf != "exact" or template != "white":
        # What measured PSFs and resampled templates lose is shown, not held to a bar.
        return None
    still = float(jitter[1:]) == 0.0
    most_stars: dict[str, float] | float = _STAR_RATIO_STILL if still else _STAR_RATIO
    stars_text = f"≤ {_STAR_RATIO_STILL}" if still else "al ≤ 1.25, zogy ≤ 1.10"
    bars = {
        "false": Bar(f"limit ≤ floor + {_FALSE_EXCESS[order]}", _false_margin(_FALSE_EXCESS[order])),
        # The bound holds the statistical error already.
        "completenessDifference": Bar(
            "bound > -2 %",
            lambda row: Figure(row.figures["completenessLower"].value - _LEAST_COMPLETENESS),
        ),
        "halfRatio": Bar("within 1.5 % of 1", _near("halfRatio", 1.0, _HALF_TOLERANCE)),
        "snrRatio": Bar("≥ 0.98", _at_least("snrRatio", _LEAST_SNR)),
        "stars16": Bar(stars_text, _at_most("stars16Ratio", most_stars)),
        "stars18": Bar(stars_text, _at_most("stars18Ratio", most_stars)),
        "fftPairs": Bar("al ≤ 25, zogy ≤ 20", _at_most("fftPairs", _FFT_PAIRS)),
        "memory": Bar("≤ 1.5", _at_most("memory", _MEMORY)),
        "peerRatio": Bar("≥ 10", _at_least("peerRatio", _PEER_RATIO)),
        **{
            f"flux{part}": Bar("below 0.5 % beyond its error", _flux_margin(f"flux{part}"))
            for part in ("", "Blank", "Hosted", "Up", "Down")
        },
    }
    return bars.get(name)
