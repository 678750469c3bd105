"""Finds alert packets in files, archives and folders: Avro containers, and the Confluent wire form of one alert.

The wire form is a zero byte, the number of the schema in four bytes (major version times 100 plus minor version) and
the Avro body without its schema, which is taken from the package lsst-alert-packet.
"""

from __future__ import annotations

__all__ = ["iterate_alerts"]

import io
import os
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from ._alert import Alert, AlertError, SkippedAlert
from ._rubin import is_rubin, parse_rubin
from ._ztf import is_ztf, parse_ztf

_AVRO_MAGIC = b"Obj\x01"
_WIRE_MAGIC = b"\x00"
_WIRE_HEADER = struct.Struct(">bI")
_ARCHIVE_MAGICS = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh")
_TAR_MAGIC, _TAR_MAGIC_OFFSET = b"ustar", 257
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
_ALERT_SUFFIX = ".avro"

_MAX_WIRE_BYTES = 64 * 2**20
"""Largest packet in wire form; real ones have some 100 kB."""

_MAX_FAILURES_A_FILE = 1000
"""After so many alerts in a row that cannot be used, the rest of the file is left."""


def iterate_alerts(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
) -> Iterator[Alert | SkippedAlert]:
    """Read alerts one after another; memory does not grow with the size of the files.

    Parameters
    ----------
    paths : path-like or iterable of path-like
        Avro files with any number of alerts, packets in wire form, tar archives (compressed or not), or folders.
        Of folders and archives the files named ``*.avro`` are read, of folders also the archives.

    Yields
    ------
    alert : `Alert` or `SkippedAlert`
        The next alert, or what is wrong with it.

    Raises
    ------
    ModuleNotFoundError
        If fastavro is not installed.
    """
    _fastavro()
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    for path in map(Path, paths):
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file() and file.name.lower().endswith((_ALERT_SUFFIX, *_ARCHIVE_SUFFIXES)):
                    yield from _read_path(file)
        else:
            yield from _read_path(path)


def _read_path(path: Path) -> Iterator[Alert | SkippedAlert]:
    name = os.fspath(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(_TAR_MAGIC_OFFSET + len(_TAR_MAGIC))
            if head.startswith(_ARCHIVE_MAGICS) or head[_TAR_MAGIC_OFFSET:] == _TAR_MAGIC:
                yield from _read_archive(path)
                return
            stream.seek(0)
            yield from _read_stream(name, stream)
    except OSError as error:
        yield SkippedAlert(name, 0, 0, f"cannot be opened ({error.strerror or error})")


def _read_archive(path: Path) -> Iterator[Alert | SkippedAlert]:
    name = os.fspath(path)
    try:
        # A stream: members come in the order of the file, nothing is unpacked to disk or looked up.
        with tarfile.open(name, mode="r|*") as archive:
            for member in archive:
                if not member.name.lower().endswith(_ALERT_SUFFIX):
                    continue
                packet = f"{name}::{member.name}"
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is None:
                    yield SkippedAlert(packet, 0, 0, "is not a plain file")
                    continue
                yield from _read_stream(packet, stream)
    except Exception as error:
        # Besides its own errors tarfile lets those of the compression through.
        yield SkippedAlert(name, 0, 0, f"cannot be read as an archive ({_describe(error)})")


def _read_stream(name: str, stream: IO[bytes]) -> Iterator[Alert | SkippedAlert]:
    head = stream.read(len(_AVRO_MAGIC))
    if head == _AVRO_MAGIC:
        yield from _read_container(name, _Prefixed(head, stream))
    elif head.startswith(_WIRE_MAGIC):
        yield _read_wire(name, head + stream.read(_MAX_WIRE_BYTES + 1))
    elif not head:
        yield SkippedAlert(name, 0, 0, "is empty")
    else:
        yield SkippedAlert(
            name, 0, 0, f"is neither an Avro file nor a packet in wire form (begins with {head!r})"
        )


class _Prefixed(io.RawIOBase):
    """A stream with the bytes in front that were read already, as members of archives cannot seek."""

    def __init__(self, prefix: bytes, stream: IO[bytes]) -> None:
        self._prefix = prefix
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        taken, self._prefix = (self._prefix, b"") if size < 0 else (self._prefix[:size], self._prefix[size:])
        return taken + self._stream.read(size if size < 0 else size - len(taken))


def _read_container(name: str, stream: Any) -> Iterator[Alert | SkippedAlert]:
    fastavro = _fastavro()
    number = n_failures = 0
    try:
        for record in fastavro.reader(stream):
            alert = _parse(name, number, record)
            number += 1
            yield alert
            n_failures = n_failures + 1 if isinstance(alert, SkippedAlert) else 0
            if n_failures == _MAX_FAILURES_A_FILE:
                yield SkippedAlert(
                    name, number, 0, f"the rest is left: {n_failures} in a row were not usable"
                )
                return
    except Exception as error:
        # fastavro raises whatever Python does on the bytes it misreads.
        yield SkippedAlert(name, number, 0, f"cannot be decoded from here on ({_describe(error)})")


def _read_wire(name: str, content: bytes) -> Alert | SkippedAlert:
    if len(content) > _MAX_WIRE_BYTES:
        return SkippedAlert(name, 0, 0, f"is larger than {_MAX_WIRE_BYTES} bytes")
    if len(content) <= _WIRE_HEADER.size:
        return SkippedAlert(name, 0, 0, f"is cut off after {len(content)} bytes")
    _, schema_id = _WIRE_HEADER.unpack_from(content)
    stream = io.BytesIO(content)
    stream.seek(_WIRE_HEADER.size)
    try:
        schema = _wire_schema(schema_id)
        record = _fastavro().schemaless_reader(stream, schema, None)
    except (AlertError, ModuleNotFoundError) as error:
        return SkippedAlert(name, 0, 0, str(error))
    except Exception as error:
        return SkippedAlert(name, 0, 0, f"cannot be decoded with schema {schema_id} ({_describe(error)})")
    if left := len(content) - stream.tell():
        return SkippedAlert(name, 0, 0, f"has {left} bytes beyond what schema {schema_id} describes")
    return _parse(name, 0, record)


def _parse(name: str, number: int, record: Any) -> Alert | SkippedAlert:
    dia_source_id = 0
    try:
        if not isinstance(record, Mapping):
            raise AlertError(f"is a {type(record).__name__}, not a record")
        dia_source_id = _identifier(record)
        if is_rubin(record):
            return parse_rubin(record, name, number)
        if is_ztf(record):
            return parse_ztf(record, name, number)
        raise AlertError(
            f"is an alert of neither Rubin nor ZTF (its fields are {', '.join(map(str, record))[:200]})"
        )
    except AlertError as error:
        return SkippedAlert(name, number, dia_source_id, str(error))
    except Exception as error:
        # One alert that nobody thought of costs only itself.
        return SkippedAlert(name, number, dia_source_id, _describe(error))


def _identifier(record: Mapping[str, Any]) -> int:
    for part, key in (("diaSource", "diaSourceId"), ("candidate", "candid")):
        inner = record.get(part)
        if isinstance(inner, Mapping) and isinstance(inner.get(key), int) and abs(inner[key]) < 2**63:
            return inner[key]
    return 0


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")[:300]


@cache
def _wire_schema(schema_id: int) -> Any:
    """Return the parsed schema of a number.

    Raises
    ------
    AlertError
        If there is no such schema.
    ModuleNotFoundError
        If lsst-alert-packet is not installed.
    """
    try:
        found = find_spec("lsst.alert.packet")
    except ModuleNotFoundError:
        found = None
    folders = list((found.submodule_search_locations if found else None) or ())
    if not folders:
        raise ModuleNotFoundError(
            "Alerts in wire form need their schemas: pip install 'lsst-diainspect[alerts]' (lsst-alert-packet)."
        )
    major, minor = divmod(schema_id, 100)
    path = Path(folders[0]) / "schema" / str(major) / str(minor) / f"lsst.v{major}_{minor}.alert.avsc"
    if not path.is_file():
        raise AlertError(f"has schema {schema_id}, but lsst-alert-packet has no version {major}.{minor}")
    return _fastavro().schema.load_schema(str(path))


def _fastavro() -> Any:
    """Import fastavro, or say how to get it.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    try:
        import fastavro
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Alerts are read with fastavro: pip install 'lsst-diainspect[alerts]'."
        ) from error
    return fastavro
