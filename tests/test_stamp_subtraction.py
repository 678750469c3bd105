"""Stamps subtracted by themselves: noise, fluxes, static stars, gaps, and the full-image methods as a reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.stats import mad_std
from astropy.table import Table

from lsst.diainspect.diagnostics import diagnostic_registry, measure_diagnostics
from lsst.diainspect.masks import words_masked_by
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, simulate_pair
from lsst.diainspect.stamps import StampModel, StampSet, gather_stamps, stamp_origin
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    ZogyConfig,
    ZogySubtractor,
    subtract_stamps,
)
from lsst.diainspect.validation import PsfFit, compare_psf_fluxes
from synthetic_sources import assert_unit_pulls, gaussian

SIZE = 41
SCIENCE_NOISE, TEMPLATE_NOISE = 20.0, 9.0

METHODS = {
    "al, template convolved": {"method": "al", "convolve": "template"},
    "al, science convolved": {"method": "al", "convolve": "science"},
    "zogy": {"method": "zogy"},
}
FULL = {"al": AlSubtractor(AlConfig()), "zogy": ZogySubtractor(ZogyConfig())}


def scene(
    n: int, seed: int, *, flux: float = 0.0, static: float = 0.0, convolve: str = "template"
) -> StampSet:
    """Sources with a PSF of their own in each image, off the pixels' centres.

    The image that is convolved is the sharper one.
    """
    rng = np.random.default_rng(seed)
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    blunt, sharp = rng.uniform(1.9, 2.4, n), rng.uniform(1.4, 1.7, n)
    science, template = (blunt, sharp) if convolve == "template" else (sharp, blunt)
    table = Table()
    table["diaSourceId"] = np.arange(1, n + 1)
    table["visit"], table["detector"] = np.full(n, 7), np.zeros(n, dtype=int)
    table["x0"], table["y0"] = np.full(n, 300, dtype=np.int32), np.full(n, 500, dtype=np.int32)
    table["x"], table["y"] = 300 + SIZE // 2 + dx, 500 + SIZE // 2 + dy
    table["pixelToSky"] = np.tile(np.diag([-0.2, 0.2]) / 3600.0, (n, 1, 1))
    planes, models = {"mask": np.zeros((n, SIZE, SIZE), dtype=np.uint32)}, {}
    for side, sigma, amplitude, noise in (
        ("science", science, static + flux, SCIENCE_NOISE),
        ("template", template, static, TEMPLATE_NOISE),
    ):
        width = sigma[:, None, None]
        pixels = 50.0 + amplitude * gaussian(dx, dy, width, SIZE) + rng.normal(0.0, noise, (n, SIZE, SIZE))
        planes[side] = pixels.astype(np.float32)
        planes[f"{side}Variance"] = np.full((n, SIZE, SIZE), noise**2, dtype=np.float32)
        zero = np.zeros(n)
        models[f"{side}Psf"] = StampModel.from_images(gaussian(zero, zero, width, 31).astype(np.float32))
    return StampSet(table, planes, models)


def arguments(name: str) -> dict[str, str]:
    return METHODS[name]


def sharp_side(name: str) -> str:
    return METHODS[name].get("convolve", "template")


@pytest.mark.parametrize("name", METHODS)
def test_noise_is_white_and_as_predicted(name: str) -> None:
    stamps = subtract_stamps(scene(200, 1, convolve=sharp_side(name)), **arguments(name))
    pull = stamps.planes["difference"] / np.sqrt(stamps.planes["differenceVariance"])
    known = np.isfinite(pull)
    # Some 200 * 900 pixels are far enough from the edge.
    assert known.sum() > 1e5
    # 0.3 % is the error of the scatter; the constant that is subtracted takes one of 900 degrees of freedom a stamp.
    assert np.std(pull[known]) == pytest.approx(1.0, abs=0.01)
    for first, second in ((np.s_[:, :, 1:], np.s_[:, :, :-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = known[first] & known[second]
        correlation = (pull[first] * pull[second])[both].mean()
        assert abs(correlation) < 4.0 / np.sqrt(both.sum()) + 2.0 / 900.0


@pytest.mark.parametrize("name", METHODS)
def test_fluxes_are_unbiased_and_their_errors_right(name: str) -> None:
    flux = 3000.0
    stamps = subtract_stamps(scene(400, 2, flux=flux, convolve=sharp_side(name)), **arguments(name))
    table = compare_psf_fluxes(stamps, PsfFit("variance", 9.0))
    pull = (np.asarray(table["psfFlux"]) - flux) / np.asarray(table["psfFluxErr"])
    # The background of a stamp is known to 1.25 / sqrt(1200) sigma a pixel, which adds a few per cent of the error.
    assert abs(pull.mean()) < 4.0 / np.sqrt(len(pull))
    assert np.std(pull) == pytest.approx(1.02, abs=4.0 / np.sqrt(2.0 * len(pull)))


@pytest.mark.parametrize("name", METHODS)
def test_a_static_star_leaves_nothing(name: str) -> None:
    static = 1.0e5
    stamps = scene(200, 3, static=static, convolve=sharp_side(name))
    subtracted = subtract_stamps(stamps, **arguments(name))
    table = compare_psf_fluxes(subtracted)
    pull = np.asarray(table["psfFlux"]) / np.asarray(table["psfFluxErr"])
    # S/N of the star is 800 in the science image: 1e-3 of it would be one sigma.
    assert_unit_pulls(pull / np.hypot(1.0, 0.2))
    core = subtracted.planes["difference"][:, 15:26, 15:26] / np.sqrt(
        subtracted.planes["differenceVariance"][:, 15:26, 15:26]
    )
    assert np.std(core) == pytest.approx(1.0, abs=0.05)


def test_al_convolves_the_sharper_image_of_each_stamp() -> None:
    one, other = scene(3, 4), scene(3, 5, convolve="science")
    for stamps, convolve in ((one, "template"), (other, "science")):
        chosen = subtract_stamps(stamps, "al").planes["difference"]
        wanted = subtract_stamps(stamps, "al", convolve=convolve).planes["difference"]
        np.testing.assert_array_equal(chosen, wanted)


@pytest.mark.parametrize("name", METHODS)
def test_stamps_do_not_know_of_each_other(name: str) -> None:
    stamps = scene(150, 6, flux=3000.0)
    everything = subtract_stamps(stamps, **arguments(name))
    some = subtract_stamps(stamps[120:150:10], **arguments(name))
    sigma = np.sqrt(some.planes["differenceVariance"])
    # Transforms and sums are the same but for rounding.
    difference = (everything.planes["difference"][120:150:10] - some.planes["difference"]) / sigma
    assert np.nanmax(np.abs(difference)) < 1e-3


@pytest.mark.parametrize("method", FULL)
def test_stamps_agree_with_the_full_image_where_psfs_are_constant(method: str) -> None:
    conditions = ObservingConditions(
        science_seeing=1.1,
        template_seeing=0.8,
        ellipticity_variation=0.0,
        fwhm_variation=0.0,
    )
    simulated = simulate_pair(conditions, SceneConfig(star_density=40, n_transients=60), 11, size=700)
    pair = ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )
    full = FULL[method].subtract(pair)
    truth = simulated.truth[np.asarray(simulated.truth["isTransient"])]
    x, y = np.asarray(truth["x"], dtype=float), np.asarray(truth["y"], dtype=float)
    inside = (x > 40) & (x < 660) & (y > 40) & (y < 660)
    x, y = x[inside], y[inside]
    x0, y0 = stamp_origin(x, y, SIZE)

    def cut(image: np.ndarray, fill: float | bool = np.nan) -> np.ndarray:
        return gather_stamps(image, x0, y0, SIZE, fill)

    table = Table()
    table["diaSourceId"] = np.arange(len(x))
    table["x"], table["y"], table["x0"], table["y0"] = x, y, x0, y0
    psfs = {
        "science": pair.science_psf.evaluate(x, y),
        "template": pair.template_psf.evaluate(x, y),
    }
    stamps = StampSet(
        table,
        {
            "science": cut(pair.science),
            "template": cut(pair.template),
            "scienceVariance": cut(pair.science_variance),
            "templateVariance": cut(pair.template_variance),
        },
        {f"{side}Psf": StampModel.from_images(own.astype(np.float32)) for side, own in psfs.items()},
    )
    ours = subtract_stamps(stamps, method)
    clean = ~cut(full.spread | full.bad | full.edge, True).astype(bool)
    deviation = (ours.planes["difference"] - cut(full.difference)) / np.sqrt(cut(full.variance))
    deviation = np.where(clean, deviation, np.nan)
    own = np.array([mad_std(one, ignore_nan=True) for one in deviation if np.isfinite(one).sum() > 300])
    assert len(own) > 30
    # The full image finds its kernel, its flux scale and its background from its stars: stamps on bright static light
    # differ by what that costs, most by little.
    assert np.median(own) < 0.1
    assert np.quantile(own, 0.9) < 0.5


def test_a_bad_pixel_is_not_used_and_what_it_reaches_is_flagged() -> None:
    """A hole in the template beside a bright star, which the kernel carries to other pixels."""
    stamps = scene(20, 8, static=1.0e5)
    planes = {plane: pixels.copy() for plane, pixels in stamps.planes.items()}
    planes["template"][:, 22, 22] = np.nan
    holed = subtract_stamps(replace(stamps, planes=planes))
    whole = subtract_stamps(stamps)
    lost = ~np.isfinite(holed.planes["difference"])
    assert lost[:, 22, 22].all()
    np.testing.assert_array_equal(lost, words_masked_by(holed.planes["mask"], ["FILTER_SPREAD"]))
    extra = lost & np.isfinite(whole.planes["difference"])
    assert extra.sum(axis=(1, 2)).min() > 9
    assert not extra[:, :10].any() and not extra[:, 32:].any()
    # A pixel is filled with its neighbour, which is less wrong than it is bright.
    deviation = (holed.planes["difference"] - whole.planes["difference"]) / np.sqrt(
        holed.planes["differenceVariance"]
    )
    assert np.abs(deviation[~lost]).max() < 0.3


def test_a_stamp_without_pixels_costs_the_others_nothing() -> None:
    stamps = scene(4, 9, flux=3000.0)
    planes = {plane: pixels.copy() for plane, pixels in stamps.planes.items()}
    planes["template"][2] = np.nan
    result = subtract_stamps(replace(stamps, planes=planes))
    whole = subtract_stamps(stamps)
    assert np.isnan(result.planes["difference"][2]).all()
    others = np.array([0, 1, 3])
    np.testing.assert_allclose(
        result.planes["difference"][others], whole.planes["difference"][others], rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("name", METHODS)
def test_psf_of_the_difference_is_what_a_new_source_has(name: str) -> None:
    """A source without noise, subtracted, is the PSF that the result says it is."""
    stamps = scene(5, 10, convolve=sharp_side(name))
    planes = dict(stamps.planes)
    at_centre = stamps.model_images("sciencePsf")
    planes["science"] = 1000.0 * np.pad(at_centre, ((0, 0), (5, 5), (5, 5)))
    planes["template"] = np.zeros_like(planes["science"])
    result = subtract_stamps(replace(stamps, planes=planes), **arguments(name))
    psf = 1000.0 * result.model_images("differencePsf")[:, 5:-5, 5:-5]
    found = result.planes["difference"][:, 10:-10, 10:-10]
    np.testing.assert_allclose(found, psf, atol=2e-3 * psf.max())


def test_diagnostics_run_on_what_was_subtracted() -> None:
    stamps = subtract_stamps(scene(6, 12, flux=3000.0, static=1e4), "zogy")
    plugin = diagnostic_registry["residualModes"]
    table = measure_diagnostics(stamps, {"residualModes": plugin(plugin.ConfigClass())})
    assert not table["residualModes_flag"].any()
    np.testing.assert_allclose(table["residualModes_discoveryFlux"], 3000.0, rtol=0.3)


def test_wrong_arguments_are_refused() -> None:
    stamps = scene(2, 13)
    with pytest.raises(ValueError, match="'al' or 'zogy', got 'hotpants'"):
        subtract_stamps(stamps, "hotpants")
    with pytest.raises(ValueError, match="convolve must be"):
        subtract_stamps(stamps, convolve="both")
    planes = {name: plane for name, plane in stamps.planes.items() if name != "templateVariance"}
    with pytest.raises(ValueError, match="there is no \\['templateVariance'\\]"):
        subtract_stamps(replace(stamps, planes=planes))
