"""Residual modes recover what was done to single stars, with errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table, vstack

from lsst.diainspect.diagnostics import (
    ResidualModesConfig,
    ResidualModesDiagnostic,
    measure_diagnostics,
)
from lsst.diainspect.psf import residual_modes, shift_images
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, SimulatedPair, simulate_pair
from lsst.diainspect.stamps import StampSet, cut_stamps
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    Subtractor,
    ZogyConfig,
    ZogySubtractor,
    result_filters,
)

SEEING = {"blunter": (0.9, 0.7), "sharper": (0.7, 0.9)}
METHODS: dict[str, Subtractor] = {
    "al": AlSubtractor(AlConfig()),
    "zogy": ZogySubtractor(ZogyConfig()),
}
N_SCENES = 4
N_PERTURBED = 60


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


def measure(stamps: StampSet) -> Table:
    return measure_diagnostics(stamps, {"modes": ResidualModesDiagnostic(ResidualModesConfig())})


def perturbed_scenes(order: str, perturbation: str) -> list[SimulatedPair]:
    science_seeing, template_seeing = SEEING[order]
    conditions = ObservingConditions(science_seeing=science_seeing, template_seeing=template_seeing)
    scene = SceneConfig(
        n_perturbed=N_PERTURBED,
        perturbation=perturbation,
        perturbed_snr=(50, 500),
        star_density=15,
        galaxy_density=2,
        n_transients=0,
        n_variables=0,
    )
    return [simulate_pair(conditions, scene, 900 + seed) for seed in range(N_SCENES)]


@pytest.fixture(
    scope="module",
    params=[(order, perturbation) for order in SEEING for perturbation in ("shift", "width")],
    ids="-".join,
)
def recovered(request):
    """Truth and measurement of some 240 perturbed stars, by method."""
    order, perturbation = request.param
    truths: list[Table] = []
    measured: dict[str, list[Table]] = {method: [] for method in METHODS}
    for simulated in perturbed_scenes(order, perturbation):
        rows = simulated.truth[np.asarray(simulated.truth["perturbation"]).astype(str) == perturbation]
        truths.append(rows["shiftX", "shiftY", "widthChange", "scienceSnr"])
        for method, tables in measured.items():
            tables.append(measure(stamps_at(simulated, method, rows)))
    return perturbation, vstack(truths), {method: vstack(tables) for method, tables in measured.items()}


@pytest.mark.parametrize("method", METHODS)
def test_amplitudes_are_recovered_with_unit_pulls(recovered, method):
    perturbation, truth, measured = recovered
    table = measured[method]
    if perturbation == "shift":
        pull = np.concatenate(
            [
                (table[f"modes_shift{axis}"] - truth[f"shift{axis}"]) / table[f"modes_shift{axis}Err"]
                for axis in "XY"
            ]
        )
        n_stars = len(pull) // 2
    else:
        pull = np.asarray((table["modes_width"] - truth["widthChange"]) / table["modes_widthErr"])
        n_stars = len(pull)
    assert n_stars >= 200
    assert np.isfinite(pull).mean() > 0.98
    pull = pull[np.isfinite(pull)]
    assert abs(pull.mean()) < 0.15
    assert 0.9 < pull.std() < 1.1


@pytest.mark.parametrize("method", METHODS)
def test_what_was_not_done_is_not_found(recovered, method):
    perturbation, _, measured = recovered
    table = measured[method]
    other = "width" if perturbation == "shift" else "shiftX"
    pull = np.asarray(table[f"modes_{other}"] / table[f"modes_{other}Err"])
    pull = pull[np.isfinite(pull)]
    assert abs(np.mean(pull)) < 0.25
    assert np.std(pull) < 1.2


@pytest.mark.parametrize("order", SEEING)
@pytest.mark.parametrize("method", METHODS)
def test_a_global_shift_is_kernel_centroid_plus_mode(order, method):
    science_seeing, template_seeing = SEEING[order]
    shift = (0.1, -0.06)
    conditions = ObservingConditions(
        science_seeing=science_seeing, template_seeing=template_seeing, shift_x=shift[0], shift_y=shift[1]
    )
    scene = SceneConfig(star_density=25, galaxy_density=2, n_transients=0, n_variables=0)
    simulated = simulate_pair(conditions, scene, 31)
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


def test_without_a_static_source_only_flux_is_fitted():
    scene = SceneConfig(star_density=20, galaxy_density=0, n_transients=0, n_variables=0)
    simulated = simulate_pair(ObservingConditions(), scene, 33, size=512)
    truth = simulated.truth
    grid = np.stack(np.meshgrid(np.arange(60, 460, 20), np.arange(60, 460, 20)), axis=-1).reshape(-1, 2)
    positions = np.stack([np.asarray(truth["x"]), np.asarray(truth["y"])], axis=-1)
    empty = np.array([np.hypot(*(positions - point).T).min() > 25 for point in grid])
    table = measure(stamps_at(simulated, "al", Table({"x": grid[empty, 0] * 1.0, "y": grid[empty, 1] * 1.0})))
    assert np.isnan(table["modes_shiftX"]).all()
    pull = np.asarray(table["modes_flux"] / table["modes_fluxErr"])
    # Unit pulls on blank sky, to the 15 % that some 50 independent positions allow at 3 sigma... and more.
    assert empty.sum() > 30
    assert pull.std() == pytest.approx(1.0, abs=3 / np.sqrt(2 * empty.sum()))
