"""A pair of FITS images and how to read it as plain values: the options of a command line or a row of a table."""

from __future__ import annotations

__all__ = ["PairSettings"]

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, get_type_hints

from ._estimated_noise import NoiseSettings
from ._fits_file import IngestError
from ._fits_image import FitsImageSource
from ._pixel_unit import PixelUnit

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class PairSettings:
    """Files and settings of one pair.

    Every field is an option of ``diainspect ingest-pair`` and a column of the table of ``diainspect ingest-pairs``;
    fields of the science image apply to the template too where it has none of its own.

    Parameters
    ----------
    science, template : `str`
        Images.
    science_psf, template_psf, science_noise, template_noise, science_variance, template_variance : `str`, optional
        PSF, standard deviation and variance files.
    mask, science_mask, template_mask, mask_plane : `str`, optional
        Mask files, and the plane for what they mark.
    visit, detector : `int`, optional
        Data ID.
    band, physical_filter, date : `str`, optional
        In place of the science header's.
    exposure_time : `float`, optional
        In place of the science header's [s].
    unit : `str`, optional
        Unit of the pixels.
    njy_per_unit, zero_point, template_njy_per_unit, template_zero_point : `float`, optional
        What a pixel is worth.
    psf_size : `int`, optional
        Side of the PSF images [pixel].
    gain, template_gain : `str`, optional
        Electrons per pixel unit, or ``sky``.
    saturation, template_saturation : `float`, optional
        Saturation level [pixel unit].
    background : `bool`, optional
        Subtract the background?
    background_mesh : `int`, optional
        Side of the mesh [pixel].
    psf_order, min_stars : `int`, optional
        Spatial order of measured PSFs, and fewest stars.
    min_star_snr : `float`, optional
        Least signal-to-noise ratio of stars.
    warp : `str`, optional
        ``auto``, ``always`` or ``never``.
    """

    science: str
    template: str
    science_psf: str | None = None
    template_psf: str | None = None
    science_noise: str | None = None
    template_noise: str | None = None
    science_variance: str | None = None
    template_variance: str | None = None
    mask: str | None = None
    science_mask: str | None = None
    template_mask: str | None = None
    mask_plane: str = "BAD"
    visit: int = 1
    detector: int = 0
    band: str | None = None
    physical_filter: str | None = None
    date: str | None = None
    exposure_time: float | None = None
    unit: str | None = None
    njy_per_unit: float | None = None
    zero_point: float | None = None
    template_njy_per_unit: float | None = None
    template_zero_point: float | None = None
    psf_size: int = 51
    gain: str | None = None
    template_gain: str | None = None
    saturation: float | None = None
    template_saturation: float | None = None
    background: bool | None = None
    background_mesh: int = 128
    psf_order: int | None = None
    min_stars: int | None = None
    min_star_snr: float = 30.0
    warp: str = "auto"

    @classmethod
    def names(cls) -> list[str]:
        """Names of all settings."""
        return [entry.name for entry in fields(cls)]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Make settings from a row of a table, the values of which may be text.

        Raises
        ------
        IngestError
            If a name is not known, a file is missing, or a value is of the wrong kind.
        """
        hints = get_type_hints(cls)
        unknown = set(row) - set(hints)
        if unknown:
            raise IngestError(f"Unknown columns {sorted(unknown)}; known are {cls.names()}.")
        values = {}
        for name, value in row.items():
            if value is None or (isinstance(value, str) and not value.strip()):
                continue
            values[name] = _convert(name, value, str(hints[name]))
        for name in ("science", "template"):
            if name not in values:
                raise IngestError(f"The row has no {name} image.")
        return cls(**values)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `ingest_pair` and `read_fits_pair`."""
        record = ("visit", "detector", "band", "physical_filter", "date", "exposure_time")
        names = (*record, "psf_size", "mask_plane", "warp")
        return {name: getattr(self, name) for name in names}

    @property
    def science_source(self) -> FitsImageSource:
        """Files and settings of the science image."""
        return self._source(
            self.science,
            self.science_psf,
            self.science_noise,
            self.science_variance,
            self.science_mask if self.science_mask is not None else self.mask,
            self._unit,
            self.gain,
            self.saturation,
        )

    @property
    def template_source(self) -> FitsImageSource:
        """Files and settings of the template."""
        unit = self._unit
        if self.template_njy_per_unit is not None or self.template_zero_point is not None:
            unit = PixelUnit(njy_per_unit=self.template_njy_per_unit, zero_point=self.template_zero_point)
        return self._source(
            self.template,
            self.template_psf,
            self.template_noise,
            self.template_variance,
            self.template_mask if self.template_mask is not None else self.mask,
            unit,
            self.template_gain if self.template_gain is not None else self.gain,
            self.template_saturation if self.template_saturation is not None else self.saturation,
        )

    @property
    def _unit(self) -> PixelUnit:
        return PixelUnit(unit=self.unit, njy_per_unit=self.njy_per_unit, zero_point=self.zero_point)

    def _source(
        self,
        image: str,
        psf: str | None,
        noise: str | None,
        variance: str | None,
        mask: str | None,
        unit: PixelUnit,
        gain: str | None,
        saturation: float | None,
    ) -> FitsImageSource:
        return FitsImageSource(
            image,
            psf,
            noise=noise,
            variance=variance,
            mask=mask,
            pixel_unit=unit,
            noise_settings=NoiseSettings(
                gain=_parse_gain(gain),
                saturation=saturation,
                subtract_background=self.background,
                mesh=self.background_mesh,
            ),
            psf_order=self.psf_order,
            min_stars=self.min_stars,
            min_snr=self.min_star_snr,
        )


def _parse_gain(gain: str | None) -> float | str | None:
    if gain is None or gain == "sky":
        return gain
    try:
        return float(gain)
    except ValueError:
        raise IngestError(f"Gain must be a number or 'sky', got {gain!r}.") from None


def _convert(name: str, value: Any, hint: str) -> Any:
    """Turn a value to the type of its field."""
    text = str(value).strip()
    try:
        if "bool" in hint:
            if text.lower() in _TRUE + _FALSE:
                return text.lower() in _TRUE
            raise ValueError
        if "int" in hint:
            number = float(text)
            if number != int(number):
                raise ValueError
            return int(number)
        if "float" in hint:
            return float(text)
    except (ValueError, OverflowError):
        kind = next(kind for kind in ("bool", "int", "float") if kind in hint)
        raise IngestError(f"{name} must be of type {kind}, got {value!r}.") from None
    return text
