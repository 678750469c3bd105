"""The interface of a diagnostic, and the registry that pipelines choose from."""

from __future__ import annotations

__all__ = ["Diagnostic", "DiagnosticColumn", "DiagnosticConfig", "diagnostic_registry"]

import abc
from dataclasses import dataclass
from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np

from ..stamps import StampSet


@dataclass(frozen=True)
class DiagnosticColumn:
    """A column that a diagnostic makes.

    Parameters
    ----------
    dtype : `str`
        numpy type; floating-point columns are NaN and booleans False where not measured.
    unit : `astropy.units.UnitBase` or `None`
        Unit.
    doc : `str`
        Meaning.
    """

    dtype: str
    unit: u.UnitBase | None
    doc: str


class DiagnosticConfig(pexConfig.Config):
    """Configuration that every diagnostic has."""


class Diagnostic(abc.ABC):
    """A vectorised measurement of all sources of a stamp set.

    Parameters
    ----------
    config : `DiagnosticConfig`
        Instance of the class's ``ConfigClass``.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = DiagnosticConfig

    needs: ClassVar[frozenset[str]]
    """Planes and models without which it cannot be measured."""

    def __init__(self, config: DiagnosticConfig) -> None:
        self.config = config

    @property
    @abc.abstractmethod
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Columns it makes, without the plugin's name in front."""
        raise NotImplementedError

    @abc.abstractmethod
    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure every source.

        Parameters
        ----------
        stamps : `StampSet`
            Stamps of N sources with at least the planes in ``needs``.

        Returns
        -------
        values : `dict` [`str`, `numpy.ndarray`]
            An array of N for each of ``columns``.
        """
        raise NotImplementedError


diagnostic_registry = pexConfig.makeRegistry("Per-source diagnostics of a stamp set.")
