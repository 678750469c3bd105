"""Positions and PSF fluxes of peaks, of the lobes of dipoles and of given places."""

from __future__ import annotations

__all__ = ["Positions", "locate_sources", "measure_sources"]

from dataclasses import dataclass

import numpy as np
from lsst.images import SkyProjection

from ..linear_fit import fit_linear
from ..masks import words_masked_by
from ..psf import disk_mask, residual_modes
from ..stamps import sky_derivatives
from ._cutouts import Cutouts, FittedImage
from ._deblend import Blends, JointFit, fit_jointly, subtract_neighbours
from ._pixel_flags import measure_pixel_flags

_MAX_STEP = 1.0
"""A fitted centroid farther than this from the peak [pixel] is not that peak's."""

_JOINT_FITS = 2
"""Times that positions and joint fluxes of blended peaks are fitted in turn."""

_CHUNK = 2048
"""Sources measured at a time, which keeps memory flat: some 200 MB at 41 pixels."""


@dataclass(frozen=True)
class Positions:
    """Where N peaks or sources lie.

    Parameters
    ----------
    x, y : `numpy.ndarray`, (N,)
        Positions, in the image's own frame [pixel].
    covariance : `numpy.ndarray`, (N, 2, 2)
        Their covariance [pixel^2]; NaN where no fit of the position was possible.
    failed : `numpy.ndarray`, (N,), bool
        The fit of the position failed.
    """

    x: np.ndarray
    y: np.ndarray
    covariance: np.ndarray
    failed: np.ndarray


def locate_sources(
    image: FittedImage, x: np.ndarray, y: np.ndarray, score: np.ndarray, source: np.ndarray, blends: Blends
) -> tuple[Positions, Positions, JointFit]:
    """Fit positions of peaks, and from those of its lobes that of each source.

    Peaks that stand alone are fitted once, blended ones in turn with their joint fluxes, each on its stamp without
    the light of the others. The lobes of a dipole stay at their peaks: two close lobes of opposite sign would run
    into each other while their fluxes grow. Their source lies at the mean of the lobes, weighted by the squared
    score, which is the inverse variance of their positions: between two like lobes, at a bright source that has
    a faint lobe beside it.

    Parameters
    ----------
    image : `FittedImage`
        Image.
    x, y, score : `numpy.ndarray`, (N,)
        Peaks: positions [pixel] and signed heights.
    source : `numpy.ndarray`, (N,), int
        Peak that each peak belongs to, its own for a source (`merge_lobes`).
    blends : `Blends`
        Which peaks overlap.

    Returns
    -------
    peaks : `Positions`
        Of the peaks.
    sources : `Positions`
        Of the sources, in the order of ``np.unique(source)``.
    joint : `JointFit`
        Joint fluxes of the peaks.
    """
    n = len(x)
    rows, row, n_lobes = np.unique(source, return_inverse=True, return_counts=True)
    is_lobe = n_lobes[row] > 1
    blended = blends.group_sizes > 1 if n else np.zeros(0, dtype=bool)
    peaks = Positions(x.copy(), y.copy(), np.full((n, 2, 2), np.nan), np.zeros(n, dtype=bool))
    directed = np.concatenate([blends.pairs, blends.pairs[:, ::-1]])
    joint = fit_jointly(image, x, y, blends)
    for turn in range(_JOINT_FITS if blended.any() else 1):
        wanted = np.flatnonzero(blended if turn else np.ones(n, dtype=bool))
        found = []
        for start in range(0, len(wanted), _CHUNK):
            some = wanted[start : start + _CHUNK]
            cut = image.cut(peaks.x[some], peaks.y[some])
            place = np.full(n, -1)
            place[some] = np.arange(len(some))
            here = directed[place[directed[:, 0]] >= 0]
            _clean(cut, image, place[here[:, 0]], here[:, 1], peaks, joint)
            found.append(_fit_positions(image, cut, peaks.x[some], peaks.y[some]))
        for start, (step, covariance, failed) in zip(range(0, len(wanted), _CHUNK), found, strict=True):
            some = wanted[start : start + _CHUNK]
            step[failed | is_lobe[some]] = 0.0
            covariance[failed & ~is_lobe[some]] = np.nan
            peaks.x[some] += step[:, 0]
            peaks.y[some] += step[:, 1]
            peaks.covariance[some] = covariance
            peaks.failed[some] = failed
        if blended.any():
            joint = fit_jointly(image, peaks.x, peaks.y, blends)

    weight = np.asarray(score, dtype=float) ** 2
    total = np.bincount(row, weight, minlength=len(rows))
    share = weight / total[row]
    x, y = (np.bincount(row, share * position, minlength=len(rows)) for position in (peaks.x, peaks.y))
    # The noise of a score, of unit variance, moves the mean as well: d mean / d s = 2 s (x - mean) / sum s^2.
    lever = 2.0 * np.stack([peaks.x - x[row], peaks.y - y[row]], axis=-1) / total[row][:, None]
    scatter = weight[:, None, None] * lever[:, :, None] * lever[:, None, :]
    covariance = np.zeros((len(rows), 2, 2))
    np.add.at(covariance, row, share[:, None, None] ** 2 * peaks.covariance + scatter)
    return peaks, Positions(x, y, covariance, ~np.isfinite(covariance).all(axis=(1, 2))), joint


def measure_sources(
    image: FittedImage,
    sky_projection: SkyProjection,
    sources: Positions,
    owner: np.ndarray,
    peaks: Positions,
    blends: Blends,
    joint: JointFit,
) -> dict[str, np.ndarray]:
    """Measure PSF fluxes at positions, without the light of other sources, and the columns that go with them.

    Parameters
    ----------
    image : `FittedImage`
        Image.
    sky_projection : `lsst.images.SkyProjection`
        Pixels to sky.
    sources : `Positions`
        Sources to measure; those beyond the owners' have no peaks.
    owner : `numpy.ndarray`, (n_peaks,), int
        Which source each peak belongs to.
    peaks, blends, joint : `Positions`, `Blends`, `JointFit`
        The peaks, which overlap, and their joint fluxes.

    Returns
    -------
    columns : `dict` [`str`, `numpy.ndarray`]
        Columns of `DIA_SOURCE_COLUMNS`, by name.
    """
    n = len(sources.x)
    directed = np.concatenate([blends.pairs, blends.pairs[:, ::-1]])
    light = np.stack([owner[directed[:, 0]], directed[:, 1]], axis=-1)
    light = np.unique(light[owner[directed[:, 0]] != owner[directed[:, 1]]], axis=0)
    parts = []
    for start in range(0, n, _CHUNK):
        rows = slice(start, start + _CHUNK)
        cut = image.cut(sources.x[rows], sources.y[rows])
        here = light[(light[:, 0] >= start) & (light[:, 0] < start + _CHUNK)]
        _clean(cut, image, here[:, 0] - start, here[:, 1], peaks, joint)
        parts.append(_measure(image, cut, sky_projection, sources, rows))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # A source that was fitted jointly knows its flux less well than one fit alone says; the lobes of a dipole were
    # fitted jointly as well, but their source has one flux.
    n_lobes = np.bincount(owner, minlength=n)
    single = np.flatnonzero((n_lobes[owner] == 1) & np.isfinite(joint.flux_error)) if len(owner) else owner
    columns["psfFluxErr"][owner[single]] = np.fmax(
        columns["psfFluxErr"][owner[single]], joint.flux_error[single]
    )
    return columns


def _clean(
    cut: Cutouts,
    image: FittedImage,
    rows: np.ndarray,
    neighbours: np.ndarray,
    peaks: Positions,
    joint: JointFit,
) -> None:
    """Take the light of neighbouring peaks from stamps."""
    subtract_neighbours(cut.pixels, cut.x0, cut.y0, rows, neighbours, image, peaks.x, peaks.y, joint.flux)


def _fit_positions(
    image: FittedImage, cut: Cutouts, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit the PSF and its two shift modes to the pixels within a FWHM; return steps, covariances and failures."""
    n, half = len(x), image.size // 2
    dx, dy = x - cut.x0 - half, y - cut.y0 - half
    core = np.where(disk_mask(image.size, dx, dy, image.width), cut.weight, 0.0).reshape(n, -1)
    model = image.models(x, y, cut.x0, cut.y0)
    modes = residual_modes(model, dx, dy)[:, :2]
    design = np.concatenate([model[:, None], modes], axis=1).reshape(n, 3, -1)
    fit = fit_linear(cut.pixels.reshape(n, -1), design, core)
    with np.errstate(invalid="ignore", divide="ignore"):
        step = fit.amplitude[:, 1:] / fit.amplitude[:, :1]
        covariance = fit.covariance[:, 1:, 1:] / (fit.amplitude[:, 0] ** 2)[:, None, None]
    failed = ~(np.hypot(step[:, 0], step[:, 1]) < _MAX_STEP)
    return step, covariance, failed


def _measure(
    image: FittedImage, cut: Cutouts, sky_projection: SkyProjection, sources: Positions, rows: slice
) -> dict[str, np.ndarray]:
    """Measure a chunk of sources on its stamps."""
    x, y, covariance = sources.x[rows], sources.y[rows], sources.covariance[rows]
    n = len(x)
    derivatives = sky_derivatives(sky_projection, x, y)
    on_sky = derivatives @ covariance @ derivatives.transpose(0, 2, 1)
    sky = sky_projection.pixel_to_sky(x=x, y=y)
    model = image.models(x, y, cut.x0, cut.y0)
    flux = fit_linear(cut.pixels.reshape(n, -1), model.reshape(n, 1, -1), cut.weight.reshape(n, -1))
    return {
        "x": x,
        "y": y,
        "xErr": np.sqrt(covariance[:, 0, 0]),
        "yErr": np.sqrt(covariance[:, 1, 1]),
        "centroid_flag": sources.failed[rows],
        "ra": sky.ra.deg,
        "dec": sky.dec.deg,
        "raErr": np.sqrt(on_sky[:, 0, 0]),
        "decErr": np.sqrt(on_sky[:, 1, 1]),
        "ra_dec_Cov": on_sky[:, 0, 1],
        "psfFlux": flux.amplitude[:, 0],
        "psfFluxErr": flux.error[:, 0],
        "psfChi2": flux.chi2,
        "psfNdata": flux.n_data,
        "psfFlux_flag": ~np.isfinite(flux.amplitude[:, 0]),
        "psfFlux_flag_noGoodPixels": flux.n_data == 0,
        "psfFlux_flag_edge": words_masked_by(cut.words, ("OFF_IMAGE",)).any(axis=(1, 2)),
        **measure_pixel_flags(cut.words, image.width),
    }
