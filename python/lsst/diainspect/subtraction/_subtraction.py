"""What a subtractor makes, and the interface it has."""

from __future__ import annotations

__all__ = ["SubtractionResult", "Subtractor", "SubtractorConfig", "subtractor_registry"]

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import lsst.pex.config as pexConfig
import numpy as np
from astropy.table import Table

from ..psf import PixelBasis, PixelBasisPsf
from ._image_pair import ImagePair


@dataclass(frozen=True)
class SubtractionResult:
    """A difference image with everything needed to interpret it.

    The difference is linear in its inputs: D = science_filter * science - template_filter * template -
    background, with filters that vary over the detector. Its flux scale is the science image's.

    Parameters
    ----------
    difference, variance : `numpy.ndarray`, (height, width), float32
        Difference [nJy] and its variance [nJy^2], source noise included.
    score : `numpy.ndarray`, (height, width), float32
        Detection statistic in units of its own sigma.
    bad : `numpy.ndarray`, (height, width), bool
        Pixels bad in either input.
    spread : `numpy.ndarray`, (height, width), bool
        Pixels within reach of the filters from a bad one.
    edge : `numpy.ndarray`, (height, width), bool
        Pixels so near the border that the filters reach over it.
    psf : `PixelBasisPsf`
        PSF of the difference.
    science_filter, template_filter : `PixelBasis`
        The filters that made the difference.
    sample_filters : callable or `None`
        Takes a size [pixel]; returns the two filters on images of that side, where the method can make them.
    kernel : `PixelBasis` or `None`
        Matching kernel, by convolution, where the method has one.
    kernel_convolves : `str` or `None`
        Which image the kernel convolves, "science" or "template".
    kernel_sources : `astropy.table.Table` or `None`
        One row a candidate source of the match.
    kernel_quality : `astropy.table.Table` or `None`
        How good the kernel is, one row a position.
    template_matched : `numpy.ndarray` or `None`
        Template brought to the science image's PSF and flux scale [nJy], where the method makes one.
    metadata : `dict`
        What was decided and measured on the way, by name.
    """

    difference: np.ndarray
    variance: np.ndarray
    score: np.ndarray
    bad: np.ndarray
    spread: np.ndarray
    edge: np.ndarray
    psf: PixelBasisPsf
    science_filter: PixelBasis
    template_filter: PixelBasis
    sample_filters: Callable[[int], tuple[PixelBasis, PixelBasis]] | None = None
    kernel: PixelBasis | None = None
    kernel_convolves: str | None = None
    kernel_sources: Table | None = None
    kernel_quality: Table | None = None
    template_matched: np.ndarray | None = None
    metadata: dict[str, int | float | str] = field(default_factory=dict)


class SubtractorConfig(pexConfig.Config):
    """Configuration that every subtractor has."""

    cellSize = pexConfig.RangeField[int](
        doc="Largest side of the cells in which filters vary linearly [pixel]; they are made smaller where the PSFs "
        "vary too fast for that.",
        default=512,
        min=32,
    )
    cellHalo = pexConfig.RangeField[int](
        doc="Real pixels added around a cell before its transform, so that wrap-around stays outside [pixel].",
        default=38,
        min=8,
    )
    backgroundCellSize = pexConfig.RangeField[int](
        doc="Mesh of the clipped background that is taken from the difference [pixel]; 0 for none.",
        default=256,
        min=0,
    )
    whiten = pexConfig.Field[bool](
        doc="Measure the noise of the difference in blank sky, and filter it to white noise where it is not what the "
        "variance planes predict (resampled images)?",
        dtype=bool,
        default=True,
    )


class Subtractor(abc.ABC):
    """Base of the image subtraction algorithms.

    Parameters
    ----------
    config : `SubtractorConfig`
        Instance of the class's ``ConfigClass``.
    """

    ConfigClass: ClassVar[type[SubtractorConfig]] = SubtractorConfig

    outputs: ClassVar[frozenset[str]] = frozenset({"difference", "score"})
    """Names of the optional outputs that the algorithm makes, of "difference", "score", "kernel",
    "kernelSources", "kernelQuality" and "templateMatched"; tasks drop the connections of the others."""

    def __init__(self, config: SubtractorConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def subtract(self, pair: ImagePair, kernel_sources: Table | None = None) -> SubtractionResult:
        """Subtract the template from the science image.

        Parameters
        ----------
        pair : `ImagePair`
            The images.
        kernel_sources : `astropy.table.Table`, optional
            Candidates to match the images on, with columns ``x`` and ``y`` [pixel]; found in the images when
            omitted.

        Raises
        ------
        SubtractionError
            For what lies in the data.
        """
        raise NotImplementedError


subtractor_registry = pexConfig.makeRegistry("Image subtraction algorithms, by the name of their method.")
