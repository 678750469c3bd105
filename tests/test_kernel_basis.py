"""Kernel bases: what they span, and what their penalty is."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.diainspect.subtraction import AlConfig
from lsst.diainspect.subtraction._kernel_basis import delta_basis, roughness_matrix


def test_delta_basis_has_unit_and_zero_sums_and_spans_every_kernel() -> None:
    basis = delta_basis(2)
    np.testing.assert_array_equal(basis.sum(axis=(1, 2)), [1.0] + [0.0] * 24)
    assert np.linalg.matrix_rank(basis.reshape(25, 25)) == 25


def test_first_coefficient_of_the_delta_basis_is_the_sum_of_the_kernel() -> None:
    kernel = np.random.default_rng(1).normal(size=(5, 5))
    coefficients = np.linalg.solve(delta_basis(2).reshape(25, 25).T, kernel.ravel())
    assert coefficients[0] == pytest.approx(kernel.sum())


@pytest.mark.parametrize("difference", ["forward", "central"])
def test_roughness_is_the_sum_of_squared_differences(difference: str) -> None:
    basis = delta_basis(2)
    coefficients = np.random.default_rng(2).normal(size=len(basis))
    kernel = np.pad(np.tensordot(coefficients, basis, axes=1), 3)
    expected = 0.0
    for row in range(1, kernel.shape[0] - 1):
        for column in range(1, kernel.shape[1] - 1):
            here, right, above = kernel[row, column], kernel[row, column + 1], kernel[row + 1, column]
            if difference == "forward":
                expected += (right - here) ** 2 + (above - here) ** 2
            else:
                left, below = kernel[row, column - 1], kernel[row - 1, column]
                expected += (left + right + above + below - 4 * here) ** 2
    assert coefficients @ roughness_matrix(basis, difference) @ coefficients == pytest.approx(expected)


def test_unknown_difference_is_refused() -> None:
    with pytest.raises(ValueError, match="'forward' or 'central', got 'sideways'"):
        roughness_matrix(delta_basis(1), "sideways")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("crossValidate", ["order", "moon"], "moon cannot be cross-validated"),
        ("kernelSigmas", [1.0], "4 degrees for 1 Gaussians"),
        ("kernelSigmas", [1.0, 2.0, -3.0, 4.0], "must be positive"),
    ],
)
def test_configuration_that_makes_no_sense_is_refused(field: str, value: list, message: str) -> None:
    config = AlConfig()
    setattr(config, field, value)
    with pytest.raises(ValueError, match=message):
        config.validate()
