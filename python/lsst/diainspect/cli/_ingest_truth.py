"""``diainspect ingest-truth``: a table of what really changed into a repository."""

from __future__ import annotations

__all__ = ["ingest_truth_command"]

from pathlib import Path

import click

from ._clear_errors import clear_errors


@click.command("ingest-truth")
@click.argument("repo", type=click.Path(file_okay=False))
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--name", default="truth", show_default=True, help="Name of the dataset type.")
@click.option("--instrument", help="Instrument; the repository's only one when omitted.")
@click.option("--run", help="RUN collection to write [default: INSTRUMENT/NAME].")
@click.option(
    "--per",
    type=click.Choice(["instrument", "visit", "detector"]),
    help="One dataset for all images, one a visit or one a detector image [default: as fine as the table has columns "
    "visit and detector].",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="STANDARD=OWN",
    help="Name in the files of a standard column, such as ra=raJ2000. May be repeated.",
)
@click.option("--band", default="", help="Band, for tables with columns such as mag_r.")
def ingest_truth_command(
    repo: str,
    files: tuple[Path, ...],
    name: str,
    instrument: str | None,
    run: str | None,
    per: str | None,
    columns: tuple[str, ...],
    band: str,
) -> None:
    """Write the truth tables FILES to the butler repository REPO.

    FILES are Parquet, ECSV, CSV or FITS tables: DC2 truth, catalogues of source_injection, or any with ra and dec.
    Columns are found by the names that these use.
    """
    from ..truth import ingest_truth

    with clear_errors():
        names = {}
        for text in columns:
            standard, equals, own = text.partition("=")
            if not equals or not own:
                raise ValueError(f"--column is STANDARD=OWN, got {text!r}.")
            names[standard] = own
        ingest = ingest_truth(
            repo,
            list(files),
            name=name,
            instrument=instrument,
            run=run,
            per=per,  # type: ignore[arg-type]
            names=names,
            band=band,
        )
    if ingest.n_left_out:
        click.echo(
            f"left out: {ingest.n_left_out} objects of images that the repository does not know", err=True
        )
    dimensions = ", ".join(repr(dimension) for dimension in ingest.dimensions)
    click.echo(
        f"{ingest.n_objects} objects, {ingest.n_changes} of which change, in {len(ingest.refs)} datasets {name} in "
        f"collection {ingest.refs[0].run} of {repo}"
    )
    click.echo(
        f"to match with it: -c parameters:truthName={name}, and for each matchTruth task "
        f'-c "LABEL:truthDimensions=[{dimensions}]"'
    )
