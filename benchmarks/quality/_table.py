"""The tables of the figures, one for each kind of scene, and the page that shows them."""

from __future__ import annotations

__all__ = [
    "ROWS",
    "PooledGroups",
    "describe_group",
    "make_tables",
    "plot_name",
    "pooled_groups",
    "write_tables",
]

import importlib.metadata
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._bars import bar_of
from ._methods import OWN_METHODS
from ._page import write_between
from ._peers import PEERS
from ._pool import Figure, PooledResults, pool

BEGIN, END = "<!-- benchmark tables: begin -->", "<!-- benchmark tables: end -->"

_FIRST = ("ideal", "al", "zogy")

_VERSIONS = ("numpy", "scipy", "lsst-images", "piff", "galsim", "sep")


def _number(name: str, digits: int) -> Callable[[PooledResults], str]:
    return lambda row: row.figures[name].format(digits)


def _percent(name: str, digits: int) -> Callable[[PooledResults], str]:
    def text(row: PooledResults) -> str:
        figure = row.figures[name]
        return type(figure)(100.0 * figure.value, 100.0 * figure.error).format(digits)

    return text


def _false(row: PooledResults) -> str:
    f = row.figures
    return f"{f['false'].format(2)} (< {f['falseLimit'].value:.2f}; {f['nFalse'].value:.0f})"


def _difference(row: PooledResults) -> str:
    f = row.figures
    return (
        f"{100 * f['completenessDifference'].value:+.1f} (> {100 * f['completenessLower'].value:+.1f}; "
        f"+{f['gained'].value:.0f} -{f['lost'].value:.0f} of {f['nFaint'].value:.0f})"
    )


def _stars(name: str) -> Callable[[PooledResults], str]:
    def text(row: PooledResults) -> str:
        f = row.figures
        if f"n{name}" not in f or f[f"n{name}"].value == 0:
            return "-"
        return (
            f"{f[name].format(2)}; {f[f'{name}Floor'].value:.2f}; {f[f'{name}Ratio'].format(2)} "
            f"({f[f'n{name}'].value:.0f})"
        )

    return text


ROWS: Sequence[tuple[str, str, Callable[[PooledResults], str]]] = (
    ("scoreSigma", "sky sigma of the score", _number("scoreSigma", 4)),
    ("differenceSigma", "sky sigma of D / sqrt(variance)", _number("differenceSigma", 4)),
    ("scoreMedian", "median of the score in the sky", _number("scoreMedian", 3)),
    ("correlation", "neighbour correlation of D, the larger of x and y", _number("correlation", 4)),
    ("false", "false detections / Mpix at 5 sigma (95 % limit; count)", _false),
    ("falseBlank", "... in blank sky", _number("falseBlank", 2)),
    ("falseSource", "... near sources", _number("falseSource", 2)),
    ("duplicates", "second detections of one change / Mpix", _number("duplicates", 2)),
    ("completeness", "completeness at S/N 5-7 [%]", _percent("completeness", 1)),
    ("completenessDifference", "... less the ideal's [%] (95 % bound; discordant)", _difference),
    ("half", "S/N at 50 % completeness", _number("half", 3)),
    ("halfRatio", "... over the ideal's", _number("halfRatio", 4)),
    ("snrRatio", "measured S/N over the ideal's, isolated", _number("snrRatio", 4)),
    ("snrRatioBlank", "... in blank sky", _number("snrRatioBlank", 4)),
    ("snrRatioHosted", "... on hosts", _number("snrRatioHosted", 4)),
    ("stars16", "held-out stars of 16-18 mag: rms; floor; ratio (count)", _stars("stars16")),
    ("stars18", "held-out stars of 18-20 mag: rms; floor; ratio (count)", _stars("stars18")),
    ("stars16Fitted", "fitted stars of 16-18 mag", _stars("stars16Fitted")),
    ("stars18Fitted", "fitted stars of 18-20 mag", _stars("stars18Fitted")),
    ("flux", "flux bias [%], S/N 10-1000, isolated", _percent("flux", 2)),
    ("fluxBlank", "... in blank sky [%]", _percent("fluxBlank", 2)),
    ("fluxHosted", "... on hosts [%]", _percent("fluxHosted", 2)),
    ("fluxUp", "... appearing [%]", _percent("fluxUp", 2)),
    ("fluxDown", "... gone [%]", _percent("fluxDown", 2)),
    ("cpu", "CPU of the subtraction [s]", _number("cpu", 2)),
    ("wall", "wall [s]", _number("wall", 2)),
    ("fftPairs", "CPU in FFT pairs", _number("fftPairs", 1)),
    ("peerRatio", "CPU of the cheapest peer over this", _number("peerRatio", 1)),
    ("candidatesCpu", "CPU of the candidate table, apart [s]", _number("candidatesCpu", 2)),
    ("candidatesFftPairs", "... in FFT pairs", _number("candidatesFftPairs", 1)),
    (
        "startUpCpu",
        "CPU of the first subtraction in a process, of a small pair, apart [s]",
        _number("startUpCpu", 2),
    ),
    ("fftPair", "one FFT pair [ms]", _number("fftPair", 1)),
    ("memory", "peak memory beyond the inputs [GiB]", _number("memory", 2)),
)
"""Rows of the tables: name, which is that of the figure, title, and how it is shown."""


type PooledGroups = dict[str, list[tuple[PooledResults, list[dict[str, Any]]]]]
"""By group of scenes each method's pooled figures and its results."""


def pooled_groups(directory: Path, groups: Sequence[str] = ()) -> PooledGroups:
    """Read all results and pool them by kind of scene and by method."""
    by_group: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((directory / "results").glob("*/*.json")):
        result = json.loads(path.read_text())
        if not groups or any(part in result["group"] for part in groups):
            by_group[result["group"]][result["method"]].append(result)
    pooled: PooledGroups = {}
    for group, methods in sorted(by_group.items()):
        ideal = {result["scene"]: result for result in methods.get("ideal", []) if "measured" in result}
        names = sorted(methods, key=lambda name: (_FIRST.index(name) if name in _FIRST else 9, name))
        pooled[group] = [(pool(methods[name], ideal), methods[name]) for name in names]
        _compare_with_peers([row for row, _ in pooled[group]])
    return pooled


def _compare_with_peers(rows: Sequence[PooledResults]) -> None:
    """Add to our methods' figures how much more CPU the cheapest peer takes on the same scenes."""
    peers = [row.figures["cpu"] for row in rows if row.method in PEERS and row.figures]
    for row in rows:
        if not row.figures:
            continue
        row.figures["peerRatio"] = Figure(np.nan)
        if peers and row.method in OWN_METHODS:
            cheapest, own = min(peers, key=lambda figure: figure.value), row.figures["cpu"]
            ratio = cheapest.value / own.value
            error = ratio * float(np.hypot(cheapest.error / cheapest.value, own.error / own.value))
            row.figures["peerRatio"] = Figure(ratio, error)


def make_tables(
    directory: Path, groups: Sequence[str] = (), figures: str = "", pooled: PooledGroups | None = None
) -> str:
    """Return the tables as Markdown.

    Parameters
    ----------
    directory : `pathlib.Path`
        The benchmark's directory.
    groups : sequence [`str`], optional
        Take only groups whose name contains one of these.
    figures : `str`, optional
        Folder of the plots as seen from the page, to show them below the tables; no plots when empty.
    pooled : `dict`, optional
        What `pooled_groups` returned, where that is at hand.
    """
    parts = []
    for group, entries in (pooled or pooled_groups(directory, groups)).items():
        parts.append(_table(group, entries))
        if figures and any(row.figures for row, _ in entries):
            parts.append(f"![{group}]({figures}/{plot_name(group)})")
    if not parts:
        return "No results."
    return "\n\n".join([*parts, _versions(directory)])


def _table(group: str, entries: list[tuple[PooledResults, list[dict[str, Any]]]]) -> str:
    rows = [row for row, _ in entries]
    shown = [row for row in rows if row.figures]
    lines = [f"### {describe_group(group)}", ""]
    if shown:
        first = shown[0].figures
        lines += [
            f"{first['mpix'].value:.1f} Mpix; noise alone makes {first['floor'].value:.2f} false detections / Mpix.",
            "",
            "| | " + " | ".join(f"{row.method} ({row.n_scenes})" for row in shown) + " | bar |",
            "|---" * (len(shown) + 2) + "|",
        ]
        lines += [
            f"| {title} | " + " | ".join(text(row) for row in shown) + f" | {_bar(name, group, shown)} |"
            for name, title, text in ROWS
            if any(text(row) != "-" for row in shown)
        ]
    for row in rows:
        if row.problem:
            lines += ["", f"{row.method}: {row.problem}"]
    return "\n".join(lines)


def _bar(name: str, group: str, rows: Sequence[PooledResults]) -> str:
    """Return the bar of a row and which of our methods reach it."""
    bar = bar_of(name, group)
    verdicts = [(row.method, bar.verdict(row)) for row in rows if row.method in OWN_METHODS] if bar else []
    told = [f"{method} {verdict}" for method, verdict in verdicts if verdict]
    return f"{bar.text}: {', '.join(told)}" if bar and told else ""


def plot_name(group: str) -> str:
    """Return the name of the file with the plots of a group."""
    return f"benchmark_{group}.png"


def describe_group(group: str) -> str:
    """Return what the scenes of a group are, in words."""
    size, order, psf, template, jitter, *blank = group.split("-")
    seeing = {
        "f": "science blunter (0.9 against 0.7 arcsec)",
        "r": "science sharper (0.7 against 0.9 arcsec)",
    }
    return (
        f"{size} x {size} pixels, {seeing[order]}, {psf} PSFs, {template} template noise, "
        f"jitter {jitter[1:]} pixel{', no sources' if blank else ''}"
    )


def _versions(directory: Path) -> str:
    machines = set()
    for path in (directory / "results").glob("*/*.json"):
        machines.add(json.loads(path.read_text()).get("machine"))
    machines.discard(None)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS)
    return f"Machine: {'; '.join(sorted(machines))}. Versions: {versions}."


def write_tables(page: Path, text: str) -> None:
    """Put the tables between the markers of a page; ValueError when it has none."""
    write_between(page, BEGIN, END, text)
