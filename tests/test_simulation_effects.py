"""Each effect of the simulation is in the pixels at the size that was asked for, and in the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import galsim
import numpy as np
import pytest
from lsst.daf.butler import Butler
from lsst.images import Box
from scipy.spatial import cKDTree

from lsst.diainspect.psf import PixelBasisPsf, second_moments, shift_images
from lsst.diainspect.simulation import (
    AstrometricJitter,
    BadColumns,
    BleedTrails,
    BrighterFatter,
    BrokenDetector,
    CalibrationGradient,
    ChromaticRefraction,
    Coma,
    CosmicRays,
    Crosstalk,
    Ghosts,
    ObservingConditions,
    PsfField,
    SceneConfig,
    SimulatedPair,
    SkyGradient,
    Streaks,
    SurveyConfig,
    VisitPlan,
    WarpedCoadd,
    lanczos_weights,
    read_survey,
    simulate_pair,
    write_survey,
)
from lsst.diainspect.simulation._coma import coma_rays
from lsst.diainspect.simulation._counts import lsst_density

_EXAMPLE = Path(__file__).parent.parent / "config" / "DiaSim" / "survey.yaml"
_SCALE = 0.2
"""Pixel scale of the simulated camera [arcsec / pixel]."""

_BRIGHT_STARS = SceneConfig(
    star_density=40.0,
    star_magnitudes=(17.5, 19.5),
    star_slope=0.0,
    galaxy_density=0.0,
    n_transients=0,
    n_variables=0,
)
_BLANK = SceneConfig(blank=True)

ALL_EFFECTS: dict[str, Any] = {
    "coma": Coma(),
    "astrometric_jitter": AstrometricJitter(),
    "chromatic_refraction": ChromaticRefraction(),
    "brighter_fatter": BrighterFatter(),
    "calibration_gradient": CalibrationGradient(),
    "sky_gradient": SkyGradient(),
    "bleed_trails": BleedTrails(),
    "cosmic_rays": CosmicRays(per_megapixel=100),
    "bad_columns": BadColumns(),
    "crosstalk": Crosstalk(),
    "ghosts": Ghosts(magnitude_limit=17.0),
    "streaks": Streaks(number=1),
    "warped_coadd": WarpedCoadd(n_epochs=3, n_edges=1, n_holes=1),
}
_BUSY = SceneConfig(
    counts="lsst",
    density_factor=5.0,
    star_magnitudes=(13.0, 22.0),
    galaxy_magnitudes=(18.0, 23.0),
    n_transients=6,
    n_left_in_template=1,
    n_moving=2,
    n_proper_motion=2,
    host_selection="surface_brightness",
)


def _science(scene: SceneConfig, *, seed: int = 1, size: int = 384, **conditions: Any) -> SimulatedPair:
    return simulate_pair(ObservingConditions(**conditions), scene, seed, size=size)


def _isolated(pair: SimulatedPair, distance: float = 25.0, margin: float = 35.0) -> np.ndarray:
    """Rows of the truth that are alone and away from the edges."""
    x, y = np.asarray(pair.truth["templateX"]), np.asarray(pair.truth["templateY"])
    neighbour = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)[0][:, 1]
    height, width = pair.science.image.array.shape
    inside = (x > margin) & (x < width - margin) & (y > margin) & (y < height - margin)
    return np.flatnonzero(inside & (neighbour > distance))


def _fit_stars(
    image: np.ndarray, variance: np.ndarray, psf: PixelBasisPsf, x: np.ndarray, y: np.ndarray, half: int = 9
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted fits of flux, offset x and offset y; values (N, 3), errors (N, 3) and chi-square per pixel (N,).

    Offsets are to first order, so positions must be good to a small part of the PSF.
    """
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    models = psf.evaluate(x, y, dx=x - column, dy=y - row)
    step = 0.02
    slope_x = (shift_images(models, np.full(len(x), step), np.zeros(len(x))) - models) / step
    slope_y = (shift_images(models, np.zeros(len(x)), np.full(len(x), step)) - models) / step
    cut = slice(psf.size // 2 - half, psf.size // 2 + half + 1)
    values, errors, chi2 = [], [], []
    for k in range(len(x)):
        window = (slice(row[k] - half, row[k] + half + 1), slice(column[k] - half, column[k] + half + 1))
        data, weight = image[window].astype(float).ravel(), 1.0 / variance[window].astype(float).ravel()
        design = np.stack([m[k][cut, cut].ravel() for m in (models, slope_x, slope_y)], axis=1)
        covariance = np.linalg.inv(design.T @ (design * weight[:, None]))
        solution = covariance @ (design.T @ (weight * data))
        chi2.append(float((weight * (data - design @ solution) ** 2).mean()))
        error = np.sqrt(np.diag(covariance))
        values.append([solution[0], solution[1] / solution[0], solution[2] / solution[0]])
        errors.append([error[0], error[1] / solution[0], error[2] / solution[0]])
    return np.array(values), np.array(errors), np.array(chi2)


def _measure_science(
    pair: SimulatedPair, rows: np.ndarray, *, at: str = "template"
) -> tuple[np.ndarray, np.ndarray]:
    """Fit stars of the science image from their template position, with a second step from the first result."""
    truth = pair.truth[rows]
    x, y = np.asarray(truth["templateX"]).copy(), np.asarray(truth["templateY"]).copy()
    start_x, start_y = x.copy(), y.copy()
    for _ in range(4):
        values, errors, _ = _fit_stars(
            pair.science.image.array, pair.science.variance.array, pair.true_science_psf, x, y
        )
        x, y = x + values[:, 1], y + values[:, 2]
    values[:, 1], values[:, 2] = x - start_x, y - start_y
    return values, errors


def _check_pulls(measured: np.ndarray, expected: np.ndarray, error: np.ndarray) -> None:
    """Differences over their errors have mean 0 and root mean square 1 within the statistics of their number."""
    pull = (np.asarray(measured) - np.asarray(expected)) / error
    n = len(pull)
    assert n >= 10
    assert abs(pull.mean()) < 4.5 / np.sqrt(n)
    assert abs(np.sqrt((pull**2).mean()) - 1) < 4.5 / np.sqrt(2 * n)


def test_same_seed_gives_same_bytes_with_every_effect_on() -> None:
    first, second = (_science(_BUSY, seed=5, size=200, **ALL_EFFECTS) for _ in range(2))
    for name in ("science", "template"):
        a, b = getattr(first, name), getattr(second, name)
        for plane in ("image", "variance", "mask"):
            assert getattr(a, plane).array.tobytes() == getattr(b, plane).array.tobytes()
    assert first.template_psf.basis.tobytes() == second.template_psf.basis.tobytes()
    for table, other in ((first.truth, second.truth), (first.artefacts, second.artefacts)):
        for column in table.colnames:
            assert table[column].tobytes() == other[column].tobytes()


def test_effects_that_are_off_leave_no_trace() -> None:
    pair = _science(_BUSY, seed=5, size=128)
    assert len(pair.artefacts) == 0
    for column in ("jitterX", "dcrShiftX", "brighterFatterWidth", "templateBrighterFatterWidth"):
        assert not pair.truth[column].any()
    assert set(pair.truth["fluxScale"]) == {1.0}
    for name in ("COSMIC_RAY", "BAD", "STREAK", "CROSSTALK", "INEXACT_PSF", "NO_DATA"):
        assert not pair.science.mask.get(name).any()
        assert not pair.template.mask.get(name).any()


def test_effect_of_one_kind_leaves_the_noise_of_others_alone() -> None:
    plain, other = _science(_BLANK, size=128), _science(_BLANK, size=128, cosmic_rays=CosmicRays(300.0))
    hit = other.science.mask.get("COSMIC_RAY")
    assert 0 < hit.mean() < 0.5
    assert np.array_equal(plain.science.image.array[~hit], other.science.image.array[~hit])


# Displacements


@pytest.fixture(scope="module")
def refracted() -> SimulatedPair:
    effect = ChromaticRefraction(airmass=1.8, parallactic_angle=50.0)
    return _science(_BRIGHT_STARS, seed=3, size=640, band="g", chromatic_refraction=effect)


def test_red_and_blue_stars_part_along_the_parallactic_angle(refracted: SimulatedPair) -> None:
    rows = _isolated(refracted)
    values, errors = _measure_science(refracted, rows)
    angle = np.deg2rad(50.0)
    # North is up and east is left.
    zenith, across = np.array([-np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
    colour = np.asarray(refracted.truth["color"][rows])
    expected = -45.0e-3 / _SCALE * np.sqrt(1.8**2 - 1) * (colour - 1.0)
    _check_pulls(values[:, 1:] @ zenith, expected, errors[:, 1])
    _check_pulls(values[:, 1:] @ across, np.zeros(len(rows)), errors[:, 1])
    assert np.ptp(expected) > 0.5


def test_refraction_in_truth_is_that_in_the_pixels(refracted: SimulatedPair) -> None:
    rows = _isolated(refracted)
    values, errors = _measure_science(refracted, rows)
    for axis, name in ((1, "dcrShiftX"), (2, "dcrShiftY")):
        _check_pulls(values[:, axis], np.asarray(refracted.truth[name][rows]), errors[:, axis])
    assert np.array_equal(refracted.truth["dcrShiftX"], refracted.truth["shiftX"])


def test_refraction_is_less_in_redder_bands_and_none_at_the_zenith() -> None:
    colour = np.array([2.5])
    effect = ChromaticRefraction(airmass=1.5, parallactic_angle=0.0)
    shifts = [-effect.displacements(colour, band, _SCALE)[1][0] for band in "ugrizy"]
    assert shifts == sorted(shifts, reverse=True)
    assert ChromaticRefraction(airmass=1.0).displacements(colour, "g", _SCALE)[1][0] == 0
    with pytest.raises(ValueError, match="No refraction coefficient is known for band 'clear'"):
        effect.displacements(colour, "clear", _SCALE)


def test_jitter_and_proper_motion_move_the_stars_in_the_pixels() -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, n_proper_motion=60, proper_motion=(50.0, 200.0))
    jitter = AstrometricJitter(smooth=40.0, correlated=40.0, per_source=10.0)
    pair = _science(scene, seed=4, size=640, astrometric_jitter=jitter, template_age=2.0)
    rows = _isolated(pair)
    values, errors = _measure_science(pair, rows)
    truth = pair.truth[rows]
    for axis, name in ((1, "X"), (2, "Y")):
        total = truth[f"jitter{name}"] + truth[f"properMotionShift{name}"]
        assert np.allclose(total, truth[f"shift{name}"])
        _check_pulls(values[:, axis], np.asarray(total), errors[:, axis])
    moved = np.hypot(pair.truth["properMotionShiftX"], pair.truth["properMotionShiftY"])
    moved = moved[moved > 0]
    assert len(moved) == 60
    assert np.all((moved >= 0.5 - 1e-9) & (moved <= 2.0 + 1e-9))


def test_proper_motion_is_of_the_same_stars_on_every_visit() -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, n_proper_motion=5)
    first, second = (simulate_pair(scene=scene, seed=4, size=200, visit=visit).truth for visit in (1, 2))
    assert np.array_equal(first["properMotionShiftX"], second["properMotionShiftX"])
    assert np.array_equal(first["color"], second["color"])


def test_jitter_has_the_widths_and_the_correlation_asked_for() -> None:
    bounds = Box.from_shape((1000, 1000))
    x, y = np.random.default_rng(1).uniform(0, 1000, (2, 600))
    square, covariance, length = [], [], 100.0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        effect = AstrometricJitter(smooth=0.0, correlated=20.0, correlation_length=length * _SCALE)
        dx, _ = effect.displacements(rng, x, y, bounds, _SCALE)
        square.append((dx**2).mean())
        near = cKDTree(np.column_stack([x, y])).query_pairs(1.02 * length, output_type="ndarray")
        separation = np.hypot(*(x[near[:, 0]] - x[near[:, 1]], y[near[:, 0]] - y[near[:, 1]]))
        near = near[separation > 0.98 * length]
        covariance.append((dx[near[:, 0]] * dx[near[:, 1]]).mean())
    expected = (20e-3 / _SCALE) ** 2
    for values, value in ((square, expected), (covariance, expected * np.exp(-0.5))):
        assert abs(np.mean(values) - value) < 4 * np.std(values) / np.sqrt(len(values))
    smooth = AstrometricJitter(smooth=20.0, correlated=0.0)
    widths = [
        np.std(smooth.displacements(np.random.default_rng(seed), x, y, bounds, _SCALE)[1])
        for seed in range(20)
    ]
    assert np.sqrt(np.mean(np.square(widths))) == pytest.approx(20e-3 / _SCALE, rel=0.05)


# PSF


def test_width_grows_with_flux_by_the_brighter_fatter_effect() -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, star_magnitudes=(16.4, 18.5))
    pair = _science(scene, seed=5, size=512, brighter_fatter=BrighterFatter(growth=0.1))
    rows = _isolated(pair, distance=35.0)
    truth = pair.truth[rows]
    x, y = np.asarray(truth["x"]), np.asarray(truth["y"])
    psf = pair.true_science_psf
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    half = psf.size // 2
    stars = np.stack(
        [
            pair.science.image.array[j - half : j + half + 1, i - half : i + half + 1]
            for i, j in zip(column, row, strict=True)
        ]
    ).astype(float)
    models = psf.evaluate(x, y, dx=x - column, dy=y - row)
    size, size_model = (np.sqrt(sum(second_moments(images)[:2])) for images in (stars, models))
    growth = size / size_model - 1
    peak = models.max(axis=(1, 2)) * np.asarray(truth["scienceFlux"]) / pair.conditions.njy_per_electron
    slope = (growth * peak).sum() / (peak * peak).sum() * 1e5
    scatter = np.std(growth - slope * peak / 1e5) / np.sqrt((peak**2).sum()) * 1e5
    assert len(rows) > 10
    assert abs(slope - 0.1) < 4 * scatter + 0.004
    assert np.allclose(truth["brighterFatterWidth"], 0.1 * peak / 1e5, rtol=0.1)
    assert np.allclose(truth["brighterFatterWidth"], truth["widthChange"], rtol=1e-9)
    assert (truth["templateBrighterFatterWidth"] > 0).all()


def test_few_rays_have_the_moments_of_the_aperture() -> None:
    radius = np.sqrt((np.arange(400) + 0.5) / 400)
    theta = 2 * np.pi * np.arange(24) / 24
    rho, theta = np.meshgrid(radius, theta)
    full = np.stack([rho**2 * (2 + np.cos(2 * theta)) - 1, rho**2 * np.sin(2 * theta)]).reshape(2, -1)
    rays = np.array(coma_rays(1.0, 0.0)).T
    for p in range(4):
        for q in range(4 - p):
            moments = [(points[0] ** p * points[1] ** q).mean() for points in (full, rays)]
            assert moments[0] == pytest.approx(moments[1], abs=1e-4)


def test_coma_makes_the_psf_lopsided_along_its_direction() -> None:
    coma = Coma(x=0.0, y=0.3)
    pair = _science(_BLANK, size=128, coma=coma, ellipticity=0.0, ellipticity_variation=0.0)
    image = pair.science_psf.centre()
    odd = {"x": image - image[:, ::-1], "y": image - image[::-1]}
    assert np.abs(odd["x"]).max() < 1e-3 * image.max()
    assert np.abs(odd["y"]).max() > 0.05 * image.max()
    template = pair.template_psf.centre()
    assert np.abs(template - template[::-1]).max() < 1e-3 * template.max()


def test_coma_grows_away_from_the_middle() -> None:
    field = simulate_pair(
        ObservingConditions(
            coma=Coma(x=0.0, gradient=0.3), ellipticity=0.0, ellipticity_variation=0.0, fwhm_variation=0.0
        ),
        _BLANK,
        size=256,
    ).science_psf
    images = field.evaluate(np.array([5.0, 127.5, 250.0]), np.full(3, 127.5))
    lopsided = [(image - image[:, ::-1])[:, image.shape[1] // 2 + 1 :].sum() for image in images]
    assert lopsided[0] == pytest.approx(-lopsided[2], rel=0.05)
    assert abs(lopsided[1]) < 0.02 * abs(lopsided[0])


def test_moving_objects_are_drawn_as_trails() -> None:
    field = PsfField.random(
        np.random.default_rng(1),
        Box.from_shape((200, 200)),
        fwhm=4.0,
        ellipticity=0.0,
        ellipticity_variation=0.0,
        fwhm_variation=0.0,
        size=51,
    )
    length, angle = 8.0, 30.0
    trail = field.star_image(100, 100, trail=(length, angle))
    along = length * ((np.arange(100) + 0.5) / 100 - 0.5)
    points = [
        field.star_image(100, 100, dx=s * np.cos(np.deg2rad(angle)), dy=s * np.sin(np.deg2rad(angle)))
        for s in along
    ]
    cut = (len(trail) - field.size) // 2
    inner = trail[cut:-cut, cut:-cut]
    assert len(trail) == 51 + 8
    assert np.abs(inner / inner.sum() - np.mean(points, axis=0)).max() < 1e-3 * inner.max()


def test_flux_of_moving_objects_is_in_their_trails() -> None:
    scene = SceneConfig(
        star_density=0,
        galaxy_density=0,
        n_transients=0,
        n_moving=12,
        moving_snr=(100.0, 200.0),
        moving_rate=(300.0, 2000.0),
    )
    pair = _science(scene, seed=8, size=512)
    truth = pair.truth
    assert set(truth["kind"]) == {"moving"}
    assert truth["isMoving"].all() and not truth["isTransient"].any()
    rate = np.asarray(truth["trailLength"]) * _SCALE / 30.0 * 3600.0
    assert np.all((rate > 299) & (rate < 2001))
    pulls = []
    for row in truth[_isolated(pair, distance=60.0, margin=40.0)]:
        i, j = round(row["x"]), round(row["y"])
        window = (slice(j - 33, j + 34), slice(i - 33, i + 34))
        data = pair.science.image.array[window].sum(dtype=float)
        pulls.append(
            (data - row["scienceFlux"]) / np.sqrt(pair.science.variance.array[window].sum(dtype=float))
        )
    assert len(pulls) > 3
    assert np.all(np.abs(pulls) < 4)


# Calibration, sky and detector


def test_calibration_gradient_scales_the_fluxes() -> None:
    gradient = CalibrationGradient(x=0.2, y=-0.1)
    pair = _science(_BRIGHT_STARS, seed=6, size=512, flux_scale=1.1, calibration_gradient=gradient)
    rows = _isolated(pair)
    truth = pair.truth[rows]
    values, errors = _measure_science(pair, rows)
    # The variance has the light of the star itself, which biases a weighted fit by far less than its error.
    _check_pulls(values[:, 0], np.asarray(truth["fluxScale"] * truth["scienceFlux"]), errors[:, 0])
    expected = 1.1 * (1 + 0.2 * ((truth["x"] + 0.5) / 512 - 0.5) - 0.1 * ((truth["y"] + 0.5) / 512 - 0.5))
    assert np.allclose(truth["fluxScale"], expected)


def test_sky_gradient_is_in_pixels_and_variance() -> None:
    pair = _science(_BLANK, seed=7, size=256, sky_gradient=SkyGradient(level=20.0, x=40.0, y=-60.0))
    electrons = pair.science.image.array.astype(float) / pair.conditions.njy_per_electron
    u = (np.arange(256) + 0.5) / 256 - 0.5
    sigma = np.sqrt(870 + 81 + 20) / 256
    assert abs(electrons.mean() - 20) < 4 * sigma
    # The error of a slope over uniform coordinates of width 1 is sqrt(12) times that of the mean.
    for axis, slope in ((0, 40.0), (1, -60.0)):
        measured = (electrons.mean(axis=axis) * u).sum() / (u**2).sum()
        assert abs(measured - slope) < 4 * np.sqrt(12) * sigma
    variance = pair.science.variance.array / pair.conditions.njy_per_electron**2
    assert variance[128, -1] - variance[128, 0] == pytest.approx(40.0, rel=0.02)


def test_bleeding_keeps_the_charge_in_its_column() -> None:
    electrons = np.full((101, 20), 100.0)
    electrons[50:53, 7] = 5000.0
    before = electrons.sum(axis=0)
    bled = BleedTrails().apply(electrons, 1000.0)
    assert np.allclose(electrons.sum(axis=0), before)
    assert electrons.max() == 1000.0
    # 12,000 electrons over in three pixels, 900 to fill in each: 6.67 pixels up and as many down.
    assert list(np.flatnonzero(bled[:, 7])) == [*range(43, 50), *range(53, 60)]
    assert not np.delete(bled, 7, axis=1).any()


def test_bleed_trails_are_flagged_and_listed() -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, star_density=8.0, star_magnitudes=(13.0, 14.0))
    pair = _science(scene, seed=2, size=300, bleed_trails=BleedTrails())
    clipped = _science(scene, seed=2, size=300)
    changed = pair.science.image.array != clipped.science.image.array
    assert changed.any()
    assert pair.science.mask.get("SATURATED")[changed].all()
    trails = pair.artefacts[pair.artefacts["kind"] == "bleed"]
    assert (trails["cause"] == "saturation").all() and trails["isFlagged"].all()
    for trail in trails:
        (star,) = pair.truth[pair.truth["objectId"] == trail["sourceId"]]
        assert abs(star["x"] - trail["x"]) < 10
        assert trail["extent"] > 2 * trail["width"]
        assert trail["angle"] == 90
    assert len(trails) >= 3


@pytest.mark.parametrize("fraction", [1.0, 0.0])
def test_cosmic_rays_are_flagged_or_on_request_not(fraction: float) -> None:
    rays = CosmicRays(per_megapixel=200.0, flagged_fraction=fraction)
    plain, pair = _science(_BLANK, seed=3, size=256), _science(_BLANK, seed=3, size=256, cosmic_rays=rays)
    added = pair.science.image.array.astype(float) - plain.science.image.array
    hit = added > 0
    listed = pair.artefacts[pair.artefacts["kind"] == "cosmic_ray"]
    assert hit.sum() > 50
    assert added.sum() == pytest.approx(listed["flux"].sum(), rel=1e-4)
    assert (listed["isFlagged"] == (fraction == 1.0)).all()
    flagged = pair.science.mask.get("COSMIC_RAY")
    assert flagged[hit].all() if fraction == 1.0 else not flagged.any()
    # A track is where the table says: within half its length of its middle.
    row, column = np.nonzero(hit)
    for y, x in zip(row, column, strict=True):
        distance = np.hypot(listed["x"] - x, listed["y"] - y)
        assert (distance < 0.5 * listed["extent"] + 1.5).any()


def test_tracks_are_straight_and_sharp() -> None:
    rng = np.random.default_rng(4)
    rays = CosmicRays(per_megapixel=16.0, length=(30.0, 30.0), charge=(1000.0, 1000.0), fluctuation=0.0)
    electrons, _, (track,) = rays.hit(rng, Box.from_shape((256, 256)), 1.0)
    row, column = np.nonzero(electrons)
    angle = np.deg2rad(track.angle)
    across = (row - track.y) * np.cos(angle) - (column - track.x) * np.sin(angle)
    assert np.abs(across).max() < 0.75
    assert electrons.sum() == pytest.approx(30_000)


def test_bad_columns_are_flagged_and_stay() -> None:
    effect = BadColumns(number=6, hot_fraction=0.5, excess=800.0)
    conditions = ObservingConditions(bad_columns=effect)
    first, second = (simulate_pair(conditions, _BLANK, 3, size=256, visit=visit) for visit in (1, 2))
    bad = first.science.mask.get("BAD")
    assert np.array_equal(bad, second.science.mask.get("BAD"))
    listed = first.artefacts
    assert len(listed) == 6 == len(np.flatnonzero(bad.any(axis=0)))
    assert listed["nPixels"].sum() == bad.sum()
    electrons = first.science.image.array / conditions.njy_per_electron
    for column in listed:
        values = electrons[:, int(column["x"])][bad[:, int(column["x"])]]
        level = 800.0 if np.isfinite(column["flux"]) else -870.0
        assert abs(values.mean() - level) < 5 * 31 / np.sqrt(len(values))
    unflagged = _science(_BLANK, seed=3, size=256, bad_columns=dataclasses.replace(effect, is_flagged=False))
    assert not unflagged.science.mask.get("BAD").any()


def test_crosstalk_mirrors_bright_stars_into_the_neighbours() -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, star_density=10.0, star_magnitudes=(14.0, 16.0))
    effect = Crosstalk(coefficient=2e-3, n_amplifiers=4, is_flagged=True)
    plain, pair = _science(scene, seed=2, size=256), _science(scene, seed=2, size=256, crosstalk=effect)
    added = pair.science.image.array.astype(float) - plain.science.image.array
    amplifiers = plain.science.image.array.reshape(256, 4, 64).astype(float)
    # The second amplifier sees the first and the third, mirrored.
    expected = 2e-3 * (amplifiers[:, 0, ::-1] + amplifiers[:, 2, ::-1])
    assert np.allclose(added[:, 64:128], expected, atol=0.02)
    sigma = np.sqrt(pair.conditions.science_sky_variance)
    assert np.array_equal(pair.science.mask.get("CROSSTALK"), np.abs(added) > sigma) or (
        np.mean(pair.science.mask.get("CROSSTALK") != (np.abs(added) > sigma)) < 1e-3
    )
    listed = pair.artefacts[pair.artefacts["kind"] == "crosstalk"]
    with_source = listed[listed["sourceId"] >= 0]
    assert len(with_source) >= 2
    for image in with_source:
        (star,) = pair.truth[pair.truth["objectId"] == image["sourceId"]]
        edge = 64 * round((star["x"] + image["x"]) / 128)
        assert abs((image["x"] + 0.5 - edge) - (edge - star["x"] - 0.5)) < 4
        assert abs(image["y"] - star["y"]) < 4


def test_ghosts_have_their_part_of_the_light() -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, star_density=2.0, star_magnitudes=(14.0, 14.5))
    effect = Ghosts(magnitude_limit=15.0, fraction=0.05, radius=6.0, inner=0.5, offset=-0.2)
    plain, pair = _science(scene, seed=1, size=400), _science(scene, seed=1, size=400, ghosts=effect)
    ghosts = pair.artefacts
    assert len(ghosts) == len(pair.truth) >= 1
    difference = pair.science.image.array.astype(float) - plain.science.image.array
    noise = np.sqrt(2 * pair.science.variance.array.sum(dtype=float))
    unsaturated = ~(pair.science.mask.get("SATURATED") | plain.science.mask.get("SATURATED"))
    assert abs(difference[unsaturated].sum() - ghosts["flux"].sum()) < 4 * noise
    assert ghosts["flux"].sum() > 10 * noise
    for ghost in ghosts:
        (star,) = pair.truth[pair.truth["objectId"] == ghost["sourceId"]]
        assert ghost["x"] == pytest.approx(199.5 + 0.2 * (star["x"] - 199.5))
        assert ghost["extent"] == pytest.approx(2 * 6.0 / _SCALE)


def test_streaks_have_their_brightness_and_place() -> None:
    effect = Streaks(number=1, surface_brightness=(22.0, 22.0), fwhm=1.6)
    pair = _science(_BLANK, seed=9, size=300, streaks=effect)
    (streak,) = pair.artefacts
    rows, columns = np.mgrid[:300, :300]
    angle = np.deg2rad(streak["angle"])
    across = (rows - streak["y"]) * np.cos(angle) - (columns - streak["x"]) * np.sin(angle)
    assert np.array_equal(pair.science.mask.get("STREAK"), np.abs(across) < 8.0)
    ridge = pair.science.image.array[np.abs(across) < 0.5]
    peak = 10 ** (0.4 * (31.4 - 22.0)) * _SCALE**2
    # A Gaussian of width 8 pixels loses 0.4 per cent on average within half a pixel.
    noise = np.sqrt(pair.science.variance.array[np.abs(across) < 0.5].mean() / len(ridge))
    assert abs(ridge.mean() - peak) < 4 * noise + 0.005 * peak
    half = pair.science.image.array[np.abs(np.abs(across) - 4.0) < 0.5]
    assert abs(half.mean() - 0.5 * peak) < 4 * noise + 0.01 * peak
    assert streak["flux"] == pytest.approx(pair.science.image.array.sum(dtype=float), rel=0.05)


# Sky


def test_lsst_counts_have_their_numbers() -> None:
    scene = SceneConfig(
        counts="lsst", n_transients=0, n_variables=0, star_magnitudes=(14.0, 25.0), density_factor=30.0
    )
    truth = simulate_pair(scene=scene, seed=1, size=100).truth
    area = (100 * _SCALE / 60) ** 2
    for kind in ("star", "galaxy"):
        for brightest, faintest in ((18.0, 23.0), (23.0, 25.0)):
            expected = 30 * area * lsst_density(kind, (brightest, faintest))  # type: ignore[arg-type]
            found = ((truth["kind"] == kind) & (truth["mag"] >= brightest) & (truth["mag"] < faintest)).sum()
            assert abs(found - expected) < 4 * np.sqrt(expected)
    assert 30 < lsst_density("galaxy", (18.0, 25.0)) < 40
    assert 3 < lsst_density("star", (14.0, 25.0)) < 5


def test_hosts_offer_a_range_of_surface_brightness_and_offset() -> None:
    def make(selection: str) -> Any:
        scene = SceneConfig(
            n_transients=200,
            host_fraction=1.0,
            host_selection=selection,  # type: ignore[arg-type]
            host_offset=(0.5, 3.0),
            galaxy_density=100.0,
            star_density=0.0,
        )
        truth = simulate_pair(scene=scene, seed=2, size=256).truth
        return truth, truth[truth["isTransient"]]

    truth, even = make("surface_brightness")
    _, random = make("random")
    assert np.all((even["hostOffset"] >= 0.5) & (even["hostOffset"] <= 3.0))
    # Equal parts of the range have about as many; random hosts crowd around one surface brightness.
    low, high = np.percentile(even["hostSurfaceBrightness"], [1, 99])
    even_counts, random_counts = (
        np.histogram(table["hostSurfaceBrightness"], 5, (low, high))[0] for table in (even, random)
    )
    # Chi-square of four degrees of freedom: 13.3 has a chance of 1 per cent, 18.5 of 0.1 per cent.
    assert ((even_counts - 39.2) ** 2 / 39.2).sum() < 13.3
    assert ((random_counts - 39.2) ** 2 / 39.2).sum() > 18.5
    for row in even[:5]:
        (host,) = truth[truth["objectId"] == row["hostId"]]
        profile = galsim.Sersic(
            host["sersicIndex"], half_light_radius=host["halfLightRadius"], flux=host["scienceFlux"]
        ).shear(g1=host["g1"], g2=host["g2"])
        offset = row["templateX"] - host["templateX"], row["templateY"] - host["templateY"]
        value = 31.4 - 2.5 * np.log10(profile.xValue(*offset) / _SCALE**2)
        assert row["hostSurfaceBrightness"] == pytest.approx(value, abs=0.01)


def test_transients_left_in_the_template_are_in_its_pixels() -> None:
    scene = SceneConfig(
        star_density=0,
        galaxy_density=0,
        n_transients=40,
        fading_fraction=0.0,
        n_left_in_template=15,
        left_in_fraction=0.4,
        transient_snr=(50.0, 200.0),
    )
    pair = _science(scene, seed=3, size=512)
    truth = pair.truth
    left = np.flatnonzero(truth["isLeftInTemplate"])
    assert len(left) == 15
    assert np.allclose(truth["templateFlux"][left], 0.4 * truth["scienceFlux"][left])
    rows = np.intersect1d(left, _isolated(pair))
    values, errors, _ = _fit_stars(
        pair.template.image.array,
        pair.template.variance.array,
        pair.template_psf,
        np.asarray(truth["templateX"][rows]),
        np.asarray(truth["templateY"][rows]),
    )
    pull = (values[:, 0] - truth["templateFlux"][rows]) / errors[:, 0]
    assert len(rows) > 5
    assert np.abs(pull).max() < 4
    assert np.all(truth["idealSnr"][left] >= 50)


# Warped coadds


def _coadd(
    scene: SceneConfig, *, seed: int = 1, size: int = 384, age: float = 1.0, **settings: Any
) -> SimulatedPair:
    defaults = {"n_edges": 0, "n_rejected": 0.0}
    coadd = WarpedCoadd(**{**defaults, **settings})  # type: ignore[arg-type]
    return _science(scene, seed=seed, size=size, warped_coadd=coadd)


def test_noise_of_a_coadd_is_correlated_as_its_kernel_makes_it() -> None:
    pair = _coadd(_BLANK, n_epochs=2, seed=2, size=512)
    noise = pair.template.image.array.astype(float)
    weights = lanczos_weights((np.arange(500) + 0.5) / 500)
    # Rotated by a degree, neighbours have about the same phases, and over the image all phases occur.
    own = (weights**2).sum(axis=1).mean()
    neighbour = (weights[:, 1:] * weights[:, :-1]).sum(axis=1).mean()
    white = pair.conditions.template_sky_variance
    n = noise.size
    assert noise.var() / white == pytest.approx(own**2, abs=5 * np.sqrt(2 / n) + 0.01)
    for lag in (noise[:, 1:] * noise[:, :-1], noise[1:] * noise[:-1]):
        correlation = lag.mean() / noise.var()
        assert correlation == pytest.approx(neighbour / own, abs=5 / np.sqrt(n) + 0.01)
    assert neighbour / own > 0.05


def test_sums_over_many_pixels_have_the_noise_before_resampling() -> None:
    pair = _coadd(_BLANK, n_epochs=2, seed=2, size=512)
    blocks = pair.template.image.array.astype(float).reshape(32, 16, 32, 16).sum(axis=(1, 3))
    expected = 256 * pair.conditions.template_sky_variance
    # Blocks lose what their edges share with their neighbours: some per cent.
    assert blocks.var() / expected == pytest.approx(1.0, abs=4 * np.sqrt(2 / blocks.size) + 0.03)


def test_variance_of_a_coadd_is_that_of_its_pixels_on_both_sides_of_a_step() -> None:
    pair = _coadd(_BLANK, n_epochs=3, n_edges=1, seed=4, size=512)
    image, variance = pair.template.image.array.astype(float), pair.template.variance.array.astype(float)
    shallow = pair.template.mask.get("HIGH_VARIANCE")
    assert 0.1 < shallow.mean() < 0.9
    for area in (shallow, ~shallow):
        pull = image[area] / np.sqrt(variance[area])
        # Correlated neighbours make the number of independent pixels smaller, by less than two.
        assert abs(pull.var() - 1) < 5 * np.sqrt(4 / area.sum())
    assert variance[shallow].mean() / variance[~shallow].mean() == pytest.approx(1.5, rel=0.02)
    edge = pair.template.mask.get("SENSOR_EDGE")
    assert np.array_equal(pair.template.mask.get("INEXACT_PSF"), edge)
    (row,) = pair.artefacts
    assert (row["kind"], row["image"], row["cause"]) == ("coadd_edge", "template", "template_artefact")
    j, i = np.nonzero(edge)
    angle = np.deg2rad(row["angle"])
    across = (j - row["y"]) * np.cos(angle) - (i - row["x"]) * np.sin(angle)
    assert np.abs(across).max() < 8
    # The step is within the flagged strip: away from it, neighbours on one side agree.
    changes = shallow[:, 1:] != shallow[:, :-1]
    assert edge[:, 1:][changes].all()


@pytest.mark.parametrize("rotation", [2.0, 30.0])
def test_stars_of_a_coadd_have_its_psf(rotation: float) -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, star_magnitudes=(19.5, 21.0))
    pair = _coadd(
        scene, n_epochs=2, seed=5, size=420, rotation=rotation, registration=20.0, seeing_scatter=0.2
    )
    rows = _isolated(pair)
    truth = pair.truth[rows]
    image, variance = pair.template.image.array, pair.template.variance.array
    x, y = np.asarray(truth["templateX"]), np.asarray(truth["templateY"])
    values, errors, chi2 = _fit_stars(image, variance, pair.template_psf, x, y)
    # Fits with weights for white noise: correlated noise makes real errors up to 1 / own^2 of the Lanczos test.
    inflation = np.sqrt(pair.conditions.template_sky_variance / np.median(variance))
    for axis, expected in ((0, truth["templateFlux"]), (1, np.zeros(len(rows))), (2, np.zeros(len(rows)))):
        pull = (values[:, axis] - np.asarray(expected)) / (errors[:, axis] * inflation)
        assert abs(pull.mean()) < 4.5 / np.sqrt(len(rows))
        assert np.sqrt((pull**2).mean()) < 1.4
    assert len(rows) > 20
    assert abs(np.median(chi2) - 1) < 0.15
    # Lanczos-3 makes a star's image depend on where in the pixel it is, by half a per cent of the peak at most.
    assert pair.template_psf.sampling_error < 5e-3


def test_psf_of_a_coadd_steps_where_an_exposure_ends() -> None:
    scene = dataclasses.replace(_BRIGHT_STARS, star_density=60.0)
    pair = _coadd(scene, n_epochs=2, n_edges=1, seeing_scatter=0.5, seed=6, size=420)
    rows = _isolated(pair, distance=22.0)
    truth = pair.truth[rows]
    x, y = np.asarray(truth["templateX"]), np.asarray(truth["templateY"])
    peak = np.array(
        [
            pair.template.image.array[round(b) - 1 : round(b) + 2, round(a) - 1 : round(a) + 2].sum()
            for a, b in zip(x, y, strict=True)
        ]
    ) / np.asarray(truth["templateFlux"])
    shallow = pair.template.mask.get("HIGH_VARIANCE")[np.rint(y).astype(int), np.rint(x).astype(int)]
    assert min(shallow.sum(), (~shallow).sum()) > 4
    step = abs(peak[shallow].mean() - peak[~shallow].mean())
    assert step > 0.05 * peak.mean()
    assert step > 4 * max(peak[shallow].std(), peak[~shallow].std()) / np.sqrt(4)


def test_galaxies_of_a_turned_exposure_keep_their_orientation() -> None:
    scene = SceneConfig(
        star_density=0,
        galaxy_density=4.0,
        galaxy_magnitudes=(17.5, 18.0),
        n_transients=0,
        n_variables=0,
    )
    settings: dict[str, Any] = {"n_epochs": 1, "seeing_scatter": 0.0, "dither": 3.0}
    straight, turned = (
        _coadd(scene, seed=7, size=256, rotation=rotation, **settings).template for rotation in (0.0, 40.0)
    )
    noise = np.sqrt(straight.variance.array + turned.variance.array)
    light = straight.image.array > 5 * noise
    assert light.sum() > 500
    difference = (turned.image.array - straight.image.array) / noise
    # The PSF's own 2 per cent of ellipticity turns too; an orientation of galaxies that did not would leave tens.
    assert np.std(difference[light]) < 2.0


def test_rejected_areas_and_holes_are_flagged() -> None:
    pair = _coadd(_BLANK, n_epochs=4, n_rejected=3.0, n_holes=2.0, hole_radius=10.0, seed=3, size=300)
    mask = pair.template.mask
    rejected, no_data = mask.get("REJECTED"), mask.get("NO_DATA")
    assert np.isnan(pair.template.image.array[no_data]).all()
    assert np.isfinite(pair.template.image.array[~no_data]).all()
    assert np.isfinite(pair.template.variance.array[~no_data]).all()
    assert mask.get("INEXACT_PSF")[rejected].all() and mask.get("CLIPPED")[rejected].all()
    kinds = list(pair.artefacts["kind"])
    assert (kinds.count("coadd_rejected"), kinds.count("coadd_hole")) == (12, 2)
    for row in pair.artefacts:
        j, i = np.clip(round(row["y"]), 0, 299), np.clip(round(row["x"]), 0, 299)
        assert rejected[j, i] or no_data[j, i]
    clean = np.median(pair.template.variance.array[~rejected & ~no_data])
    assert np.median(pair.template.variance.array[rejected]) == pytest.approx(clean * 4 / 3, rel=0.1)


# Measured PSFs


@pytest.fixture(scope="module")
def exact_and_measured() -> tuple[SimulatedPair, SimulatedPair]:
    scene = dataclasses.replace(
        _BRIGHT_STARS, star_density=25.0, star_magnitudes=(17.5, 20.0), n_transients=5
    )
    conditions = {
        "science_seeing": 0.8,
        "template_seeing": 0.7,
        "psf_size": 41,
        "warped_coadd": WarpedCoadd(n_epochs=2, n_edges=0),
        "cosmic_rays": CosmicRays(),
    }
    exact, piff = (_science(scene, seed=3, size=384, psf=psf, **conditions) for psf in ("exact", "piff"))
    return exact, piff


def test_pixels_and_truth_do_not_depend_on_how_psfs_are_given(
    exact_and_measured: tuple[SimulatedPair, SimulatedPair],
) -> None:
    exact, piff = exact_and_measured
    for name in ("science", "template"):
        for plane in ("image", "variance", "mask"):
            a, b = (getattr(getattr(pair, name), plane).array for pair in exact_and_measured)
            assert a.tobytes() == b.tobytes()
    for column in exact.truth.colnames:
        assert exact.truth[column].tobytes() == piff.truth[column].tobytes()
    assert exact.true_science_psf.basis.tobytes() == piff.true_science_psf.basis.tobytes()


def test_measured_psfs_are_attached_and_close_to_the_exact_ones(
    exact_and_measured: tuple[SimulatedPair, SimulatedPair],
) -> None:
    exact, piff = exact_and_measured
    for name in ("science", "template"):
        true, measured = (getattr(pair, f"{name}_psf") for pair in exact_and_measured)
        attached = PixelBasisPsf.from_point_spread_function(getattr(piff, name).psf, piff.science.bbox)
        assert np.allclose(attached.centre(), measured.centre(), atol=1e-6)
        assert not np.allclose(measured.centre(), true.centre(), atol=1e-6)
        size = [
            np.sqrt(sum(m[0] for m in second_moments(psf.centre()[None])[:2])) for psf in (true, measured)
        ]
        assert size[1] / size[0] == pytest.approx(1.0, abs=0.03)
    assert exact.science_psf is exact.true_science_psf


# Files and repositories


def test_example_survey_is_complete() -> None:
    survey = read_survey(_EXAMPLE)
    assert (len(survey.visits), len(survey.detectors), survey.size) == (8, 4, 1024)
    for name, effect in ALL_EFFECTS.items():
        assert type(getattr(survey.visits[0].conditions, name)) is type(effect)
    words = set(_EXAMPLE.read_text().replace(":", " ").split())
    classes = [
        SurveyConfig,
        ObservingConditions,
        SceneConfig,
        *(type(effect) for effect in ALL_EFFECTS.values()),
    ]
    for cls in classes:
        missing = {entry.name for entry in dataclasses.fields(cls)} - words
        assert not missing, f"{cls.__name__}: {missing}"


def test_visits_change_single_fields_of_effects(tmp_path: Path) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text(
        """
        conditions:
          cosmic_rays: {per_megapixel: 7.0, length: [2, 9]}
          chromatic_refraction: {airmass: 1.2}
        visits:
          - {visit: 1}
          - {visit: 2, chromatic_refraction: {parallactic_angle: 10.0}, cosmic_rays: null, streaks: {}}
        """
    )
    first, second = (plan.conditions for plan in read_survey(path).visits)
    assert first.cosmic_rays == CosmicRays(per_megapixel=7.0, length=(2, 9))
    assert (first.streaks, second.streaks, second.cosmic_rays) == (None, Streaks(), None)
    assert second.chromatic_refraction == ChromaticRefraction(airmass=1.2, parallactic_angle=10.0)


def test_effects_without_visits_are_those_of_the_default_visits(tmp_path: Path) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text("conditions: {coma: {x: 0.2}}")
    assert {plan.conditions.coma for plan in read_survey(path).visits} == {Coma(x=0.2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conditions: {cosmic_rays: {number: 3}}", r"unknown fields \['number'\] in cosmic_rays"),
        ("conditions: {coma: 3}", "coma must hold names with values, got 3"),
        ("visits: [{visit: 3, streaks: {fwhm: -1}}]", "fwhm must be positive, got -1"),
        ("conditions: {psf: best}", "psf must be one of"),
    ],
)
def test_bad_effects_in_survey_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_survey(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChromaticRefraction(airmass=0.5), "airmass must be at least 1"),
        (lambda: AstrometricJitter(smooth=-1), "smooth must not be negative"),
        (lambda: AstrometricJitter(correlation_length=0), "correlation_length must be positive"),
        (lambda: BrighterFatter(growth=-1), "growth must be above"),
        (lambda: Coma(x=5), "coma must be below 2 arcsec"),
        (lambda: CalibrationGradient(x=1.5), "calibration must stay positive"),
        (lambda: BleedTrails(fraction=2), "fraction must be between 0 and 1"),
        (lambda: CosmicRays(length=(3, 1)), "length must be a positive range"),
        (lambda: CosmicRays(flagged_fraction=2), "flagged_fraction must be"),
        (lambda: BadColumns(number=-1), "number must not be negative"),
        (lambda: Crosstalk(n_amplifiers=1), "n_amplifiers must be at least 2"),
        (lambda: Ghosts(inner=1.0), "inner must be in"),
        (lambda: Streaks(surface_brightness=(24, 22)), "surface_brightness must be"),
        (lambda: WarpedCoadd(n_edges=9), "n_edges must be between 0 and n_epochs"),
        (lambda: WarpedCoadd(rotation=90), "rotation must be between 0 and 45"),
        (lambda: ObservingConditions(coma=3), "coma must be a Coma or None"),  # type: ignore[arg-type]
        (lambda: SceneConfig(counts="few"), "counts must be one of"),  # type: ignore[arg-type]
        (lambda: SceneConfig(left_in_fraction=1.0), "left_in_fraction must be"),
        (lambda: SceneConfig(host_offset=(2, 1)), "host_offset must be a range"),
        (lambda: write_survey("nowhere", processes=0), "processes must be at least 1"),
    ],
)
def test_effects_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_processes_write_the_same_survey(tmp_path: Path) -> None:
    conditions = ObservingConditions(**ALL_EFFECTS)
    config = SurveyConfig(
        visits=(VisitPlan(1, conditions),),
        detectors=(0, 1),
        size=128,
        seed=3,
        scene=_BUSY,
        broken=(BrokenDetector(1, "no_template"),),
    )
    lines: dict[int, list[str]] = {1: [], 2: []}
    refs = {
        n: write_survey(tmp_path / f"repo{n}", config, processes=n, report=lines[n].append) for n in (1, 2)
    }
    assert lines[1] == lines[2]
    assert len(refs[1]) == len(refs[2]) == 7
    with (
        Butler.from_config(str(tmp_path / "repo1")) as one,
        Butler.from_config(str(tmp_path / "repo2")) as two,
    ):
        for first, second in zip(refs[1], refs[2], strict=True):
            assert (first.datasetType, first.dataId) == (second.datasetType, second.dataId)
            a, b = one.get(first), two.get(second)
            if hasattr(a, "colnames"):
                for column in a.colnames:
                    assert a[column].tobytes() == b[column].tobytes()
            else:
                assert a.image.array.tobytes() == b.image.array.tobytes()
                assert a.variance.array.tobytes() == b.variance.array.tobytes()
