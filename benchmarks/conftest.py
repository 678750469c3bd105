"""The unit in which the benchmarks are stated, so that their results mean the same on every machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
from lsst.utils.threads import disable_implicit_threading


def pytest_configure() -> None:
    """Time one core: waiting threads of linear algebra would count as work of the process."""
    disable_implicit_threading()


@pytest.fixture(scope="session")
def fft_pair_time() -> float:
    """Time of one real float32 transform of 1024^2 pixels and back, the best of many [s]."""
    image = np.random.default_rng(1).normal(size=(1024, 1024)).astype(np.float32)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        scipy.fft.irfft2(scipy.fft.rfft2(image), s=image.shape)
        times.append(time.perf_counter() - start)
    return min(times)


_RESULTS = pytest.StashKey[list[str]]()


@pytest.fixture
def state(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take a sentence about the result of a benchmark, to be printed at the end."""
    results = request.config.stash.setdefault(_RESULTS, [])
    return lambda sentence: results.append(f"{request.node.name}: {sentence}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Print what the benchmarks stated."""
    for line in config.stash.get(_RESULTS, []):
        terminalreporter.write_line(line)
