"""Parquet: row groups and a footer, page checksums and a `_metadata` file on request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from records import BATCH, FILE_RECORDS, Source

from adapters.base import Adapter, Range
from adapters.file_series import Write, numbered_files, salvage_files, write_files

_SCHEMA = pa.schema([("record", pa.binary())])
_SUFFIX = ".parquet"
_METADATA = "_metadata"
_FOOTER_END = 8  # its length and the magic


class Parquet(Adapter):
    """A directory of files."""

    name = "Parquet"
    package = "pyarrow"
    settings = (
        f"defaults, row groups of {BATCH} and files of {FILE_RECORDS} records; "
        "`dataset.dataset(dir)`"
    )
    repair = "none; closed files one by one"
    appending = "none: a file is only written anew; new files beside the closed ones"
    writes = True
    checked = False

    def write(self, path: Path, source: Source) -> None:
        files = write_files(path, _SUFFIX, source, BATCH, self._open_writer)
        if self.checked:
            _write_metadata(path, files)

    def read(self, path: Path) -> Iterator[bytes]:
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=self.checked)
        file_format = ds.ParquetFileFormat(default_fragment_scan_options=options)
        if self.checked:
            dataset = ds.parquet_dataset(path / _METADATA, format=file_format)
        else:
            dataset = ds.dataset(path, format=file_format)
        for batch in dataset.to_batches():
            for value in batch.column("record"):
                yield value.as_py()

    def data_files(self, path: Path) -> list[Path]:
        return numbered_files(path, _SUFFIX)

    def index_files(self, path: Path) -> list[Path]:
        return [path / _METADATA] if self.checked else []

    def index_ranges(self, path: Path) -> list[tuple[Path, Range]]:
        if self.checked:  # its reader takes the footers from `_metadata`
            return super().index_ranges(path)
        ranges = []
        for file in self.data_files(path):
            data = file.read_bytes()
            end = len(data) - _FOOTER_END
            footer = end - int.from_bytes(data[end : end + 4], "little")
            ranges.append((file, (footer, len(data))))
        return ranges

    def units(self, file: Path) -> list[list[Range]]:
        metadata = pq.read_metadata(file)
        ranges = []
        for number in range(metadata.num_row_groups):
            column = metadata.row_group(number).column(0)
            start = column.dictionary_page_offset or column.data_page_offset
            ranges.append((start, start + column.total_compressed_size))
        return [ranges]

    def salvage(self, path: Path) -> list[bytes]:
        return salvage_files(self.data_files(path), self._read_file)

    def _read_file(self, file: Path) -> Iterator[bytes]:
        table = pq.read_table(file, page_checksum_verification=self.checked)
        for value in table["record"]:
            yield value.as_py()

    @contextlib.contextmanager
    def _open_writer(self, file: Path) -> Iterator[Write]:
        with pq.ParquetWriter(file, _SCHEMA, write_page_checksum=self.checked) as writer:
            yield lambda batch: writer.write_table(_table(batch))


class ParquetChecked(Parquet):
    """With all that Parquet has against damage."""

    name = "Parquet, checksums"
    settings = (
        "`write_page_checksum`, `page_checksum_verification`; the files listed in `_metadata`, "
        "read by `parquet_dataset`"
    )
    checked = True


def _table(values: list[bytes]) -> Any:
    return pa.table([pa.array(values, pa.binary())], schema=_SCHEMA)


def _write_metadata(path: Path, files: list[Path]) -> None:
    collected = []
    for file in files:
        metadata = pq.read_metadata(file)
        metadata.set_file_path(file.name)
        collected.append(metadata)
    pq.write_metadata(_SCHEMA, path / _METADATA, metadata_collector=collected)


ADAPTERS = [Parquet(), ParquetChecked()]
