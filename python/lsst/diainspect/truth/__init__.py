"""Truth: what really changed, matched with what was detected, and the statistics of how well."""

from ._assignment import Pairs, match_positions, tangent_plane
from ._bootstrap import Resampling, bootstrap, bootstrap_ratio
from ._completeness import DetectionCurve, bin_completeness, fit_detection_curve
from ._curves import CurveSummary, score_curve, summarise_curve
from ._fiducial import FiducialArea
from ._ingest_truth import TruthIngest, ingest_truth
from ._intervals import LEVEL, binomial_interval, poisson_interval
from ._match import MatchSettings, match_truth
from ._match_counts import count_matches
from ._paired import PairedDetection, pair_detections, paired_detection
from ._placement import place_truth
from ._pulls import TAIL, PullStatistics, pull_statistics
from ._selection_summary import flag_columns
from ._source_truth import source_truth
from ._summary import TruthSummary, summarise_truth
from ._summary_settings import SummarySettings
from ._truth_table import TRUTH_COLUMNS, TruthColumn, TruthError, read_truth, standard_truth

__all__ = [
    "LEVEL",
    "TAIL",
    "TRUTH_COLUMNS",
    "CurveSummary",
    "DetectionCurve",
    "FiducialArea",
    "MatchSettings",
    "PairedDetection",
    "Pairs",
    "PullStatistics",
    "Resampling",
    "SummarySettings",
    "TruthColumn",
    "TruthError",
    "TruthIngest",
    "TruthSummary",
    "bin_completeness",
    "binomial_interval",
    "bootstrap",
    "bootstrap_ratio",
    "count_matches",
    "fit_detection_curve",
    "flag_columns",
    "ingest_truth",
    "match_positions",
    "match_truth",
    "pair_detections",
    "paired_detection",
    "place_truth",
    "poisson_interval",
    "pull_statistics",
    "read_truth",
    "score_curve",
    "source_truth",
    "standard_truth",
    "summarise_curve",
    "summarise_truth",
    "tangent_plane",
]
