"""What a source is: its place, its look and its cause, each with scores and the evidence for them."""

from ._cause_model import CauseModel, LabelModel, stored_model
from ._classify import classification_columns, classify_sources
from ._evidence import Evidence
from ._features import FEATURES, REAL_FEATURES, Feature, evaluate_features, is_approximate
from ._looks import LOOKS
from ._places import PLACES
from ._reliability import expected_calibration_error, reliability
from ._rule import Rule, falling, rising
from ._shared_causes import CAUSES, SHARED
from ._trees import BoostedTrees

__all__ = [
    "CAUSES",
    "FEATURES",
    "LOOKS",
    "PLACES",
    "REAL_FEATURES",
    "SHARED",
    "BoostedTrees",
    "CauseModel",
    "Evidence",
    "Feature",
    "LabelModel",
    "Rule",
    "classification_columns",
    "classify_sources",
    "evaluate_features",
    "expected_calibration_error",
    "falling",
    "is_approximate",
    "reliability",
    "rising",
    "stored_model",
]
