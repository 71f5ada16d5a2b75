"""The reference decoder of sparselogits, format version 1: slow, obvious, in the order of v1.md.

Written from v1.md with the Python standard library alone. It decodes a shard or a whole cache to
plain Python data, and refuses whatever the text tells a reader to refuse. It checks everything that
can be checked: a fast reader may leave some of that to its deep verification.

Sections 2, 12 and 13 have modules of their own. A shard's model is read from the file beside it.

    python formats/reference_decoder.py SHARD_OR_CACHE      # prints the content as JSON
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from reference_algorithms import crc32c, lz4_block, xxh64
from reference_codes import BlockFormat
from reference_compact import decode_compact_block
from reference_conventions import (
    COUNTS,
    WEIGHT_BITS,
    WEIGHTS,
    Bits,
    Corruption,
    FormatError,
    Truncated,
    Unsupported,
    bits,
    is_weight,
    require,
    split,
    u,
    u32s,
    weight_of,
)
from reference_model import Model, decode_model, model_file

MAGIC = b"\x89SLC\r\n\x1a\n"
FOOTER_MAGIC = b"SLCFOOT1"
VERSION = (1, 0)
HEADER_LENGTH, FOOTER_LENGTH, FRAME_LENGTH, STRETCH = 128, 64, 32, 64
LZ4_FRAMES, CODEC_MODEL = 1, 2  # incompatible features
HAS_EMPTY, WIDE_DIRECTORY = 1, 2  # flags of a packed block
PACKED, COMPACT = 0, 1  # codecs
ALIGNMENT = "position t holds the teacher's distribution of token t+1 given tokens <= t"

# (name, offset, size), as in the tables of sections 3.1, 3.2, 4 and 7. `reserved` may repeat.
HEADER = [
    ("magic", 0, 8), ("version_major", 8, 2), ("version_minor", 10, 2), ("header_length", 12, 4),
    ("incompatible_features", 16, 4), ("compatible_features", 20, 4), ("shard_uuid", 24, 16),
    ("vocab_size", 40, 4), ("rounds", 44, 4), ("value_kind", 48, 1), ("weight_dtype", 49, 1),
    ("codec", 50, 1), ("block_log2", 51, 1), ("store_tokens", 52, 1), ("reserved", 53, 3),
    ("sampler", 56, 16), ("temperature", 72, 8), ("proposal_temperature", 80, 8),
    ("tokenizer_fingerprint", 88, 8), ("model_digest", 96, 8), ("reserved", 104, 20),
    ("header_crc", 124, 4),
]  # fmt: skip
FOOTER = [
    ("magic", 0, 8), ("index_offset", 8, 8), ("file_length", 16, 8), ("num_positions", 24, 8),
    ("num_sequences", 32, 8), ("num_entries", 40, 8), ("chain", 48, 4), ("reserved", 52, 8),
    ("footer_crc", 60, 4),
]  # fmt: skip
FRAME = [
    ("type", 0, 4), ("codec", 4, 1), ("wrapping", 5, 1), ("reserved", 6, 2),
    ("payload_length", 8, 4), ("content_length", 12, 4), ("num_items", 16, 4),
    ("num_entries", 20, 4), ("payload_crc", 24, 4), ("frame_crc", 28, 4),
]  # fmt: skip
CMIT = [
    ("num_positions", 0, 8), ("num_sequences", 8, 8), ("num_entries", 16, 8), ("chain", 24, 4),
    ("reserved", 28, 4),
]  # fmt: skip
LIMITS = {
    "vocab_size": 2**24, "rounds": 65_535, "record_entries": 65_535, "block_positions": 2**16,
    "block_entries": 2**22, "block_bytes": 2**26, "frame_sequences": 2**20,
    "shard_positions": 2**32 - 1, "shard_sequences": 2**28, "shard_entries": 2**40,
    "frame_bytes": 2**30, "shard_bytes": 2**35, "metadata_bytes": 2**20,
    "manifest_bytes": 2**26, "shards": 2**20, "manifest_depth": 16, "number_characters": 1000,
}  # fmt: skip


# --- Section 3.1: header --------------------------------------------------------------------------


def decode_header(data: bytes) -> dict[str, Any]:
    """The header's fields, with `shard_uuid` as bytes, `sampler` as text, temperatures as float."""
    n = min(len(data), 8)
    require(data[:n] == MAGIC[:n], "magic", 0, "not a sparselogits shard")
    require(len(data) >= HEADER_LENGTH, "header_length", len(data), "ends in its header", Truncated)
    major = u(data[8:10])
    require(major == VERSION[0], "version_major", 8, f"version {major} is not 1", Unsupported)
    require(u(data[124:128]) == crc32c(data[:124]), "header_crc", 124, "does not match the header")
    header, at = split(data[:HEADER_LENGTH], HEADER, 0)

    def check(ok: bool, name: str, error: type[FormatError] = Corruption) -> None:
        require(ok, name, at[name], f"{header[name]} is not allowed", error)

    check(header["header_length"] == HEADER_LENGTH, "header_length")
    unknown = header["incompatible_features"] & ~(LZ4_FRAMES | CODEC_MODEL)
    check(unknown == 0, "incompatible_features", Unsupported)
    check(1 <= header["vocab_size"] <= LIMITS["vocab_size"], "vocab_size")
    check(1 <= header["rounds"] <= LIMITS["rounds"], "rounds")
    check(header["value_kind"] in (COUNTS, WEIGHTS), "value_kind")
    dtypes = WEIGHT_BITS if header["value_kind"] == WEIGHTS else (0,)
    check(header["weight_dtype"] in dtypes, "weight_dtype")
    check(header["codec"] in (PACKED, COMPACT), "codec", Unsupported)
    check(6 <= header["block_log2"] <= 16, "block_log2")
    check(header["store_tokens"] in (0, 1), "store_tokens")
    sampler = re.fullmatch(rb"([a-z0-9_-]+)\0*", data[56:72])
    check(sampler is not None, "sampler")
    assert sampler is not None
    header["sampler"] = sampler[1].decode("ascii")
    for name, offset in (("temperature", 72), ("proposal_temperature", 80)):
        (header[name],) = struct.unpack_from("<d", data, offset)
        check(math.isfinite(header[name]) and header[name] > 0, name)
    header["shard_uuid"] = data[24:40]
    needs_model = bool(header["incompatible_features"] & CODEC_MODEL)
    check((header["model_digest"] != 0) == needs_model, "model_digest")
    return header


# --- Section 3.2: footer --------------------------------------------------------------------------


def decode_footer(data: bytes, uuid: bytes) -> dict[str, int]:
    """The footer's fields."""
    base = len(data) - FOOTER_LENGTH
    complete = base >= HEADER_LENGTH and data[base : base + 8] == FOOTER_MAGIC
    require(complete, "magic", max(base, 0), "does not end with a footer", Truncated)
    stored = data[base:]
    ok = u(stored[60:]) == crc32c(uuid + stored[:60])
    require(ok, "footer_crc", base + 60, "does not match the footer")
    footer, at = split(stored, FOOTER, base)
    ok = footer["file_length"] == len(data) <= LIMITS["shard_bytes"]
    require(ok, "file_length", at["file_length"], f"the file has {len(data)} bytes")
    most = LIMITS["record_entries"] * footer["num_positions"]
    for name, limit in (
        ("num_positions", LIMITS["shard_positions"]), ("num_sequences", LIMITS["shard_sequences"]),
        ("num_entries", min(LIMITS["shard_entries"], most)),
    ):  # fmt: skip
        require(footer[name] <= limit, name, at[name], f"{footer[name]} is above {limit}")
    return footer


# --- Section 4: frames ----------------------------------------------------------------------------


def decode_frame(data: bytes, offset: int, end: int, header: dict[str, Any]) -> dict[str, Any]:
    """The frame at `offset`, which must end at `end` or earlier.

    Its fields, and `offset`, `start` (of the payload), `end` (of the padding), `content`.
    """
    stored = data[offset : offset + FRAME_LENGTH]
    require(offset + FRAME_LENGTH <= end, "type", offset, "no room for a frame", Truncated)
    ok = u(stored[28:]) == crc32c(header["shard_uuid"] + struct.pack("<Q", offset) + stored[:28])
    require(ok, "frame_crc", offset + 28, "does not match the frame header and its place")
    frame, at = split(stored, FRAME, offset)
    frame["type"] = kind = stored[:4].decode("latin-1")

    def check(ok: bool, name: str, error: type[FormatError] = Corruption) -> None:
        require(ok, name, at[name], f"{frame[name]} is not allowed in a {kind} frame", error)

    check(kind in ("META", "BLCK", "SEQS", "CMIT", "INDX"), "type")
    if kind == "BLCK":
        check(frame["codec"] in (PACKED, COMPACT), "codec", Unsupported)
        with_model = bool(header["incompatible_features"] & CODEC_MODEL)
        check(frame["codec"] == PACKED or with_model, "codec")
        check(1 <= frame["num_items"] <= 1 << header["block_log2"], "num_items")
        most = LIMITS["record_entries"] * frame["num_items"]
        check(frame["num_entries"] <= min(LIMITS["block_entries"], most), "num_entries")
    else:
        check(frame["codec"] == 0, "codec")
        fewest, most = (1, LIMITS["frame_sequences"]) if kind == "SEQS" else (0, 0)
        check(fewest <= frame["num_items"] <= most, "num_items")
        check(frame["num_entries"] == 0, "num_entries")
    check(frame["wrapping"] in (0, 1), "wrapping")
    if frame["wrapping"]:
        allowed = bool(header["incompatible_features"] & LZ4_FRAMES)
        check(allowed and kind not in ("CMIT", "INDX"), "wrapping")
        ratio = 32 if kind == "SEQS" else 255  # LZ4 cannot do better
        check(frame["content_length"] <= ratio * (frame["payload_length"] + 1), "content_length")
    else:
        check(frame["content_length"] == frame["payload_length"], "content_length")
    check(frame["payload_length"] <= LIMITS["frame_bytes"], "payload_length")
    most = LIMITS["block_bytes" if kind == "BLCK" else "frame_bytes"]
    check(frame["content_length"] <= most, "content_length")
    start = offset + FRAME_LENGTH
    stop = start + frame["payload_length"]
    frame.update(offset=offset, start=start, end=(stop + 7) // 8 * 8)
    check(frame["end"] <= end, "payload_length", Truncated)
    ok = frame["payload_crc"] == crc32c(data[start : frame["end"]])
    require(ok, "payload_crc", at["payload_crc"], "does not match the payload")
    require(not any(data[stop : frame["end"]]), "padding", stop, "padding that is not zero")
    frame["content"] = data[start:stop]
    if frame["wrapping"]:
        try:
            frame["content"] = lz4_block(frame["content"], frame["content_length"])
        except ValueError as error:
            raise Corruption("payload", start, str(error)) from error
    return frame


# --- Section 5: BLCK ------------------------------------------------------------------------------


def decode_block(
    frame: dict[str, Any], header: dict[str, Any]
) -> tuple[list[int] | None, list[list[tuple[int, int | float]]]]:
    """Section 5.1: the tokens (None where not stored) and the records of a packed block."""
    content, n, start = frame["content"], frame["num_items"], frame["start"]
    require(len(content) >= 4, "content_length", start, "no room for the block's fields")
    low_bits, flags = content[0], content[1]
    require(low_bits <= 24, "low_bits", start, f"{low_bits} is above 24")
    require(flags <= HAS_EMPTY | WIDE_DIRECTORY, "flags", start + 1, f"unknown bits in {flags}")
    require(not any(content[2:4]), "reserved", start + 2, "reserved bytes that are not zero")

    stretches = -(-n // STRETCH)
    size = 4 if flags & WIDE_DIRECTORY else 2
    tokens_at = 4 + size * (stretches - 1)
    width = max(1, bits(header["vocab_size"] - 1))
    records_at = tokens_at + (-(-n * width // 8) if header["store_tokens"] else 0)
    require(len(content) >= records_at, "content_length", start, "no room for the records")
    directory = [u(content[i : i + size]) for i in range(4, tokens_at, size)]
    edges = [0, *directory, len(content) - records_at]
    require(edges == sorted(edges), "directory", start + 4, "not ascending, or past the records")

    tokens = None
    if header["store_tokens"]:
        fields = Bits(content[tokens_at:records_at], start + tokens_at, "tokens")
        tokens = []
        for _ in range(n):
            tokens.append(fields.take(width))
            ok = tokens[-1] < header["vocab_size"]
            require(ok, "tokens", fields.offset, f"{tokens[-1]} is not below vocab_size")
        fields.finish()

    records = []
    for i in range(stretches):
        first, last = records_at + edges[i], records_at + edges[i + 1]
        stretch = Bits(content[first:last], start + first, "records")
        for _ in range(min(STRETCH, n - i * STRETCH)):
            records.append(decode_record(stretch, low_bits, bool(flags & HAS_EMPTY), header))
        stretch.finish()
    entries = sum(map(len, records))
    ok = entries == frame["num_entries"]
    require(ok, "num_entries", frame["offset"] + 20, f"the records have {entries} entries")
    return tokens, records


def decode_record(
    stretch: Bits, low_bits: int, has_empty: bool, header: dict[str, Any]
) -> list[tuple[int, int | float]]:
    """Section 5.2: the entries of one record, (token_id, count or weight)."""
    if has_empty and stretch.take(1) == 0:
        return []
    counts: list[int] = []
    if header["value_kind"] == COUNTS:
        left = header["rounds"]
        while left > 0:
            counts.append(stretch.gamma(15))
            left -= counts[-1]
        require(left == 0, "records", stretch.offset, f"counts sum to rounds + {-left}")
        k = len(counts)
    else:
        k = stretch.gamma(24)
        most = min(LIMITS["record_entries"], header["vocab_size"])
        require(k <= most, "records", stretch.offset, f"{k} entries in a record")
    highs: list[int] = []
    high = 0
    while len(highs) < k:
        if stretch.take(1):
            highs.append(high)
        else:
            high += 1
    ids = [high << low_bits | stretch.take(low_bits) for high in highs]
    ok = all(a < b for a, b in pairwise(ids))
    require(ok, "records", stretch.offset, "ids that are not strictly ascending")
    require(ids[-1] < header["vocab_size"], "records", stretch.offset, f"id {ids[-1]} ≥ vocab_size")
    if header["value_kind"] == COUNTS:
        return list(zip(ids, counts, strict=True))
    return [(token_id, decode_weight(stretch, header["weight_dtype"])) for token_id in ids]


def decode_weight(stretch: Bits, dtype: int) -> float:
    """A weight of 32 or 16 bits: finite and not negative, sign bit included."""
    weight = weight_of(stretch.take(WEIGHT_BITS[dtype]), dtype)
    ok = is_weight(weight)
    require(ok, "records", stretch.offset, f"the weight {weight} is NaN, infinite or negative")
    return weight


# --- Section 6: SEQS ------------------------------------------------------------------------------


def decode_sequences(frame: dict[str, Any]) -> list[dict[str, int]]:
    """The sequences of a SEQS frame."""
    n, content = frame["num_items"], frame["content"]
    require(len(content) == 20 * n, "num_items", frame["offset"] + 16, f"not {n} times 20 bytes")
    ids, fingerprints, lengths = content[: 8 * n], content[8 * n : 16 * n], content[16 * n :]
    return [
        {
            "sequence_id": u(ids[8 * i : 8 * i + 8]),
            "fingerprint": u(fingerprints[8 * i : 8 * i + 8]),
            "length": u(lengths[4 * i : 4 * i + 4]),
            "offset": frame["offset"] if frame["wrapping"] else frame["start"] + 8 * i,
        }
        for i in range(n)
    ]


# --- Section 7: CMIT, META, INDX ------------------------------------------------------------------


def decode_metadata(frame: dict[str, Any]) -> dict[str, str]:
    """META: a JSON object, string to string."""
    ok = len(frame["content"]) <= LIMITS["metadata_bytes"]
    require(ok, "content_length", frame["offset"] + 12, "metadata above 1 MiB")
    try:
        metadata = json.loads(frame["content"].decode("utf-8"))
    except ValueError as error:
        raise Corruption("metadata", frame["start"], f"not JSON: {error}") from error
    ok = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    require(ok, "metadata", frame["start"], "not an object of strings")
    return dict(metadata)


def check_commit(frame: dict[str, Any], shard: Shard, chain: int) -> None:
    """CMIT: agrees with the frames before it."""
    require(len(frame["content"]) == 32, "content_length", frame["offset"] + 12, "not 32")
    commit, at = split(frame["content"], CMIT, frame["start"])
    lengths = sum(sequence["length"] for sequence in shard.sequences)
    found = {
        "num_positions": len(shard.records), "num_sequences": len(shard.sequences),
        "num_entries": sum(map(len, shard.records)), "chain": chain,
    }  # fmt: skip
    for name, value in found.items():
        require(commit[name] == value, name, at[name], f"{commit[name]}, the frames say {value}")
    ok = lengths == commit["num_positions"]
    require(ok, "num_positions", at["num_positions"], f"the sequences have {lengths} positions")


def check_index(frame: dict[str, Any], shard: Shard) -> None:
    """INDX: agrees with the frames."""
    require(len(frame["content"]) >= 16, "content_length", frame["offset"] + 12, "below 16")
    starts = [0]
    for sequence in shard.sequences:
        starts.append(starts[-1] + sequence["length"])
    tables = {
        "num_blocks": [len(shard.blocks)],
        "num_sequence_frames": [len(shard.sequence_frames)],
        "num_sequences": [len(shard.sequences)],
        "reserved": [0],
        "block_offsets": [offset // 8 for offset, _ in shard.blocks],
        "block_starts": [first for _, first in shard.blocks],
        "sequence_frame_offsets": [offset // 8 for offset, _ in shard.sequence_frames],
        "sequence_frame_starts": [first for _, first in shard.sequence_frames],
        "sequence_starts": starts,
    }
    at = 0
    for name, expected in tables.items():
        stored = u32s(frame["content"][at : at + 4 * len(expected)])
        for i, value in enumerate(expected):
            where = frame["start"] + at + 4 * i
            require(stored[i : i + 1] == [value], name, where, f"the frames say {value}")
        at += 4 * len(expected)
    require(at == len(frame["content"]), "content_length", frame["offset"] + 12, f"not {at}")


# --- Section 3: shard -----------------------------------------------------------------------------


class Shard:
    """What a shard holds. `blocks`, `sequence_frames`: byte offset and first item of each."""

    def __init__(self, header: dict[str, Any], model: Model | None = None) -> None:
        self.header, self.model = header, model
        self.metadata: dict[str, str] = {}
        self.tokens: list[int] | None = [] if header["store_tokens"] else None
        self.records: list[list[tuple[int, int | float]]] = []
        self.sequences: list[dict[str, int]] = []
        self.blocks: list[tuple[int, int]] = []
        self.sequence_frames: list[tuple[int, int]] = []

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: 64-bit hashes and the uuid as hexadecimal digits."""
        header = dict(self.header)
        for name in ("magic", "header_length", "header_crc"):
            del header[name]
        header["shard_uuid"] = header["shard_uuid"].hex()
        for name in ("tokenizer_fingerprint", "model_digest"):
            header[name] = f"{header[name]:016x}"
        return {
            "header": header,
            "metadata": self.metadata,
            "sequences": [
                [s["sequence_id"], f"{s['fingerprint']:016x}", s["length"]] for s in self.sequences
            ],
            "tokens": self.tokens,
            "records": [[list(entry) for entry in record] for record in self.records],
        }


def add_frame(frame: dict[str, Any], shard: Shard, previous: str, chain: int) -> None:
    """Adds what `frame` holds to `shard`; `previous` and `chain` tell what stands before it."""
    kind = frame["type"]
    if kind == "META":
        ok = previous == ""  # first, and once
    elif kind == "INDX":
        ok = previous == "CMIT"  # all data is committed
    else:
        ok = previous != ""
    require(ok, "type", frame["offset"], f"a {kind} frame after {previous or 'the header'}")
    try:
        if kind == "META":
            shard.metadata = decode_metadata(frame)
        elif kind == "BLCK":
            if frame["codec"] == COMPACT:
                assert shard.model is not None  # else the header allows no such frame
                form = block_format(shard.header)
                tokens, records = decode_compact_block(frame, form, shard.model)
            else:
                tokens, records = decode_block(frame, shard.header)
            shard.blocks.append((frame["offset"], len(shard.records)))
            shard.records += records
            if shard.tokens is not None and tokens is not None:
                shard.tokens += tokens
        elif kind == "SEQS":
            shard.sequence_frames.append((frame["offset"], len(shard.sequences)))
            shard.sequences += decode_sequences(frame)
        elif kind == "CMIT":
            check_commit(frame, shard, chain)
            check_sequences(shard)
        else:
            check_index(frame, shard)
    except FormatError as error:
        if frame["wrapping"]:  # a byte of the content has no place of its own in the file
            error.offset = frame["offset"]
        raise


def check_sequences(shard: Shard) -> None:
    """Section 6: the ids are unique; the fingerprints are those of the tokens."""
    ids: set[int] = set()
    first = 0
    for sequence in shard.sequences:
        identity, at = sequence["sequence_id"], sequence["offset"]
        require(identity not in ids, "sequence_id", at, f"{identity} is there twice")
        ids.add(identity)
        if shard.tokens is not None:
            tokens = shard.tokens[first : first + sequence["length"]]
            ok = sequence["fingerprint"] == xxh64(struct.pack(f"<{len(tokens)}I", *tokens))
            require(ok, "fingerprint", at, f"sequence {identity} has other tokens")
            first += len(tokens)


def block_format(header: dict[str, Any]) -> BlockFormat:
    """What a compact block and its model must know of a shard."""
    return BlockFormat(
        header["vocab_size"], header["rounds"], header["value_kind"], header["weight_dtype"],
        bool(header["store_tokens"]),
    )  # fmt: skip


def find_model(header: dict[str, Any], models: Mapping[str, bytes]) -> Model | None:
    """Section 12: the model that a shard names, if any. It must fit the shard."""
    if not header["model_digest"]:
        return None
    name, at = model_file(header["model_digest"]), 96
    require(name in models, "model_digest", at, f"{name} is missing")
    model = decode_model(models[name], header["model_digest"])
    form = block_format(header)
    for field in ("vocab_size", "rounds", "value_kind", "weight_dtype"):
        theirs, ours = getattr(model.form, field), getattr(form, field)
        require(theirs == ours, "model_digest", at, f"{name} has the {field} {theirs}, not {ours}")
    ok = model.form.tokens or not form.tokens
    require(ok, "model_digest", at, f"{name} has no codes for tokens")
    return model


def decode_shard(data: bytes, models: Mapping[str, bytes] | None = None) -> Shard:
    """A finished shard: everything is read, everything is checked.

    `models` are the files that may be needed beside it, by name.
    """
    header = decode_header(data)
    footer = decode_footer(data, header["shard_uuid"])
    base = len(data) - FOOTER_LENGTH
    shard = Shard(header, find_model(header, models or {}))
    offset, previous, frame_crcs, chain = HEADER_LENGTH, "", b"", 0
    while previous != "INDX":
        frame = decode_frame(data, offset, base, header)
        add_frame(frame, shard, previous, crc32c(frame_crcs))
        previous = frame["type"]
        if previous == "CMIT":
            chain = crc32c(frame_crcs)
        frame_crcs += struct.pack("<I", frame["frame_crc"])
        offset = frame["end"]
    ok = footer["index_offset"] == frame["offset"]
    require(ok, "index_offset", base + 8, f"INDX is at {frame['offset']}")
    require(offset == base, "index_offset", base + 8, "bytes between INDX and the footer")
    found = {
        "num_positions": (24, len(shard.records)), "num_sequences": (32, len(shard.sequences)),
        "num_entries": (40, sum(map(len, shard.records))), "chain": (48, chain),
    }  # fmt: skip
    for name, (at, value) in found.items():
        require(footer[name] == value, name, base + at, f"{footer[name]}, the frames say {value}")
    return shard


# --- Section 8: manifest --------------------------------------------------------------------------


MANIFEST = {
    "format": str, "version": list, "alignment": str, "complete": bool, "config": dict,
    "metadata": dict, "shards": list,
}  # fmt: skip
CONFIG = {
    "vocab_size": int, "rounds": int, "sampler": str, "temperature": (int, float),
    "proposal_temperature": (int, float), "value_kind": str, "weight_dtype": str, "codec": str,
    "store_tokens": bool, "tokenizer_fingerprint": (str, type(None)),
}  # fmt: skip
MODEL_ROW = {"file": str, "bytes": int}
ROW = {
    "file": str, "uuid": str, "bytes": int, "sequences": int, "positions": int, "entries": int,
    "sha256": str,
}  # fmt: skip


def check_types(value: Any, kinds: dict[str, Any], where: str) -> None:
    """`value` is a JSON object with these members; true and false are no integers."""
    require(isinstance(value, dict), where, 0, "not an object")
    for name, kind in kinds.items():
        ok = name in value and isinstance(value[name], kind)
        if ok and kind is not bool:
            ok = not isinstance(value[name], bool)
        require(ok, name, 0, "missing, or of another type")


def parse_integer(digits: str) -> int:
    """An integer of JSON, if it is not too long."""
    require(len(digits) <= LIMITS["number_characters"], "manifest", 0, "a number is too long")
    return int(digits)


def decode_manifest(data: bytes) -> dict[str, Any]:
    """The manifest. What it says of the shards is held against them in `check_shard`."""
    require(len(data) <= LIMITS["manifest_bytes"], "manifest", 0, "above 64 MiB")
    try:
        manifest = json.loads(data.decode("utf-8"), parse_int=parse_integer)
    except (ValueError, RecursionError) as error:
        raise Corruption("manifest", 0, f"not JSON: {error}") from error
    level = [manifest]
    for _ in range(LIMITS["manifest_depth"]):
        level = [
            item
            for parent in level if isinstance(parent, (dict, list))
            for item in (parent.values() if isinstance(parent, dict) else parent)
        ]  # fmt: skip
    ok = not any(isinstance(item, (dict, list)) for item in level)
    require(ok, "manifest", 0, "nested too deeply")
    check_types(manifest, MANIFEST, "manifest")
    require(manifest["format"] == "sparselogits", "format", 0, "another format")
    version = manifest["version"]
    ok = len(version) == 2 and all(type(part) is int for part in version)
    require(ok, "version", 0, "not two integers")
    require(version[0] == VERSION[0], "version", 0, f"version {version} is not 1", Unsupported)
    require(manifest["alignment"] == ALIGNMENT, "alignment", 0, "another alignment")
    if "crc32c" in manifest:
        start = data.rfind(b'"crc32c"')
        ok = list(manifest)[-1] == "crc32c" and start >= 0
        require(ok, "crc32c", 0, "not the last member")
        ok = manifest["crc32c"] == f"{crc32c(data[:start]):08x}"
        require(ok, "crc32c", start, "the checksum of the bytes before it differs")
    check_types(manifest["config"], CONFIG, "config")
    dtype = manifest["config"]["weight_dtype"]
    ok = dtype in ("float32", "float16", "bfloat16")
    require(ok, "weight_dtype", 0, f"{dtype!r} is not a dtype of weights")
    ok = all(isinstance(value, str) for value in manifest["metadata"].values())
    require(ok, "metadata", 0, "not an object of strings")
    require(len(manifest["shards"]) <= LIMITS["shards"], "shards", 0, "too many")
    for row in manifest["shards"]:
        check_types(row, ROW, "shards")
        ok = re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", row["file"]) is not None
        require(ok, "file", 0, f"{row['file']!r} is not a plain name")
    models = manifest.get("models", [])
    ok = isinstance(models, list) and len(models) <= LIMITS["shards"]
    require(ok, "models", 0, "not an array, or too long")
    for row in models:
        check_types(row, MODEL_ROW, "models")
        ok = re.fullmatch(r"model-[0-9a-f]{16}\.slm", row["file"]) is not None
        require(ok, "file", 0, f"{row['file']!r} is not the name of a model")
    ok = len({row["file"] for row in models}) == len(models)
    require(ok, "models", 0, "a model is there twice")
    return dict(manifest)


def shard_config(header: dict[str, Any]) -> dict[str, Any]:
    """The `config` that a manifest gives for shards with this header."""
    fingerprint = header["tokenizer_fingerprint"]
    names = ("vocab_size", "rounds", "sampler", "temperature", "proposal_temperature")
    return {
        **{name: header[name] for name in names},
        "value_kind": ("counts", "weights")[header["value_kind"]],
        "weight_dtype": ("float32", "float32", "float16", "bfloat16")[header["weight_dtype"]],
        "codec": ("packed", "compact")[header["codec"]],
        "store_tokens": bool(header["store_tokens"]),
        "tokenizer_fingerprint": f"{fingerprint:016x}" if fingerprint else None,
    }


def check_shard(row: dict[str, Any], data: bytes, shard: Shard, config: dict[str, Any]) -> None:
    """A shard is the one that the manifest means."""
    found = {
        "uuid": shard.header["shard_uuid"].hex(), "bytes": len(data),
        "sequences": len(shard.sequences), "positions": len(shard.records),
        "entries": sum(map(len, shard.records)), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    for name, value in found.items():
        require(row.get(name) == value, name, 0, f"the manifest says {row.get(name)}, not {value}")
    for name, value in shard_config(shard.header).items():
        if name != "weight_dtype" or shard.header["value_kind"] == WEIGHTS:
            ok = config.get(name) == value
            require(ok, name, 0, f"the manifest says {config.get(name)}, not {value}")


def models_beside(path: Path) -> dict[str, bytes]:
    """The models in the directory of a shard, by name."""
    return {file.name: file.read_bytes() for file in path.parent.glob("model-*.slm")}


def place_error(error: FormatError, path: Path) -> None:
    """An error is of the file at `path`, or of the file beside it that it names."""
    error.path = str(path if error.path is None else path.with_name(error.path))


def decode_cache(directory: Path) -> dict[str, Any]:
    """A cache: its manifest and its shards, in the order of the manifest."""
    path = directory / "manifest.json"
    ids: set[int] = set()
    try:
        manifest = decode_manifest(path.read_bytes())
        models = {}
        for row in manifest.get("models", []):
            models[row["file"]] = model = (directory / row["file"]).read_bytes()
            ok = len(model) == row["bytes"]
            require(ok, "bytes", 0, f"{row['file']} has {len(model)}, not {row['bytes']}")
        shards = []
        for row in manifest["shards"]:
            path = directory / row["file"]
            data = path.read_bytes()
            shard = decode_shard(data, models)
            check_shard(row, data, shard, manifest["config"])
            for sequence in shard.sequences:
                repeated = sequence["sequence_id"] in ids
                require(not repeated, "sequence_id", 0, "is in another shard too")
                ids.add(sequence["sequence_id"])
            shards.append(shard.to_dict())
    except FormatError as error:
        place_error(error, path)
        raise
    return {"manifest": manifest, "shards": shards}


def decode(path: Path) -> dict[str, Any]:
    """A cache directory or a shard, as plain data. Raises FormatError."""
    if path.is_dir():
        return decode_cache(path)
    try:
        return decode_shard(path.read_bytes(), models_beside(path)).to_dict()
    except FormatError as error:
        place_error(error, path)
        raise


def dumps(content: dict[str, Any], depth: int = 1) -> str:
    """JSON with a line for each key and, under the first `depth` keys, each item of a list."""
    pad = "  " * depth
    lines = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value):
            rows = f",\n{pad}  ".join(json.dumps(item) for item in value)
            text = f"[\n{pad}  {rows}\n{pad}]"
        lines.append(f"{pad}{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n" + pad[2:] + "}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: reference_decoder.py SHARD_OR_CACHE")
    try:
        print(dumps(decode(Path(sys.argv[1]))))
    except FormatError as fault:
        sys.exit(f"{type(fault).__name__}: {fault}")
