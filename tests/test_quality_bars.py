"""The benchmark's comparison of real pairs, its bars, and the list of where methods are beaten, on made-up numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

pytest.importorskip("galsim")

from benchmarks.quality._bars import bar_of
from benchmarks.quality._beaten import beaten
from benchmarks.quality._blocks import N_DRAWS, Blocks, draw_weights
from benchmarks.quality._pool import Figure, PooledResults
from benchmarks.quality._real import RealResult
from benchmarks.quality._real_table import load_real, real_table, store_real

GROUP = "4096-f-exact-white-j0.05"


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def blocks_of(shape, rng, side=32):
    blocks = Blocks.of_shape(shape, side)
    return blocks, draw_weights(blocks.number, rng)


def test_sigma_over_blocks_has_the_scatter_of_gaussian_quartiles(rng):
    noise = rng.normal(size=(256, 320)) * 1.3
    blocks, weights = blocks_of(noise.shape, rng)
    draws = blocks.robust_sigma(noise, np.ones(noise.shape, dtype=bool), weights)
    # Relative variance of a sigma from quartiles: 1.36 / N; its bootstrap over 80 blocks is known to 10 %.
    expected = 1.3 * np.sqrt(1.36 / noise.size)
    assert draws[0] == pytest.approx(1.3, abs=4 * expected)
    assert draws[1:].std() == pytest.approx(expected, rel=0.4)


def test_correlation_over_blocks_is_that_of_smoothed_noise(rng):
    noise = scipy.ndimage.convolve1d(rng.normal(size=(256, 256)), [0.0, 1.0, 0.5], axis=0) / np.sqrt(1.25)
    blocks, weights = blocks_of(noise.shape, rng)
    draws = blocks.neighbour_correlation(noise, np.ones(noise.shape, dtype=bool), weights)
    assert draws[0] == pytest.approx(0.4, abs=4 * draws[1:].std())
    assert draws[1:].std() < 0.01


def test_counts_of_blocks_add_up_to_the_whole(rng):
    blocks, weights = blocks_of((100, 130), rng)
    x, y = rng.integers(0, 130, 57), rng.integers(0, 100, 57)
    draws = blocks.count(x, y, weights)
    assert draws[0] == 57
    assert draws[1:].mean() == pytest.approx(57, abs=5 * np.sqrt(57 / N_DRAWS))


def test_every_pixel_has_one_block():
    blocks = Blocks.of_shape((70, 40), 32)
    assert blocks.number == 6
    assert set(np.unique(blocks.index)) == set(range(6))


def real_result(rng, ours, reference):
    """A result with one row of which all draws are known to 0.01, paired between methods to 0.001."""
    common = rng.normal(size=N_DRAWS + 1) * 0.01
    common[0] = 0.0

    def draws(value):
        own = rng.normal(size=N_DRAWS + 1) * 0.001
        own[0] = 0.0
        return value + common + own

    zeros = np.zeros(N_DRAWS + 1)
    figures = {
        "faintStars": {"al": draws(ours), "zogy": draws(reference), "reference": draws(reference)},
        "nPositive": {name: zeros for name in ("al", "zogy", "reference")},
        "nNegative": {name: zeros for name in ("al", "zogy", "reference")},
    }
    return RealResult("pair", "somebody", 1.0, 0.5, 0.0, figures, {"faintStars": 9})


def test_paired_difference_decides_who_is_worse(rng):
    text = real_table([real_result(rng, 1.02, 1.01)])
    assert "1.02 ± 0.01, worse" in text
    assert "- al on pair: held-out stars" in text
    assert "zogy better in 0, equal in 2, worse in 0" in text


def test_a_smaller_residual_is_better(rng):
    assert "1.00 ± 0.01, better" in real_table([real_result(rng, 1.00, 1.01)])


def test_values_are_compared_apart_from_their_errors(rng):
    text = real_table([real_result(rng, 1.0099, 1.01)])
    assert "Beyond 2 paired errors: al better in 0, equal in 2" in text
    assert "whatever the errors: al better in 1, equal in 1, worse in 0; zogy better in 0, equal in 2" in text


def test_stored_result_makes_the_same_table(rng, tmp_path):
    result = real_result(rng, 1.02, 1.01)
    store_real(tmp_path / "real" / "pair.json", result)
    assert real_table([load_real(tmp_path / "real" / "pair.json")]) == real_table([result])


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [(1.005, 0.001, "met"), (1.02, 0.001, "missed"), (1.0105, 0.001, "open"), (0.9, 0.001, "missed")],
)
def test_bar_on_the_noise_is_met_missed_or_open(value, error, verdict):
    row = PooledResults("al", 5, {"scoreSigma": Figure(value, error)})
    bar = bar_of("scoreSigma", GROUP)
    assert bar is not None
    assert bar.verdict(row) == verdict


def test_star_bars_are_those_of_the_method_and_of_the_jitter():
    rows = {
        name: PooledResults(name, 5, {"stars16Ratio": Figure(1.2, 0.01)}) for name in ("al", "zogy", "ois")
    }
    bar, still = bar_of("stars16", GROUP), bar_of("stars16", GROUP.replace("j0.05", "j0"))
    assert bar is not None
    assert still is not None
    assert {name: bar.verdict(row) for name, row in rows.items()} == {
        "al": "met",
        "zogy": "missed",
        "ois": "",
    }
    assert still.verdict(rows["al"]) == "missed"


def test_measured_psfs_and_small_scenes_are_held_to_no_bar():
    assert bar_of("false", GROUP.replace("exact", "measured")) is None
    assert bar_of("false", GROUP.replace("4096", "1024")) is None
    assert bar_of("scoreSigma", GROUP.replace("white", "warped")) is not None


def pooled_row(method, **figures):
    """A row whose figures are NaN but for those given."""
    from collections import defaultdict

    return PooledResults(method, 5, defaultdict(lambda: Figure(np.nan), figures))


def test_better_peers_are_named_beyond_chance_only():
    own = pooled_row(
        "al", false=Figure(1.0, 0.1), falseLimit=Figure(1.2), floor=Figure(0.2), nFalse=Figure(10)
    )
    near = pooled_row(
        "ois", false=Figure(0.9, 0.1), falseLimit=Figure(1.2), floor=Figure(0.2), nFalse=Figure(9)
    )
    far = pooled_row(
        "sfft", false=Figure(0.2, 0.1), falseLimit=Figure(0.5), floor=Figure(0.2), nFalse=Figure(2)
    )
    text = beaten({GROUP: [(own, []), (near, []), (far, [])]})
    assert "better: sfft 0.20 ± 0.10" in text
    assert "ois " not in text
    assert "bar limit ≤ floor + 0.4: missed" in text


def test_stars_that_a_peer_has_fitted_are_no_comparison():
    stars = {"stars16": Figure(2.0, 0.1), "stars16Ratio": Figure(1.0, 0.05), "nstars16": Figure(9)}
    own = pooled_row("al", **stars)
    better = {**stars, "stars16": Figure(0.7, 0.1)}
    assert "held-out" not in beaten({GROUP: [(own, []), (pooled_row("sfft", **better), [])]})
    assert "better: zogy 0.70" in beaten({GROUP: [(own, []), (pooled_row("zogy", **better), [])]})
