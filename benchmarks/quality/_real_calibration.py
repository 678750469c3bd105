"""How well our differences of real pairs are calibrated, by what needs neither truth nor a reference."""

from __future__ import annotations

__all__ = ["ROWS", "calibrate_pair"]

import numpy as np

from lsst.diainspect.subtraction import (
    SubtractionResult,
    filters_to_table,
    make_difference_image,
    make_score_image,
    result_filters,
)
from lsst.diainspect.tasks import (
    CalibrateDifferenceConfig,
    CalibrateDifferenceTask,
    DetectDiaSourcesConfig,
    DetectDiaSourcesTask,
    MeasureDetectorMapsConfig,
    MeasureDetectorMapsTask,
)

from ._real_pairs import RealPair

ROWS = (
    ("blankSkyPullSigma", np.nan, "forced PSF flux / error in blank sky: sigma", 3),
    ("blankSkyPullMean", np.nan, "... median", 3),
    ("aperture6PullSigma", np.nan, "flux within 6 pixels / error in blank sky: sigma", 3),
    ("onSourcesPullSigma", 5.0, "forced PSF flux / error on static sources of S/N 5-20: sigma", 2),
    ("onSourcesPullSigma", 20.0, "... of S/N 20-100", 2),
    ("onSourcesPullSigma", 100.0, "... of S/N 100-500", 2),
    ("starsPullSigma", np.nan, "forced PSF flux / error on static stars: sigma", 2),
    ("starFluxMean", np.nan, "flux left of static stars over their flux: mean", 4),
    ("starErrorFloor", np.nan, "... scatter beyond the errors", 4),
    ("heldOutStarsChi2", np.nan, "reduced chi-square of stars that were not matched on: median", 2),
    ("symmetryPurity", 5.0, "purity from the symmetry of positive and negative detections", 2),
)
"""Statistic, lower edge of its bin, title and digits, in the order of the table."""


def calibrate_pair(real: RealPair, result: SubtractionResult) -> list[tuple[float, float, int]]:
    """Detect on a difference and calibrate it with the pipeline's own tasks.

    Parameters
    ----------
    real : `RealPair`
        The pair.
    result : `SubtractionResult`
        Its subtraction.

    Returns
    -------
    rows : `list` [`tuple` [`float`, `float`, `int`]]
        Value, error and number for each of ``ROWS``; NaN and 0 where there is nothing to measure it on.
    """
    science, template = real.images
    difference = make_difference_image(result, real.pair, science, template)
    filters = filters_to_table(result_filters(result, real.pair))
    sources = (
        DetectDiaSourcesTask(config=DetectDiaSourcesConfig())
        .run(difference=difference, score=make_score_image(result, real.pair, difference))
        .diaSources
    )
    images = science, template, difference, filters
    stars = None
    if result.kernel_sources is not None:
        maps = MeasureDetectorMapsTask(config=MeasureDetectorMapsConfig())
        stars = maps.run(*images, result.kernel_sources).stars
    found = (
        CalibrateDifferenceTask(config=CalibrateDifferenceConfig()).run(*images, sources, stars).calibration
    )
    rows = []
    for statistic, low, _, _ in ROWS:
        here = np.asarray(found["statistic"]).astype(str) == statistic
        edge = np.asarray(found["low"], dtype=float)
        here &= np.isnan(edge) if np.isnan(low) else edge == low
        if here.any():
            row = found[here][0]
            rows.append((float(row["value"]), float(row["error"]), int(row["n"])))
        else:
            rows.append((np.nan, np.nan, 0))
    return rows
