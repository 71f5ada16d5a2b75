"""Arrow IPC: messages of record batches, in a file with a footer or in a stream without one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from records import BATCH, FILE_RECORDS, Source

from adapters.base import Adapter, Range
from adapters.file_series import Write, numbered_files, salvage_files, write_files

_SCHEMA = pa.schema([("record", pa.binary())])
_MAGIC = b"ARROW1"
_FILE_START = 8  # the magic, padded; then the messages of a stream
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class ArrowFile(Adapter):
    """Random access by a footer."""

    name = "Arrow file"
    package = "pyarrow"
    settings = (
        f"defaults, batches of {BATCH} and files of {FILE_RECORDS} records; "
        "`ipc.open_file(memory_map(…))`"
    )
    repair = "none; closed files one by one"
    appending = "none: a file is only written anew; new files beside the closed ones"
    suffix = ".arrow"
    validate = False

    def write(self, path: Path, source: Source) -> None:
        write_files(path, self.suffix, source, BATCH, _file_writer)

    def read(self, path: Path) -> Iterator[bytes]:
        for file in self.data_files(path):
            yield from self._read_file(file)

    def data_files(self, path: Path) -> list[Path]:
        return numbered_files(path, self.suffix)

    def index_ranges(self, path: Path) -> list[tuple[Path, Range]]:
        ranges = []
        for file in self.data_files(path):
            data = file.read_bytes()
            end = len(data) - len(_MAGIC) - 4
            footer = end - int.from_bytes(data[end : end + 4], "little")
            ranges.append((file, (footer, len(data))))
        return ranges

    def units(self, file: Path) -> list[list[Range]]:
        return [_messages(file, _FILE_START)[1:]]

    def salvage(self, path: Path) -> list[bytes]:
        return salvage_files(self.data_files(path), self._read_file)

    def _read_file(self, file: Path) -> Iterator[bytes]:
        with pa.memory_map(str(file)) as memory, pa.ipc.open_file(memory) as reader:
            for number in range(reader.num_record_batches):
                yield from self._values(reader.get_batch(number))

    def _values(self, batch: Any) -> Iterator[bytes]:
        if self.validate:
            batch.validate(full=True)
        for value in batch.column("record"):
            yield value.as_py()


class ArrowFileValidated(ArrowFile):
    """There are no checksums; `validate` checks offsets and lengths."""

    name = "Arrow file, validated"
    settings = "the same, each batch after `validate(full=True)`"
    validate = True
    writes = True


class ArrowStream(ArrowFile):
    """Sequential."""

    name = "Arrow stream"
    settings = (
        f"defaults, batches of {BATCH} and files of {FILE_RECORDS} records; "
        "`ipc.open_stream(memory_map(…))`"
    )
    repair = "none; batch by batch until an error"
    suffix = ".arrows"

    def write(self, path: Path, source: Source) -> None:
        write_files(path, self.suffix, source, BATCH, _stream_writer, batch_is_committed=True)

    def index_ranges(self, path: Path) -> list[tuple[Path, Range]]:
        ranges = []
        for file in self.data_files(path):
            ranges.append((file, _messages(file, 0)[0]))
        return ranges

    def units(self, file: Path) -> list[list[Range]]:
        return [_messages(file, 0)[1:]]

    def salvage(self, path: Path) -> list[bytes]:
        found: list[bytes] = []
        for file in self.data_files(path):
            with contextlib.suppress(pa.ArrowException, OSError):
                found.extend(self._read_file(file))
        return found

    def _read_file(self, file: Path) -> Iterator[bytes]:
        with pa.memory_map(str(file)) as memory, pa.ipc.open_stream(memory) as reader:
            for batch in reader:
                yield from self._values(batch)


class ArrowStreamValidated(ArrowStream):
    """There are no checksums; `validate` checks offsets and lengths."""

    name = "Arrow stream, validated"
    settings = "the same, each batch after `validate(full=True)`"
    validate = True
    writes = True


@contextlib.contextmanager
def _file_writer(file: Path) -> Iterator[Write]:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        yield lambda batch: writer.write_batch(_batch(batch))


@contextlib.contextmanager
def _stream_writer(file: Path) -> Iterator[Write]:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        yield lambda batch: writer.write_batch(_batch(batch))


def _batch(values: list[bytes]) -> Any:
    return pa.record_batch([pa.array(values, pa.binary())], schema=_SCHEMA)


def _messages(file: Path, start: int) -> list[Range]:
    """Where the schema and the batches of a file are."""
    data = file.read_bytes()
    reader = pa.BufferReader(data)
    reader.seek(start)
    found: list[Range] = []
    while data[start : start + len(_END_OF_STREAM)] != _END_OF_STREAM:
        pa.ipc.read_message(reader)
        found.append((start, reader.tell()))
        start = reader.tell()
    return found


ADAPTERS = [ArrowFile(), ArrowFileValidated(), ArrowStream(), ArrowStreamValidated()]
