"""Residual modes recover what was done to single sources, with errors that mean what they say."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
from astropy.table import Table

from lsst.diainspect.diagnostics import (
    ResidualModesConfig,
    ResidualModesDiagnostic,
    _source_noise,
    measure_diagnostics,
)
from lsst.diainspect.maps import DetectorMaps, SmoothMap, fit_detector_maps
from lsst.diainspect.psf import fwhm, residual_modes, shift_images
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, SimulatedPair, simulate_pair
from lsst.diainspect.stamps import DetectorContext, StampSet, cut_stamps
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    Subtractor,
    ZogyConfig,
    ZogySubtractor,
    result_filters,
)
from synthetic_stamps import Observation, observe, synthetic_stamps

SEEING = {"blunter": (0.9, 0.7), "sharper": (0.7, 0.9)}
METHODS: dict[str, Subtractor] = {
    "al": AlSubtractor(AlConfig()),
    "zogy": ZogySubtractor(ZogyConfig()),
}
MODES = ("shiftX", "shiftY", "width", "e1", "e2")
BRIGHT = (100.0, 300.0)
"""S/N of static sources on which transients of S/N 8 and artefacts of S/N 15 are small changes."""


def stars_to_match_on(simulated: SimulatedPair) -> Table:
    """Return the stars that nothing was done to."""
    truth = simulated.truth
    unperturbed = np.asarray(truth["perturbation"]).astype(str) == "none"
    stars = truth[unperturbed & (np.asarray(truth["kind"]).astype(str) == "star")]
    return Table({"x": stars["x"], "y": stars["y"]})


def stamps_at(simulated: SimulatedPair, method: str, rows: Table) -> StampSet:
    """Subtract, and cut stamps at the true positions of some objects."""
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    result = METHODS[method].subtract(pair, stars_to_match_on(simulated))
    sources = Table({"diaSourceId": np.arange(len(rows)), "x": rows["x"], "y": rows["y"]})
    images = {
        "science": pair.science,
        "template": pair.template,
        "difference": result.difference,
        "scienceVariance": pair.science_variance,
        "templateVariance": pair.template_variance,
        "differenceVariance": result.variance,
    }
    return cut_stamps(
        sources,
        {name: (image, pair.bounds) for name, image in images.items()},
        result_filters(result, pair),
        simulated.science.sky_projection,
        41,
    )


def measure(stamps: StampSet, **config: float) -> Table:
    """Measure the modes with some fields of the configuration set."""
    return measure_diagnostics(stamps, {"modes": ResidualModesDiagnostic(ResidualModesConfig(**config))})


@pytest.fixture(
    scope="module", params=[(order, method) for order in SEEING for method in METHODS], ids="-".join
)
def observation(request) -> Observation:
    """Filters and noise of a difference, by seeing order and method."""
    order, method = request.param
    return observed(method, order)


@functools.cache
def observed(method: str, order: str) -> Observation:
    return observe(METHODS[method], *SEEING[order])


def significance(table: Table, name: str) -> np.ndarray:
    return np.asarray(table[f"modes_{name}"] / table[f"modes_{name}Err"], dtype=float)


def assert_unit_pulls(pull: np.ndarray, bias: float = 0.0, n_sigma: float = 3.5) -> None:
    """Fail unless pulls have zero mean, but for a known bias, and unit scatter, within the errors of both."""
    assert np.isfinite(pull).all()
    n = pull.size
    assert abs(pull.mean()) < bias + n_sigma / np.sqrt(n)
    # A sample's standard deviation scatters by 1 / sqrt(2 n); 3 % are allowed for what the errors leave out.
    assert abs(pull.std() - 1.0) < 0.03 + n_sigma / np.sqrt(2 * n)


@pytest.mark.parametrize("snr", [(20.0, 100.0), (100.0, 1000.0)], ids=["faint", "bright"])
def test_amplitudes_are_recovered_with_unit_pulls(observation, snr):
    rng = np.random.default_rng(1)
    n = 200
    stamps, truth = synthetic_stamps(
        observation, rng, n, snr=snr, shift=0.1, angle=rng.uniform(0, 2 * np.pi, n), width=0.02, transient=5.0
    )
    table = measure(stamps)
    sigma = float(np.median(fwhm(stamps.model_images("sciencePsf")))) / 2.355
    truths = {"width": 100.0 * truth["width"], "e1": 0.0, "e2": 0.0, "flux": truth["transient"]}
    truths |= {name: truth[name] for name in ("shiftX", "shiftY")}
    for name, true in truths.items():
        error = np.asarray(table[f"modes_{name}Err"], dtype=float)
        # Modes are of first order. A shift d of a Gaussian of width s adds d^2 / (4 s^2) to its width, and a width
        # change w is good to w^2.
        second_order = 100.0 * (truth["width"] ** 2 + 0.1**2 / (4.0 * sigma**2))
        beyond = float(np.mean(second_order / error)) if name == "width" else 0.0
        assert_unit_pulls(np.asarray(table[f"modes_{name}"] - true, dtype=float) / error, beyond)
    dof = np.asarray(table["modes_nData"], dtype=float) - 7.0
    assert np.median(np.asarray(table["modes_chi2"]) / dof) == pytest.approx(1.0, abs=0.03)
    assert not np.any(table["modes_isExtended"])


@pytest.mark.parametrize("with_variances", [True, False], ids=["variances", "estimated"])
def test_errors_follow_the_source_noise_that_filters_correlate(monkeypatch, with_variances):
    # The science image is the one convolved: its stars' noise is correlated over the kernel.
    stamps, _ = synthetic_stamps(
        observed("al", "sharper"),
        np.random.default_rng(2),
        300,
        snr=(400.0, 1000.0),
        with_variances=with_variances,
    )
    table = measure(stamps)
    pull = significance(table, "discoveryFlux")
    assert_unit_pulls(pull)
    # The weights alone, which know of no correlation, give errors that are 5 % too small or worse.
    monkeypatch.setattr(_source_noise, "_BRIGHT", np.inf)
    as_if_white = significance(measure(stamps), "discoveryFlux")
    assert as_if_white.std() > 1.05 * pull.std()


def test_errors_are_real_where_the_images_claim_more_noise_than_the_difference():
    # As of a difference whose variance plane leaves out the noise of sources in part.
    stamps, _ = synthetic_stamps(observed("al", "sharper"), np.random.default_rng(2), 50, snr=(400.0, 1000.0))
    louder = {name: 20.0 * stamps.planes[name] for name in ("scienceVariance", "templateVariance")}
    stamps = StampSet(stamps.sources, {**stamps.planes, **louder}, stamps.models)
    with warnings.catch_warnings():
        # Not even of what is left NaN afterwards is the root of a negative variance taken.
        warnings.simplefilter("error", RuntimeWarning)
        table = measure(stamps)
    for name in ("discoveryFlux", "shiftX", "shiftNorth", "width"):
        assert np.all(np.asarray(table[f"modes_{name}Err"]) > 0), name


def test_modes_on_each_image_say_whose_psf_is_wrong():
    observation = observed("al", "blunter")
    for side, widths in (("science", (0.02, 0.0)), ("template", (0.0, 0.02))):
        rng = np.random.default_rng(3)
        stamps, _ = synthetic_stamps(
            observation, rng, 200, snr=(50.0, 500.0), width=widths[0], template_width=widths[1]
        )
        table = measure(stamps)
        for image in ("science", "template"):
            true = 2.0 if image == side else 0.0
            pull = (table[f"modes_{image}Width"] - true) / table[f"modes_{image}WidthErr"]
            assert_unit_pulls(np.asarray(pull, dtype=float), n_sigma=4.0)
        # In the difference the two look the same but for the sign.
        sign = 1.0 if side == "science" else -1.0
        assert np.median(sign * np.asarray(table["modes_width"])) > 1.0


def test_transients_on_registration_dipoles_keep_their_flux(observation):
    n = 150
    stamps, truth = synthetic_stamps(observation, np.random.default_rng(4), n, snr=BRIGHT)
    clean = measure(stamps)
    flux_error = np.asarray(clean["modes_discoveryFluxErr"] / truth["unit"])
    shift_error = np.asarray(clean["modes_shiftXErr"])
    angle = np.random.default_rng(5).uniform(0, 2 * np.pi, n)
    for shift_snr in (8.0, 12.0):
        stamps, _ = synthetic_stamps(
            observation,
            np.random.default_rng(4),
            n,
            snr=BRIGHT,
            shift=shift_snr * shift_error,
            angle=angle,
            transient=8.0 * flux_error,
        )
        table = measure(stamps)
        given = significance(table, "fluxGivenArtefacts")
        assert (given > 4.0).mean() >= 0.95
        # The priors keep what the joint fit loses to the width.
        assert given.mean() > significance(table, "flux").mean() + 0.3
        assert np.median(table["modes_shiftDeltaBic"]) > 10.0


def test_change_of_a_shifted_star_is_measured_at_the_star_wherever_it_was_detected(observation):
    n = 150
    stamps, truth = synthetic_stamps(observation, np.random.default_rng(4), n, snr=BRIGHT)
    clean = measure(stamps)
    angle = np.random.default_rng(5).uniform(0, 2 * np.pi, n)
    stamps, truth = synthetic_stamps(
        observation,
        np.random.default_rng(4),
        n,
        snr=BRIGHT,
        shift=12.0 * np.asarray(clean["modes_shiftXErr"]),
        angle=angle,
        transient=8.0 * np.asarray(clean["modes_discoveryFluxErr"] / truth["unit"]),
    )
    at_the_star = significance(measure(stamps), "fluxGivenArtefacts")
    # A dipole of S/N 12 moves the peak of a change of S/N 8 by 0.8 of the PSF's Gaussian width.
    stamps.sources["x"] += 1.4 * np.cos(angle)
    stamps.sources["y"] += 1.4 * np.sin(angle)
    on_the_lobe = significance(
        measure(StampSet(stamps.sources, stamps.planes, stamps.models)), "fluxGivenArtefacts"
    )
    assert on_the_lobe.mean() == pytest.approx(at_the_star.mean(), abs=0.15)
    assert np.std(on_the_lobe - at_the_star) < 0.3


def test_width_error_of_all_stars_is_no_error_of_the_flux_scale(observation):
    stamps, _ = synthetic_stamps(observation, np.random.default_rng(14), 100, snr=BRIGHT, width=0.04)
    stars = measure(stamps)
    bounds = observation.filters["differencePsf"].bounds
    places = np.random.default_rng(15)
    for axis, interval in (("x", bounds.x), ("y", bounds.y)):
        stars[axis] = places.uniform(interval.start, interval.stop, len(stars))
    maps = fit_detector_maps(stars, bounds, modes="modes")
    scale, width = maps["fluxScale"], maps["width"]
    x, y = np.array([bounds.x.center]), np.array([bounds.y.center])
    assert width.evaluate(x, y)[0] == pytest.approx(0.04, abs=0.004)
    assert abs(scale.evaluate(x, y)[0]) < max(4.0 * scale.error(x, y)[0], 0.002)
    # Were it expected of the width and of the flux scale, it would be taken off twice.
    informed = measure(stamps.with_context(DetectorContext(maps=DetectorMaps(maps).to_table())))
    assert abs(significance(informed, "fluxGivenArtefacts").mean()) < 0.5


@pytest.fixture(scope="module")
def without_artefacts(observation) -> Table:
    """Modes of 150 bright stars that nothing was done to."""
    return measure(synthetic_stamps(observation, np.random.default_rng(6), 150, snr=BRIGHT)[0])


@pytest.mark.parametrize("artefact", ["shift", "width"])
def test_artefacts_without_flux_change_have_no_flux_given_artefacts(observation, without_artefacts, artefact):
    clean = without_artefacts
    n = len(clean)
    angle = np.random.default_rng(7).uniform(0, 2 * np.pi, n)
    if artefact == "shift":
        done = {"shift": 15.0 * np.asarray(clean["modes_shiftXErr"]), "angle": angle}
    else:
        done = {"width": 0.15 * np.asarray(clean["modes_widthErr"])}
    stamps, _ = synthetic_stamps(observation, np.random.default_rng(6), n, snr=BRIGHT, **done)
    if artefact == "shift":
        # Detected on a lobe, where a point source fits a dipole best.
        stamps.sources["x"] += 1.5 * np.cos(angle)
        stamps.sources["y"] += 1.5 * np.sin(angle)
        stamps = StampSet(stamps.sources, stamps.planes, stamps.models)
    table = measure(stamps)
    assert np.abs(significance(table, "discoveryFlux")).mean() > 5.0
    assert (np.abs(significance(table, "fluxGivenArtefacts")) > 4.0).mean() <= 0.05


def test_residuals_of_galaxies_are_derivatives_of_the_template(observation):
    rng = np.random.default_rng(8)
    n = 120
    stamps, truth = synthetic_stamps(
        observation,
        rng,
        n,
        snr=(100.0, 1000.0),
        shift=0.1,
        angle=rng.uniform(0, 2 * np.pi, n),
        width=0.02,
        galaxy_sigma=2.0,
    )
    table = measure(stamps)
    assert np.asarray(table["modes_isExtended"]).all()
    along = table["modes_shiftX"] * truth["shiftX"] + table["modes_shiftY"] * truth["shiftY"]
    # First order, and a template with noise: 5 % low at most.
    assert np.median(along) / 0.1**2 == pytest.approx(1.0, abs=0.06)
    for axis in "XY":
        pull = (table[f"modes_shift{axis}"] - truth[f"shift{axis}"]) / table[f"modes_shift{axis}Err"]
        assert np.std(pull) == pytest.approx(1.0, abs=0.2)
    pull = np.asarray((table["modes_width"] - 2.0) / table["modes_widthErr"])
    assert abs(pull.mean()) < 0.8
    assert pull.std() < 1.2
    assert np.abs(np.mean(significance(table, "flux"))) < 0.8


def test_error_budget_is_the_scatter_that_artefacts_make():
    observation = observed("al", "sharper")
    rng = np.random.default_rng(9)
    n = 400
    expected = {"priorShift": 0.05, "priorWidth": 0.01, "priorShear": 1e-6, "priorFluxScale": 1e-6}
    stamps, _ = synthetic_stamps(
        observation,
        rng,
        n,
        snr=(200.0, 400.0),
        shift=0.05 * np.sqrt(-2.0 * np.log(rng.uniform(size=n))),
        angle=rng.uniform(0, 2 * np.pi, n),
        width=rng.normal(0.0, 0.01, n),
    )
    table = measure(stamps, **expected)
    total = np.hypot(table["modes_discoveryFluxErr"], table["modes_budget"])
    pull = np.asarray(table["modes_discoveryFlux"] / total)
    assert np.median(table["modes_budgetSnr"]) > 1.0
    # Second order in the shift adds a flux that the budget, first order, does not have.
    assert pull.std() == pytest.approx(1.0, abs=0.15)
    parts = np.sqrt(
        sum(np.asarray(table[f"modes_budget{name}"]) ** 2 for name in ("Shift", "Width", "Shear", "Scale"))
    )
    np.testing.assert_allclose(parts, table["modes_budget"], rtol=1e-5)


def test_priors_come_from_the_maps_of_the_detector():
    observation = observed("al", "blunter")
    rng = np.random.default_rng(10)
    stamps, _ = synthetic_stamps(observation, rng, 100, snr=BRIGHT, width=0.02)
    bounds = observation.filters["differencePsf"].bounds
    quantities = ("residualShiftX", "residualShiftY", "width", "e1", "e2", "fluxScale")
    maps = {name: SmoothMap.constant(0.02 if name == "width" else 0.0, bounds) for name in quantities}
    maps = {
        name: SmoothMap(one.field, one.coefficients, one.covariance, rms=1e-3) for name, one in maps.items()
    }
    maps["parallacticAngle"] = SmoothMap.constant(90.0, bounds)
    informed = measure(stamps.with_context(DetectorContext(maps=DetectorMaps(maps).to_table())))
    ignorant = measure(stamps)
    assert np.asarray(informed["modes_priorsFromMaps"]).all()
    assert not np.asarray(ignorant["modes_priorsFromMaps"]).any()
    # The map knows the widening: what remains is no flux, with an error almost that of the discovery flux.
    assert abs(significance(informed, "fluxGivenArtefacts").mean()) < 0.35
    assert np.median(informed["modes_fluxGivenArtefactsErr"] / informed["modes_discoveryFluxErr"]) < 1.25
    assert np.median(ignorant["modes_fluxGivenArtefactsErr"] / informed["modes_fluxGivenArtefactsErr"]) > 1.05
    # Zenith in the east.
    np.testing.assert_allclose(
        informed["modes_shiftParallactic"], informed["modes_shiftEast"], rtol=1e-4, atol=1e-3
    )
    assert np.isnan(ignorant["modes_shiftParallactic"]).all()


def test_shift_has_length_and_direction_on_the_sky():
    observation = observed("al", "blunter")
    rng = np.random.default_rng(11)
    # Towards +x, which is west here: position angle 270.
    stamps, _ = synthetic_stamps(observation, rng, 100, snr=(300.0, 600.0), shift=0.1, angle=0.0)
    table = measure(stamps)
    length_pull = (table["modes_shiftLength"] - 20.0) / table["modes_shiftLengthErr"]
    angle_pull = (table["modes_shiftAngle"] - 270.0) / table["modes_shiftAngleErr"]
    for pull in (length_pull, angle_pull):
        assert abs(np.mean(pull)) < 0.35
        assert np.std(pull) == pytest.approx(1.0, abs=0.25)


def test_without_filters_the_modes_are_approximate():
    observation = observed("al", "blunter")
    rng = np.random.default_rng(12)
    stamps, _ = synthetic_stamps(observation, rng, 100, snr=(200.0, 500.0), shift=0.1, angle=0.5)
    own = {
        name: type(model).from_images(model.images())
        for name, model in stamps.models.items()
        if not name.endswith("Filter")
    }
    planes = {name: plane for name, plane in stamps.planes.items() if not name.endswith("Variance")}
    # As in an alert: each source with its own PSFs, no filter and no variance; the template lies where it was drawn.
    table = measure(StampSet(stamps.sources, planes, own))
    assert np.asarray(table["modes_isApproximate"]).all()
    assert np.isnan(table["modes_matchShiftX"]).all()
    assert np.isfinite(table["modes_shiftX"]).all()
    full = measure(stamps)
    assert np.median(table["modes_shiftXErr"] / full["modes_shiftXErr"]) == pytest.approx(1.0, abs=0.25)


def test_shared_and_own_models_give_the_same():
    observation = observed("zogy", "blunter")
    stamps, _ = synthetic_stamps(observation, np.random.default_rng(13), 40, snr=(50.0, 500.0), shift=0.05)
    own = {name: type(model).from_images(model.images()) for name, model in stamps.models.items()}
    shared, single = measure(stamps), measure(StampSet(stamps.sources, stamps.planes, own))
    for name in (*MODES, "discoveryFlux", "flux", "fluxGivenArtefacts", "matchShiftX"):
        error = shared[f"modes_{name}Err"] if f"modes_{name}Err" in shared.colnames else 0.1
        assert np.abs((shared[f"modes_{name}"] - single[f"modes_{name}"]) / error).max() < 0.1


def test_a_source_without_a_position_is_flagged_and_the_others_are_measured():
    observation = observed("al", "blunter")
    stamps, _ = synthetic_stamps(observation, np.random.default_rng(14), 10)
    whole = measure(stamps)
    stamps.sources["x"][3] = np.nan
    table = measure(StampSet(stamps.sources, stamps.planes, stamps.models))
    assert np.isnan(table["modes_flux"][3])
    others = np.arange(10) != 3
    np.testing.assert_allclose(table["modes_flux"][others], whole["modes_flux"][others], rtol=1e-4)


def test_without_a_static_source_the_three_fluxes_agree():
    observation = observed("al", "blunter")
    stamps, truth = synthetic_stamps(observation, np.random.default_rng(15), 300, snr=None, transient=7.0)
    table = measure(stamps)
    assert np.isnan(table["modes_shiftX"]).mean() > 0.97
    alone = np.isnan(np.asarray(table["modes_shiftX"]))
    for name in ("flux", "fluxGivenArtefacts"):
        np.testing.assert_array_equal(table[f"modes_{name}"][alone], table["modes_discoveryFlux"][alone])
    assert_unit_pulls(
        np.asarray((table["modes_flux"] - truth["transient"]) / table["modes_fluxErr"], dtype=float)[alone]
    )
    assert np.all(np.asarray(table["modes_budget"])[alone] == 0.0)


@functools.cache
def shifted_pair(order: str, shift: tuple[float, float]) -> SimulatedPair:
    science_seeing, template_seeing = SEEING[order]
    conditions = ObservingConditions(
        science_seeing=science_seeing, template_seeing=template_seeing, shift_x=shift[0], shift_y=shift[1]
    )
    scene = SceneConfig(star_density=25, galaxy_density=2, n_transients=0, n_variables=0)
    return simulate_pair(conditions, scene, 31)


@pytest.mark.parametrize("order", SEEING)
@pytest.mark.parametrize("method", METHODS)
def test_a_global_shift_is_kernel_centroid_plus_mode(order, method):
    shift = (0.1, -0.06)
    simulated = shifted_pair(order, shift)
    truth = simulated.truth
    stars = truth[
        (np.asarray(truth["kind"]).astype(str) == "star")
        & (np.asarray(truth["scienceSnr"]) > 50)
        & ~np.asarray(truth["isSaturated"])
        & (np.abs(np.asarray(truth["x"]) - 512) < 470)
        & (np.abs(np.asarray(truth["y"]) - 512) < 470)
    ]
    table = measure(stamps_at(simulated, method, stars))
    for axis, expected in zip("XY", shift, strict=True):
        total = np.asarray(table[f"modes_matchShift{axis}"] + table[f"modes_shift{axis}"])
        good = np.isfinite(total)
        weight = np.asarray(table[f"modes_shift{axis}Err"])[good] ** -2.0
        mean = np.sum(total[good] * weight) / weight.sum()
        # Dozens of stars of S/N 50 to 1500 fix the mean to a milli-pixel; blends add as much.
        assert mean == pytest.approx(expected, abs=0.004)
        # The match takes the shift: what the modes find is far smaller.
        assert np.abs(np.median(np.asarray(table[f"modes_shift{axis}"])[good])) < 0.1 * max(map(abs, shift))


def test_modes_agree_with_finite_differences():
    y, x = np.mgrid[:41, :41] - 20.0

    def image(dx: float, dy: float, w: float, g1: float, g2: float) -> np.ndarray:
        # The inverse of the stretch (1 + w)(1 + g1 on x, 1 - g1 on y; g2 across), to first order.
        u, v = x - dx, y - dy
        u, v = u - w * u - g1 * u - g2 * v, v - w * v + g1 * v - g2 * u
        return np.exp(-0.5 * (u**2 / 2.0**2 + v**2 / 2.3**2)) * (1 - 2 * w) / (2 * np.pi * 2.0 * 2.3)

    step = 1e-4
    modes = residual_modes(image(0, 0, 0, 0, 0)[None])[0]
    for j, mode in enumerate(modes):
        forward, backward = np.zeros(5), np.zeros(5)
        forward[j], backward[j] = step, -step
        numeric = (image(*forward) - image(*backward)) / (2 * step)
        assert np.abs(mode - numeric).max() < 1e-5 * np.abs(numeric).max() + 1e-9


def test_modes_follow_the_source_off_the_centre():
    y, x = np.mgrid[:41, :41] - 20.0
    image = np.exp(-0.5 * (x**2 + y**2) / 2.0**2)[None]
    dx, dy = np.array([0.3]), np.array([-0.4])
    of_moved = residual_modes(shift_images(image, dx, dy), dx, dy)[0]
    moved = shift_images(residual_modes(image)[0], np.repeat(dx, 5), np.repeat(dy, 5))
    assert np.abs(of_moved - moved)[:, 4:-4, 4:-4].max() < 1e-6 * np.abs(moved).max()
