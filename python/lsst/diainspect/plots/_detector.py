"""A whole detector: science image, template, and each method's difference and score."""

from __future__ import annotations

__all__ = ["DetectorPanels", "plot_detector"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..detection import without_sky_sources
from ._binned_image import BinnedImage
from ._detector_label import DetectorLabel
from ._stretch import add_colorbar, shared_sky_norm, shared_symmetric_norm
from ._style import (
    MASK_COLOUR,
    NEGATIVE_COLOUR,
    POSITIVE_COLOUR,
    method_colours,
    method_name,
    new_figure,
    say_in_place,
    styled,
)

_MASK_OPACITY = 0.85
_SPREAD_OPACITY = 0.3
_SCORE_SIGMA = 1.0

_PANEL_WIDTH = 3.9
"""Width of a panel in the figure [inch]."""


@dataclass(frozen=True)
class DetectorPanels:
    """What one method contributes.

    Parameters
    ----------
    difference, score : `BinnedImage` or `None`
        Images; None where the method made none.
    sources : `astropy.table.Table` or `None`
        DIA sources with ``x``, ``y`` [pixel] and ``isNegative``; sky sources among them are not shown.
    """

    difference: BinnedImage | None = None
    score: BinnedImage | None = None
    sources: Table | None = None


@styled
def plot_detector(
    science: BinnedImage | None,
    template: BinnedImage | None,
    methods: Mapping[str, DetectorPanels],
    label: DetectorLabel,
) -> Figure:
    """Draw science image and template in one stretch, all differences in one, all scores in one.

    Parameters
    ----------
    science, template : `BinnedImage` or `None`
        Images [nJy].
    methods : mapping [`str`, `DetectorPanels`]
        Every method of the run, also those that failed.
    label : `DetectorLabel`
        Title.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Two rows: science image and differences, template and scores.
    """
    height_over_width = _aspect([science, template, *(panel.difference for panel in methods.values())])
    n_columns = 1 + max(1, len(methods))
    panel_height = float(np.clip(_PANEL_WIDTH * height_over_width, 2.0, 8.0))
    # Room for title, axis labels and legend; for the two bars at the sides.
    figure = new_figure(str(label), height=2 * panel_height + 1.7, width=n_columns * _PANEL_WIDTH + 2.6)
    grid = figure.subplots(2, n_columns, sharex=True, sharey=True, squeeze=False)

    _draw_static(figure, grid[:, 0], science, template)
    if not methods:
        for axes in grid[:, 1]:
            say_in_place(axes, "no method")
    colours = method_colours(methods)
    for row, (kind, unit) in enumerate((("difference", "nJy / pixel"), ("score", "S/N"))):
        images = {method: getattr(panels, kind) for method, panels in methods.items()}
        pixels = [image.pixels for image in images.values() if image is not None]
        sigma = _SCORE_SIGMA if kind == "score" else None
        norm = shared_symmetric_norm(pixels, sigma=sigma)
        shown = None
        for axes, (method, image) in zip(grid[row, 1:], images.items(), strict=False):
            axes.set_title(f"{method_name(method)} {kind}", color=colours[method], weight="bold")
            if image is None:
                say_in_place(axes, f"no {kind} of {method_name(method)}")
                continue
            shown = _show(axes, image, cmap="RdBu_r", norm=norm) or shown
            sources = methods[method].sources
            detections = None if sources is None else without_sky_sources(sources)
            _mark_sources(axes, detections)
            if kind == "difference":
                _count_sources(axes, detections)
        if shown is not None:
            add_colorbar(figure, shown, list(grid[row, 1:]), f"{kind} [{unit}]{_bin_text(images, kind)}")
    _label_axes(grid)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4)
    return figure


def _aspect(images: Sequence[BinnedImage | None]) -> float:
    for image in images:
        if image is not None:
            x_min, x_max, y_min, y_max = image.extent
            return (y_max - y_min) / (x_max - x_min)
    return 1.0


def _bin_text(images: Mapping[str, BinnedImage | None], kind: str) -> str:
    factor = max(image.factor for image in images.values() if image is not None)
    if factor == 1:
        return ""
    what = "mean" if kind == "difference" else "extreme"
    return f", {what} of {factor}$\\times${factor}"


def _draw_static(
    figure: Figure, column: np.ndarray, science: BinnedImage | None, template: BinnedImage | None
) -> None:
    above = [None if image is None else _above_median(image) for image in (science, template)]
    norm = shared_sky_norm([None if image is None else image.pixels for image in above])
    shown = None
    for axes, name, image in zip(column, ("science", "template"), above, strict=True):
        axes.set_title(name)
        if image is None:
            say_in_place(axes, f"no {name} image")
            continue
        shown = _show(axes, image, cmap="gray_r", norm=norm) or shown
    if shown is not None:
        add_colorbar(figure, shown, list(column), "image minus its median [nJy / pixel]", location="left")


def _above_median(image: BinnedImage) -> BinnedImage:
    finite = image.pixels[np.isfinite(image.pixels)]
    median = np.median(finite) if len(finite) else np.float32(0.0)
    return BinnedImage(image.pixels - median, image.masked, image.spread, image.extent, image.factor)


def _show(axes: Axes, image: BinnedImage, **kwargs: object) -> AxesImage | None:
    if not np.isfinite(image.pixels).any():
        say_in_place(axes, "no finite pixel")
        return None
    axes.set_facecolor(MASK_COLOUR)
    shown = axes.imshow(image.pixels, extent=image.extent, rasterized=True, **kwargs)  # type: ignore[arg-type]
    # A bin that is masked in part still shows what the rest of it says.
    opacity = np.maximum(_MASK_OPACITY * image.masked, _SPREAD_OPACITY * image.spread)
    if opacity.any():
        overlay = np.empty((*opacity.shape, 4), dtype=np.float32)
        overlay[..., :3] = to_rgb(MASK_COLOUR)
        overlay[..., 3] = opacity
        axes.imshow(overlay, extent=image.extent, rasterized=True)
    return shown


def _signs(sources: Table) -> list[tuple[np.ndarray, str, str]]:
    negative = np.asarray(sources["isNegative"], dtype=bool)
    return [(~negative, "o", POSITIVE_COLOUR), (negative, "s", NEGATIVE_COLOUR)]


def _mark_sources(axes: Axes, sources: Table | None) -> None:
    if sources is None or len(sources) == 0:
        return
    x, y = (np.asarray(sources[name], dtype=float) for name in ("x", "y"))
    finite = np.isfinite(x) & np.isfinite(y)
    # Thousands of full-sized marks would hide the image.
    size = float(np.clip(70.0 * np.sqrt(60.0 / max(len(sources), 1)), 10.0, 70.0))
    for which, marker, colour in _signs(sources):
        keep = which & finite
        axes.scatter(
            x[keep], y[keep], s=size, marker=marker, facecolors="none", edgecolors=colour, linewidths=0.9
        )


def _count_sources(axes: Axes, sources: Table | None) -> None:
    if sources is None:
        text = "no source table"
    else:
        n_negative = int(np.asarray(sources["isNegative"], dtype=bool).sum()) if len(sources) else 0
        text = f"{len(sources) - n_negative} positive, {n_negative} negative"
    axes.set_title(text, loc="right", fontsize=8.5)
    axes.set_title(axes.get_title(), loc="left", color=axes.title.get_color(), weight="bold")
    axes.set_title("", loc="center")


def _label_axes(grid: np.ndarray) -> None:
    for axes in grid[-1]:
        axes.set_xlabel("x [pixel]")
    for axes in grid[:, 0]:
        axes.set_ylabel("y [pixel]")
    for axes in grid.flat:
        axes.label_outer()


def _legend() -> list[Line2D | Patch]:
    marks = [("o", POSITIVE_COLOUR, "positive source"), ("s", NEGATIVE_COLOUR, "negative source")]
    handles: list[Line2D | Patch] = [
        Line2D([], [], marker=marker, color=colour, markerfacecolor="none", linestyle="none", label=text)
        for marker, colour, text in marks
    ]
    handles.append(Patch(color=MASK_COLOUR, alpha=_MASK_OPACITY, label="masked or no data"))
    handles.append(Patch(color=MASK_COLOUR, alpha=_SPREAD_OPACITY, label="edge, or reached by masked pixels"))
    return handles
