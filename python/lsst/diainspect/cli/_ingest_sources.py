"""``diainspect ingest-sources``: DIA source tables of another pipeline into a repository."""

from __future__ import annotations

__all__ = ["ingest_sources_command"]

from pathlib import Path

import click

from ._clear_errors import clear_errors


@click.command("ingest-sources")
@click.argument("repo", type=click.Path(file_okay=False))
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--method", required=True, help="First part of the datasets' names: METHOD_dia_source.")
@click.option("--instrument", help="Instrument that took the visits; the repository's only one when omitted.")
@click.option("--visit", type=int, help="Visit of all sources, or to take of a table of many.")
@click.option("--detector", type=int, help="Detector of all sources, or to take of a table of many.")
@click.option("--band", help="Band of all sources, for a table that does not have it.")
@click.option(
    "--projection-from",
    default="visit_image",
    show_default=True,
    help="Image whose coordinate system gives x and y to a table that has only ra and dec.",
)
@click.option("--collection", "collections", multiple=True, help="Where that image is. May be repeated.")
@click.option("--run", help="RUN collection to write [default: INSTRUMENT/METHOD].")
def ingest_sources_command(
    repo: str,
    files: tuple[Path, ...],
    method: str,
    instrument: str | None,
    visit: int | None,
    detector: int | None,
    band: str | None,
    projection_from: str,
    collections: tuple[str, ...],
    run: str | None,
) -> None:
    """Write the DIA sources of FILES to the butler repository REPO, a dataset for each visit and detector.

    FILES are Parquet, an APDB in SQLite, ECSV, CSV or FITS tables, with today's or older column names. The repository
    must know the visits; sources of others are left out.
    """
    from lsst.diainspect.catalogs import ingest_sources

    with clear_errors():
        ingest = ingest_sources(
            repo,
            files,
            method=method,
            instrument=instrument,
            run=run,
            projection_from=projection_from,
            collections=collections,
            visit=visit,
            detector=detector,
            band=band,
        )
    for (unknown_visit, unknown_detector), count in ingest.unknown.items():
        click.echo(
            f"left out: {count} sources of visit {unknown_visit}, detector {unknown_detector}, which the repository "
            f"does not know",
            err=True,
        )
    click.echo(
        f"{ingest.n_sources} sources in {len(ingest.refs)} datasets {method}_dia_source in collection "
        f"{ingest.refs[0].run} of {repo}"
    )
