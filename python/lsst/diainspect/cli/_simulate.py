"""``diainspect simulate``: a small simulated survey in a repository."""

from __future__ import annotations

__all__ = ["simulate_command"]

import dataclasses
from typing import Any, Literal

import click

from ._clear_errors import clear_errors


@click.command("simulate")
@click.argument("repo", type=click.Path(file_okay=False))
@click.option("--config", "config_file", type=click.Path(dir_okay=False), help="YAML file with the survey.")
@click.option("--visits", type=click.IntRange(min=1), help="Number of visits [default: 2].")
@click.option("--detectors", type=click.IntRange(1, 4), help="Number of detectors [default: 2].")
@click.option("--size", type=click.IntRange(min=64), help="Side of a detector in pixels [default: 1024].")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all randomness [default: 1].")
@click.option(
    "--transients", type=click.IntRange(min=0), help="Number of transients a detector [default: 30]."
)
@click.option("--blank", is_flag=True, help="Simulate an empty sky: noise only.")
@click.option(
    "--psf",
    type=click.Choice(["exact", "piff"]),
    help="PSFs that the images carry: exact, or measured from their stars by Piff [default: exact].",
)
@click.option(
    "--break",
    "broken",
    multiple=True,
    metavar="VISIT,DETECTOR[,HOW]",
    help="Spoil a detector on purpose; HOW is template_no_data (default), science_no_data, nan_block or "
    "no_template. May be repeated.",
)
@click.option("--run", default="DiaSim/input", show_default=True, help="RUN collection to write.")
@click.option(
    "-j", "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."
)
def simulate_command(
    repo: str,
    config_file: str | None,
    visits: int | None,
    detectors: int | None,
    size: int | None,
    seed: int | None,
    transients: int | None,
    blank: bool,
    psf: Literal["exact", "piff"] | None,
    broken: tuple[str, ...],
    run: str,
    processes: int,
) -> None:
    """Simulate science images, templates and truth into the butler repository REPO.

    The repository is created when missing. Options given here override those of the file. Visits alternate
    between a science image blunter and one sharper than its template.
    """
    try:
        from lsst.diainspect.simulation import BrokenDetector, default_survey, read_survey, write_survey
    except ModuleNotFoundError as error:
        if error.name != "galsim":
            raise
        raise click.ClickException(
            f"The simulation needs GalSim: pip install 'lsst-diainspect[sim]' ({error})."
        ) from error

    with clear_errors():
        if config_file is not None:
            if visits is not None:
                raise click.UsageError("--visits cannot be used with --config: the file lists the visits.")
            survey = read_survey(config_file)
        else:
            survey = default_survey(2 if visits is None else visits)
        changes: dict[str, Any] = {}
        if detectors is not None:
            changes["detectors"] = tuple(range(detectors))
        if size is not None:
            changes["size"] = size
        if seed is not None:
            changes["seed"] = seed
        scene: dict[str, Any] = {}
        if transients is not None:
            scene["n_transients"] = transients
        if blank:
            scene["blank"] = True
        if scene:
            changes["scene"] = dataclasses.replace(survey.scene, **scene)
        if psf is not None:
            changes["visits"] = tuple(
                dataclasses.replace(plan, conditions=dataclasses.replace(plan.conditions, psf=psf))
                for plan in survey.visits
            )
        if broken:
            entries = tuple(BrokenDetector(**_parse_broken(text)) for text in broken)
            changes["broken"] = survey.broken + entries
        refs = write_survey(
            repo, dataclasses.replace(survey, **changes), run=run, report=click.echo, processes=processes
        )
    click.echo(f"{len(refs)} datasets in collection {run} of {repo}")


def _parse_broken(text: str) -> dict[str, Any]:
    fields = [entry.strip() for entry in text.split(",")]
    if len(fields) not in (2, 3) or not all(entry.isdigit() for entry in fields[:2]):
        raise click.BadParameter(f"{text!r} is not VISIT,DETECTOR[,HOW].", param_hint="--break")
    values: dict[str, Any] = {"visit": int(fields[0]), "detector": int(fields[1])}
    if len(fields) == 3:
        values["how"] = fields[2]
    return values
