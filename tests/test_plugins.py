"""Subtractors, diagnostics and metrics of other packages join by entry point or by import."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from lsst.daf.butler import Butler

import lsst.diainspect
from commands import Command, run_command, run_pipeline

PIPELINES = Path(lsst.diainspect.__file__).parent / "pipelines"

MODULE = '''
from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np

from lsst.diainspect.comparison import DifferenceMetric, metric_registry
from lsst.diainspect.diagnostics import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry
from lsst.diainspect.subtraction import ZogyConfig, ZogySubtractor, subtractor_registry


class PeakConfig(DiagnosticConfig):
    scale = pexConfig.Field[float](doc="Factor.", dtype=float, default=1.0)


class Peak(Diagnostic):
    """Largest pixel of the difference; refuses every third source on purpose."""

    ConfigClass: ClassVar = PeakConfig
    needs: ClassVar = frozenset({"difference"})

    @property
    def columns(self):
        return {"value": DiagnosticColumn("float32", u.nJy, "Largest pixel.")}

    def measure(self, stamps):
        if (np.asarray(stamps.sources["diaSourceId"]) % 3 == 0).any():
            raise RuntimeError("not this one")
        return {"value": self.config.scale * np.nanmax(stamps.planes["difference"], axis=(1, 2))}


class Largest(DifferenceMetric):
    unit: ClassVar[str] = "nJy"
    doc: ClassVar[str] = "Largest pixel of the difference."

    def measure(self, data):
        return float(np.nanmax(data.difference)), float("nan")


class Broken(DifferenceMetric):
    doc: ClassVar[str] = "Never works."

    def measure(self, data):
        raise RuntimeError("never")


class DoubleConfig(ZogyConfig):
    factor = pexConfig.Field[float](doc="What the difference is multiplied by.", dtype=float, default=2.0)


class Double(ZogySubtractor):
    """ZOGY in other units: enough to see that it was this one that ran."""

    ConfigClass: ClassVar = DoubleConfig

    def subtract(self, pair, kernel_sources=None):
        import dataclasses

        result = super().subtract(pair, kernel_sources)
        factor = self.config.factor
        return dataclasses.replace(
            result,
            difference=result.difference * np.float32(factor),
            variance=result.variance * np.float32(factor**2),
            metadata={**result.metadata, "factor": factor},
        )


diagnostic_registry.register("peak", Peak)
metric_registry.register("largest", Largest)
metric_registry.register("broken", Broken)
subtractor_registry.register("double", Double)
'''

ENTRY_POINTS = """[lsst.diainspect.plugins]
third = third_party_plugin
absent = no_such_module_at_all
"""


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Another package's distribution, and the environment in which Python finds it."""
    site = tmp_path_factory.mktemp("site")
    (site / "third_party_plugin.py").write_text(MODULE)
    information = site / "third_party-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path}


@pytest.fixture(scope="module")
def repo(simulate: Callable[..., Path]) -> Path:
    return simulate(
        size=320,
        seed=8,
        detectors=[0],
        visits=[{"visit": 1, "science_seeing": 0.9, "template_seeing": 0.75}],
    )


@pytest.fixture(scope="module")
def run(repo: Path, third_party: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The pipeline of a third party: its subtractor in place of one of ours, its diagnostic beside ours."""
    ingredient = yaml.safe_load((PIPELINES / "_ingredients" / "subtractAl.yaml").read_text())
    classes = {label: task["class"] for label, task in ingredient["tasks"].items()}
    classes["matchTruthAl"] = "lsst.diainspect.tasks.MatchTruthTask"
    tasks: dict[str, dict] = {
        label: {"class": name, "config": {"connections.method": "double"}} for label, name in classes.items()
    }
    tasks["subtractAl"]["config"]["subtractor"] = "double"
    pipeline = tmp_path_factory.mktemp("pipeline") / "double.yaml"
    content = {
        "description": "A third party's subtractor.",
        "imports": ["resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml"],
        "parameters": {"methods": ["double", "zogy"]},
        "tasks": tasks,
    }
    pipeline.write_text(yaml.safe_dump(content, sort_keys=False))
    return run_pipeline(
        repo,
        "u/test/plugins",
        *("-c", "diagnoseAl:diagnostics=['peak', 'psfPhotometry']"),
        *("-c", "metricsAl:metrics=['largest', 'broken', 'skySigmaOverPredicted']"),
        pipeline=str(pipeline),
        environment=third_party,
    ).check()


@pytest.fixture(scope="module")
def butler(repo: Path, run: Command) -> Iterator[Butler]:
    with Butler.from_config(str(repo), collections="u/test/plugins", instrument="DiaSim") as butler:
        yield butler


def test_third_partys_diagnostic_makes_its_columns(butler: Butler) -> None:
    diagnostics = butler.get("double_dia_diagnostics", visit=1, detector=0)
    stamps = butler.get("double_dia_stamps", visit=1, detector=0)
    measured = ~np.asarray(diagnostics["peak_flag"])
    assert measured.any()
    largest = np.nanmax(stamps["difference"], axis=(1, 2))
    assert np.array_equal(diagnostics["peak_value"][measured], largest[measured])
    assert str(diagnostics["peak_value"].unit) == "nJy"


def test_sources_on_which_it_fails_are_flagged_and_the_others_measured(butler: Butler) -> None:
    diagnostics = butler.get("double_dia_diagnostics", visit=1, detector=0)
    failing = np.asarray(diagnostics["diaSourceId"]) % 3 == 0
    assert failing.any()
    assert np.array_equal(diagnostics["peak_flag_failed"], failing)
    assert np.array_equal(diagnostics["peak_flag"], failing)
    assert np.isnan(diagnostics["peak_value"][failing]).all()
    assert np.isfinite(diagnostics["psfPhotometry_psfFlux"]).any()


def test_failing_metric_is_nan_beside_one_that_works(butler: Butler) -> None:
    metrics = butler.get("double_difference_metrics", visit=1, detector=0)
    values = dict(zip(metrics["metric"], metrics["value"], strict=True))
    assert set(values) == {"largest", "broken", "skySigmaOverPredicted"}
    assert np.isnan(values["broken"])
    assert values["largest"] > 0


def test_third_partys_subtractor_joins_the_comparison(butler: Butler) -> None:
    assert butler.get("subtractAl_metadata", visit=1, detector=0)["subtractAl"]["factor"] == 2.0
    comparison = butler.get("subtraction_comparison", visit=1, detector=0)
    both = comparison[np.asarray(comparison["nMethods"]) == 2]
    # The same subtraction in other units finds the same sources.
    assert len(both) == len(comparison) > 0
    assert np.allclose(both["double_psfFlux"], 2.0 * both["zogy_psfFlux"], rtol=1e-3)


def test_plugin_that_cannot_be_imported_is_reported_and_left_out(run: Command) -> None:
    assert "Plugin absent (no_such_module_at_all) could not be loaded" in run.output


def test_plugin_is_imported_by_a_pipelines_python_where_there_are_no_entry_points(
    third_party: dict[str, str], tmp_path: Path
) -> None:
    site = Path(third_party["PYTHONPATH"].split(os.pathsep)[0])
    (tmp_path / "third_party_plugin.py").write_text((site / "third_party_plugin.py").read_text())
    (tmp_path / "pipeline.yaml").write_text(
        "description: By import.\n"
        "tasks:\n"
        "  diagnose:\n"
        "    class: lsst.diainspect.tasks.DiagnoseSourcesTask\n"
        "    config:\n"
        "      python: |\n"
        "        import third_party_plugin\n"
        "        config.diagnostics.names = ['peak']\n"
        "        config.diagnostics['peak'].scale = 3.0\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))}
    shown = run_command(
        "pipetask",
        *("build", "-p", tmp_path / "pipeline.yaml", "--show", "config=diagnose::diagnostics*"),
        environment=environment,
    ).check()
    assert "config.diagnostics['peak'].scale=3.0" in shown.output
