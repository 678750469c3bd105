"""From ``diainspect simulate`` through ``pipetask run`` to tables that are found and read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table, vstack
from lsst.daf.butler import Butler, DatasetType
from lsst.images import DifferenceImage, VisitImage
from lsst.images.convolution_kernels import ConvolutionKernel
from lsst.pipe.base import Pipeline

from commands import PIPELINE, WITHOUT_FIGURES, Command, run_command, run_pipeline
from lsst.diainspect.instruments import DiaSim
from lsst.diainspect.stamps import MODELS, StampSet
from lsst.diainspect.subtraction import filters_from_table

COLLECTION = "u/test/inspect"
VISITS, DETECTORS = (1, 2), (0, 1)
METHODS = ("al", "zogy")
PER_DETECTOR = {
    **{
        f"{method}_{kind}": storage_class
        for method in METHODS
        for kind, storage_class in {
            "difference_image": "DifferenceImage",
            "score_image": "VisitImage",
            "difference_filters": "ArrowAstropy",
            "kernel_sources": "ArrowAstropy",
            "dia_source": "ArrowAstropy",
            "dia_stamps": "ArrowAstropy",
            "dia_diagnostics": "ArrowAstropy",
            "difference_metrics": "ArrowAstropy",
            "truth_match": "ArrowAstropy",
            "truth_counts": "ArrowAstropy",
        }.items()
    },
    "al_difference_kernel": "ConvolutionKernel",
    "al_template_matched": "VisitImage",
    "subtraction_comparison": "ArrowAstropy",
}
GATHERED = (
    "subtraction_comparison",
    *(f"{method}_{kind}" for method in METHODS for kind in ("dia_source", "difference_metrics")),
    *(f"{method}_{kind}" for method in METHODS for kind in ("truth_match", "truth_counts")),
)
CLASSES = {
    "DifferenceImage": DifferenceImage,
    "VisitImage": VisitImage,
    "ArrowAstropy": Table,
    "ConvolutionKernel": ConvolutionKernel,
}


@pytest.fixture(scope="module")
def repo(simulate: Callable[..., Path]) -> Path:
    return simulate(size=400, seed=11)


@pytest.fixture(scope="module")
def run(repo: Path) -> Command:
    options = ("-c", "subtractAl:doWriteTemplateMatched=True")
    return run_pipeline(repo, COLLECTION, *options, pipeline=WITHOUT_FIGURES).check()


@pytest.fixture(scope="module")
def butler(repo: Path, run: Command) -> Iterator[Butler]:
    with Butler.from_config(str(repo), collections=COLLECTION, instrument="DiaSim") as butler:
        yield butler


def _each_detector() -> list[dict[str, int]]:
    return [{"visit": visit, "detector": detector} for visit in VISITS for detector in DETECTORS]


def _expected_counts() -> dict[str, int]:
    counts = dict.fromkeys(PER_DETECTOR, len(VISITS) * len(DETECTORS))
    counts |= {f"{name}_visit": len(VISITS) for name in GATHERED}
    return counts | {f"{name}_summary": 1 for name in GATHERED} | {"truth_summary": 1, "truth_curves": 1}


def test_run_says_that_every_quantum_succeeded(run: Command) -> None:
    each = {3: len(VISITS) * len(DETECTORS), 2: len(VISITS), 1: 1}
    graph = Pipeline.from_uri(WITHOUT_FIGURES).to_graph()
    n_quanta = sum(each[len(node.raw_dimensions)] for node in graph.tasks.values())
    assert f"0 failed and 0 remain out of total {n_quanta} quanta" in run.output
    assert "Traceback" not in run.output
    assert "StorageClass" not in run.output


def test_every_dataset_type_is_found_by_query_datasets(repo: Path, run: Command) -> None:
    found = run_command("butler", "query-datasets", repo, "*", "--collections", COLLECTION).check().output
    lines = [line.split() for line in found.splitlines()]
    kinds = [line[0] for line in lines if len(line) > 2 and line[1].startswith(COLLECTION)]
    assert {name: kinds.count(name) for name in _expected_counts()} == _expected_counts()


def test_comparison_is_made_again_by_itself_in_forked_processes(repo: Path, run: Command) -> None:
    # Two of the four detectors of the camera are there; nothing in the query says so.
    again = run_pipeline(
        repo,
        "u/test/compare",
        *("-j", "2", "--start-method", "forkserver"),
        pipeline=f"{PIPELINE}#compare",
        inputs=COLLECTION,
    ).check()
    n_quanta = 2 * len(VISITS) * len(DETECTORS) + len(VISITS) + 1
    assert f"Executed {n_quanta} quanta successfully, 0 failed and 0 remain" in again.output
    where = {"instrument": "DiaSim", "visit": 1, "detector": 1}
    with Butler.from_config(str(repo)) as butler:
        first, second = (
            butler.get("subtraction_comparison", where, collections=collection)
            for collection in (COLLECTION, "u/test/compare")
        )
    assert first.colnames == second.colnames
    np.testing.assert_array_equal(first["x"], second["x"])


def test_query_by_exposure_finds_one_visit(repo: Path, run: Command) -> None:
    where = "instrument='DiaSim' AND visit=2 AND visit.exposure_time > 10 AND detector=1"
    command = ("query-datasets", repo, "al_dia_source", "--collections", COLLECTION, "--where", where)
    assert run_command("butler", *command).check().output.count(COLLECTION) == 1


@pytest.mark.parametrize("name", sorted(PER_DETECTOR))
def test_dataset_of_each_detector_is_read_back(butler: Butler, name: str) -> None:
    assert butler.get_dataset_type(name).storageClass_name == PER_DETECTOR[name]
    for data_id in _each_detector():
        dataset = butler.get(name, data_id)
        assert isinstance(dataset, CLASSES[PER_DETECTOR[name]])


@pytest.mark.parametrize("method", METHODS)
def test_images_have_units_projection_and_psf(butler: Butler, method: str) -> None:
    difference = butler.get(f"{method}_difference_image", visit=1, detector=0)
    science = butler.get("visit_image", visit=1, detector=0, collections="DiaSim/input")
    assert difference.unit == u.nJy
    assert difference.bbox == science.bbox
    assert np.isfinite(difference.image.array).all()
    assert (difference.variance.array > 0).all()
    here, there = (image.sky_projection.pixel_to_sky(x=100.0, y=50.0) for image in (difference, science))
    assert here.separation(there).mas < 1e-3
    assert difference.psf.compute_kernel_image(x=200, y=200).array.sum() == pytest.approx(1.0, abs=1e-3)
    score = butler.get(f"{method}_score_image", visit=1, detector=0)
    assert score.unit == u.dimensionless_unscaled


def test_kernel_is_attached_to_the_difference_of_al_only(butler: Butler) -> None:
    assert butler.get("al_difference_image", visit=1, detector=0).kernel is not None
    with pytest.raises(AttributeError, match="does not have a kernel"):
        _ = butler.get("zogy_difference_image", visit=1, detector=0).kernel


def test_both_directions_of_convolution_were_taken(butler: Butler) -> None:
    convolved = {
        visit: butler.get("subtractAl_metadata", visit=visit, detector=0)["subtractAl"]["convolvedImage"]
        for visit in VISITS
    }
    assert convolved == {1: "template", 2: "science"}


@pytest.mark.parametrize("method", METHODS)
def test_source_ids_are_unique_and_hold_visit_and_detector(butler: Butler, method: str) -> None:
    ids = []
    for data_id in _each_detector():
        sources = butler.get(f"{method}_dia_source", data_id)
        assert len(sources) > 0
        expanded = butler.registry.expandDataId(instrument="DiaSim", **data_id)
        packer = DiaSim.make_default_dimension_packer(expanded, is_exposure=False)
        assert set(np.asarray(sources["diaSourceId"]) >> 37) == {packer.pack(expanded)}
        assert dict(packer.unpack(int(sources["diaSourceId"][0]) >> 37).required) == {
            "instrument": "DiaSim",
            **data_id,
        }
        assert (sources["visit"] == data_id["visit"]).all()
        assert (sources["detector"] == data_id["detector"]).all()
        ids.append(np.asarray(sources["diaSourceId"]))
    everything = np.concatenate(ids)
    assert everything.dtype == np.int64
    assert (everything > 0).all()
    assert len(np.unique(everything)) == len(everything)


@pytest.mark.parametrize("method", METHODS)
def test_injected_transients_are_found(butler: Butler, method: str) -> None:
    found, wanted = 0, 0
    for data_id in _each_detector():
        truth = butler.get("dia_truth", data_id, collections="DiaSim/input")
        sources = butler.get(f"{method}_dia_source", data_id)
        bright = truth[truth["isTransient"] & (truth["idealSnr"] > 12) & ~truth["isSaturated"]]
        inside = (np.abs(bright["x"] - 199.5) < 160) & (np.abs(bright["y"] % 400 - 199.5) < 160)
        for row in bright[inside]:
            wanted += 1
            distance = np.hypot(sources["x"] - row["x"], sources["y"] - row["y"])
            found += int(distance.min() < 1.5)
    assert wanted >= 10
    # One in ten may lie on a bright star or another transient.
    assert found >= 0.9 * wanted


@pytest.mark.parametrize("method", METHODS)
def test_stamps_and_diagnostics_have_a_row_for_each_source(butler: Butler, method: str) -> None:
    for data_id in _each_detector():
        ids = np.asarray(butler.get(f"{method}_dia_source", data_id)["diaSourceId"])
        for kind in ("dia_stamps", "dia_diagnostics"):
            assert np.array_equal(butler.get(f"{method}_{kind}", data_id)["diaSourceId"], ids)


@pytest.mark.parametrize("method", METHODS)
def test_stamp_set_is_put_together_from_its_datasets(butler: Butler, method: str) -> None:
    stamps = StampSet.from_tables(
        butler.get(f"{method}_dia_stamps", visit=1, detector=0),
        butler.get(f"{method}_difference_filters", visit=1, detector=0),
    )
    assert set(stamps.models) == set(MODELS)
    assert {"science", "template", "difference", "differenceVariance", "mask"} <= set(stamps.planes)
    difference = butler.get(f"{method}_difference_image", visit=1, detector=0)
    inside = np.flatnonzero(
        (np.asarray(stamps.sources["x0"]) >= 0)
        & (np.asarray(stamps.sources["x0"]) + stamps.size <= difference.bbox.x.stop)
        & (np.asarray(stamps.sources["y0"]) >= 0)
        & (np.asarray(stamps.sources["y0"]) + stamps.size <= difference.bbox.y.stop)
    )[0]
    x0, y0 = (int(stamps.sources[name][inside]) for name in ("x0", "y0"))
    cut = difference.image.array[y0 : y0 + stamps.size, x0 : x0 + stamps.size]
    assert np.array_equal(stamps.planes["difference"][inside], cut)


def test_filters_are_read_back_as_what_they_were(butler: Butler) -> None:
    filters = filters_from_table(butler.get("zogy_difference_filters", visit=1, detector=0))
    assert set(filters) == set(MODELS)
    psf = filters["sciencePsf"].at(200.0, 200.0)
    assert psf.sum() == pytest.approx(1.0, abs=1e-4)
    assert np.unravel_index(psf.argmax(), psf.shape) == (psf.shape[0] // 2, psf.shape[1] // 2)


def test_columns_are_read_without_the_rest(butler: Butler) -> None:
    wanted = ["diaSourceId", "x0", "y0", "difference"]
    table = butler.get("al_dia_stamps", visit=1, detector=0, parameters={"columns": wanted})
    assert set(table.colnames) == set(wanted)
    assert table["difference"].ndim == 3
    stamps = StampSet.from_tables(table)
    assert stamps.provides == {"difference"}


def test_units_survive_the_round_trip(butler: Butler) -> None:
    sources = butler.get("al_dia_source", visit=1, detector=0)
    assert sources["psfFlux"].unit == u.nJy
    assert sources["ra"].unit == u.deg
    assert sources["x"].unit == u.pix
    stamps = butler.get("al_dia_stamps", visit=1, detector=0)
    assert stamps["differenceVariance"].unit == u.nJy**2
    assert stamps["pixelToSky"].unit == u.deg / u.pix
    diagnostics = butler.get("al_dia_diagnostics", visit=1, detector=0)
    assert diagnostics["psfPhotometry_psfFlux"].unit == u.nJy
    comparison = butler.get("subtraction_comparison", visit=1, detector=0)
    assert comparison["zogy_psfFlux"].unit == u.nJy
    assert butler.get("subtraction_comparison_summary")["zogy_psfFlux"].unit == u.nJy


def test_join_holds_every_source_once(butler: Butler) -> None:
    for data_id in _each_detector():
        comparison = butler.get("subtraction_comparison", data_id)
        for method in METHODS:
            sources = butler.get(f"{method}_dia_source", data_id)
            joined = comparison[np.asarray(comparison[f"{method}_found"])]
            assert sorted(joined[f"{method}_diaSourceId"]) == sorted(sources["diaSourceId"])
        found = sum(np.asarray(comparison[f"{method}_found"], dtype=int) for method in METHODS)
        assert np.array_equal(found, comparison["nMethods"])
        assert (comparison["nMethods"] == 2).any()


def test_joined_values_are_those_of_the_methods_own_tables(butler: Butler) -> None:
    comparison = butler.get("subtraction_comparison", visit=2, detector=1)
    for method in METHODS:
        rows = comparison[np.asarray(comparison[f"{method}_found"])]
        for kind, name in (("dia_source", "snr"), ("dia_diagnostics", "psfPhotometry_psfChi2")):
            table = butler.get(f"{method}_{kind}", visit=2, detector=1)
            by_id = dict(zip(table["diaSourceId"], table[name], strict=True))
            expected = [by_id[identifier] for identifier in rows[f"{method}_diaSourceId"]]
            assert np.array_equal(rows[f"{method}_{name}"], expected, equal_nan=True)


def test_matched_sources_are_near_each_other(butler: Butler) -> None:
    comparison = butler.get("subtraction_comparison", visit=1, detector=1)
    both = comparison[np.asarray(comparison["nMethods"]) == 2]
    assert (np.hypot(both["al_x"] - both["zogy_x"], both["al_y"] - both["zogy_y"]) <= 3.0).all()


@pytest.mark.parametrize("name", GATHERED)
def test_visit_table_is_the_detectors_tables_one_after_another(butler: Butler, name: str) -> None:
    for visit in VISITS:
        parts = [butler.get(name, visit=visit, detector=detector) for detector in DETECTORS]
        _assert_same(butler.get(f"{name}_visit", visit=visit), vstack(parts, metadata_conflicts="silent"))


@pytest.mark.parametrize("name", GATHERED)
def test_summary_is_the_visits_tables_one_after_another(butler: Butler, name: str) -> None:
    parts = [butler.get(f"{name}_visit", visit=visit) for visit in VISITS]
    _assert_same(butler.get(f"{name}_summary"), vstack(parts, metadata_conflicts="silent"))


def _assert_same(table: Table, expected: Table) -> None:
    assert table.colnames == expected.colnames
    assert len(table) == len(expected)
    for name in table.colnames:
        column, other = np.asarray(table[name]), np.asarray(expected[name])
        assert np.array_equal(column, other, equal_nan=column.dtype.kind == "f"), name


def test_metrics_say_what_they_are(butler: Butler) -> None:
    metrics = butler.get("zogy_difference_metrics_summary")
    assert {"method", "visit", "detector", "metric", "value", "error", "unit", "description"} <= set(
        metrics.colnames
    )
    assert all(metrics["description"])
    sigma = metrics[metrics["metric"] == "skySigmaOverPredicted"]
    assert len(sigma) == len(VISITS) * len(DETECTORS)
    # The sky of these crowded images is a few thousand pixels; 5 sigma of that and the PSF fit.
    assert np.all(np.abs(sigma["value"] - 1.0) < np.maximum(5 * sigma["error"], 0.05))


def test_log_of_each_quantum_is_a_dataset(butler: Butler) -> None:
    messages = [record.message for record in butler.get("detectAl_log", visit=1, detector=0)]
    assert any(message.startswith("Detected ") for message in messages)


@pytest.mark.parametrize(
    "name", ["al_dia_source", "al_dia_stamps", "al_dia_diagnostics", "subtraction_comparison"]
)
def test_tables_without_rows_are_written_and_read_back(butler: Butler, tmp_path: Path, name: str) -> None:
    empty = butler.get(name, visit=1, detector=0)[:0]
    Butler.makeRepo(str(tmp_path / "repo"))
    with Butler.from_config(str(tmp_path / "repo"), run="empty") as other:
        other.registry.registerDatasetType(DatasetType(name, (), "ArrowAstropy", universe=other.dimensions))
        other.put(empty, name)
        again = other.get(name)
    assert len(again) == 0
    assert again.colnames == empty.colnames
    for column in again.colnames:
        assert again[column].shape == empty[column].shape
        assert again[column].unit == empty[column].unit


def test_detection_threshold_is_set_by_configuration(repo: Path, run: Command) -> None:
    # No score reaches this, so tables without rows go through stamps, diagnostics, metrics and join.
    run_pipeline(
        repo,
        "u/test/nothing",
        *("-d", "instrument='DiaSim' AND visit=1 AND detector=0"),
        *("-c", "detectAl:threshold=1e9", "-c", "detectZogy:threshold=1e9"),
    ).check()
    with Butler.from_config(str(repo), collections="u/test/nothing", instrument="DiaSim") as butler:
        for name in ("al_dia_stamps", "zogy_dia_diagnostics", "subtraction_comparison"):
            assert len(butler.get(name, visit=1, detector=0)) == 0
        assert len(butler.get("subtraction_comparison_summary")) == 0
        metrics = butler.get("al_difference_metrics_visit", visit=1)
        assert float(metrics["value"][metrics["metric"] == "numberPositive"][0]) == 0


def test_template_is_read_as_components(repo: Path, run: Command) -> None:
    run_pipeline(
        repo,
        "u/test/components",
        *("-d", "instrument='DiaSim' AND visit=1 AND detector=0", "-c", "subtractAl:templateAs=components"),
        pipeline="resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml#subtractAl",
    ).check()
    with Butler.from_config(str(repo), instrument="DiaSim") as butler:
        one, other = (
            butler.get("al_difference_image", visit=1, detector=0, collections=collection)
            for collection in (COLLECTION, "u/test/components")
        )
    assert np.array_equal(one.image.array, other.image.array)
    assert np.array_equal(one.mask.array, other.mask.array)


def test_a_method_is_switched_and_tuned_from_the_command_line(repo: Path, run: Command) -> None:
    switch = [
        f"{step}Al:connections.method=zogy"
        for step in (
            "subtract",
            "detect",
            "cutStamps",
            "maps",
            "diagnose",
            "classify",
            "metrics",
            "calibrate",
        )
    ]
    run_pipeline(
        repo,
        "u/test/switched",
        *("-d", "instrument='DiaSim' AND visit=1 AND detector=0"),
        *("-c", "subtractAl:subtractor=zogy", *[part for text in switch for part in ("-c", text)]),
        pipeline="resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml#al",
    ).check()
    with Butler.from_config(str(repo), instrument="DiaSim") as butler:
        one, other = (
            butler.get("zogy_difference_image", visit=1, detector=0, collections=collection)
            for collection in (COLLECTION, "u/test/switched")
        )
    assert np.array_equal(one.image.array, other.image.array)


def test_half_a_switch_is_refused_with_the_reason(repo: Path) -> None:
    command = run_pipeline(repo, "u/test/refused", "-c", "subtractAl:subtractor=zogy")
    assert command.status != 0
    assert "must be the same" in command.output
