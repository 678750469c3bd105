"""Sources on which two images are matched: found, measured in both, and each kept or rejected with a reason."""

from __future__ import annotations

__all__ = ["KernelSources", "select_kernel_sources"]

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import sep
from astropy.table import Table

from ..psf import PsfFit, fwhm
from ._errors import TooFewKernelSourcesError
from ._image_pair import ImagePair
from ._star_fit import fit_stars

_STAR_WIDTH_TOLERANCE = 0.04
"""Largest fractional width excess of a star over that of the others, beyond its error. Galaxies that a survey resolves
have more."""

_LARGEST_PSF_ERROR = 0.15
"""Fractional error of a PSF model's width that stars are still recognised with."""

_LOCUS_STARS = 4
"""Fewest bright sources from which the width of stars is told; with fewer the PSF model is believed."""

_FIT_RADIUS_IN_FWHM = 2.0

_ENOUGH = "enough others nearby"

_DETECTION_THRESHOLD = 5.0
"""Significance of single pixels in the science image above which sources are looked for."""

_STRIDE = 3
"""Distance of the pixels from which the background is measured before detection."""

_CELLS = 8
"""Cells a side of the grid over which sources are spread."""


@dataclass(frozen=True)
class KernelSources:
    """Candidate sources and what became of them; every array has shape (N,).

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Positions [pixel], those of the science image where the fit succeeded.
    offset_x, offset_y : `numpy.ndarray`
        Science minus template position [pixel].
    science, template : `PsfFit`
        Fits in the two images.
    is_star : `numpy.ndarray`, bool
        Whether the width is the PSF's in both images.
    rejected : `numpy.ndarray`, str
        Reason for rejection, empty for sources in use.
    """

    x: np.ndarray
    y: np.ndarray
    offset_x: np.ndarray
    offset_y: np.ndarray
    science: PsfFit
    template: PsfFit
    is_star: np.ndarray
    rejected: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """Whether each source is in use."""
        return self.rejected == ""

    @property
    def snr(self) -> np.ndarray:
        """Signal-to-noise ratio in the worse of the two images."""
        return np.fmin(
            self.science.flux / self.science.flux_error, self.template.flux / self.template.flux_error
        )

    def reject(self, which: np.ndarray, reason: str) -> KernelSources:
        """Return the sources with some of those in use rejected for a reason."""
        return replace(self, rejected=np.where(which & self.used, reason, self.rejected))

    def to_table(self) -> Table:
        """Return the sources as a table, one row a candidate."""
        table = Table()
        table["x"] = self.x * u.pix
        table["y"] = self.y * u.pix
        for name, fit in (("science", self.science), ("template", self.template)):
            table[f"{name}Flux"] = fit.flux * u.nJy
            table[f"{name}FluxErr"] = fit.flux_error * u.nJy
            table[f"{name}Width"] = fit.width
        table["offsetX"] = self.offset_x * u.pix
        table["offsetY"] = self.offset_y * u.pix
        table["offsetErr"] = np.hypot(self.science.dx_error, self.template.dx_error) * u.pix
        table["isStar"] = self.is_star
        table["used"] = self.used
        table["rejected"] = self.rejected.astype("U32")
        return table


def select_kernel_sources(
    pair: ImagePair,
    candidates: Table | None = None,
    *,
    min_snr: float,
    max_sources: int,
    stars_only: bool,
    min_sources: int,
) -> KernelSources:
    """Find sources and select those fit to match the images on.

    Parameters
    ----------
    pair : `ImagePair`
        The images.
    candidates : `astropy.table.Table`, optional
        Candidates with ``x`` and ``y`` [pixel]; detected in the science image when omitted.
    min_snr : `float`
        Least signal-to-noise ratio in both images.
    max_sources : `int`
        Most sources to use; the brightest of each part of the image are kept.
    stars_only : `bool`
        Reject sources wider than the PSF.
    min_sources : `int`
        Fewest sources to go on with.

    Raises
    ------
    TooFewKernelSourcesError
        If fewer are left; its metadata counts the reasons.
    """
    if candidates is None:
        x, y = _detect(pair)
    else:
        missing = {"x", "y"} - set(candidates.colnames)
        if missing:
            raise ValueError(f"The table of kernel sources lacks the columns {sorted(missing)}.")
        x, y = (np.asarray(candidates[name], dtype=float) for name in ("x", "y"))
    if len(x) == 0:
        raise TooFewKernelSourcesError(
            "No sources were found to match the images on (above 5 sigma in single pixels of the science image).",
            n_candidates=0,
            n_used=0,
        )
    radius = _FIT_RADIUS_IN_FWHM * float(
        max(fwhm(pair.science_psf.centre()), fwhm(pair.template_psf.centre()))
    )
    # Of every part of the image no more are fitted than could be used twice over.
    row, column = (
        np.clip(np.nan_to_num(np.rint(position - start)).astype(int), 0, length - 1)
        for position, start, length in zip(
            (y, x), (pair.bounds.y.start, pair.bounds.x.start), pair.shape, strict=True
        )
    )
    near = _brightest_by_cell(
        column / pair.shape[1], row / pair.shape[0], pair.science[row, column], 2 * max_sources
    )
    science_x, science_y, science = fit_stars(
        pair.science,
        pair.science_variance,
        pair.bad,
        pair.science_psf,
        x,
        y,
        radius,
        bounds=pair.bounds,
        chosen=near,
    )
    template_x, template_y, template = fit_stars(
        pair.template,
        pair.template_variance,
        pair.bad,
        pair.template_psf,
        x,
        y,
        radius,
        bounds=pair.bounds,
        chosen=near,
    )
    fitted = np.isfinite(science_x + science_y)
    sources = KernelSources(
        x=np.where(fitted, science_x, x),
        y=np.where(fitted, science_y, y),
        offset_x=science_x - template_x,
        offset_y=science_y - template_y,
        science=science,
        template=template,
        is_star=_is_star(science) & _is_star(template),
        rejected=np.where(near, "", _ENOUGH).astype("U32"),
    )
    margin = int(np.ceil(1.5 * radius))
    box = pair.bounds
    sources = sources.reject(~np.isfinite(science.flux) | ~np.isfinite(template.flux), "fit failed")
    sources = sources.reject((science.good_fraction < 1) | (template.good_fraction < 1), "masked pixels")
    sources = sources.reject(
        (sources.x < box.x.start + margin)
        | (sources.x >= box.x.stop - margin)
        | (sources.y < box.y.start + margin)
        | (sources.y >= box.y.stop - margin),
        "near the edge",
    )
    sources = sources.reject(~(sources.snr >= min_snr), "low signal-to-noise")
    moved = np.hypot(sources.offset_x, sources.offset_y)
    sources = sources.reject(~(moved < radius), "centroids disagree")
    if stars_only:
        sources = sources.reject(~sources.is_star, "wider than the PSF")
    sources = _thin_out(sources, pair, max_sources)
    check_enough(sources, min_sources)
    return sources


def check_enough(sources: KernelSources, min_sources: int, accept: str = "") -> None:
    """Raise `TooFewKernelSourcesError` when fewer than ``min_sources`` are in use or rejected for ``accept`` only."""
    n_used = int((sources.used | (sources.rejected == accept)).sum())
    if n_used >= min_sources:
        return
    reasons, counts = np.unique(sources.rejected[~sources.used], return_counts=True)
    text = ", ".join(f"{count} {reason}" for reason, count in zip(reasons, counts, strict=True))
    raise TooFewKernelSourcesError(
        f"Only {n_used} of {len(sources.x)} candidate sources can be used to match the images; at least "
        f"{min_sources} are needed (rejected: {text or 'none'}).",
        n_candidates=len(sources.x),
        n_used=n_used,
    )


def _detect(pair: ImagePair) -> tuple[np.ndarray, np.ndarray]:
    # A pixel in so many tells the background of cells that are as many times larger.
    sample = (slice(None, None, _STRIDE), slice(None, None, _STRIDE))
    coarse = sep.Background(
        np.ascontiguousarray(pair.science[sample]), mask=np.ascontiguousarray(pair.science_bad[sample])
    ).back()
    background = np.repeat(np.repeat(coarse, _STRIDE, axis=0), _STRIDE, axis=1)
    height, width = pair.shape
    # What is faint in a pixel is not bright enough to match images on: no smoothing before detection.
    catalogue = sep.extract(
        pair.science - background[:height, :width],
        _DETECTION_THRESHOLD,
        err=np.sqrt(pair.science_variance),
        mask=pair.science_bad,
        minarea=5,
        filter_kernel=None,
        deblend_cont=0.005,
    )
    return catalogue["x"] + pair.bounds.x.start, catalogue["y"] + pair.bounds.y.start


def _is_star(fit: PsfFit) -> np.ndarray:
    bright = fit.width[(fit.flux > 50 * fit.flux_error) & (np.abs(fit.width) < _LARGEST_PSF_ERROR)]
    # Errors of the PSF model make all stars as much too wide: they are where bright sources crowd, however many
    # galaxies of all widths there are.
    locus = 0.0
    if len(bright) >= _LOCUS_STARS:
        near = np.abs(bright[:, None] - bright[None, :]) < _STAR_WIDTH_TOLERANCE
        densest = np.lexsort((np.abs(bright), -near.sum(axis=1)))[0]
        locus = float(np.median(bright[near[densest]]))
    tolerance = _STAR_WIDTH_TOLERANCE + 3.0 * fit.width_error
    return np.isfinite(fit.width) & (np.abs(fit.width - locus) < tolerance)


def _thin_out(sources: KernelSources, pair: ImagePair, max_sources: int) -> KernelSources:
    """Keep the brightest sources in each cell of a grid, so that those in use are spread over the image."""
    used = np.flatnonzero(sources.used)
    if len(used) <= max_sources:
        return sources
    box = pair.bounds
    kept = _brightest_by_cell(
        (sources.x[used] - box.x.start) / box.x.size,
        (sources.y[used] - box.y.start) / box.y.size,
        sources.snr[used],
        max_sources,
    )
    surplus = np.zeros(len(sources.x), dtype=bool)
    surplus[used[~kept]] = True
    return sources.reject(surplus, _ENOUGH)


def _brightest_by_cell(u: np.ndarray, v: np.ndarray, brightness: np.ndarray, number: int) -> np.ndarray:
    """Return which of the sources at (u, v) in the unit square are the brightest of their cell of a grid."""
    per_cell = max(1, number // _CELLS**2)
    cell = (v * _CELLS).astype(int) * _CELLS + (u * _CELLS).astype(int)
    order = np.lexsort((-brightness, cell))
    rank = np.arange(len(cell)) - np.searchsorted(cell[order], cell[order])
    kept = np.zeros(len(cell), dtype=bool)
    kept[order[rank < per_cell]] = True
    return kept
