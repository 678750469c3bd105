"""Place, look and cause follow from the evidence columns by stated rules and a stored model."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from lsst.images import Box

from lsst.diainspect.classification import (
    CAUSES,
    FEATURES,
    LOOKS,
    PLACES,
    REAL_FEATURES,
    SHARED,
    BoostedTrees,
    CauseModel,
    Evidence,
    LabelModel,
    classification_columns,
    classify_sources,
    evaluate_features,
    expected_calibration_error,
    reliability,
    stored_model,
)
from lsst.diainspect.classification._shared_causes import shares
from lsst.diainspect.maps import DetectorMaps, SmoothMap

POINT = {
    "psfPhotometry_psfFlux": 1000.0,
    "psfPhotometry_psfFluxErr": 50.0,
    "psfPhotometry_psfChi2PerDof": 1.0,
    "psfPhotometry_negativeFraction": 0.05,
    "shape_sizeRatio": 1.0,
    "shape_sizeRatioErr": 0.05,
    "shape_extendedness": 0.3,
    "shape_ixxPSF": 4.0,
    "shape_iyyPSF": 4.0,
    "snr": 20.0,
    "localNoise_ringChi2": 1.0,
    "residualModes_fluxGivenArtefacts": 1000.0,
    "residualModes_fluxGivenArtefactsErr": 50.0,
}
"""An isolated point source of S/N 20."""


def evidence_of(**changes: float) -> Table:
    return Table({"diaSourceId": [1]} | {name: [value] for name, value in (POINT | changes).items()})


def score(kind: str, name: str, **changes: float) -> float:
    rule = {"place": PLACES, "look": LOOKS}[kind][name]
    return float(rule.score(Evidence(evidence_of(**changes)))[0])


@pytest.mark.parametrize(
    ("place", "bad", "good"),
    [
        ("edge", {"context_edgeDistance": 4.0}, {"context_edgeDistance": 40.0}),
        ("edge", {"maskFractions_OFF_IMAGE_core": 0.2}, {"maskFractions_OFF_IMAGE_core": 0.0}),
        ("brightStarWing", {"context_brightStarDistance": 9.0}, {"context_brightStarDistance": 80.0}),
        ("brightStarWing", {"maskFractions_SATURATED_stamp": 0.05}, {"maskFractions_SATURATED_stamp": 0.0}),
        ("saturated", {"maskFractions_SAT_TEMPLATE_core": 0.3}, {"maskFractions_SAT_TEMPLATE_core": 0.0}),
        ("masked", {"maskFractions_COSMIC_RAY_core": 0.3}, {"maskFractions_COSMIC_RAY_core": 0.0}),
        ("masked", {"pixelFlags_bad": 1.0}, {"pixelFlags_bad": 0.0}),
        ("coaddEdge", {"maskFractions_INEXACT_PSF_stamp": 0.1}, {"maskFractions_INEXACT_PSF_stamp": 0.0}),
        ("coaddEdge", {"maskFractions_REJECTED_core": 0.5}, {"maskFractions_REJECTED_core": 0.0}),
        (
            "kernelExtrapolated",
            {"context_kernelSourceDistance": 900.0},
            {"context_kernelSourceDistance": 50.0},
        ),
    ],
)
def test_place_is_told_by_its_columns(place, bad, good):
    assert score("place", place, **bad) == pytest.approx(1.0)
    assert score("place", place, **good) == 0.0
    assert score("place", place) == 0.0
    table = classify_sources(evidence_of(**bad))
    assert table["place"][0] == place
    assert classify_sources(evidence_of(**good))["place"][0] == "clean"


def test_star_is_not_in_its_own_wing():
    assert score("place", "brightStarWing", context_brightStarDistance=1.0) == 0.0
    saturated = {"maskFractions_SATURATED_core": 0.5, "maskFractions_SATURATED_stamp": 0.1}
    assert score("place", "brightStarWing", **saturated) == 0.0
    assert classify_sources(evidence_of(**saturated))["place"][0] == "saturated"


TRAIL = {
    "trail_trailDeltaChi2": 200.0,
    "trail_trailX0": 0.0,
    "trail_trailY0": 0.0,
    "trail_trailX1": 12.0,
    "trail_trailY1": 9.0,
}
DIPOLE = {
    "dipole_dipoleDeltaChi2": 300.0,
    "dipole_dipoleFluxDiff": 10.0,
    "dipole_dipoleMeanFlux": 500.0,
    "psfPhotometry_psfFlux": 30.0,
}
RING = {
    "residualModes_width": 5.0,
    "residualModes_widthErr": 0.5,
    "residualModes_fluxGivenArtefacts": 20.0,
}
WIDE = {"shape_sizeRatio": 2.0, "shape_sizeRatioErr": 0.1, "shape_extendedness": 1.0}
FAINT = {"snr": 5.0, "psfPhotometry_psfFlux": 150.0, "shape_sizeRatio": 0.4}


@pytest.mark.parametrize(
    ("look", "columns"),
    [
        ("point", {}),
        ("dipole", DIPOLE),
        ("ring", RING),
        ("ring", {"localNoise_ringChi2": 9.0, "psfPhotometry_psfFlux": 400.0}),
        ("streak", TRAIL),
        ("extended", WIDE),
        ("noise", FAINT),
    ],
)
def test_look_is_told_by_its_columns(look, columns):
    table = classify_sources(evidence_of(**columns))
    assert table["look"][0] == look
    assert float(table[f"look_{look}"][0]) > 0.5
    if look != "point":
        assert score("look", look) == 0.0


def test_short_trail_is_a_point():
    short = TRAIL | {"trail_trailX1": 1.0, "trail_trailY1": 1.0}
    assert classify_sources(evidence_of(**short))["look"][0] == "point"


def test_trail_with_two_lobes_is_a_dipole():
    assert classify_sources(evidence_of(**(TRAIL | DIPOLE)))["look"][0] == "dipole"


def test_unequal_lobes_are_no_dipole():
    one_sided = DIPOLE | {"dipole_dipoleFluxDiff": 900.0, "dipole_dipoleMeanFlux": 500.0}
    assert score("look", "dipole", **one_sided) == 0.0


class RecordedEvidence(Evidence):
    """Evidence that remembers what was asked for."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.asked: set[str] = set()

    def column(self, name: str) -> np.ndarray:
        self.asked.add(name)
        return super().column(name)


@pytest.mark.parametrize("rules", [PLACES, LOOKS], ids=["place", "look"])
def test_every_rule_looks_at_the_columns_that_it_names(rules):
    for name, rule in rules.items():
        evidence = RecordedEvidence(evidence_of())
        rule.score(evidence)
        assert rule.columns
        assert set(rule.columns) <= evidence.asked, name


def test_features_leave_out_what_is_missing():
    values = evaluate_features(Evidence(evidence_of()))
    index = {name: j for j, name in enumerate(FEATURES)}
    assert values[0, index["givenSnr"]] == pytest.approx(20.0)
    assert np.isnan(values[0, index["shift"]])
    assert values.shape == (1, len(FEATURES))


def test_real_is_not_judged_by_how_large_artefacts_are():
    judged = {column for name in REAL_FEATURES for column in FEATURES[name].columns}
    modes = {f"residualModes_{mode}Chi2" for mode in ("shift", "width", "shear")}
    assert not judged & modes
    assert "residualModes_fluxGivenArtefacts" in judged
    assert set(stored_model().labels["real"].features) <= set(REAL_FEATURES)


def one_split(feature: int, threshold: float, nan_left: bool) -> BoostedTrees:
    """A tree that says -2 at most at the threshold and +2 beyond it."""
    return BoostedTrees(
        baseline=0.5,
        roots=np.array([0]),
        feature=np.array([feature, -1, -1]),
        threshold=np.array([threshold, 0.0, 0.0]),
        nan_left=np.array([nan_left, False, False]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        value=np.array([0.5, -2.0, 2.0]),
    )


def test_trees_split_at_the_threshold_and_send_nan_where_they_say():
    features = np.array([[9.0, 3.0], [0.0, 3.1], [0.0, np.nan]])
    total, contributions = one_split(1, 3.0, nan_left=True).evaluate(features)
    np.testing.assert_allclose(total, [-1.5, 2.5, -1.5])
    np.testing.assert_allclose(contributions, [[0.0, -2.5], [0.0, 1.5], [0.0, -2.5]])
    total, _ = one_split(1, 3.0, nan_left=False).evaluate(features)
    np.testing.assert_allclose(total, [-1.5, 2.5, 2.5])


def test_model_is_what_was_written(tmp_path):
    model = CauseModel(
        {
            "real": LabelModel(
                ("givenSnr", "peakSnr"), one_split(0, 5.0, nan_left=True), (2.0, -1.0), (1.0, 0.5)
            )
        },
        {"seed": 7},
    )
    model.write(tmp_path / "model.npz")
    read = CauseModel.read(tmp_path / "model.npz")
    assert read.provenance == {"seed": 7}
    told = evidence_of(residualModes_isApproximate=False, residualModes_priorsFromMaps=True)
    scores, _ = read.scores(Evidence(told))
    assert scores["real"][0] == pytest.approx(1.0 / (1.0 + np.exp(-(2.0 * 2.5 - 1.0))))
    bare = evidence_of(residualModes_isApproximate=True)
    scores, _ = read.scores(Evidence(bare))
    assert scores["real"][0] == pytest.approx(1.0 / (1.0 + np.exp(-(2.5 + 0.5))))


def test_model_with_unknown_features_is_refused(tmp_path):
    model = CauseModel({"real": LabelModel(("beauty",), one_split(0, 5.0, nan_left=True))}, {})
    model.write(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="beauty"):
        CauseModel.read(tmp_path / "model.npz")


def test_stored_model_scores_every_label():
    assert set(stored_model().labels) == set(SHARED)
    assert stored_model().provenance["nSources"] > 1000


def test_shares_of_a_label_add_up_to_its_score():
    table = classify_sources(many(40))
    scores, _ = stored_model().scores(Evidence(many(40)))
    for label, causes in SHARED.items():
        total = np.sum([np.asarray(table[f"cause_{cause}"]) for cause in causes], axis=0)
        np.testing.assert_allclose(total, scores[label], atol=1e-6)
    assert {cause for causes in SHARED.values() for cause in causes} | {"unknown"} == set(CAUSES)


def many(n: int) -> Table:
    """Sources with random evidence, some of it missing."""
    rng = np.random.default_rng(1)
    names = sorted({column for feature in FEATURES.values() for column in feature.columns})
    table = Table({"diaSourceId": np.arange(n)})
    for name in names:
        values = np.exp(rng.normal(0.0, 1.5, n))
        values[rng.uniform(size=n) < 0.2] = np.nan
        table[name] = values
    return table


def test_scores_are_between_0_and_1_and_columns_are_as_declared():
    table = classify_sources(many(60))
    assert table.colnames == ["diaSourceId", *classification_columns()]
    for name, (dtype, doc) in classification_columns().items():
        assert table[name].dtype == np.dtype(dtype)
        assert table[name].description == doc
        if dtype == "float32":
            assert np.all((table[name] >= 0.0) & (table[name] <= 1.0)), name


def test_row_of_nan_takes_no_other_down():
    whole = classify_sources(many(30))
    spoilt = many(30)
    for name in spoilt.colnames[1:]:
        spoilt[name][7] = np.nan
    table = classify_sources(spoilt)
    others = np.arange(30) != 7
    for name in classification_columns():
        np.testing.assert_array_equal(table[name][others], whole[name][others])
    assert table["flag"][7]
    assert not table["flag"][others].any()
    assert np.isfinite(table["cause_real"][7])


def test_infinite_values_count_as_missing():
    table = many(3)
    table["residualModes_shiftChi2"][1] = np.inf
    missing = many(3)
    missing["residualModes_shiftChi2"][1] = np.nan
    for name in classification_columns():
        np.testing.assert_array_equal(classify_sources(table)[name], classify_sources(missing)[name])


def test_missing_columns_are_judged_without_and_said_to_be_approximate():
    table = classify_sources(Table({"diaSourceId": [4, 5]}))
    assert table["flag"].all()
    assert table["approximate"].all()
    with_filters = evidence_of(residualModes_isApproximate=0.0, residualModes_priorsFromMaps=1.0)
    assert not classify_sources(with_filters)["approximate"][0]
    assert classify_sources(evidence_of(residualModes_isApproximate=1.0))["approximate"][0]


def test_no_sources_make_no_rows():
    table = classify_sources(many(0))
    assert len(table) == 0
    assert table.colnames == ["diaSourceId", *classification_columns()]


def test_sources_are_found_by_identifier_in_any_order():
    diagnostics = Table({"diaSourceId": [11, 12], "psfPhotometry_psfFlux": [5.0, 6.0]})
    sources = Table({"diaSourceId": [13, 12, 11], "snr": [3.0, 2.0, 1.0]})
    np.testing.assert_array_equal(Evidence(diagnostics, sources).column("snr"), [1.0, 2.0])


def test_sources_of_another_image_are_refused():
    with pytest.raises(ValueError, match="no row in the source table"):
        classify_sources(Table({"diaSourceId": [1]}), Table({"diaSourceId": [2], "snr": [5.0]}))
    with pytest.raises(ValueError, match="several rows"):
        Evidence(Table({"diaSourceId": [1]}), Table({"diaSourceId": [1, 1], "snr": [5.0, 6.0]}))


BOUNDS = Box.factory[0:1000, 0:1000]


def constant(value: float, rms: float) -> SmoothMap:
    """A map that is the same everywhere, of stars with some scatter."""
    flat = SmoothMap.constant(value, BOUNDS)
    return SmoothMap(flat.field, flat.coefficients, flat.covariance, rms=rms)


def shift_shares(east: float, north: float, maps: DetectorMaps | None, **columns: float) -> dict[str, float]:
    table = evidence_of(
        residualModes_shiftEast=east,
        residualModes_shiftNorth=north,
        residualModes_shiftEastErr=2.0,
        residualModes_shiftNorthErr=2.0,
        residualModes_shiftX=east / 200.0,
        residualModes_shiftY=north / 200.0,
        **columns,
    )
    place = np.array([500.0])
    return {
        name: float(part[0]) for name, part in shares("shift", Evidence(table), maps, place, place).items()
    }


WELL_REGISTERED = DetectorMaps({f"residualShift{axis}": constant(0.0, 0.02) for axis in "XY"})
"""Stars scatter by 0.02 pixels, 4 mas."""


def test_shift_like_that_of_other_stars_is_registration():
    assert shift_shares(3.0, -4.0, WELL_REGISTERED)["registration"] > 0.8


def test_shift_unlike_that_of_other_stars_is_the_stars_own():
    parts = shift_shares(150.0, 100.0, WELL_REGISTERED)
    assert parts["registration"] < 0.01
    assert parts["properMotion"] > 0.8


def test_shift_towards_the_zenith_is_refraction():
    towards = shift_shares(0.0, 25.0, WELL_REGISTERED, residualModes_shiftParallactic=25.0)
    across = shift_shares(25.0, 0.0, WELL_REGISTERED, residualModes_shiftParallactic=0.0)
    assert towards["dcr"] > 0.5 > 0.05 > across["dcr"]


def test_galaxies_do_not_move():
    assert shift_shares(150.0, 100.0, WELL_REGISTERED, residualModes_isExtended=1.0)["properMotion"] == 0.0
    assert shift_shares(150.0, 100.0, None, residualModes_isExtended=1.0)["properMotion"] == 0.0


def test_without_maps_priors_decide_and_the_source_is_ambiguous():
    near, far = shift_shares(3.0, 4.0, None), shift_shares(300.0, 100.0, None)
    assert near == pytest.approx(far)
    assert near["registration"] == pytest.approx(0.7)
    assert 0.5 < max(near.values()) < 0.8


def test_bright_star_that_is_wider_than_others_may_be_brighter_fatter():
    maps = DetectorMaps({"width": constant(0.0, 0.002)})
    place = np.array([500.0])

    def part(**columns: float) -> dict[str, float]:
        table = evidence_of(residualModes_widthErr=0.1, residualModes_staticFluxErr=1.0, **columns)
        told = shares("width", Evidence(table), maps, place, place)
        return {name: float(values[0]) for name, values in told.items()}

    bright = part(residualModes_width=3.0, residualModes_staticFlux=2000.0)
    faint = part(residualModes_width=3.0, residualModes_staticFlux=50.0)
    narrower = part(residualModes_width=-3.0, residualModes_staticFlux=2000.0)
    assert bright["brighterFatter"] > 0.8 > 0.2 > faint["brighterFatter"]
    assert narrower["brighterFatter"] == 0.0
    ringing = part(residualModes_width=1.0, residualModes_staticFlux=50.0, localNoise_ringChi2=20.0)
    assert ringing["kernelRinging"] > faint["kernelRinging"]


def test_sign_of_a_change_is_that_of_the_flux_given_artefacts():
    table = classify_sources(
        Table(
            {
                "diaSourceId": [1, 2, 3],
                "residualModes_fluxGivenArtefacts": [900.0, -900.0, -900.0],
                "residualModes_fluxGivenArtefactsErr": [50.0] * 3,
                "psfPhotometry_scienceFlux": [5000.0, 5000.0, 10.0],
                "psfPhotometry_scienceFluxErr": [50.0] * 3,
            }
        )
    )
    real = np.asarray(table["cause_real"])
    np.testing.assert_allclose(table["cause_realUp"][0], real[0], rtol=1e-5)
    np.testing.assert_allclose(table["cause_realDown"][1], real[1], rtol=1e-5)
    # Where nothing is now, a transient that faded and a template that was contaminated look the same.
    np.testing.assert_allclose(table["cause_templateContaminated"][2], 0.5 * real[2], rtol=1e-4)


def test_psf_that_is_off_is_told_by_its_own_image():
    columns = {
        f"residualModes_{side}{name}": 1.0
        for side in ("science", "template")
        for name in ("Width", "WidthErr")
    }
    for side in ("science", "template"):
        table = classify_sources(evidence_of(**(columns | {f"residualModes_{side}Width": 8.0})))
        assert table["psfErrorIn"][0] == side
    assert classify_sources(evidence_of(**columns))["psfErrorIn"][0] == ""


def test_calibration_error_of_honest_scores_is_small_and_of_boasting_ones_what_they_boast():
    rng = np.random.default_rng(2)
    scores = rng.uniform(size=20000)
    truth = rng.uniform(size=20000) < scores
    # The mean of ten binomial scatters of 2000 each is below 0.01.
    assert expected_calibration_error(scores, truth) < 0.012
    assert expected_calibration_error(np.full(1000, 0.9), np.arange(1000) < 600) == pytest.approx(0.3)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)))


def test_reliability_counts_every_known_score_once():
    scores = np.array([0.0, 0.05, 0.95, 1.0, np.nan])
    table = reliability(scores, np.array([False, True, True, True, True]))
    np.testing.assert_array_equal(table["n"], [2, 2])
    np.testing.assert_allclose(table["frequency"], [0.5, 1.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability(np.array([1.2]), np.array([True]))
