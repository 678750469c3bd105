"""Simulated pairs of science and template images with the truth behind them, drawn with GalSim."""

from ._artefact import Artefact, artefact_table
from ._astrometric_jitter import AstrometricJitter
from ._bad_columns import BadColumns
from ._bleed_trails import BleedTrails
from ._brighter_fatter import BrighterFatter
from ._chromatic_refraction import ChromaticRefraction
from ._coma import Coma
from ._conditions import ObservingConditions
from ._cosmic_rays import CosmicRays
from ._crosstalk import Crosstalk
from ._ghosts import Ghosts
from ._gradients import CalibrationGradient, SkyGradient
from ._lanczos import PixelMap, lanczos_warp, lanczos_weights
from ._psf_field import PsfField
from ._render import CameraEffects, Rendering, render
from ._scene import Scene, SceneConfig, ideal_difference_sigma, make_scene, truth_table
from ._simulated_pair import SimulatedPair, simulate_pair
from ._streaks import Streaks
from ._survey import BrokenDetector, SurveyConfig, VisitPlan, default_survey, read_survey, write_survey
from ._warped_coadd import WarpedCoadd

__all__ = [
    "Artefact",
    "AstrometricJitter",
    "BadColumns",
    "BleedTrails",
    "BrighterFatter",
    "BrokenDetector",
    "CalibrationGradient",
    "CameraEffects",
    "ChromaticRefraction",
    "Coma",
    "CosmicRays",
    "Crosstalk",
    "Ghosts",
    "ObservingConditions",
    "PixelMap",
    "PsfField",
    "Rendering",
    "Scene",
    "SceneConfig",
    "SimulatedPair",
    "SkyGradient",
    "Streaks",
    "SurveyConfig",
    "VisitPlan",
    "WarpedCoadd",
    "artefact_table",
    "default_survey",
    "ideal_difference_sigma",
    "lanczos_warp",
    "lanczos_weights",
    "make_scene",
    "read_survey",
    "render",
    "simulate_pair",
    "truth_table",
    "write_survey",
]
