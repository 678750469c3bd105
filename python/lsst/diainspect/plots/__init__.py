"""Figures of what the pipeline makes: tables and arrays in, `matplotlib.figure.Figure` out, without pyplot."""

from ._binned_image import BinnedImage, bin_image
from ._class_mix import plot_class_mix
from ._detector import DetectorPanels, plot_detector
from ._detector_label import DetectorLabel
from ._discrepancy import Discrepancy, rank_discrepant, signed_snr
from ._labels import SurveyLabel, VisitLabel
from ._method_metrics import plot_method_metrics
from ._metric_maps import plot_focal_plane, plot_metric_maps
from ._noise import plot_noise
from ._power import plot_power
from ._registration import plot_registration
from ._residual_mode_maps import plot_residual_modes
from ._snr import plot_snr
from ._stamps import SourceStamps, gather_source_stamps, plot_stamps
from ._star_residuals import plot_star_residuals, plot_star_stacks
from ._stretch import shared_sky_norm, shared_symmetric_norm
from ._style import PALETTE, method_colours
from ._time_series import plot_time_series
from ._truth_curves import plot_completeness, plot_roc

__all__ = [
    "PALETTE",
    "BinnedImage",
    "DetectorLabel",
    "DetectorPanels",
    "Discrepancy",
    "SourceStamps",
    "SurveyLabel",
    "VisitLabel",
    "bin_image",
    "gather_source_stamps",
    "method_colours",
    "plot_class_mix",
    "plot_completeness",
    "plot_detector",
    "plot_focal_plane",
    "plot_method_metrics",
    "plot_metric_maps",
    "plot_noise",
    "plot_power",
    "plot_registration",
    "plot_residual_modes",
    "plot_roc",
    "plot_snr",
    "plot_stamps",
    "plot_star_residuals",
    "plot_star_stacks",
    "plot_time_series",
    "rank_discrepant",
    "shared_sky_norm",
    "shared_symmetric_norm",
    "signed_snr",
]
