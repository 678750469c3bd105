"""Cameras of rectangular detectors in a flat focal plane, as `lsst.images.cameras.Detector` objects without afw.

The coordinate systems are written in the text form of the AST library and read back through the public
serialization models of lsst-images, so they do not depend on which of its Python wrappers is installed.
"""

from __future__ import annotations

__all__ = [
    "CameraLayout",
    "DetectorLayout",
    "make_detector",
    "make_tangent_projection",
    "mosaic",
    "single_detector",
]

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from lsst.images import Box, DetectorFrame, SkyProjection
from lsst.images.cameras import (
    CameraFrameSetSerializationModel,
    Detector,
    DetectorAttributes,
    DetectorSerializationModel,
    DetectorType,
    Orientation,
)
from lsst.images.json import JsonInputArchive

_ARCSEC_PER_RADIAN = u.rad.to(u.arcsec)


@dataclass(frozen=True)
class DetectorLayout:
    """One detector: what it is called, its pixels, and where it sits.

    Parameters
    ----------
    id : `int`
        Detector number.
    name : `str`
        Detector name.
    bbox : `lsst.images.Box`
        Its pixels.
    centre_x, centre_y : `float`
        Focal-plane position of the centre of ``bbox`` [mm].
    """

    id: int
    name: str
    bbox: Box
    centre_x: float = 0.0
    centre_y: float = 0.0


@dataclass(frozen=True)
class CameraLayout:
    """A camera: detectors in a flat focal plane, all with the same square pixels and aligned axes.

    Parameters
    ----------
    instrument : `str`
        Short name of the instrument.
    pixel_scale : `float`
        Pixel scale on the axis [arcsec / pixel].
    detectors : `tuple` [`DetectorLayout`, ...]
        The detectors.
    pixel_size : `float`, optional
        Side of a pixel [mm].
    """

    instrument: str
    pixel_scale: float
    detectors: tuple[DetectorLayout, ...]
    pixel_size: float = 0.01

    def __post_init__(self) -> None:
        if not self.pixel_scale > 0 or not self.pixel_size > 0:
            raise ValueError(
                f"Pixel scale and pixel size must be positive, got {self.pixel_scale} arcsec and "
                f"{self.pixel_size} mm."
            )

    def __getitem__(self, detector: int) -> DetectorLayout:
        for layout in self.detectors:
            if layout.id == detector:
                return layout
        raise LookupError(
            f"{self.instrument} has no detector {detector}; it has {[layout.id for layout in self.detectors]}."
        )

    @property
    def radians_per_mm(self) -> float:
        """Plate scale [rad / mm]."""
        return self.pixel_scale / _ARCSEC_PER_RADIAN / self.pixel_size


def mosaic(
    instrument: str,
    *,
    n_columns: int,
    n_rows: int,
    detector_size: tuple[int, int],
    pixel_scale: float,
    origin: tuple[int, int] = (0, 0),
    gap: int = 50,
    pixel_size: float = 0.01,
) -> CameraLayout:
    """Lay out equal detectors in a grid centred on the axis, numbered along rows from the lower left.

    Parameters
    ----------
    instrument : `str`
        Short name of the instrument.
    n_columns, n_rows : `int`
        Detectors along x and y.
    detector_size : `tuple` [`int`, `int`]
        Pixels of a detector along x and y.
    pixel_scale : `float`
        Pixel scale [arcsec / pixel].
    origin : `tuple` [`int`, `int`], optional
        Pixel coordinates x, y of the lower left pixel of each detector.
    gap : `int`, optional
        Distance between neighbouring detectors [pixel].
    pixel_size : `float`, optional
        Side of a pixel [mm].
    """
    width, height = detector_size
    detectors = []
    for row in range(n_rows):
        for column in range(n_columns):
            detectors.append(
                DetectorLayout(
                    id=row * n_columns + column,
                    name=f"R00_S{row}{column}",
                    bbox=Box.from_shape((height, width), start=(origin[1], origin[0])),
                    centre_x=(column - 0.5 * (n_columns - 1)) * (width + gap) * pixel_size,
                    centre_y=(row - 0.5 * (n_rows - 1)) * (height + gap) * pixel_size,
                )
            )
    return CameraLayout(instrument, pixel_scale, tuple(detectors), pixel_size)


def single_detector(instrument: str, *, detector: int, bbox: Box, pixel_scale: float) -> CameraLayout:
    """Lay out a camera with one detector of given number and pixels, centred on the axis."""
    return CameraLayout(instrument, pixel_scale, (DetectorLayout(detector, f"D{detector:03d}", bbox),))


def make_detector(camera: CameraLayout, detector: int, visit: int | None = None) -> Detector:
    """Make the `lsst.images.cameras.Detector` of one detector of a camera.

    Parameters
    ----------
    camera : `CameraLayout`
        The camera.
    detector : `int`
        Number of the detector.
    visit : `int`, optional
        Visit that the detector took part in.

    Raises
    ------
    LookupError
        If the camera has no such detector.
    """
    layout = camera[detector]
    reference_x, reference_y = _centre(layout.bbox)
    attributes = DetectorAttributes(
        name=layout.name,
        id=layout.id,
        type=DetectorType.SCIENCE,
        serial=f"{camera.instrument}-{layout.id:03d}",
        bbox=layout.bbox,
        orientation=Orientation(
            focal_plane_x=layout.centre_x,
            focal_plane_y=layout.centre_y,
            focal_plane_z=0.0,
            pixel_reference_x=reference_x,
            pixel_reference_y=reference_y,
        ),
        pixel_size=camera.pixel_size,
        physical_type="none",
    )
    frames = CameraFrameSetSerializationModel(instrument=camera.instrument, ast=_frame_set_text(camera))
    model = DetectorSerializationModel(attributes=attributes, amplifiers=[], frames=frames, visit=visit)
    return model.deserialize(JsonInputArchive())


def make_tangent_projection(
    camera: CameraLayout, detector: int, boresight: SkyCoord, visit: int | None = None
) -> SkyProjection[DetectorFrame]:
    """Make the tangent-plane projection of a detector, north up and east to the left.

    Parameters
    ----------
    camera : `CameraLayout`
        The camera.
    detector : `int`
        Number of the detector.
    boresight : `astropy.coordinates.SkyCoord`
        Sky position of the optical axis.
    visit : `int`, optional
        Visit that the projection belongs to.
    """
    layout = camera[detector]
    centre_x, centre_y = _centre(layout.bbox)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [boresight.icrs.ra.deg, boresight.icrs.dec.deg]
    # FITS counts the first pixel of the array as 1.
    wcs.wcs.crpix = [
        centre_x - layout.bbox.x.start + 1.0 - layout.centre_x / camera.pixel_size,
        centre_y - layout.bbox.y.start + 1.0 - layout.centre_y / camera.pixel_size,
    ]
    scale = camera.pixel_scale / 3600.0
    wcs.wcs.cd = np.array([[-scale, 0.0], [0.0, scale]])
    wcs.wcs.radesys = "ICRS"
    frame = DetectorFrame(instrument=camera.instrument, visit=visit, detector=detector, bbox=layout.bbox)
    return SkyProjection.from_fits_wcs(
        wcs, frame, pixel_bounds=layout.bbox, x0=layout.bbox.x.start, y0=layout.bbox.y.start
    )


def _centre(bbox: Box) -> tuple[float, float]:
    """Return the (x, y) of the middle of a box [pixel]."""
    return 0.5 * (bbox.x.start + bbox.x.stop - 1), 0.5 * (bbox.y.start + bbox.y.stop - 1)


def _axis_text(number: int, label: str, unit: str, limits: tuple[int, int] | None = None) -> str:
    lines = [f"Ax{number} =", "Begin Axis", f'Label = "{label}"', f'Unit = "{unit}"']
    if limits is not None:
        lines += [f"Top = {limits[1]}", f"Bottom = {limits[0]}"]
    return "\n".join([*lines, "End Axis"])


def _frame_text(ident: str, title: str, unit: str, bbox: Box | None = None) -> str:
    # lsst-images takes Top as the exclusive end of the detector's box.
    limits_x = None if bbox is None else (bbox.x.start, bbox.x.stop)
    limits_y = None if bbox is None else (bbox.y.start, bbox.y.stop)
    return "\n".join(
        [
            "Begin Frame",
            f'Ident = "{ident}"',
            "IsA Object",
            f'Title = "{title}"',
            "Naxes = 2",
            _axis_text(1, "x", unit, limits_x),
            _axis_text(2, "y", unit, limits_y),
            "End Frame",
        ]
    )


def _frame_set_text(camera: CameraLayout) -> str:
    """Write the camera's coordinate systems in AST's own text form; focal plane [mm] is the base frame."""
    frames = [
        _frame_text("FOCAL_PLANE", "Focal Plane Coordinates", "mm"),
        _frame_text("FIELD_ANGLE", "Field Angle Coordinates", "rad"),
    ]
    maps = [
        f"Begin ZoomMap\nNin = 2\nIsA Mapping\nZoom = {camera.radians_per_mm!r}\nEnd ZoomMap",
    ]
    for layout in camera.detectors:
        frames.append(
            _frame_text(
                f"DETECTOR_{layout.id:03d}",
                f"Pixel Coordinates (Detector {layout.id})",
                "pix",
                layout.bbox,
            )
        )
        centre_x, centre_y = _centre(layout.bbox)
        pixels_per_mm = 1.0 / camera.pixel_size
        maps.append(
            "\n".join(
                [
                    "Begin WinMap",
                    "Nin = 2",
                    "IsA Mapping",
                    f"Sft1 = {centre_x - layout.centre_x * pixels_per_mm!r}",
                    f"Scl1 = {pixels_per_mm!r}",
                    f"Sft2 = {centre_y - layout.centre_y * pixels_per_mm!r}",
                    f"Scl2 = {pixels_per_mm!r}",
                    "End WinMap",
                ]
            )
        )
    n_frames = len(frames)
    lines = ["Begin FrameSet", "IsA Frame", f"Nframe = {n_frames}", f"Currnt = {n_frames}"]
    lines += [f"Lnk{number} = 1" for number in range(2, n_frames + 1)]
    lines += [f"Frm{number} =\n{text}" for number, text in enumerate(frames, start=1)]
    lines += [f"Map{number} =\n{text}" for number, text in enumerate(maps, start=2)]
    return "\n".join([*lines, "End FrameSet", ""])
