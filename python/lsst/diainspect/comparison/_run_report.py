"""The report of what changed between two runs, as text that a person reads (Markdown)."""

from __future__ import annotations

__all__ = ["render_run_comparison"]

from collections.abc import Iterable, Sequence

import numpy as np

from ._run_comparison import RunComparison

_FAINT, _BRIGHT = 6.0, 50.0
"""S/N below and above which sources are spoken of: edges of the bins of `RunComparison`."""


def render_run_comparison(comparison: RunComparison, *, n_brightest: int = 10) -> str:
    """Write the report.

    Parameters
    ----------
    comparison : `RunComparison`
        What changed.
    n_brightest : `int`, optional
        Number of the most significant sources to list that only one run has.

    Returns
    -------
    text : `str`
        Markdown.
    """
    first, second = comparison.names
    parts = [
        f"# {first} against {second}",
        _summary(comparison),
        "## Sources by image",
        _table(
            ("visit", "detector", first, second, "common", f"only {first}", f"only {second}"),
            [tuple(str(value) for value in row) for row in comparison.images],
        ),
        "## Common sources",
        f"Second is {second}, first is {first}. Clean sources have no flag in either.",
        _table(
            ("quantity", "sources", "median", "scatter", "n"),
            [
                (
                    str(row["quantity"]),
                    str(row["subset"]),
                    f"{row['median']:.4g} ± {row['error']:.2g} {row['unit']}".strip(),
                    f"{row['scatter']:.3g}",
                    str(row["n"]),
                )
                for row in comparison.quantities
                if row["n"] > 0
            ],
        ),
        "## Flags and classes",
        "Parts of the sources that have each flag; lost and gained are numbers of common sources.",
        _table(
            (
                "flag",
                first,
                second,
                f"common, {first}",
                f"common, {second}",
                f"only {first}",
                f"only {second}",
                "lost",
                "gained",
            ),
            [
                (
                    str(row["flag"]),
                    *(
                        _percent(row[name])
                        for name in (
                            "first",
                            "second",
                            "commonFirst",
                            "commonSecond",
                            "onlyFirst",
                            "onlySecond",
                        )
                    ),
                    *(str(row[name]) if row[name] >= 0 else "-" for name in ("lost", "gained")),
                )
                for row in comparison.flags
            ],
        ),
        "## S/N",
        _table(
            ("S/N", f"only {first}", "common", f"only {second}", f"of {first} kept"),
            [
                (
                    f"{row['low']:g} to {row['high']:g}",
                    str(row["onlyFirst"]),
                    str(row["common"]),
                    str(row["onlySecond"]),
                    _percent(row["common"] / (row["common"] + row["onlyFirst"]))
                    if row["common"] + row["onlyFirst"]
                    else "-",
                )
                for row in comparison.snr
            ],
        ),
        "## Where",
        "At the edge: within 50 pixels of the outermost sources. Near: another source within 20 pixels. Seen again: "
        "the same run has a source within 1 arcsec on another image.",
        _table(
            (
                "sources",
                "n",
                "negative",
                "at the edge",
                "near one of the other run",
                "near one of their own run",
            ),
            [
                (
                    _group_name(comparison, str(row["group"])),
                    str(row["n"]),
                    *(
                        _percent(row[name])
                        for name in ("negative", "atEdge", "nearOther", "nearOwn", "recurring")
                    ),
                )
                for row in comparison.places
            ],
        ),
        f"Numbers in thirds of the image, top row first (only {first} / common / only {second}):",
        _grid(comparison),
    ]
    for group, name in (("onlyFirst", first), ("onlySecond", second)):
        rows = _brightest(comparison, group, name, n_brightest)
        if rows:
            parts += [
                f"## Most significant sources only in {name}",
                _table(
                    ("visit", "detector", "diaSourceId", "x", "y", "ra", "dec", "S/N", "flux [nJy]", "flags"),
                    rows,
                ),
            ]
    return "\n\n".join(parts) + "\n"


def _summary(comparison: RunComparison) -> str:
    first, second = comparison.names
    n = {name: int(comparison.select(name).sum()) for name in ("common", "onlyFirst", "onlySecond")}
    n_first, n_second = n["common"] + n["onlyFirst"], n["common"] + n["onlySecond"]
    lines = [
        f"{first} has {n_first} sources and {second} {n_second}, on {len(comparison.images)} images. {n['common']} are "
        f"common ({_share(n['common'], n_first)} of {first}, {_share(n['common'], n_second)} of {second}); "
        f"{n['onlyFirst']} are only in {first}, {n['onlySecond']} only in {second}. Chance would make "
        f"{comparison.chance:.2g} common ones."
    ]
    for quantity in ("PSF flux, second / first", "S/N, second / first"):
        for row in comparison.quantities:
            if row["quantity"] == quantity and row["subset"] == "clean" and row["n"] > 1:
                name = quantity.split(",")[0]
                lines.append(
                    f"{name} of clean common sources is {row['median']:.3f} ± {row['error']:.3f} times that in "
                    f"{first} (scatter {row['scatter']:.3f})."
                )
    lines += _flag_sentences(comparison)
    for row in comparison.places:
        if row["group"] != "common" and row["n"] > 0 and row["nearOther"] > 0.1:
            name, other = (first, second) if row["group"] == "onlyFirst" else (second, first)
            lines.append(
                f"{_percent(row['nearOther'])} of the sources only in {name} lie within 20 pixels of a source of "
                f"{other}: probably parts of the same thing."
            )
    lines += _snr_sentences(comparison)
    return " ".join(lines)


def _flag_sentences(comparison: RunComparison) -> Iterable[str]:
    """Say which flags mark what only one run has, where the excess over the common sources is significant."""
    n = {name: int(comparison.select(name).sum()) for name in ("common", "onlyFirst", "onlySecond")}
    for row in comparison.flags:
        if row["flag"] == "isNegative":
            continue
        for group, own, name in (
            ("onlyFirst", "commonFirst", comparison.names[0]),
            ("onlySecond", "commonSecond", comparison.names[1]),
        ):
            part, usual = row[group], row[own]
            if not (np.isfinite(part) and np.isfinite(usual)):
                continue
            if _differ(part, n[group], usual, n["common"]):
                yield (
                    f"{_percent(part)} of the sources only in {name} are {row['flag']}, {_percent(usual)} of the "
                    f"common ones."
                )


def _differ(part: float, n: int, other: float, n_other: int) -> bool:
    """Return whether two proportions differ by more than three standard errors."""
    if n == 0 or n_other == 0:
        return False
    pooled = (part * n + other * n_other) / (n + n_other)
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / n_other))
    return bool(abs(part - other) > 3.0 * error > 0)


def _snr_sentences(comparison: RunComparison) -> Iterable[str]:
    """Say where in S/N the sources of only one run are, where that differs from the common ones."""
    low, high = np.asarray(comparison.snr["low"]), np.asarray(comparison.snr["high"])
    common = np.asarray(comparison.snr["common"])
    for group, name in zip(("onlyFirst", "onlySecond"), comparison.names, strict=True):
        counts = np.asarray(comparison.snr[group])
        for bins, text in (
            (high <= _FAINT, f"below S/N {_FAINT:g}"),
            (low >= _BRIGHT, f"above S/N {_BRIGHT:g}"),
        ):
            if counts.sum() == 0 or common.sum() == 0:
                continue
            part, usual = counts[bins].sum() / counts.sum(), common[bins].sum() / common.sum()
            if _differ(part, int(counts.sum()), usual, int(common.sum())):
                yield (
                    f"{_percent(part)} of the sources only in {name} are {text}, {_percent(usual)} of the common "
                    f"ones."
                )


def _group_name(comparison: RunComparison, group: str) -> str:
    first, second = comparison.names
    return {"common": "common", "onlyFirst": f"only {first}", "onlySecond": f"only {second}"}[group]


def _grid(comparison: RunComparison) -> str:
    grids = {str(row["group"]): np.asarray(row["grid"]) for row in comparison.places}
    order = ("onlyFirst", "common", "onlySecond")
    size = grids["common"].shape[0]
    rows = [
        tuple(" / ".join(str(grids[name][y, x]) for name in order) for x in range(size))
        for y in reversed(range(size))
    ]
    return _table(("left", "middle", "right"), rows)


def _brightest(comparison: RunComparison, group: str, run: str, n: int) -> list[tuple[str, ...]]:
    table = comparison.joined[comparison.select(group)]
    if len(table) == 0 or f"{run}_snr" not in table.colnames:
        return []
    order = np.argsort(-np.nan_to_num(np.asarray(table[f"{run}_snr"], dtype=float)), kind="stable")[:n]
    flags = [str(flag) for flag in comparison.flags["flag"] if f"{run}_{flag}" in table.colnames]
    rows = []
    for row in table[order]:
        raised = [flag for flag in flags if row[f"{run}_{flag}"]]
        cells = [str(row["visit"]), str(row["detector"]), str(row[f"{run}_diaSourceId"])]
        cells += [f"{row['x']:.1f}", f"{row['y']:.1f}"]
        cells += [f"{row[name]:.6f}" if name in table.colnames else "-" for name in ("ra", "dec")]
        cells.append(f"{row[f'{run}_snr']:.1f}")
        cells.append(f"{row[f'{run}_psfFlux']:.0f}" if f"{run}_psfFlux" in table.colnames else "-")
        rows.append((*cells, ", ".join(raised)))
    return rows


def _percent(value: float) -> str:
    return f"{100.0 * value:.0f} %" if np.isfinite(value) else "-"


def _share(part: int, whole: int) -> str:
    return _percent(part / whole) if whole else "-"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
