"""`sequence_table`: what is known of every sequence of a remote cache, without its records.

A shard's header, index and SEQS frames are asked for by their ranges and put in their places in a
file that has holes elsewhere. The core reads that like any shard: what the frames hold is checked
by their checksums, what a shard is by its row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.errors import FormatError
from sparselogits.manifest import Manifest, ShardRow
from sparselogits.remote.fetch_shard import MAX_FETCHES
from sparselogits.remote.local_store import LocalStore
from sparselogits.remote.new_file import NewFile
from sparselogits.remote.remote_files import RemoteFiles
from sparselogits.sequence_table import SequenceTable
from sparselogits.shard_set import shard_reader

# The index of most shards is in it: 8 bytes a block, 4 a sequence.
_TAIL_BYTES = 1 << 16
_HEADER_BYTES: int = _core.format_constants()["header_length"]
_FOOTER_BYTES: int = _core.format_constants()["footer_length"]
_FILE = "sequences"
_CHECKSUM_BYTES = 4
_COLUMNS = 3  # sequence_id, length, fingerprint; uint64

Columns = npt.NDArray[np.uint64]


def sequence_table(
    files: RemoteFiles,
    manifest: Manifest,
    models: list[_core.CodecModel],
    store: LocalStore,
    num_fetchers: int,
) -> SequenceTable:
    """Fetches it: at least three requests a shard. It is kept in `store`, for all processes.

    Args:
        files: Where the cache lies.
        manifest: Of the cache.
        models: Of the cache.
        store: Has its local folder.
        num_fetchers: Shards asked for at a time.

    Raises:
        FormatError: A shard's structure is damaged.
        CacheIOError: It cannot be fetched.
    """
    path = store.folder(manifest.digest) / _FILE
    columns = _kept(path, sum(row.sequences for row in manifest.shards))
    if columns is None:
        with ThreadPoolExecutor(num_fetchers, "sparselogits-index") as pool:
            try:
                parts = list(
                    pool.map(lambda row: _of_shard(files, manifest, models, row), manifest.shards)
                )
            finally:
                pool.shutdown(cancel_futures=True)
        columns = np.concatenate([np.empty((_COLUMNS, 0), np.uint64), *parts], axis=1)
        _keep(columns, path, store.new_file(manifest.digest, _FILE, _size(columns)))
    ids, lengths, fingerprints = columns
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:], dtype=np.int64)
    return SequenceTable(ids, starts, fingerprints)


def _of_shard(
    files: RemoteFiles, manifest: Manifest, models: list[_core.CodecModel], row: ShardRow
) -> Columns:
    # Parts of a shard have no digest in the manifest. What says that they are damaged may be the
    # network: as with whole shards, it is asked again before it is believed.
    for _ in range(MAX_FETCHES - 1):
        try:
            return _fetched(files, manifest, models, row)
        except FormatError:
            continue
    return _fetched(files, manifest, models, row)


def _fetched(
    files: RemoteFiles, manifest: Manifest, models: list[_core.CodecModel], row: ShardRow
) -> Columns:
    url = files.location.file_url(row.file)
    with _outline(row) as (descriptor, path):

        def fetch(start: int, stop: int) -> bytes:
            data = files.read(row.file, start, stop)
            os.pwrite(descriptor, data, start)
            return data

        try:
            header = fetch(0, min(_HEADER_BYTES, row.bytes))
            tail_start = max(0, row.bytes - _TAIL_BYTES)
            footer = fetch(tail_start, row.bytes)[-_FOOTER_BYTES:]
            index_start = _core.index_offset(path, header, footer)
            if index_start < tail_start:
                fetch(index_start, tail_start)
            for start, stop in _core.sequence_frames(path, models):
                fetch(start, stop)
            reader = shard_reader([path], _only(manifest, row), True, models)
            ids, starts, fingerprints = reader.sequence_table()
        except FormatError as error:
            raise type(error)(error.message, url, error.offset, error.field) from error
    return np.stack([ids, np.diff(starts).astype(np.uint64), fingerprints])


@contextmanager
def _outline(row: ShardRow) -> Iterator[tuple[int, str]]:
    # In memory: only pages that are written to are there, and nothing is left behind.
    descriptor = os.memfd_create("sparselogits-outline")
    try:
        os.ftruncate(descriptor, row.bytes)
        yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _only(manifest: Manifest, row: ShardRow) -> Manifest:
    fields: dict[str, Any] = {"config": manifest.config, "metadata": {}, "shards": (row,)}
    return Manifest(**fields)


def _kept(path: Path, num_sequences: int) -> Columns | None:
    """What an earlier call has kept, if it is whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content, stated = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(content) != 8 * _COLUMNS * num_sequences or _checksum(content) != stated:
        return None
    return np.frombuffer(content, "<u8").astype(np.uint64).reshape(_COLUMNS, num_sequences)


def _keep(columns: Columns, path: Path, file: NewFile) -> None:
    content = columns.astype("<u8").tobytes()
    try:
        file.write(content, 0)
        file.write(_checksum(content), len(content))
        file.publish(path)
    finally:
        file.discard()


def _size(columns: Columns) -> int:
    return 8 * columns.size + _CHECKSUM_BYTES


def _checksum(content: bytes) -> bytes:
    return _core.crc32c(content).to_bytes(_CHECKSUM_BYTES, "little")
