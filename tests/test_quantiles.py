"""Quantiles are those of numpy."""

import numpy as np
import pytest

from lsst.diainspect.quantiles import median, quantile


@pytest.mark.parametrize("number", [1, 2, 3, 10, 11, 1001])
@pytest.mark.parametrize("fraction", [0.0, 0.1587, 0.5, 1.0])
def test_quantiles_agree_with_numpy(number, fraction):
    values = np.random.default_rng(number).normal(size=number).astype(np.float32)
    assert quantile(values, fraction) == pytest.approx(np.quantile(values, fraction), rel=1e-6)


def test_no_numbers_have_no_median():
    assert np.isnan(median(np.zeros(0)))
