"""What a computation costs: CPU and wall seconds, the same in FFT pairs, and peak memory beyond a state."""

from __future__ import annotations

__all__ = ["N_RUNS", "Cost", "fft_pair_seconds", "least_cost", "measure_cost"]

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft

_FFT_SECONDS = 1.0
"""CPU seconds for which transforms are repeated; the fastest counts."""

N_RUNS = 3
"""Runs of which the one with the least CPU time counts: what else a machine does only ever adds to it."""

_SAMPLING = 0.02
"""Seconds between looks at the memory where the kernel does not keep the peak."""

_GIB = 1024.0**3


@dataclass
class Cost:
    """CPU and wall time [s] and peak resident memory beyond that at the start [GiB]."""

    cpu: float = 0.0
    wall: float = 0.0
    memory: float = 0.0


def fft_pair_seconds(size: int) -> float:
    """Return the CPU time of a float32 rfft2 and irfft2 of (size, size) pixels on one core [s]."""
    image = np.random.default_rng(1).normal(size=(size, size)).astype(np.float32)
    best, spent, rounds = np.inf, 0.0, 0
    while spent < _FFT_SECONDS or rounds < 3:
        start = time.process_time()
        scipy.fft.irfft2(scipy.fft.rfft2(image), s=image.shape)
        taken = time.process_time() - start
        best, spent, rounds = min(best, taken), spent + taken, rounds + 1
    return best


@contextmanager
def measure_cost() -> Iterator[Cost]:
    """Measure what is done in the context; the numbers are there when it ends."""
    cost = Cost()
    start_memory = _resident()
    peak = _Peak()
    start_cpu, start_wall = _cpu(), time.perf_counter()
    try:
        yield cost
    finally:
        cost.cpu, cost.wall = _cpu() - start_cpu, time.perf_counter() - start_wall
        cost.memory = max(peak.stop() - start_memory, 0) / _GIB


def least_cost[Result](run: Callable[[], Result]) -> tuple[Result, Cost]:
    """Run something several times, and return its last result and its least cost, but for the memory its largest."""
    costs = []
    for _ in range(N_RUNS):
        # What the run before made would count as memory of this one.
        result = None
        with measure_cost() as cost:
            result = run()
        costs.append(cost)
    least = min(costs, key=lambda cost: cost.cpu)
    return result, Cost(least.cpu, least.wall, max(cost.memory for cost in costs))


def _cpu() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}.")


def _resident() -> int:
    return _status("VmRSS:")


class _Peak:
    """The peak resident memory from now on: the kernel's mark where it can be reset, else what sampling sees."""

    def __init__(self) -> None:
        self._largest, self._sampler = 0, None
        self._done = threading.Event()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()

    def _sample(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._done.wait(_SAMPLING):
            self._largest = max(self._largest, int(Path("/proc/self/statm").read_text().split()[1]) * page)

    def stop(self) -> int:
        """Return the peak [byte]."""
        if self._sampler is None:
            return _status("VmHWM:")
        self._done.set()
        self._sampler.join()
        return max(self._largest, _resident())
