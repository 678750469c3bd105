"""The truth says what S/N the best possible difference would give, and where the host is."""

from __future__ import annotations

import numpy as np
import pytest
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.simulation import ObservingConditions, PsfField, SceneConfig, simulate_pair
from lsst.diainspect.simulation._ideal_snr import ideal_snr

BOX = Box.from_shape((200, 200))


def _psf(fwhm: float) -> PixelBasisPsf:
    field = PsfField.random(
        np.random.default_rng(1),
        BOX,
        fwhm=fwhm,
        ellipticity=0.0,
        ellipticity_variation=0.0,
        fwhm_variation=0.0,
        size=51,
        coma=(0.0, 0.0),
        coma_gradient=0.0,
    )
    return field.sampled()


def test_without_light_at_the_place_it_is_that_of_blank_sky() -> None:
    pair = simulate_pair(
        ObservingConditions(science_seeing=0.9, template_seeing=0.75, sky_level=1e5, fwhm_variation=0.0),
        SceneConfig(
            star_density=0.0, galaxy_density=0.0, n_variables=0, n_transients=20, transient_snr=(5.0, 6.0)
        ),
        seed=1,
        size=400,
    )
    inside = (np.abs(pair.truth["x"] - 200) < 150) & (np.abs(pair.truth["y"] - 200) < 150)
    ratio = np.asarray(pair.truth["idealSnrWithSources"] / pair.truth["idealSnr"])[inside]
    assert ratio == pytest.approx(1.0, abs=2e-3)


def test_with_a_deep_template_it_is_that_of_a_matched_filter_with_source_noise() -> None:
    science, template = _psf(4.0), _psf(3.0)
    x, y = np.array([100.3]), np.array([99.6])
    flux, sky = 5e4, 100.0
    image = science.evaluate(x, y, dx=x - 100, dy=y - 100)[0]
    variance = np.full((200, 200), sky)
    variance[100 - 25 : 100 + 26, 100 - 25 : 100 + 26] += flux * image
    measured = ideal_snr(
        np.array([flux]),
        (x, y),
        (x, y),
        psfs=(science, template),
        variances=(variance, np.full((200, 200), 1e-8)),
        sky_variances=(sky, 1e-8),
        box=BOX,
    )
    expected = flux * (image**2).sum() / np.sqrt((image**2 * (sky + flux * image)).sum())
    assert measured[0] == pytest.approx(expected, rel=1e-3)
    assert expected < 0.8 * flux * np.sqrt((image**2).sum() / sky)


def test_truth_has_it_for_all_that_changed_and_for_nothing_else() -> None:
    pair = simulate_pair(
        ObservingConditions(flux_scale=1.05), SceneConfig(n_transients=20, n_moving=3), seed=2, size=400
    )
    truth = pair.truth
    changed = np.asarray(truth["fluxChange"]) != 0
    snr = np.asarray(truth["idealSnrWithSources"])
    assert np.isfinite(snr[changed]).all() and np.isnan(snr[~changed]).all()
    assert np.all(snr[changed] < 1.01 * np.asarray(truth["idealSnr"])[changed])
    # A variable star shines itself, also where nothing changes.
    bright = changed & (truth["kind"] == "variable") & (np.asarray(truth["scienceSnr"]) > 300)
    assert np.all(snr[bright] < 0.9 * np.asarray(truth["idealSnr"])[bright])


def test_host_separation_is_measured_on_the_sky() -> None:
    pair = simulate_pair(scene=SceneConfig(n_transients=40), seed=4, size=400)
    truth = pair.truth
    hosted = np.flatnonzero(truth["hostId"] >= 0)
    assert len(hosted) > 10
    for row in hosted:
        host = truth[truth["objectId"] == truth["hostId"][row]][0]
        pixels = np.hypot(
            truth["templateX"][row] - host["templateX"], truth["templateY"][row] - host["templateY"]
        )
        assert truth["hostSeparation"][row] == pytest.approx(0.2 * pixels, rel=1e-3)
    assert np.isnan(truth["hostSeparation"][truth["hostId"] < 0]).all()
