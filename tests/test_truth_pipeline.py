"""From simulated truth, and from tables of truth, to the summary of a survey by ``pipetask run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner
from lsst.daf.butler import Butler
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import Pipeline

from commands import PIPELINE, run_pipeline
from lsst.diainspect.cli import main
from lsst.diainspect.comparison import join_sources
from lsst.diainspect.tasks import MatchTruthTask, SummarizeTruthTask
from lsst.diainspect.truth import source_truth

LABELS = "subtractAl,detectAl,matchTruthAl,gatherTruthVisit,gatherTruthSurvey,summarizeTruth"
RUN = "u/test/truth"


@pytest.fixture(scope="module")
def repo(simulate: Callable[..., Path]) -> Path:
    """Two detectors, of which one has a template without data."""
    return simulate(
        size=400,
        seed=21,
        visits=[{"visit": 1}],
        detectors=[0, 1],
        broken=[{"detector": 1, "how": "template_no_data"}],
        scene={
            "star_density": 60.0,
            "star_magnitudes": [16.5, 23.0],
            "galaxy_density": 15.0,
            "n_transients": 25,
            "transient_snr": [10.0, 60.0],
            "n_variables": 2,
        },
    )


@pytest.fixture(scope="module")
def butler(repo: Path) -> Iterator[Butler]:
    run_pipeline(repo, RUN, "-c", "parameters:methods=['al']", pipeline=f"{PIPELINE}#{LABELS}").check()
    with Butler.from_config(str(repo), collections=RUN, instrument="DiaSim") as butler:
        yield butler


def test_matches_hold_every_source_and_every_change_once(butler: Butler) -> None:
    matches = butler.get("al_truth_match", visit=1, detector=0)
    sources = butler.get("al_dia_source", visit=1, detector=0)
    ids = np.asarray(matches["diaSourceId"])
    assert sorted(ids[ids != 0]) == sorted(sources["diaSourceId"])
    truth = butler.get("dia_truth", visit=1, detector=0, collections="DiaSim/input")
    objects = np.asarray(matches["truthId"])[np.asarray(matches["isTruth"])]
    changed = truth[np.asarray(truth["idealSnrWithSources"]) >= 1.0]
    assert set(objects) <= set(changed["objectId"])
    assert len(objects) >= len(changed) - 2
    assert {"method", "visit", "detector", "band"} <= set(matches.colnames)
    assert set(matches["method"]) == {"al"}


def test_what_is_significant_is_detected_where_it_is(butler: Butler) -> None:
    matches = butler.get("al_truth_match", visit=1, detector=0)
    use = (
        np.asarray(matches["isTruth"])
        & np.asarray(matches["isFiducial"])
        & (np.asarray(matches["idealSnr"]) > 12)
    )
    assert use.sum() >= 10
    assert np.mean(np.asarray(matches["isDetected"])[use]) > 0.85
    found = matches[use & np.asarray(matches["isDetected"])]
    assert np.median(found["separation"]) < 0.1
    assert np.median(found["snrOverIdeal"]) == pytest.approx(1.0, abs=0.1)
    assert abs(np.median(found["fluxPull"])) < 1.0


def test_a_broken_detector_does_not_cost_the_survey_its_summary(butler: Butler) -> None:
    assert not butler.query_datasets("al_truth_match", where="detector = 1", explain=False)
    counts = butler.get("al_truth_counts_summary")
    assert list(counts["detector"]) == [0]
    assert counts["fiducialArea"][0] == pytest.approx((400 * 0.2 / 3600.0) ** 2, rel=0.2)
    summary, curves = butler.get("truth_summary"), butler.get("truth_curves")
    chosen = summary[
        (summary["statistic"] == "completeness") & (summary["variable"] == "") & (summary["cut"] == "")
    ]
    assert chosen["value"][0] == pytest.approx(counts["nDetected"][0] / counts["nTruth"][0])
    assert chosen["lower"][0] < chosen["value"][0] < chosen["upper"][0]
    assert len(curves) > 5
    assert all(summary[name].description for name in summary.colnames)


def test_truth_joins_the_comparison(butler: Butler) -> None:
    sources = butler.get("al_dia_source", visit=1, detector=0)
    told = source_truth(butler.get("al_truth_match", visit=1, detector=0))
    joined = join_sources({"al": sources}, {}, 3.0, {"al": told})
    order = np.argsort(joined["al_diaSourceId"])
    assert np.array_equal(
        np.asarray(joined["al_truthIsReal"])[order],
        np.asarray(told["truthIsReal"])[np.argsort(told["diaSourceId"])],
    )
    assert joined["al_truthIsReal"].sum() > 5


@pytest.fixture(scope="module")
def injected(butler: Butler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The transients that appeared, as a catalogue of source_injection has them."""
    truth = butler.get("dia_truth", visit=1, detector=0, collections="DiaSim/input")
    new = truth[(truth["kind"] == "transient") & (np.asarray(truth["fluxChange"]) > 0)]
    path = tmp_path_factory.mktemp("truth") / "injected.ecsv"
    Table(
        {
            "injection_id": np.asarray(new["objectId"]),
            "ra": np.asarray(new["ra"]),
            "dec": np.asarray(new["dec"]),
            "mag": np.asarray(new["mag"]),
            "source_type": np.full(len(new), "Star"),
        }
    ).write(path)
    return path


@pytest.mark.parametrize("how", ["dataset", "file"])
def test_a_table_of_injected_sources_is_truth(butler: Butler, repo: Path, injected: Path, how: str) -> None:
    options = ["-c", "parameters:truthName=injected", "-c", "matchTruthAl:truthDimensions=['instrument']"]
    inputs = f"{RUN},DiaSim/injected"
    if how == "dataset":
        result = CliRunner().invoke(main, ["ingest-truth", str(repo), str(injected), "--name", "injected"])
        assert result.exit_code == 0, result.output
        assert "which change, in 1 datasets injected in collection DiaSim/injected" in result.output
        again = CliRunner().invoke(main, ["ingest-truth", str(repo), str(injected), "--name", "injected"])
        assert "already has injected" in again.output
    else:
        options, inputs = ["-c", f"matchTruthAl:truthFile={injected}"], RUN
    output = f"u/test/injected/{how}"
    run_pipeline(repo, output, *options, pipeline=f"{PIPELINE}#matchTruthAl", inputs=inputs).check()
    one = butler.get("al_truth_match", visit=1, detector=0)
    other = butler.get("al_truth_match", visit=1, detector=0, collections=output)
    # The same objects have the same sources, though only their place and magnitude are known.
    found = {int(row["truthId"]): int(row["diaSourceId"]) for row in one[np.asarray(one["isTruth"])]}
    injected_rows = other[np.asarray(other["isTruth"])]
    assert len(injected_rows) > 5
    for row in injected_rows:
        assert found[int(row["truthId"])] == int(row["diaSourceId"])


def test_truth_that_cannot_be_used_fails_with_the_reason_and_nothing_else_does(
    repo: Path, butler: Butler
) -> None:
    options = ["-c", "matchTruthAl:truthColumns={'ra': 'nowhere'}"]
    output = "u/test/unusable"
    run = run_pipeline(
        repo, output, *options, pipeline=f"{PIPELINE}#matchTruthAl", inputs=f"{RUN},DiaSim/input"
    ).check()
    assert "has no column 'nowhere' for ra" in run.output
    metadata = butler.get("matchTruthAl_metadata", visit=1, detector=0, collections=output)
    assert "nowhere" in metadata["matchTruthAl"]["failure"]["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--per", "visit"], "no column visit"),
        (["--column", "ra"], "STANDARD=OWN"),
        (["--column", "ra=nowhere"], "no column 'nowhere'"),
        (["--instrument", "HSC"], "has no instrument HSC"),
        (["--name", "a b"], "letters, digits and underscores"),
    ],
)
def test_ingest_says_what_is_wrong(repo: Path, injected: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["ingest-truth", str(repo), str(injected), *arguments])
    assert result.exit_code != 0
    assert message in result.output


def test_truth_with_visits_and_detectors_is_written_for_each(repo: Path, tmp_path: Path) -> None:
    path = tmp_path / "truth.ecsv"
    Table(
        {
            "visit": [1, 1, 9],
            "detector": [0, 1, 0],
            "ra": [1.0, 2.0, 3.0],
            "dec": [0.0] * 3,
            "mag": [20.0] * 3,
        }
    ).write(path)
    result = CliRunner().invoke(main, ["ingest-truth", str(repo), str(path), "--name", "finest"])
    assert result.exit_code == 0, result.output
    assert "left out: 1 objects" in result.output
    assert "2 objects, 2 of which change, in 2 datasets finest" in result.output
    assert "truthDimensions=['instrument', 'visit', 'detector']" in result.output


def test_pipelines_of_real_instruments_can_have_truth_but_do_not() -> None:
    for name in ("LSSTCam-imSim/inspect.yaml", "DiaFits/inspect.yaml"):
        pipeline = Pipeline.from_uri(f"resource://lsst.diainspect/pipelines/{name}")
        assert not [label for label in pipeline.task_labels if "Truth" in label]
        pipeline.mergePipeline(
            Pipeline.from_uri("resource://lsst.diainspect/pipelines/_ingredients/truth.yaml")
        )
        pipeline.addConfigOverride("compareSubtractions", "hasTruth", True)
        graph = pipeline.to_graph()
        assert "al_truth_match" in {
            edge.dataset_type_name for edge in graph.tasks["compareSubtractions"].iter_all_inputs()
        }


def test_catalogues_of_source_injection_are_found_by_region_and_band() -> None:
    config = MatchTruthTask.ConfigClass()
    config.truthDimensions = ["htm7", "band"]
    config.connections.truthName = "injection_catalog"
    config.validate()
    connection = config.ConnectionsClass(config=config).truth
    assert (connection.name, set(connection.dimensions), connection.multiple) == (
        "injection_catalog",
        {"htm7", "band"},
        True,
    )


@pytest.mark.parametrize(
    ("task", "field", "value", "message"),
    [
        (MatchTruthTask, "chanceDistances", [1.0], "could find their own object"),
        (MatchTruthTask, "truthColumns", {"colour": "g"}, "unknown columns"),
        (SummarizeTruthTask, "magEdges", [20.0, 19.0], "must rise"),
        (SummarizeTruthTask, "cuts", ["import os"], "condition"),
    ],
)
def test_configuration_is_checked(task: type, field: str, value: object, message: str) -> None:
    config = task.ConfigClass()
    setattr(config, field, value)
    with pytest.raises(FieldValidationError, match=message):
        config.validate()
