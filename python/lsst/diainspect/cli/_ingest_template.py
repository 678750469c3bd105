"""``diainspect ingest-template``: another visit of a repository as template of a visit."""

from __future__ import annotations

__all__ = ["ingest_template_command"]

import click

from ._clear_errors import clear_errors


@click.command("ingest-template")
@click.argument("repo", type=click.Path(file_okay=False, exists=True))
@click.option("--visit", type=int, required=True, help="Visit whose template to write.")
@click.option("--detector", type=int, default=0, show_default=True, help="Its detector.")
@click.option("--from-visit", type=int, required=True, help="Visit that becomes the template.")
@click.option("--from-detector", type=int, help="Detector of that visit; the same number when omitted.")
@click.option("--instrument", default="DiaFits", show_default=True, help="Instrument of both.")
@click.option(
    "--input", "collections", multiple=True, help="Collection of the images; {instrument}/input when omitted."
)
@click.option("--science-name", default="visit_image", show_default=True, help="Dataset type of the images.")
@click.option("--run", help="RUN collection to write; {instrument}/templates when omitted.")
def ingest_template_command(
    repo: str,
    visit: int,
    detector: int,
    from_visit: int,
    from_detector: int | None,
    instrument: str,
    collections: tuple[str, ...],
    science_name: str,
    run: str | None,
) -> None:
    """Write the image of another visit in REPO as the template of a visit, warped to its pixel grid where needed.

    In a pipeline run give the written collection first: -i DiaFits/templates,DiaFits/input.
    """
    from lsst.diainspect.ingest import ingest_visit_as_template

    with clear_errors():
        refs = ingest_visit_as_template(
            repo,
            visit=visit,
            detector=detector,
            from_visit=from_visit,
            from_detector=from_detector,
            instrument=instrument,
            collections=list(collections) if collections else f"{instrument}/input",
            science_name=science_name,
            run=run,
        )
    click.echo(f"{len(refs)} datasets in collection {refs[0].run} of {repo}")
