"""PSF fits to sources of a full image."""

from __future__ import annotations

__all__ = ["fit_stars"]

from dataclasses import fields

import numpy as np
from lsst.images import Box

from ..psf import PixelBasisPsf, PsfFit, fit_psf
from ..stamps import gather_stamps, stamp_origin

_CHUNK = 64
"""Sources that are fitted at a time: their stamps and models stay in the processor's cache, and memory that is freed is
used again."""


def fit_stars(
    image: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray,
    psf: PixelBasisPsf,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    *,
    bounds: Box | None = None,
    chosen: np.ndarray | None = None,
    iterations: int = 3,
    other_variance: np.ndarray | None = None,
    factor: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, PsfFit]:
    """Fit sources with the PSF and its shift and width modes.

    Parameters
    ----------
    image, variance : `numpy.ndarray`, (height, width)
        Pixels and variances.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels to leave out.
    psf : `PixelBasisPsf`
        PSF.
    x, y : `numpy.ndarray`, (N,)
        Starting positions [pixel], in the frame of ``bounds``.
    radius : `float`
        Radius of the fitted disk [pixel].
    bounds : `lsst.images.Box`, optional
        Region of the image; that of the PSF when omitted.
    chosen : `numpy.ndarray`, (N,), bool, optional
        Sources to fit; all when omitted. What is returned for the others is NaN.
    iterations : `int`, optional
        Number of fits, each at the position that the one before found.
    other_variance : `numpy.ndarray`, (height, width), optional
        Variance to add.
    factor : `float`, optional
        Factor of that.

    Returns
    -------
    x, y : `numpy.ndarray`, (N,)
        Fitted centres [pixel]; NaN where a fit was not possible.
    fit : `PsfFit`
        The fits.
    """
    if chosen is not None and not chosen.all():
        found_x, found_y, some = fit_stars(
            image,
            variance,
            bad,
            psf,
            x[chosen],
            y[chosen],
            radius,
            bounds=bounds,
            iterations=iterations,
            other_variance=other_variance,
            factor=factor,
        )

        def spread_out(values: np.ndarray) -> np.ndarray:
            every = np.full(len(x), np.nan)
            every[chosen] = values
            return every

        every = {field.name: spread_out(getattr(some, field.name)) for field in fields(PsfFit)}
        return spread_out(found_x), spread_out(found_y), PsfFit(**every)
    box = psf.bounds if bounds is None else bounds
    x_first, y_first = box.x.start, box.y.start
    # Room for the disk to follow a centroid by a couple of pixels.
    size = 2 * int(np.ceil(radius)) + 5
    x0, y0 = stamp_origin(x, y, size)
    centre_x, centre_y = x0 + size // 2, y0 + size // 2

    def fit_some(some: slice) -> PsfFit:
        corner = x0[some] - x_first, y0[some] - y_first
        noise = gather_stamps(variance, *corner, size, np.inf)
        if other_variance is not None:
            noise += np.float32(factor) * gather_stamps(other_variance, *corner, size, np.inf)
        return fit_psf(
            gather_stamps(image, *corner, size, np.nan),
            np.where(gather_stamps(bad, *corner, size, True), 0.0, 1.0 / noise),
            psf.evaluate(x[some], y[some], dtype=np.float32),
            x[some] - centre_x[some],
            y[some] - centre_y[some],
            radius,
            iterations=iterations,
        )

    fits = [fit_some(slice(start, start + _CHUNK)) for start in range(0, max(len(x), 1), _CHUNK)]
    fit = PsfFit(
        **{field.name: np.concatenate([getattr(fit, field.name) for fit in fits]) for field in fields(PsfFit)}
    )
    return centre_x + fit.dx, centre_y + fit.dy, fit
