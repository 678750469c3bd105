"""The subtractor of another package, sfft, behind our interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from astropy.stats import mad_std
from lsst.daf.butler import Butler
from lsst.images import Box
from lsst.pipe.base import Pipeline

from commands import run_pipeline
from lsst.diainspect.sfft import SfftConfig, SfftSubtractor
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, SimulatedPair, simulate_pair
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    SubtractionResult,
    subtractor_registry,
)
from lsst.diainspect.subtraction._star_fit import fit_stars


def pair_of(simulated: SimulatedPair) -> ImagePair:
    return ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )


def test_it_registers_itself() -> None:
    assert subtractor_registry["sfft"] is SfftSubtractor


def test_absence_of_the_package_is_said_with_how_to_get_it(
    small_pair: SimulatedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's own way to say that a module is not to be found.
    for name in [name for name in sys.modules if name.split(".")[0] == "sfft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sfft", None)  # type: ignore[arg-type]
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lsst-diainspect\[sfft\]'"):
        SfftSubtractor(SfftConfig()).subtract(pair_of(small_pair))


@pytest.fixture(scope="module")
def package() -> ModuleType:
    return pytest.importorskip("sfft", reason="The package sfft is not installed.")


@pytest.fixture(scope="module", params=["blunter", "sharper"])
def scene(request: pytest.FixtureRequest, package: ModuleType) -> tuple[SimulatedPair, SubtractionResult]:
    seeing = {"blunter": (0.9, 0.75), "sharper": (0.75, 0.9)}[request.param]
    simulated = simulate_pair(
        ObservingConditions(science_seeing=seeing[0], template_seeing=seeing[1]),
        SceneConfig(star_density=40, star_magnitudes=(17.0, 24.0), n_transients=30, n_variables=0),
        31,
        size=512,
    )
    return simulated, SfftSubtractor(SfftConfig()).subtract(pair_of(simulated))


def test_sky_noise_is_as_predicted(scene: tuple[SimulatedPair, SubtractionResult]) -> None:
    _, result = scene
    good = ~(result.bad | result.spread | result.edge)
    # 200,000 pixels, 8000 independent ones of the score; sources are what is left in it.
    assert mad_std((result.difference / np.sqrt(result.variance))[good]) == pytest.approx(1.0, abs=0.02)
    assert mad_std(result.score[good]) == pytest.approx(1.0, abs=0.05)


def test_fluxes_of_transients_are_unbiased(scene: tuple[SimulatedPair, SubtractionResult]) -> None:
    simulated, result = scene
    truth = simulated.truth
    rows = truth[np.asarray(truth["isTransient"]) & (np.asarray(truth["idealSnr"]) > 10)]
    _, _, fit = fit_stars(
        result.difference, result.variance, result.bad, result.psf, rows["x"], rows["y"], 12.0, iterations=1
    )
    column, row = np.rint(rows["x"]).astype(int), np.rint(rows["y"]).astype(int)
    good = ~(result.bad | result.spread | result.edge)[row, column] & np.isfinite(fit.flux)
    true = np.asarray(rows["fluxChange"])[good]
    weight = (true / fit.flux_error[good]) ** 2
    mean, error = np.average(fit.flux[good] / true, weights=weight), weight.sum() ** -0.5
    # The noise of the convolved image biases the package's kernel sum by up to a per cent.
    assert abs(mean - 1.0) < 0.015 + 3 * error


def test_kernel_is_that_of_alard_and_lupton(scene: tuple[SimulatedPair, SubtractionResult]) -> None:
    simulated, result = scene
    pair = pair_of(simulated)
    config = AlConfig()
    config.kernelOrder = 1
    other = AlSubtractor(config).subtract(pair)
    assert result.kernel is not None
    assert other.kernel is not None
    assert result.kernel_convolves == other.kernel_convolves
    sharp = pair.template_psf if result.kernel_convolves == "template" else pair.science_psf
    # Kernels differ at frequencies that no source has; what they make of a star must agree.
    for x, y in [(100.0, 100.0), (256.0, 256.0), (400.0, 120.0)]:
        ours, theirs = (
            np.fft.irfft2(
                np.fft.rfft2(kernel.at(x, y), s=(128, 128)) * np.fft.rfft2(sharp.at(x, y), s=(128, 128)),
                s=(128, 128),
            )
            for kernel in (other.kernel, result.kernel)
        )
        shift = (other.kernel.size - result.kernel.size) // 2
        theirs = np.roll(theirs, (shift, shift), axis=(0, 1))
        assert np.abs(theirs - ours).max() < 0.02 * ours.max()


def test_images_that_are_not_square_keep_their_axes(package: ModuleType) -> None:
    simulated = simulate_pair(
        ObservingConditions(science_seeing=0.9, template_seeing=0.75, shift_x=0.3),
        SceneConfig(star_density=60, star_magnitudes=(17.0, 23.0), n_transients=0),
        32,
        size=400,
    )
    box = simulated.science.bbox
    part = Box.factory[box.y.start : box.y.start + 300, box.x.start + 20 : box.x.stop]
    pair = ImagePair.from_images(
        simulated.science[part], simulated.template[part], simulated.science.psf, simulated.template.psf
    )
    result = SfftSubtractor(SfftConfig()).subtract(pair)
    assert result.kernel is not None
    kernel = result.kernel.centre()
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    offset = np.array([(kernel * x).sum(), (kernel * y).sum()]) / kernel.sum()
    assert np.abs(np.abs(offset) - [0.3, 0.0]).max() < 0.05


INGREDIENT = "resource://lsst.diainspect/pipelines/_ingredients/subtractSfft.yaml"


def test_pipeline_is_built_without_the_package() -> None:
    graph = Pipeline.from_uri(INGREDIENT).to_graph()
    assert graph.tasks["subtractSfft"].config.subtractor.name == "sfft"
    assert "sfft_difference_kernel" in graph.dataset_types
    # The quality of a kernel is known where we fitted it.
    assert "sfft_kernel_quality" not in graph.dataset_types


def test_it_joins_the_pipelines(package: ModuleType, simulate: Callable[..., Path], tmp_path: Path) -> None:
    repo = simulate(
        size=320,
        seed=8,
        detectors=[0],
        visits=[{"visit": 1, "science_seeing": 0.9, "template_seeing": 0.75}],
    )
    ingredients = "resource://lsst.diainspect/pipelines/_ingredients/"
    content = {
        "description": "sfft beside ZOGY.",
        "instrument": "lsst.diainspect.instruments.DiaSim",
        "imports": [f"{ingredients}{name}.yaml" for name in ("subtractSfft", "subtractZogy", "compare")],
        "parameters": {"methods": ["sfft", "zogy"]},
        # Of some 30 sources no more can be told.
        "tasks": {
            "subtractSfft": {
                "class": "lsst.diainspect.tasks.SubtractImagesTask",
                "config": {"python": "config.subtractor.active.kernelOrder = 0"},
            }
        },
    }
    pipeline = tmp_path / "sfft.yaml"
    pipeline.write_text(yaml.safe_dump(content, sort_keys=False))
    run_pipeline(repo, "u/test/sfft", pipeline=str(pipeline)).check()
    with Butler.from_config(str(repo), collections="u/test/sfft", instrument="DiaSim") as butler:
        comparison = butler.get("subtraction_comparison", visit=1, detector=0)
        assert len(butler.get("sfft_detector_maps", visit=1, detector=0)) > 0
        assert len(butler.get("sfft_dia_diagnostics", visit=1, detector=0)) > 0
    bright = np.asarray(comparison["zogy_snr"]) > 8
    assert bright.sum() >= 5
    assert np.asarray(comparison["sfft_found"])[bright].mean() > 0.8
