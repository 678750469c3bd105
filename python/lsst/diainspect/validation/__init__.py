"""Our measurements of survey alerts against what the surveys recorded."""

from ._differences import compare_differences, flux_ratio_by_visit, is_isolated
from ._dipoles import compare_dipoles
from ._figures import plot_differences, plot_dipoles, plot_psf_fluxes, plot_separation
from ._psf_fluxes import PsfFit, compare_psf_fluxes, factor_by_visit, is_well_inside
from ._separation import (
    Separation,
    diagnostic_features,
    objects_on_sky,
    roc_area,
    separate_by_classifier,
    separate_by_column,
)

__all__ = [
    "PsfFit",
    "Separation",
    "compare_differences",
    "compare_dipoles",
    "compare_psf_fluxes",
    "diagnostic_features",
    "factor_by_visit",
    "flux_ratio_by_visit",
    "is_isolated",
    "is_well_inside",
    "objects_on_sky",
    "plot_differences",
    "plot_dipoles",
    "plot_psf_fluxes",
    "plot_separation",
    "roc_area",
    "separate_by_classifier",
    "separate_by_column",
]
