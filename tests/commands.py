"""The commands of the package and of the stack, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PIPELINE = "resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml"
WITHOUT_FIGURES = str(Path(__file__).with_name("without_figures.yaml"))
"""The same but for the tasks that draw; `test_plots.py` runs them all."""

QUIET = "lsst.daf.butler._storage_class=ERROR"


@dataclass(frozen=True)
class Command:
    """What a command said and how it ended."""

    status: int
    output: str

    def check(self) -> Command:
        """Fail with the command's output unless it ended well."""
        assert self.status == 0, self.output
        return self


def run_command(name: str, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Command:
    """Run a command that is installed beside this Python, as a user would."""
    beside = Path(sys.executable).with_name(name)
    completed = subprocess.run(
        [str(beside) if beside.exists() else name, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        check=False,
    )
    return Command(completed.returncode, completed.stdout)


def run_pipeline(
    repo: Path,
    output: str,
    *options: str,
    pipeline: str = PIPELINE,
    inputs: str = "DiaSim/input",
    environment: Mapping[str, str] | None = None,
) -> Command:
    """Run a pipeline, on simulated data unless said, in one process, in which no quantum waits for imports."""
    return run_command(
        "pipetask",
        "--log-level",
        QUIET,
        "run",
        *("-b", repo, "-p", pipeline, "-i", inputs, "-o", output),
        *("-j", "1", "--register-dataset-types", "--no-raise-on-partial-outputs"),
        *options,
        environment=environment,
    )
