"""Every pipeline can be built, is consistent in itself, and refuses labels that would lie."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from lsst.pipe.base import Pipeline
from lsst.pipe.base.pipelineIR import ContractError
from lsst.pipe.base.testUtils import assertValidInitOutput, lintConnections

import lsst.diainspect
from lsst.diainspect import tasks

PIPELINES = Path(lsst.diainspect.__file__).parent / "pipelines"
ALL_PIPELINES = sorted(str(path.relative_to(PIPELINES)) for path in PIPELINES.glob("*/*.yaml"))
INSPECT = "resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml"
TASKS = [
    tasks.SubtractImagesTask,
    tasks.AdoptDifferenceTask,
    tasks.DetectDiaSourcesTask,
    tasks.CalibrateDifferenceTask,
    tasks.CutStampsTask,
    tasks.DiagnoseSourcesTask,
    tasks.ClassifySourcesTask,
    tasks.MeasureDetectorMapsTask,
    tasks.MeasureDifferenceMetricsTask,
    tasks.CompareSubtractionsTask,
    tasks.ForceMethodsTask,
    tasks.GatherVisitTask,
    tasks.GatherSurveyTask,
    tasks.MatchTruthTask,
    tasks.SummarizeTruthTask,
]
CHAIN = ("subtract", "detect", "cutStamps", "maps", "diagnose", "classify", "metrics", "calibrate")


def _build(overrides: dict[str, dict[str, object]], uri: str = INSPECT, *, check: bool = True) -> Pipeline:
    pipeline = Pipeline.from_uri(uri)
    for label, fields in overrides.items():
        for field, value in fields.items():
            pipeline.addConfigOverride(label, field, value)
    if check:
        pipeline.to_graph()
    return pipeline


@pytest.mark.parametrize("name", ALL_PIPELINES)
def test_pipeline_builds(name: str) -> None:
    graph = Pipeline.from_uri(f"resource://lsst.diainspect/pipelines/{name}").to_graph()
    assert len(graph.tasks) > 0


def test_there_is_a_pipeline_for_each_instrument() -> None:
    assert {"DiaSim/inspect.yaml", "DiaFits/inspect.yaml"} <= set(ALL_PIPELINES)


@pytest.mark.parametrize("instrument", ["DiaSim", "DiaFits"])
def test_pipeline_of_an_instrument_of_this_package_names_it(instrument: str) -> None:
    pipeline = Pipeline.from_uri(f"resource://lsst.diainspect/pipelines/{instrument}/inspect.yaml")
    assert pipeline.getInstrument() == f"lsst.diainspect.instruments.{instrument}"


@pytest.mark.parametrize("name", [n for n in ALL_PIPELINES if n.startswith("LSST")])
def test_pipelines_of_the_stack_read_its_templates_as_components(name: str) -> None:
    graph = Pipeline.from_uri(f"resource://lsst.diainspect/pipelines/{name}").to_graph()
    for label in ("subtractAl", "cutStampsAl", "metricsAl", "subtractZogy", "cutStampsZogy", "metricsZogy"):
        assert graph.tasks[label].config.templateAs == "components"


def test_names_of_the_inputs_are_fed_to_all_tasks_by_parameters() -> None:
    pipeline = Pipeline.from_uri(INSPECT)
    pipeline.addConfigOverride("parameters", "scienceName", "calexp")
    pipeline.addConfigOverride("parameters", "templateName", "other_template")
    graph = pipeline.to_graph()
    assert {"calexp", "other_template"} <= set(graph.dataset_types)
    assert not {"visit_image", "template_detector"} & set(graph.dataset_types)


def test_ingredients_have_no_instrument() -> None:
    for name in ALL_PIPELINES:
        if name.startswith("_ingredients"):
            assert Pipeline.from_uri(f"resource://lsst.diainspect/pipelines/{name}").getInstrument() is None


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_connections_are_declared_as_the_stack_wants(task: type) -> None:
    lintConnections(task.ConfigClass.ConnectionsClass)
    config = task.ConfigClass()
    lintConnections(config.ConnectionsClass(config=config))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_task_is_constructed_with_its_defaults(task: type) -> None:
    assertValidInitOutput(task(config=task.ConfigClass()))


def test_a_task_brings_only_what_it_uses() -> None:
    """A quantum in its own process pays for every import of its task."""
    script = """
import sys
from lsst.diainspect.tasks import GatherVisitTask
print([name for name in ("matplotlib", "numba", "scipy.signal", "lsst.images", "galsim") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_server_that_quanta_fork_from_imports_every_task() -> None:
    importlib.import_module("lsst.diainspect.tasks._preload")
    files = {path.stem for path in Path(tasks.__file__).parent.glob("[a-z]*.py")}
    assert files == {name for name in files if f"lsst.diainspect.tasks.{name}" in sys.modules}
    assert set(tasks.__all__) == {name for file in files for name in getattr(tasks, file).__all__}


def test_subsets_hold_each_method_and_the_comparison() -> None:
    subsets = _build({}).subsets
    assert set(subsets["al"]) == {f"{step}Al" for step in CHAIN}
    assert set(subsets["zogy"]) == {f"{step}Zogy" for step in CHAIN}
    assert set(subsets["compare"]) == {
        "compareSubtractions",
        "forceMethods",
        "gatherVisit",
        "gatherSurvey",
    }


def test_every_task_is_in_a_subset() -> None:
    pipeline = _build({})
    assert set(pipeline.task_labels) == set().union(*pipeline.subsets.values())


def test_methods_are_fed_to_all_tasks_by_one_parameter() -> None:
    pipeline = Pipeline.from_uri(INSPECT)
    pipeline.addConfigOverride("parameters", "methods", ["zogy"])
    graph = pipeline.to_graph()
    gathers = ("gatherVisit", "gatherSurvey", "gatherTruthVisit", "gatherTruthSurvey", "summarizeTruth")
    for label in ("compareSubtractions", *gathers):
        assert list(graph.tasks[label].config.methods) == ["zogy"]
    assert "al_dia_source" not in {
        edge.dataset_type_name for edge in graph.tasks["compareSubtractions"].iter_all_inputs()
    }


def test_every_dataset_of_a_method_has_one_producer_and_the_comparison_reads_both() -> None:
    graph = _build({}).to_graph()
    read = {edge.dataset_type_name for edge in graph.tasks["compareSubtractions"].iter_all_inputs()}
    assert {"al_dia_source", "zogy_dia_source", "al_dia_diagnostics", "zogy_dia_diagnostics"} <= read
    for method in ("al", "zogy"):
        assert graph.producer_of(f"{method}_dia_source").label == f"detect{method.capitalize()}"


@pytest.mark.parametrize("step", CHAIN[1:])
def test_contract_refuses_a_step_that_reads_another_method(step: str) -> None:
    with pytest.raises(ContractError, match=f"{step}Al must read the method"):
        _build({f"{step}Al": {"connections.method": "zogy"}})


@pytest.mark.parametrize("overrides", [{"subtractor": "zogy"}, {"connections.method": "zogy"}])
def test_contract_refuses_one_half_of_a_switch(overrides: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="subtractor of subtractAl and the method"):
        _build({"subtractAl": overrides}, f"{INSPECT}#subtractAl")


@pytest.mark.parametrize("field", ["subtractor", "subtractor.name"])
def test_one_task_is_switched_by_two_overrides(field: str) -> None:
    graph = _build(
        {"subtractAl": {field: "zogy", "connections.method": "zogy"}}, f"{INSPECT}#subtractAl"
    ).to_graph()
    assert "zogy_difference_image" in graph.dataset_types
    # ZOGY has no matching kernel, so its connection is gone with the switch.
    assert not {"zogy_difference_kernel", "al_difference_kernel"} & set(graph.dataset_types)


def test_a_whole_chain_is_switched_with_the_method_of_each_step() -> None:
    overrides: dict[str, dict[str, object]] = {f"{step}Al": {"connections.method": "zogy"} for step in CHAIN}
    overrides["subtractAl"]["subtractor"] = "zogy"
    graph = _build(overrides, f"{INSPECT}#al").to_graph()
    assert graph.producer_of("zogy_dia_diagnostics").label == "diagnoseAl"


def test_a_whole_chain_is_switched_by_one_parameter() -> None:
    overrides: dict[str, dict[str, object]] = {
        "parameters": {"methodOfAl": "zogy"},
        "mapsAl": {"hasKernel": False},
    }
    graph = _build(overrides, f"{INSPECT}#al").to_graph()
    assert graph.tasks["subtractAl"].config.subtractor.name == "zogy"
    for step in CHAIN:
        assert graph.tasks[f"{step}Al"].config.connections.method == "zogy"
    assert not [name for name in graph.dataset_types if name.startswith("al_")]
    with pytest.raises(ContractError, match="subtractor of subtractAl and the method"):
        _build({**overrides, "subtractAl": {"subtractor.name": "al"}}, f"{INSPECT}#al")


def test_switching_without_the_rest_of_the_chain_is_refused() -> None:
    with pytest.raises(ContractError, match="must read the method that subtractAl makes"):
        _build({"subtractAl": {"subtractor": "zogy", "connections.method": "zogy"}}, f"{INSPECT}#al")


def test_the_active_subtractor_is_tuned_by_its_fields() -> None:
    graph = _build({"subtractAl": {"subtractor.active.kernelOrder": 1}}).to_graph()
    assert graph.tasks["subtractAl"].config.subtractor.active.kernelOrder == 1


@pytest.mark.parametrize("label", ["cutStampsAl", "cutStampsZogy"])
@pytest.mark.parametrize("name", ["scienceName", "templateName"])
def test_contract_refuses_stamps_of_other_images(label: str, name: str) -> None:
    with pytest.raises(ContractError, match="Stamps must be cut from"):
        _build({label: {f"connections.{name}": "other"}})


def test_template_components_replace_the_one_connection() -> None:
    graph = _build({"subtractAl": {"templateAs": "components"}}, f"{INSPECT}#subtractAl").to_graph()
    inputs = {
        (edge.parent_dataset_type_name, edge.component)
        for edge in graph.tasks["subtractAl"].iter_all_inputs()
    }
    assert {("template_detector", part) for part in ("image", "mask", "variance", "psf")} <= inputs
    assert ("template_detector", None) not in inputs


def test_optional_outputs_exist_only_when_asked_for() -> None:
    assert "al_template_matched" not in _build({}).to_graph().dataset_types
    graph = _build({"subtractAl": {"doWriteTemplateMatched": True}}, f"{INSPECT}#subtractAl").to_graph()
    assert "al_template_matched" in graph.dataset_types


def test_inputs_of_joins_and_gathers_may_be_missing() -> None:
    graph = _build({}).to_graph()
    gathers = ("gatherVisit", "gatherSurvey", "gatherTruthVisit", "gatherTruthSurvey", "summarizeTruth")
    for label in ("compareSubtractions", *gathers):
        config = graph.tasks[label].config
        instance = config.ConnectionsClass(config=config)
        # The science image is not made by a method: where there is none, there is nothing to compare.
        of_methods = set(instance.inputs) - {"science"}
        assert of_methods and all(getattr(instance, name).minimum == 0 for name in of_methods), label


def test_two_methods_named_alike_are_refused() -> None:
    with pytest.raises(Exception, match="each once"):
        _build({"compareSubtractions": {"methods": ["al", "al"]}})
