"""A tiny encoder of the v1 format, the reference decoder's counterpart: standard library only.

It checks nothing, so that tests and golden files can hold what no honest writer writes: every field
can be overridden before the checksums are computed, and records are written as they are given.
Written from formats/v1.md alone, so that the C++ writer and reader are tested against other code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from reference_algorithms import crc32c, xxh64
from reference_conventions import WEIGHT_BITS, bits
from reference_decoder import (
    FOOTER,
    FOOTER_MAGIC,
    FRAME,
    HAS_EMPTY,
    HEADER,
    MAGIC,
    STRETCH,
    WIDE_DIRECTORY,
)

Record = Sequence[tuple[int, float]]
UUID = bytes(range(0x10, 0x20))
DEFAULTS: dict[str, Any] = {
    "magic": MAGIC, "version_major": 1, "version_minor": 0, "header_length": 128,
    "incompatible_features": 0, "compatible_features": 0, "shard_uuid": UUID,
    "vocab_size": 49152, "rounds": 50, "value_kind": 0, "weight_dtype": 0, "codec": 0,
    "block_log2": 6, "store_tokens": 1, "sampler": b"multinomial", "temperature": 1.0,
    "proposal_temperature": 1.0, "tokenizer_fingerprint": 0, "model_digest": 0,
}  # fmt: skip


def pack(fields: list[tuple[str, int, int]], values: Mapping[str, Any]) -> bytes:
    """Fixed fields in their places; what `values` does not name is zero."""
    out = bytearray(fields[-1][1] + fields[-1][2])
    for name, offset, size in fields:
        value = values.get(name, 0)
        if isinstance(value, float):
            value = struct.pack("<d", value)
        data = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        out[offset : offset + size] = data.ljust(size, b"\0")
    return bytes(out)


class BitWriter:
    """Bits, least significant first."""

    def __init__(self) -> None:
        self.value, self.length = 0, 0

    def put(self, value: int, width: int) -> None:
        """A field of `width` bits; of a value that is too large, its low bits."""
        self.value |= (value & ((1 << width) - 1)) << self.length
        self.length += width

    def gamma(self, x: int) -> None:
        """An Elias gamma code."""
        zeros = bits(x) - 1
        self.put(1 << zeros, zeros + 1)
        self.put(x & ((1 << zeros) - 1), zeros)

    def to_bytes(self) -> bytes:
        """The string, padded with zero bits."""
        return self.value.to_bytes(-(-self.length // 8), "little")


def weight_pattern(weight: float, dtype: int) -> int:
    """The bits of a weight; a bfloat16 keeps the upper half of the float32."""
    if dtype == 2:
        return int.from_bytes(struct.pack("<e", weight), "little")
    pattern = int.from_bytes(struct.pack("<f", weight), "little")
    return pattern >> 16 if dtype == 3 else pattern


def put_record(out: BitWriter, record: Record, low_bits: int, header: Mapping[str, Any]) -> None:
    """Section 5.2, without the presence bit."""
    values = [value for _, value in record]
    if header["value_kind"] == 0:
        for count in values:
            out.gamma(int(count))
    else:
        out.gamma(len(record))
    high = 0
    for token_id, _ in record:
        out.put(0, (token_id >> low_bits) - high)
        out.put(1, 1)
        high = token_id >> low_bits
    for token_id, _ in record:
        out.put(token_id & ((1 << low_bits) - 1), low_bits)
    if header["value_kind"] == 1:
        dtype = header["weight_dtype"]
        for weight in values:
            out.put(weight_pattern(weight, dtype), WEIGHT_BITS.get(dtype, 32))


def best_low_bits(records: Sequence[Record]) -> int:
    """The `low_bits` that makes a block smallest."""

    def size(low: int) -> int:
        return sum(len(r) * low + (r[-1][0] >> low) for r in records if r)

    return min(range(25), key=size)


def encode_block(
    records: Sequence[Record],
    tokens: Sequence[int] | None,
    header: Mapping[str, Any],
    low_bits: int | None = None,
    wide: bool | None = None,
    has_empty: bool | None = None,
) -> bytes:
    """Section 5.1: the content of a packed block."""
    low = best_low_bits(records) if low_bits is None else low_bits
    presence = any(len(r) == 0 for r in records) if has_empty is None else has_empty
    body, directory = b"", []
    for first in range(0, len(records), STRETCH):
        directory.append(len(body))
        stretch = BitWriter()
        for record in records[first : first + STRETCH]:
            if presence:
                stretch.put(int(len(record) > 0), 1)
            if record:
                put_record(stretch, record, low, header)
        body += stretch.to_bytes()
    is_wide = directory[-1] > 0xFFFF if wide is None else wide
    flags = presence * HAS_EMPTY | is_wide * WIDE_DIRECTORY
    out = bytes([low, flags, 0, 0])
    out += b"".join(start.to_bytes(4 if is_wide else 2, "little") for start in directory[1:])
    if tokens is not None:
        fields = BitWriter()
        for token in tokens:
            fields.put(token, max(1, bits(header["vocab_size"] - 1)))
        out += fields.to_bytes()
    return out + body


def lz4_compress(data: bytes) -> bytes:
    """A greedy raw LZ4 block that keeps the end-of-block rules of the LZ4 format."""
    out = bytearray()

    def extend(length: int) -> None:
        if length >= 15:
            out.extend(b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255]))

    def put(literals: bytes, match: int, distance: int) -> None:
        out.append(min(len(literals), 15) << 4 | (min(match - 4, 15) if match else 0))
        extend(len(literals))
        out.extend(literals)
        if match:
            out.extend(distance.to_bytes(2, "little"))
            extend(match - 4)

    seen: dict[bytes, int] = {}
    at = anchor = 0
    while at + 12 < len(data):
        key = data[at : at + 4]
        found = seen.get(key)
        seen[key] = at
        if found is None or at - found > 0xFFFF:
            at += 1
            continue
        match = 4
        while at + match < len(data) - 5 and data[found + match] == data[at + match]:
            match += 1
        put(data[anchor:at], match, at - found)
        at += match
        anchor = at
    put(data[anchor:], 0, 0)
    return bytes(out)


class ShardEncoder:
    """Builds a shard frame by frame. Keyword overrides replace fields before checksums."""

    def __init__(
        self,
        metadata: Mapping[str, str] | None = None,
        edit: Callable[[bytearray], object] | None = None,
        **header: Any,
    ) -> None:
        self.header = DEFAULTS | header
        raw = bytearray(pack(HEADER, self.header))
        if edit is not None:
            edit(raw)
        crc = header.get("header_crc", crc32c(bytes(raw[:124])))
        self.out = bytearray(raw[:124] + struct.pack("<I", crc))
        self.frame_crcs = b""
        self.frames: list[tuple[str, int, int]] = []  # type, first byte, end
        self.positions = self.entries = self.chain = 0
        self.blocks: list[tuple[int, int]] = []
        self.sequence_frames: list[tuple[int, int]] = []
        self.sequence_starts = [0]
        if metadata is not None:
            text = json.dumps(dict(metadata), ensure_ascii=False).encode()
            self.frame("META", text)

    def frame(
        self,
        kind: str,
        content: bytes,
        *,
        wrap: bool | bytes = False,
        padding: bytes | None = None,
        **fields: Any,
    ) -> None:
        """Section 4: one frame. `wrap` may give the LZ4 block itself."""
        payload = wrap if isinstance(wrap, bytes) else lz4_compress(content) if wrap else content
        zeros = bytes(-len(payload) % 8) if padding is None else padding
        values = {
            "type": kind.encode(), "wrapping": int(wrap is not False),
            "payload_length": len(payload), "content_length": len(content),
            "payload_crc": crc32c(payload + zeros), **fields,
        }  # fmt: skip
        offset = len(self.out)
        head = pack(FRAME, values)[:28]
        crc = crc32c(self.header["shard_uuid"] + struct.pack("<Q", offset) + head)
        head += struct.pack("<I", fields.get("frame_crc", crc))
        self.out += head + payload + zeros
        self.frame_crcs += head[28:]
        self.frames.append((kind, offset, len(self.out)))

    def block(
        self,
        records: Sequence[Record],
        tokens: Sequence[int] | None = None,
        *,
        low_bits: int | None = None,
        wide: bool | None = None,
        has_empty: bool | None = None,
        compact: bytes | None = None,
        edit: Callable[[bytearray], object] | None = None,
        **frame: Any,
    ) -> None:
        """Section 5: a BLCK frame; `edit` changes its content in place.

        `compact` is the content of a block of that codec.
        """
        if compact is None:
            compact = encode_block(records, tokens, self.header, low_bits, wide, has_empty)
        else:
            frame = {"codec": 1} | frame
        content = bytearray(compact)
        if edit is not None:
            edit(content)
        entries = sum(map(len, records))
        self.blocks.append((len(self.out), self.positions))
        self.positions += len(records)
        self.entries += entries
        counts = {"num_items": len(records), "num_entries": entries}
        self.frame("BLCK", bytes(content), **(counts | frame))

    def sequences(self, rows: Sequence[tuple[int, int, int]], **frame: Any) -> None:
        """Section 6: a SEQS frame of (sequence_id, fingerprint, length)."""
        self.sequence_frames.append((len(self.out), len(self.sequence_starts) - 1))
        for _, _, length in rows:
            self.sequence_starts.append(self.sequence_starts[-1] + length)
        content = b"".join(
            struct.pack(f"<{len(rows)}{code}", *(row[i] for row in rows))
            for i, code in enumerate("QQI")
        )
        self.frame("SEQS", content, **({"num_items": len(rows)} | frame))

    def commit(self, content: bytes | None = None, **fields: int) -> None:
        """Section 7: a CMIT frame."""
        self.chain = crc32c(self.frame_crcs)
        values = {
            "num_positions": self.positions, "num_sequences": len(self.sequence_starts) - 1,
            "num_entries": self.entries, "chain": self.chain, "reserved": 0, **fields,
        }  # fmt: skip
        packed = struct.pack("<QQQII", *values.values())
        self.frame("CMIT", packed if content is None else content)

    def index(self, edit: Callable[[list[int]], object] | None = None, **frame: Any) -> None:
        """Section 7: the INDX frame; `edit` changes its u32s in place."""
        words = [len(self.blocks), len(self.sequence_frames), len(self.sequence_starts) - 1, 0]
        for rows in (self.blocks, self.sequence_frames):
            words += [offset // 8 for offset, _ in rows] + [first for _, first in rows]
        words += self.sequence_starts
        if edit is not None:
            edit(words)
        self.frame("INDX", struct.pack(f"<{len(words)}I", *words), **frame)

    def footer(self, **fields: Any) -> bytes:
        """Section 3.2: the footer. Returns the file."""
        values = {
            "magic": FOOTER_MAGIC, "index_offset": self.frames[-1][1],
            "file_length": len(self.out) + 64, "num_positions": self.positions,
            "num_sequences": len(self.sequence_starts) - 1, "num_entries": self.entries,
            "chain": self.chain, **fields,
        }  # fmt: skip
        raw = pack(FOOTER, values)[:60]
        crc = fields.get("footer_crc", crc32c(self.header["shard_uuid"] + raw))
        return bytes(self.out + raw + struct.pack("<I", crc))

    def finish(self) -> bytes:
        """INDX and footer. Returns the file."""
        self.index()
        return self.footer()


def fingerprint(tokens: Sequence[int]) -> int:
    """Section 6: of the input tokens of a sequence."""
    return xxh64(struct.pack(f"<{len(tokens)}I", *tokens))


def encode_shard(
    sequences: Sequence[tuple[int, Sequence[int], Sequence[Record]]],
    metadata: Mapping[str, str] | None = None,
    *,
    commit_every: int = 0,
    wrap: bool = False,
    **header: Any,
) -> bytes:
    """A shard of (sequence_id, tokens, records) sequences; a commit ends a block early.

    `commit_every` counts sequences; 0 makes one commit. `wrap` wraps all frames that may be.
    """
    features = {"incompatible_features": 1} if wrap else {}
    shard = ShardEncoder(None, **(features | header))
    shard.frame("META", json.dumps(dict(metadata or {}), ensure_ascii=False).encode(), wrap=wrap)
    size = 1 << shard.header["block_log2"]
    for group in _groups(sequences, commit_every or len(sequences) or 1):
        tokens = [token for _, ids, _ in group for token in ids]
        records = [record for _, _, rows in group for record in rows]
        for first in range(0, len(records), size):
            part = tokens[first : first + size] if shard.header["store_tokens"] else None
            shard.block(records[first : first + size], part, wrap=wrap)
        rows = [(identity, fingerprint(ids), len(records)) for identity, ids, records in group]
        if rows:
            shard.sequences(rows, wrap=wrap)
        shard.commit()
    if not sequences:
        shard.commit()
    return shard.finish()


def _groups(rows: Sequence[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while group := list(islice(iterator, size)):
        yield group
