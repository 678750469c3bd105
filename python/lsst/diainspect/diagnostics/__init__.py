"""Per-source diagnostics: vectorised functions of a stamp set, as plugins."""

from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from ._local_noise import LocalNoiseConfig, LocalNoiseDiagnostic
from ._mask_fractions import MaskFractionsConfig, MaskFractionsDiagnostic
from ._measure import diagnostic_columns, measure_diagnostics
from ._psf_photometry import PsfPhotometryConfig, PsfPhotometryDiagnostic
from ._residual_modes import ResidualModesConfig, ResidualModesDiagnostic

__all__ = [
    "Diagnostic",
    "DiagnosticColumn",
    "DiagnosticConfig",
    "LocalNoiseConfig",
    "LocalNoiseDiagnostic",
    "MaskFractionsConfig",
    "MaskFractionsDiagnostic",
    "PsfPhotometryConfig",
    "PsfPhotometryDiagnostic",
    "ResidualModesConfig",
    "ResidualModesDiagnostic",
    "diagnostic_columns",
    "diagnostic_registry",
    "measure_diagnostics",
]
