"""Flux changes on perturbed stars: added to the pixels of the science image and to the truth."""

from __future__ import annotations

__all__ = ["inject_changes"]

import numpy as np

from lsst.diainspect.psf import centre_crop, shift_images
from lsst.diainspect.simulation import SimulatedPair, ideal_difference_sigma


def inject_changes(
    pair: SimulatedPair, snr: tuple[float, float], fraction: float, rng: np.random.Generator
) -> None:
    """Change the flux of some of the perturbed stars, in place, brighter or fainter.

    Their S/N is that in the best possible difference with the noise of the star's own light. The change's own photons
    add no noise, which is small beside those of the star.

    Parameters
    ----------
    pair : `lsst.diainspect.simulation.SimulatedPair`
        Images and truth.
    snr : `tuple` [`float`, `float`]
        Range of the S/N, uniform.
    fraction : `float`
        Chance of each perturbed star to change.
    rng : `numpy.random.Generator`
        Source of randomness.
    """
    truth, conditions = pair.truth, pair.conditions
    perturbed = np.flatnonzero(np.asarray(truth["perturbation"]).astype(str) != "none")
    chosen = perturbed[rng.uniform(size=len(perturbed)) < fraction]
    image, variance, box = pair.science.image.array, pair.science.variance.array, pair.science.bbox
    for row in chosen:
        x, y = float(truth["x"][row]), float(truth["y"][row])
        psf = pair.true_science_psf.at(x, y)
        half = psf.shape[0] // 2
        column, line = round(x) - box.x.start, round(y) - box.y.start
        if not (half <= column < box.x.size - half and half <= line < box.y.size - half):
            continue
        window = np.s_[line - half : line + half + 1, column - half : column + half + 1]
        weight = psf**2 / (psf**2).sum()
        own_variance = float((variance[window] * weight).sum())
        template_psf = pair.true_template_psf.at(x, y)
        size = min(len(psf), len(template_psf))
        extra = (own_variance - conditions.science_sky_variance) / conditions.template_epochs
        sigma = ideal_difference_sigma(
            centre_crop(psf, size)[None],
            centre_crop(template_psf, size)[None],
            own_variance,
            conditions.template_sky_variance + extra,
        )[0]
        flux = float(sigma * rng.uniform(*snr) * rng.choice([-1.0, 1.0]))
        flux = max(flux, -0.5 * float(truth["scienceFlux"][row]))
        image[window] += flux * shift_images(psf[None], np.array([x - round(x)]), np.array([y - round(y)]))[0]
        truth["scienceFlux"][row] += flux
        truth["fluxChange"][row] = flux
