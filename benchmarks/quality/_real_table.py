"""The table of the real pairs: each figure of our differences, and whether it is worse than the reference's."""

from __future__ import annotations

__all__ = ["load_real", "real_path", "real_table", "store_real", "write_real"]

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ._methods import OWN_METHODS
from ._page import write_between
from ._real import REFERENCE, RealResult
from ._real_calibration import ROWS

BEGIN, END = "<!-- real pairs: begin -->", "<!-- real pairs: end -->"

_SIGNIFICANT = 2.0
"""Errors by which a difference to the reference must exceed zero to count."""

_LEAST_COUNT_ERROR = 1.0
"""Counts of nothing have no scatter between blocks: their difference is never better known than this."""

_SHARED = 0.05
"""Correlation of the two images' noise from which it is told."""

_DIGITS = 6


@dataclass(frozen=True)
class _Row:
    """A row of the table.

    Parameters
    ----------
    name, title : `str`
        Name of the figure and what the table calls it.
    digits : `int`
        Digits shown.
    badness : callable
        What is the larger the worse the figure.
    is_count : `bool`
        Whether it is a number of detections.
    """

    name: str
    title: str
    digits: int
    badness: Callable[[np.ndarray], np.ndarray]
    is_count: bool = False


def _from_one(values: np.ndarray) -> np.ndarray:
    return np.abs(values - 1.0)


def _itself(values: np.ndarray) -> np.ndarray:
    return values


_ROWS: Sequence[_Row] = (
    _Row("skySigma", "sky sigma of D / sqrt(variance)", 3, _from_one),
    _Row("correlation", "neighbour correlation of D, the larger of x and y", 3, np.abs),
    _Row("whiteScore", "sky sigma of D correlated with the science PSF, over white noise's", 3, _from_one),
    _Row("scoreSigma", "sky sigma of the score", 3, _from_one),
    _Row("brightStars", "held-out stars of S/N above 200: median rms of D / sigma", 2, _itself),
    _Row("faintStars", "held-out stars of lower S/N: median rms of D / sigma", 2, _itself),
    _Row("nUnknown", "detections that are no known change, score beyond 5 sigma", 0, _itself, is_count=True),
    _Row("imbalance", "... positive less negative", 0, np.abs, is_count=True),
    _Row("nPlain", "... of D / sigma correlated with its PSF, alike for all", 0, _itself, is_count=True),
)


def real_path(directory: Path, name: str) -> Path:
    """Return where the result of a real pair is stored."""
    return directory / "real" / f"{name}.json"


def store_real(path: Path, result: RealResult) -> None:
    """Store a result with its draws."""
    content = asdict(result)
    content["figures"] = {
        row: {method: np.round(draws, _DIGITS).tolist() for method, draws in methods.items()}
        for row, methods in result.figures.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def load_real(path: Path) -> RealResult:
    """Read a stored result."""
    content = json.loads(path.read_text())
    content["figures"] = {
        row: {method: np.array(draws) for method, draws in methods.items()}
        for row, methods in content["figures"].items()
    }
    return RealResult(**content)


def real_table(results: Sequence[RealResult]) -> str:
    """Return the table as Markdown, with the number of comparisons that each method wins and loses."""
    lines = ["| pair | | al | zogy | reference |", "|---|---|---|---|---|"]
    verdicts: dict[str, Counter[str]] = {method: Counter() for method in OWN_METHODS}
    by_value: dict[str, Counter[str]] = {method: Counter() for method in OWN_METHODS}
    worse = []
    for result in results:
        figures = dict(result.figures)
        figures["nUnknown"] = {
            method: figures["nPositive"][method] + figures["nNegative"][method]
            for method in figures["nPositive"]
        }
        label = f"{result.name} ({result.mpix:.2f} Mpix, {result.sky_mpix:.2f} of them sky)"
        if abs(result.shared_noise) > _SHARED:
            label += f"; the noise of its images is correlated by {result.shared_noise:.2f}"
        for row in _ROWS:
            if row.name not in figures:
                continue
            values = figures[row.name]
            title = row.title
            if row.name in result.n_stars:
                title += f" ({result.n_stars[row.name]})"
            cells = []
            for method in OWN_METHODS:
                verdict = _verdict(row, values, method)
                by_value[method][_verdict(row, values, method, significant=False)] += 1
                cells.append(_cell(row, values, method) + (f", {verdict}" if verdict else ""))
                if verdict:
                    verdicts[method][verdict] += 1
                if verdict == "worse":
                    worse.append(f"{method} on {result.name}: {row.title}.")
            reference = _cell(row, values, REFERENCE)
            lines.append(f"| {label} | {title} | {cells[0]} | {cells[1]} | {reference} |")
            label = ""
        if not result.reference:
            lines.append("| | no reference difference comes with it | | | |")
        else:
            lines.append(f"| | reference: {result.reference} | | | |")
    lines += ["", f"Beyond {_SIGNIFICANT:.0f} paired errors: {_tally(verdicts)}."]
    lines += ["", f"By their values, whatever the errors: {_tally(by_value)}."]
    lines += ["", "Worse than the reference:", "", *(f"- {line}" for line in worse)] if worse else []
    return "\n".join([*lines, "", *_calibration_table(results)])


def _tally(verdicts: Mapping[str, Counter[str]]) -> str:
    return "; ".join(
        f"{method} better in {count['better']}, equal in {count['equal']}, worse in {count['worse']}"
        for method, count in verdicts.items()
    )


def _calibration_table(results: Sequence[RealResult]) -> list[str]:
    """Return a table of the calibration without truth: a column for each pair that has one, al and zogy in it."""
    results = [result for result in results if result.calibration]
    if not results:
        return []
    lines = [
        "Calibration without truth (`CalibrateDifferenceTask`), al / zogy:",
        "",
        f"| | {' | '.join(result.name for result in results)} |",
        "|---" * (len(results) + 1) + "|",
    ]
    for index, (_, _, title, digits) in enumerate(ROWS):
        cells = []
        for result in results:
            numbers = [result.calibration[method][index] for method in OWN_METHODS]
            cells.append(
                " / ".join(
                    f"{value:.{digits}f} ± {error:.{digits}f}" if n else "-" for value, error, n in numbers
                )
            )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def write_real(page: Path, text: str) -> None:
    """Put the table between its markers of a page; ValueError when it has none."""
    write_between(page, BEGIN, END, text)


def _cell(row: _Row, values: dict[str, np.ndarray], method: str) -> str:
    if method not in values:
        return "-"
    value, error = values[method][0], values[method][1:].std()
    if row.is_count:
        return f"{value:.0f}"
    return f"{value:.{row.digits}f} ± {error:.{row.digits}f}"


def _verdict(row: _Row, values: dict[str, np.ndarray], method: str, *, significant: bool = True) -> str:
    """Return better, equal or worse than the reference, beyond the errors or by value; empty where one lacks it."""
    if REFERENCE not in values or method not in values:
        return ""
    difference = row.badness(values[method]) - row.badness(values[REFERENCE])
    error = float(difference[1:].std())
    if row.is_count:
        error = max(error, _LEAST_COUNT_ERROR)
    if not significant:
        error = 0.0
    if difference[0] > _SIGNIFICANT * error:
        return "worse"
    return "better" if difference[0] < -_SIGNIFICANT * error else "equal"
