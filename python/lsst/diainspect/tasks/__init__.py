"""PipelineTasks: the only place that knows connections and dimensions.

A module is imported when one of its classes is asked for. A quantum that is run in a process of its own then pays for
what its task uses, not for all tasks: a table that is gathered needs no matplotlib and no compiled loops.
"""

from __future__ import annotations

import importlib
import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adopt_difference import *
    from .calibrate_difference import *
    from .classify_sources import *
    from .compare_subtractions import *
    from .cut_stamps import *
    from .detect_dia_sources import *
    from .diagnose_sources import *
    from .force_methods import *
    from .gather_tables import *
    from .match_truth import *
    from .measure_detector_maps import *
    from .measure_difference_metrics import *
    from .plot_detector import *
    from .plot_image_statistics import *
    from .plot_registration import *
    from .plot_sky_noise import *
    from .plot_sources import *
    from .plot_survey import *
    from .plot_visit import *
    from .subtract_images import *
    from .summarize_methods import *
    from .summarize_truth import *

_TASKS = {
    "adopt_difference": ("AdoptDifference",),
    "calibrate_difference": ("CalibrateDifference",),
    "classify_sources": ("ClassifySources",),
    "compare_subtractions": ("CompareSubtractions",),
    "cut_stamps": ("CutStamps",),
    "detect_dia_sources": ("DetectDiaSources",),
    "diagnose_sources": ("DiagnoseSources",),
    "force_methods": ("ForceMethods",),
    "gather_tables": ("GatherVisit", "GatherSurvey"),
    "match_truth": ("MatchTruth",),
    "measure_detector_maps": ("MeasureDetectorMaps",),
    "measure_difference_metrics": ("MeasureDifferenceMetrics",),
    "plot_detector": ("PlotDetector",),
    "plot_image_statistics": ("PlotImageStatistics",),
    "plot_registration": ("PlotRegistration",),
    "plot_sky_noise": ("PlotSkyNoise",),
    "plot_sources": ("PlotSources",),
    "plot_survey": ("PlotSurvey",),
    "plot_visit": ("PlotVisit",),
    "subtract_images": ("SubtractImages",),
    "summarize_methods": ("SummarizeMethodsVisit", "SummarizeMethodsSurvey"),
    "summarize_truth": ("SummarizeTruth",),
}
"""The tasks of each module, without the endings of their three classes."""

_MODULES = {
    f"{task}{ending}": module
    for module, tasks in _TASKS.items()
    for task in tasks
    for ending in ("Config", "Connections", "Task")
} | {"GatherTablesTask": "gather_tables", "SummarizeMethodsTask": "summarize_methods"}

__all__ = sorted(_MODULES)

# With `pipetask run --start-method forkserver` the server imports once what all quanta use, and each quantum starts as
# a copy of it. The server is told what before it starts; other start methods take no notice. What is not installed is
# passed over.
multiprocessing.set_forkserver_preload(["lsst.ctrl.mpexec.cli.pipetask", f"{__name__}._preload"])


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
