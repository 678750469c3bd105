"""Every source measured in the difference of every method, whichever found it."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from lsst.diainspect.comparison import force_photometry
from lsst.diainspect.simulation import SimulatedPair
from lsst.diainspect.subtraction import filters_from_table
from lsst.diainspect.tasks import ForceMethodsTask, SubtractImagesTask

METHODS = ("al", "zogy")


@pytest.fixture(scope="module")
def differences(small_pair: SimulatedPair):
    made = {}
    for method in METHODS:
        config = SubtractImagesTask.ConfigClass()
        config.subtractor.name = method
        config.connections.method = method
        result = SubtractImagesTask(config=config).run(small_pair.science, small_pair.template)
        made[method] = (result.difference, result.filters)
    return made


@pytest.fixture(scope="module")
def comparison(small_pair: SimulatedPair) -> Table:
    """Transients and variables at their true positions, and one position off the image."""
    truth = small_pair.truth
    changed = truth[np.abs(np.asarray(truth["fluxChange"], dtype=float)) > 0]
    table = Table({"x": changed["x"], "y": changed["y"], "fluxChange": changed["fluxChange"]})
    table["al_diaSourceId"] = np.arange(len(table)) + 1
    table.add_row({"x": -5000.0, "y": 10.0, "fluxChange": 0.0, "al_diaSourceId": 0})
    return table


def test_forced_fluxes_are_the_true_ones_in_every_method(differences, comparison):
    forced = ForceMethodsTask(config=ForceMethodsTask.ConfigClass()).run(comparison, differences).forced
    assert len(forced) == len(comparison)
    np.testing.assert_array_equal(forced["al_diaSourceId"], comparison["al_diaSourceId"])
    truth = np.asarray(comparison["fluxChange"], dtype=float)[:-1]
    for method in METHODS:
        rows = forced[:-1]
        good = ~np.asarray(rows[f"{method}_forced_flag"])
        assert good.mean() > 0.8
        pull = (rows[f"{method}_forcedFlux"] - truth) / rows[f"{method}_forcedFluxErr"]
        # Sources on hosts have residuals of their own; most are within the noise.
        assert np.median(np.abs(pull[good])) < 2.0
        assert abs(np.median(rows[f"{method}_forcedFlux"][good] / truth[good]) - 1.0) < 0.05
        snr = rows[f"{method}_forcedFlux"] / rows[f"{method}_forcedFluxErr"]
        np.testing.assert_allclose(rows[f"{method}_forcedSnr"][good], snr[good], rtol=1e-5)
        assert forced[f"{method}_forced_flag"][-1]
        assert np.isnan(forced[f"{method}_forcedFlux"][-1])


def test_forced_flux_of_blank_sky_is_noise_of_unit_width(differences, small_pair):
    rng = np.random.default_rng(1)
    difference, filters = differences["zogy"]
    box = difference.bbox
    x = rng.uniform(box.x.start + 30, box.x.stop - 30, 4000)
    y = rng.uniform(box.y.start + 30, box.y.stop - 30, 4000)
    truth = small_pair.truth
    far = np.all(
        np.hypot(x[:, None] - np.asarray(truth["x"]), y[:, None] - np.asarray(truth["y"])) > 12.0, axis=1
    )
    table = force_photometry(x[far], y[far], difference, filters_from_table(filters)["differencePsf"])
    snr = np.asarray(table["forcedSnr"])[~np.asarray(table["forced_flag"])]
    # Overlapping disks are not independent: some 300^2 / 50 pixels of noise area are.
    spread = 0.5 * (np.percentile(snr, 84.1) - np.percentile(snr, 15.9))
    assert spread == pytest.approx(1.0, abs=0.12)


def test_a_method_that_failed_has_no_columns(differences, comparison):
    forced = (
        ForceMethodsTask(config=ForceMethodsTask.ConfigClass())
        .run(comparison, {"zogy": differences["zogy"]})
        .forced
    )
    assert "zogy_forcedFlux" in forced.colnames
    assert not any(name.startswith("al_forced") for name in forced.colnames)
