"""What a pixel value of a FITS image is worth in nJy."""

from __future__ import annotations

__all__ = ["PixelUnit"]

from dataclasses import dataclass

import astropy.units as u
from astropy.io import fits

from ._fits_file import IngestError


@dataclass(frozen=True)
class PixelUnit:
    """How to convert pixel values to nJy; at most one of the three may be given.

    Parameters
    ----------
    unit : `str`, optional
        Unit of the pixels, in place of the header's BUNIT.
    njy_per_unit : `float`, optional
        nJy per pixel unit.
    zero_point : `float`, optional
        AB magnitude of a source with one unit of flux.
    """

    unit: str | None = None
    njy_per_unit: float | None = None
    zero_point: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.unit, self.njy_per_unit, self.zero_point) if v is not None]
        if len(given) > 1:
            raise IngestError("Give one of unit, nJy per unit and zero point, not several.")
        if self.njy_per_unit is not None and not self.njy_per_unit > 0:
            raise IngestError(f"nJy per unit must be positive, got {self.njy_per_unit}.")

    def njy(self, header: fits.Header, name: str, pixel_area: u.Quantity) -> float:
        """Return the nJy of a pixel value of one.

        Parameters
        ----------
        header : `astropy.io.fits.Header`
            Header of the image.
        name : `str`
            File, for messages.
        pixel_area : `astropy.units.Quantity`
            Area of a pixel on the sky, which turns surface brightness to flux.

        Raises
        ------
        IngestError
            If there is no unit, or it is not one of flux or surface brightness.
        """
        if self.njy_per_unit is not None:
            return self.njy_per_unit
        if self.zero_point is not None:
            return float((self.zero_point * u.ABmag).to_value(u.nJy))
        unit = self._parse(header, name)
        if unit is None:
            raise IngestError(
                f"{name}: has no BUNIT; say what a pixel is worth with a unit (nJy, MJy/sr, ...), a zero point or "
                f"nJy per unit."
            )
        return _to_njy(unit, name, pixel_area)

    def njy_of_noise(
        self, header: fits.Header, name: str, pixel_area: u.Quantity, image_njy: float, *, is_variance: bool
    ) -> float:
        """Return the nJy (nJy^2 for variance) of a value of one in a noise file.

        Where the noise file has no unit of its own, or the image's conversion was given, it is taken to be in the
        units of the image, squared for a variance.
        """
        power = 2 if is_variance else 1
        given = (self.unit, self.njy_per_unit, self.zero_point)
        unit = self._parse(header, name) if all(value is None for value in given) else None
        if unit is None:
            return image_njy**power
        root = unit**0.5 if is_variance else unit
        return _to_njy(root, name, pixel_area) ** power

    def _parse(self, header: fits.Header, name: str) -> u.UnitBase | None:
        text = self.unit if self.unit is not None else str(header.get("BUNIT", "")).strip()
        if not text:
            return None
        try:
            return u.Unit(text)
        except ValueError:
            raise IngestError(
                f"{name}: unit {text!r} is not understood; give a unit (nJy, MJy/sr, ...), a zero point or "
                f"nJy per unit."
            ) from None


def _to_njy(unit: u.UnitBase, name: str, pixel_area: u.Quantity) -> float:
    for candidate in (unit, unit * u.pix):
        if candidate.is_equivalent(u.nJy):
            return float(candidate.to(u.nJy))
        if candidate.is_equivalent(u.nJy / u.sr):
            return float((1.0 * candidate * pixel_area).to_value(u.nJy))
    raise IngestError(
        f"{name}: pixels in {unit.to_string() or 'dimensionless units'} are neither flux nor surface brightness; "
        f"give a zero point or nJy per unit."
    )
