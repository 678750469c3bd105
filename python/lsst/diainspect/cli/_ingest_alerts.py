"""``diainspect ingest-alerts``: alert packets into a repository, as stamps and source tables."""

from __future__ import annotations

__all__ = ["ingest_alerts_command"]

from pathlib import Path

import click

from ._clear_errors import clear_errors


@click.command("ingest-alerts")
@click.argument("repo", type=click.Path(file_okay=False))
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--method", default="alert", show_default=True, help="First part of the datasets' names.")
@click.option(
    "--instrument",
    help="Instrument of the repository, whose visits must be known there; DiaAlerts, whose visits are made from the "
    "alerts, when omitted.",
)
@click.option(
    "--size", type=click.IntRange(min=1), default=41, show_default=True, help="Side of the stamps [pixel]."
)
@click.option(
    "--psf-size",
    type=click.IntRange(min=1),
    default=51,
    show_default=True,
    help="Side of the PSFs, odd [pixel].",
)
@click.option(
    "--exposure-time",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Exposure time to record, which alerts do not tell [s].",
)
@click.option(
    "--estimate",
    is_flag=True,
    help="Estimate noise and PSFs of alerts that have none, as those of ZTF, from their pixels.",
)
@click.option("--run", help="RUN collection to write [default: DiaAlerts/input].")
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was left out, and why, to this file (ECSV).",
)
def ingest_alerts_command(
    repo: str,
    files: tuple[Path, ...],
    method: str,
    instrument: str | None,
    size: int,
    psf_size: int,
    exposure_time: float,
    estimate: bool,
    run: str | None,
    report_file: Path | None,
) -> None:
    """Bring the alerts in FILES into the butler repository REPO, which is created when missing.

    FILES are Avro files of Rubin or ZTF, packets in Confluent wire form, tar archives, or folders of those. Alerts that
    cannot be used are left out and counted by reason.
    """
    from lsst.diainspect.alerts import ingest_alerts

    with clear_errors():
        try:
            ingest = ingest_alerts(
                repo,
                files,
                method=method,
                instrument=instrument,
                run=run,
                size=size,
                psf_size=psf_size,
                exposure_time=exposure_time,
                estimate=estimate,
                report=click.echo,
            )
        except ModuleNotFoundError as error:
            raise click.ClickException(str(error)) from error
        if report_file is not None:
            ingest.skipped.write(report_file, format="ascii.ecsv", overwrite=True)
    for row in ingest.skipped[:_MAX_SAID]:
        click.echo(f"left out: {row['packet']} record {row['record']} {row['reason']}", err=True)
    if len(ingest.skipped) > _MAX_SAID:
        click.echo(f"left out: {len(ingest.skipped) - _MAX_SAID} more (see --report)", err=True)
    click.echo(
        f"{ingest.n_alerts} alerts, {len(ingest.skipped)} left out; "
        f"{len(ingest.refs)} datasets in collection {ingest.refs[0].run} of {repo}"
    )


_MAX_SAID = 20
"""Alerts that were left out are listed up to this number."""
