"""PSFs at many positions: at least 20,000 of 25 x 25 pixels a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lsst.images import Box

from lsst.diainspect.psf import PixelBasisPsf

_N = 20_000
_SIZE = 25
_BOUNDS = Box.from_shape((4096, 4096))


def _gaussian(x: float, y: float) -> np.ndarray:
    v, u = np.mgrid[:_SIZE, :_SIZE] - _SIZE // 2
    return np.exp(-0.5 * (u**2 + v**2) / (2.0 + 0.1 * x / 4096.0 + 0.05 * y / 4096.0) ** 2)


@pytest.mark.parametrize("centred", [True, False], ids=["pixel centres", "sub-pixel centres"])
def test_psfs_at_many_positions(
    benchmark: Any, fft_pair_time: float, state: Callable[[str], None], centred: bool
) -> None:
    psf = PixelBasisPsf.from_callable(_gaussian, _BOUNDS, order=3)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0.0, 4095.0, (2, _N))
    offsets = {} if centred else {"dx": rng.uniform(-0.5, 0.5, _N), "dy": rng.uniform(-0.5, 0.5, _N)}
    images = benchmark.pedantic(psf.evaluate, (x, y), offsets, rounds=5, warmup_rounds=1)
    assert images.shape == (_N, _SIZE, _SIZE)
    best = benchmark.stats.stats.min
    state(
        f"{_N / best:,.0f} PSFs a second; {_N:,} cost as much as {best / fft_pair_time:.1f} FFT pairs of 1024^2"
    )
    if centred:
        assert _N / best >= 20_000
