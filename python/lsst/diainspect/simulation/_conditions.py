"""The conditions of one visit: seeing, noise, calibration and registration of its science and template images."""

from __future__ import annotations

__all__ = ["EFFECTS", "ObservingConditions"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ._astrometric_jitter import AstrometricJitter
from ._bad_columns import BadColumns
from ._bleed_trails import BleedTrails
from ._brighter_fatter import BrighterFatter
from ._chromatic_refraction import ChromaticRefraction
from ._coma import Coma
from ._cosmic_rays import CosmicRays
from ._crosstalk import Crosstalk
from ._ghosts import Ghosts
from ._gradients import CalibrationGradient, SkyGradient
from ._streaks import Streaks
from ._warped_coadd import WarpedCoadd

type PsfKind = Literal["exact", "piff"]
_PSF_KINDS = ("exact", "piff")

EFFECTS: Mapping[str, type] = {
    "coma": Coma,
    "astrometric_jitter": AstrometricJitter,
    "chromatic_refraction": ChromaticRefraction,
    "brighter_fatter": BrighterFatter,
    "calibration_gradient": CalibrationGradient,
    "sky_gradient": SkyGradient,
    "bleed_trails": BleedTrails,
    "cosmic_rays": CosmicRays,
    "bad_columns": BadColumns,
    "crosstalk": Crosstalk,
    "ghosts": Ghosts,
    "streaks": Streaks,
    "warped_coadd": WarpedCoadd,
}
"""Effects that conditions switch on, by the name of the field that holds them."""

_STAMP_SIZE_IN_FWHM = 13.0
"""At 6.5 widths from the centre a Kolmogorov PSF is at 4e-5 of its peak: below the noise for unsaturated stars."""

_STAMP_SIZE_RANGE = (41, 63)
"""Smallest and largest side of a PSF stamp [pixel]."""


@dataclass(frozen=True)
class ObservingConditions:
    """What makes the images of one visit what they are. Defaults are close to one 30 s LSST visit in r.

    Effects that are None are off, as all are by default.

    Parameters
    ----------
    band : `str`
        Filter.
    science_seeing, template_seeing : `float`
        Full width at half maximum of the Kolmogorov PSFs, before the pixels [arcsec].
    ellipticity : `float`
        Reduced shear of the PSFs, at a random angle.
    ellipticity_variation : `float`
        Amplitude of the change of each shear component over a detector.
    fwhm_variation : `float`
        Amplitude of the relative change of the width over a detector.
    sky_level : `float`
        Sky in the science image [electron / pixel].
    read_noise : `float`
        Read noise of the science image [electron].
    template_epochs : `float`
        Number of exposures like the science image that the template is the mean of; its noise is white. Not used
        with ``warped_coadd``, which has its own.
    flux_scale : `float`
        Error of the science image's calibration: its pixels are this times the true nJy.
    njy_per_electron : `float`
        Zero point [nJy / electron].
    shift_x, shift_y : `float`
        Displacement of everything in the science image with respect to the template [pixel].
    position_jitter : `float`
        Root mean square, in each coordinate, of a random displacement of each source in the science image [pixel].
    saturation : `float`
        Level at which a pixel of one exposure saturates, sky included [electron].
    exposure_time : `float`
        Exposure time [s]; recorded only, noise and zero point are given above.
    psf_size : `int`, optional
        Side of the PSF stamps, odd [pixel]; from the wider of the two PSFs, between 41 and 63, when omitted.
        The simulated PSF ends at the stamp: sources are drawn with exactly what the PSF model holds.
    template_age : `float`
        Time between the template and the science image, in which stars with proper motion move [year].
    psf : {'exact', 'piff'}
        The PSFs that the images carry: those they were drawn with, or what Piff makes of their own stars. The
        pixels are the same.
    coma : `Coma`, optional
        Coma in the science image.
    astrometric_jitter : `AstrometricJitter`, optional
        Displacements, smooth and source by source.
    chromatic_refraction : `ChromaticRefraction`, optional
        Displacements by colour.
    brighter_fatter : `BrighterFatter`, optional
        Widening of bright stars.
    calibration_gradient : `CalibrationGradient`, optional
        Change of ``flux_scale`` over the detector.
    sky_gradient : `SkyGradient`, optional
        Sky left in the science image.
    bleed_trails : `BleedTrails`, optional
        Saturated stars bleed along columns, in the science image and in the exposures of a warped coadd; without,
        they are only clipped.
    cosmic_rays : `CosmicRays`, optional
        In the science image.
    bad_columns : `BadColumns`, optional
        In the science image.
    crosstalk : `Crosstalk`, optional
        In the science image.
    ghosts : `Ghosts`, optional
        In the science image.
    streaks : `Streaks`, optional
        In the science image.
    warped_coadd : `WarpedCoadd`, optional
        Make the template from exposures that are resampled and averaged; without, it is one deep exposure.
    """

    band: str = "r"
    science_seeing: float = 1.0
    template_seeing: float = 0.8
    ellipticity: float = 0.02
    ellipticity_variation: float = 0.01
    fwhm_variation: float = 0.03
    sky_level: float = 870.0
    read_noise: float = 9.0
    template_epochs: float = 10.0
    flux_scale: float = 1.0
    njy_per_electron: float = 0.55
    shift_x: float = 0.0
    shift_y: float = 0.0
    position_jitter: float = 0.0
    saturation: float = 1.0e5
    exposure_time: float = 30.0
    psf_size: int | None = None
    template_age: float = 1.0
    psf: PsfKind = "exact"
    coma: Coma | None = None
    astrometric_jitter: AstrometricJitter | None = None
    chromatic_refraction: ChromaticRefraction | None = None
    brighter_fatter: BrighterFatter | None = None
    calibration_gradient: CalibrationGradient | None = None
    sky_gradient: SkyGradient | None = None
    bleed_trails: BleedTrails | None = None
    cosmic_rays: CosmicRays | None = None
    bad_columns: BadColumns | None = None
    crosstalk: Crosstalk | None = None
    ghosts: Ghosts | None = None
    streaks: Streaks | None = None
    warped_coadd: WarpedCoadd | None = None

    def __post_init__(self) -> None:
        for name in (
            "science_seeing",
            "template_seeing",
            "template_epochs",
            "flux_scale",
            "njy_per_electron",
            "saturation",
            "exposure_time",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("sky_level", "read_noise", "position_jitter"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.sky_level == 0 and self.read_noise == 0:
            raise ValueError("sky_level and read_noise are both 0: the images would have no noise.")
        if not abs(self.ellipticity) + 2 * abs(self.ellipticity_variation) < 0.9:
            raise ValueError(
                f"ellipticity {self.ellipticity} and its variation {self.ellipticity_variation} are too large."
            )
        if not 0 <= self.fwhm_variation < 0.5:
            raise ValueError(f"fwhm_variation must be in [0, 0.5), got {self.fwhm_variation}.")
        if self.psf_size is not None and (self.psf_size < 11 or self.psf_size % 2 == 0):
            raise ValueError(f"psf_size must be odd and at least 11, got {self.psf_size}.")
        if self.psf not in _PSF_KINDS:
            raise ValueError(f"psf must be one of {_PSF_KINDS}, got {self.psf!r}.")
        for name, effect in EFFECTS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, effect):
                raise ValueError(f"{name} must be a {effect.__name__} or None, got {value!r}.")

    @property
    def science_sky_variance(self) -> float:
        """Variance of a pixel of blank sky in the science image, flux scale included [nJy^2]."""
        electrons = self.sky_level + self.read_noise**2
        return electrons * (self.njy_per_electron * self.flux_scale) ** 2

    @property
    def template_sky_variance(self) -> float:
        """Variance of a pixel of blank sky in the template [nJy^2].

        With ``warped_coadd``, where all exposures overlap and before resampling: this is what the noise of a sum
        over many pixels has, while single pixels have less because resampling correlates them.
        """
        n_epochs = self.template_epochs if self.warped_coadd is None else self.warped_coadd.n_epochs
        return (self.sky_level + self.read_noise**2) * self.njy_per_electron**2 / n_epochs

    def stamp_size(self, pixel_scale: float) -> int:
        """Return the side of the PSF stamps [pixel] for a pixel scale [arcsec / pixel]."""
        if self.psf_size is not None:
            return self.psf_size
        widest = max(self.science_seeing, self.template_seeing) / pixel_scale
        smallest, largest = _STAMP_SIZE_RANGE
        half = round(_STAMP_SIZE_IN_FWHM * widest) // 2
        return min(max(2 * half + 1, smallest), largest)
