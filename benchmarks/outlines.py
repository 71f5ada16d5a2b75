"""Writes a cache whose shards have everything but records: those are holes in the files.

Header, index, SEQS and CMIT frames, footer and manifest are as a writer leaves them, so such a
cache opens, and its table of sequences can be read, at the size of a real one.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / "formats"), str(_ROOT / "tests" / "format")]

from reference_decoder import FOOTER, FOOTER_MAGIC, FRAME, HEADER  # noqa: E402
from reference_encoder import DEFAULTS, pack  # noqa: E402

from sparselogits import CacheConfig, _core  # noqa: E402
from sparselogits.manifest import Manifest, ShardRow  # noqa: E402

BLOCK_LOG2 = 9
ENTRIES_PER_POSITION = 12


@dataclass(frozen=True)
class Shape:
    """How large the cache is.

    Attributes:
        shards: Their number.
        sequences: Of each shard.
        length: Of each sequence, positions.
        bytes_per_position: Of the records: the size of the holes.
    """

    shards: int
    sequences: int
    length: int
    bytes_per_position: int

    @property
    def positions(self) -> int:
        """Of each shard."""
        return self.sequences * self.length


def write_outlines(directory: Path, shape: Shape) -> None:
    """Makes the cache in a new directory."""
    directory.mkdir(parents=True)
    rows = tuple(_write_shard(directory, number, shape) for number in range(shape.shards))
    config = CacheConfig(
        vocab_size=DEFAULTS["vocab_size"], rounds=DEFAULTS["rounds"], codec="packed"
    )
    Manifest(config, {"teacher": "none"}, rows, complete=True).write(directory)


class _Shard:
    """The parts of a file, each in its place."""

    def __init__(self, descriptor: int, uuid: bytes) -> None:
        self._descriptor = descriptor
        self._uuid = uuid
        header = pack(HEADER, {**DEFAULTS, "shard_uuid": uuid, "block_log2": BLOCK_LOG2})[:124]
        self.put(0, header + _crc(header))

    def put(self, offset: int, data: bytes) -> int:
        """Writes bytes; returns their end."""
        os.pwrite(self._descriptor, data, offset)
        return offset + len(data)

    def frame(self, offset: int, kind: bytes, content: bytes, num_items: int = 0) -> int:
        """Writes a frame; returns its end."""
        payload = content + bytes(-len(content) % 8)
        fields: dict[str, Any] = {
            "type": kind,
            "payload_length": len(content),
            "content_length": len(content),
            "num_items": num_items,
        }
        head = pack(FRAME, fields)[:24] + _crc(payload)
        return self.put(offset, head + _crc(self._uuid + _u64(offset) + head) + payload)

    def footer(self, offset: int, **fields: int) -> int:
        """Writes the footer; returns the length of the file."""
        length = offset + FOOTER[-1][1] + FOOTER[-1][2]
        raw = pack(FOOTER, {"magic": FOOTER_MAGIC, "file_length": length, **fields})[:60]
        return self.put(offset, raw + _crc(self._uuid + raw))


def _write_shard(directory: Path, number: int, shape: Shape) -> ShardRow:
    name, uuid = f"shard-{number:06d}.slc", (number + 1).to_bytes(16, "big")
    blocks = -(-shape.positions >> BLOCK_LOG2)
    block_bytes = (shape.bytes_per_position << BLOCK_LOG2) // 8 * 8
    descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        shard = _Shard(descriptor, uuid)
        first_block = shard.frame(HEADER[-1][1] + 4, b"META", b"{}")
        sequence_frame = first_block + blocks * block_bytes
        ids = range(number * shape.sequences, (number + 1) * shape.sequences)
        table = struct.pack(
            f"<{2 * len(ids)}Q{len(ids)}I",
            *ids,
            *(identity * 0x9E3779B97F4A7C15 % 2**64 for identity in ids),
            *[shape.length] * len(ids),
        )
        totals = (shape.positions, len(ids), ENTRIES_PER_POSITION * shape.positions)
        commit = shard.frame(sequence_frame, b"SEQS", table, len(ids))
        index = shard.frame(commit, b"CMIT", struct.pack("<QQQII", *totals, 0, 0))
        words = [
            *(blocks, 1, len(ids), 0),
            *((first_block + i * block_bytes) // 8 for i in range(blocks)),
            *(i << BLOCK_LOG2 for i in range(blocks)),
            *(sequence_frame // 8, 0),
            *(i * shape.length for i in range(len(ids) + 1)),
        ]
        end = shard.frame(index, b"INDX", struct.pack(f"<{len(words)}I", *words))
        names = ("num_positions", "num_sequences", "num_entries")
        length = shard.footer(end, index_offset=index, **dict(zip(names, totals, strict=True)))
    finally:
        os.close(descriptor)
    # Nobody reads the records, so nobody asks what the digest is of.
    return ShardRow(name, uuid.hex(), length, len(ids), *(totals[0], totals[2]), "0" * 64)


def _crc(data: bytes) -> bytes:
    return _core.crc32c(data).to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
