"""Measures the PSF of an image from its stars with Piff.

The core is a Piff `PixelGrid` whose pixels are a polynomial of position, solved for all stars at once
(`BasisPolynomial`). Beyond the grid the stars' mean profile continues it as a power of the radius.
"""

from __future__ import annotations

__all__ = ["MeasuredPsf", "TooFewStars", "measure_psf"]

import logging
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np
import scipy.ndimage
from astropy.table import Table
from lsst.images import Box

from ._fourier_shift import shift_images
from ._measure_stars import StarCandidates, find_stars
from ._pixel_basis_psf import PixelBasisPsf
from ._polynomial_field import PolynomialField
from ._shape import fwhm as psf_fwhm
from ._shape import second_moments

_LOG = logging.getLogger(__name__)

_STARS_PER_TERM = 3
"""Stars wanted for each term of the spatial polynomial."""

_CORE_IN_FWHM = 2.0
"""Half side of the pixel grid in units of the FWHM: the pixels that single stars determine."""

_MAX_SNR = 150.0
"""Weights are scaled so that no star counts for more than this: brighter ones would impose their own errors."""

_CLIP = 4.0
"""Robust standard deviations at which a star's residuals make it an outlier."""

_LEAST_SIZE_RESIDUAL = 0.015
"""Relative size residuals below this never make a star an outlier."""

_LEAST_SHAPE_RESIDUAL = 0.015
"""Ellipticity residuals below this never make a star an outlier."""

_MAX_ROUNDS = 4
"""Most fits, each without the outliers of the last."""

_WING_SNR = 5.0
"""Least significance of the light beyond the grid that is added to the model."""

_WING_OVERLAP = 2
"""Width of the rim of the grid that is fitted together with the wing [pixel]."""

_WING_SLOPES = np.arange(2.5, 10.01, 0.25)
"""Powers of the radius with which a wing may fall; turbulence gives 11/3, a Moffat profile twice its beta."""


class TooFewStars(ValueError):  # noqa: N818
    """An image has too few stars to measure its PSF.

    Parameters
    ----------
    message : `str`
        What was found, what is needed and what to do.
    stars : `astropy.table.Table`
        Every source found, with the reason why it is not used.
    n_used, n_needed : `int`
        Number of usable stars and number needed.
    """

    def __init__(self, message: str, *, stars: Table, n_used: int, n_needed: int) -> None:
        super().__init__(message)
        self.stars = stars
        self.n_used = n_used
        self.n_needed = n_needed


@dataclass(frozen=True)
class MeasuredPsf:
    """A PSF and what it was measured from.

    Parameters
    ----------
    psf : `PixelBasisPsf`
        The PSF.
    stars : `astropy.table.Table`
        One row a source: x, y, flux, snr, size, used, rejected, and for fitted stars chi2PerDof, sizeResidual
        (relative, star minus model), e1Residual, e2Residual and peakResidual (fraction of the star's peak).
    order : `int`
        Spatial order.
    n_stars : `int`
        Stars used.
    fwhm : `float`
        Full width at half maximum at the centre, from the noise-equivalent area [pixel].
    wing_fraction : `float`
        Light beyond the pixel grid, as a fraction of that in it; 0 where none was significant.
    """

    psf: PixelBasisPsf
    stars: Table
    order: int
    n_stars: int
    fwhm: float
    wing_fraction: float

    @property
    def summary(self) -> dict[str, float | int]:
        """Numbers on the quality of the PSF: medians and robust scatter of the residuals of the stars in use."""
        used = self.stars[self.stars["used"]]
        values: dict[str, float | int] = {
            "nStars": self.n_stars,
            "nSources": len(self.stars),
            "order": self.order,
            "fwhm": self.fwhm,
            "wingFraction": self.wing_fraction,
        }
        for name in ("chi2PerDof", "sizeResidual", "e1Residual", "e2Residual", "peakResidual"):
            column = np.asarray(used[name], dtype=float)
            middle = float(np.nanmedian(column))
            values[f"{name}Median"] = middle
            values[f"{name}Scatter"] = float(1.4826 * np.nanmedian(np.abs(column - middle)))
        return values


@dataclass(frozen=True)
class _Residuals:
    """Residuals of stars from a model; arrays of shape (N,)."""

    chi2: np.ndarray
    size: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    peak: np.ndarray


@dataclass(frozen=True)
class _Fit:
    """A fitted core with the stars' fluxes [unit of the image] and centres in array coordinates [pixel]."""

    psf: PixelBasisPsf
    flux: np.ndarray
    x: np.ndarray
    y: np.ndarray
    failed: np.ndarray


@dataclass(frozen=True)
class _Stamps:
    """Stamps of N stars of side size, centred on pixels (column, row); weight is zero for bad and foreign pixels."""

    data: np.ndarray
    weight: np.ndarray
    column: np.ndarray
    row: np.ndarray


def measure_psf(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    bounds: Box,
    *,
    order: int | None = 2,
    size: int = 51,
    min_stars: int | None = None,
    max_stars: int = 100,
    min_snr: float = 30.0,
    name: str = "image",
) -> MeasuredPsf:
    """Measure the PSF of an image from its stars.

    Parameters
    ----------
    image, variance : `numpy.ndarray`, (height, width)
        Background-subtracted image and its variance.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels not to use: without data, saturated, or otherwise bad.
    bounds : `lsst.images.Box`
        Region of the image; positions in the results are in its coordinates.
    order : `int` or `None`, optional
        Spatial order; the highest up to 3 that the number of stars allows when `None`.
    size : `int`, optional
        Side of the PSF images, odd [pixel].
    min_stars : `int`, optional
        Fewest stars; three a term of the spatial polynomial when omitted.
    max_stars : `int`, optional
        Most stars.
    min_snr : `float`, optional
        Least signal-to-noise ratio of a star.
    name : `str`, optional
        What to call the image in messages.

    Returns
    -------
    measured : `MeasuredPsf`
        PSF, quality table and summary.

    Raises
    ------
    TooFewStars
        If there are fewer usable stars than needed.
    ValueError
        If the arrays do not fit together or ``size`` is not odd.
    """
    image, variance, bad = np.asarray(image, float), np.asarray(variance, float), np.asarray(bad, bool)
    if not image.shape == variance.shape == bad.shape == (bounds.y.size, bounds.x.size):
        raise ValueError(
            f"{name}: image {image.shape}, variance {variance.shape} and mask {bad.shape} must all have the shape of "
            f"the box, {(bounds.y.size, bounds.x.size)}."
        )
    if size % 2 == 0 or size < 11:
        raise ValueError(
            f"{name}: the side of a measured PSF must be odd and at least 11 pixels, got {size}."
        )
    bad = bad | ~np.isfinite(image) | ~np.isfinite(variance) | ~(variance > 0)
    if bad.all():
        raise TooFewStars(
            f"{name}: no pixel is good, so no PSF can be measured.", stars=Table(), n_used=0, n_needed=1
        )
    stars = find_stars(image, variance, bad, min_snr=min_snr, max_stars=max_stars)
    n_used = int(stars.used.sum())
    orders = (
        [order]
        if order is not None
        else [n for n in (3, 2, 1) if n_used >= _STARS_PER_TERM * _n_terms(n)] + [0]
    )
    for attempt in orders:
        try:
            return _measure(
                image,
                variance,
                bad,
                bounds,
                stars,
                order=attempt,
                size=size,
                min_stars=min_stars,
                min_snr=min_snr,
                name=name,
            )
        except TooFewStars:
            # Outliers may leave too few for the order that all the stars would have allowed.
            if attempt == orders[-1]:
                raise
    raise AssertionError("The loop returns or raises.")


def _measure(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    bounds: Box,
    stars: StarCandidates,
    *,
    order: int,
    size: int,
    min_stars: int | None,
    min_snr: float,
    name: str,
) -> MeasuredPsf:
    needed = min_stars if min_stars is not None else _STARS_PER_TERM * _n_terms(order)
    needed = max(needed, _n_terms(order))
    _check_enough(stars, bounds, needed, order, min_snr, name)

    half = min(max(int(np.ceil(_CORE_IN_FWHM * stars.fwhm)), 5), size // 2)
    fits = np.flatnonzero(stars.used)
    with np.errstate(invalid="ignore", divide="ignore"):
        for round_number in range(_MAX_ROUNDS):
            # The first fit is coarse: it only has to show which stars are not like the others.
            fit_order = min(order, 1) if round_number == 0 else order
            fits = np.flatnonzero(stars.used)
            stamps = _cut(image, variance, bad, stars, fits, size=2 * half + 1)
            fit = _fit_core(stamps, stars, fits, bounds, fit_order)
            residuals = _measure_residuals(stamps, fit, stars.x[fits], stars.y[fits], bounds)
            stars = stars.reject(_among(fits, fit.failed, len(stars.x)), "fit failed")
            outliers = _outliers(residuals, stars.snr[fits]) & ~fit.failed
            last = round_number == _MAX_ROUNDS - 1
            if (not outliers.any() and fit_order == order) or last:
                break
            stars = stars.reject(_among(fits, outliers, len(stars.x)), "unlike the model")
            _check_enough(stars, bounds, needed, order, min_snr, name)
    _check_enough(stars, bounds, needed, order, min_snr, name)
    psf, wing = _add_wings(image, variance, bad, stars, fits, fit, size)
    table = _table(stars, bounds)
    _fill_residuals(table, fits, fit, residuals)
    measured = MeasuredPsf(
        psf=psf,
        stars=table,
        order=order,
        n_stars=int(stars.used.sum()),
        fwhm=float(psf_fwhm(psf.centre())),
        wing_fraction=wing,
    )
    _LOG.info(
        "%s: PSF of order %d from %d stars, FWHM %.2f pixel.", name, order, measured.n_stars, measured.fwhm
    )
    return measured


def _n_terms(order: int) -> int:
    return (order + 1) * (order + 2) // 2


def _among(index: np.ndarray, which: np.ndarray, n: int) -> np.ndarray:
    flags = np.zeros(n, dtype=bool)
    flags[index[which]] = True
    return flags


def _check_enough(
    stars: StarCandidates, bounds: Box, needed: int, order: int, min_snr: float, name: str
) -> None:
    n_used = int(stars.used.sum())
    if n_used >= needed:
        return
    raise TooFewStars(
        f"{name}: {n_used} of {len(stars.x)} sources are stars fit to measure a PSF of order {order} from, at least "
        f"{needed} are needed (rejected: {stars.reasons()}). Give a PSF file, a lower order, fewer stars as the least, "
        f"or a signal-to-noise ratio below {min_snr:g} as the least.",
        stars=_table(stars, bounds),
        n_used=n_used,
        n_needed=needed,
    )


def _cut(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    stars: StarCandidates,
    index: np.ndarray,
    *,
    size: int,
) -> _Stamps:
    """Cut stamps of stars; the weight is the same for all good pixels of one star.

    Weights that followed the light of each pixel would follow its noise too, and bias the PSF.
    """
    half = size // 2
    column, row = np.rint(stars.x[index]).astype(int), np.rint(stars.y[index]).astype(int)
    offset = np.arange(size)
    grid = (row[:, None, None] + offset[None, :, None], column[:, None, None] + offset[None, None, :])

    def cut(plane: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(plane, half, constant_values=fill)[grid]

    data = cut(np.where(bad, 0.0, image), 0.0)
    owner = cut(stars.segments, 0)
    good = ~cut(bad, True) & ((owner == 0) | (owner == stars.label[index][:, None, None]))
    sky = np.nanmedian(np.where(good, cut(variance, 1.0), np.nan), axis=(1, 2))
    scale = np.minimum(1.0, (_MAX_SNR / stars.snr[index]) ** 2)
    weight = np.where(good, (scale / sky)[:, None, None], 0.0)
    return _Stamps(data, weight, column, row)


def _fit_core(stamps: _Stamps, stars: StarCandidates, index: np.ndarray, bounds: Box, order: int) -> _Fit:
    """Fit the pixel grid with Piff."""
    # Imported where they are used: it takes a second, which every quantum would pay.
    import galsim
    import piff

    size = stamps.data.shape[-1]
    field = PolynomialField(bounds, order)
    u_field, v_field = field.normalise(stars.x[index] + bounds.x.start, stars.y[index] + bounds.y.start)
    piff_stars = []
    for k in range(len(index)):
        origin = {"xmin": int(stamps.column[k]) - size // 2, "ymin": int(stamps.row[k]) - size // 2}
        pixels = galsim.Image(np.ascontiguousarray(stamps.data[k]), wcs=galsim.PixelScale(1.0), **origin)
        weight = galsim.Image(np.ascontiguousarray(stamps.weight[k]), wcs=galsim.PixelScale(1.0), **origin)
        data = piff.StarData(
            pixels,
            galsim.PositionD(stars.x[index[k]], stars.y[index[k]]),
            weight=weight,
            # Coordinates of order unity keep the polynomial well conditioned.
            field_pos=galsim.PositionD(u_field[k], v_field[k]),
            properties={"chipnum": 0, "star_number": k},
        )
        piff_stars.append(piff.Star(data, None))
    model = piff.PixelGrid(scale=1.0, size=size, interp="Lanczos(7)", centered=True)
    interpolation = piff.BasisPolynomial(order=order, solver="cpp")
    fitter = piff.SimplePSF(model, interpolation, max_iter=8, chisq_thresh=0.01)
    piff_log = logging.getLogger("piff")
    piff_log.setLevel(logging.ERROR)
    fitter.fit(piff_stars, wcs={0: galsim.PixelScale(1.0)}, pointing=None, logger=piff_log)
    x, y = field.sample_grid(order + 1)
    u_grid, v_grid = field.normalise(x, y)
    images = []
    for u_k, v_k in zip(u_grid, v_grid, strict=True):
        target = fitter.interp.interpolate(
            piff.Star.makeTarget(
                x=0.0, y=0.0, u=u_k, v=v_k, wcs=galsim.PixelScale(1.0), properties={"chipnum": 0}
            )
        )
        images.append(np.asarray(target.fit.get_params(None)).reshape(size, size))
    psf = PixelBasisPsf.from_images(_recentred(np.stack(images)), x, y, bounds, order=order)
    by_number: dict[int, Any] = {int(star.data["star_number"]): star for star in fitter.stars}
    flux, centre_x, centre_y = (np.full(len(index), np.nan) for _ in range(3))
    failed = np.ones(len(index), dtype=bool)
    for k, star in by_number.items():
        flux[k] = star.fit.flux
        centre_x[k] = stars.x[index[k]] + star.fit.center[0]
        centre_y[k] = stars.y[index[k]] + star.fit.center[1]
        failed[k] = star.is_flagged or not np.isfinite(star.fit.flux) or not star.fit.flux > 0
    return _Fit(psf, flux, centre_x, centre_y, failed)


def _recentred(images: np.ndarray) -> np.ndarray:
    """Move PSFs so that the centroid in a Gaussian window of their own width is in the central pixel."""
    size = images.shape[-1]
    grid = np.arange(size) - size // 2
    for _ in range(3):
        sigma = psf_fwhm(images) / 2.3548
        window = np.exp(
            -0.5 * (grid[None, None, :] ** 2 + grid[None, :, None] ** 2) / sigma[:, None, None] ** 2
        )
        weighted = images * window
        norm = weighted.sum(axis=(1, 2))
        # The window halves the displacement it sees of a Gaussian of its own width.
        dx = 2.0 * (weighted * grid[None, None, :]).sum(axis=(1, 2)) / norm
        dy = 2.0 * (weighted * grid[None, :, None]).sum(axis=(1, 2)) / norm
        images = shift_images(images, -dx, -dy)
    return images


def _models(fit: _Fit, stamps: _Stamps, bounds: Box) -> np.ndarray:
    """Return the model of each star on its stamp, unit flux."""
    good = ~fit.failed
    models = np.zeros(stamps.data.shape)
    x, y = fit.x[good], fit.y[good]
    models[good] = fit.psf.evaluate(
        x + bounds.x.start, y + bounds.y.start, dx=x - stamps.column[good], dy=y - stamps.row[good]
    )
    return models


def _measure_residuals(stamps: _Stamps, fit: _Fit, x: np.ndarray, y: np.ndarray, bounds: Box) -> _Residuals:
    n = len(stamps.data)
    models = _models(fit, stamps, bounds)
    weight = stamps.weight
    # Flux and background of each star by linear least squares with this model.
    flux = (weight * models * stamps.data).sum(axis=(1, 2)) / (weight * models**2).sum(axis=(1, 2))
    expected = flux[:, None, None] * models
    residual = np.where(weight > 0, stamps.data - expected, 0.0)
    chi2 = (weight * residual**2).sum(axis=(1, 2)) / np.maximum((weight > 0).sum(axis=(1, 2)) - 3, 1)
    filled = np.where(weight > 0, stamps.data, expected)
    shapes = []
    for images in (filled, expected):
        centred = np.full(images.shape, np.nan)
        good = ~fit.failed
        centred[good] = shift_images(images[good], (stamps.column - fit.x)[good], (stamps.row - fit.y)[good])
        ixx, iyy, ixy = second_moments(np.where(np.isfinite(centred), centred, 0.0))
        trace = ixx + iyy
        shapes.append((np.sqrt(trace), (ixx - iyy) / trace, 2.0 * ixy / trace))
    (size, e1, e2), (model_size, model_e1, model_e2) = shapes
    peak = np.abs(residual).reshape(n, -1).max(axis=1) / expected.reshape(n, -1).max(axis=1)
    return _Residuals(chi2, size / model_size - 1.0, e1 - model_e1, e2 - model_e2, peak)


def _outliers(residuals: _Residuals, snr: np.ndarray) -> np.ndarray:
    def spread(values: np.ndarray) -> tuple[float, float]:
        middle = float(np.nanmedian(values))
        return middle, float(1.4826 * np.nanmedian(np.abs(values - middle)))

    outlier = np.zeros(len(residuals.chi2), dtype=bool)
    for values, least in (
        (residuals.size, _LEAST_SIZE_RESIDUAL),
        (residuals.e1, _LEAST_SHAPE_RESIDUAL),
        (residuals.e2, _LEAST_SHAPE_RESIDUAL),
    ):
        middle, scatter = spread(values)
        # The error of a relative width or an ellipticity is about the inverse signal-to-noise ratio.
        allowed = np.maximum(_CLIP * scatter, least + 3.0 / snr)
        outlier |= ~(np.abs(values - middle) < allowed)
    middle, scatter = spread(np.log(residuals.chi2))
    outlier |= ~(np.log(residuals.chi2) < max(middle, 0.0) + max(_CLIP * scatter, np.log(2.0)))
    return outlier


def _add_wings(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    stars: StarCandidates,
    index: np.ndarray,
    fit: _Fit,
    size: int,
) -> tuple[PixelBasisPsf, float]:
    """Continue the PSF beyond its grid by the stars' mean profile, where there is significant light."""
    core = fit.psf
    if size <= core.size:
        return core, 0.0
    keep = ~fit.failed & stars.used[index]
    index, flux = index[keep], fit.flux[keep]
    stamps = _cut(image, variance, bad, stars, index, size=size)
    grid = np.arange(size) - size // 2
    outside = (np.abs(grid)[None, :] > core.size // 2) | (np.abs(grid)[:, None] > core.size // 2)
    radius = np.hypot(grid[None, :], grid[:, None])
    reach = int(np.ceil(stars.fwhm))
    # Light of neighbours reaches beyond the pixels that were detected as theirs, and changes little over a stamp:
    # a constant a star is fitted with the profile.
    near = scipy.ndimage.binary_dilation(
        _foreign(stars, index, size), np.ones((1, 2 * reach + 1, 2 * reach + 1))
    )
    # Unlike in the core the noise of the sky is all there is: bright stars count in full.
    full = np.maximum(1.0, (stars.snr[index] / _MAX_SNR) ** 2)[:, None, None]
    # The rim of the grid is fitted too: it ties the wing to the core where the light beyond is too faint for a slope.
    fitted = radius > core.size // 2 - _WING_OVERLAP
    weight = np.where(fitted & ~near, stamps.weight * full, 0.0)
    scaled = flux[:, None, None]
    mean = (weight * scaled * stamps.data).sum(axis=0) / np.maximum((weight * scaled**2).sum(axis=0), 1e-300)
    pull = (stamps.data - scaled * mean) * np.sqrt(weight)
    weight = np.where(np.abs(pull) < _CLIP, weight, 0.0)
    total = np.maximum(weight.sum(axis=(1, 2), keepdims=True), 1e-300)
    level = (weight * stamps.data).sum(axis=(1, 2), keepdims=True) / total
    middle = core.size // 2
    best: tuple[float, float, np.ndarray] | None = None
    for slope in _WING_SLOPES:
        shape = (np.maximum(radius, 1.0) / middle) ** -slope
        profile = scaled * (shape - (weight * shape).sum(axis=(1, 2), keepdims=True) / total)
        norm = float((weight * profile**2).sum())
        if not norm > 0:
            return core, 0.0
        amplitude = float((weight * profile * (stamps.data - level)).sum()) / norm
        gain = amplitude**2 * norm
        if best is None or gain > best[0]:
            best = (gain, amplitude, shape)
    assert best is not None
    _, amplitude, shape = best
    beyond = float((np.where(outside, weight, 0.0) * (scaled * amplitude * shape) ** 2).sum())
    if not (amplitude > 0 and np.sqrt(beyond) > _WING_SNR):
        return core, 0.0
    wing = np.where(outside, amplitude * shape, 0.0)
    wing = np.where(radius <= size // 2 + 0.5, wing, 0.0)
    padded = core.resized(size)
    basis = padded.basis.copy()
    basis[0] += wing
    fraction = float(wing.sum())
    return replace(padded, basis=basis / (1.0 + fraction)), fraction


def _foreign(stars: StarCandidates, index: np.ndarray, size: int) -> np.ndarray:
    """Return which pixels of the stamps belong to other sources."""
    half = size // 2
    column, row = np.rint(stars.x[index]).astype(int), np.rint(stars.y[index]).astype(int)
    offset = np.arange(size)
    owner = np.pad(stars.segments, half)[
        row[:, None, None] + offset[None, :, None], column[:, None, None] + offset[None, None, :]
    ]
    return (owner != 0) & (owner != stars.label[index][:, None, None])


def _table(stars: StarCandidates, bounds: Box) -> Table:
    n = len(stars.x)
    table = Table()
    table["x"] = (stars.x + bounds.x.start) * u.pix
    table["y"] = (stars.y + bounds.y.start) * u.pix
    table["flux"] = stars.flux
    table["snr"] = stars.snr
    table["size"] = stars.size * u.pix
    table["used"] = stars.used
    table["rejected"] = stars.rejected
    for name in ("chi2PerDof", "sizeResidual", "e1Residual", "e2Residual", "peakResidual"):
        table[name] = np.full(n, np.nan)
    descriptions = {
        "x": "Position.",
        "y": "Position.",
        "flux": "Flux in a circle with the radius of the FWHM, in the unit of the image.",
        "snr": "Signal-to-noise ratio of flux.",
        "size": "Gaussian width of the adaptive moments.",
        "used": "Whether the PSF was measured from this source.",
        "rejected": "Why not; empty for stars in use.",
        "chi2PerDof": "Reduced chi-square of star minus model, weights scaled down for bright stars.",
        "sizeResidual": "Width of the star over that of the model, minus one.",
        "e1Residual": "Ellipticity (Ixx - Iyy) / (Ixx + Iyy), star minus model.",
        "e2Residual": "Ellipticity 2 Ixy / (Ixx + Iyy), star minus model.",
        "peakResidual": "Largest absolute residual over the model's peak.",
    }
    for name, text in descriptions.items():
        table[name].description = text
    return table


def _fill_residuals(table: Table, index: np.ndarray, fit: _Fit, residuals: _Residuals) -> None:
    good = ~fit.failed
    for name, values in (
        ("chi2PerDof", residuals.chi2),
        ("sizeResidual", residuals.size),
        ("e1Residual", residuals.e1),
        ("e2Residual", residuals.e2),
        ("peakResidual", residuals.peak),
    ):
        table[name][index[good]] = values[good]
