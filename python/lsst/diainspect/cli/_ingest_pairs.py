"""``diainspect ingest-pairs``: many science images and templates from FITS files into a repository."""

from __future__ import annotations

__all__ = ["ingest_pairs_command"]

import click

from ._clear_errors import clear_errors


@click.command("ingest-pairs")
@click.argument("repo", type=click.Path(file_okay=False))
@click.argument("table", type=click.Path(dir_okay=False))
@click.option("--run", default="DiaFits/input", show_default=True, help="RUN collection to write.")
def ingest_pairs_command(repo: str, table: str, run: str) -> None:
    """Bring the pairs of TABLE (CSV, ECSV or YAML) into the butler repository REPO.

    One row is one pair; the columns are science, template and the options of ingest-pair with underscores
    (science_psf, zero_point, ...). File names are with respect to the table. A row without a visit takes its number.
    A pair that fails does not stop the others; the exit status is 1 if any failed.
    """
    from lsst.diainspect.ingest import ingest_pairs, read_pair_table

    with clear_errors():
        rows = read_pair_table(table)
        failures = []
        for outcome in ingest_pairs(repo, rows, run=run):
            place = f"[{outcome.row}/{len(rows)}] {outcome.science}"
            if outcome.succeeded:
                click.echo(
                    f"{place}: visit {outcome.visit} detector {outcome.detector}, {outcome.n_datasets} datasets"
                )
            else:
                click.echo(f"{place}: FAILED: {outcome.error}")
                failures.append(outcome)
    click.echo(f"{len(rows) - len(failures)} of {len(rows)} pairs in collection {run} of {repo}")
    if failures:
        raise click.ClickException(
            f"{len(failures)} of {len(rows)} pairs failed: rows {', '.join(str(f.row) for f in failures)}."
        )
