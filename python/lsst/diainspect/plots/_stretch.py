"""Stretches shared by the panels that are compared: linear around zero, logarithmic beyond (asinh)."""

from __future__ import annotations

__all__ = ["add_colorbar", "shared_sky_norm", "shared_symmetric_norm"]

from collections.abc import Iterable, Sequence

import numpy as np
from astropy.stats import mad_std
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

_LINEAR_SIGMA = 3.0
"""Where the stretch turns from linear to logarithmic, in units of the noise."""

_BRIGHT_PERCENTILE = 99.7
_LEAST_RANGE_SIGMA = 10.0
_MAX_TICKS = 9


def _finite(arrays: Iterable[np.ndarray | None]) -> np.ndarray:
    values = [array[np.isfinite(array)] for array in arrays if array is not None]
    return np.concatenate(values) if values else np.zeros(0)


def _noise(values: np.ndarray) -> float:
    sigma = float(mad_std(values)) if len(values) else 0.0
    if not sigma > 0:
        # More than half of the pixels have one value: the scatter of the others, or anything.
        sigma = float(np.std(values)) if len(values) else 0.0
    return sigma if sigma > 0 and np.isfinite(sigma) else 1.0


def shared_sky_norm(arrays: Sequence[np.ndarray | None]) -> AsinhNorm:
    """Return a norm from below the sky at zero to the bright end of all images together."""
    values = _finite(arrays)
    sigma = _noise(values)
    bright = float(np.percentile(values, _BRIGHT_PERCENTILE)) if len(values) else 0.0
    return AsinhNorm(
        linear_width=_LINEAR_SIGMA * sigma,
        vmin=-_LINEAR_SIGMA * sigma,
        vmax=max(bright, _LEAST_RANGE_SIGMA * sigma),
    )


def shared_symmetric_norm(
    arrays: Sequence[np.ndarray | None],
    *,
    sigma: float | None = None,
    percentile: float = 99.9,
    least: float = _LEAST_RANGE_SIGMA,
) -> AsinhNorm:
    """Return a norm symmetric about zero that holds almost all pixels of all images.

    Parameters
    ----------
    arrays : sequence [`numpy.ndarray` or `None`]
        Images.
    sigma : `float`, optional
        Their noise; measured when omitted.
    percentile : `float`, optional
        Percentile of the absolute values at which the range ends.
    least : `float`, optional
        Least range in units of the noise.
    """
    values = np.abs(_finite(arrays))
    if sigma is None:
        sigma = _noise(_finite(arrays))
    bright = float(np.percentile(values, percentile)) if len(values) else 0.0
    limit = max(bright, least * sigma)
    return AsinhNorm(linear_width=_LINEAR_SIGMA * sigma, vmin=-limit, vmax=limit)


def _ticks(norm: AsinhNorm) -> np.ndarray:
    """Return zero and powers of ten that are far enough from each other."""
    assert norm.vmin is not None and norm.vmax is not None
    largest = max(abs(norm.vmin), abs(norm.vmax))
    power = int(np.floor(np.log10(largest)))
    positive: list[float] = []
    # Ticks closer than this would overlap on a bar as long as a panel.
    least_gap = 0.085
    for exponent in range(power, power - 6, -1):
        for digit in (5.0, 2.0, 1.0):
            tick = digit * 10.0**exponent
            if tick > largest:
                continue
            place = float(norm(tick))
            near = min((abs(place - float(norm(other))) for other in positive), default=1.0)
            if near > least_gap and place - float(norm(0.0)) > least_gap:
                positive.append(tick)
    if len(positive) > _MAX_TICKS // 2 and norm.vmin < -0.5 * norm.vmax:
        positive = positive[:: -(-len(positive) // (_MAX_TICKS // 2))]
    values = np.array([*(-tick for tick in positive), 0.0, *reversed(positive)])
    return values[(values >= norm.vmin) & (values <= norm.vmax)]


def _tick_label(value: float, _: int = 0) -> str:
    if abs(value) >= 1e5 or 0 < abs(value) < 1e-2:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def add_colorbar(
    figure: Figure, shown: ScalarMappable, axes: Axes | Sequence[Axes], label: str, *, location: str = "right"
) -> Colorbar:
    """Add the bar of a shared stretch beside the panels that share it."""
    length = 0.8 if location in ("top", "bottom") else 0.9
    bar = figure.colorbar(
        shown, ax=axes, location=location, shrink=length, aspect=30, pad=0.02, extend="both", extendfrac=0.02
    )
    bar.set_label(label)
    if isinstance(shown.norm, AsinhNorm):
        bar.long_axis.set_major_locator(FixedLocator(list(_ticks(shown.norm))))
        bar.long_axis.set_minor_locator(NullLocator())
        bar.long_axis.set_major_formatter(FuncFormatter(_tick_label))
    return bar
