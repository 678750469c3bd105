"""The direction of the zenith on the sky, along which differential chromatic refraction moves sources."""

from __future__ import annotations

__all__ = ["parallactic_angle"]

import astropy.units as u
import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy.coordinates import SkyCoord
from astropy.utils import iers


def parallactic_angle(observation: ObservationInfo | None, position: SkyCoord) -> float:
    """Return the parallactic angle in the middle of an observation.

    tan q = sin H / (tan(latitude) cos(dec) - sin(dec) cos H), H the hour angle (Smart 1977, section 35).

    Parameters
    ----------
    observation : `astro_metadata_translator.ObservationInfo` or `None`
        Place and time.
    position : `astropy.coordinates.SkyCoord`
        Where on the sky.

    Returns
    -------
    angle : `float`
        Direction of the zenith, east of north [degree]; NaN where place or time are not known.
    """
    if observation is None:
        return np.nan
    location = getattr(observation, "location", None)
    begin = getattr(observation, "datetime_begin", None)
    end = getattr(observation, "datetime_end", None)
    if location is None or begin is None:
        return np.nan
    middle = begin if end is None else begin + 0.5 * (end - begin)
    # A second of time is a quarter of an arcminute of hour angle: no table of the Earth's rotation is needed.
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        sidereal = middle.ut1.sidereal_time("apparent", longitude=location.lon)
    hour_angle = (sidereal - position.icrs.ra).to_value(u.rad)
    declination, latitude = position.icrs.dec.to_value(u.rad), location.lat.to_value(u.rad)
    across = np.sin(hour_angle)
    along = np.tan(latitude) * np.cos(declination) - np.sin(declination) * np.cos(hour_angle)
    return float(np.degrees(np.arctan2(across, along)))
