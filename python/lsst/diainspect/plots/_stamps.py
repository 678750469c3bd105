"""Stamps of the sources on which the methods disagree: one row a source, one column an image."""

from __future__ import annotations

__all__ = ["SourceStamps", "gather_source_stamps", "plot_stamps"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Row, Table
from lsst.images import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..stamps import gather_stamps, stamp_origin
from ._detector_label import DetectorLabel
from ._discrepancy import Discrepancy, signed_snr
from ._stretch import shared_sky_norm, shared_symmetric_norm
from ._style import MASK_COLOUR, NEUTRAL_COLOUR, method_colours, method_name, new_figure, say_in_place, styled

_DEFAULT_SIZE = 41
_SIDE = 1.25
"""Side of a stamp in the figure [inch]."""

_SCORE_REACH = 2
"""Pixels around a source in which its score in a method that did not find it is looked for."""

_MODES = {
    # Rise of chi-square, and (name, column, unit, factor) of what is shown of it.
    "shiftChi2": (("shift x", "shiftX", " pix", 1.0), ("y", "shiftY", " pix", 1.0)),
    "widthChi2": (("width", "width", " %", 1.0),),
    "shearChi2": (("e1", "e1", "", 1.0), ("e2", "e2", "", 1.0)),
}
_WORTH_SAYING = 16.0
"""Rise of chi-square from which a residual mode is mentioned: 4 sigma."""

_MASK_FRACTION = 0.05


@dataclass(frozen=True)
class SourceStamps:
    """What is shown of one source.

    Parameters
    ----------
    x, y : `float`
        Position [pixel].
    reason : `str`
        Why the source is shown.
    source_ids : mapping [`str`, `int`]
        diaSourceId of each method that found it.
    science, template : `numpy.ndarray`, (size, size), or `None`
        Stamps [nJy]; None where there are none.
    differences : mapping [`str`, `numpy.ndarray` or `None`]
        Stamps of each method's difference [nJy].
    texts : mapping [`str`, sequence [`str`]]
        What each method says about the source, in lines.
    """

    x: float
    y: float
    reason: str
    source_ids: Mapping[str, int]
    science: np.ndarray | None
    template: np.ndarray | None
    differences: Mapping[str, np.ndarray | None]
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)


def gather_source_stamps(
    joined: Table,
    chosen: Sequence[Discrepancy],
    stamps: Mapping[str, Table | None],
    read_image: Callable[[str, str], Image | None] | None = None,
) -> list[SourceStamps]:
    """Collect the stamps of chosen sources, and put what was measured in words.

    Parameters
    ----------
    joined : `astropy.table.Table`
        Sources of all methods, as `lsst.diainspect.comparison.join_sources` makes them.
    chosen : sequence [`Discrepancy`]
        Rows of it.
    stamps : mapping [`str`, `astropy.table.Table` or `None`]
        Stamps of every method of the run with ``diaSourceId`` and the planes science, template and difference.
    read_image : callable, optional
        Returns, for a method and "difference" or "score", that image, from which the stamp of a source that the method
        did not find is cut; called at most once for each.
    """
    size = next(
        (
            table["difference"].shape[-1]
            for table in stamps.values()
            if table is not None and "difference" in table.colnames and table["difference"].ndim == 3
        ),
        _DEFAULT_SIZE,
    )
    x, y = (np.asarray(joined[name], dtype=float) for name in ("x", "y"))
    snr = {method: signed_snr(joined, method) for method in stamps}
    rows = np.array([one.row for one in chosen], dtype=int)
    cut = {method: _PixelsElsewhere(method, rows[~np.isfinite(snr[method][rows])], x, y, size, read_image)
           for method in stamps}  # fmt: skip
    index = {method: _index(table) for method, table in stamps.items()}

    gathered = []
    for one in chosen:
        own = {
            method: index[method].get(int(joined[f"{method}_diaSourceId"][one.row]))
            for method in stamps
            if np.isfinite(snr[method][one.row]) and f"{method}_diaSourceId" in joined.colnames
        }
        first = next((method for method, at in own.items() if at is not None), None)
        static = {
            name: None if first is None else _stamp(stamps[first], own[first], name)
            for name in ("science", "template")
        }
        differences, texts = {}, {}
        for method in stamps:
            at = own.get(method)
            if np.isfinite(snr[method][one.row]):
                differences[method] = _stamp(stamps[method], at, "difference")
                texts[method] = _describe(joined[one.row], method, float(snr[method][one.row]))
            else:
                differences[method] = cut[method].difference.get(one.row)
                texts[method] = [cut[method].describe(one.row)]
        gathered.append(
            SourceStamps(
                float(x[one.row]),
                float(y[one.row]),
                one.reason,
                {method: int(joined[f"{method}_diaSourceId"][one.row]) for method in own},
                static["science"],
                static["template"],
                differences,
                texts,
            )
        )
    return gathered


class _PixelsElsewhere:
    """Pixels of a method at sources that only others found."""

    def __init__(
        self,
        method: str,
        rows: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        size: int,
        read_image: Callable[[str, str], Image | None] | None,
    ) -> None:
        self._method = method
        self.difference: dict[int, np.ndarray] = {}
        self._score: dict[int, float] = {}
        if len(rows) == 0 or read_image is None:
            return
        for kind, side in (("difference", size), ("score", 2 * _SCORE_REACH + 1)):
            image = read_image(method, kind)
            if image is None:
                continue
            x0, y0 = stamp_origin(x[rows], y[rows], side)
            pixels = gather_stamps(
                image.array, x0 - image.bbox.x.start, y0 - image.bbox.y.start, side, fill=np.nan
            )
            for row, stamp in zip(rows, pixels, strict=True):
                if kind == "difference":
                    self.difference[int(row)] = stamp
                elif np.isfinite(stamp).any():
                    values = stamp[np.isfinite(stamp)]
                    self._score[int(row)] = float(values[np.argmax(np.abs(values))])

    def describe(self, row: int) -> str:
        if row in self._score:
            return f"not found; score {_number(self._score[row], '+.1f')}"
        return "not found"


def _index(table: Table | None) -> dict[int, int]:
    if table is None:
        return {}
    return {int(key): row for row, key in enumerate(np.asarray(table["diaSourceId"]))}


def _stamp(table: Table | None, row: int | None, name: str) -> np.ndarray | None:
    if table is None or row is None or name not in table.colnames:
        return None
    return np.asarray(table[name][row], dtype=float)


def _three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.0f}" if 1000 <= value < 1e7 else f"{value:.3g}"


def _number(value: float, form: str) -> str:
    return format(value, form).replace("-", "\N{MINUS SIGN}")


def _describe(row: Row, method: str, snr: float) -> list[str]:
    """Put what a method measured of a source in words."""

    def value(name: str) -> float:
        column = f"{method}_{name}"
        return float(row[column]) if column in row.colnames else np.nan

    first = f"S/N {_number(snr, '+.1f')}"
    if np.isfinite(value("psfFlux")):
        first += f", flux {_number(value('psfFlux'), ',.0f')} $\\pm$ {value('psfFluxErr'):,.0f} nJy"
    n_free = value("psfNdata") - 1.0
    if np.isfinite(value("psfChi2")) and n_free > 0:
        first += rf", $\chi^2/\nu$ {value('psfChi2') / n_free:.2f}"
    return [first, *_leading_mode(value), *_mask_words(row, method)]


def _leading_mode(value: Callable[[str], float]) -> list[str]:
    rises = {name: value(f"residualModes_{name}") for name in _MODES}
    rises = {name: rise for name, rise in rises.items() if np.isfinite(rise)}
    if not rises:
        return []
    leading = max(rises, key=lambda name: rises[name])
    if rises[leading] < _WORTH_SAYING:
        return []
    parts = []
    for text, column, unit, factor in _MODES[leading]:
        amplitude = factor * value(f"residualModes_{column}")
        error = factor * value(f"residualModes_{column}Err")
        digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 4)) if error > 0 else 2
        parts.append(f"{text} {_number(amplitude, f'+.{digits}f')} $\\pm$ {error:.{digits}f}{unit}")
    return [", ".join(parts) + rf" ($\Delta\chi^2$ {rises[leading]:.0f})"]


def _mask_words(row: Row, method: str) -> list[str]:
    start, end = f"{method}_maskFractions_", "_core"
    names = [name for name in row.colnames if name.startswith(start) and name.endswith(end)]
    fractions = {name.removeprefix(start).removesuffix(end): float(row[name]) for name in names}
    said = [
        f"{name} {100 * fraction:.0f} %"
        for name, fraction in sorted(fractions.items(), key=lambda item: -item[1])
        if fraction > _MASK_FRACTION
    ]
    return ["core: " + ", ".join(said[:2])] if said else []


@styled
def plot_stamps(sources: Sequence[SourceStamps], methods: Sequence[str], label: DetectorLabel) -> Figure:
    """Draw science image, template and all differences of each source.

    Science image and template of a source share one stretch, and so do its differences.

    Parameters
    ----------
    sources : sequence [`SourceStamps`]
        What to show.
    methods : sequence [`str`]
        Every method of the run.
    label : `DetectorLabel`
        Title.
    """
    title = f"{label}: sources on which the methods disagree most"
    columns = ["science", "template", *(f"{method_name(method)} difference" for method in methods)]
    text_width = 4.1
    width = len(columns) * (_SIDE + 0.12) + text_width + 0.3
    if not sources:
        figure = new_figure(title, height=2.5, width=width)
        say_in_place(figure.subplots(), "no sources to compare")
        return figure
    figure = new_figure(title, height=len(sources) * (_SIDE + 0.1) + 1.0, width=width)
    grid = figure.subplots(
        len(sources),
        len(columns) + 1,
        squeeze=False,
        width_ratios=[*([_SIDE] * len(columns)), text_width],
    )
    colours = method_colours(methods)
    for axes, name, colour in zip(
        grid[0], columns, ["black", "black", *(colours[method] for method in methods)], strict=False
    ):
        axes.set_title(name, color=colour, fontsize=9.5, weight="bold")
    for row, source in zip(grid, sources, strict=True):
        _draw_stamps(row, source, methods)
        _write(row[-1], source, methods, colours)
    size = max((stamp.shape[0] for source in sources for stamp in _arrays(source)), default=0)
    figure.supxlabel(
        f"stamps of {size} x {size} pixels, x to the right, y up; ranges in nJy / pixel, asinh stretch",
        fontsize=8.5,
    )
    return figure


def _arrays(source: SourceStamps) -> list[np.ndarray]:
    every = [source.science, source.template, *source.differences.values()]
    return [stamp for stamp in every if stamp is not None]


def _draw_stamps(row: np.ndarray, source: SourceStamps, methods: Sequence[str]) -> None:
    static = [source.science, source.template]
    middle = np.concatenate(
        [stamp[np.isfinite(stamp)] for stamp in static if stamp is not None] or [np.zeros(0)]
    )
    # The sky of a stamp may be raised by a galaxy or a star's wing: the faint side tells.
    sky = float(np.percentile(middle, 20.0)) if len(middle) else 0.0
    static = [None if stamp is None else stamp - sky for stamp in static]
    differences = [source.differences.get(method) for method in methods]
    sky_norm = shared_sky_norm(static)
    # The brightest pixels of a stamp are what it is cut for.
    bright = [float(np.nanmax(stamp)) for stamp in static if stamp is not None and np.isfinite(stamp).any()]
    sky_norm.vmax = max([float(sky_norm.vmax or 1.0), *bright])
    difference_norm = shared_symmetric_norm(differences, percentile=99.8)
    shown = [*((stamp, "gray_r", sky_norm) for stamp in static)]
    shown += [(stamp, "RdBu_r", difference_norm) for stamp in differences]
    for index, (axes, (stamp, cmap, norm)) in enumerate(zip(row, shown, strict=False)):
        if stamp is None or not np.isfinite(stamp).any():
            say_in_place(axes, "not there" if stamp is None else "no finite\npixel")
            continue
        axes.set_facecolor(MASK_COLOUR)
        axes.imshow(stamp, cmap=cmap, norm=norm)
        axes.set_xticks([])
        axes.set_yticks([])
        _point_at(axes, stamp.shape)
        if index in (0, len(static)):
            limit = float(norm.vmax or 0.0)
            text = _three_digits(limit) if index == 0 else f"\N{PLUS-MINUS SIGN}{_three_digits(limit)}"
            axes.text(
                0.04,
                0.04,
                text,
                transform=axes.transAxes,
                fontsize=7.5,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0},
            )


def _point_at(axes: Axes, shape: tuple[int, ...]) -> None:
    """Draw two short lines that end beside the source, which is in the middle pixel."""
    y, x = (size // 2 for size in shape)
    near, far = 0.12 * shape[1], 0.22 * shape[1]
    axes.plot(
        [x + near, x + far], [y, y], [x, x], [y + near, y + far], color="black", linewidth=0.9, alpha=0.7
    )
    axes.set_xlim(-0.5, shape[1] - 0.5)
    axes.set_ylim(-0.5, shape[0] - 0.5)


def _write(axes: Axes, source: SourceStamps, methods: Sequence[str], colours: Mapping[str, str]) -> None:
    axes.set_axis_off()
    top = f"({source.x:.1f}, {source.y:.1f})  {source.reason}"
    axes.text(0.0, 0.97, top, transform=axes.transAxes, va="top", fontsize=9, weight="bold")
    ids = ", ".join(f"{method_name(method)} {number}" for method, number in source.source_ids.items())
    axes.text(0.0, 0.82, f"id {ids}", transform=axes.transAxes, va="top", fontsize=7, color=NEUTRAL_COLOUR)
    line = 0.68
    for method in methods:
        for index, text in enumerate(source.texts.get(method, ["no sources"])):
            name = f"{method_name(method)}: " if index == 0 else "    "
            colour = colours[method] if index == 0 else NEUTRAL_COLOUR
            axes.text(0.0, line, name + text, transform=axes.transAxes, va="top", fontsize=8, color=colour)
            line -= 0.13
