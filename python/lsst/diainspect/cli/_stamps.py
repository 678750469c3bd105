"""``diainspect stamps``: the stamps of a collection's sources as files."""

from __future__ import annotations

__all__ = ["stamps_command"]

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._clear_errors import clear_errors

if TYPE_CHECKING:
    from astropy.table import Table
    from lsst.daf.butler import Butler, DataCoordinate, DatasetRef

    from ..export import StampDirectory
    from ..tasks import CutStampsTask

_SOURCES = "_dia_source"
_FIRST_METHOD = "al"
_FORMATS = ("fits", "detector-fits", "png", "hdf5", "alerts")
_BY_DEFAULT = ("science", "template", "difference", "differenceVariance", "mask")
_FOR_ALERTS = (*_BY_DEFAULT, "scienceVariance", "templateVariance")
_PSFS = ("sciencePsf", "templatePsf", "differencePsf")


@click.command("stamps")
@click.option("-b", "--butler-config", "repo", required=True, help="Repository.")
@click.option("-i", "--input", "collection", required=True, help="Collection with sources and images.")
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory for the files: new, or that of an earlier run with the same options, which goes on.",
)
@click.option(
    "-s",
    "--size",
    type=click.IntRange(min=1),
    default=51,
    show_default=True,
    help="Side of the stamps, odd or even [pixel].",
)
@click.option(
    "-d",
    "--data-query",
    "query",
    default="",
    help='Detectors to take, such as "visit=1 AND detector IN (0,1)".',
)
@click.option("--instrument", help="Instrument, where the collection has several.")
@click.option("--method", help="Method whose sources are cut; al where the collection has it.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(_FORMATS),
    default="fits",
    show_default=True,
    help="One FITS or PNG file a source, or one FITS, HDF5 or Avro file (alert packets) a detector.",
)
@click.option(
    "--plane",
    "planes",
    multiple=True,
    help="Plane: science, template, templateMatched, difference, score, mask, scienceVariance, templateVariance, "
    "differenceVariance, and of another method such as zogy_difference. May be repeated; images, differences of all "
    "methods, variance and mask when omitted.",
)
@click.option("--psf/--no-psf", default=True, show_default=True, help="PSFs of the three images too.")
@click.option("--where", default="", help='Condition on columns of the sources: "snr > 10 and isDipole".')
@click.option("--ids", help="Sources by diaSourceId, with commas; or a file of them, one a line or a table.")
@click.option(
    "--fraction",
    type=click.FloatRange(min=0.0, max=1.0, min_open=True),
    default=1.0,
    show_default=True,
    help="Fraction of the sources, chosen at random by their identifiers.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of that choice.")
@click.option(
    "--positions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Table with ra and dec [deg] to cut at in place of the sources; with diaSourceId or not.",
)
@click.option(
    "--regenerate",
    is_flag=True,
    help="Make the difference of the images again, where it was not kept (doWriteRegeneration).",
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
@click.option("-q", "--quiet", is_flag=True, help="Say only how it ended.")
def stamps_command(
    repo: str,
    collection: str,
    out: Path,
    size: int,
    query: str,
    instrument: str | None,
    method: str | None,
    file_format: str,
    planes: tuple[str, ...],
    psf: bool,
    where: str,
    ids: str | None,
    fraction: float,
    seed: int,
    positions: Path | None,
    regenerate: bool,
    science_name: str,
    template_name: str,
    template_as: str,
    quiet: bool,
) -> None:
    """Cut the stamps of a collection's sources and write them to files.

    A stamp goes to OUT/VISIT-BAND-DETECTOR/diaSourceId.fits. A run that was interrupted is taken up by the same command
    and leaves the same files as one that was not. Stamps that reach beyond an edge are padded with NaN and flagged.
    """
    from lsst.daf.butler import Butler

    from ..export import StampDirectory

    if not quiet:
        logging.getLogger("lsst.diainspect.export").setLevel(logging.INFO)
    with clear_errors(), Butler.from_config(repo, collections=collection, writeable=False) as butler:
        own, others = _methods(butler, collection, method)
        wanted_ids = None if ids is None else _read_ids(ids)
        table = None if positions is None else _read_table(positions)
        task = _make_task(
            own,
            stampSize=size,
            planes=list(planes or _default_planes(file_format, others, regenerate)),
            models=list(_PSFS) if psf else [],
            where=where,
            ids=wanted_ids or [],
            fraction=fraction,
            seed=seed,
            sourcesFrom="detections" if table is None else "positions",
            differenceFrom="filters" if regenerate else "image",
            templateAs=template_as,
            names={"scienceName": science_name, "templateName": template_name},
        )
        data_ids = _data_ids(butler, own, instrument, query)
        directory = StampDirectory(
            out,
            {
                "collection": collection,
                "instrument": data_ids[0]["instrument"],
                "format": file_format,
                "method": own,
                "size": size,
                "planes": list(task.config.planes),
                "models": list(task.config.models),
                "where": where,
                "ids": None if wanted_ids is None else _digest(wanted_ids),
                "fraction": fraction,
                "seed": seed,
                "positions": None if table is None else _digest(_listed(table)),
                "regenerate": regenerate,
            },
        )
        try:
            found, n_edge = _write_all(butler, task, directory, data_ids, table, quiet)
        except ModuleNotFoundError as error:
            raise click.ClickException(str(error)) from error
    n_stamps = len(found)
    if wanted_ids is not None:
        _say_missing("ids", wanted_ids, found)
    if table is not None:
        _say_missing("positions", _identifiers(table), found)
    click.echo(
        f"{n_stamps} stamps of {len(data_ids)} detector images in {out}; {n_edge} of them reach beyond an edge"
    )


def _write_all(
    butler: Butler,
    task: CutStampsTask,
    directory: StampDirectory,
    data_ids: Sequence[DataCoordinate],
    positions: Table | None,
    quiet: bool,
) -> tuple[list[int], int]:
    """Write the stamps of every detector; return their identifiers and the number of those at an edge."""
    from ..plots import DetectorLabel

    found: list[int] = []
    n_edge = 0
    for number, data_id in enumerate(data_ids, start=1):
        label = DetectorLabel.from_data_id(data_id)
        refs = _find_inputs(butler, task, data_id)
        identifiers = {name: str(ref.id) for name, ref in refs.items()}
        record = directory.completed(label, identifiers)
        done = "there already"
        if record is None:
            inputs = {name: _read(butler, task, name, refs[name]) for name in refs}
            if positions is not None:
                inputs["positions"] = positions
            record = directory.write(label, task.cut(inputs), identifiers)
            done = "written"
        found += record.ids
        n_edge += record.n_edge
        if not quiet:
            click.echo(
                f"[{number}/{len(data_ids)}] {label}: {len(record.ids)} stamps {done}, {record.n_edge} at an edge"
            )
    return found, n_edge


def _make_task(method: str, names: Mapping[str, str], **fields: Any) -> CutStampsTask:
    from ..tasks import CutStampsTask

    config = CutStampsTask.ConfigClass()
    config.connections.method = method
    for name, value in names.items():
        setattr(config.connections, name, value)
    for name, value in fields.items():
        setattr(config, name, value)
    config.validate()
    return CutStampsTask(config=config)


def _methods(butler: Butler, collection: str, method: str | None) -> tuple[str, list[str]]:
    """Return the method whose sources are cut, and the others whose differences there are."""
    types: set[str] = set()
    for name in butler.collections.query(collection, flatten_chains=True):
        types |= set(butler.collections.get_info(name, include_summary=True).dataset_types or ())
    with_sources = sorted(each.removesuffix(_SOURCES) for each in types if each.endswith(_SOURCES))
    if method is None:
        if not with_sources:
            raise click.ClickException(
                f"Collection {collection} has no dataset type that ends in {_SOURCES}: run the pipeline first."
            )
        method = _FIRST_METHOD if _FIRST_METHOD in with_sources else with_sources[0]
    elif method not in with_sources:
        raise click.ClickException(
            f"Collection {collection} has no sources of {method}; it has those of {', '.join(with_sources) or 'none'}."
        )
    return method, [each for each in with_sources if each != method and f"{each}_difference_image" in types]


def _default_planes(file_format: str, others: Sequence[str], regenerate: bool) -> list[str]:
    if file_format == "alerts":
        return list(_FOR_ALERTS)
    # Where differences are made again, those of other methods are not there either.
    return [*_BY_DEFAULT, *(f"{other}_difference" for other in others if not regenerate)]


def _data_ids(butler: Butler, method: str, instrument: str | None, query: str) -> list[DataCoordinate]:
    given = {} if instrument is None else {"instrument": instrument}
    refs = butler.query_datasets(
        f"{method}{_SOURCES}",
        where=query,
        explain=False,
        limit=None,
        with_dimension_records=True,
        **(given or _only_instrument(butler)),
    )
    if not refs:
        raise click.ClickException(
            f"There are no datasets {method}{_SOURCES} for this instrument and query ({query or 'none'})."
        )
    return sorted((ref.dataId for ref in refs), key=lambda each: (each["visit"], each["detector"]))


def _only_instrument(butler: Butler) -> dict[str, str]:
    names = [record.name for record in butler.query_dimension_records("instrument", explain=False)]
    if len(names) != 1:
        raise click.ClickException(
            f"The repository has the instruments {', '.join(names) or 'none'}: choose one with --instrument."
        )
    return {"instrument": names[0]}


def _find_inputs(butler: Butler, task: CutStampsTask, data_id: DataCoordinate) -> dict[str, DatasetRef]:
    """Return the datasets that the task reads, by connection."""
    from lsst.daf.butler import MissingDatasetTypeError

    connections = task.config.ConnectionsClass(config=task.config)
    found = {}
    for name in sorted(connections.inputs):
        connection = getattr(connections, name)
        if name == "positions":
            continue
        parent = connection.name.split(".")[0]
        try:
            ref = butler.find_dataset(parent, data_id)
        except MissingDatasetTypeError:
            ref = None
        if ref is not None:
            found[name] = ref
        elif connection.minimum > 0:
            raise click.ClickException(
                f"There is no {parent} for visit {data_id['visit']}, detector {data_id['detector']}, which "
                f"the planes {', '.join(task.config.planes)} need."
            )
    return found


def _read(butler: Butler, task: CutStampsTask, name: str, ref: DatasetRef) -> Any:
    connection = getattr(task.config.ConnectionsClass(config=task.config), name)
    _, _, component = connection.name.partition(".")
    if component:
        ref = ref.makeComponentRef(component)
    handle = butler.getDeferred(ref, storageClass=connection.storageClass)
    return handle if connection.deferLoad else handle.get()


def _read_table(path: Path) -> Table:
    from astropy.table import Table

    try:
        return Table.read(path)
    except Exception as error:
        # astropy raises errors of many kinds on files that it cannot read.
        raise click.ClickException(f"{path} cannot be read as a table: {error}") from error


def _read_ids(text: str) -> list[int]:
    """Return identifiers that are given with commas, one a line of a file, or in a table."""
    path = Path(text)
    if path.is_file():
        lines = path.read_bytes()
        try:
            words = lines.decode("ascii").replace(",", " ").split()
            return [int(word) for word in words]
        except ValueError:
            table = _read_table(path)
        if "diaSourceId" not in table.colnames:
            raise click.ClickException(
                f"{path} has no column diaSourceId; it has {', '.join(table.colnames)}."
            )
        return [int(identifier) for identifier in table["diaSourceId"]]
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise click.ClickException(
            f"{text!r} is neither a file nor a list of numbers with commas."
        ) from error


def _identifiers(positions: Table) -> list[int]:
    if "diaSourceId" in positions.colnames:
        return [int(identifier) for identifier in positions["diaSourceId"]]
    return list(range(1, len(positions) + 1))


def _listed(positions: Table) -> list[Any]:
    return [[name, [str(value) for value in positions[name]]] for name in positions.colnames]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _say_missing(what: str, wanted: Sequence[int], found: Sequence[int]) -> None:
    missing = sorted(set(wanted) - set(found))
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        click.echo(
            f"{len(missing)} of {len(set(wanted))} {what} are on none of the images: {shown}", err=True
        )
