"""sparselogits: a manifest and shards of checksummed frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from records import BATCH, Record, Source, encode

import sparselogits as sl
from adapters.base import Adapter, Range

_CONFIG = sl.CacheConfig(vocab_size=49152, rounds=50, codec="packed")
_SHARD_BYTES = 90_000  # about as many sequences as the files of the others hold
_SHARD_HEADER = 128
_FRAME_HEADER = struct.Struct("<4s4xI20x")


class SparseLogits(Adapter):
    """Opened and read sequence by sequence, as a training run does."""

    name = "sparselogits"
    package = "sparselogits"
    settings = f"defaults, `flush()` every {BATCH} sequences; `sl.open`, every sequence read"
    repair = "`sl.recover`"
    appending = "`CacheWriter(resume=True)`"
    writes = True

    def write(self, path: Path, source: Source) -> None:
        with sl.CacheWriter(path, _CONFIG, shard_bytes=_SHARD_BYTES) as writer:
            _append_all(writer, source)

    def read(self, path: Path) -> Iterator[bytes]:
        cache = sl.open(path)
        for index in range(len(cache)):
            sequence = cache[index]
            yield encode(sequence.input_ids, sequence.offsets, sequence.token_ids, sequence.counts)

    def data_files(self, path: Path) -> list[Path]:
        return sorted(path.glob("*.slc"))

    def index_files(self, path: Path) -> list[Path]:
        return [path / "manifest.json"]

    def index_ranges(self, path: Path) -> list[tuple[Path, Range]]:
        ranges = super().index_ranges(path)
        for file in self.data_files(path):
            (index,) = [start for kind, start, _ in _frames(file) if kind == b"INDX"]
            ranges.append((file, (index, file.stat().st_size)))
        return ranges

    def units(self, file: Path) -> list[list[Range]]:
        return [[(start, end) for kind, start, end in _frames(file) if kind == b"BLCK"]]

    def salvage(self, path: Path) -> list[bytes]:
        sl.recover(path)
        return list(self.read(path))

    def marked_unfinished(self, path: Path) -> bool:
        return not sl.open(path).complete

    def version(self) -> str:
        return sl.__version__

    def resume(self, path: Path, source: Source) -> None:
        with sl.CacheWriter(path, _CONFIG, resume=True, shard_bytes=_SHARD_BYTES) as writer:
            _append_all(writer, source.starting_at(writer.num_sequences))


class Verified(SparseLogits):
    """The deep check before anything is read."""

    name = "sparselogits, `verify`"
    settings = "the same, after `Cache.verify()`"
    writes = False

    def read(self, path: Path) -> Iterator[bytes]:
        sl.open(path).verify()
        yield from super().read(path)


def _append_all(writer: sl.CacheWriter, source: Source) -> None:
    for record in source:
        _append(writer, record)
        if writer.num_sequences % BATCH == 0:
            writer.flush()
            source.progress.commit(writer.num_sequences)


def _append(writer: sl.CacheWriter, record: Record) -> None:
    writer.append(record.tokens, record.offsets, record.token_ids, record.counts)


def _frames(file: Path) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each frame of a finished shard."""
    data = file.read_bytes()
    start, kind = _SHARD_HEADER, b""
    while kind != b"INDX":
        kind, payload = _FRAME_HEADER.unpack_from(data, start)
        end = start + _FRAME_HEADER.size + (payload + 7) // 8 * 8
        yield kind, start, end
        start = end


ADAPTERS = [SparseLogits(), Verified()]
