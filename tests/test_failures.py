"""What cannot be done is said clearly, and costs nobody else anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table
from lsst.daf.butler import Butler
from lsst.images import Box, DifferenceImage, Image, MaskedImage, VisitImage
from lsst.pipe.base import AlgorithmError, AnnotatedPartialOutputsError

from commands import WITHOUT_FIGURES, Command, run_pipeline
from lsst.diainspect.comparison import join_sources
from lsst.diainspect.diagnostics import diagnostic_registry, measure_diagnostics
from lsst.diainspect.simulation import SceneConfig, SimulatedPair, simulate_pair
from lsst.diainspect.stamps import StampSet
from lsst.diainspect.subtraction import (
    AllPixelsMaskedError,
    ImagePair,
    NoOverlapError,
    NoPsfError,
    SubtractionError,
    TooFewKernelSourcesError,
    UnitMismatchError,
)
from lsst.diainspect.tasks import (
    CompareSubtractionsTask,
    CutStampsTask,
    DetectDiaSourcesTask,
    DiagnoseSourcesTask,
    MeasureDifferenceMetricsTask,
    SubtractImagesTask,
)

METHODS = ("al", "zogy")
GOOD, NO_DATA, NAN_BLOCK, NO_TEMPLATE = 0, 1, 2, 3
COLLECTION = "u/test/broken"


@dataclass(frozen=True)
class BrokenRun:
    """A run over one visit, three of whose detectors are broken, each in its own way."""

    repo: Path
    command: Command
    butler: Butler

    def tables_of(self, name: str) -> set[int]:
        """Return the detectors for which a dataset was made."""
        refs = self.butler.query_datasets(name, collections=COLLECTION, explain=False)
        return {ref.dataId["detector"] for ref in refs}


@pytest.fixture(scope="module")
def broken(simulate: Callable[..., Path]) -> Iterator[BrokenRun]:
    repo = simulate(
        size=320,
        seed=5,
        detectors=[GOOD, NO_DATA, NAN_BLOCK, NO_TEMPLATE],
        visits=[{"visit": 1, "science_seeing": 0.9, "template_seeing": 0.75}],
        broken=[
            {"detector": NO_DATA, "how": "template_no_data"},
            {"detector": NAN_BLOCK, "how": "nan_block"},
            {"detector": NO_TEMPLATE, "how": "no_template"},
        ],
    )
    command = run_pipeline(repo, COLLECTION)
    with Butler.from_config(str(repo), collections=COLLECTION, instrument="DiaSim") as butler:
        yield BrokenRun(repo, command, butler)


def test_run_with_broken_detectors_ends_well(broken: BrokenRun) -> None:
    broken.command.check()


@pytest.mark.parametrize("method", METHODS)
def test_other_detectors_are_finished(broken: BrokenRun, method: str) -> None:
    for kind in ("difference_image", "dia_source", "dia_stamps", "dia_diagnostics", "difference_metrics"):
        assert broken.tables_of(f"{method}_{kind}") == {GOOD, NAN_BLOCK}


def test_comparison_exists_for_the_other_detectors(broken: BrokenRun) -> None:
    assert broken.tables_of("subtraction_comparison") == {GOOD, NAN_BLOCK}


@pytest.mark.parametrize(
    "name",
    [
        "subtraction_comparison",
        *(f"{m}_{kind}" for m in METHODS for kind in ("dia_source", "difference_metrics")),
    ],
)
def test_visit_and_summary_have_the_other_detectors_rows(broken: BrokenRun, name: str) -> None:
    rows = sum(len(broken.butler.get(name, visit=1, detector=detector)) for detector in (GOOD, NAN_BLOCK))
    for table in (broken.butler.get(f"{name}_visit", visit=1), broken.butler.get(f"{name}_summary")):
        assert len(table) == rows
        assert set(table["detector"]) == {GOOD, NAN_BLOCK}


@pytest.mark.parametrize("label", ["subtractAl", "subtractZogy"])
def test_metadata_of_the_broken_detector_says_why(broken: BrokenRun, label: str) -> None:
    metadata = broken.butler.get(f"{label}_metadata", visit=1, detector=NO_DATA)
    failure = metadata[label]["failure"]
    assert failure["type"].endswith("AllPixelsMaskedError")
    assert "common pixels are good in both images" in failure["message"]
    assert failure["metadata"]["good_fraction"] == 0.0


def test_log_of_the_broken_detector_says_why(broken: BrokenRun) -> None:
    log = broken.butler.get("subtractAl_log", visit=1, detector=NO_DATA)
    assert any("common pixels are good" in record.message for record in log)


def test_detector_without_template_is_left_out_of_the_graph(broken: BrokenRun) -> None:
    assert NO_TEMPLATE not in broken.tables_of("subtractAl_metadata")


def test_nan_block_is_flagged_and_nothing_is_detected_in_it(broken: BrokenRun) -> None:
    for method in METHODS:
        difference = broken.butler.get(f"{method}_difference_image", visit=1, detector=NAN_BLOCK)
        height, width = difference.image.array.shape
        block = np.zeros((height, width), dtype=bool)
        block[: height // 2, : width // 2] = True
        assert np.isfinite(difference.image.array).all()
        assert np.array_equal(difference.mask.get("UNMASKED_NAN"), block)
        sources = broken.butler.get(f"{method}_dia_source", visit=1, detector=NAN_BLOCK)
        x = np.rint(sources["x"]).astype(int) - difference.bbox.x.start
        y = np.rint(sources["y"]).astype(int) - difference.bbox.y.start
        assert not block[y, x].any()
        assert len(sources) > 0


def test_one_method_that_fails_leaves_the_others_comparison(broken: BrokenRun) -> None:
    collection = "u/test/one-method"
    run_pipeline(
        broken.repo,
        collection,
        *("-d", f"instrument='DiaSim' AND visit=1 AND detector={GOOD}"),
        *("-c", "subtractAl:subtractor.active.minKernelSources=100000"),
        pipeline=WITHOUT_FIGURES,
    ).check()
    with Butler.from_config(str(broken.repo), collections=collection, instrument="DiaSim") as butler:
        comparison = butler.get("subtraction_comparison", visit=1, detector=GOOD)
        assert "zogy_found" in comparison.colnames
        assert "al_found" not in comparison.colnames
        assert len(comparison) == len(butler.get("zogy_dia_source_visit", visit=1))
        metadata = butler.get("compareSubtractions_metadata", visit=1, detector=GOOD)
        assert metadata["compareSubtractions"]["missingMethods"] == "al"
        failure = butler.get("subtractAl_metadata", visit=1, detector=GOOD)["subtractAl"]["failure"]
        assert failure["type"].endswith("TooFewKernelSourcesError")
        assert failure["metadata"]["n_candidates"] > 0
        assert not butler.query_datasets("al_dia_source_visit", explain=False)


def _subtract(method: str, science: VisitImage, template: MaskedImage, **fields: object) -> DifferenceImage:
    config = SubtractImagesTask.ConfigClass()
    config.subtractor.name = method
    for name, value in fields.items():
        setattr(config, name, value)
    return SubtractImagesTask(config=config).run(science, template).difference


def _copy(original: VisitImage, **changes: object) -> VisitImage:
    """Return a copy of an image, with other planes or PSF."""
    parts = {
        "image": original.image.copy(),
        "mask": original.mask.copy(),
        "variance": original.variance.copy(),
        "psf": original.psf,
        "sky_projection": original.sky_projection,
        "obs_info": original.obs_info,
        "detector": original.detector,
        "band": original.band,
    }
    return type(original)(**{**parts, **changes})


@pytest.mark.parametrize("method", METHODS)
def test_images_without_common_pixels_are_refused(small_pair: SimulatedPair, method: str) -> None:
    size = small_pair.science.bbox.x.size
    moved = Box.factory[0:size, 10 * size : 11 * size]
    template = small_pair.template
    elsewhere = MaskedImage(
        Image(template.image.array, bbox=moved, unit=u.nJy),
        mask=template.mask.__class__(template.mask.array, schema=template.mask.schema, bbox=moved),
        variance=Image(template.variance.array, bbox=moved, unit=u.nJy**2),
        sky_projection=template.sky_projection,
    )
    config = SubtractImagesTask.ConfigClass()
    config.subtractor.name = method
    with pytest.raises(NoOverlapError, match="share no pixels"):
        SubtractImagesTask(config=config).run(small_pair.science, elsewhere, small_pair.template.psf)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", ["science", "template"])
def test_masked_images_are_refused(small_pair: SimulatedPair, method: str, which: str) -> None:
    images = {"science": small_pair.science, "template": small_pair.template}
    masked = _copy(images[which])
    masked.mask.set("NO_DATA")
    with pytest.raises(AllPixelsMaskedError, match=r"Only 0.00% of the 300 x 300") as raised:
        _subtract(method, **{**images, which: masked})
    assert raised.value.metadata["good_fraction"] == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_images_without_stars_are_refused(method: str) -> None:
    blank = simulate_pair(scene=SceneConfig(blank=True), size=256)
    with pytest.raises(TooFewKernelSourcesError, match="match the images") as raised:
        _subtract(method, blank.science, blank.template)
    assert raised.value.metadata["n_used"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_nan_block_leaves_the_rest_as_it_was(small_pair: SimulatedPair, method: str) -> None:
    whole = _subtract(method, small_pair.science, small_pair.template)
    science = _copy(small_pair.science)
    science.image.array[100:140, 100:140] = np.nan
    difference = _subtract(method, science, small_pair.template)
    assert np.isfinite(difference.image.array).all()
    assert difference.mask.get("UNMASKED_NAN").sum() == 1600
    far = np.ones(difference.image.array.shape, dtype=bool)
    far[40:200, 40:200] = False
    change = (difference.image.array - whole.image.array)[far] / np.sqrt(whole.variance.array[far])
    # Stars under the block are lost to the fit, which moves it within its errors: far less than the noise.
    assert np.sqrt(np.mean(change**2)) < 0.3


@pytest.mark.parametrize("which", ["science", "template"])
def test_pixels_that_are_not_fluxes_are_refused(small_pair: SimulatedPair, which: str) -> None:
    images = {"science": small_pair.science, "template": small_pair.template}
    image = images[which]
    counts = _copy(
        image,
        image=Image(image.image.array, bbox=image.bbox, unit=u.electron),
        variance=Image(image.variance.array, bbox=image.bbox, unit=u.electron**2),
    )
    with pytest.raises(UnitMismatchError, match="electron, which cannot be converted to nJy"):
        _subtract("al", **{**images, which: counts})


def test_pixels_in_another_flux_unit_are_converted(small_pair: SimulatedPair) -> None:
    template = small_pair.template
    in_ujy = _copy(
        template,
        image=Image(template.image.array * 1e-3, bbox=template.bbox, unit=u.uJy),
        variance=Image(template.variance.array * 1e-6, bbox=template.bbox, unit=u.uJy**2),
    )
    one = _subtract("zogy", small_pair.science, template)
    other = _subtract("zogy", small_pair.science, in_ujy)
    scatter = np.sqrt(np.median(one.variance.array))
    assert np.abs(one.image.array - other.image.array).max() < 0.02 * scatter


def test_missing_psf_is_named(small_pair: SimulatedPair) -> None:
    template = small_pair.template
    bare = MaskedImage(
        template.image, mask=template.mask, variance=template.variance, sky_projection=template.sky_projection
    )
    with pytest.raises(NoPsfError, match="template has no PSF"):
        _subtract("al", small_pair.science, bare)
    with pytest.raises(NoPsfError, match="science image has no PSF"):
        ImagePair.from_images(small_pair.science, template, None, small_pair.template_psf)


def test_every_foreseen_failure_is_an_algorithm_error() -> None:
    for error in (
        NoOverlapError,
        AllPixelsMaskedError,
        TooFewKernelSourcesError,
        NoPsfError,
        UnitMismatchError,
    ):
        assert issubclass(error, SubtractionError)
        assert issubclass(error, AlgorithmError)
        assert error("why", number=3).metadata == {"number": 3}


def test_annotated_failure_keeps_numbers_in_the_metadata(small_pair: SimulatedPair) -> None:
    task = SubtractImagesTask(config=SubtractImagesTask.ConfigClass())
    error = TooFewKernelSourcesError("Only 2.", n_used=2)
    annotated = AnnotatedPartialOutputsError.annotate(error, task, log=task.log)
    assert isinstance(annotated, AnnotatedPartialOutputsError)
    assert task.metadata["failure"]["metadata"]["n_used"] == 2


@pytest.fixture(scope="module")
def subtracted(small_pair: SimulatedPair) -> object:
    return SubtractImagesTask(config=SubtractImagesTask.ConfigClass()).run(
        small_pair.science, small_pair.template
    )


def test_no_sources_go_through_every_task(small_pair: SimulatedPair, subtracted: object) -> None:
    config = DetectDiaSourcesTask.ConfigClass()
    config.threshold = 1e9
    sources = DetectDiaSourcesTask(config=config).run(subtracted.difference, subtracted.score).diaSources
    assert len(sources) == 0
    assert "psfFlux" in sources.colnames
    stamps = (
        CutStampsTask(config=CutStampsTask.ConfigClass())
        .run(sources, subtracted.filters, subtracted.difference, small_pair.science, small_pair.template)
        .stamps
    )
    assert stamps["difference"].shape == (0, 41, 41)
    diagnostics = (
        DiagnoseSourcesTask(config=DiagnoseSourcesTask.ConfigClass())
        .run(stamps, subtracted.filters)
        .diagnostics
    )
    assert len(diagnostics) == 0
    assert "residualModes_shiftX" in diagnostics.colnames
    metrics = (
        MeasureDifferenceMetricsTask(config=MeasureDifferenceMetricsTask.ConfigClass())
        .run(small_pair.science, small_pair.template, subtracted.difference, subtracted.score.image, sources)
        .metrics
    )
    assert float(metrics["value"][metrics["metric"] == "numberPositive"][0]) == 0
    joined = (
        CompareSubtractionsTask(config=CompareSubtractionsTask.ConfigClass())
        .run({"al": sources, "zogy": sources}, {"al": diagnostics, "zogy": diagnostics})
        .comparison
    )
    assert len(joined) == 0
    assert {"al_psfFlux", "zogy_residualModes_shiftX", "nMethods"} <= set(joined.colnames)


def test_join_of_nothing_with_something_keeps_the_columns(
    small_pair: SimulatedPair, subtracted: object
) -> None:
    sources = (
        DetectDiaSourcesTask(config=DetectDiaSourcesTask.ConfigClass())
        .run(subtracted.difference, subtracted.score)
        .diaSources
    )
    joined = join_sources({"al": sources[:0], "zogy": sources}, {}, 3.0)
    assert len(joined) == len(sources)
    assert not joined["al_found"].any()
    assert joined["zogy_found"].all()


def test_too_many_detections_are_refused(small_pair: SimulatedPair, subtracted: object) -> None:
    config = DetectDiaSourcesTask.ConfigClass()
    config.threshold = 0.5
    config.maxPerMegapixel = 100.0
    with pytest.raises(AlgorithmError, match="subtraction"):
        DetectDiaSourcesTask(config=config).run(subtracted.difference, subtracted.score)


def test_stamps_that_lack_planes_are_flagged_not_refused() -> None:
    sources = Table(
        {"diaSourceId": [1, 2], "x": [20.0, 30.0], "y": [20.0, 25.0], "x0": [0, 10], "y0": [0, 5]}
    )
    stamps = StampSet(sources, {"difference": np.zeros((2, 41, 41))})
    names = ["maskFractions", "psfPhotometry", "localNoise", "residualModes"]
    plugins = {name: diagnostic_registry[name](diagnostic_registry[name].ConfigClass()) for name in names}
    table = measure_diagnostics(stamps, plugins)
    for name in ("maskFractions", "psfPhotometry", "residualModes"):
        assert table[f"{name}_flag"].all()
        assert table[f"{name}_flag_missingPlanes"].all()
