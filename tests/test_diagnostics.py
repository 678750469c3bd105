"""Diagnostics: values against the truth of synthetic stamps, and what happens when one cannot be measured."""

from __future__ import annotations

import logging

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np
import pytest
from astropy.table import Column, Table
from threadpoolctl import threadpool_info, threadpool_limits

from lsst.diainspect.diagnostics import (
    Diagnostic,
    DiagnosticColumn,
    DiagnosticConfig,
    LocalNoiseDiagnostic,
    MaskFractionsConfig,
    MaskFractionsDiagnostic,
    PsfPhotometryDiagnostic,
    ResidualModesDiagnostic,
    diagnostic_columns,
    diagnostic_registry,
    measure_diagnostics,
)
from lsst.diainspect.masks import MASK_BITS
from lsst.diainspect.stamps import StampModel, StampSet

SIZE = 41
PSF_SIGMA = {"science": 2.0, "template": 1.6, "difference": 2.2}
BACKGROUND = {"science": 30.0, "template": -12.0, "difference": 0.0}
SKY = {"science": 20.0, "template": 8.0, "difference": 22.0}
"""Standard deviation of a pixel [nJy]."""


def gaussian(sigma: float, dx: np.ndarray, dy: np.ndarray, size: int) -> np.ndarray:
    grid = np.arange(size) - size // 2
    x, y = grid - np.asarray(dx)[:, None, None], grid[:, None] - np.asarray(dy)[:, None, None]
    return np.exp(-0.5 * (x**2 + y**2) / sigma**2) / (2.0 * np.pi * sigma**2)


def sources_of(dx: np.ndarray, dy: np.ndarray, size: int = SIZE) -> Table:
    """Sources in a frame that does not start at zero, at offsets from their stamps' central pixel."""
    n = len(dx)
    table = Table()
    table["diaSourceId"] = Column(np.arange(1, n + 1, dtype=np.int64) + (5 << 37))
    table["visit"] = np.full(n, 3, dtype=np.int64)
    table["detector"] = np.full(n, 1, dtype=np.int16)
    table["x0"] = Column(np.full(n, 4000, dtype=np.int32))
    table["y0"] = Column(np.full(n, -50, dtype=np.int32))
    table["x"] = table["x0"] + size // 2 + dx
    table["y"] = table["y0"] + size // 2 + dy
    table["pixelToSky"] = np.tile(np.diag([-0.2, 0.2]) / 3600.0, (n, 1, 1))
    return table


def point_sources(
    n: int, seed: int, *, flux: dict[str, float], size: int = SIZE, variance: bool = True, mask: bool = False
) -> StampSet:
    """Stamps of point sources of known fluxes off centre, in noise that varies from pixel to pixel."""
    rng = np.random.default_rng(seed)
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    planes, models = {}, {}
    for name, sigma in PSF_SIGMA.items():
        # Without a variance plane the stamps cannot say that noise differs between pixels.
        spread = rng.uniform(0.7, 1.3, (n, size, size)) if variance else 1.0
        noise = np.broadcast_to(SKY[name] * spread, (n, size, size))
        pixels = flux[name] * gaussian(sigma, dx, dy, size) + BACKGROUND[name]
        planes[name] = (pixels + noise * rng.normal(size=noise.shape)).astype(np.float32)
        if variance:
            planes[f"{name}Variance"] = (noise**2).astype(np.float32)
        models[f"{name}Psf"] = StampModel.from_images(gaussian(sigma, np.zeros(n), np.zeros(n), 31))
    if mask:
        planes["mask"] = np.zeros((n, size, size), dtype=np.uint32)
    return StampSet(sources_of(dx, dy, size), planes, models)


def measure(diagnostic: type[Diagnostic], stamps: StampSet, **config: object) -> dict[str, np.ndarray]:
    instance = diagnostic.ConfigClass()
    for name, value in config.items():
        setattr(instance, name, value)
    return diagnostic(instance).measure(stamps)


def assert_unit_pulls(values: np.ndarray, truth: float, errors: np.ndarray, n: int) -> None:
    pull = (values - truth) / errors
    assert abs(pull.mean()) < 4.0 / np.sqrt(n)
    assert abs(pull.std() - 1.0) < 4.0 / np.sqrt(2.0 * n)


FLUX = {"difference": 1500.0, "science": 2500.0, "template": 1000.0}


@pytest.mark.parametrize("size", [40, 41])
@pytest.mark.parametrize("variance", [True, False])
def test_psf_fluxes_of_all_images_are_unbiased_with_unit_pulls(variance, size):
    n = 500
    values = measure(PsfPhotometryDiagnostic, point_sources(n, 1, flux=FLUX, size=size, variance=variance))
    for name, truth in FLUX.items():
        column = "psfFlux" if name == "difference" else f"{name}Flux"
        assert_unit_pulls(values[column], truth, values[f"{column}Err"], n)
    degrees = values["psfNdata"].mean() - 1
    if variance:
        assert values["psfChi2"].mean() == pytest.approx(degrees, abs=4.0 * np.sqrt(2.0 * degrees / n))


def test_psf_flux_errors_are_those_of_the_matched_filter():
    stamps = point_sources(50, 2, flux=FLUX, variance=False)
    stamps.planes["differenceVariance"] = np.full((50, SIZE, SIZE), 484.0, dtype=np.float32)
    values = measure(PsfPhotometryDiagnostic, stamps)
    np.testing.assert_allclose(values["psfFluxErr"], 22.0 * np.sqrt(4.0 * np.pi) * 2.2, rtol=1e-3)


def test_flux_consistency_is_zero_where_the_difference_is_science_minus_template():
    n = 400
    values = measure(PsfPhotometryDiagnostic, point_sources(n, 3, flux=FLUX))
    # The three images have independent noise here, so the scatter is that of all three fluxes.
    variance = sum(values[name] ** 2 for name in ("psfFluxErr", "scienceFluxErr", "templateFluxErr"))
    assert_unit_pulls(values["fluxConsistency"], 0.0, np.sqrt(variance) / values["psfFluxErr"], n)


def test_bad_pixels_do_not_enter_photometry():
    clean = point_sources(20, 4, flux=FLUX, mask=True)
    spoiled = point_sources(20, 4, flux=FLUX, mask=True)
    spoiled.planes["mask"][:, 18:20, 15:25] = 1 << MASK_BITS["NO_DATA"]
    for name in FLUX:
        spoiled.planes[name][:, 18:20, 15:25] = 1e6
    values, expected = (measure(PsfPhotometryDiagnostic, stamps) for stamps in (spoiled, clean))
    for name in ("psfFlux", "scienceFlux", "templateFlux"):
        assert (np.abs(values[name] - expected[name]) < 4.0 * values[f"{name}Err"]).all()
        assert (values[f"{name}Err"] > expected[f"{name}Err"]).all()


def test_white_noise_has_the_predicted_sigma_and_no_correlation():
    n = 400
    stamps = point_sources(n, 5, flux={**FLUX, "difference": 1e5})
    stamps.planes["difference"] += 40.0
    values = measure(LocalNoiseDiagnostic, stamps, innerRadius=12.0)
    n_pixels = values["nPixels"]
    inside = np.pi * 12.0**2
    np.testing.assert_allclose(n_pixels, SIZE**2 - inside, atol=20)
    error = 1.166 / np.sqrt(n_pixels)
    # The 40 nJy of background spread the pulls, as the noise differs between pixels: 40 nJy (1 / noise) has
    # variance 40^2 (<1 / noise^2> - <1 / noise>^2) = 0.12, which is not small against 1.
    low, high = 0.7 * 22.0, 1.3 * 22.0
    mean_inverse = np.log(high / low) / (high - low)
    extra = 40.0**2 * (1.0 / (low * high) - mean_inverse**2)
    expected = np.sqrt(1.0 + extra)
    assert values["sigmaOverPredicted"].mean() == pytest.approx(expected, abs=0.005)
    assert values["sigmaOverPredicted"].std() == pytest.approx(error.mean(), rel=4.0 / np.sqrt(2 * n) + 0.05)
    for name in ("correlationX", "correlationY"):
        # Subtracting a median from N pixels correlates them by -1 / N.
        assert abs(values[name].mean()) < 4.0 / np.sqrt(n_pixels.mean() * n) + 1.0 / n_pixels.mean()
        assert values[name].std() == pytest.approx(1.0 / np.sqrt(n_pixels.mean()), rel=0.2)


def test_correlated_noise_is_found_in_its_direction():
    n, a, b = 300, 0.6, 0.25
    rng = np.random.default_rng(6)
    white = rng.normal(size=(n, SIZE + 1, SIZE + 1))
    # Moving averages: neighbours correlate by a / (1 + a^2) in x and b / (1 + b^2) in y.
    noise = white[:, :, 1:] + a * white[:, :, :-1]
    noise = noise[:, 1:] + b * noise[:, :-1]
    sigma = np.sqrt((1.0 + a**2) * (1.0 + b**2))
    planes = {"difference": 3.0 * noise, "differenceVariance": np.full(noise.shape, 9.0)}
    values = measure(LocalNoiseDiagnostic, StampSet(sources_of(np.zeros(n), np.zeros(n)), planes))
    error = 2.0 / np.sqrt(n * values["nPixels"].mean())
    assert values["sigmaOverPredicted"].mean() == pytest.approx(sigma, abs=4.0 * error * sigma)
    # Stamps know their mean and a clip at 4 sigma, each good to some 0.001.
    assert values["correlationX"].mean() == pytest.approx(a / (1.0 + a**2), abs=4.0 * error + 0.002)
    assert values["correlationY"].mean() == pytest.approx(b / (1.0 + b**2), abs=4.0 * error + 0.002)


def test_local_noise_ignores_bad_pixels():
    stamps = point_sources(10, 7, flux=FLUX, mask=True)
    # Of a slice, because stamps keep what they were asked for.
    expected = measure(LocalNoiseDiagnostic, stamps[:])
    stamps.planes["mask"][:, :15] = 1 << MASK_BITS["SATURATED"]
    stamps.planes["difference"][:, :15] = 1e5
    values = measure(LocalNoiseDiagnostic, stamps)
    np.testing.assert_allclose(values["sigmaOverPredicted"], expected["sigmaOverPredicted"], atol=0.15)
    assert (expected["nPixels"] - values["nPixels"] > 14 * SIZE - np.pi * 8**2).all()


def test_mask_fractions_count_pixels():
    n = 3
    words = np.zeros((n, SIZE, SIZE), dtype=np.uint32)
    words[0] = 1 << MASK_BITS["SATURATED"]
    words[1, :, :10] = 1 << MASK_BITS["BAD"]
    words[2, 20, 20] = (1 << MASK_BITS["BAD"]) | (1 << MASK_BITS["OFF_IMAGE"])
    stamps = StampSet(sources_of(np.zeros(n), np.zeros(n)), {"mask": words})
    values = measure(
        MaskFractionsDiagnostic, stamps, coreRadius=1.0, planes=["SATURATED", "BAD", "OFF_IMAGE", "STREAK"]
    )
    # A radius of one pixel holds the centre and its four neighbours.
    np.testing.assert_allclose(values["SATURATED_core"], [1, 0, 0])
    np.testing.assert_allclose(values["SATURATED_stamp"], [1, 0, 0])
    np.testing.assert_allclose(values["BAD_core"], [0, 0, 0.2])
    np.testing.assert_allclose(values["BAD_stamp"], [0, 10 / SIZE, 1 / SIZE**2])
    np.testing.assert_allclose(values["OFF_IMAGE_core"], [0, 0, 0.2])
    np.testing.assert_allclose(values["STREAK_stamp"], 0)


def test_unknown_mask_plane_is_refused_in_the_configuration():
    config = MaskFractionsConfig()
    config.validate()
    config.planes = ["BAD", "SATURATION"]
    with pytest.raises(pexConfig.FieldValidationError, match="SATURATION"):
        config.validate()


class CountingDiagnostic(Diagnostic):
    """Doubles x; raises if a source of the chunk is called bad, and remembers how many it was given."""

    needs = frozenset({"science"})
    raises_on: frozenset[int] = frozenset()

    def __init__(self, config: DiagnosticConfig) -> None:
        super().__init__(config)
        self.chunks: list[int] = []

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        return {
            "double": DiagnosticColumn("float64", u.pix, "Twice x."),
            "count": DiagnosticColumn("int32", None, "One."),
            "is": DiagnosticColumn("bool", None, "True."),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        self.chunks.append(len(stamps))
        bad = self.raises_on & set((np.asarray(stamps.sources["diaSourceId"]) - (5 << 37)).tolist())
        if bad:
            raise ArithmeticError(f"cannot measure {sorted(bad)}")
        return {
            "double": 2.0 * np.asarray(stamps.sources["x"]),
            "count": np.ones(len(stamps)),
            "is": np.ones(len(stamps), dtype=bool),
        }


def small_stamps(n: int) -> StampSet:
    rng = np.random.default_rng(8)
    return StampSet(sources_of(rng.uniform(-0.5, 0.5, n), np.zeros(n)), {"science": np.ones((n, 3, 3))})


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 2500])
def test_every_source_is_measured_once_in_whatever_chunks(n):
    stamps, plugin = small_stamps(n), CountingDiagnostic(DiagnosticConfig())
    table = measure_diagnostics(stamps, {"counting": plugin})
    assert len(table) == n
    assert sum(plugin.chunks) == n
    assert max(plugin.chunks, default=0) <= 1024
    np.testing.assert_array_equal(table["counting_double"], 2.0 * stamps.sources["x"])
    np.testing.assert_array_equal(table["diaSourceId"], stamps.sources["diaSourceId"])
    assert not table["counting_flag"].any()


def test_linear_algebra_has_one_thread_while_sources_are_measured(monkeypatch):
    seen = []

    def measure(self, stamps):
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return {name: np.zeros(len(stamps)) for name in self.columns}

    monkeypatch.setattr(CountingDiagnostic, "measure", measure)
    with threadpool_limits(limits=2):
        before = [pool["num_threads"] for pool in threadpool_info()]
        measure_diagnostics(small_stamps(2), {"counting": CountingDiagnostic(DiagnosticConfig())})
        assert set(seen) == {1}
        assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_a_failure_on_some_sources_flags_those_alone(caplog):
    n = 2500
    failing = np.array([1, 700, 1025, 2500])
    plugin = CountingDiagnostic(DiagnosticConfig())
    plugin.raises_on = frozenset(failing.tolist())
    stamps = small_stamps(n)
    with caplog.at_level(logging.WARNING):
        table = measure_diagnostics(stamps, {"counting": plugin})
    expected = np.zeros(n, dtype=bool)
    expected[failing - 1] = True
    np.testing.assert_array_equal(table["counting_flag"], expected)
    np.testing.assert_array_equal(table["counting_flag_failed"], expected)
    np.testing.assert_array_equal(np.isnan(table["counting_double"]), expected)
    np.testing.assert_array_equal(table["counting_double"][~expected], 2.0 * stamps.sources["x"][~expected])
    np.testing.assert_array_equal(table["counting_count"], ~expected)
    np.testing.assert_array_equal(table["counting_is"], ~expected)
    (record,) = caplog.records
    assert "counting failed on 4 of 2500 sources" in record.getMessage()
    assert "ArithmeticError: cannot measure [1]" in record.getMessage()
    # Halving finds one source in a chunk of 1,024 in 20 calls more.
    assert len(plugin.chunks) < 3 + 4 * 2 * 11


def test_missing_planes_are_flagged_and_other_diagnostics_measured(caplog):
    n = 5
    stamps = small_stamps(n)
    plugins = {
        "noise": LocalNoiseDiagnostic(LocalNoiseDiagnostic.ConfigClass()),
        "counting": CountingDiagnostic(DiagnosticConfig()),
    }
    with caplog.at_level(logging.WARNING):
        table = measure_diagnostics(stamps, plugins)
    assert "stamps lack difference, differenceVariance" in caplog.text
    assert table["noise_flag"].all()
    assert table["noise_flag_missingPlanes"].all()
    assert not table["noise_flag_failed"].any()
    assert np.isnan(table["noise_sigmaOverPredicted"]).all()
    assert not table["counting_flag"].any()


def test_a_source_of_which_nothing_could_be_measured_is_flagged():
    stamps = point_sources(3, 9, flux=FLUX)
    for name in ("difference", "science", "template"):
        stamps.planes[name][1] = np.nan
    table = measure_diagnostics(
        stamps, {"phot": PsfPhotometryDiagnostic(PsfPhotometryDiagnostic.ConfigClass())}
    )
    np.testing.assert_array_equal(table["phot_flag"], [False, True, False])
    assert not table["phot_flag_failed"].any()
    np.testing.assert_array_equal(np.isnan(table["phot_psfFlux"]), [False, True, False])
    assert table["phot_psfNdata"][1] == 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"double": 0.0, "count": np.zeros(4), "is": np.zeros(4)}, "column double has shape ()"),
        ({"double": np.zeros(4)}, r"did not measure its columns ['count', 'is']"),
    ],
)
def test_a_diagnostic_that_does_not_return_its_columns_is_flagged(returned, message, caplog):
    plugin = CountingDiagnostic(DiagnosticConfig())
    plugin.measure = lambda stamps: returned
    table = measure_diagnostics(small_stamps(4), {"counting": plugin})
    assert table["counting_flag_failed"].all()
    assert message in caplog.text


def test_sources_without_a_position_are_not_measured_and_cost_nobody_else():
    stamps = point_sources(4, 10, flux=FLUX)
    expected = point_sources(4, 10, flux=FLUX)
    stamps.sources["x"][2] = np.nan
    for diagnostic in (PsfPhotometryDiagnostic, LocalNoiseDiagnostic):
        plugins = {"d": diagnostic(diagnostic.ConfigClass())}
        table, reference = measure_diagnostics(stamps, plugins), measure_diagnostics(expected, plugins)
        for name in table.colnames:
            np.testing.assert_array_equal(table[name][[0, 1, 3]], reference[name][[0, 1, 3]])
    assert np.isnan(measure(PsfPhotometryDiagnostic, stamps)["psfFlux"][2])


@pytest.mark.parametrize("name", ["maskFractions", "psfPhotometry", "localNoise", "residualModes"])
def test_columns_are_declared_with_meaning_and_unit(name):
    plugin = diagnostic_registry[name](diagnostic_registry[name].ConfigClass())
    assert plugin.needs
    columns = diagnostic_columns({name: plugin})
    for column, definition in columns.items():
        assert column.startswith(f"{name}_")
        assert definition.doc.endswith((".", "?"))
        assert np.dtype(definition.dtype).kind in "fib"
        if "flux" in column.lower() and not column.endswith(("Chi2", "DeltaBic", "Consistency", "_flag")):
            assert definition.unit == u.nJy, column
    assert {f"{name}_flag", f"{name}_flag_missingPlanes", f"{name}_flag_failed"} <= columns.keys()


def test_tables_have_the_declared_columns_types_and_units():
    plugins = {
        name: diagnostic_registry[name](diagnostic_registry[name].ConfigClass())
        for name in ("maskFractions", "psfPhotometry", "localNoise", "residualModes")
    }
    for n in (0, 4):
        table = measure_diagnostics(point_sources(n, 11, flux=FLUX, mask=True), plugins)
        columns = diagnostic_columns(plugins)
        assert table.colnames == ["diaSourceId", "visit", "detector", *columns]
        for name, definition in columns.items():
            assert table[name].dtype == np.dtype(definition.dtype)
            assert table[name].unit == definition.unit
            assert table[name].description == definition.doc
        assert len(table) == n


def test_a_configuration_chooses_diagnostics_and_their_settings():
    class ChoosingConfig(pexConfig.Config):
        """Configuration with a choice of diagnostics."""

        diagnostics = diagnostic_registry.makeField(doc="Chosen.", multi=True, default=["localNoise"])

    config = ChoosingConfig()
    config.diagnostics.names = ["psfPhotometry", "maskFractions"]
    config.diagnostics["maskFractions"].planes = ["STREAK"]
    config.diagnostics["psfPhotometry"].radius = 6.0
    config.validate()
    field = config.diagnostics
    plugins = {name: field.registry[name](field[name]) for name in field.names}
    table = measure_diagnostics(point_sources(2, 12, flux=FLUX, mask=True), plugins)
    assert [name for name in table.colnames if name.startswith("maskFractions_")][:3] == [
        "maskFractions_STREAK_core",
        "maskFractions_STREAK_stamp",
        "maskFractions_flag",
    ]
    assert (table["psfPhotometry_psfNdata"] < 1.2 * np.pi * 6.0**2).all()
    assert not any(name.startswith("localNoise") for name in table.colnames)


def test_registry_has_the_built_in_diagnostics():
    assert diagnostic_registry["residualModes"] is ResidualModesDiagnostic
    assert {"maskFractions", "psfPhotometry", "localNoise", "residualModes"} <= set(diagnostic_registry)
