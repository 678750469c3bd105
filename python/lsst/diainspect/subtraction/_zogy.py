"""Proper image subtraction (Zackay, Ofek & Gal-Yam 2016, "ZOGY").

With N = beta P_n x + noise of variance v_n and R = P_r x + noise of variance v_r, the proper difference is
  D(k) = (P_r N - beta P_n R) / sqrt(v_n |P_r|^2 + beta^2 v_r |P_n|^2)            (eqs. 13, 14)
of PSF P_D(k) ~ P_n P_r / the same root (eq. 16). It is given here in the flux units of N, that is times
sqrt(v_n + beta^2 v_r), so that P_D has unit sum; the score S is P_D correlated with D (eqs. 12, 17).
"""

from __future__ import annotations

__all__ = ["ZogyConfig", "ZogySubtractor"]

from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
from astropy.table import Table

from ..psf import PolynomialField
from ._assemble import filter_window, finish_subtraction
from ._cell_filters import LocalFilters, filter_in_cells
from ._cells import CellGrid
from ._image_pair import ImagePair
from ._kernel_sources import check_enough, select_kernel_sources
from ._registration import DISPLACED, measure_registration
from ._sky_variance import SkyVariance
from ._subtraction import SubtractionResult, Subtractor, SubtractorConfig, subtractor_registry
from ._transfer import edge_taper, image_from_transfer, phase_ramp, transfer_from_image

_VANISHING = 3e-4
"""Modulus of the PSF transforms below which both are taken to vanish, and their ratio to tend to one. A smaller value
leaves the ratio of two noise floors in the filters, which then reach over tens of pixels; this one leaves 5e-4 of a
star's peak in the difference."""


_LEAST_WINDOW = 256
"""Least window of the filters that make the difference, if cells allow it [pixel]: those of sharp PSFs have tails of
1e-5 beyond 50 pixels."""

_FAINT = 1e-3
"""Modulus of the template's PSF transform below which it is not moved onto the science image: at the Nyquist frequency
of a well-sampled image, where a shift by part of a pixel would give the filter long tails."""


class ZogyConfig(SubtractorConfig):
    """Configuration of `ZogySubtractor`."""

    minStars = pexConfig.RangeField[int](
        doc="Fewest stars to measure flux ratio and registration on.", default=3, min=3
    )
    maxStars = pexConfig.RangeField[int](doc="Most stars to measure them on.", default=320, min=3)
    minStarSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio of a star in both images.", default=20.0, min=0.0
    )
    registrationOrder = pexConfig.RangeField[int](
        doc="Spatial order of the map of offsets between the images.", default=1, min=0
    )


class ZogySubtractor(Subtractor):
    """Proper subtraction in cells, with registration and flux ratio measured from stars first."""

    ConfigClass: ClassVar[type[SubtractorConfig]] = ZogyConfig
    outputs: ClassVar[frozenset[str]] = frozenset({"difference", "score", "kernelSources"})
    config: ZogyConfig

    def subtract(self, pair: ImagePair, kernel_sources: Table | None = None) -> SubtractionResult:
        """Subtract; see `Subtractor.subtract`."""
        config = self.config
        sources = select_kernel_sources(
            pair,
            kernel_sources,
            min_snr=config.minStarSnr,
            max_sources=config.maxStars,
            stars_only=True,
            min_sources=config.minStars,
        )
        field = PolynomialField(pair.bounds, config.registrationOrder)
        registration, sources = measure_registration(sources, field)
        check_enough(sources, config.minStars, accept=DISPLACED)
        beta = registration.flux_ratio

        grid = CellGrid.for_fields(
            pair.shape,
            (pair.science_psf, pair.template_psf),
            config.cellSize,
            config.cellHalo,
            min_window=filter_window(pair),
        )
        good = ~pair.bad
        science_sky = SkyVariance(pair.science_variance, good, config.cellSize)
        template_sky = SkyVariance(pair.template_variance, good, config.cellSize)
        x_first, y_first = pair.bounds.x.start, pair.bounds.y.start
        # Where a filter is cut, what the two make of a bright star does not cancel.
        window = min(max(filter_window(pair), _LEAST_WINDOW), grid.window_size)

        def filters_at(x: float, y: float, window: int) -> LocalFilters:
            dx, dy = registration.offset_at(x + x_first, y + y_first)
            science_psf, template_psf = (
                transfer_from_image(psf.at(x + x_first, y + y_first).astype(np.float32), window)
                for psf in (pair.science_psf, pair.template_psf)
            )
            # What the template does not hold need not be moved.
            held = 1.0 - np.exp(-((np.abs(template_psf) / _FAINT) ** 2))
            return proper_filters(
                science_psf,
                template_psf,
                beta,
                science_sky.at(x, y),
                template_sky.at(x, y),
                phase_ramp(dx, dy, window, held),
            )

        taper = edge_taper(window) if window < grid.window_size else np.float32(1.0)

        def images_at(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
            local = filters_at(x, y, window)
            return (
                taper * image_from_transfer(local.science, window, window),
                taper * image_from_transfer(-local.template, window, window),
            )

        centre = registration.offset_at(
            0.5 * (pair.bounds.x.start + pair.bounds.x.stop - 1),
            0.5 * (pair.bounds.y.start + pair.bounds.y.stop - 1),
        )
        return finish_subtraction(
            pair,
            grid,
            filter_in_cells(grid, (pair.science, pair.template), images_at),
            filters_at,
            background_cell_size=config.backgroundCellSize,
            whiten=config.whiten,
            sources=sources,
            flux_ratio=beta,
            flux_ratio_error=registration.flux_ratio_error / beta,
            astrometric_rms=registration.jitter,
            metadata={
                "nKernelSources": registration.n_stars,
                "fluxRatio": beta,
                "fluxRatioErr": registration.flux_ratio_error,
                "offsetX": centre[0],
                "offsetY": centre[1],
                "registrationOrder": registration.field.order,
            },
        )


def proper_filters(
    science_psf: np.ndarray,
    template_psf: np.ndarray,
    flux_ratio: float,
    science_variance: float | np.ndarray,
    template_variance: float | np.ndarray,
    shift: np.ndarray | float = 1.0,
    *,
    vanishing: float | np.ndarray = _VANISHING,
) -> LocalFilters:
    """Return the filters of the proper difference.

    Parameters
    ----------
    science_psf, template_psf : `numpy.ndarray`, (..., window, window // 2 + 1)
        Transforms of the PSFs.
    flux_ratio : `float`
        beta, science over template flux of one source.
    science_variance, template_variance : `float` or `numpy.ndarray`
        Noise variance per pixel or noise power spectrum.
    shift : `numpy.ndarray` or `float`, optional
        Phase ramp that moves the template onto the science image.
    vanishing : `float` or `numpy.ndarray`, optional
        Modulus of the PSFs' transforms below which they are taken to vanish.

    Returns
    -------
    filters : `LocalFilters`
        Filters and PSF of the difference in the science image's flux units.

    Notes
    -----
    Where both transforms vanish, 0 / 0 is resolved by adding a small real number to both, so that their ratio
    tends to one: the noise stays white there, which a floor under the denominator would not give.
    """
    modulus = np.sqrt(np.abs(science_psf) ** 2 + np.abs(template_psf) ** 2)
    filling = vanishing * np.exp(-((modulus / vanishing) ** 2))
    p_n, p_r = science_psf + filling, template_psf + filling
    power = science_variance * np.abs(p_r) ** 2 + flux_ratio**2 * template_variance * np.abs(p_n) ** 2
    scale = np.sqrt(power[..., :1, :1]) / np.abs(p_r[..., :1, :1])
    # Complex numbers are slow to divide.
    inverse_root = scale / np.sqrt(power)
    science = inverse_root * p_r
    template = (flux_ratio * inverse_root) * p_n * shift
    return LocalFilters(science=science, template=template, psf=science * science_psf)


subtractor_registry.register("zogy", ZogySubtractor)
