"""Figures of what the pipeline makes: tables and arrays in, `matplotlib.figure.Figure` out, without pyplot."""

from ._binned_image import BinnedImage, bin_image
from ._detector import DetectorPanels, plot_detector
from ._detector_label import DetectorLabel
from ._discrepancy import Discrepancy, rank_discrepant, signed_snr
from ._noise import plot_noise
from ._power import plot_power
from ._registration import plot_registration
from ._sky_noise import SkyNoise, measure_sky_noise
from ._snr import plot_snr
from ._stamps import SourceStamps, gather_source_stamps, plot_stamps
from ._style import PALETTE, method_colours

__all__ = [
    "PALETTE",
    "BinnedImage",
    "DetectorLabel",
    "DetectorPanels",
    "Discrepancy",
    "SkyNoise",
    "SourceStamps",
    "bin_image",
    "gather_source_stamps",
    "measure_sky_noise",
    "method_colours",
    "plot_detector",
    "plot_noise",
    "plot_power",
    "plot_registration",
    "plot_snr",
    "plot_stamps",
    "rank_discrepant",
    "signed_snr",
]
