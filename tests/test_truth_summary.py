"""The summary against truth finds what catalogues were made with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from astropy.table import Table
from scipy import stats

from lsst.diainspect.truth import Resampling, SummarySettings, TruthSummary, summarise_truth

N_DETECTORS, N_OBJECTS, N_SPURIOUS, N_DUPLICATES = 24, 60, 8, 2
AREA = 0.01
QUICK = SummarySettings(cuts=("psfChi2 > 5", "nowhere < 1"), resampling=Resampling(60))


def _matches(
    rng: np.random.Generator, *, completeness: object = 0.8, pull: tuple[float, float] = (0.0, 1.0)
) -> Table:
    """A match table of many detectors whose properties are known.

    Of the objects a part is detected, which may depend on the ideal S/N; half of the spurious sources are flagged as at
    the edge, and a tenth of the real ones; spurious sources have lower S/N.
    """
    n_truth, n_false = N_DETECTORS * N_OBJECTS, N_DETECTORS * (N_SPURIOUS + N_DUPLICATES)
    n = n_truth + n_false
    is_truth = np.arange(n) < n_truth
    detector = np.concatenate([np.arange(n_truth) // N_OBJECTS, np.arange(n_false) % N_DETECTORS])
    snr = np.where(is_truth, rng.uniform(2.0, 40.0, n), np.nan)
    probability = completeness(snr) if callable(completeness) else completeness
    detected = is_truth & (rng.random(n) < probability)
    duplicate = ~is_truth & (np.arange(n) >= n - N_DETECTORS * N_DUPLICATES)
    flux = np.where(is_truth, 10.0 * snr, np.nan)
    pulls = pull[0] + pull[1] * rng.normal(size=n)
    has_source = detected | ~is_truth
    measured = np.where(detected, flux + 10.0 * pulls, np.where(has_source, 50.0, np.nan))
    table = Table(
        {
            "method": np.full(n, "al"),
            "visit": np.ones(n, dtype=int),
            "detector": detector,
            "isTruth": is_truth,
            "isDetected": detected,
            "isDuplicate": duplicate,
            "isSpurious": ~is_truth & ~duplicate,
            "isFiducial": np.ones(n, dtype=bool),
            "truthId": np.where(is_truth, np.arange(n), -1),
            "separation": np.where(detected, 0.05, np.nan),
            "nDuplicates": np.zeros(n, dtype=int),
            "chanceMatch": np.where(is_truth, 0.001, 0.0),
            "fluxChange": flux,
            "mag": np.where(is_truth, 31.4 - 2.5 * np.log10(flux), np.nan),
            "idealSnr": snr,
            "hostSurfaceBrightness": np.where(is_truth, rng.uniform(20.0, 24.0, n), np.nan),
            "hostSeparation": np.full(n, np.nan),
            "diaSourceId": np.where(has_source, np.arange(1, n + 1), 0),
            "snr": np.where(detected, 0.97 * snr, np.where(has_source, rng.uniform(5.0, 6.0, n), np.nan)),
            "psfFlux": measured,
            "psfFluxErr": np.where(has_source, 10.0, np.nan),
            "fluxPull": np.where(detected, pulls, np.nan),
            "xPull": np.where(detected, rng.normal(size=n), np.nan),
            "yPull": np.where(detected, rng.normal(size=n), np.nan),
            "snrOverIdeal": np.where(detected, 0.97, np.nan),
            "isNegative": np.zeros(n, dtype=bool),
            "psfChi2": np.where(has_source, rng.uniform(0.0, 10.0, n), np.nan),
            "pixelFlags_edge": has_source & (rng.random(n) < np.where(is_truth, 0.1, 0.5)),
            "pixelFlags_cr": np.zeros(n, dtype=bool),
        }
    )
    return table


def _counts() -> Table:
    return Table(
        {
            "visit": np.ones(N_DETECTORS, dtype=int),
            "detector": np.arange(N_DETECTORS),
            "fiducialArea": np.full(N_DETECTORS, AREA),
        }
    )


def _summarise(matches: Mapping[str, Table], settings: SummarySettings = QUICK) -> TruthSummary:
    return summarise_truth(matches, {method: _counts() for method in matches}, settings)


def _row(summary: Table, statistic: str, **values: object) -> Table.Row:
    """The one row of a statistic; not binned, without cut and not paired unless said."""
    wanted = {"variable": "", "cut": "", "reference": "", **values}
    chosen = np.asarray(summary["statistic"]) == statistic
    for name, value in wanted.items():
        chosen &= np.asarray(summary[name]) == value
    (index,) = np.flatnonzero(chosen)
    return summary[index]


@pytest.fixture(scope="module")
def made() -> TruthSummary:
    return _summarise({"al": _matches(np.random.default_rng(1))})


def test_a_catalogue_made_with_eighty_per_cent_completeness_gives_eighty_per_cent(made: TruthSummary) -> None:
    row = _row(made.summary, "completeness")
    assert row["n"] == N_DETECTORS * N_OBJECTS
    error = np.sqrt(0.8 * 0.2 / row["n"])
    assert abs(row["value"] - 0.8) < 4.0 * error
    assert 0.7 * error < 0.5 * (row["upper"] - row["lower"]) < 2.0 * error
    binned = made.summary[
        (made.summary["statistic"] == "completeness") & (made.summary["variable"] == "hostSurfaceBrightness")
    ]
    assert list(binned["binLow"]) == [20.0, 21.0, 22.0, 23.0]
    assert binned["n"].sum() == row["n"]


def test_interval_of_completeness_covers_over_seeds() -> None:
    settings = SummarySettings(
        edges={name: (0.0, 1.0) for name in SummarySettings().edges}, scores=(), resampling=Resampling(20)
    )
    covered, n_seeds = 0, 24
    for seed in range(n_seeds):
        row = _row(
            _summarise({"al": _matches(np.random.default_rng(seed))}, settings).summary, "completeness"
        )
        covered += row["lower"] <= 0.8 <= row["upper"]
    # The wider of two intervals covers at least as often as each says.
    assert stats.binom.ppf(1e-3, n_seeds, 0.6827) <= covered


def test_false_sources_and_purity_are_those_put_in(made: TruthSummary) -> None:
    rate = _row(made.summary, "falsePerSquareDegree")
    assert rate["value"] == pytest.approx((N_SPURIOUS + N_DUPLICATES) / AREA)
    assert (rate["unit"], rate["n"]) == ("1 / deg2", N_DETECTORS * (N_SPURIOUS + N_DUPLICATES))
    n_real = _row(made.summary, "nDetected")["value"]
    purity = _row(made.summary, "purity")
    assert purity["value"] == pytest.approx(n_real / (n_real + rate["n"]))
    assert purity["lower"] < purity["value"] < purity["upper"]
    assert _row(made.summary, "nDuplicates")["value"] == N_DETECTORS * N_DUPLICATES
    assert _row(made.summary, "chanceMatches")["value"] == pytest.approx(0.001 * N_DETECTORS * N_OBJECTS)
    assert _row(made.summary, "area")["value"] == pytest.approx(N_DETECTORS * AREA)


def test_each_flag_and_condition_is_a_cut_with_its_price(made: TruthSummary) -> None:
    edge = _row(made.summary, "falsePerSquareDegree", cut="pixelFlags_edge")
    assert edge["value"] == pytest.approx(0.5 * (N_SPURIOUS + N_DUPLICATES) / AREA, rel=0.3)
    lost = _row(made.summary, "completenessAfterCut", cut="pixelFlags_edge")
    assert lost["value"] == pytest.approx(0.9 * 0.8, abs=0.05)
    chi2 = _row(made.summary, "completenessAfterCut", cut="psfChi2 > 5")
    assert chi2["value"] == pytest.approx(0.5 * 0.8, abs=0.06)
    # No source has this flag; no table has that column.
    assert "pixelFlags_cr" not in set(made.summary["cut"])
    assert np.isnan(_row(made.summary, "purity", cut="nowhere < 1")["value"])


def test_limits_are_those_of_the_threshold() -> None:
    matches = _matches(np.random.default_rng(2), completeness=lambda snr: stats.norm.cdf(snr - 8.0))
    made = _summarise({"al": matches})
    half = _row(made.summary, "thresholdAt50", variable="idealSnr")
    most = _row(made.summary, "thresholdAt90", variable="idealSnr")
    assert half["value"] == pytest.approx(8.0, abs=0.5)
    assert most["value"] == pytest.approx(8.0 + stats.norm.ppf(0.9), abs=0.8)
    for row, true in ((half, 8.0), (most, 8.0 + stats.norm.ppf(0.9))):
        width = row["upper"] - row["lower"]
        assert row["lower"] - width < true < row["upper"] + width
    magnitude = _row(made.summary, "thresholdAt50", variable="mag")
    assert magnitude["unit"] == "mag"
    assert magnitude["value"] == pytest.approx(31.4 - 2.5 * np.log10(80.0), abs=0.15)


@pytest.mark.parametrize("pull", [(0.0, 1.0), (0.5, 1.6)])
def test_pulls_have_the_width_and_bias_they_were_made_with(pull: tuple[float, float]) -> None:
    made = _summarise({"al": _matches(np.random.default_rng(3), pull=pull)})
    row = _row(made.summary, "fluxPullSigma")
    n = row["n"]
    assert row["value"] == pytest.approx(pull[1], abs=4.0 * pull[1] * np.sqrt(0.5 / 0.37 / n))
    assert _row(made.summary, "fluxPullMedian")["value"] == pytest.approx(
        pull[0], abs=4.0 * pull[1] * np.sqrt(0.5 * np.pi / n)
    )
    tail = stats.norm.sf((3.0 - pull[0]) / pull[1]) + stats.norm.sf((3.0 + pull[0]) / pull[1])
    assert abs(_row(made.summary, "fluxPullTail")["value"] - tail) < 4.0 * np.sqrt(tail / n)
    assert _row(made.summary, "xPullSigma")["value"] == pytest.approx(1.0, abs=0.2)


def test_optimality_and_offsets_are_medians(made: TruthSummary) -> None:
    assert _row(made.summary, "snrOverIdeal")["value"] == pytest.approx(0.97)
    separation = _row(made.summary, "separation")
    assert (separation["value"], separation["unit"]) == (pytest.approx(50.0), "mas")


def test_curves_end_at_all_sources(made: TruthSummary) -> None:
    curve = made.curves
    assert set(curve["method"]) == {"al"} and set(curve["score"]) == {"snr"}
    assert curve["completeness"][-1] == pytest.approx(_row(made.summary, "completeness")["value"])
    assert curve["purity"][-1] == pytest.approx(_row(made.summary, "purity")["value"])
    assert curve["falsePerSquareDegree"][-1] == pytest.approx(
        _row(made.summary, "falsePerSquareDegree")["value"]
    )
    area = _row(made.summary, "rocArea", variable="snr")
    # Real sources have S/N of 1.9 to 39, false ones of 5 to 6.
    assert area["value"] == pytest.approx(1.0 - (5.5 / 0.97 - 2.0) / 38.0, abs=0.03)
    assert area["lower"] <= area["value"] <= area["upper"]


def test_two_methods_are_compared_on_the_same_objects() -> None:
    al = _matches(np.random.default_rng(4), completeness=0.8)
    zogy = al.copy()
    # The second finds all that the first does, and half of the rest.
    rest = np.asarray(al["isTruth"]) & ~np.asarray(al["isDetected"])
    more = rest & (np.random.default_rng(5).random(len(al)) < 0.5)
    zogy["isDetected"][more] = True
    zogy["diaSourceId"][more] = 1
    zogy["snr"] *= 1.05
    zogy = zogy[~np.asarray(zogy["isSpurious"])]
    made = _summarise({"al": al, "zogy": zogy})

    def pair(statistic: str) -> Table.Row:
        return _row(made.summary, statistic, method="al", reference="zogy")

    assert pair("nOnlyMethod")["value"] == 0
    assert pair("nOnlyReference")["value"] == more.sum()
    difference = pair("completenessDifference")
    assert difference["value"] == pytest.approx(-more.sum() / (N_DETECTORS * N_OBJECTS))
    assert difference["upper"] < 0.0
    assert pair("mcnemarP")["value"] == pytest.approx(0.5 ** (more.sum() - 1), rel=1e-6)
    assert pair("snrRatio")["value"] == pytest.approx(1.0 / 1.05)
    assert pair("falsePerSquareDegreeDifference")["value"] == pytest.approx(N_SPURIOUS / AREA)


def test_what_lies_outside_the_fiducial_area_does_not_count() -> None:
    matches = _matches(np.random.default_rng(6))
    matches["isFiducial"] = np.asarray(matches["detector"]) < 12
    made = _summarise({"al": matches})
    assert _row(made.summary, "nTruth")["value"] == 12 * N_OBJECTS


@pytest.mark.parametrize("kept", ["nothing", "no sources", "no objects", "one detector"])
def test_tables_with_little_in_them_are_summarised(kept: str) -> None:
    matches = _matches(np.random.default_rng(7))
    rows = {
        "nothing": np.zeros(len(matches), dtype=bool),
        "no sources": np.asarray(matches["diaSourceId"]) == 0,
        "no objects": ~np.asarray(matches["isTruth"]),
        "one detector": np.asarray(matches["detector"]) == 3,
    }[kept]
    made = _summarise({"al": matches[rows], "zogy": matches[rows]})
    assert _row(made.summary, "nTruth", method="al")["value"] == (rows & np.asarray(matches["isTruth"])).sum()
    completeness = _row(made.summary, "completeness", method="al")
    if kept == "one detector":
        assert completeness["lower"] < completeness["value"] < completeness["upper"]
    elif kept == "no sources":
        assert (completeness["value"], completeness["lower"]) == (0.0, 0.0)
    else:
        assert np.isnan(completeness["value"])


def test_the_same_input_gives_the_same_table() -> None:
    one, other = (_summarise({"al": _matches(np.random.default_rng(8))}).summary for _ in range(2))
    for name in one.colnames:
        assert np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
