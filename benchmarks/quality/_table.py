"""The tables of the figures, one for each kind of scene, and the page that shows them."""

from __future__ import annotations

__all__ = ["make_tables", "pooled_groups", "write_tables"]

import importlib.metadata
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._pool import PooledResults, pool

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


_ROWS: Sequence[tuple[str, Callable[[PooledResults], str]]] = (
    ("sky sigma of the score", _number("scoreSigma", 4)),
    ("sky sigma of D / sqrt(variance)", _number("differenceSigma", 4)),
    ("median of the score in the sky", _number("scoreMedian", 3)),
    ("neighbour correlation of D, the larger of x and y", _number("correlation", 4)),
    ("false detections / Mpix at 5 sigma (95 % limit; count)", _false),
    ("... in blank sky", _number("falseBlank", 2)),
    ("... near sources", _number("falseSource", 2)),
    ("second detections of one change / Mpix", _number("duplicates", 2)),
    ("completeness at S/N 5-7 [%]", _percent("completeness", 1)),
    ("... less the ideal's [%] (95 % bound; discordant)", _difference),
    ("S/N at 50 % completeness", _number("half", 3)),
    ("... over the ideal's", _number("halfRatio", 4)),
    ("measured S/N over the ideal's, isolated", _number("snrRatio", 4)),
    ("... in blank sky", _number("snrRatioBlank", 4)),
    ("... on hosts", _number("snrRatioHosted", 4)),
    ("held-out stars of 16-18 mag: rms; floor; ratio (count)", _stars("stars16")),
    ("held-out stars of 18-20 mag: rms; floor; ratio (count)", _stars("stars18")),
    ("fitted stars of 16-18 mag", _stars("stars16Fitted")),
    ("fitted stars of 18-20 mag", _stars("stars18Fitted")),
    ("flux bias [%], S/N 10-1000, isolated", _percent("flux", 2)),
    ("... in blank sky [%]", _percent("fluxBlank", 2)),
    ("... on hosts [%]", _percent("fluxHosted", 2)),
    ("... appearing [%]", _percent("fluxUp", 2)),
    ("... gone [%]", _percent("fluxDown", 2)),
    ("CPU [s]", _number("cpu", 2)),
    ("wall [s]", _number("wall", 2)),
    ("CPU in FFT pairs", _number("fftPairs", 1)),
    ("peak memory beyond the inputs [GiB]", _number("memory", 2)),
)


def pooled_groups(
    directory: Path, groups: Sequence[str] = ()
) -> dict[str, list[tuple[PooledResults, list[dict[str, Any]]]]]:
    """Read all results and pool them by kind of scene and by method."""
    by_group: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((directory / "results").glob("*/*.json")):
        result = json.loads(path.read_text())
        if not groups or any(part in result["group"] for part in groups):
            by_group[result["group"]][result["method"]].append(result)
    pooled = {}
    for group, methods in sorted(by_group.items()):
        ideal = {result["scene"]: result for result in methods.get("ideal", []) if "measured" in result}
        names = sorted(methods, key=lambda name: (_FIRST.index(name) if name in _FIRST else 9, name))
        pooled[group] = [(pool(methods[name], ideal), methods[name]) for name in names]
    return pooled


def make_tables(directory: Path, groups: Sequence[str] = ()) -> str:
    """Return the tables as Markdown.

    Parameters
    ----------
    directory : `pathlib.Path`
        The benchmark's directory.
    groups : sequence [`str`], optional
        Take only groups whose name contains one of these.
    """
    parts = []
    for group, entries in pooled_groups(directory, groups).items():
        parts.append(_table(group, entries))
    if not parts:
        return "No results."
    return "\n\n".join([*parts, _versions(directory)])


def _table(group: str, entries: list[tuple[PooledResults, list[dict[str, Any]]]]) -> str:
    rows = [row for row, _ in entries]
    shown = [row for row in rows if row.figures]
    lines = [f"### {_describe(group)}", ""]
    if shown:
        first = shown[0].figures
        lines += [
            f"{first['mpix'].value:.1f} Mpix; noise alone makes {first['floor'].value:.2f} false detections / Mpix.",
            "",
            "| | " + " | ".join(f"{row.method} ({row.n_scenes})" for row in shown) + " |",
            "|---" * (len(shown) + 1) + "|",
        ]
        lines += [f"| {title} | " + " | ".join(text(row) for row in shown) + " |" for title, text in _ROWS]
    for row in rows:
        if row.problem:
            lines += ["", f"{row.method}: {row.problem}"]
    return "\n".join(lines)


def _describe(group: str) -> str:
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
    content = page.read_text()
    if BEGIN not in content or END not in content:
        raise ValueError(f"{page} has no lines {BEGIN} and {END} to write between.")
    head, _, rest = content.partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")
