"""Both subtractors on 1024^2 pixels, in units of one FFT pair of the same size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lsst.diainspect.simulation import ObservingConditions, simulate_pair
from lsst.diainspect.subtraction import ImagePair, subtractor_registry


@pytest.fixture(scope="module")
def pair() -> ImagePair:
    simulated = simulate_pair(ObservingConditions(), seed=1, size=1024)
    return ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )


@pytest.mark.parametrize("method", ["al", "zogy"])
def test_subtraction(
    benchmark: Any, fft_pair_time: float, state: Callable[[str], None], pair: ImagePair, method: str
) -> None:
    algorithm = subtractor_registry[method]
    subtractor = algorithm(algorithm.ConfigClass())
    benchmark.pedantic(subtractor.subtract, (pair,), rounds=3, warmup_rounds=1)
    state(f"costs as much as {benchmark.stats.stats.min / fft_pair_time:.0f} FFT pairs of 1024^2")
