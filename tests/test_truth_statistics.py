"""Statistics against truth give the answers that are known beforehand, and intervals cover as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lsst.diainspect.truth import (
    LEVEL,
    Resampling,
    bin_completeness,
    binomial_interval,
    bootstrap,
    bootstrap_ratio,
    fit_detection_curve,
    paired_detection,
    poisson_interval,
    pull_statistics,
    score_curve,
    summarise_curve,
)


def _is_binomial(n_covered: int, n: int, probability: float) -> bool:
    """Return whether a count is within four standard deviations of what is expected."""
    return abs(n_covered - n * probability) < 4.0 * np.sqrt(n * probability * (1.0 - probability))


def test_eighty_per_cent_completeness_is_found_within_its_interval() -> None:
    rng = np.random.default_rng(1)
    table = bin_completeness(
        rng.uniform(0.0, 1.0, 5000), rng.random(5000) < 0.8, np.array([0.0, 0.5, 1.0]), 0.999
    )
    assert table["n"].sum() == 5000
    assert np.all((table["lower"] < 0.8) & (table["upper"] > 0.8))
    assert np.all(table["upper"] - table["lower"] < 0.06)


def test_objects_outside_the_bins_or_without_a_value_are_left_out() -> None:
    table = bin_completeness(
        np.array([np.nan, -1.0, 0.5, 1.0, 2.0]),
        np.array([True, True, True, False, True]),
        np.array([0.0, 1.0, 2.0]),
    )
    assert list(table["n"]) == [1, 1]
    assert list(table["completeness"]) == [1.0, 0.0]


@pytest.mark.parametrize("kind", ["wilson", "jeffreys"])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8, 0.97])
def test_binomial_interval_covers_as_often_as_it_says_on_average(kind: str, probability: float) -> None:
    rng = np.random.default_rng(2)
    n = rng.integers(40, 200, 4000)
    lower, upper = binomial_interval(rng.binomial(n, probability), n, LEVEL, kind)  # type: ignore[arg-type]
    coverage = ((lower <= probability) & (probability <= upper)).mean()
    # Counts are whole numbers, so coverage oscillates about its level (Brown, Cai & DasGupta 2001).
    assert coverage == pytest.approx(LEVEL, abs=0.04)


def test_interval_of_nothing_is_unknown() -> None:
    lower, upper = binomial_interval(np.array([0, 3]), np.array([0, 3]))
    assert np.isnan(lower[0]) and np.isnan(upper[0])
    assert 0.5 < lower[1] < 1.0 and upper[1] == pytest.approx(1.0, abs=0.01)


def test_poisson_interval_never_covers_too_seldom() -> None:
    counts = np.arange(0, 200)
    lower, upper = poisson_interval(counts)
    for mean in (0.5, 3.0, 30.0):
        covered = stats.poisson.pmf(counts, mean)[(lower <= mean) & (mean <= upper)].sum()
        assert LEVEL <= covered < LEVEL + 0.25
    assert poisson_interval(0)[0] == 0.0
    assert poisson_interval(0)[1] == pytest.approx(-np.log(0.5 * (1.0 - LEVEL)))


@pytest.mark.parametrize(("middle", "width", "plateau"), [(5.0, 1.0, 1.0), (24.0, -0.4, 0.96)])
def test_limits_of_completeness_are_recovered_within_their_intervals(
    middle: float, width: float, plateau: float
) -> None:
    covered = np.zeros(3)
    n_seeds = 24
    offsets = stats.norm.ppf(np.array([0.5, 0.9]) / plateau)
    true = np.array([*(middle + width * offsets), plateau])
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        values = middle + abs(width) * rng.uniform(-5.0, 8.0 if width > 0 else 5.0, 600)
        detected = rng.random(600) < plateau * stats.norm.cdf((values - middle) / width)

        def solve(
            rows: np.ndarray, values: np.ndarray = values, detected: np.ndarray = detected
        ) -> np.ndarray:
            curve = fit_detection_curve(values[rows], detected[rows], rising=width > 0)
            assert curve is not None
            return np.array([curve.solve(0.5), curve.solve(0.9), curve.plateau])

        best = solve(np.arange(600))
        assert abs(best[0] - true[0]) < 0.6 * abs(width)
        lower, upper = bootstrap(solve, np.arange(600), Resampling(40, 0.9, seed))
        covered += (lower <= true) & (true <= upper)
    # A plateau of one lies at the edge of what it can be, so its interval is not tested there.
    for count in covered if plateau < 1.0 else covered[:1]:
        assert count >= stats.binom.ppf(1e-3, n_seeds, 0.8), covered


def test_a_limit_outside_the_data_is_not_guessed() -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(20.0, 24.0, 400)
    curve = fit_detection_curve(values, rng.random(400) < 0.6, rising=False)
    assert curve is not None
    assert np.isnan(curve.solve(0.9))
    assert fit_detection_curve(values, np.ones(400, dtype=bool)) is None


def test_roc_of_equal_and_of_separated_scores() -> None:
    is_real = np.array([True, True, False, False])
    assert summarise_curve(score_curve(np.ones(4), is_real)).roc_area == 0.5
    best = summarise_curve(score_curve(np.array([4.0, 3.0, 2.0, 1.0]), is_real))
    assert (best.roc_area, best.average_precision) == (1.0, 1.0)
    # Sources without a score come last, together.
    curve = score_curve(np.array([3.0, np.nan, 2.0, np.nan]), is_real)
    assert list(curve["nReal"]) == [1, 1, 2]
    assert summarise_curve(curve).roc_area == 0.625


def test_roc_area_is_that_of_two_normal_distributions() -> None:
    rng = np.random.default_rng(4)
    n = 20000
    score = np.concatenate([rng.normal(1.0, 1.0, n), rng.normal(0.0, 1.0, n)])
    is_real = np.arange(2 * n) < n
    area = summarise_curve(score_curve(score, is_real)).roc_area
    assert area == pytest.approx(stats.norm.cdf(1.0 / np.sqrt(2.0)), abs=0.01)
    # The area is the statistic of Mann & Whitney.
    u = stats.mannwhitneyu(score[is_real], score[~is_real]).statistic
    assert area == pytest.approx(u / n**2, abs=1e-9)


def test_curve_counts_what_each_threshold_keeps() -> None:
    curve = score_curve(
        np.array([9.0, 8.0, 8.0, 5.0]), np.array([True, False, True, False]), n_truth=4, area=0.5
    )
    assert list(curve["threshold"]) == [9.0, 8.0, 5.0]
    assert list(curve["nReal"]) == [1, 2, 2]
    assert list(curve["completeness"]) == [0.25, 0.5, 0.5]
    assert list(curve["purity"]) == pytest.approx([1.0, 2.0 / 3.0, 0.5])
    assert list(curve["falsePerSquareDegree"]) == [0.0, 2.0, 4.0]


def test_pulls_of_unit_width_have_unit_width() -> None:
    rng = np.random.default_rng(5)
    n = 20000
    measured = pull_statistics(np.append(rng.normal(size=n), np.nan))
    assert measured.n == n
    # The median absolute deviation has an efficiency of 0.37.
    assert measured.sigma == pytest.approx(1.0, abs=4.0 * np.sqrt(0.5 / 0.37 / n))
    assert measured.median == pytest.approx(0.0, abs=4.0 * np.sqrt(np.pi / 2.0 / n))
    assert _is_binomial(round(measured.tail_fraction * n), n, 2.0 * stats.norm.sf(3.0))
    wide = pull_statistics(2.0 * rng.normal(size=n) + 1.0)
    assert (wide.sigma, wide.median) == (pytest.approx(2.0, abs=0.08), pytest.approx(1.0, abs=0.08))


def test_mcnemar_of_constructed_tables() -> None:
    first = np.repeat([True, True, False, False], [50, 12, 3, 35])
    second = np.repeat([True, False, True, False], [50, 12, 3, 35])
    pair = paired_detection(first, second)
    assert (pair.n_both, pair.n_only_first, pair.n_only_second, pair.n_neither) == (50, 12, 3, 35)
    assert pair.difference == pytest.approx(0.09)
    # 2 (C(15,0) + C(15,1) + C(15,2) + C(15,3)) / 2^15.
    assert pair.p_value == pytest.approx(2.0 * (1 + 15 + 105 + 455) / 2**15)
    assert pair.lower < pair.difference < pair.upper
    same = paired_detection(first, first)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    assert same.lower < 0.0 < same.upper
    with pytest.raises(ValueError, match="the same objects"):
        paired_detection(first, second[1:])


@pytest.mark.parametrize("only", [(0.1, 0.1), (0.12, 0.02), (0.01, 0.0)])
def test_interval_of_a_paired_difference_covers(only: tuple[float, float]) -> None:
    rng = np.random.default_rng(6)
    n_seeds = 1500
    covered = 0
    for _ in range(n_seeds):
        draw = rng.random(120)
        first = draw < 0.6 + only[0]
        second = (draw < 0.6) | (draw > 1.0 - only[1])
        pair = paired_detection(first, second, 0.95)
        covered += pair.lower <= only[0] - only[1] <= pair.upper
    assert covered / n_seeds > 0.93


def test_exact_p_value_is_small_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(7)
    p = [paired_detection(*(rng.random((2, 60)) < 0.7)).p_value for _ in range(1500)]
    assert np.mean(np.array(p) < 0.05) < 0.05 + 4.0 * np.sqrt(0.05 * 0.95 / 1500)


def test_bootstrap_over_groups_sees_what_they_share() -> None:
    rng = np.random.default_rng(8)
    n_groups, members = 40, 25
    group = np.repeat(np.arange(n_groups), members)
    covered = np.zeros(2)
    n_seeds = 150
    for seed in range(n_seeds):
        # Each group has an error of its own, much larger than that of its members' mean.
        values = rng.normal(size=n_groups)[group] + rng.normal(size=len(group))

        def mean(rows: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return np.asarray(values[rows].mean())

        for index, groups in enumerate((group, np.arange(len(group)))):
            lower, upper = bootstrap(mean, groups, Resampling(100, LEVEL, seed))
            covered[index] += lower <= 0.0 <= upper
    assert _is_binomial(int(covered[0]), n_seeds, LEVEL)
    # Taken one by one they seem far more certain than they are.
    assert covered[1] / n_seeds < 0.35


def test_ratio_of_sums_is_bootstrapped_as_a_statistic_of_rows_is() -> None:
    rng = np.random.default_rng(9)
    trials = rng.integers(5, 50, 30).astype(float)
    successes = rng.binomial(trials.astype(int), 0.7).astype(float)
    resampling = Resampling(400, LEVEL, 1)

    def ratio(rows: np.ndarray) -> np.ndarray:
        return np.asarray(successes[rows].sum() / trials[rows].sum())

    assert np.allclose(
        bootstrap_ratio(successes, trials, resampling), bootstrap(ratio, np.arange(30), resampling)
    )
    assert np.isnan(bootstrap_ratio(successes[:4], trials[:4], resampling)).all()
