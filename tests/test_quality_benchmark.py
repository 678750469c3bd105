"""The rulers of the quality benchmark, against what is known: noise, counts, and small scenes with truth."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

pytest.importorskip("galsim")

from benchmarks.quality._detections import Detections, find_extrema, match_detections
from benchmarks.quality._gaussian_field import continuum_density, maxima_density, score_correlation
from benchmarks.quality._ideal import subtract_ideal, template_noise_power
from benchmarks.quality._measure import measure
from benchmarks.quality._methods import MethodSpec
from benchmarks.quality._pool import half_completeness, paired_difference, poisson_upper_limit, pool
from benchmarks.quality._run_one import is_current, result_path, run_one
from benchmarks.quality._scenes import FLUX_SCALE, SceneSpec, load_scene, make_scene
from benchmarks.quality._sky_statistics import neighbour_correlation, robust_sigma
from benchmarks.quality._table import BEGIN, END, make_tables, write_tables

_SIZE = 512


def _gaussian(sigma: float, size: int = 31) -> np.ndarray:
    v, u = np.mgrid[:size, :size] - size // 2
    psf = np.exp(-0.5 * (u**2 + v**2) / sigma**2)
    return psf / psf.sum()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def results(directory):
    """Results of the ideal and of our methods for one small scene with sources."""
    spec = SceneSpec(_SIZE, "f")
    make_scene(spec, directory)
    return {name: run_one(directory, spec.name, MethodSpec(name)) for name in ("ideal", "al", "zogy")}


def test_maxima_on_fine_pixels_are_those_of_the_continuum():
    """Pixels far smaller than the PSF miss nothing of a peak; five sigma is high."""
    correlation = score_correlation(_gaussian(8.0, 101))
    # Adler's formula is exact to 1 / threshold^2.
    assert maxima_density(correlation, 5.0) == pytest.approx(continuum_density(correlation, 5.0), rel=0.05)


def test_continuum_density_is_that_of_dmtn_006():
    sigma = 3.0
    expected = 5.0 * np.exp(-12.5) / (2**2.5 * np.pi**1.5 * sigma**2)
    correlation = score_correlation(_gaussian(sigma, 61))
    # Second differences in place of derivatives: off by 1 / (8 sigma^2) or so.
    assert continuum_density(correlation, 5.0) == pytest.approx(expected, rel=0.03)


def test_density_of_maxima_is_what_noise_has():
    """At three sigma a simulation has enough peaks to count: 3,000, so 1.8 %."""
    rng = np.random.default_rng(1)
    psf = _gaussian(1.6)
    threshold, n_fields, size = 3.0, 3, 1024
    count = 0
    for _ in range(n_fields):
        padded = np.zeros((size, size))
        padded[: psf.shape[0], : psf.shape[1]] = psf
        field = scipy.fft.irfft2(scipy.fft.rfft2(rng.normal(size=(size, size))) * scipy.fft.rfft2(padded))
        field /= np.sqrt((psf**2).sum())
        count += len(find_extrema(field, np.ones(field.shape, dtype=bool), threshold))
    expected = 2 * n_fields * size**2 * maxima_density(score_correlation(psf), threshold)
    assert count == pytest.approx(expected, abs=4.0 * np.sqrt(expected))


@pytest.mark.parametrize("order", ["f", "r"])
@pytest.mark.parametrize("template", ["white", "warped"])
def test_ideal_on_noise_is_a_unit_gaussian(directory, order, template):
    scene = load_scene(
        make_scene(SceneSpec(_SIZE, order, template=template, jitter=0.0, blank=True), directory)
    )
    output = subtract_ideal(scene)
    inner = np.zeros(output.score.shape, dtype=bool)
    inner[48:-48, 48:-48] = True
    noise = output.difference / np.sqrt(output.variance)
    for image in (output.score, noise):
        _, sigma, error = robust_sigma(image, inner)
        assert error < 0.02
        assert sigma == pytest.approx(1.0, abs=4.0 * error)
    along_x, along_y, error = neighbour_correlation(noise, inner)
    assert abs(along_x) < 4.0 * error and abs(along_y) < 4.0 * error


def test_false_detections_of_the_ideal_on_noise_are_the_floor(directory):
    """At 3.5 sigma, where half a megapixel has some hundred of them."""
    count, expected = 0, 0.0
    for index in (1, 2):
        scene = load_scene(make_scene(SceneSpec(_SIZE, "r", jitter=0.0, blank=True, index=index), directory))
        output = subtract_ideal(scene)
        measured = measure(scene, output)
        density = maxima_density(score_correlation(output.psf.centre()), 3.5)
        expected += 2e6 * density * measured["usableMpix"]
        count += len(measured["falseHeights"])
        assert measured["duplicateHeights"] == []
    assert expected > 40
    assert count == pytest.approx(expected, abs=4.0 * np.sqrt(expected))


def test_noise_of_resampled_pixels_has_the_power_that_is_derived():
    """Shifting white noise by all phases with Lanczos-3 gives this power."""
    from lsst.diainspect.simulation import lanczos_weights

    rng = np.random.default_rng(2)
    size, n_phases = 64, 400
    power = np.zeros((size, size // 2 + 1))
    for phase_x, phase_y in rng.uniform(size=(n_phases, 2)):
        noise = rng.normal(size=(size, size))
        for axis, phase in ((1, phase_x), (0, phase_y)):
            weights = lanczos_weights(np.array([phase]))[0]
            noise = scipy.ndimage.correlate1d(noise, weights, axis=axis, mode="wrap", origin=-1)
        power += np.abs(scipy.fft.rfft2(noise)) ** 2 / (size**2 * n_phases)
    expected = template_noise_power(size)
    expected = expected / expected[0, 0] * power[:2, :2].mean()
    low = (slice(0, 16), slice(0, 16))
    # Means of 256 frequencies and 400 draws: 0.3 %, and the few that set the scale 2.5 %.
    assert power[low].mean() == pytest.approx(expected[low].mean(), rel=0.1)
    assert power[24:40, 20:].mean() < 0.6 * power[low].mean()
    assert expected[24:40, 20:].mean() == pytest.approx(power[24:40, 20:].mean(), rel=0.15)


def test_robust_sigma_has_the_error_of_correlated_noise():
    rng = np.random.default_rng(3)
    psf = _gaussian(2.0)
    inside = np.ones((256, 256), dtype=bool)
    sigmas, errors = [], []
    for _ in range(40):
        field = scipy.ndimage.gaussian_filter(rng.normal(size=inside.shape), 2.0, mode="wrap")
        _, sigma, error = robust_sigma(field / np.sqrt((psf**2).sum()), inside)
        sigmas.append(sigma)
        errors.append(error)
    assert np.mean(sigmas) == pytest.approx(1.0, abs=0.01)
    # The scatter of forty numbers is known to 11 %; a median's correlations are a little weaker than the pixels'.
    assert np.mean(errors) == pytest.approx(np.std(sigmas), rel=0.4)


def test_correlated_neighbours_are_noticed():
    noise = np.random.default_rng(4).normal(size=(300, 300))
    smoothed = noise + 0.1 * np.roll(noise, 1, axis=1)
    along_x, along_y, error = neighbour_correlation(smoothed, np.ones(noise.shape, dtype=bool))
    assert along_x == pytest.approx(0.1 / 1.01, abs=4.0 * error)
    assert along_y == pytest.approx(0.0, abs=4.0 * error)


def test_detections_are_matched_once_and_the_others_are_told_apart():
    response = scipy.ndimage.gaussian_filter(np.pad([[1.0]], 30), 3.0)
    response /= response.max()
    detections = Detections(
        x=np.array([100, 108, 200, 300, 400, 403]),
        y=np.array([100, 100, 200, 300, 400, 400]),
        height=np.array([95.0, 6.0, -7.0, 5.5, 6.0, 5.2]),
    )
    x, y = np.array([100.3, 200.0, 300.0, 400.0]), np.array([99.8, 201.0, 300.0, 400.0])
    snr = np.array([100.0, -7.0, -6.0, 6.0])
    matches = match_detections(detections, x, y, snr, response)
    assert matches.detection_of.tolist() == [0, 2, -1, 4]
    # Eight pixels off a change of 100 sigma the response is 2.9 sigma, three off one of 6 sigma 3.6.
    assert matches.duplicate_of.tolist() == [-1, 0, -1, 2, -1, 3]
    assert not matches.false.any()
    alone = match_detections(detections, x[1:2], y[1:2], snr[1:2], response)
    assert alone.false.tolist() == [True, True, False, True, True, True]


def test_extrema_have_both_signs_and_respect_what_counts():
    score = np.zeros((40, 40))
    score[10, 10], score[20, 20], score[30, 30], score[5, 30] = 6.0, -7.0, 4.0, np.nan
    usable = np.ones(score.shape, dtype=bool)
    found = find_extrema(score, usable, 5.0)
    assert sorted(found.height) == [-7.0, 6.0]
    usable[20, 20] = False
    assert find_extrema(score, usable, 5.0).height.tolist() == [6.0]


def test_paired_difference_counts_discordant_objects():
    found = np.array([True] * 90 + [False] * 10)
    reference = np.roll(found, 2)
    difference, lower, gained, lost = paired_difference(found, reference)
    assert (difference, gained, lost) == (0.0, 2, 2)
    assert lower == pytest.approx(-1.6449 * np.sqrt(6) / 100)


def test_poisson_limit_of_none_is_three():
    assert poisson_upper_limit(0) == pytest.approx(-np.log(0.05))


def test_half_completeness_of_a_known_rise():
    rng = np.random.default_rng(5)
    snr = rng.uniform(3.0, 9.0, 4000)
    found = snr + rng.normal(size=len(snr)) > 5.3
    # About 1 / sqrt of the objects within the rise.
    assert half_completeness(snr, found) == pytest.approx(5.3, abs=0.12)


@pytest.mark.parametrize("method", ["ideal", "al", "zogy"])
def test_small_scene_gives_sane_figures(results, method):
    assert "error" not in results[method], results[method].get("traceback")
    scene = results[method]["scene"]
    figures = pool([results[method]], {scene: results["ideal"]}).figures
    sigma = figures["scoreSigma"]
    assert sigma.value == pytest.approx(1.0, abs=0.02 + 4.0 * sigma.error)
    # What appears is not scaled by a method's flux ratio.
    assert abs(figures["fluxUp"].value) < 0.01 + 4.0 * figures["fluxUp"].error
    assert figures["fftPairs"].value > 1.0
    # The peak of a process that ran others before may not rise at all.
    assert 0.0 <= figures["memory"].value < 2.0
    assert figures["nFaint"].value >= figures["gained"].value + figures["lost"].value


def test_ideal_compared_with_itself_is_itself(results):
    scene = results["ideal"]["scene"]
    figures = pool([results["ideal"]], {scene: results["ideal"]}).figures
    assert figures["snrRatio"].value == 1.0
    assert figures["gained"].value == figures["lost"].value == 0
    assert abs(figures["flux"].value) < 4.0 * figures["flux"].error
    assert abs(figures["fluxDown"].value) < 4.0 * figures["fluxDown"].error


def test_flux_bias_shows_a_wrong_flux_ratio(results):
    """What is gone has the flux of the template times the ratio; this scene has too few stars for a good one."""
    scene = results["zogy"]["scene"]
    figures = pool([results["zogy"]], {scene: results["ideal"]}).figures
    expected = results["zogy"]["metadata"]["fluxRatio"] / FLUX_SCALE - 1.0
    assert figures["fluxDown"].value == pytest.approx(expected, abs=0.005 + 4.0 * figures["fluxDown"].error)


def test_ideal_residuals_at_stars_are_the_floor(directory):
    ratios = []
    for index in (1, 2, 3):
        scene = load_scene(make_scene(SceneSpec(_SIZE, "f", index=index), directory))
        stars = measure(scene, subtract_ideal(scene))["stars"]
        ratios += (np.array(stars["rms"]) / np.array(stars["floor"])).tolist()
    assert len(ratios) >= 4
    # Each rms is over sixty pixels, so 9 %.
    assert np.median(ratios) == pytest.approx(1.0, abs=4.0 * 1.25 * 0.09 / np.sqrt(len(ratios)))


def test_failures_are_rows(directory, results):
    scene = results["ideal"]["scene"]
    failed = run_one(directory, scene, MethodSpec("al", (("minKernelSources", "100000"),), "demanding"))
    assert "TooFewKernelSources" in failed["error"]
    assert is_current(result_path(directory, scene, MethodSpec("al", label="demanding")), directory)
    text = make_tables(directory)
    assert "demanding: TooFewKernelSources" in text
    assert "| al (1) |" in text


def test_page_is_written_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_tables(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        write_tables(page, "new")


def test_reason_of_a_failed_installation_names_no_folder_of_the_machine():
    from benchmarks.quality._peers import _reason

    stderr = (
        "  Getting requirements did not run successfully.\n"
        "  ╰─> CalledProcessError: Command '['curl', 'https://example.org/s/setuptools.zip', '--output', "
        "'/tmp/pip-install-8u/tiny/setuptools.zip']' returned 6\n"
        "note: this is no problem of pip\n"
    )
    assert _reason(stderr) == (
        "CalledProcessError: Command '['curl', 'https://example.org/s/setuptools.zip', '--output', "
        "'setuptools.zip']' returned 6"
    )
