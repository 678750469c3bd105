"""Each task reads what its connections say, writes what they promise, and changes nothing it was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from astropy.table import Table
from lsst.daf.butler import Butler, CollectionType, DatasetType, Quantum
from lsst.images import DifferenceImage
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import (
    AnnotatedPartialOutputsError,
    NoWorkFound,
    PipelineTask,
    Struct,
    UpstreamFailureNoWorkFound,
)
from lsst.pipe.base.testUtils import assertValidOutput, makeQuantum, runTestQuantum

from lsst.diainspect.instruments import DiaSim
from lsst.diainspect.simulation import (
    ObservingConditions,
    SceneConfig,
    SimulatedPair,
    SurveyConfig,
    VisitPlan,
    write_survey,
)
from lsst.diainspect.tasks import (
    CompareSubtractionsTask,
    CutStampsTask,
    DetectDiaSourcesTask,
    DiagnoseSourcesTask,
    GatherSurveyTask,
    GatherVisitTask,
    MeasureDifferenceMetricsTask,
    SubtractImagesTask,
)
from lsst.diainspect.tasks._wide_table import WideTable

INPUT, RUN = "DiaSim/input", "u/test/run"
DATA_ID = {"instrument": "DiaSim", "visit": 1, "detector": 0}


def _configured(task: type[PipelineTask], **fields: object) -> PipelineTask:
    config = task.ConfigClass()
    for name, value in fields.items():
        target = config
        *path, last = name.split("__")
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)
    config.validate()
    return task(config=config)


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory, subtracted: Struct) -> Iterator[Butler]:
    """A repository with one small detector and the dataset types of every task."""
    repo = tmp_path_factory.mktemp("tasks") / "repo"
    scene = SceneConfig(
        star_density=60.0,
        star_magnitudes=(16.5, 23.0),
        galaxy_density=15.0,
        n_transients=6,
        transient_snr=(15.0, 100.0),
        n_variables=2,
    )
    conditions = ObservingConditions(science_seeing=0.9, template_seeing=0.75)
    write_survey(
        repo, SurveyConfig((VisitPlan(1, conditions),), (0,), size=300, seed=3, scene=scene), run=INPUT
    )
    with Butler.from_config(str(repo), writeable=True) as butler:
        for task in (
            _configured(SubtractImagesTask, doWriteTemplateMatched=True),
            _configured(SubtractImagesTask, subtractor__name="zogy", connections__method="zogy"),
            _configured(DetectDiaSourcesTask),
            _configured(CutStampsTask),
            _configured(DiagnoseSourcesTask),
            _configured(MeasureDifferenceMetricsTask),
            _configured(CompareSubtractionsTask),
            _configured(GatherVisitTask),
            _configured(GatherSurveyTask),
        ):
            connections = task.config.ConnectionsClass(config=task.config)
            for name in (*connections.inputs, *connections.outputs):
                connection = getattr(connections, name)
                if "." not in connection.name:
                    butler.registry.registerDatasetType(
                        DatasetType(
                            connection.name,
                            connection.dimensions,
                            connection.storageClass,
                            universe=butler.dimensions,
                        )
                    )
        butler.collections.register(RUN, CollectionType.RUN)
        butler.put(subtracted.difference, "al_difference_image", DATA_ID, run=INPUT)
        butler.put(subtracted.score, "al_score_image", DATA_ID, run=INPUT)
        yield butler.clone(collections=[RUN, INPUT], run=INPUT)


@pytest.fixture(scope="module")
def subtracted(small_pair: SimulatedPair) -> Struct:
    task = _configured(SubtractImagesTask, doWriteTemplateMatched=True)
    result = task.run(small_pair.science, small_pair.template)
    assertValidOutput(task, result)
    return result


@pytest.fixture(scope="module")
def sources(subtracted: Struct) -> Table:
    task = _configured(DetectDiaSourcesTask)
    result = task.run(subtracted.difference, subtracted.score, packedDataId=5, visit=1, detector=0)
    assertValidOutput(task, result)
    return result.diaSources


@pytest.fixture(scope="module")
def stamps(small_pair: SimulatedPair, subtracted: Struct, sources: Table) -> Table:
    task = _configured(CutStampsTask)
    result = task.run(
        sources, subtracted.filters, subtracted.difference, small_pair.science, small_pair.template
    )
    assertValidOutput(task, result)
    return result.stamps


@pytest.fixture(scope="module")
def diagnostics(subtracted: Struct, stamps: Table) -> Table:
    task = _configured(DiagnoseSourcesTask)
    result = task.run(stamps, subtracted.filters)
    assertValidOutput(task, result)
    return result.diagnostics


def test_subtraction_makes_every_output_its_method_promises(subtracted: Struct) -> None:
    assert isinstance(subtracted.difference, DifferenceImage)
    assert set(subtracted.getDict()) == {
        "difference",
        "score",
        "filters",
        "kernel",
        "kernelSources",
        "kernelQuality",
        "templateMatched",
    }


def test_zogy_makes_no_kernel(small_pair: SimulatedPair) -> None:
    task = _configured(SubtractImagesTask, subtractor__name="zogy", connections__method="zogy")
    result = task.run(small_pair.science, small_pair.template)
    assertValidOutput(task, result)
    assert set(result.getDict()) == {"difference", "score", "filters", "kernelSources"}


@pytest.mark.parametrize("method", ["al", "zogy"])
def test_subtraction_leaves_its_inputs_as_they_were(small_pair: SimulatedPair, method: str) -> None:
    before = [
        image.array.copy()
        for side in (small_pair.science, small_pair.template)
        for image in (side.image, side.variance, side.mask)
    ]
    _configured(SubtractImagesTask, subtractor__name=method, connections__method=method).run(
        small_pair.science, small_pair.template
    )
    after = [
        image.array
        for side in (small_pair.science, small_pair.template)
        for image in (side.image, side.variance, side.mask)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("method", ["al", "zogy"])
def test_subtraction_repeats_itself(small_pair: SimulatedPair, method: str) -> None:
    task = _configured(SubtractImagesTask, subtractor__name=method, connections__method=method)
    one, other = (task.run(small_pair.science, small_pair.template).difference for _ in range(2))
    assert np.array_equal(one.image.array, other.image.array)


def test_metadata_records_what_was_decided(small_pair: SimulatedPair) -> None:
    task = _configured(SubtractImagesTask)
    task.run(small_pair.science, small_pair.template)
    assert task.metadata["convolvedImage"] == "template"
    assert task.metadata["nKernelSources"] >= 5
    assert task.metadata["kernelCondition"] > 1


def test_subtraction_reads_and_writes_by_its_connections(butler: Butler) -> None:
    task = _configured(SubtractImagesTask)
    names = (
        "science",
        "template",
        "difference",
        "score",
        "filters",
        "kernel",
        "kernelSources",
        "kernelQuality",
    )
    quantum = _quantum(task, butler, names)
    run = _run_with_results(task, butler, quantum)
    assert run.keys() >= {"science", "template"}


def _quantum(task: PipelineTask, butler: Butler, names: Iterable[str]) -> Quantum:
    """Make the task's quantum of the one detector; all connections have its data ID, with its records."""
    data_id = butler.registry.expandDataId(DATA_ID)
    return makeQuantum(task, butler, data_id, dict.fromkeys(names, data_id))


def _run_with_results(task: PipelineTask, butler: Butler, quantum: Quantum) -> dict[str, object]:
    """Run a quantum with ``run`` replaced; return the arguments that ``run`` was given."""
    mock = runTestQuantum(task, butler, quantum, mockRun=True)
    mock.assert_called_once()
    return mock.call_args.kwargs


def test_template_components_are_put_together_however_often(butler: Butler) -> None:
    task = _configured(SubtractImagesTask, templateAs="components")
    parts = ("templateImage", "templateMask", "templateVariance", "templatePsf")
    names = ("science", *parts, "difference", "score", "filters", "kernel", "kernelSources", "kernelQuality")
    stored = butler.get("template_detector", DATA_ID)
    for _ in range(2):
        quantum = _quantum(task, butler, names)
        given = _run_with_results(task, butler, quantum)
        assert np.array_equal(given["template"].image.array, stored.image.array)
        assert given["template"].unit == stored.unit
        assert given["templatePsf"].compute_kernel_image(x=150, y=150).array.sum() == pytest.approx(
            1.0, abs=1e-3
        )


def test_failed_subtraction_is_annotated(butler: Butler) -> None:
    config = SubtractImagesTask.ConfigClass()
    config.subtractor.active.minKernelSources = 10**6
    task = SubtractImagesTask(config=config)
    names = (
        "science",
        "template",
        "difference",
        "score",
        "filters",
        "kernel",
        "kernelSources",
        "kernelQuality",
    )
    quantum = _quantum(task, butler, names)
    with pytest.raises(AnnotatedPartialOutputsError):
        runTestQuantum(task, butler, quantum, mockRun=False)
    assert "failure" in task.metadata


def test_ids_carry_the_packed_data_id(sources: Table) -> None:
    assert len(sources) > 5
    assert set(np.asarray(sources["diaSourceId"]) >> 37) == {5}
    assert list(np.asarray(sources["diaSourceId"]) & (2**37 - 1)) == list(range(1, len(sources) + 1))


def test_detection_packs_visit_and_detector(butler: Butler) -> None:
    task = _configured(DetectDiaSourcesTask)
    quantum = _quantum(task, butler, ("difference", "score", "diaSources"))
    given = _run_with_results(task, butler, quantum)
    data_id = butler.registry.expandDataId(DATA_ID)
    packer = DiaSim.make_default_dimension_packer(data_id, is_exposure=False)
    assert given["packedDataId"] == packer.pack(data_id)
    assert (given["visit"], given["detector"]) == (1, 0)


def test_detections_carry_the_middle_of_the_exposure(small_pair: SimulatedPair, sources: Table) -> None:
    begin = small_pair.science.obs_info.datetime_begin.tai.mjd
    assert np.allclose(sources["midpointMjdTai"], begin + 15.0 / 86400.0, atol=1.0 / 86400.0)
    assert set(sources["band"]) == {"r"}


def test_higher_threshold_finds_a_subset(subtracted: Struct, sources: Table) -> None:
    fewer = (
        _configured(DetectDiaSourcesTask, threshold=20.0)
        .run(subtracted.difference, subtracted.score)
        .diaSources
    )
    assert 0 < len(fewer) < len(sources)
    assert (fewer["snr"] >= 20.0).all()
    assert set(np.round(fewer["x"], 6)) <= set(np.round(sources["x"], 6))


def test_stamps_keep_every_column_of_the_sources(stamps: Table, sources: Table) -> None:
    assert set(sources.colnames) <= set(stamps.colnames)
    assert stamps["difference"].shape == (len(sources), 41, 41)


def test_only_the_planes_asked_for_are_cut_and_read(subtracted: Struct, sources: Table) -> None:
    task = _configured(CutStampsTask, planes=["difference", "mask"], models=["differencePsf"], stampSize=21)
    connections = task.config.ConnectionsClass(config=task.config)
    assert set(connections.inputs) == {"diaSources", "filters", "difference"}
    stamps = task.run(sources, subtracted.filters, subtracted.difference).stamps
    assert {"difference", "mask", "differencePsfTerms"} <= set(stamps.colnames)
    assert not {"science", "template", "differenceVariance", "sciencePsfTerms"} & set(stamps.colnames)
    assert stamps["mask"].shape == (len(sources), 21, 21)


def test_all_planes_can_be_cut(small_pair: SimulatedPair, subtracted: Struct, sources: Table) -> None:
    from lsst.diainspect.stamps import PLANES

    task = _configured(CutStampsTask, planes=list(PLANES))
    stamps = task.run(
        sources,
        subtracted.filters,
        subtracted.difference,
        small_pair.science,
        small_pair.template,
        subtracted.score,
        subtracted.templateMatched,
    ).stamps
    assert set(PLANES) <= set(stamps.colnames)


@pytest.mark.parametrize("field", ["planes", "models"])
def test_unknown_planes_and_models_are_refused(field: str) -> None:
    with pytest.raises(FieldValidationError, match="unknown names"):
        _configured(CutStampsTask, **{field: ["no such thing"]})


def test_diagnostics_have_a_row_for_each_source(diagnostics: Table, sources: Table) -> None:
    assert np.array_equal(diagnostics["diaSourceId"], sources["diaSourceId"])
    for name in ("maskFractions", "psfPhotometry", "localNoise", "residualModes"):
        assert f"{name}_flag" in diagnostics.colnames
        assert not diagnostics[f"{name}_flag_failed"].any()


def test_diagnostics_come_in_one_order_whatever_the_process(diagnostics: Table) -> None:
    plugins = [name.split("_")[0] for name in diagnostics.colnames if name.endswith("_flag_failed")]
    assert plugins == sorted(plugins)


def test_diagnostics_are_chosen_and_tuned_by_configuration(stamps: Table, subtracted: Struct) -> None:
    config = DiagnoseSourcesTask.ConfigClass()
    config.diagnostics.names = ["maskFractions"]
    config.diagnostics["maskFractions"].planes = ["SATURATED"]
    table = DiagnoseSourcesTask(config=config).run(stamps, subtracted.filters).diagnostics
    measured = {name for name in table.colnames if name.startswith("maskFractions") and "flag" not in name}
    assert measured == {"maskFractions_SATURATED_core", "maskFractions_SATURATED_stamp"}


def test_metrics_have_a_row_each(small_pair: SimulatedPair, subtracted: Struct, sources: Table) -> None:
    task = _configured(MeasureDifferenceMetricsTask)
    result = task.run(
        small_pair.science,
        small_pair.template,
        subtracted.difference,
        subtracted.score.image,
        sources,
        method="al",
        visit=1,
        detector=0,
    )
    assertValidOutput(task, result)
    assert list(result.metrics["metric"]) == sorted(task.config.metrics.names)
    assert set(result.metrics["method"]) == {"al"}


def test_comparison_of_a_method_with_itself_matches_everything(sources: Table, diagnostics: Table) -> None:
    task = _configured(CompareSubtractionsTask)
    tables = {"al": sources, "zogy": sources}
    result = task.run(tables, {"al": diagnostics, "zogy": diagnostics})
    assertValidOutput(task, result)
    assert (result.comparison["nMethods"] == 2).all()
    assert task.metadata["nCommon"] == len(sources)


def test_comparison_goes_on_without_a_method(butler: Butler, sources: Table, diagnostics: Table) -> None:
    tables = {
        "zogy_dia_source": sources,
        "zogy_dia_diagnostics": diagnostics,
        "zogy_dia_classification": diagnostics[["diaSourceId"]],
    }
    for name, table in tables.items():
        butler.put(table, name, DATA_ID, run=INPUT)
    task = _configured(CompareSubtractionsTask, methods=["zogy"])
    names = (*tables, "comparison")
    quantum = _quantum(task, butler, names)
    runTestQuantum(task, butler, quantum, mockRun=False)
    assert len(butler.get("subtraction_comparison", DATA_ID)) == len(sources)


@pytest.mark.parametrize("methods", [[], ["al", "al"]])
def test_methods_must_be_named_once_each(methods: list[str]) -> None:
    with pytest.raises(FieldValidationError, match="at least one method, each once"):
        _configured(CompareSubtractionsTask, methods=methods)


def test_gathering_stacks_rows(sources: Table) -> None:
    gathered = _configured(GatherVisitTask).run([sources, sources[:0], sources])
    assert gathered.colnames == sources.colnames
    assert len(gathered) == 2 * len(sources)
    assert gathered["psfFlux"].unit == sources["psfFlux"].unit


def test_gathering_fills_columns_that_a_detector_lacks(sources: Table) -> None:
    narrow = sources.copy()
    narrow.remove_columns(["psfFlux", "isNegative"])
    gathered = _configured(GatherSurveyTask).run([sources, narrow])
    assert not gathered.has_masked_columns
    assert np.isnan(gathered["psfFlux"][len(sources) :]).all()
    assert not gathered["isNegative"][len(sources) :].any()
    assert gathered["isNegative"].dtype == bool


def test_gathering_nothing_finds_no_work() -> None:
    assert issubclass(UpstreamFailureNoWorkFound, NoWorkFound)
    assert issubclass(GatherVisitTask, PipelineTask)


def test_psf_order_is_taken_from_the_configuration(small_pair: SimulatedPair) -> None:
    with pytest.raises(FieldValidationError):
        _configured(SubtractImagesTask, psfOrder=-1)
    config = SubtractImagesTask.ConfigClass()
    config.psfOrder = 0
    assert (
        SubtractImagesTask(config=config).run(small_pair.science, small_pair.template).difference is not None
    )


def test_table_of_many_columns_makes_its_type_once() -> None:
    table = Table({f"column{i}": np.zeros(3, dtype="f4") for i in range(5)})
    wide = WideTable(table, copy=False)
    assert wide.dtype == table.dtype
    assert wide.dtype is wide.dtype
