"""Pools the results of several scenes into figures with statistical errors."""

from __future__ import annotations

__all__ = ["Figure", "PooledResults", "half_completeness", "paired_difference", "poisson_upper_limit", "pool"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
from scipy.special import log_ndtr
from scipy.stats import chi2

from ._measure import DETECTION_THRESHOLD
from ._stars import STAR_MAGNITUDES

_ONE_SIDED_95 = 1.6449
_COMPLETENESS_RANGE = (5.0, 7.0)
_HALF_RANGE = (3.0, 9.0)
_RATIO_LEAST_SNR = 10.0
_FLUX_RANGE = (10.0, 1000.0)
_N_BOOTSTRAP = 200


@dataclass(frozen=True)
class Figure:
    """A number with its statistical error; NaN where there is none."""

    value: float
    error: float = np.nan

    def format(self, digits: int) -> str:
        """Return it as text."""
        if not np.isfinite(self.value):
            return "-"
        if not np.isfinite(self.error):
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


_NONE = Figure(np.nan)


@dataclass(frozen=True)
class PooledResults:
    """One method's figures over the scenes of a group, by name, and how many scenes there are."""

    method: str
    n_scenes: int
    figures: dict[str, Figure]
    problem: str = ""


def poisson_upper_limit(count: int, confidence: float = 0.95) -> float:
    """Return the expectation that a count this low or lower has only 1 - confidence of the time."""
    return float(0.5 * chi2.ppf(confidence, 2 * (count + 1)))


def paired_difference(found: np.ndarray, reference: np.ndarray) -> tuple[float, float, int, int]:
    """Compare two methods on the same objects.

    Parameters
    ----------
    found, reference : `numpy.ndarray`, (N,), bool
        Whether the method and the reference have each object.

    Returns
    -------
    difference, lower : `float`
        Difference of the completenesses and its one-sided 95 % lower bound, from the discordant pairs.
    gained, lost : `int`
        Objects that only the method has, and that only the reference has.
    """
    n = len(found)
    if n == 0:
        return np.nan, np.nan, 0, 0
    gained, lost = int((found & ~reference).sum()), int((~found & reference).sum())
    difference = (gained - lost) / n
    # With few discordant pairs the normal error is too small: one more of each kind is assumed.
    variance = (gained + lost + 2 - (gained - lost) ** 2 / n) / n**2
    return difference, difference - _ONE_SIDED_95 * float(np.sqrt(variance)), gained, lost


def half_completeness(snr: np.ndarray, found: np.ndarray) -> float:
    """Return the S/N at which half are found: the most likely normal cumulative rise."""
    if len(snr) < 10 or found.all() or not found.any():
        return np.nan

    def loss(parameters: np.ndarray) -> float:
        argument = (snr - parameters[0]) * np.exp(-parameters[1])
        return -float(np.where(found, log_ndtr(argument), log_ndtr(-argument)).sum())

    fit = scipy.optimize.minimize(loss, [5.0, 0.0], method="Nelder-Mead")
    return float(fit.x[0])


def pool(results: Sequence[dict[str, Any]], ideal: dict[str, dict[str, Any]], seed: int = 1) -> PooledResults:
    """Pool one method's results.

    Parameters
    ----------
    results : sequence [`dict`]
        Results of one method, one a scene.
    ideal : `dict` [`str`, `dict`]
        Results of the ideal, by scene.
    seed : `int`, optional
        Seed of the bootstraps.
    """
    method = results[0]["method"]
    for result in results:
        if "unavailable" in result:
            return PooledResults(method, 0, {}, f"does not install: {result['unavailable']}")
    good = [result for result in results if "measured" in result]
    if not good:
        return PooledResults(method, 0, {}, results[0].get("error", "failed"))
    rng = np.random.default_rng(seed)
    figures = {**_sky(good), **_false(good), **_cost(good)}
    figures.update(_completeness(good, ideal, rng))
    figures.update(_signal(good, ideal))
    figures.update(_stars(good, rng))
    figures.update(_flux(good))
    failed = len(results) - len(good)
    problem = f"{failed} of {len(results)} scenes failed: {_first_error(results)}" if failed else ""
    return PooledResults(method, len(good), figures, problem)


def _first_error(results: Sequence[dict[str, Any]]) -> str:
    return next(result["error"] for result in results if "error" in result)


def _mean(values: list[float], errors: list[float]) -> Figure:
    values_array, errors_array = np.array(values, dtype=float), np.array(errors, dtype=float)
    used = np.isfinite(values_array) & np.isfinite(errors_array) & (errors_array > 0)
    if not used.any():
        return _NONE
    weights = errors_array[used] ** -2
    return Figure(float(np.average(values_array[used], weights=weights)), float(1.0 / np.sqrt(weights.sum())))


def _sky(results: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    measured = [result["measured"] for result in results]
    nan = float("nan")
    figures = {
        "scoreSigma": _mean([m["scoreSigma"] for m in measured], [m["scoreSigmaError"] for m in measured]),
        "differenceSigma": _mean(
            [m.get("differenceSigma", nan) for m in measured],
            [m.get("differenceSigmaError", nan) for m in measured],
        ),
        "scoreMedian": Figure(float(np.mean([m["scoreMedian"] for m in measured]))),
    }
    neighbours = [m["correlation"] for m in measured if "correlation" in m]
    along = [_mean([c[axis] for c in neighbours], [c[2] for c in neighbours]) for axis in (0, 1)]
    figures["correlationX"], figures["correlationY"] = along
    figures["correlation"] = max(along, key=lambda figure: abs(np.nan_to_num(figure.value)))
    return figures


def _false(results: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    measured = [result["measured"] for result in results]
    area = sum(m["usableMpix"] for m in measured)
    blank = sum(m["blankMpix"] for m in measured)
    heights = np.abs(np.concatenate([m["falseHeights"] for m in measured]))
    signs = np.sign(np.concatenate([m["falseHeights"] for m in measured]))
    at_source = np.concatenate([m["falseAtSource"] for m in measured]).astype(bool)
    second = np.abs(np.concatenate([m["duplicateHeights"] for m in measured]))
    false = heights > DETECTION_THRESHOLD
    count = int(false.sum())
    n_source, n_second = int((false & at_source).sum()), int((second > DETECTION_THRESHOLD).sum())

    def rate(n: int, mpix: float) -> Figure:
        return Figure(n / mpix, np.sqrt(n) / mpix) if mpix > 0 else _NONE

    return {
        "mpix": Figure(area),
        "nFalse": Figure(count),
        "nFalsePositive": Figure(int((false & (signs > 0)).sum())),
        "false": rate(count, area),
        "falseLimit": Figure(poisson_upper_limit(count) / area),
        "falseBlank": rate(count - n_source, blank),
        "falseSource": rate(n_source, area - blank),
        "nFalseBlank": Figure(count - n_source),
        "nFalseSource": Figure(n_source),
        "nDuplicates": Figure(n_second),
        "duplicates": rate(n_second, area),
        "floor": Figure(float(np.mean([m["floorPerMpix"] for m in measured]))),
        "lostMpix": Figure(sum(m["lostMpix"] for m in measured)),
    }


def _cost(results: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    def over(value: Callable[[dict[str, Any]], float]) -> Figure:
        values = np.array([value(result) for result in results if "cost" in result])
        if len(values) == 0:
            return _NONE
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return Figure(float(values.mean()), float(error))

    def of(result: dict[str, Any], step: str, name: str) -> float:
        """Return a cost of a step; NaN where a method has none."""
        return result["cost"][step][name] if step in result["cost"] else np.nan

    return {
        "cpu": over(lambda result: of(result, "subtract", "cpu")),
        "wall": over(lambda result: of(result, "subtract", "wall")),
        "fftPairs": over(lambda result: of(result, "subtract", "cpu") / result["fftPair"]),
        "candidatesCpu": over(lambda result: of(result, "candidates", "cpu")),
        "candidatesFftPairs": over(lambda result: of(result, "candidates", "cpu") / result["fftPair"]),
        "startUpCpu": over(lambda result: of(result, "startUp", "cpu")),
        "fftPair": over(lambda result: 1000.0 * result["fftPair"]),
        "memory": over(lambda result: max(cost["memory"] for cost in result["cost"].values())),
    }


def _changes(
    results: Sequence[dict[str, Any]], ideal: dict[str, dict[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of the changes over the scenes, the method's and the ideal's."""
    own = [np.asarray(result["measured"]["changes"][name]) for result in results]
    reference = [
        np.asarray(ideal[result["scene"]]["measured"]["changes"][name])
        if result["scene"] in ideal
        else np.full(len(column), np.nan)
        for result, column in zip(results, own, strict=True)
    ]
    return np.concatenate(own), np.concatenate(reference)


def _completeness(
    results: Sequence[dict[str, Any]], ideal: dict[str, dict[str, Any]], rng: np.random.Generator
) -> dict[str, Figure]:
    snr = np.abs(_changes(results, ideal, "snr")[0])
    height, ideal_height = _changes(results, ideal, "height")
    counted = _changes(results, ideal, "counted")[0].astype(bool)
    found, ideal_found = height > DETECTION_THRESHOLD, ideal_height > DETECTION_THRESHOLD
    chosen = counted & (snr >= _COMPLETENESS_RANGE[0]) & (snr < _COMPLETENESS_RANGE[1])
    n = int(chosen.sum())
    completeness = float(found[chosen].mean()) if n else np.nan
    difference, lower, gained, lost = paired_difference(found[chosen], ideal_found[chosen])
    near = counted & (snr >= _HALF_RANGE[0]) & (snr < _HALF_RANGE[1])
    near_snr, near_found, near_ideal = snr[near], found[near], ideal_found[near]
    half = half_completeness(near_snr, near_found)
    ideal_half = half_completeness(near_snr, near_ideal)
    halves, ratios = [], []
    for _ in range(_N_BOOTSTRAP if np.isfinite(half) else 0):
        drawn = rng.integers(0, len(near_snr), len(near_snr))
        halves.append(half_completeness(near_snr[drawn], near_found[drawn]))
        ratios.append(halves[-1] / half_completeness(near_snr[drawn], near_ideal[drawn]))
    return {
        "nFaint": Figure(n),
        "completeness": Figure(
            completeness, float(np.sqrt(max(completeness * (1 - completeness), 1 / n) / n)) if n else np.nan
        ),
        "completenessDifference": Figure(difference),
        "completenessLower": Figure(lower),
        "gained": Figure(gained),
        "lost": Figure(lost),
        "half": Figure(half, float(np.nanstd(halves)) if halves else np.nan),
        "halfRatio": Figure(half / ideal_half, float(np.nanstd(ratios)) if ratios else np.nan),
    }


def _signal(results: Sequence[dict[str, Any]], ideal: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    score, ideal_score = _changes(results, ideal, "scoreAt")
    score, ideal_score = score.astype(float), ideal_score.astype(float)
    chosen = _changes(results, ideal, "counted")[0].astype(bool)
    chosen &= _changes(results, ideal, "isolated")[0].astype(bool)
    chosen &= np.abs(ideal_score) > _RATIO_LEAST_SNR
    chosen &= np.isfinite(score)
    hosted = _changes(results, ideal, "hosted")[0].astype(bool)
    kind = _changes(results, ideal, "kind")[0]
    figures = {}
    for name, which in (
        ("snrRatio", kind == "transient"),
        ("snrRatioBlank", (kind == "transient") & ~hosted),
        ("snrRatioHosted", (kind == "transient") & hosted),
    ):
        ratio = score[chosen & which] / ideal_score[chosen & which]
        figures[name] = _median(ratio)
    return figures


def _median(values: np.ndarray) -> Figure:
    """Return the median and its error, from the order statistics' normal approximation with a robust sigma."""
    if len(values) == 0:
        return _NONE
    median = float(np.median(values))
    sigma = 1.482602 * float(np.median(np.abs(values - median)))
    return Figure(median, 1.2533 * sigma / np.sqrt(len(values)))


def _stars(results: Sequence[dict[str, Any]], rng: np.random.Generator) -> dict[str, Figure]:
    tables = [result["measured"]["stars"] for result in results if "stars" in result["measured"]]
    figures: dict[str, Figure] = {}
    columns = {
        name: np.concatenate([np.asarray(table[name]) for table in tables]) if tables else np.zeros(0)
        for name in ("mag", "heldOut", "rms", "floor")
    }
    for low, high in zip(STAR_MAGNITUDES[:-1], STAR_MAGNITUDES[1:], strict=True):
        in_bin = (columns["mag"] >= low) & (columns["mag"] < high)
        for suffix, which in (
            ("", columns["heldOut"].astype(bool)),
            ("Fitted", ~columns["heldOut"].astype(bool)),
        ):
            chosen = in_bin & which & np.isfinite(columns["rms"])
            name = f"stars{low:.0f}{suffix}"
            rms, floor = columns["rms"][chosen], columns["floor"][chosen]
            figures[f"n{name}"] = Figure(len(rms))
            if len(rms) == 0:
                figures[name] = figures[f"{name}Floor"] = figures[f"{name}Ratio"] = _NONE
                continue
            draws = rng.integers(0, len(rms), (_N_BOOTSTRAP, len(rms)))
            medians, floors = np.median(rms[draws], axis=1), np.median(floor[draws], axis=1)
            figures[name] = Figure(float(np.median(rms)), float(medians.std()))
            figures[f"{name}Floor"] = Figure(float(np.median(floor)), float(floors.std()))
            figures[f"{name}Ratio"] = Figure(
                float(np.median(rms) / np.median(floor)), float((medians / floors).std())
            )
    return figures


def _flux(results: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    tables = [result["measured"]["changes"] for result in results]
    if any("measuredFlux" not in table for table in tables):
        return {f"flux{name}": _NONE for name in ("", "Blank", "Hosted", "Up", "Down")}
    columns = {
        name: np.concatenate([np.asarray(table[name]) for table in tables])
        for name in ("snr", "counted", "isolated", "hosted", "kind", "flux", "measuredFlux", "fluxError")
    }
    snr = np.abs(columns["snr"])
    chosen = columns["counted"].astype(bool) & columns["isolated"].astype(bool)
    chosen &= (snr >= _FLUX_RANGE[0]) & (snr <= _FLUX_RANGE[1]) & (columns["kind"] == "transient")
    chosen &= np.isfinite(columns["measuredFlux"].astype(float))
    hosted = columns["hosted"].astype(bool)
    up = columns["flux"] > 0
    figures = {}
    for name, which in (("", True), ("Blank", ~hosted), ("Hosted", hosted), ("Up", up), ("Down", ~up)):
        used = chosen & which
        truth = columns["flux"][used]
        relative = (columns["measuredFlux"][used] - truth) / truth
        error = columns["fluxError"][used] / np.abs(truth)
        if len(relative) == 0:
            figures[f"flux{name}"] = _NONE
            continue
        weights = error**-2
        mean = float(np.average(relative, weights=weights))
        pulls = (relative - mean) / error
        # The error follows the scatter that is seen where it exceeds what the variances say.
        excess = max(1.0, float(np.sqrt(np.mean(np.clip(pulls, -10, 10) ** 2))))
        figures[f"flux{name}"] = Figure(mean, excess / float(np.sqrt(weights.sum())))
    return figures
