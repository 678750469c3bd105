"""Forced PSF photometry of given positions on a difference image, whichever method made it."""

from __future__ import annotations

__all__ = ["force_photometry"]

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from lsst.images import MaskedImage

from ..diagnostics import fit_plane_psf
from ..masks import MASK_BITS, mask_to_words
from ..psf import PixelBasis
from ..stamps import StampModel, StampSet, gather_stamps, stamp_origin

_CHUNK = 2048
"""Positions measured at a time, which keeps memory flat."""


def force_photometry(
    x: np.ndarray, y: np.ndarray, difference: MaskedImage, psf: PixelBasis, radius: float = 12.0
) -> Table:
    """Fit the PSF of a difference image at positions that are given.

    Parameters
    ----------
    x, y : `numpy.ndarray`, (N,)
        Positions [pixel].
    difference : `lsst.images.MaskedImage`
        Difference with variance and mask.
    psf : `PixelBasis`
        Its PSF.
    radius : `float`, optional
        Radius of the fitted disk [pixel].

    Returns
    -------
    table : `astropy.table.Table`
        N rows: ``forcedFlux``, ``forcedFluxErr`` [nJy], ``forcedSnr``, ``forcedChi2``, ``forcedNdata`` and
        ``forced_flag``, which is set where nothing could be measured (off the image, all pixels bad).
    """
    size = 2 * int(np.floor(radius + 0.5)) + 1
    box = difference.bbox
    planes = {
        "difference": (difference.image.array, np.nan),
        "differenceVariance": (difference.variance.array, np.nan),
        "mask": (mask_to_words(difference.mask), 1 << MASK_BITS["OFF_IMAGE"]),
    }
    n = len(x)
    flux, error, chi2 = (np.full(n, np.nan) for _ in range(3))
    n_data = np.zeros(n, dtype=np.int32)
    for start in range(0, n, _CHUNK):
        rows = slice(start, start + _CHUNK)
        own_x, own_y = np.asarray(x[rows], dtype=float), np.asarray(y[rows], dtype=float)
        x0, y0 = stamp_origin(own_x, own_y, size)
        stamps = StampSet(
            Table({"x": own_x, "y": own_y, "x0": x0, "y0": y0}),
            {
                name: gather_stamps(array, x0 - box.x.start, y0 - box.y.start, size, fill)
                for name, (array, fill) in planes.items()
            },
            {"differencePsf": StampModel.from_pixel_basis(psf, own_x, own_y)},
        )
        fit = fit_plane_psf(stamps, "difference", radius)
        flux[rows], error[rows] = fit.amplitude[:, 0], fit.error[:, 0]
        chi2[rows], n_data[rows] = fit.chi2, fit.n_data
    table = Table()
    table["forcedFlux"] = Column(flux.astype(np.float32), unit=u.nJy, description="Forced PSF flux.")
    table["forcedFluxErr"] = Column(error.astype(np.float32), unit=u.nJy, description="Error of forcedFlux.")
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = (flux / error).astype(np.float32)
    table["forcedSnr"] = Column(snr, description="forcedFlux / forcedFluxErr.")
    table["forcedChi2"] = Column(chi2.astype(np.float32), description="Chi-square of the fit.")
    table["forcedNdata"] = Column(n_data, description="Pixels in the fit.")
    table["forced_flag"] = Column(~np.isfinite(flux), description="Nothing could be measured.")
    return table
