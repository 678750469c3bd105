"""``diainspect demo``: simulate a small survey, inspect it, and say what there is to look at."""

from __future__ import annotations

__all__ = ["demo_command"]

import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import click

from ._clear_errors import clear_errors

_PIPELINE = "resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml"
_COLLECTION = "u/demo"
_BOOKKEEPING = ("_config", "_log", "_metadata", "packages")
"""Endings of the datasets that every pipeline run writes about itself."""

_LOG_LEVELS = (
    "WARNING",
    # Harmless without afw: the butler says which conversions to afw types it cannot make.
    "lsst.daf.butler._storage_class=ERROR",
    # The two that say which quantum is done, and how many are left.
    "lsst.pipe.base.single_quantum_executor=INFO",
    "lsst.pipe.base.mp_graph_executor=INFO",
)

_DONE = re.compile(
    r"Execution of task '(?P<label>\w+)' on quantum \{(?P<data_id>.*)\} took (?P<seconds>[\d.]+)"
)
_COUNT = re.compile(r"Executed (?P<done>\d+) quanta successfully.* out of total (?P<total>\d+) quanta")
_HIDDEN = re.compile(r"single_quantum_executor INFO")


@click.command("demo")
@click.argument("repo", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--size", type=click.IntRange(min=256), default=1024, show_default=True, help="Detector side [pixel]."
)
@click.option(
    "-j", "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."
)
def demo_command(repo: Path, size: int, processes: int) -> None:
    """Simulate 2 visits of 2 detectors into the new repository REPO, inspect them, and list the results."""
    try:
        from lsst.diainspect.simulation import default_survey, write_survey
    except ModuleNotFoundError as error:
        if error.name != "galsim":
            raise
        raise click.ClickException(
            f"The simulation needs GalSim: pip install 'lsst-diainspect[sim]' ({error})."
        ) from error

    if (repo / "butler.yaml").exists():
        raise click.ClickException(f"{repo} is a repository already: remove it or name another directory.")
    start = time.monotonic()
    click.secho(f"1. Simulating 2 visits of 2 detectors of {size} pixels into {repo}", bold=True)
    with clear_errors():
        write_survey(repo, default_survey(size=size), report=click.echo)

    click.secho(
        "2. Subtracting with al and zogy, detecting, cutting stamps, diagnosing, comparing", bold=True
    )
    command = _pipetask(repo, processes)
    click.echo(f"$ {shlex.join(command)}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in _progress(process.stdout):
            click.echo(line)
    if process.returncode != 0:
        raise click.ClickException(
            f"pipetask ended with status {process.returncode}; its messages are above."
        )

    click.secho(f"3. Datasets of collection {_COLLECTION} in {repo.resolve()}", bold=True)
    with clear_errors():
        for name, storage_class, count in _dataset_counts(repo):
            click.echo(f"  {count:3d}  {name:<32s} {storage_class}")
    click.secho(f"Done in {time.monotonic() - start:.0f} s. Try next:", bold=True)
    for comment, next_command in _next_commands(repo):
        click.echo(f"\n# {comment}\n{next_command}")


def _script(name: str) -> str:
    """Return how to call a command that was installed beside this Python, also where it is not on the path."""
    beside = Path(sys.executable).with_name(name)
    if not beside.exists():
        return name
    here = Path.cwd()
    return str(beside.relative_to(here)) if beside.is_relative_to(here) else str(beside)


def _pipetask(repo: Path, processes: int) -> list[str]:
    levels = [part for level in _LOG_LEVELS for part in ("--log-level", level)]
    run = ["-b", str(repo), "-p", _PIPELINE, "-i", "DiaSim/input", "-o", _COLLECTION, "-j", str(processes)]
    options = ["--register-dataset-types", "--no-raise-on-partial-outputs"]
    if processes > 1:
        # Quanta start as copies of one process that has imported everything.
        options += ["--start-method", "forkserver"]
    return [_script("pipetask"), *levels, "run", *run, *options]


def _progress(lines: Iterable[str]) -> Iterable[str]:
    """Turn the executor's messages into one line a quantum, and let warnings and errors through."""
    waiting: deque[str] = deque()
    n_said = 0
    for line in lines:
        if match := _DONE.search(line):
            waiting.append(
                f"{match['label']:<20s} {_place(match['data_id']):<22s} {float(match['seconds']):6.1f} s"
            )
        elif match := _COUNT.search(line):
            while waiting and n_said < int(match["done"]):
                n_said += 1
                yield f"  [{n_said:2d}/{match['total']}] {waiting.popleft()}"
        elif not _HIDDEN.search(line):
            yield line.rstrip("\n")


def _place(data_id: str) -> str:
    numbers = dict(re.findall(r"(visit|detector): (\d+)", data_id))
    return " ".join(f"{name} {numbers[name]}" for name in ("visit", "detector") if name in numbers)


def _dataset_counts(repo: Path) -> list[tuple[str, str, int]]:
    """Return name, storage class and number of the datasets that the run made, but for its bookkeeping."""
    from lsst.daf.butler import Butler

    counts = []
    with Butler.from_config(str(repo)) as butler, butler.query() as query:
        for name in sorted(
            butler.collections.get_info(_COLLECTION, include_summary=True).dataset_types or ()
        ):
            if name.endswith(_BOOKKEEPING):
                continue
            found = query.datasets(name, collections=_COLLECTION).count()
            counts.append((name, butler.get_dataset_type(name).storageClass_name, found))
    return counts


def _next_commands(repo: Path) -> list[tuple[str, str]]:
    data_id = "instrument='DiaSim', visit=1, detector=0"
    read = (
        "import logging; logging.disable(logging.WARNING); "
        "from lsst.daf.butler import Butler; "
        f"butler = Butler('{repo}', collections='{_COLLECTION}'); "
        f"t = butler.get('subtraction_comparison', {data_id}); "
        "print(t['x', 'y', 'nMethods', 'al_snr', 'zogy_snr', 'al_residualModes_shiftX'])"
    )
    where = "instrument='DiaSim' AND visit=1 AND detector=0"
    return [
        (
            "Find the source tables of one visit",
            f"{_script('butler')} query-datasets {repo} '*_dia_source' --collections {_COLLECTION} "
            "--where \"instrument='DiaSim' AND visit=1\"",
        ),
        ("Read the comparison of the two methods on one detector", f'{_script("python")} -c "{read}"'),
        (
            "Run Alard & Lupton again on one detector with a kernel that does not vary",
            f"{_script('pipetask')} --log-level lsst.daf.butler._storage_class=ERROR run -b {repo} "
            f"-p {_PIPELINE}#al -i DiaSim/input -o u/tuned --register-dataset-types "
            f'--no-raise-on-partial-outputs -c subtractAl:subtractor.active.kernelOrder=0 -d "{where}"',
        ),
    ]
