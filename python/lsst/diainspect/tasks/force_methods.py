"""Measure every source in the difference image of every method, whichever of them found it."""

from __future__ import annotations

__all__ = ["ForceMethodsConfig", "ForceMethodsConnections", "ForceMethodsTask"]

from collections.abc import Mapping
from typing import Any

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
import numpy as np
from astropy.table import Table
from lsst.images import MaskedImage

from ..comparison import force_photometry
from ..subtraction import filters_from_table

_KEPT = ("visit", "detector", "band", "x", "y", "ra", "dec", "nMethods")
"""Columns of the comparison that its forced measurements repeat, besides the identifiers."""


class ForceMethodsConnections(
    pipeBase.PipelineTaskConnections, dimensions=("instrument", "visit", "detector")
):
    """Connections of `ForceMethodsTask`: the comparison, and two inputs for each method."""

    comparison = cT.Input(
        doc="Sources of all methods, joined by position.",
        name="subtraction_comparison",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    forced = cT.Output(
        doc="Forced photometry of every source on every method's difference, in the rows of the comparison.",
        name="subtraction_forced",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )

    def __init__(self, *, config: ForceMethodsConfig) -> None:
        for method in config.methods:
            for kind, storage_class, doc in (
                ("difference_image", "DifferenceImage", "Difference image"),
                ("difference_filters", "ArrowAstropy", "PSF of the difference"),
            ):
                connection = cT.Input(
                    doc=f"{doc} of {method}.",
                    name=f"{method}_{kind}",
                    storageClass=storage_class,
                    dimensions=("instrument", "visit", "detector"),
                    # Each image is read when its turn comes, so that one is in memory at a time.
                    deferLoad=True,
                    minimum=0,
                )
                setattr(self, f"{method}_{kind}", connection)


class ForceMethodsConfig(pipeBase.PipelineTaskConfig, pipelineConnections=ForceMethodsConnections):
    """Configuration of `ForceMethodsTask`."""

    methods = pexConfig.ListField[str](doc="Methods to measure in.", dtype=str, default=["al", "zogy"])
    radius = pexConfig.RangeField[float](
        doc="Radius of the disk in which the PSF is fitted [pixel].", default=12.0, min=1.0
    )


class ForceMethodsTask(pipeBase.PipelineTask):
    """Measure what one method found where the others looked."""

    ConfigClass = ForceMethodsConfig
    _DefaultName = "forceMethods"
    config: ForceMethodsConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Read one method's difference after the other, measure and write."""
        inputs: dict[str, Any] = butlerQC.get(inputRefs)
        methods = [
            method
            for method in self.config.methods
            if all(
                inputs.get(f"{method}_{kind}") is not None
                for kind in ("difference_image", "difference_filters")
            )
        ]

        def load(method: str) -> tuple[MaskedImage, Table]:
            # Without the image's own PSF model, which takes longer to read than its pixels: the filters have it.
            image = inputs[f"{method}_difference_image"].get(component="masked_image")
            return image, inputs[f"{method}_difference_filters"].get()

        butlerQC.put(self.run(inputs["comparison"], _Lazy(methods, load)), outputRefs)

    def run(self, comparison: Table, differences: Mapping[str, tuple[MaskedImage, Table]]) -> pipeBase.Struct:
        """Measure.

        Parameters
        ----------
        comparison : `astropy.table.Table`
            Sources with ``x`` and ``y`` [pixel], as `lsst.diainspect.comparison.join_sources` makes them.
        differences : mapping [`str`, `tuple`]
            Difference image and table of filters by method.

        Returns
        -------
        struct : `lsst.pipe.base.Struct`
            ``forced``, `astropy.table.Table`: one row for each of the comparison, with ``{method}_forcedFlux``,
            ``{method}_forcedFluxErr``, ``{method}_forcedSnr``, ``{method}_forcedChi2``,
            ``{method}_forcedNdata``, ``{method}_forced_flag``.
        """
        ids = [name for name in comparison.colnames if name.endswith("_diaSourceId")]
        forced = comparison[[name for name in (*_KEPT, *ids) if name in comparison.colnames]]
        x, y = (np.asarray(comparison[name], dtype=float) for name in ("x", "y"))
        for method in differences:
            difference, filters = differences[method]
            psf = filters_from_table(filters)["differencePsf"]
            measured = force_photometry(x, y, difference, psf, self.config.radius)
            for name in measured.colnames:
                forced[f"{method}_{name}"] = measured[name]
        self.log.info("Measured %d sources in %s.", len(forced), ", ".join(differences) or "no method")
        return pipeBase.Struct(forced=forced)


class _Lazy(Mapping[str, tuple[MaskedImage, Table]]):
    """Values that are read when they are asked for, and not kept."""

    def __init__(self, names: list[str], load: Any) -> None:
        self._names, self._load = names, load

    def __getitem__(self, name: str) -> tuple[MaskedImage, Table]:
        return self._load(name)

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
