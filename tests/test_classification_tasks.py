"""The classification in the pipeline: a simulated detector, the task, its connections and the comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from lsst.daf.butler import DatasetType
from lsst.daf.butler.tests import makeTestCollection, makeTestRepo
from lsst.pipe.base import Pipeline
from lsst.pipe.base.pipelineIR import ContractError
from lsst.pipe.base.testUtils import (
    assertValidInitOutput,
    assertValidOutput,
    lintConnections,
    makeQuantum,
    runTestQuantum,
)

from lsst.diainspect.classification import stored_model
from lsst.diainspect.simulation import CosmicRays, ObservingConditions, SceneConfig, simulate_pair
from lsst.diainspect.tasks import (
    ClassifySourcesConfig,
    ClassifySourcesTask,
    CompareSubtractionsTask,
    CutStampsTask,
    DetectDiaSourcesTask,
    DiagnoseSourcesTask,
    MeasureDetectorMapsTask,
    SubtractImagesTask,
)

INSPECT = "resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml"
ALERTS = "resource://lsst.diainspect/pipelines/DiaAlerts/diagnose.yaml"


@pytest.fixture(scope="module")
def detector() -> dict[str, Table]:
    """Transients, and cosmic rays that were not masked, on a detector that no training has seen."""
    conditions = ObservingConditions(
        science_seeing=0.9,
        template_seeing=0.75,
        position_jitter=0.03,
        cosmic_rays=CosmicRays(per_megapixel=150.0, length=(1.0, 8.0), flagged_fraction=0.0),
    )
    scene = SceneConfig(
        star_density=40.0,
        star_magnitudes=(16.5, 23.0),
        galaxy_density=15.0,
        n_transients=40,
        transient_snr=(10.0, 60.0),
        host_fraction=0.5,
        n_variables=0,
    )
    pair = simulate_pair(conditions, scene, seed=977, size=440)
    subtracted = SubtractImagesTask(config=SubtractImagesTask.ConfigClass()).run(pair.science, pair.template)
    sources = (
        DetectDiaSourcesTask(config=DetectDiaSourcesTask.ConfigClass())
        .run(subtracted.difference, subtracted.score)
        .diaSources
    )
    stamps = (
        CutStampsTask(config=CutStampsTask.ConfigClass())
        .run(sources, subtracted.filters, subtracted.difference, pair.science, pair.template)
        .stamps
    )
    maps = (
        MeasureDetectorMapsTask(config=MeasureDetectorMapsTask.ConfigClass())
        .run(
            pair.science,
            pair.template,
            subtracted.difference,
            subtracted.filters,
            subtracted.kernelSources,
            subtracted.kernel,
        )
        .maps
    )
    diagnostics = (
        DiagnoseSourcesTask(config=DiagnoseSourcesTask.ConfigClass())
        .run(stamps, subtracted.filters, subtracted.kernelSources, maps)
        .diagnostics
    )
    return {
        "sources": sources,
        "diagnostics": diagnostics,
        "maps": maps,
        "truth": pair.truth,
        "artefacts": pair.artefacts,
    }


@pytest.fixture(scope="module")
def classified(detector: dict[str, Table]) -> Table:
    task = ClassifySourcesTask(config=ClassifySourcesConfig())
    result = task.run(detector["diagnostics"], detector["sources"], detector["maps"])
    assertValidOutput(task, result)
    return result.classification


def near(sources: Table, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    distance = np.hypot(
        np.asarray(sources["x"])[:, None] - np.asarray(x), np.asarray(sources["y"])[:, None] - np.asarray(y)
    )
    return distance.min(axis=1) < radius


def test_most_transients_are_called_real_and_most_cosmic_rays_are_not(detector, classified):
    truth = detector["truth"][np.asarray(detector["truth"]["isTransient"], dtype=bool)]
    rays = detector["artefacts"]
    sources = detector["sources"]
    transient = near(sources, truth["x"], truth["y"], 2.0)
    ray = near(sources, rays["x"], rays["y"], 3.0) & ~near(sources, truth["x"], truth["y"], 12.0)
    assert transient.sum() >= 20
    assert ray.sum() >= 10
    called_real = np.asarray(classified["cause_real"]) >= 0.5
    # Of 20 with a chance of 0.95 each, 16 or fewer are found in 2 % of cases; this one has its seed.
    assert called_real[transient].mean() > 0.8
    assert called_real[ray].mean() < 0.4
    assert (np.asarray(classified["cause"]).astype(str)[ray] == "cosmicRay").mean() > 0.5
    assert np.median(np.asarray(classified["cause_cosmicRay"])[transient]) < 0.1


def test_signs_and_looks_of_transients_are_theirs(detector, classified):
    truth = detector["truth"][np.asarray(detector["truth"]["isTransient"], dtype=bool)]
    sources = detector["sources"]
    isolated = np.asarray(truth["hostId"]) < 0
    for brighter, causes in ((True, {"realUp"}), (False, {"realDown", "templateContaminated"})):
        chosen = isolated & ((np.asarray(truth["fluxChange"]) > 0) == brighter)
        rows = near(sources, truth["x"][chosen], truth["y"][chosen], 2.0)
        told = np.asarray(classified["cause"]).astype(str)[rows]
        assert np.isin(told, list(causes)).mean() > 0.7
    rows = near(sources, truth["x"][isolated], truth["y"][isolated], 2.0)
    assert (np.asarray(classified["look"]).astype(str)[rows] == "point").mean() > 0.7


def test_maps_make_it_exact_and_alerts_are_approximate(detector, classified):
    assert not np.asarray(classified["approximate"]).all()
    bare = detector["diagnostics"].copy()
    bare["residualModes_isApproximate"][:] = True
    config = ClassifySourcesConfig()
    config.hasSources = config.hasMaps = False
    table = ClassifySourcesTask(config=config).run(bare).classification
    assert table["approximate"].all()
    assert len(table) == len(classified)


def test_evidence_is_named_for_what_is_told(classified):
    told = np.asarray(classified["cause"]).astype(str) != "unknown"
    assert told.any()
    assert (np.asarray(classified["causeEvidence"]).astype(str)[told] != "").all()
    assert (np.asarray(classified["causeCandidates"]).astype(str)[told] != "").all()


def test_model_of_a_file_takes_the_place_of_the_stored_one(tmp_path, detector, classified):
    stored_model().write(tmp_path / "model.npz")
    config = ClassifySourcesConfig()
    config.modelFile = str(tmp_path / "model.npz")
    table = (
        ClassifySourcesTask(config=config)
        .run(detector["diagnostics"], detector["sources"], detector["maps"])
        .classification
    )
    np.testing.assert_array_equal(table["cause_real"], classified["cause_real"])


def test_comparison_has_the_classes_of_each_method(detector, classified):
    task = CompareSubtractionsTask(config=CompareSubtractionsTask.ConfigClass())
    joined = task.run(
        {"al": detector["sources"], "zogy": detector["sources"]},
        {},
        classification={"al": classified},
    ).comparison
    order = np.argsort(joined["al_diaSourceId"])
    expected = classified[np.argsort(classified["diaSourceId"])]
    np.testing.assert_array_equal(joined["al_cause"][order], expected["cause"])
    np.testing.assert_allclose(joined["al_cause_real"][order], expected["cause_real"])
    assert "zogy_cause" not in joined.colnames


def test_task_reads_and_writes_by_its_connections(tmp_path: Path, detector: dict[str, Table]) -> None:
    data_id = {"instrument": "DiaSim", "visit": 1, "detector": 0}
    repo = makeTestRepo(str(tmp_path), {"instrument": ["DiaSim"], "visit": [1], "detector": [0]})
    task = ClassifySourcesTask(config=ClassifySourcesConfig())
    connections = task.config.ConnectionsClass(config=task.config)
    inputs = {"diagnostics": "diagnostics", "diaSources": "sources", "maps": "maps"}
    butler = makeTestCollection(repo)
    for name in (*inputs, "classification"):
        connection = getattr(connections, name)
        butler.registry.registerDatasetType(
            DatasetType(
                connection.name, connection.dimensions, connection.storageClass, universe=butler.dimensions
            )
        )
    for name, key in inputs.items():
        butler.put(detector[key], getattr(connections, name).name, data_id)
    full_id = butler.registry.expandDataId(data_id)
    quantum = makeQuantum(task, butler, full_id, dict.fromkeys((*inputs, "classification"), full_id))
    run = runTestQuantum(task, butler, quantum, mockRun=False)
    assert run is None
    table = butler.get("al_dia_classification", data_id)
    assert len(table) == len(detector["diagnostics"])
    assert "".join(table["cause"].astype(str))


def test_connections_are_declared_as_the_stack_wants() -> None:
    config = ClassifySourcesConfig()
    lintConnections(config.ConnectionsClass(config=config))
    assertValidInitOutput(ClassifySourcesTask(config=config))


@pytest.mark.parametrize("method", ["Al", "Zogy"])
def test_pipeline_classifies_what_it_diagnoses_and_refuses_another_method(method: str) -> None:
    graph = Pipeline.from_uri(INSPECT).to_graph()
    name = method.lower()
    assert graph.producer_of(f"{name}_dia_classification").label == f"classify{method}"
    readers = {node.label for node in graph.consumers_of(f"{name}_dia_classification")}
    assert "compareSubtractions" in readers
    pipeline = Pipeline.from_uri(INSPECT)
    other = {"Al": "zogy", "Zogy": "al"}[method]
    pipeline.addConfigOverride(f"classify{method}", "connections.method", other)
    with pytest.raises(ContractError, match=f"classify{method} must read the method"):
        pipeline.to_graph()


def test_alerts_are_classified_without_maps() -> None:
    graph = Pipeline.from_uri(ALERTS).to_graph()
    assert graph.producer_of("alert_dia_classification").label == "classifyStamps"
    assert "alert_detector_maps" not in graph.dataset_types
