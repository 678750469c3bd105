"""Puts the cutouts of many alerts, each of a size of its own, into stamp sets of one size."""

from __future__ import annotations

__all__ = ["AlertStamps", "check_sizes", "iterate_stamps", "read_alerts", "skipped_table", "stack_alerts"]

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from lsst.utils.logging import getLogger

from ..catalogs import standard_table
from ..masks import MASK_BITS
from ..psf import centre_crop
from ..stamps import StampModel, StampSet, stamp_origin
from ._alert import Alert, AlertError, Cutout, SkippedAlert
from ._packet_files import iterate_alerts

_LOG = getLogger(__name__)

DEFAULT_SIZE = 41
"""Side of the stamps, as cutStamps makes them [pixel]."""

DEFAULT_PSF_SIZE = 51
"""Side of the PSF images; those of Rubin's differences have 41, of its templates some 33 to 77 [pixel]."""

DEFAULT_CHUNK = 1000

_SIDES = ("science", "template", "difference")

type Paths = Iterable[str | os.PathLike[str]] | str | os.PathLike[str]


@dataclass(frozen=True)
class AlertStamps:
    """Stamps of alerts, and a report of those that could not be used.

    Parameters
    ----------
    stamps : `StampSet`
        Stamps of the alerts that could be read.
    skipped : `astropy.table.Table`
        The others: ``packet`` (file, member of an archive after "::"), ``record`` (number in the file),
        ``diaSourceId`` (0 where unknown), ``reason``.
    """

    stamps: StampSet
    skipped: Table


def read_alerts(
    paths: Paths, *, size: int = DEFAULT_SIZE, psf_size: int = DEFAULT_PSF_SIZE, on_error: str = "report"
) -> AlertStamps:
    """Read alerts into one stamp set.

    Pixels beyond a cutout are NaN with OFF_IMAGE in the mask; pixels of a cutout that are NaN have NO_DATA. The mask
    has no other plane, because alerts carry none: the source's own are in its ``pixelFlags`` columns.

    Parameters
    ----------
    paths : path-like or iterable of path-like
        Files, archives or folders, as for `iterate_alerts`.
    size : `int`, optional
        Side of the stamps, which are centred on the sources [pixel].
    psf_size : `int`, optional
        Side of the PSF images, odd; PSFs are cut or padded with zeros to it [pixel].
    on_error : `str`, optional
        "report" leaves out what cannot be used and reports it; "raise" stops there.

    Returns
    -------
    alerts : `AlertStamps`
        Stamps and report. Of several alerts of one source the first is taken and the others reported.

    Raises
    ------
    AlertError
        If an alert cannot be used and ``on_error`` is "raise".
    ValueError
        If an argument is not valid.
    ModuleNotFoundError
        If fastavro is not installed.
    """
    check_sizes(size, psf_size)
    alerts: list[Alert] = []
    skipped: list[SkippedAlert] = []
    for alert in _first_of_each_source(iterate_alerts(paths), on_error):
        if isinstance(alert, SkippedAlert):
            skipped.append(alert)
        else:
            alerts.append(alert)
    if skipped:
        _LOG.warning(
            "Left out %d of %d alerts; the first is %s: %s",
            len(skipped),
            len(skipped) + len(alerts),
            skipped[0].packet,
            skipped[0].reason,
        )
    return AlertStamps(stack_alerts(alerts, size, psf_size), skipped_table(skipped))


def iterate_stamps(
    paths: Paths,
    *,
    size: int = DEFAULT_SIZE,
    psf_size: int = DEFAULT_PSF_SIZE,
    on_error: str = "report",
    chunk: int = DEFAULT_CHUNK,
) -> Iterator[AlertStamps]:
    """Read alerts some at a time, so that memory stays flat however many there are.

    Parameters
    ----------
    paths, size, psf_size, on_error
        As for `read_alerts`.
    chunk : `int`, optional
        Alerts in each stamp set.

    Yields
    ------
    alerts : `AlertStamps`
        The next alerts, of which the last may be fewer or none.
    """
    check_sizes(size, psf_size)
    if chunk < 1:
        raise ValueError(f"Chunks must have at least one alert, got {chunk}.")
    alerts: list[Alert] = []
    skipped: list[SkippedAlert] = []
    for alert in _first_of_each_source(iterate_alerts(paths), on_error):
        if isinstance(alert, SkippedAlert):
            skipped.append(alert)
        else:
            alerts.append(alert)
        if len(alerts) == chunk or len(skipped) == chunk:
            yield AlertStamps(stack_alerts(alerts, size, psf_size), skipped_table(skipped))
            alerts, skipped = [], []
    if alerts or skipped:
        yield AlertStamps(stack_alerts(alerts, size, psf_size), skipped_table(skipped))


def check_sizes(size: int, psf_size: int) -> None:
    """Refuse sizes that stamps cannot have.

    Raises
    ------
    ValueError
        If a size is not positive or the PSFs' not odd.
    """
    if size < 1:
        raise ValueError(f"Stamp size must be positive, got {size}.")
    if psf_size < 1 or psf_size % 2 == 0:
        raise ValueError(f"PSF size must be positive and odd, got {psf_size}.")


def _first_of_each_source(
    alerts: Iterable[Alert | SkippedAlert], on_error: str
) -> Iterator[Alert | SkippedAlert]:
    if on_error not in ("report", "raise"):
        raise ValueError(f"on_error must be 'report' or 'raise', got {on_error!r}.")
    seen: set[int] = set()
    for alert in alerts:
        if isinstance(alert, SkippedAlert):
            if on_error == "raise":
                raise AlertError(f"{alert.packet}, record {alert.record}: {alert.reason}.")
        elif alert.dia_source_id in seen:
            yield SkippedAlert(
                alert.packet,
                alert.record,
                alert.dia_source_id,
                "is another alert of a source that was read before",
            )
            continue
        else:
            seen.add(alert.dia_source_id)
        yield alert


def stack_alerts(
    alerts: Sequence[Alert], size: int = DEFAULT_SIZE, psf_size: int = DEFAULT_PSF_SIZE
) -> StampSet:
    """Cut the alerts' cutouts to stamps of one size.

    Parameters
    ----------
    alerts : sequence [`Alert`]
        N alerts.
    size, psf_size : `int`, optional
        Sides of stamps and PSF images [pixel].

    Returns
    -------
    stamps : `StampSet`
        N stamps. There are variances and PSFs if any of the surveys has them; they are NaN, or zero for PSFs, where an
        alert lacks them.
    """
    check_sizes(size, psf_size)
    n = len(alerts)
    x, y = (np.array([alert.source[name] for alert in alerts], dtype=float) for name in ("x", "y"))
    x0, y0 = stamp_origin(x, y, size)
    planes: dict[str, np.ndarray] = {
        side: np.full((n, size, size), np.nan, dtype=np.float32) for side in _SIDES
    }
    if any(alert.has_variance for alert in alerts):
        planes |= {f"{side}Variance": np.full((n, size, size), np.nan, dtype=np.float32) for side in _SIDES}
    psfs = {}
    if any(alert.has_psf for alert in alerts):
        psfs = {side: np.zeros((n, psf_size, psf_size), dtype=np.float32) for side in _SIDES}
    on_cutout = np.zeros((n, size, size), dtype=bool)
    for row, alert in enumerate(alerts):
        for side, cutout in alert.cutouts.items():
            place = _overlap(cutout, int(x0[row]), int(y0[row]), size)
            if place is not None:
                target, origin = place
                planes[side][row][target] = cutout.pixels[origin]
                if cutout.variance is not None:
                    planes[f"{side}Variance"][row][target] = cutout.variance[origin]
                if side == "difference":
                    on_cutout[row][target] = True
            if cutout.psf is not None:
                psfs[side][row] = _square(cutout.psf, psf_size)
    mask = np.where(on_cutout, 0, 1 << MASK_BITS["OFF_IMAGE"]).astype(np.uint32)
    mask[on_cutout & ~np.isfinite(planes["difference"])] |= np.uint32(1 << MASK_BITS["NO_DATA"])
    planes["mask"] = mask
    return StampSet(
        _sources(alerts, x0, y0),
        planes,
        {f"{side}Psf": StampModel.from_images(images) for side, images in psfs.items()},
    )


def _overlap(cutout: Cutout, x0: int, y0: int, size: int) -> tuple[Any, Any] | None:
    """Return where stamp and cutout overlap, in the pixels of either; None where they do not."""
    height, width = cutout.pixels.shape
    left, right = max(x0, cutout.x0), min(x0 + size, cutout.x0 + width)
    low, high = max(y0, cutout.y0), min(y0 + size, cutout.y0 + height)
    if left >= right or low >= high:
        return None
    return (
        (slice(low - y0, high - y0), slice(left - x0, right - x0)),
        (slice(low - cutout.y0, high - cutout.y0), slice(left - cutout.x0, right - cutout.x0)),
    )


def _square(psf: np.ndarray, size: int) -> np.ndarray:
    """Cut or pad a PSF, which need not be square, about its central pixel."""
    height, width = psf.shape
    side = max(height, width)
    low, left = side // 2 - height // 2, side // 2 - width // 2
    padded = np.pad(psf, ((low, side - height - low), (left, side - width - left)))
    return centre_crop(padded, size)


def _sources(alerts: Sequence[Alert], x0: np.ndarray, y0: np.ndarray) -> Table:
    names = list(dict.fromkeys([*_ALWAYS, *(name for alert in alerts for name in alert.source)]))
    sources = standard_table({name: [alert.source.get(name) for alert in alerts] for name in names})
    for name, unit in _ZTF_UNITS.items():
        if name in sources.colnames and sources[name].unit is None:
            sources[name].unit = unit
    sources["x0"] = Column(x0, unit=u.pix, description="x of the stamp's lower-left pixel.")
    sources["y0"] = Column(y0, unit=u.pix, description="y of the stamp's lower-left pixel.")
    sources["pixelToSky"] = Column(
        np.array([alert.pixel_to_sky for alert in alerts], dtype=float).reshape(len(alerts), 2, 2),
        unit=u.deg / u.pix,
        description="Derivatives of (ra cos(dec), dec) by (x, y); NaN where the alert does not tell.",
    )
    return sources


_ALWAYS = ("diaSourceId", "visit", "detector", "band", "midpointMjdTai", "ra", "dec", "x", "y")
"""Columns that there are even if no alert has them."""

_ZTF_UNITS = {
    **dict.fromkeys(
        ("magpsf", "sigmapsf", "magap", "sigmagap", "magapbig", "sigmagapbig", "magnr", "sigmagnr"), u.mag
    ),
    **dict.fromkeys(("diffmaglim", "magdiff", "magfromlim", "ssmagnr", "magzpsci", "magzpsciunc"), u.mag),
    **dict.fromkeys((f"s{band}mag{number}" for band in "griz" for number in (1, 2, 3)), u.mag),
    **dict.fromkeys(("distnr", "fwhm", "mindtoedge", "aimage", "bimage"), u.pix),
    **dict.fromkeys(("ssdistnr", "distpsnr1", "distpsnr2", "distpsnr3"), u.arcsec),
    **dict.fromkeys(("ranr", "decnr"), u.deg),
    **dict.fromkeys(("jdstarthist", "jdendhist", "jdstartref", "jdendref"), u.d),
}
"""Units of columns that only ZTF has, from its schema."""


def skipped_table(skipped: Sequence[SkippedAlert]) -> Table:
    """Return the report of alerts that were left out as a table."""
    table = Table()
    table["packet"] = Column(
        np.array([entry.packet for entry in skipped], dtype=str), description="File and member of an archive."
    )
    table["record"] = Column(
        np.array([entry.record for entry in skipped], dtype=np.int64),
        description="Number in the file, from 0.",
    )
    table["diaSourceId"] = Column(
        np.array([entry.dia_source_id for entry in skipped], dtype=np.int64),
        description="Source; 0: not known.",
    )
    table["reason"] = Column(
        np.array([entry.reason for entry in skipped], dtype=str), description="Why it was left out."
    )
    return table
