"""Command line of the quality benchmark."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import click

from ._beaten import beaten, write_beaten
from ._methods import OWN_METHODS, MethodSpec
from ._peers import PEERS
from ._real import compare_on_pair
from ._real_pairs import REAL_PAIRS, data_folder
from ._real_table import load_real, real_path, real_table, store_real, write_real
from ._run_one import is_current, read_result, result_path, run_one, store_failure
from ._scenes import SceneSpec, make_scene
from ._table import make_tables, pooled_groups, write_tables

_PEER_SIZE = 1024
"""Peers run on scenes up to this size unless asked for: some need more memory than a laptop has [pixel]."""

directory_argument = click.argument("directory", type=click.Path(file_okay=False, path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the subtraction methods on scenes with truth.

    `run` makes scenes and results in DIRECTORY, and goes on where it was stopped; `table` states the figures.
    """


@main.command()
@directory_argument
@click.option("--size", "sizes", type=int, multiple=True, default=(1024, 4096), show_default=True)
@click.option("--order", "orders", type=click.Choice(["f", "r"]), multiple=True, default=("f", "r"))
@click.option("--psf", "psfs", type=click.Choice(["exact", "measured"]), multiple=True, default=("exact",))
@click.option(
    "--template", "templates", type=click.Choice(["white", "warped"]), multiple=True, default=("white",)
)
@click.option("--jitter", "jitters", type=float, multiple=True, default=(0.05,), show_default=True)
@click.option("--scenes", default="1-5", show_default=True, help="Numbers of the scenes, as 3 or 1-5.")
@click.option(
    "--method", "methods", multiple=True, default=("ideal", *OWN_METHODS, "peers"), show_default=True
)
@click.option(
    "--config",
    "configs",
    multiple=True,
    help="METHOD:FIELD=VALUE[,FIELD=VALUE...]: run the method also so configured, under a label of its own.",
)
@click.option("--label", default="", help="Label for what --config makes.")
@click.option("--force", is_flag=True, help="Run again what has a result.")
@click.option("--keep", is_flag=True, help="Keep the images of each method beside its result.")
@click.option("--only-scenes", is_flag=True, help="Make the scenes and stop.")
@click.option("--all-sizes", is_flag=True, help="Run peers on scenes of all sizes.")
@click.option("--cores", type=int, default=0, help="Bind each run to this many cores; 0 for no binding.")
def run(
    directory: Path,
    sizes: tuple[int, ...],
    orders: tuple[str, ...],
    psfs: tuple[str, ...],
    templates: tuple[str, ...],
    jitters: tuple[float, ...],
    scenes: str,
    methods: tuple[str, ...],
    configs: tuple[str, ...],
    label: str,
    force: bool,
    keep: bool,
    only_scenes: bool,
    all_sizes: bool,
    cores: int,
) -> None:
    """Make scenes and run methods on them, each run in a process of its own."""
    names = [name for method in methods for name in (sorted(PEERS) if method == "peers" else [method])]
    wanted = [MethodSpec(name) for name in names]
    if configs:
        wanted = [_parse(text, label) for text in configs] + (
            [MethodSpec("ideal")] if "ideal" in names else []
        )
    specs = [
        SceneSpec(size, order, psf, template, jitter, index)  # type: ignore[arg-type]
        for size, psf, template, jitter, index, order in itertools.product(
            sizes, psfs, templates, jitters, _numbers(scenes), orders
        )
    ]
    jobs: list[tuple[SceneSpec, MethodSpec | None]] = []
    for spec in specs:
        jobs.append((spec, None))
        if not only_scenes:
            jobs += [
                (spec, method)
                for method in wanted
                if all_sizes or method.name not in PEERS or spec.size <= _PEER_SIZE
            ]
    for number, (spec, method) in enumerate(jobs, start=1):
        head = f"[{number}/{len(jobs)}] {spec.name}"
        start = time.monotonic()
        if method is None:
            make_scene(spec, directory)
            click.echo(f"{head}: scene, {time.monotonic() - start:.0f} s")
            continue
        path = result_path(directory, spec.name, method)
        if not force and is_current(path, directory):
            click.echo(f"{head} {method.title}: there")
            continue
        click.echo(f"{head} {method.title}: {_in_process(directory, spec, method, keep, cores)}")


def _in_process(directory: Path, spec: SceneSpec, method: MethodSpec, keep: bool, cores: int) -> str:
    """Run a method on a scene in its own process; return a line about it."""
    command = [sys.executable, "-m", "benchmarks.quality", "one", str(directory), spec.name, method.name]
    command += [f"--set={field}={value}" for field, value in method.overrides]
    command += [f"--label={method.label}"] if method.label else []
    command += ["--keep"] if keep else []
    if cores > 0:
        command = ["taskset", "-c", f"0-{cores - 1}", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    start = time.monotonic()
    path = result_path(directory, spec.name, method)
    path.unlink(missing_ok=True)
    ended = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    taken = time.monotonic() - start
    if not path.exists():
        # Killed, for memory for example: that is a result too, and is not tried again.
        lines = ended.stderr.strip().splitlines()
        store_failure(
            directory, spec, method, f"exit {ended.returncode}: {lines[-1] if lines else 'no message'}"
        )
    result = read_result(path)
    if "unavailable" in result:
        return f"does not install: {result['unavailable']}"
    if "error" in result:
        return f"failed: {result['error']}"
    cpu = result["cost"]["subtract"]["cpu"]
    return (
        f"{cpu:.1f} s CPU = {cpu / result['fftPair']:.0f} FFT pairs, "
        f"score sigma {result['measured']['scoreSigma']:.3f}, {taken:.0f} s in all"
    )


@main.command(hidden=True)
@directory_argument
@click.argument("scene")
@click.argument("method")
@click.option("--set", "overrides", multiple=True)
@click.option("--label", default="")
@click.option("--keep", is_flag=True)
def one(directory: Path, scene: str, method: str, overrides: tuple[str, ...], label: str, keep: bool) -> None:
    """Run one method on one scene in this process."""
    pairs = tuple((text.partition("=")[0], text.partition("=")[2]) for text in overrides)
    run_one(directory, scene, MethodSpec(method, pairs, label), keep=keep)


@main.command()
@directory_argument
@click.option(
    "--write", "page", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="Page to update."
)
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), help="Folder for the plots.")
@click.option("--group", "groups", multiple=True, help="Only groups whose name contains this.")
def table(directory: Path, page: Path | None, figures: Path | None, groups: tuple[str, ...]) -> None:
    """Print one table for each kind of scene."""
    shown = os.path.relpath(figures, page.parent) if page is not None and figures is not None else ""
    pooled = pooled_groups(directory, groups)
    text = make_tables(directory, groups, shown, pooled)
    click.echo(text)
    if page is not None:
        write_tables(page, text)
        write_beaten(page, beaten(pooled))
        click.echo(f"Wrote {page}.", err=True)
    if figures is not None:
        from ._plots import write_plots

        for path in write_plots(pooled, figures):
            click.echo(f"Wrote {path}.", err=True)


@main.command()
@directory_argument
@click.option("--pair", "pairs", type=click.Choice(list(REAL_PAIRS)), multiple=True, default=list(REAL_PAIRS))
@click.option(
    "--write", "page", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="Page to update."
)
@click.option("--force", is_flag=True, help="Run again what has a result.")
def real(directory: Path, pairs: tuple[str, ...], page: Path | None, force: bool) -> None:
    """Measure al and zogy on real pairs beside the differences that come with them.

    The pairs are read from the folder that DIAINSPECT_TESTDATA_DIR names.
    """
    results = []
    for number, name in enumerate(pairs, start=1):
        path = real_path(directory, name)
        start = time.monotonic()
        if force or not path.exists():
            store_real(path, compare_on_pair(REAL_PAIRS[name](data_folder())))
        results.append(load_real(path))
        click.echo(f"[{number}/{len(pairs)}] {results[-1].name}: {time.monotonic() - start:.0f} s", err=True)
    text = real_table(results)
    click.echo(text)
    if page is not None:
        write_real(page, text)
        click.echo(f"Wrote {page}.", err=True)


def _numbers(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _parse(text: str, label: str) -> MethodSpec:
    name, _, fields = text.partition(":")
    pairs = []
    for entry in fields.split(","):
        field, equals, value = entry.partition("=")
        if not equals:
            raise click.BadParameter(f"--config needs METHOD:FIELD=VALUE, got {text!r}.")
        pairs.append((field, value))
    return MethodSpec(name, tuple(pairs), label)


if __name__ == "__main__":
    main()
