"""DiaSim, the simulated camera: a 2 x 2 mosaic with the pixel scale of LSSTCam."""

from __future__ import annotations

__all__ = ["DiaSim"]

from collections.abc import Mapping
from typing import Any

from lsst.daf.butler import Formatter, FormatterV2, Registry
from lsst.images.formatters import GenericFormatter
from lsst.pipe.base import Instrument

from ._camera import CameraLayout, mosaic
from ._numbering import DETECTOR_LIMIT, VISIT_LIMIT
from ._sync_instrument import sync_instrument

_BANDS = ("u", "g", "r", "i", "z", "y")


class DiaSim(Instrument):
    """The simulated camera: four detectors, filters ugrizy, 0.2 arcsec pixels.

    The size of the detectors is chosen by the simulation; the repository records only their names.
    """

    N_COLUMNS = 2
    N_ROWS = 2
    PIXEL_SCALE = 0.2
    """Pixel scale [arcsec / pixel]."""
    DEFAULT_SIZE = 1024
    """Side of a detector [pixel]."""

    @classmethod
    def getName(cls) -> str:
        return "DiaSim"

    @classmethod
    def camera(
        cls, size: int | tuple[int, int] = DEFAULT_SIZE, origin: tuple[int, int] = (0, 0)
    ) -> CameraLayout:
        """Return the layout of the camera.

        Parameters
        ----------
        size : `int` or `tuple` [`int`, `int`], optional
            Size of a detector, one side or (x, y) [pixel].
        origin : `tuple` [`int`, `int`], optional
            Coordinates x, y of the lower left pixel of each detector.
        """
        return mosaic(
            cls.getName(),
            n_columns=cls.N_COLUMNS,
            n_rows=cls.N_ROWS,
            detector_size=(size, size) if isinstance(size, int) else size,
            pixel_scale=cls.PIXEL_SCALE,
            origin=origin,
        )

    def register(self, registry: Registry, *, update: bool = False) -> None:
        with registry.transaction():
            sync_instrument(
                registry, self, visit_limit=VISIT_LIMIT, detector_limit=DETECTOR_LIMIT, update=update
            )
            for layout in self.camera().detectors:
                registry.syncDimensionData(
                    "detector",
                    {
                        "instrument": self.getName(),
                        "id": layout.id,
                        "full_name": layout.name,
                        "name_in_raft": layout.name.split("_")[1],
                        "raft": layout.name.split("_")[0],
                        "purpose": "SCIENCE",
                    },
                    update=update,
                )
            for band in _BANDS:
                registry.syncDimensionData(
                    "physical_filter",
                    {"instrument": self.getName(), "name": band, "band": band},
                    update=update,
                )

    def getRawFormatter(self, dataId: Mapping[str, Any]) -> type[Formatter | FormatterV2]:
        # The simulation writes calibrated images; a raw file would be an lsst-images archive like them.
        return GenericFormatter
