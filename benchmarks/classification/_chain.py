"""From a plan to a table: one detector simulated, subtracted, detected, measured and told what is true."""

from __future__ import annotations

__all__ = ["make_detector_table"]

import numpy as np
from astropy.table import Table, hstack, vstack
from lsst.images import Box
from lsst.utils.logging import getLogger

from lsst.diainspect.detection import TooManyDetectionsError
from lsst.diainspect.diagnostics import diagnostic_registry, measure_diagnostics
from lsst.diainspect.psf import MODE_NAMES, PixelBasisPsf, residual_modes
from lsst.diainspect.simulation import SimulatedPair, simulate_pair
from lsst.diainspect.stamps import StampSet
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    SubtractionError,
    Subtractor,
    ZogyConfig,
    ZogySubtractor,
    filters_to_table,
    make_difference_image,
    make_score_image,
    result_filters,
)
from lsst.diainspect.tasks import (
    CutStampsConfig,
    CutStampsTask,
    DetectDiaSourcesConfig,
    DetectDiaSourcesTask,
    DiagnoseSourcesConfig,
    DiagnoseSourcesTask,
    MeasureDetectorMapsConfig,
    MeasureDetectorMapsTask,
)

from ._inject_changes import inject_changes
from ._psf_families import psf_family
from ._surveys import TARGETS, DetectorPlan, plan_detector
from ._true_causes import true_causes

_LOG = getLogger(__name__)

SIZE = 512
"""Side of the detectors [pixel]."""

_ALERT_PLANES = (
    "science",
    "template",
    "difference",
    "scienceVariance",
    "templateVariance",
    "differenceVariance",
)
_ALERT_MODELS = ("sciencePsf", "templatePsf", "differencePsf")


def make_detector_table(number: int, seed: int, family: str) -> Table | None:
    """Make the sources of one detector with their evidence and their true causes, twice over.

    Parameters
    ----------
    number : `int`
        Counter of the detector.
    seed : `int`
        Seed of the whole set.
    family : `str`
        PSF family.

    Returns
    -------
    table : `astropy.table.Table` or `None`
        Source table and diagnostics, once as the pipeline measures them and once from stamps as alerts have them
        (``isAlert``), and the columns of `true_causes`; None where the subtraction was refused.
    """
    rng = np.random.default_rng([seed, number])
    plan = plan_detector(number, rng)
    with psf_family(family):
        pair = simulate_pair(plan.conditions, plan.scene, int(rng.integers(1 << 31)), size=SIZE)
    if plan.injected_snr is not None:
        inject_changes(pair, plan.injected_snr, plan.injected_fraction, rng)
    try:
        sources, diagnostics, alerts = _measure(plan, pair)
    except (SubtractionError, TooManyDetectionsError) as error:
        # One detector that cannot be subtracted does not cost the others; it is said, and left out.
        _LOG.warning("Detector %d of seed %d (%s) is left out: %s", number, seed, plan.scenario, error)
        return None
    if len(sources) == 0:
        return None
    truth = true_causes(plan, pair, sources, diagnostics)
    tables = []
    for is_alert, measured in ((False, diagnostics), (True, alerts)):
        if measured is None:
            continue
        table = hstack([sources, _without_keys(measured), truth], join_type="exact")
        table["isAlert"] = is_alert
        tables.append(table)
    joined = vstack(tables, join_type="outer", metadata_conflicts="silent")
    joined["detectorNumber"], joined["scenario"], joined["method"] = number, plan.scenario, plan.method
    joined["family"] = family
    joined.meta.clear()
    return joined


def _measure(plan: DetectorPlan, simulated: SimulatedPair) -> tuple[Table, Table, Table | None]:
    """Subtract, detect and measure; return sources, diagnostics, and those from what an alert has but for targets."""
    subtractor: Subtractor
    if plan.method == "al":
        subtractor = AlSubtractor(AlConfig(**plan.subtractor))
    else:
        subtractor = ZogySubtractor(ZogyConfig(**plan.subtractor))
    science_psf = _with_error(simulated.science_psf, plan, simulated.science.bbox)
    pair = ImagePair.from_images(simulated.science, simulated.template, science_psf, simulated.template_psf)
    result = subtractor.subtract(pair)
    difference = make_difference_image(result, pair, simulated.science, simulated.template)
    filters = filters_to_table(result_filters(result, pair))
    detection = DetectDiaSourcesConfig()
    detection.threshold, detection.detectOn = plan.threshold, plan.detect_on
    score = make_score_image(result, pair, difference)
    sources = DetectDiaSourcesTask(config=detection).run(difference=difference, score=score).diaSources
    images = simulated.science, simulated.template, difference
    maps = MeasureDetectorMapsTask(config=MeasureDetectorMapsConfig()).run(
        *images, filters, result.kernel_sources
    )
    cut = CutStampsTask(config=CutStampsConfig()).run(
        sources, filters, difference, science=simulated.science, template=simulated.template
    )
    task = DiagnoseSourcesTask(config=DiagnoseSourcesConfig())
    diagnostics = task.run(cut.stamps, filters, result.kernel_sources, maps.maps).diagnostics
    alerts = None
    if plan.scenario not in TARGETS:
        alerts = _measure_as_alerts(StampSet.from_tables(cut.stamps, filters))
    return sources, diagnostics, alerts


def _measure_as_alerts(stamps: StampSet) -> Table:
    """Measure with what alerts have: three images of 31 pixels and their PSFs, no mask, filters or maps."""
    stamps = stamps.cropped(31)
    bare = StampSet(
        stamps.sources,
        {name: stamps.planes[name] for name in _ALERT_PLANES if name in stamps.planes},
        {name: stamps.models[name] for name in _ALERT_MODELS},
    )
    names = sorted(DiagnoseSourcesConfig().diagnostics.names)
    return measure_diagnostics(
        bare, {name: diagnostic_registry[name](diagnostic_registry[name].ConfigClass()) for name in names}
    )


def _with_error(psf: PixelBasisPsf, plan: DetectorPlan, bounds: Box) -> PixelBasisPsf:
    """Return a model that the true PSF exceeds by the plan's errors, to first order."""
    if plan.width_error == 0.0 and plan.shear_error == (0.0, 0.0):
        return psf
    errors = dict(zip(("width", "e1", "e2"), (plan.width_error, *plan.shear_error), strict=True))

    def draw(x: float, y: float) -> np.ndarray:
        image = psf.at(x, y)
        modes = residual_modes(image[None])[0]
        return image - sum(error * modes[MODE_NAMES.index(name)] for name, error in errors.items())

    return PixelBasisPsf.from_callable(draw, bounds, order=3)


def _without_keys(table: Table) -> Table:
    return table[[name for name in table.colnames if name not in ("diaSourceId", "visit", "detector")]]
