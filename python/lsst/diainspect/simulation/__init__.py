"""Simulated pairs of science and template images with the truth behind them, drawn with GalSim."""

from ._conditions import ObservingConditions
from ._psf_field import PsfField
from ._render import Rendering, render
from ._scene import Scene, SceneConfig, ideal_difference_sigma, make_scene, truth_table
from ._simulated_pair import SimulatedPair, simulate_pair
from ._survey import BrokenDetector, SurveyConfig, VisitPlan, default_survey, read_survey, write_survey

__all__ = [
    "BrokenDetector",
    "ObservingConditions",
    "PsfField",
    "Rendering",
    "Scene",
    "SceneConfig",
    "SimulatedPair",
    "SurveyConfig",
    "VisitPlan",
    "default_survey",
    "ideal_difference_sigma",
    "make_scene",
    "read_survey",
    "render",
    "simulate_pair",
    "truth_table",
    "write_survey",
]
