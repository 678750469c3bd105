"""Noise of several images on the same pixels, with errors from a bootstrap over blocks that is common to all of them.

What an image says of a block is kept in sums that add up, so that a draw of blocks is a product with its weights, and
differences between images are paired.
"""

from __future__ import annotations

__all__ = ["N_DRAWS", "Blocks", "draw_weights"]

from dataclasses import dataclass

import numpy as np

N_DRAWS = 400
"""Bootstrap draws: they give an error to 4 %."""

_RANGE, _BIN = 8.0, 0.005
"""Range and width of the bins in which quantiles are found [nominal sigma]; interpolated within a bin."""

_QUARTILES_TO_SIGMA = 1.0 / 1.34898


def draw_weights(n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each block counts, (1 + `N_DRAWS`, n_blocks): once in the first row, then as drawn."""
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=N_DRAWS)
    return np.concatenate([np.ones((1, n_blocks)), drawn])


@dataclass(frozen=True)
class Blocks:
    """Square blocks of an image.

    Parameters
    ----------
    index : `numpy.ndarray`, (height, width), int
        Block of each pixel.
    number : `int`
        Number of blocks.
    """

    index: np.ndarray
    number: int

    @classmethod
    def of_shape(cls, shape: tuple[int, int], side: int) -> Blocks:
        """Cut an image into blocks of a side [pixel]."""
        across = -(-shape[1] // side)
        row, column = np.arange(shape[0]) // side, np.arange(shape[1]) // side
        return cls(row[:, None] * across + column, across * -(-shape[0] // side))

    def robust_sigma(self, noise: np.ndarray, where: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return sigma from the quartiles for each draw, (n_draws,).

        Parameters
        ----------
        noise : `numpy.ndarray`, (height, width)
            Image in units of its nominal sigma.
        where : `numpy.ndarray`, (height, width), bool
            Pixels to use.
        weights : `numpy.ndarray`, (n_draws, n_blocks)
            Times that each block counts.
        """
        n_bins = int(2 * _RANGE / _BIN)
        bins = np.clip((noise[where] + _RANGE) / _BIN, 0, n_bins - 1).astype(int)
        flat = np.bincount(self.index[where] * n_bins + bins, minlength=self.number * n_bins)
        cumulative = np.cumsum(weights @ flat.reshape(self.number, n_bins), axis=1)
        edges = (np.arange(n_bins) + 1) * _BIN - _RANGE
        low, high = (
            np.array([np.interp(part * row[-1], row, edges) for row in cumulative]) for part in (0.25, 0.75)
        )
        return (high - low) * _QUARTILES_TO_SIGMA

    def neighbour_correlation(self, noise: np.ndarray, where: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the correlation of neighbours for each draw, (n_draws,): along x or y, whichever is larger in all."""
        used = where & (np.abs(noise) < _RANGE)
        values = np.where(used, noise - np.median(noise[used]), 0.0)
        power = weights @ self._sums(values**2) / (weights @ self._sums(used))
        along = []
        for first, second in (
            ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
            ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ):
            product, both = np.zeros(values.shape), np.zeros(values.shape)
            product[first], both[first] = values[first] * values[second], used[first] & used[second]
            along.append(weights @ self._sums(product) / (weights @ self._sums(both)) / power)
        return max(along, key=lambda correlation: abs(correlation[0]))

    def count(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the number of pixels at integer positions for each draw, (n_draws,)."""
        return weights @ np.bincount(self.index[y, x], minlength=self.number)

    def _sums(self, image: np.ndarray) -> np.ndarray:
        return np.bincount(self.index.ravel(), weights=image.ravel().astype(float), minlength=self.number)
