"""``diainspect plot``: the figures of a collection as files."""

from __future__ import annotations

__all__ = ["plot_command"]

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._clear_errors import clear_errors

if TYPE_CHECKING:
    from lsst.daf.butler import Butler, DataCoordinate, DatasetRef

    from ..plots import DetectorLabel, SurveyLabel, VisitLabel

_DIFFERENCE = "_difference_image"
_OWN_METHODS = ("al", "zogy")
_FORMATS = ("png", "pdf", "svg")


@click.command("plot")
@click.argument("repo")
@click.argument("collection")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory for the files; made when missing.",
)
@click.option("--instrument", help="Instrument, where the collection has several.")
@click.option("--visit", type=int, multiple=True, help="Visit; all when omitted. May be given several times.")
@click.option(
    "--detector", type=int, multiple=True, help="Detector; all when omitted. May be given several times."
)
@click.option(
    "--format", "file_format", type=click.Choice(_FORMATS), default="png", show_default=True, help="Format."
)
@click.option(
    "--plot",
    "wanted",
    multiple=True,
    help="Figure, by the name of its dataset type such as plot_detector or plot_focal_plane_visit; all when "
    "omitted. May be given several times.",
)
@click.option(
    "--methods", help="Methods in the order to show, with commas; all of the collection when omitted."
)
@click.option(
    "--science-name", default="visit_image", show_default=True, help="Dataset type of science images."
)
@click.option(
    "--template-name", default="template_detector", show_default=True, help="Dataset type of templates."
)
@click.option(
    "--template-as",
    type=click.Choice(["image", "components"]),
    default="image",
    show_default=True,
    help="How templates are read; components for those without a detector.",
)
def plot_command(
    repo: str,
    collection: str,
    out: Path,
    instrument: str | None,
    visit: tuple[int, ...],
    detector: tuple[int, ...],
    file_format: str,
    wanted: tuple[str, ...],
    methods: str | None,
    science_name: str,
    template_name: str,
    template_as: str,
) -> None:
    """Draw the figures of COLLECTION in REPO, of each detector, visit and of the survey, and write them to files.

    They are those that the pipeline writes as datasets, drawn anew from the images and tables. So they can be had
    in other formats, and of collections in which there are none.
    """
    from lsst.daf.butler import Butler

    with clear_errors(), Butler.from_config(repo, collections=collection, writeable=False) as butler:
        names = _methods(butler, collection, methods)
        tasks = _make_tasks(butler, names, wanted, science_name, template_name, template_as)
        data_ids = _data_ids(butler, names, instrument, visit, detector)
        if not data_ids:
            raise click.ClickException(
                f"Collection {collection} of {repo} has no difference images of {', '.join(names)} for this "
                f"instrument, visit and detector."
            )
        out.mkdir(parents=True, exist_ok=True)
        n_files = 0
        for task in tasks:
            for data_id in _reduce(data_ids, task):
                for name, figure in _figures(butler, task, data_id, wanted):
                    path = out / f"{_label(data_id).file_stem}_{name}.{file_format}"
                    figure.savefig(path)
                    click.echo(path)
                    n_files += 1
    click.echo(f"{n_files} figures of {len(data_ids)} detector images in {out}")


def _methods(butler: Butler, collection: str, methods: str | None) -> list[str]:
    """Return the methods that were asked for, or that made differences in the collection."""
    if methods is not None:
        return [method.strip() for method in methods.split(",") if method.strip()]
    found: set[str] = set()
    for name in butler.collections.query(collection, flatten_chains=True):
        types = butler.collections.get_info(name, include_summary=True).dataset_types or ()
        found |= {each.removesuffix(_DIFFERENCE) for each in types if each.endswith(_DIFFERENCE)}
    if not found:
        raise click.ClickException(
            f"Collection {collection} has no dataset type that ends in {_DIFFERENCE}: run the pipeline first."
        )
    return [*(method for method in _OWN_METHODS if method in found), *sorted(found - set(_OWN_METHODS))]


def _make_tasks(
    butler: Butler,
    methods: Sequence[str],
    wanted: Sequence[str],
    science_name: str,
    template_name: str,
    template_as: str,
) -> list[Any]:
    """Configure the tasks that make the figures, all or those that are wanted."""
    from ..tasks import (
        PlotDetectorTask,
        PlotImageStatisticsTask,
        PlotRegistrationTask,
        PlotSkyNoiseTask,
        PlotSourcesTask,
        PlotSurveyTask,
        PlotVisitTask,
    )

    tasks: list[Any] = []
    known: set[str] = set()
    for task_class in (
        PlotDetectorTask,
        PlotSkyNoiseTask,
        PlotImageStatisticsTask,
        PlotSourcesTask,
        PlotRegistrationTask,
        PlotVisitTask,
        PlotSurveyTask,
    ):
        config = task_class.ConfigClass()
        config.methods = list(methods)
        if "hasTruth" in config.toDict():
            config.hasTruth = _has_dataset(butler, "truth_summary")
        if "templateAs" in config.toDict():
            config.templateAs = template_as
            config.connections.templateName = template_name
        if "scienceName" in config.connections.toDict():
            config.connections.scienceName = science_name
        config.validate()
        connections = config.ConnectionsClass(config=config)
        made = {getattr(connections, name).name for name in connections.outputs}
        known |= made
        if not wanted or made & set(wanted):
            tasks.append(task_class(config=config))
    unknown = set(wanted) - known
    if unknown:
        raise click.ClickException(f"Unknown figures {sorted(unknown)}; known are {sorted(known)}.")
    return tasks


def _data_ids(
    butler: Butler,
    methods: Sequence[str],
    instrument: str | None,
    visits: Sequence[int],
    detectors: Sequence[int],
) -> list[DataCoordinate]:
    """Return the detector images of which any method made a difference."""
    found: set[DataCoordinate] = set()
    for method in methods:
        refs = butler.query_datasets(
            f"{method}{_DIFFERENCE}", explain=False, limit=None, with_dimension_records=True
        )
        found |= {ref.dataId for ref in refs}
    return sorted(
        (
            data_id
            for data_id in found
            if (instrument is None or data_id["instrument"] == instrument)
            and (not visits or data_id["visit"] in visits)
            and (not detectors or data_id["detector"] in detectors)
        ),
        key=lambda data_id: (data_id["instrument"], data_id["visit"], data_id["detector"]),
    )


def _reduce(data_ids: Sequence[DataCoordinate], task: Any) -> list[DataCoordinate]:
    """Return the data IDs of a task's quanta that belong to detector images, each once."""
    wanted = set(task.config.ConnectionsClass(config=task.config).dimensions)
    if "detector" in wanted:
        return list(data_ids)
    return list(
        dict.fromkeys(
            data_id.subset(["visit"] if "visit" in wanted else ["instrument"]) for data_id in data_ids
        )
    )


def _figures(
    butler: Butler, task: Any, data_id: DataCoordinate, wanted: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """Yield dataset type name and figure; a task without anything to draw yields nothing and says why."""
    from lsst.pipe.base import NoWorkFound

    connections = task.config.ConnectionsClass(config=task.config)
    inputs: dict[str, Any] = {}
    label = _label(data_id)
    for name in connections.inputs:
        connection = getattr(connections, name)
        parent = connection.name.split(".")[0]
        if connection.multiple:
            refs = _query(butler, connection.name, data_id)
            inputs[name] = [butler.getDeferred(ref) for ref in refs]
            continue
        if not _exists(butler, parent, data_id):
            if connection.minimum == 0:
                continue
            click.echo(f"No {parent} for {label}: left out what needs it.", err=True)
            return
        handle = butler.getDeferred(connection.name, data_id, storageClass=connection.storageClass)
        inputs[name] = handle if connection.deferLoad else handle.get()
    try:
        figures = task.make_figures(inputs, label)
    except NoWorkFound as error:
        click.echo(str(error), err=True)
        return
    for name in sorted(connections.outputs):
        dataset_type = getattr(connections, name).name
        if not wanted or dataset_type in wanted:
            yield dataset_type, getattr(figures, name)


def _exists(butler: Butler, name: str, data_id: DataCoordinate) -> bool:
    from lsst.daf.butler import MissingDatasetTypeError

    try:
        return butler.find_dataset(name, data_id) is not None
    except MissingDatasetTypeError:
        return False


def _has_dataset(butler: Butler, name: str) -> bool:
    return bool(_query(butler, name, None))


def _query(butler: Butler, name: str, data_id: DataCoordinate | None) -> list[DatasetRef]:
    """Return the datasets of a type, of one data ID or all; none where the type is not known."""
    from lsst.daf.butler import MissingDatasetTypeError

    where: dict[str, Any] = {} if data_id is None else {"data_id": data_id}
    try:
        return butler.query_datasets(name, explain=False, limit=None, **where)
    except MissingDatasetTypeError:
        return []


def _label(data_id: DataCoordinate) -> DetectorLabel | VisitLabel | SurveyLabel:
    """Return what the title of a figure says."""
    from ..plots import DetectorLabel, SurveyLabel, VisitLabel

    if "detector" in data_id:
        return DetectorLabel.from_data_id(data_id)
    return VisitLabel.from_data_id(data_id) if "visit" in data_id else SurveyLabel.from_data_id(data_id)
