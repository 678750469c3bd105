"""Simulated images and repositories that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from lsst.utils.threads import disable_implicit_threading

from commands import run_command
from lsst.diainspect.simulation import (
    ObservingConditions,
    SceneConfig,
    SimulatedPair,
    simulate_pair,
)

CROWDED = {
    "star_density": 60.0,
    "star_magnitudes": [16.5, 23.0],
    "galaxy_density": 15.0,
    "n_transients": 8,
    "transient_snr": [15.0, 100.0],
    "n_variables": 3,
}
"""A sky with enough stars to match small images on."""


def pytest_configure() -> None:
    """Leave the cores to the test processes, however these were started."""
    disable_implicit_threading()


@pytest.fixture(scope="session")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a repository by ``diainspect simulate`` from the fields of a survey file; one for each content."""
    made: dict[str, Path] = {}

    def make(**survey: object) -> Path:
        text = yaml.safe_dump({"scene": CROWDED, **survey})
        if text not in made:
            directory = tmp_path_factory.mktemp("survey")
            config = directory / "survey.yaml"
            config.write_text(text)
            run_command("diainspect", "simulate", directory / "repo", "--config", config).check()
            made[text] = directory / "repo"
        return made[text]

    return make


@pytest.fixture(scope="session")
def small_pair() -> SimulatedPair:
    """A pair of 300 pixels with stars enough for both subtractors."""
    scene = SceneConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in CROWDED.items()})
    return simulate_pair(
        ObservingConditions(science_seeing=0.9, template_seeing=0.75), scene, seed=3, size=300
    )
