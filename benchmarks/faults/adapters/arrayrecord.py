"""ArrayRecord: Riegeli files of checksummed chunks, each with an index at its end."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from records import FILE_RECORDS, Source

from adapters.base import Adapter, Range
from adapters.file_series import Write, numbered_files, salvage_files, write_files

_SUFFIX = ".array_record"
_BLOCK = 1 << 16
_BLOCK_HEADER = 24
_CHUNK_HEADER = struct.Struct("<8xQ8xc15x")  # data size, type
_RECORDS_CHUNK = b"r"


class ArrayRecord(Adapter):
    """One record a chunk, as Grain wants them."""

    name = "ArrayRecord"
    package = "array-record"
    settings = f"`group_size:1`, {FILE_RECORDS} records a file; `ArrayRecordDataSource(files)`"
    repair = "none; closed files one by one"
    appending = "none: a file is only written anew; new files beside the closed ones"
    writes = True

    def write(self, path: Path, source: Source) -> None:
        write_files(path, _SUFFIX, source, 1, _writer)

    def read(self, path: Path) -> Iterator[bytes]:
        yield from _read(self.data_files(path))

    def data_files(self, path: Path) -> list[Path]:
        return numbered_files(path, _SUFFIX)

    def index_ranges(self, path: Path) -> list[tuple[Path, Range]]:
        return [
            (file, chunk)
            for file in self.data_files(path)
            for chunk in _chunks(file)[FILE_RECORDS:]
        ]

    def units(self, file: Path) -> list[list[Range]]:
        # A chunk that runs over a block's header cannot be moved as it is.
        blocks: dict[int, list[Range]] = {}
        for start, end in _chunks(file)[:FILE_RECORDS]:
            if start // _BLOCK == (end - 1) // _BLOCK:
                blocks.setdefault(start // _BLOCK, []).append((start, end))
        return list(blocks.values())

    def salvage(self, path: Path) -> list[bytes]:
        return salvage_files(self.data_files(path), lambda file: _read([file]))


@contextlib.contextmanager
def _writer(file: Path) -> Iterator[Write]:
    # ArrayRecordWriter is no context manager: its documents call `close` at the end.
    writer = ArrayRecordWriter(str(file), "group_size:1")

    def write(batch: list[bytes]) -> None:
        for data in batch:
            writer.write(data)

    yield write
    writer.close()


def _read(files: list[Path]) -> Iterator[bytes]:
    dataset = ArrayRecordDataSource([str(file) for file in files])
    for index in range(len(dataset)):
        yield dataset[index]


def _chunks(file: Path) -> list[Range]:
    """The chunks that are not padding: one for each record, then those of the index."""
    data = file.read_bytes()
    stream = b"".join(
        data[block + _BLOCK_HEADER : block + _BLOCK] for block in range(0, len(data), _BLOCK)
    )

    def in_file(position: int) -> int:
        return position + _BLOCK_HEADER * (position // (_BLOCK - _BLOCK_HEADER) + 1)

    chunks: list[Range] = []
    position = 0
    while position + _CHUNK_HEADER.size <= len(stream):
        size, kind = _CHUNK_HEADER.unpack_from(stream, position)
        end = position + _CHUNK_HEADER.size + size
        if kind == _RECORDS_CHUNK:
            chunks.append((in_file(position), in_file(end - 1) + 1))
        position = end
    return chunks


ADAPTERS = [ArrayRecord()]
