"""Small shards that claim far more than they hold. Every checksum in them is right."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.block

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "formats"), str(_ROOT / "tests" / "format")]

from reference_encoder import DEFAULTS, ShardEncoder, fingerprint  # noqa: E402

LZ4 = {"incompatible_features": 1}
WEIGHTS = {"value_kind": 1, "weight_dtype": 1}
RECORD = [[(7, 50)]]
LARGEST_BLOCK = {"block_log2": 16}


def shard(
    content: bytes | None = None,
    *,
    header: dict[str, Any] | None = None,
    block: dict[str, Any] | None = None,
    sequences: dict[str, Any] | None = None,
    index: Callable[[list[int]], object] | None = None,
    footer: dict[str, int] | None = None,
    positions: int = 1,
) -> bytes:
    """A shard of one block and one sequence; every part can be made to lie."""
    encoder = ShardEncoder({}, **(header or {}))
    if content is None:
        encoder.block(RECORD, [3], **(block or {}))
    else:
        encoder.blocks.append((len(encoder.out), 0))
        encoder.frame("BLCK", content, **{"num_items": positions, "num_entries": 1} | (block or {}))
        encoder.positions, encoder.entries = positions, 1
    encoder.sequences([(5, fingerprint([3] * min(positions, 4)), positions)], **(sequences or {}))
    encoder.commit()
    encoder.index(index)
    return encoder.footer(**(footer or {}))


def header_and_footer(middle: int, **footer: int) -> bytes:
    """A header, `middle` zero bytes and a footer."""
    encoder = ShardEncoder(None)
    encoder.out += bytes(middle)
    encoder.frames.append(("INDX", 128, len(encoder.out)))
    return encoder.footer(**footer)


def zeros(length: int) -> dict[str, Any]:
    """A frame whose LZ4 block holds `length` zero bytes."""
    packed = lz4.block.compress(bytes(length), store_size=False)
    return {"wrap": packed, "content_length": length}


def many_blocks(count: int, store_tokens: int) -> bytes:
    """One sequence over blocks of a few bytes that claim 65,536 positions and 2^22 entries each."""
    encoder = ShardEncoder({}, store_tokens=store_tokens, **LARGEST_BLOCK)
    for _ in range(count):
        encoder.blocks.append((len(encoder.out), encoder.positions))
        # Room for the directory, and one byte of records.
        encoder.frame("BLCK", bytes(4 + 2 * 1023 + 1), num_items=65536, num_entries=2**22)
        encoder.positions += 65536
        encoder.entries += 2**22
    encoder.sequences([(5, 1, encoder.positions)])
    encoder.commit()
    return encoder.finish()


def set_words(**places: int) -> Callable[[list[int]], object]:
    """Changes the counts at the start of INDX."""
    names = ("num_blocks", "num_sequence_frames", "num_sequences")

    def edit(words: list[int]) -> None:
        for name, value in places.items():
            words[names.index(name)] = value

    return edit


def _set(place: int, value: int) -> Callable[[list[int]], object]:
    return lambda words: words.__setitem__(place, value)


TOKEN = bytes([3, 0])  # of a vocabulary of 49,152: 16 bits

# name → (the shard, the field that its refusal names)
SHARDS: dict[str, tuple[bytes, str]] = {
    "200 bytes that claim 2^60 positions": (header_and_footer(8, num_positions=2**60), "footer"),
    "224 bytes that claim 2^60 positions": (
        header_and_footer(32, num_positions=2**60),
        "num_positions",
    ),
    "2^60 positions": (shard(footer={"num_positions": 2**60}), "num_positions"),
    "2^60 sequences": (shard(footer={"num_sequences": 2**60}), "num_sequences"),
    "2^60 entries": (shard(footer={"num_entries": 2**60}), "num_entries"),
    "2^64 - 1 entries": (shard(footer={"num_entries": 2**64 - 1}), "num_entries"),
    "more entries than 65,535 a position": (shard(footer={"num_entries": 65536}), "num_entries"),
    "65,535 entries in one position": (shard(footer={"num_entries": 65535}), "num_entries"),
    "2^35 + 8 bytes": (shard(footer={"file_length": 2**35 + 8}), "file_length"),
    "2^28 sequences in the footer": (shard(footer={"num_sequences": 2**28}), "num_sequences"),
    "2^28 sequences in footer and index": (
        shard(footer={"num_sequences": 2**28}, index=set_words(num_sequences=2**28)),
        "content_length",
    ),
    # Times 8 bytes, 2^31 is 0 in 32 bits; 2^32 - 1 of everything is a small number again.
    "2^31 blocks": (shard(index=set_words(num_blocks=2**31)), "content_length"),
    "2^31 sequence frames": (shard(index=set_words(num_sequence_frames=2**31)), "content_length"),
    "2^32 - 1 of everything": (
        shard(
            index=set_words(num_blocks=2**32 - 1, num_sequence_frames=2**32 - 1),
        ),
        "content_length",
    ),
    "a frame offset near 2^35": (shard(index=_set(4, 2**32 - 1)), "block_offsets"),
    "a block of 2^32 - 1 positions": (
        shard(
            footer={"num_positions": 2**32 - 1, "num_entries": 1},
            index=lambda words: words.__setitem__(-1, 2**32 - 1),
        ),
        "block_starts",
    ),
    "65,536 positions in 5 bytes": (
        shard(bytes(5), header=LARGEST_BLOCK, positions=65536),
        "content_length",
    ),
    "65,536 positions in a byte of records": (
        shard(bytes(4 + 2 * 1023 + 1), header=LARGEST_BLOCK | {"store_tokens": 0}, positions=65536),
        "directory|records|counts",
    ),
    "a payload of 2^30 bytes": (
        shard(block={"payload_length": 2**30, "content_length": 2**30}),
        "content_length",
    ),
    "a payload of 2^26 bytes": (
        shard(block={"payload_length": 2**26, "content_length": 2**26}),
        "payload_length",
    ),
    "2^32 - 1 entries in a block": (shard(block={"num_entries": 2**32 - 1}), "num_entries"),
    "2^22 + 1 entries in a block": (
        shard(bytes(5), header=LARGEST_BLOCK, positions=65536, block={"num_entries": 2**22 + 1}),
        "num_entries",
    ),
    "2^32 - 1 sequences in a frame": (shard(sequences={"num_items": 2**32 - 1}), "num_items"),
    "LZ4: 2^30 bytes in 20": (
        shard(header=LZ4, block={"wrap": bytes(20), "content_length": 2**30}),
        "content_length",
    ),
    "LZ4: 256 times its payload": (
        shard(header=LZ4, block={"wrap": bytes(20), "content_length": 256 * 21}),
        "content_length",
    ),
    "LZ4: the largest block, all zero": (
        shard(b"", header=LZ4 | LARGEST_BLOCK, positions=65536, block=zeros(2**26)),
        "records|counts|directory",
    ),
    "LZ4: a block of 2^26 + 1 bytes": (
        shard(b"", header=LZ4 | LARGEST_BLOCK, block=zeros(2**26 + 1)),
        "content_length",
    ),
    "LZ4: 2^20 sequences in 80 KB": (
        shard(header=LZ4, sequences=zeros(20 * 2**20) | {"num_items": 2**20}),
        "content_length",
    ),
    "a directory that points to 2^32 - 1": (
        shard(
            bytes([0, 2, 0, 0]) + struct.pack("<I", 2**32 - 1) + bytes(65 * 2 + 3),
            header={"block_log2": 7},
            positions=65,
        ),
        "directory",
    ),
    "65,535 entries in 3 bytes of weights": (
        # Gamma code of 65,535 (15 zeros, a one, 15 ones), which is 31 bits: 4 bytes to be exact.
        shard(
            bytes([0, 0, 0, 0]) + TOKEN + (0x7FFF << 16 | 1 << 15).to_bytes(4, "little"),
            header=WEIGHTS,
            block={"num_entries": 65535},
            footer={"num_entries": 65535},
        ),
        "entry_numbers|records",
    ),
    "2^25 positions and 2^31 entries in 1 MB": (many_blocks(512, 0), "directory|records|counts"),
    "2^25 positions with tokens in 1 MB": (many_blocks(512, 1), "content_length"),
}

assert DEFAULTS["vocab_size"] == 49152, "TOKEN has 16 bits"
