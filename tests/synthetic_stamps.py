"""Stamps of single sources subtracted with given filters: exact truth, and noise that only the filters correlate."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy.fft
from astropy.table import Table

from lsst.diainspect.psf import PixelBasis, centre_crop, residual_modes, shift_images
from lsst.diainspect.simulation import ObservingConditions, SceneConfig, simulate_pair
from lsst.diainspect.stamps import StampModel, StampSet
from lsst.diainspect.subtraction import ImagePair, Subtractor, result_filters

SIZE = 41
MARGIN = 26
"""More than half of a filter, on each side, so that stamps do not see the edge of what is filtered."""

PIXEL_TO_SKY = np.array([[-0.2, 0.0], [0.0, 0.2]]) / 3600.0
"""Half a million pixels to the degree, with north up and east to the left [degree / pixel]."""


@dataclass(frozen=True)
class Observation:
    """Filters and noise of one difference.

    Parameters
    ----------
    filters : `dict` [`str`, `PixelBasis`]
        PSFs and filters over a detector.
    conditions : `ObservingConditions`
        Noise of the images.
    """

    filters: dict[str, PixelBasis]
    conditions: ObservingConditions


@functools.cache
def _small_scene(
    science_seeing: float, template_seeing: float, seed: int
) -> tuple[ObservingConditions, ImagePair]:
    conditions = ObservingConditions(
        science_seeing=science_seeing, template_seeing=template_seeing, shift_x=0.3, shift_y=-0.2
    )
    scene = SceneConfig(
        star_density=40, star_magnitudes=(16.5, 23.0), galaxy_density=3, n_transients=0, n_variables=0
    )
    simulated = simulate_pair(conditions, scene, seed, size=600)
    return conditions, ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )


def observe(
    subtractor: Subtractor, science_seeing: float, template_seeing: float, seed: int = 5
) -> Observation:
    """Subtract a small scene for the filters that come out."""
    conditions, pair = _small_scene(science_seeing, template_seeing, seed)
    return Observation(result_filters(subtractor.subtract(pair), pair), conditions)


def synthetic_stamps(
    observation: Observation,
    rng: np.random.Generator,
    n: int,
    *,
    snr: tuple[float, float] | None = (20.0, 1000.0),
    shift: np.ndarray | float = 0.0,
    angle: np.ndarray | float = 0.0,
    width: np.ndarray | float = 0.0,
    template_width: float = 0.0,
    transient: np.ndarray | float = 0.0,
    galaxy_sigma: float = 0.0,
    with_variances: bool = True,
) -> tuple[StampSet, Table]:
    """Make stamps of sources with known residuals.

    Parameters
    ----------
    observation : `Observation`
        Filters and noise.
    rng : `numpy.random.Generator`
        Source of randomness.
    n : `int`
        Sources.
    snr : `tuple` [`float`, `float`] or `None`
        Range of the static sources' S/N on the science image, log-uniform; None for none.
    shift, angle : `numpy.ndarray` or `float`
        Length of each displacement in the science image beyond what the match took [pixel], and its direction from +x
        [radian].
    width, template_width : `numpy.ndarray` or `float`
        Fractional widening of the source on the science image, and on the template.
    transient : `numpy.ndarray` or `float`
        Flux change at the source, in units of the error of a PSF flux in blank sky of the science image.
    galaxy_sigma : `float`
        Width of a Gaussian with which the source is convolved [pixel].
    with_variances : `bool`
        Give the stamps the variances of the two images.

    Returns
    -------
    stamps, truth : `StampSet`, `astropy.table.Table`
        Stamps, and ``flux``, ``shiftX``, ``shiftY``, ``width``, ``transient``.
    """
    filters, conditions = observation.filters, observation.conditions
    box = filters["differencePsf"].bounds
    x, y = (rng.uniform(side.start + 30, side.stop - 31, n) for side in (box.x, box.y))
    models = {name: StampModel.from_pixel_basis(basis, x, y) for name, basis in filters.items()}
    psf = {side: models[f"{side}Psf"].images().astype(np.float32) for side in ("science", "template")}
    variance = {
        "science": conditions.science_sky_variance,
        "template": conditions.template_sky_variance,
    }
    unit = np.sqrt(variance["science"] / (psf["science"] ** 2).sum(axis=(1, 2)))
    flux = unit * np.exp(rng.uniform(*np.log(snr), n)) if snr is not None else np.zeros(n)
    shift_x, shift_y = shift * np.cos(angle) * np.ones(n), shift * np.sin(angle) * np.ones(n)
    big = SIZE + 2 * MARGIN
    x0, y0 = np.rint(x).astype(int) - SIZE // 2, np.rint(y).astype(int) - SIZE // 2
    dx, dy = x - np.rint(x), y - np.rint(y)
    # What the match takes is in the template's filter: the template is drawn that much off.
    match_x, match_y = conditions.shift_x, conditions.shift_y
    # A static source vanishes from the difference.
    through = {side: convolved(centre_crop(psf[side], big), models[f"{side}Filter"].images()) for side in psf}
    ratio = np.sqrt((through["template"] ** 2).sum(axis=(1, 2)) / (through["science"] ** 2).sum(axis=(1, 2)))
    drawn = {
        "science": (flux, dx + shift_x, dy + shift_y, width),
        "template": (flux / ratio, dx - match_x, dy - match_y, template_width),
    }
    planes, noise = {}, {}
    epochs = {"science": 1.0, "template": conditions.template_epochs}
    for side, (own_flux, own_x, own_y, own_width) in drawn.items():
        source = widened(psf[side], np.broadcast_to(own_width, n))
        image = blurred(centre_crop(source, big), galaxy_sigma)
        image = shift_images(image, own_x, own_y) * own_flux[:, None, None]
        if side == "science":
            extra = shift_images(centre_crop(psf[side], big), dx, dy)
            image = image + extra * (transient * unit)[:, None, None]
        pixel_variance = variance[side] + np.maximum(image, 0.0) * conditions.njy_per_electron / epochs[side]
        noise[side] = rng.standard_normal(image.shape, dtype=np.float32) * np.sqrt(pixel_variance)
        planes[side] = image + noise[side]
        planes[f"{side}Variance"] = pixel_variance
    # What the match makes of the template is exactly the static source of the science image, unless the template is
    # perturbed: these are tests of what is measured of residuals, not of matches.
    own_filter = {side: models[f"{side}Filter"].images() for side in drawn}
    static = (
        shift_images(blurred(centre_crop(psf["science"], big), galaxy_sigma), dx, dy) * flux[:, None, None]
    )
    difference = convolved(planes["science"] - static, own_filter["science"])
    subtracted = noise["template"]
    if template_width:
        change = widened(psf["template"], np.full(n, template_width)) - psf["template"]
        moved = shift_images(centre_crop(change, big), dx - match_x, dy - match_y)
        subtracted = subtracted + moved * (flux / ratio)[:, None, None]
    difference -= convolved(subtracted, own_filter["template"])
    difference_variance = sum(convolved(planes[f"{side}Variance"], own_filter[side] ** 2) for side in drawn)
    planes["difference"], planes["differenceVariance"] = difference, difference_variance
    planes = {name: centre_crop(plane, SIZE).astype(np.float32) for name, plane in planes.items()}
    if not with_variances:
        del planes["scienceVariance"], planes["templateVariance"]
    sources = Table({"diaSourceId": np.arange(n), "x": x, "y": y, "x0": x0, "y0": y0})
    sources["pixelToSky"] = np.broadcast_to(PIXEL_TO_SKY, (n, 2, 2)).copy()
    truth = Table({"flux": flux, "shiftX": shift_x, "shiftY": shift_y, "unit": unit})
    truth["width"] = np.broadcast_to(width, n).copy()
    truth["transient"] = np.broadcast_to(transient, n) * unit
    return StampSet(sources, planes, models), truth


def widened(psf: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Stretch images by 1 + width at constant flux, to second order."""
    first = residual_modes(psf)[:, 2]
    second = residual_modes(first)[:, 2] - first
    w = np.asarray(width)[:, None, None]
    return psf + w * first + 0.5 * w**2 * second


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve images with a Gaussian."""
    if sigma == 0.0:
        return images
    size = images.shape[-1]
    k2 = scipy.fft.fftfreq(size)[:, None] ** 2 + scipy.fft.rfftfreq(size)[None, :] ** 2
    gaussian = np.exp(-2.0 * np.pi**2 * sigma**2 * k2)
    return scipy.fft.irfft2(scipy.fft.rfft2(images) * gaussian, s=(size, size))


def convolved(images: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Convolve images with centred filters; the border is wrapped."""
    size = images.shape[-1]
    images = np.asarray(images, dtype=np.float32)
    padded = centre_crop(np.asarray(filters, dtype=np.float32), size)
    kernel = scipy.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(1, 2)))
    return scipy.fft.irfft2(scipy.fft.rfft2(images) * kernel, s=(size, size))
