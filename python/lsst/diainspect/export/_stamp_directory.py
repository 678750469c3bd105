"""A directory of stamps that an interrupted run can go on with, and that never mixes two kinds of stamps.

Every file is written under a temporary name and then renamed, so that a file with its final name is whole. A record
for each detector says of which datasets its stamps were cut and, written last, that all are there. What is written
depends on the stamps alone, so that a run that was killed and taken up again leaves the same bytes as one that was not.
"""

from __future__ import annotations

__all__ = ["FORMATS", "ExportRecord", "StampDirectory", "folder_name"]

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from lsst.utils.logging import PeriodicLogger, getLogger

from ..masks import words_masked_by
from ..plots import DetectorLabel
from ..stamps import StampSet
from ._detector_fits import write_detector_fits
from ._hdf5 import write_hdf5
from ._png import triplet_pixels
from ._source_fits import iterate_source_fits

_LOG = getLogger(__name__)

_LOG_INTERVAL = 10.0
"""Time between messages about the files of one detector [s]."""

FORMATS: Mapping[str, str] = {
    "fits": "one FITS file a source",
    "detector-fits": "one FITS file a detector",
    "png": "one picture a source",
    "hdf5": "one HDF5 file a detector",
    "alerts": "one Avro file of alert packets a detector",
}
"""Formats that can be written."""

_SUFFIXES = {"fits": "fits", "detector-fits": "fits", "png": "png", "hdf5": "h5", "alerts": "avro"}
_BY_SOURCE = frozenset({"fits", "png"})
_RECORDS = ".diainspect"
_SETTINGS = "settings.json"


def folder_name(label: DetectorLabel) -> str:
    """Return the name of the folder, or file, of a detector's stamps: ``00000042-r-007``."""
    return f"{label.visit:08d}-{label.band}-{label.detector:03d}"


@dataclass(frozen=True)
class ExportRecord:
    """What was written of one detector.

    Parameters
    ----------
    inputs : `dict` [`str`, `str`]
        Identifiers of the datasets that the stamps were cut from, by connection.
    complete : `bool`
        Whether all files are there.
    ids : `list` [`int`]
        diaSourceId of the stamps.
    n_edge : `int`
        How many of them reach beyond an edge.
    """

    inputs: dict[str, str]
    complete: bool
    ids: list[int]
    n_edge: int


class StampDirectory:
    """A directory to write stamps to, new or of an earlier run.

    Parameters
    ----------
    root : `pathlib.Path`
        The directory, made when missing.
    settings : mapping [`str`, `typing.Any`]
        Everything on which the stamps depend besides the datasets, as JSON can hold it; with ``format`` of `FORMATS`
        and ``method``.

    Raises
    ------
    ValueError
        If the directory was made with other settings, or holds something else.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        if settings["format"] not in FORMATS:
            raise ValueError(f"Unknown format {settings['format']!r}; known are {', '.join(FORMATS)}.")
        self.root = Path(root)
        self._format: str = settings["format"]
        self._method: str = settings["method"]
        records = self.root / _RECORDS
        path = records / _SETTINGS
        # Tuples are lists in JSON.
        wanted = json.loads(json.dumps(dict(settings)))
        # A run that failed before its first stamp leaves nothing that other settings could mix with.
        if path.exists() and len(list(records.glob("*.json"))) > 1:
            _refuse_other_settings(self.root, _read_json(path), wanted)
        elif self.root.exists() and any(entry.name != _RECORDS for entry in self.root.iterdir()):
            raise ValueError(f"{self.root} is not empty and not a directory of stamps: name another.")
        else:
            records.mkdir(parents=True, exist_ok=True)
            _write_json(path, wanted)

    def completed(self, label: DetectorLabel, inputs: Mapping[str, str]) -> ExportRecord | None:
        """Return the record of a detector whose stamps are all there, or None.

        Parameters
        ----------
        label : `lsst.diainspect.plots.DetectorLabel`
            Detector.
        inputs : mapping [`str`, `str`]
            Identifiers of the datasets as they are now.

        Raises
        ------
        ValueError
            If the stamps there were cut from other datasets.
        """
        path = self._record_path(label)
        if not path.exists():
            return None
        record = ExportRecord(**_read_json(path))
        changed = sorted(
            name for name in {*record.inputs, *inputs} if record.inputs.get(name) != inputs.get(name)
        )
        if changed:
            raise ValueError(
                f"The stamps of {label} in {self.root} were cut from another dataset ({', '.join(changed)}) than the "
                f"collection has now: write to another directory, or remove {self._place(label)} and {path}."
            )
        there = all(file.exists() for file in self._files(label, record.ids))
        return record if record.complete and there else None

    def write(self, label: DetectorLabel, stamps: StampSet, inputs: Mapping[str, str]) -> ExportRecord:
        """Write the stamps of a detector; files that are there already are left as they are.

        Parameters
        ----------
        label : `lsst.diainspect.plots.DetectorLabel`
            Detector.
        stamps : `StampSet`
            Its stamps.
        inputs : mapping [`str`, `str`]
            Identifiers of the datasets that they were cut from.
        """
        record = ExportRecord(
            inputs=dict(sorted(inputs.items())),
            complete=False,
            ids=[int(identifier) for identifier in stamps.sources["diaSourceId"]],
            n_edge=_number_at_edge(stamps),
        )
        _write_json(self._record_path(label), asdict(record))
        if self._format in _BY_SOURCE:
            self._write_by_source(label, stamps)
        else:
            path = self._place(label)
            if not path.exists():
                with _whole(path) as partial:
                    self._write_detector(label, stamps, partial)
        record = ExportRecord(record.inputs, True, record.ids, record.n_edge)
        _write_json(self._record_path(label), asdict(record))
        return record

    def _write_by_source(self, label: DetectorLabel, stamps: StampSet) -> None:
        folder = self._place(label)
        folder.mkdir(exist_ok=True)
        paths = self._files(label, stamps.sources["diaSourceId"].tolist())
        missing = np.array([row for row, path in enumerate(paths) if not path.exists()], dtype=int)
        periodic = PeriodicLogger(_LOG, _LOG_INTERVAL)
        for n_written, save in enumerate(self._savers(label, stamps[missing])):
            with _whole(paths[missing[n_written]]) as partial:
                save(partial)
            periodic.log("%s: wrote %d of %d files.", label, n_written + 1, len(missing))

    def _savers(self, label: DetectorLabel, stamps: StampSet) -> Iterator[Callable[[Path], None]]:
        """Yield for each source what writes its file."""
        if self._format == "fits":
            for _, file in iterate_source_fits(stamps, label, self._method):
                yield lambda path, file=file: file.writeto(path, overwrite=True)  # type: ignore[misc]
        else:
            for row in range(len(stamps)):
                yield lambda path, row=row: matplotlib.image.imsave(  # type: ignore[misc]
                    path, triplet_pixels(stamps, row), format="png"
                )

    def _write_detector(self, label: DetectorLabel, stamps: StampSet, path: Path) -> None:
        if self._format == "detector-fits":
            write_detector_fits(stamps, path, label, self._method)
        elif self._format == "hdf5":
            write_hdf5(stamps, path, label, self._method)
        else:
            from ..alerts import write_alerts

            write_alerts(stamps, path, visit=label.visit, detector=label.detector, band=label.band)

    def _place(self, label: DetectorLabel) -> Path:
        """Return the folder of a detector's files, or its file."""
        suffix = "" if self._format in _BY_SOURCE else f".{_SUFFIXES[self._format]}"
        return self.root / (folder_name(label) + suffix)

    def _files(self, label: DetectorLabel, ids: list[int]) -> list[Path]:
        place = self._place(label)
        if self._format not in _BY_SOURCE:
            return [place]
        return [place / f"{identifier}.{_SUFFIXES[self._format]}" for identifier in ids]

    def _record_path(self, label: DetectorLabel) -> Path:
        return self.root / _RECORDS / f"{folder_name(label)}.json"


def _number_at_edge(stamps: StampSet) -> int:
    """Return how many stamps reach beyond an edge; those of alerts say so in their mask only."""
    if "stamp_flag_edge" in stamps.sources.colnames:
        return int(np.asarray(stamps.sources["stamp_flag_edge"]).sum())
    if "mask" in stamps.planes:
        return int(words_masked_by(stamps.planes["mask"], ["OFF_IMAGE"]).any(axis=(1, 2)).sum())
    return 0


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file, which takes the final name if nothing goes wrong."""
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with _whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): remove it, or write to another directory."
        ) from error


def _refuse_other_settings(root: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [
        f"{name}: {_brief(there.get(name))} there, {_brief(wanted.get(name))} now"
        for name in sorted({*there, *wanted})
        if there.get(name) != wanted.get(name)
    ]
    if different:
        raise ValueError(
            f"{root} holds stamps of other settings ({'; '.join(different)}): write to another directory."
        )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
