"""Our measurements of real alerts agree with what the surveys recorded; the tools that say so do what they say."""

from __future__ import annotations

import os
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.stats import mad_std
from astropy.table import Table, vstack

from lsst.diainspect.alerts import estimate_planes, read_alerts
from lsst.diainspect.diagnostics import diagnostic_registry, measure_diagnostics
from lsst.diainspect.psf import second_moments
from lsst.diainspect.stamps import StampModel, StampSet
from lsst.diainspect.validation import (
    PsfFit,
    compare_differences,
    compare_dipoles,
    compare_psf_fluxes,
    diagnostic_features,
    factor_by_visit,
    flux_ratio_by_visit,
    is_isolated,
    objects_on_sky,
    roc_area,
    separate_by_classifier,
    separate_by_column,
)
from synthetic_sources import assert_unit_pulls, gaussian, stamps_of

pytest.importorskip("fastavro")

DATA = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
DOC = Path(__file__).parent.parent / "doc"

CAMERAS = ("HSC", "LSSTCam", "simulated")


def _require(*names: str) -> None:
    for name in names:
        if not (DATA / name).exists():
            pytest.skip(
                f"There is no {DATA / name}: set DIAINSPECT_TESTDATA_DIR to the folder of the test data."
            )


def _column(table: Table, name: str) -> np.ndarray:
    return np.asarray(table[name], dtype=float)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOC / "validate_alerts.py"))


@pytest.fixture(scope="module")
def rubin(script: dict[str, Any]) -> dict[str, StampSet]:
    _require("rubin_v9_hsc_lsstcam2025", "rubin_v7_4_sim_dc2field")
    return script["read_rubin"](DATA)


@pytest.fixture(scope="module")
def fluxes(rubin: dict[str, StampSet]) -> dict[str, Table]:
    return {name: compare_psf_fluxes(stamps) for name, stamps in rubin.items()}


@pytest.fixture(scope="module")
def dipoles(rubin: dict[str, StampSet]) -> Table:
    return vstack([compare_dipoles(rubin[name]) for name in ("HSC", "LSSTCam")])


# --- PSF fluxes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", CAMERAS)
def test_fluxes_agree_to_a_per_cent_after_one_factor_a_visit(
    script: dict[str, Any], fluxes: dict[str, Table], camera: str
) -> None:
    table = fluxes[camera]
    ok = script["comparable"](table)
    assert ok.sum() >= {"HSC": 130, "LSSTCam": 90, "simulated": 45}[camera]
    # The factor comes from the errors, so that the fluxes are free to disagree.
    factor = factor_by_visit(table, "psfFluxErr", ok)
    ours, recorded, error = (
        _column(table, c) for c in ("psfFlux", "recorded_psfFlux", "recorded_psfFluxErr")
    )
    for visit in np.unique(table["visit"][ok]):
        here = ok & (np.asarray(table["visit"]) == visit)
        assert np.median((ours / factor / recorded)[here]) == pytest.approx(1.0, abs=0.01)
        assert mad_std(((ours / factor - recorded) / error)[here]) < 0.15
        assert (0.99 if camera == "simulated" else 1.01) < factor[here][0] < 1.04


@pytest.mark.parametrize("camera", CAMERAS)
def test_equal_weights_at_the_recorded_position_are_what_was_recorded(
    script: dict[str, Any], rubin: dict[str, StampSet], fluxes: dict[str, Table], camera: str
) -> None:
    """S/N, which has no aperture correction, agrees best so, and to a few hundredths."""
    ok = script["comparable"](fluxes[camera])

    def deviation(fit: PsfFit) -> float:
        table = compare_psf_fluxes(rubin[camera], fit)
        ours, recorded = (
            _column(table, f"{prefix}psfFlux") / _column(table, f"{prefix}psfFluxErr")
            for prefix in ("", "recorded_")
        )
        return float(mad_std((ours - recorded)[ok]))

    recorded = deviation(PsfFit())
    assert recorded < 0.05
    for other in (PsfFit("variance"), PsfFit("variance", 12.0), PsfFit(recentred=True)):
        assert deviation(other) > 1.5 * recorded


def test_chi_square_is_the_recorded_one_where_all_pixels_are_there(fluxes: dict[str, Table]) -> None:
    for camera, least in (("HSC", 8), ("LSSTCam", 8), ("simulated", 5)):
        table = fluxes[camera]
        same = np.asarray(table["psfNdata"] == table["recorded_psfNdata"])
        ratio = (_column(table, "psfChi2") / _column(table, "recorded_psfChi2"))[same]
        assert same.sum() >= least
        # The interpolation of the PSF shows on the brightest.
        assert np.median(ratio) == pytest.approx(1.0, abs=2e-4)
        assert np.abs(ratio - 1.0).max() < 0.05


def test_chi_square_per_degree_of_freedom_agrees_on_cut_stamps(
    script: dict[str, Any], fluxes: dict[str, Table]
) -> None:
    for table in fluxes.values():
        ok = script["comparable"](table)
        n, recorded_n = _column(table, "psfNdata"), _column(table, "recorded_psfNdata")
        ratio = (_column(table, "psfChi2") / n) / (_column(table, "recorded_psfChi2") / recorded_n)
        noise = np.sqrt(2.0 / n - 2.0 / recorded_n)
        # Besides noise there is what else the corners hold, so the scatter is wider.
        assert np.median(ratio[ok]) == pytest.approx(1.0, abs=0.03)
        assert mad_std(ratio[ok]) < 3.0 * np.median(noise[ok])


def test_sign_is_that_of_every_source(fluxes: dict[str, Table]) -> None:
    for camera, table in fluxes.items():
        attempted = np.asarray(table["recorded_dipoleFitAttempted"])
        negative = _column(table, "psfFlux") < 0
        np.testing.assert_array_equal(
            negative[~attempted], (_column(table, "recorded_psfFlux") < 0)[~attempted]
        )
        if camera == "simulated":
            # Schema 7.4 never set it.
            assert not np.any(table["recorded_isNegative"])
        else:
            np.testing.assert_array_equal(negative & ~attempted, table["recorded_isNegative"])


# --- dipoles ----------------------------------------------------------------------------------------------------


def _unresolved(script: dict[str, Any], dipoles: Table) -> Table:
    hsc = _column(dipoles, "visit") < script["FIRST_LSSTCAM_VISIT"]
    return dipoles[hsc & (_column(dipoles, "recorded_dipoleLength") < script["MAX_UNRESOLVED"])]


def test_moments_of_recorded_dipoles_are_recovered(script: dict[str, Any], dipoles: Table) -> None:
    table = _unresolved(script, dipoles)
    assert len(table) >= 45
    moment, error, recorded = (
        _column(table, c) for c in ("dipoleMoment", "dipoleMomentErr", "recorded_dipoleMoment")
    )
    ratio, pull = moment / recorded, (moment - recorded) / error
    assert np.median(ratio) == pytest.approx(1.0, abs=4.0 * 1.25 * mad_std(ratio) / np.sqrt(len(table)))
    assert mad_std(pull) < 1.5
    assert np.asarray(table["isDipole"]).mean() > 0.9


def test_directions_of_recorded_dipoles_are_recovered(script: dict[str, Any], dipoles: Table) -> None:
    table = _unresolved(script, dipoles)
    angle = _column(table, "angleDifference")
    error = np.degrees(_column(table, "dipoleMomentErr") / _column(table, "dipoleMoment"))
    assert abs(np.median(angle)) < 2.0
    assert np.mean(np.abs(angle) < np.maximum(3.0 * error, 5.0)) > 0.9


def test_lengths_of_recorded_dipoles_are_recovered_where_the_flux_is(
    script: dict[str, Any], dipoles: Table
) -> None:
    table = _unresolved(script, dipoles)
    same = np.abs(_column(table, "jointMeanFlux") / _column(table, "recorded_dipoleMeanFlux") - 1.0) < 0.1
    length, recorded, error = (
        _column(table, c)[same] for c in ("jointLength", "recorded_dipoleLength", "jointLengthErr")
    )
    assert same.sum() >= 15
    ratio = length / recorded
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
    assert mad_std((length - recorded) / error) < 1.8


def test_the_recorded_angle_is_east_of_north(rubin: dict[str, StampSet]) -> None:
    """On LSSTCam that is far from the angle in pixels, and two of the four dipoles tell which is meant."""
    table = compare_dipoles(rubin["LSSTCam"])
    clear = _column(table, "recorded_dipoleMeanFlux") < 1e5
    assert clear.sum() >= 2
    assert (np.abs(_column(table, "angleDifference")[clear]) < 15.0).all()


# --- differences from the cutouts -------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize(("method", "scatter"), [("al", 0.15), ("zogy", 0.35)])
def test_isolated_sources_have_the_recorded_difference(
    script: dict[str, Any], rubin: dict[str, StampSet], camera: str, method: str, scatter: float
) -> None:
    isolated = rubin[camera][is_isolated(rubin[camera])]
    table = compare_differences(isolated, method, convolve=script["SUBTRACTIONS"][method])
    known = np.isfinite(_column(table, "pixelScatter"))
    assert known.sum() >= 0.95 * len(table) >= 20
    assert np.median(_column(table, "pixelScatter")[known]) < scatter
    assert np.quantile(_column(table, "pixelScatter")[known], 0.95) < 0.5
    pull = (_column(table, "psfFlux") - _column(table, "recorded_psfFlux")) / _column(
        table, "recorded_psfFluxErr"
    )
    pull = pull[known]
    assert abs(np.median(pull)) < 0.15
    assert np.mean(np.abs(pull) < 1.0) > 0.9


def test_hsc_visits_have_two_per_cent_of_flux_ratio(
    script: dict[str, Any], rubin: dict[str, StampSet]
) -> None:
    """The ratio that the differences imply takes the systematic part out of static light."""
    table = compare_differences(rubin["HSC"], "al", convolve="template")
    ratio = flux_ratio_by_visit(table)
    np.testing.assert_allclose(np.unique(ratio), 1.021, atol=0.004)
    scaled = compare_differences(rubin["HSC"], "al", convolve="template", flux_ratio=ratio)
    static = ~np.asarray(table["isolated"])

    def width(one: Table) -> float:
        pull = (_column(one, "psfFlux") - _column(one, "recorded_psfFlux")) / _column(
            one, "recorded_psfFluxErr"
        )
        return float(mad_std(pull[static & np.isfinite(pull)]))

    assert width(scaled) < 0.75 * width(table)


# --- ZTF --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ztf(script: dict[str, Any]) -> dict[str, Any]:
    _require("ztf_2018_skyportal")
    return script["separate_ztf"](DATA)


def test_every_diagnostic_runs_on_ztf_alerts() -> None:
    _require("ztf_2018_skyportal")
    stamps = estimate_planes(read_alerts(DATA / "ztf_2018_skyportal", size=63).stamps)
    plugins = {name: own(own.ConfigClass()) for name, own in diagnostic_registry.items()}
    table = measure_diagnostics(stamps, plugins)
    for name in plugins:
        assert not np.any(table[f"{name}_flag_missingPlanes"]), name
        assert not np.any(table[f"{name}_flag_failed"]), name
        assert np.mean(table[f"{name}_flag"]) < 0.05, name


def test_high_and_low_rb_are_separated(ztf: dict[str, Any]) -> None:
    """Limits are three standard errors (Hanley & McNeil 1982: 0.02 to 0.07) below what was found."""
    for name, least in (
        ("rb < 0.3, > 0.7: one column, all columns", 0.95),
        ("rb < 0.3, > 0.7: classifier, all columns", 0.95),
        ("rb < 0.3, > 0.7: classifier, of the difference", 0.9),
        ("rb < 0.5, >= 0.5: one column, all columns", 0.68),
        ("rb < 0.5, >= 0.5: classifier, all columns", 0.85),
        ("rb < 0.5, >= 0.5: classifier, of the difference", 0.78),
    ):
        separation, positive = ztf[name].separation, ztf[name].positive
        assert separation.area > least, name
        # Another split of the same sources changes the area by less than another sample would.
        assert ztf[name].areas.min() > least - 0.05, name
        assert separation.lower <= separation.area <= separation.upper
        assert separation.area == roc_area(separation.score, positive)


# --- the page ---------------------------------------------------------------------------------------------------


def test_page_says_what_is_measured(script: dict[str, Any], rubin: dict[str, StampSet]) -> None:
    tables = {
        name: {what: compare_psf_fluxes(stamps, fit) for what, fit in script["FITS"].items()}
        for name, stamps in rubin.items()
    }
    page = (DOC / "alert_validation.md").read_text()
    number = re.compile(r"[-+]?\d+\.\d+")
    for make in ("_fits_table", "_visits_table", "_chi2_table", "_sign_table"):
        for line in script[make](tables).splitlines()[2:]:
            start = "| ".join(line.split("| ")[:3])
            candidates = [one for one in page.splitlines() if number.sub("#", one) == number.sub("#", line)]
            assert candidates, f"doc/alert_validation.md has no line like {start}: run doc/validate_alerts.py"
            ours = np.array(number.findall(line), dtype=float)
            assert any(
                np.allclose(ours, np.array(number.findall(one), dtype=float), rtol=0.02, atol=0.003)
                for one in candidates
            ), f"doc/alert_validation.md is behind the code at {start}: run doc/validate_alerts.py"


# --- the tools --------------------------------------------------------------------------------------------------


def _sources(n: int, seed: int = 3, flux: float = 4000.0) -> StampSet:
    rng = np.random.default_rng(seed)
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    stamps = stamps_of(flux * gaussian(dx, dy, size=41), dx, dy, seed)
    stamps.sources["visit"] = np.repeat([1, 2], [n // 2, n - n // 2])
    stamps.sources["detector"] = np.zeros(n, dtype=int)
    stamps.sources["psfFlux"], stamps.sources["psfFluxErr"] = np.full(n, flux), np.full(n, 1.0)
    return stamps


@pytest.mark.parametrize("weighting", ["equal", "variance"])
def test_fitted_fluxes_are_unbiased_and_their_errors_right(weighting: str) -> None:
    flux = 4000.0
    table = compare_psf_fluxes(_sources(400, flux=flux), PsfFit(weighting, 12.0))
    assert_unit_pulls((_column(table, "psfFlux") - flux) / _column(table, "psfFluxErr"))
    dof = _column(table, "psfNdata") - 1.0
    assert_unit_pulls((_column(table, "psfChi2") - dof) / np.sqrt(2.0 * dof))


def test_errors_of_equal_weights_follow_the_variance() -> None:
    """A stamp with half of its pixels four times as noisy: equal weights lose, and say so."""
    stamps = _sources(500)
    rng = np.random.default_rng(4)
    noisy = np.zeros((41, 41), dtype=bool)
    noisy[::2] = True
    planes = dict(stamps.planes)
    planes["difference"] = planes["difference"] + np.where(
        noisy, rng.normal(0.0, 60.0, planes["difference"].shape), 0.0
    )
    planes["differenceVariance"] = planes["differenceVariance"] + np.where(noisy, 3600.0, 0.0)
    stamps = replace(stamps, planes=planes)
    equal, weighted = (compare_psf_fluxes(stamps, PsfFit(weighting)) for weighting in ("equal", "variance"))
    for table in (equal, weighted):
        assert_unit_pulls((_column(table, "psfFlux") - 4000.0) / _column(table, "psfFluxErr"))
    assert np.median(_column(equal, "psfFluxErr")) > 1.3 * np.median(_column(weighted, "psfFluxErr"))


def test_recentring_finds_a_source_beside_its_record() -> None:
    stamps = _sources(200, flux=40000.0)
    moved = stamps.sources.copy()
    moved["x"] = moved["x"] + 0.6
    beside = StampSet(moved, stamps.planes, stamps.models)
    fixed, free = (
        _column(compare_psf_fluxes(beside, PsfFit(recentred=recentred)), "psfFlux")
        for recentred in (False, True)
    )
    # exp(-0.6^2 / (4 sigma^2)) of the flux is left at the wrong place.
    assert np.median(fixed) == pytest.approx(40000.0 * np.exp(-(0.6**2) / (4.0 * 1.7**2)), rel=0.003)
    assert np.median(free) == pytest.approx(40000.0, rel=0.003)


def test_factor_is_that_of_each_visit() -> None:
    table = compare_psf_fluxes(_sources(40))
    scale = np.where(np.asarray(table["visit"]) == 1, 0.95, 1.03)
    table["psfFlux"] = scale * _column(table, "recorded_psfFlux")
    every = np.ones(len(table), dtype=bool)
    np.testing.assert_allclose(factor_by_visit(table, "psfFlux", every), scale)
    assert np.isnan(factor_by_visit(table, "psfFlux", np.asarray(table["visit"]) == 1)[-1])


def test_fits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="got 'none'"):
        PsfFit("none")
    with pytest.raises(ValueError, match=r"got 0\.0"):
        PsfFit(radius=0.0)


def test_roc_area_is_the_probability_of_the_right_order() -> None:
    rng = np.random.default_rng(1)
    positive = rng.uniform(size=60) < 0.4
    score = np.round(rng.normal(size=60) + positive, 1)
    pairs = score[positive][:, None] - score[~positive]
    assert roc_area(score, positive) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert np.isnan(roc_area(score, np.ones(60, dtype=bool)))


def test_sources_at_one_place_are_one_object() -> None:
    ra = np.array([10.0, 10.0003, 50.0, 50.0, 200.0])
    dec = np.array([-30.0, -30.0, 5.0, 5.0005, 80.0])
    objects = objects_on_sky(ra, dec)
    # 0.0003 deg of right ascension are 0.94 arcsec there, 0.0005 deg of declination 1.8 arcsec.
    assert objects[0] == objects[1]
    assert len(set(objects)) == 4


def test_what_is_learnt_of_an_object_is_not_tested_on_it() -> None:
    """Copies of objects whose features say nothing of their class: only a leak could separate them."""
    rng = np.random.default_rng(2)
    objects = np.repeat(np.arange(60), 5)
    own = rng.normal(size=(60, 30))[objects]
    features = Table({f"c{index}": own[:, index] for index in range(30)})
    positive = (rng.permutation(60) < 30)[objects]
    # The standard error of 30 against 30 objects is 0.075.
    for separate in (separate_by_column, separate_by_classifier):
        assert separate(features, positive, objects).area == pytest.approx(0.5, abs=0.23)
    leaking = separate_by_classifier(features, positive, np.arange(300), penalty=0.1)
    assert leaking.area > 0.9


def test_a_column_that_tells_is_chosen_with_its_sign() -> None:
    rng = np.random.default_rng(5)
    positive = np.arange(200) % 2 == 0
    features = Table({f"c{index}": rng.normal(size=200) for index in range(10)})
    features["c4"] = features["c4"] - 2.0 * positive
    features["c4"][::17] = np.nan
    separation = separate_by_column(features, positive, np.arange(200))
    assert separation.chosen == {"-c4": 5}
    # Phi(2 / sqrt 2) for sources that are measured; those that are not are at the middle.
    assert separation.area == pytest.approx(0.92, abs=0.06)
    assert separation.lower < separation.area < separation.upper


def test_features_are_numbers_that_vary() -> None:
    table = Table(
        {
            "diaSourceId": [1, 2, 3],
            "shape_sizeRatio": [1.0, 2.0, np.nan],
            "context_templateNeighbourFlux": [1.0, 2.0, 3.0],
            "shape_flag": [True, False, False],
            "trail_isTrail": [False, False, False],
            "psfPhotometry_psfFlux": [np.nan, np.nan, 3.0],
        }
    )
    assert diagnostic_features(table).colnames == ["shape_sizeRatio", "context_templateNeighbourFlux"]
    assert diagnostic_features(table, of_difference=True).colnames == ["shape_sizeRatio"]


def test_estimated_noise_and_psfs_are_those_of_the_stamps() -> None:
    rng = np.random.default_rng(6)
    n, sigma = 60, 1.3
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    star = gaussian(dx, dy, sigma=sigma, size=63)
    full = stamps_of(3000.0 * star, dx, dy, 6, science=40000.0 * star, template=37000.0 * star, noise=20.0)
    bare = StampSet(full.sources, {name: full.planes[name] for name in ("difference", "science", "template")})
    # Of one source in ten there is a spike on the science image and nothing on the template.
    spikes = np.arange(n) % 10 == 0
    bare.planes["template"][spikes] = rng.normal(0.0, 20.0, (spikes.sum(), 63, 63))
    bare.planes["science"][spikes] = rng.normal(0.0, 20.0, (spikes.sum(), 63, 63))
    bare.planes["science"][spikes, 31, 31] = 40000.0
    stamps = estimate_planes(bare)
    for side in ("science", "template", "difference"):
        variance = stamps.planes[f"{side}Variance"][:, 5, 5]
        # Some 3700 pixels tell the scatter to 1.9 %, the variance to 3.8 %.
        assert np.median(variance) == pytest.approx(400.0, rel=4.0 * 0.038 / np.sqrt(n) * 1.25)
        ixx, iyy, _ = second_moments(stamps.model_images(f"{side}Psf"))
        np.testing.assert_allclose(np.sqrt(0.5 * (ixx + iyy)), sigma, rtol=0.03)


def test_planes_that_are_there_are_kept() -> None:
    stamps = _sources(3)
    planes = dict(stamps.planes)
    planes |= {name: planes["difference"].copy() for name in ("science", "template")}
    stamps = replace(stamps, planes=planes)
    filled = estimate_planes(stamps)
    assert filled.planes["differenceVariance"] is stamps.planes["differenceVariance"]
    assert isinstance(filled.models["templatePsf"], StampModel)
    assert filled.models["differencePsf"] is stamps.models["differencePsf"]
    with pytest.raises(ValueError, match=r"there is no \['science', 'template'\]"):
        estimate_planes(_sources(3))
