"""The blocks of shards as they lie in the files, for what LZ4 does to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lz4.block

_HEADER, _FOOTER, _FRAME = 128, 64, 32  # bytes; formats/v1.md, sections 3 and 4


@dataclass(frozen=True)
class Block:
    """A BLCK frame: its content after unwrapping, and the bytes of its payload in the file."""

    content: bytes
    stored: int
    positions: int
    is_wrapped: bool


def blocks(cache: Path) -> Iterator[Block]:
    """Every block of a finished cache."""
    for file in sorted(cache.glob("*.slc")):
        data = file.read_bytes()
        at = _HEADER
        while at < len(data) - _FOOTER:
            stored = _u32(data, at + 8)
            if data[at : at + 4] == b"BLCK":
                is_wrapped = data[at + 5] == 1
                content = data[at + _FRAME : at + _FRAME + stored]
                if is_wrapped:
                    content = lz4.block.decompress(content, uncompressed_size=_u32(data, at + 12))
                yield Block(content, stored, _u32(data, at + 16), is_wrapped)
            at += _FRAME + (stored + 7) // 8 * 8


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
