"""Per-source diagnostics: vectorised functions of a stamp set, as plugins."""

from ._aperture_photometry import AperturePhotometryConfig, AperturePhotometryDiagnostic
from ._context import ContextConfig, ContextDiagnostic
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._dipole import DipoleConfig, DipoleDiagnostic
from ._local_noise import LocalNoiseConfig, LocalNoiseDiagnostic
from ._mask_fractions import MaskFractionsConfig, MaskFractionsDiagnostic
from ._measure import diagnostic_columns, measure_diagnostics
from ._psf_photometry import PsfPhotometryConfig, PsfPhotometryDiagnostic, fit_plane_psf
from ._residual_modes import ResidualModesConfig, ResidualModesDiagnostic
from ._shape import ShapeConfig, ShapeDiagnostic
from ._trail import TrailConfig, TrailDiagnostic

__all__ = [
    "AperturePhotometryConfig",
    "AperturePhotometryDiagnostic",
    "ContextConfig",
    "ContextDiagnostic",
    "Diagnostic",
    "DiagnosticColumn",
    "DiagnosticConfig",
    "DipoleConfig",
    "DipoleDiagnostic",
    "LocalNoiseConfig",
    "LocalNoiseDiagnostic",
    "MaskFractionsConfig",
    "MaskFractionsDiagnostic",
    "PsfPhotometryConfig",
    "PsfPhotometryDiagnostic",
    "ResidualModesConfig",
    "ResidualModesDiagnostic",
    "ShapeConfig",
    "ShapeDiagnostic",
    "TrailConfig",
    "TrailDiagnostic",
    "diagnostic_columns",
    "diagnostic_registry",
    "fit_plane_psf",
    "measure_diagnostics",
]
