"""``diainspect compare``: what changed between the sources of two pipelines or methods."""

from __future__ import annotations

__all__ = ["compare_command"]

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._clear_errors import clear_errors

if TYPE_CHECKING:
    from astropy.table import Table


@click.command("compare")
@click.argument("first")
@click.argument("second")
@click.option(
    "-b", "--repo", help="Repository in which FIRST and SECOND are methods; they are files when omitted."
)
@click.option("-i", "--collection", help="Collection of the repository, or several with commas.")
@click.option(
    "--names", help="Names of the two in the report, with a comma [default: before,after for files]."
)
@click.option("--instrument", help="Instrument, where the collection has several.")
@click.option("--visit", type=int, help="Visit; all when omitted.")
@click.option("--detector", type=int, help="Detector; all when omitted.")
@click.option(
    "--radius",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Largest distance of a source's positions in the two [pixel].",
)
@click.option(
    "--brightest",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Number of the most significant sources to list that only one has.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File for the report; printed if omitted."
)
@click.option(
    "--table",
    "table_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the joined sources (.ecsv or .parquet).",
)
def compare_command(
    first: str,
    second: str,
    repo: str | None,
    collection: str | None,
    names: str | None,
    instrument: str | None,
    visit: int | None,
    detector: int | None,
    radius: float,
    brightest: int,
    out: Path | None,
    table_file: Path | None,
) -> None:
    """Say what changed between the DIA sources FIRST and SECOND of the same images.

    They are two tables (Parquet, an APDB in SQLite, ECSV, CSV or FITS, of any age), or, with --repo, two methods of a
    collection, such as al and zogy or what "diainspect ingest-sources" has written. The report counts sources by
    image, and says what is common, what only one has, and how flags, S/N, fluxes, positions and places differ.
    """
    from ..comparison import compare_runs, join_runs, render_run_comparison

    if (repo is None) != (collection is None):
        raise click.UsageError("--repo and --collection go together.")
    with clear_errors():
        labels = _labels(names, ("before", "after") if repo is None else (first, second))
        if repo is not None and collection is not None:
            tables = _from_repository(repo, collection, (first, second), instrument, visit, detector)
        else:
            tables = [_from_file(path, visit, detector) for path in (first, second)]
        joined = join_runs(dict(zip(labels, tables, strict=True)), radius)
        comparison = compare_runs(joined, *labels, radius)
        text = render_run_comparison(comparison, n_brightest=brightest)
        if table_file is not None:
            comparison.joined.write(table_file, overwrite=True)
        if out is not None:
            out.write_text(text)
    if out is None:
        click.echo(text)
    else:
        click.echo(f"{out}: {len(comparison.joined)} sources of {len(comparison.images)} images compared")


def _labels(names: str | None, default: tuple[str, str]) -> tuple[str, str]:
    labels = list(default) if names is None else [name.strip() for name in names.split(",")]
    if len(labels) != 2 or labels[0] == labels[1] or not all(name.isidentifier() for name in labels):
        raise ValueError(f"Two different names of letters, digits and underscores are needed, got {labels}.")
    return labels[0], labels[1]


def _from_file(path: str, visit: int | None, detector: int | None) -> Table:
    from ..catalogs import read_dia_sources

    return read_dia_sources(path, visit=visit, detector=detector)


def _from_repository(
    repo: str,
    collection: str,
    methods: tuple[str, str],
    instrument: str | None,
    visit: int | None,
    detector: int | None,
) -> list[Table]:
    """Read the sources of two methods, of the images of which either has some; with their flags of diagnostics."""
    from astropy.table import join
    from lsst.daf.butler import Butler, MissingDatasetTypeError

    from ..catalogs import read_dia_sources, stack_tables

    wanted = {"instrument": instrument, "visit": visit, "detector": detector}
    tables = []
    with Butler.from_config(repo, collections=collection.split(","), writeable=False) as butler:
        for method in methods:
            try:
                refs = butler.query_datasets(f"{method}_dia_source", explain=False, limit=None)
            except MissingDatasetTypeError:
                refs = []
            parts = []
            for ref in sorted(refs, key=lambda ref: tuple(ref.dataId.required_values)):
                if any(value is not None and ref.dataId[name] != value for name, value in wanted.items()):
                    continue
                data_id = dict(ref.dataId.required)
                sources = read_dia_sources(
                    ref, butler=butler, visit=int(data_id["visit"]), detector=int(data_id["detector"])
                )
                diagnostics = _find(butler, f"{method}_dia_diagnostics", data_id)
                if diagnostics is not None:
                    new = [name for name in diagnostics.colnames if name not in sources.colnames]
                    sources = join(
                        sources, diagnostics[["diaSourceId", *new]], keys="diaSourceId", join_type="left"
                    )
                parts.append(sources)
            if not parts:
                raise ValueError(
                    f"Collection {collection} of {repo} has no {method}_dia_source for this instrument, visit and "
                    f"detector."
                )
            tables.append(stack_tables(parts))
    return tables


def _find(butler: object, name: str, data_id: dict[str, object]) -> Table | None:
    from lsst.daf.butler import MissingDatasetTypeError

    try:
        found = butler.find_dataset(name, data_id)  # type: ignore[attr-defined]
    except MissingDatasetTypeError:
        return None
    return None if found is None else butler.get(found)  # type: ignore[attr-defined]
