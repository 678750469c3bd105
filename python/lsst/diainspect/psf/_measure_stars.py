"""Finds the stars of an image from which its PSF can be measured, and says why the other sources are not used.

Stars share one size whatever their brightness: they are the sources in the narrowest, most populated range of sizes
among the bright ones. Used are those that are bright, unsaturated, isolated and away from the edges.
"""

from __future__ import annotations

__all__ = ["StarCandidates", "find_stars"]

from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import sep

from ._fourier_shift import shift_images
from ._shape import second_moments

_DETECTION_THRESHOLD = 5.0
"""Significance of a pixel, smoothed with the detection kernel, that starts a source."""

_WINDOW = 0.10
"""Width of the range of sizes that may hold the stars, as a fraction of the size."""

_LOCUS_TOLERANCE = 0.05
"""Largest relative distance from the stellar size, beyond noise: PSFs vary by a few per cent over a detector."""

_LOCUS_SNR = 50.0
"""Signal-to-noise ratio of the sources that define the stellar size, when there are enough of them."""

_NEIGHBOUR_FLUX = 0.03
"""Light of neighbours within the stamp, relative to the star's, beyond which a star is not isolated; what there is
below that is left out of the fit."""

_VARIABLE_SOURCES = 40
"""Fewest bright sources from which a size that varies over the image is determined."""

_SHAPE_SIZE = 25
"""Side of the stamps on which sizes are measured [pixel]."""

_FWHM_OF_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class StarCandidates:
    """Sources of an image; arrays have shape (N,).

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Windowed positions in array coordinates [pixel].
    flux, snr : `numpy.ndarray`
        Flux in a circle of two FWHM diameter [unit of the image] and its signal-to-noise ratio.
    size : `numpy.ndarray`
        Gaussian width of the adaptive moments [pixel]; NaN where it was not measured.
    label : `numpy.ndarray`, int
        Label in ``segments``.
    segments : `numpy.ndarray`, (height, width), int
        Which source each pixel belongs to; 0 for sky.
    rejected : `numpy.ndarray`, str
        Why a source is not used; empty for stars in use.
    stellar_size : `numpy.ndarray`
        Size that a star has at each source's position [pixel].
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    snr: np.ndarray
    size: np.ndarray
    label: np.ndarray
    segments: np.ndarray
    rejected: np.ndarray
    stellar_size: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """Whether each source is in use."""
        return self.rejected == ""

    @property
    def fwhm(self) -> float:
        """Full width at half maximum of the stars in the middle of their distribution [pixel]."""
        return float(_FWHM_OF_SIGMA * np.median(self.stellar_size))

    def reject(self, which: np.ndarray, reason: str) -> StarCandidates:
        """Return the sources with some of those in use rejected for a reason."""
        return replace(self, rejected=np.where(which & self.used, reason, self.rejected))

    def reasons(self) -> str:
        """Count the reasons in words."""
        names, counts = np.unique(self.rejected[~self.used], return_counts=True)
        order = np.argsort(-counts)
        return ", ".join(f"{counts[i]} {names[i]}" for i in order) or "none"


def find_stars(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    *,
    min_snr: float,
    max_stars: int,
) -> StarCandidates:
    """Find sources and select the stars among them.

    Parameters
    ----------
    image, variance : `numpy.ndarray`, (height, width)
        Background-subtracted image and its variance.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels not to use, saturated ones included.
    min_snr : `float`
        Least signal-to-noise ratio of a star.
    max_stars : `int`
        Most stars to use, the brightest in each part of the image.
    """
    pixels = np.ascontiguousarray(np.where(bad, 0.0, image), dtype=np.float32)
    noise = np.sqrt(np.where(bad | ~(variance > 0), np.median(variance[~bad]), variance)).astype(np.float32)
    sep.set_extract_pixstack(max(300_000, image.size // 2))
    catalogue, segments = sep.extract(
        pixels,
        _DETECTION_THRESHOLD,
        err=noise,
        mask=bad,
        minarea=5,
        deblend_cont=0.005,
        segmentation_map=True,
    )
    n = len(catalogue)
    x, y = np.asarray(catalogue["x"], float), np.asarray(catalogue["y"], float)
    sources = StarCandidates(
        x=x,
        y=y,
        flux=np.asarray(catalogue["flux"], float),
        snr=np.zeros(n),
        size=np.full(n, np.nan),
        label=np.arange(1, n + 1),
        segments=segments,
        rejected=np.full(n, "", dtype="U32"),
        stellar_size=np.full(n, np.nan),
    )
    if n == 0:
        return sources
    # A first idea of the size from the isophotes of the brighter half, refined by windowed moments.
    bright = catalogue["flux"] >= np.median(catalogue["flux"])
    guess = float(np.median(np.sqrt(catalogue["a"] * catalogue["b"])[bright]))
    x, y, _ = sep.winpos(pixels, x, y, np.full(n, guess), mask=bad)
    x, y = np.asarray(x), np.asarray(y)
    lost = ~(np.hypot(x - catalogue["x"], y - catalogue["y"]) < 2.0 * guess + 1.0)
    x, y = np.where(lost, catalogue["x"], x), np.where(lost, catalogue["y"], y)
    size = _sizes(np.where(bad, 0.0, image), segments, x, y, sources.label)
    radius = (
        1.0
        * _FWHM_OF_SIGMA
        * (float(np.nanmedian(size[bright])) if np.isfinite(size[bright]).any() else guess)
    )
    flux, error, _ = sep.sum_circle(pixels, x, y, radius, err=noise, mask=bad)
    sources = replace(sources, x=x, y=y, flux=np.asarray(flux), snr=np.asarray(flux / error), size=size)
    stellar = _stellar_size(sources, (image.shape[0], image.shape[1]))
    sources = replace(sources, stellar_size=stellar)
    if not np.all(np.isfinite(stellar)):
        return sources.reject(np.ones(n, bool), "no size")
    return _select(sources, image, bad, min_snr=min_snr, max_stars=max_stars)


def _stamps(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut stamps (N, size, size) around the nearest pixels, zero beyond the edge; return the centres' indices too."""
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    half = size // 2
    padded = np.pad(image, half)
    offset = np.arange(size)
    height, width = image.shape
    column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    stamps = padded[row[:, None, None] + offset[None, :, None], column[:, None, None] + offset[None, None, :]]
    return stamps, column, row


def _sizes(
    image: np.ndarray, segments: np.ndarray, x: np.ndarray, y: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Measure the Gaussian width of each source, with its neighbours' pixels set to zero [pixel]."""
    stamps, column, row = _stamps(image, x, y, _SHAPE_SIZE)
    owner, _, _ = _stamps(segments, x, y, _SHAPE_SIZE)
    stamps = np.where((owner != 0) & (owner != label[:, None, None]), 0.0, stamps).astype(float)
    total = stamps.sum(axis=(1, 2))
    good = total > 0
    size = np.full(len(x), np.nan)
    if good.any():
        centred = shift_images(stamps[good], (column - x)[good], (row - y)[good])
        # The start of the moments needs a positive sum after the shift too.
        ixx, iyy, ixy = second_moments(np.where(np.isfinite(centred), centred, 0.0))
        with np.errstate(invalid="ignore"):
            size[good] = (ixx * iyy - ixy**2) ** 0.25
    return size


def _stellar_size(sources: StarCandidates, shape: tuple[int, int]) -> np.ndarray:
    """Return the size of a star at the position of each source.

    That is one size for the image, and where there are sources enough to tell, a polynomial through the sizes in its
    parts: wide fields may have stars twice as wide on one side as on the other.
    """
    measured = np.isfinite(sources.size) & (sources.size > 0.5) & (sources.snr > 20.0)
    usable = measured & (sources.snr > _LOCUS_SNR)
    if usable.sum() < 10:
        usable = measured
    constant = np.full(len(sources.x), _narrowest_cluster(sources.size[usable]))
    if usable.sum() < _VARIABLE_SOURCES:
        return constant
    u, v = 2.0 * sources.x / shape[1] - 1.0, 2.0 * sources.y / shape[0] - 1.0
    column = np.clip((1.5 * (u + 1.0)).astype(int), 0, 2)
    row = np.clip((1.5 * (v + 1.0)).astype(int), 0, 2)
    start = constant.copy()
    for cell in range(9):
        inside = 3 * row + column == cell
        if (inside & usable).sum() >= 5:
            start[inside] = _narrowest_cluster(sources.size[inside & usable])
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    model = start
    for tolerance in (2.0 * _WINDOW, 1.5 * _WINDOW, _WINDOW, _WINDOW):
        near = usable & (np.abs(sources.size / model - 1.0) < tolerance)
        if near.sum() < 0.5 * _VARIABLE_SOURCES:
            return constant
        solution = np.linalg.lstsq(design[near], np.log(sources.size[near]), rcond=None)[0]
        model = np.exp(np.clip(design @ solution, -1.0, 3.0))
    return model


def _narrowest_cluster(sizes: np.ndarray) -> float:
    """Return the centre of the most populated narrow range of sizes; the smaller one when in doubt."""
    sizes = np.sort(sizes)
    if len(sizes) == 0:
        return float("nan")
    upper = np.searchsorted(sizes, sizes * (1.0 + _WINDOW), side="right")
    count = upper - np.arange(len(sizes))
    # The first start with nearly the highest count: galaxies are wider than stars, never narrower.
    start = int(np.argmax(count >= 0.8 * count.max()))
    best = start + int(np.argmax(count[start : start + max(1, count[start])]))
    return float(np.median(sizes[best : upper[best]]))


def _select(
    sources: StarCandidates, image: np.ndarray, bad: np.ndarray, *, min_snr: float, max_stars: int
) -> StarCandidates:
    half = int(np.ceil(2.0 * sources.fwhm))
    side = 2 * half + 1
    height, width = image.shape
    near_bad = scipy.ndimage.binary_dilation(bad, np.ones((3, 3), bool))
    core = _stamps(near_bad, sources.x, sources.y, 2 * int(np.ceil(sources.fwhm)) + 1)[0].any(axis=(1, 2))
    sources = sources.reject(~(sources.snr >= min_snr), "low signal-to-noise")
    sources = sources.reject(core, "bad or saturated pixels")
    sources = sources.reject(
        (sources.x < half)
        | (sources.y < half)
        | (sources.x > width - 1 - half)
        | (sources.y > height - 1 - half),
        "near the edge",
    )
    relative = sources.size / sources.stellar_size - 1.0
    # The relative error of a Gaussian's width is about the inverse signal-to-noise ratio.
    tolerance = _LOCUS_TOLERANCE + 3.0 / np.maximum(sources.snr, 1.0)
    sources = sources.reject(~np.isfinite(relative), "no size")
    sources = sources.reject(relative > tolerance, "wider than stars")
    sources = sources.reject(relative < -tolerance, "narrower than stars")
    stamps = _stamps(np.where(bad, 0.0, image), sources.x, sources.y, side)[0]
    owner = _stamps(sources.segments, sources.x, sources.y, side)[0]
    others = (owner != 0) & (owner != sources.label[:, None, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        neighbour = np.where(others, stamps, 0.0).sum(axis=(1, 2)) / sources.flux
    sources = sources.reject(~(neighbour < _NEIGHBOUR_FLUX), "neighbours")
    return _thin_out(sources, (height, width), max_stars)


def _thin_out(sources: StarCandidates, shape: tuple[int, int], max_stars: int) -> StarCandidates:
    """Keep the brightest stars, taking turns between the cells of a grid."""
    used = np.flatnonzero(sources.used)
    if len(used) <= max_stars:
        return sources
    n_side = 5
    column = np.minimum((sources.x[used] * n_side / shape[1]).astype(int), n_side - 1)
    row = np.minimum((sources.y[used] * n_side / shape[0]).astype(int), n_side - 1)
    cell = row * n_side + column
    rank = np.empty(len(used), dtype=int)
    order = np.lexsort((-sources.snr[used], cell))
    rank[order] = np.arange(len(used)) - np.searchsorted(cell[order], cell[order])
    keep = np.lexsort((-sources.snr[used], rank))[:max_stars]
    surplus = np.zeros(len(sources.x), dtype=bool)
    surplus[used] = True
    surplus[used[keep]] = False
    return sources.reject(surplus, "enough others")
