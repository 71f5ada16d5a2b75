"""The invalid golden shards of format 1.x: each breaks one rule of v1.md, with good checksums.

A case gives the bytes, the class of the error, the field, and the part of the file to which the
error's offset must point. Where two parts of a file contradict each other, a reader that looks at
them in another order may name the other one: `also`. See formats/README.md before adding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from golden_valid import Numbers
from reference_encoder import Record, ShardEncoder, fingerprint


@dataclass(frozen=True)
class Invalid:
    """A shard that a reader must refuse, and how.

    `models` are files that lie beside it; `file` is the one of them that is wrong, if one is.
    """

    data: bytes
    error: str
    field: str
    within: tuple[int, int]
    also: tuple[str, ...] = ()
    models: tuple[tuple[str, bytes], ...] = ()
    file: str = ""


CASES: dict[str, Invalid] = {}
ALSO = {
    "footer_index_offset_of_header": ("type",),
    "footer_num_positions": ("sequence_starts",),
    "footer_num_sequences": ("num_sequences",),
    "lengths_below_positions": ("sequence_starts",),
    "lengths_hostile": ("sequence_starts",),
    "seqs_of_no_sequences": ("sequence_frame_starts",),
}
META, BLOCK, SEQS, COMMIT, INDEX = range(5)  # the frames of `build`
HEADER, FOOTER = -1, -2
RECORDS: list[Record] = [[(3, 20), (400, 30)], [(7, 50)], [(11, 49), (49151, 1)]]
TOKENS = [40000, 1, 2]
FACTS = [(5, fingerprint(TOKENS[:1]), 1), (6, fingerprint(TOKENS[1:]), 2)]
WEIGHTS: dict[str, Any] = {"value_kind": 1, "weight_dtype": 1}


def build(
    records: list[Record] = RECORDS,
    tokens: list[int] = TOKENS,
    *,
    header: dict[str, Any] | None = None,
    meta: bytes = b"{}",
    meta_frame: dict[str, Any] | None = None,
    block: dict[str, Any] | None = None,
    facts: list[tuple[int, int, int]] | None = None,
    seqs: dict[str, Any] | None = None,
    commit: dict[str, Any] | None = None,
    index: dict[str, Any] | None = None,
    footer: dict[str, Any] | None = None,
) -> tuple[bytes, ShardEncoder]:
    """A small shard with one frame of each type, and overrides for each of its parts."""
    encoder = ShardEncoder(None, **(header or {}))
    encoder.frame("META", meta, **(meta_frame or {}))
    encoder.block(records, tokens, **(block or {}))
    if facts is None:
        facts = [FACTS[0], (6, fingerprint(tokens[1:]), len(tokens) - 1)]
    encoder.sequences(facts, **(seqs or {}))
    encoder.commit(**(commit or {}))
    encoder.index(**(index or {}))
    return encoder.footer(**(footer or {})), encoder


def place(data: bytes, encoder: ShardEncoder, part: int) -> tuple[int, int]:
    """The bytes of a part of a shard."""
    if part in (HEADER, FOOTER):
        return (0, 128) if part == HEADER else (len(data) - 64, len(data))
    return encoder.frames[part][1:]


def add(name: str, error: str, field: str, part: int, *args: Any, **parts: Any) -> None:
    """Registers a shard that `build` makes."""
    data, encoder = build(*args, **parts)
    within = place(data, encoder, part)
    CASES[name] = Invalid(data, error, field, within, ALSO.get(name, ()))


def put(at: int, value: int) -> Callable[[bytearray], None]:
    """An edit that sets a byte (from the end where `at` is negative)."""

    def change(content: bytearray) -> None:
        content[at] = value

    return change


def word(at: int, value: int) -> Callable[[list[int]], None]:
    """An edit that sets a u32 of INDX."""

    def change(words: list[int]) -> None:
        words[at] = value

    return change


def header_cases() -> None:
    """Section 3.1."""
    wrong: list[tuple[str, str, str, dict[str, Any]]] = [
        ("magic_foreign", "Corruption", "magic", {"magic": b"PK\x03\x04\x14\0\0\0"}),
        ("version_major_2", "Unsupported", "version_major", {"version_major": 2}),
        ("version_major_0", "Unsupported", "version_major", {"version_major": 0}),
        ("header_crc", "Corruption", "header_crc", {"header_crc": 0x12345678}),
        ("header_length_136", "Corruption", "header_length", {"header_length": 136}),
        ("incompatible_feature_31", "Unsupported", "incompatible_features",
         {"incompatible_features": 1 << 31}),
        ("vocab_size_0", "Corruption", "vocab_size", {"vocab_size": 0}),
        ("vocab_size_2_24_plus_1", "Corruption", "vocab_size", {"vocab_size": 2**24 + 1}),
        ("rounds_0", "Corruption", "rounds", {"rounds": 0}),
        ("rounds_65536", "Corruption", "rounds", {"rounds": 65536}),
        ("value_kind_2", "Corruption", "value_kind", {"value_kind": 2}),
        ("weight_dtype_of_counts", "Corruption", "weight_dtype", {"weight_dtype": 1}),
        ("weight_dtype_0_of_weights", "Corruption", "weight_dtype", {"value_kind": 1}),
        ("weight_dtype_4", "Corruption", "weight_dtype", {"value_kind": 1, "weight_dtype": 4}),
        ("codec_200", "Unsupported", "codec", {"codec": 200}),
        ("block_log2_5", "Corruption", "block_log2", {"block_log2": 5}),
        ("block_log2_17", "Corruption", "block_log2", {"block_log2": 17}),
        ("store_tokens_2", "Corruption", "store_tokens", {"store_tokens": 2}),
        ("sampler_empty", "Corruption", "sampler", {"sampler": b""}),
        ("sampler_upper_case", "Corruption", "sampler", {"sampler": b"Multinomial"}),
        ("sampler_after_zero", "Corruption", "sampler", {"sampler": b"a\0b"}),
        ("temperature_nan", "Corruption", "temperature", {"temperature": math.nan}),
        ("temperature_0", "Corruption", "temperature", {"temperature": 0.0}),
        ("proposal_temperature_inf", "Corruption", "proposal_temperature",
         {"proposal_temperature": math.inf}),
        ("proposal_temperature_negative", "Corruption", "proposal_temperature",
         {"proposal_temperature": -1.0}),
    ]  # fmt: skip
    for name, error, field, header in wrong:
        add(name, error, field, HEADER, header=header)
    for at in (53, 55, 104, 123):
        add(f"header_reserved_{at}", "Corruption", "reserved", HEADER, header={"edit": put(at, 1)})


def footer_cases() -> None:
    """Section 3.2."""
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("footer_crc", "footer_crc", {"footer_crc": 0x12345678}),
        ("footer_reserved", "reserved", {"reserved": 1}),
        ("footer_file_length_larger", "file_length", {"file_length": 2**40}),
        ("footer_file_length_smaller", "file_length", {"file_length": 448}),
        ("footer_index_offset_of_header", "index_offset", {"index_offset": 128}),
        ("footer_index_offset_past_the_end", "index_offset", {"index_offset": 2**63}),
        ("footer_index_offset_unaligned", "index_offset", {"index_offset": 129}),
        ("footer_num_positions", "num_positions", {"num_positions": 2}),
        ("footer_num_positions_2_32", "num_positions", {"num_positions": 2**32}),
        ("footer_num_sequences", "num_sequences", {"num_sequences": 3}),
        ("footer_num_sequences_above_2_28", "num_sequences", {"num_sequences": 2**28 + 1}),
        ("footer_num_entries", "num_entries", {"num_entries": 6}),
        ("footer_chain", "chain", {"chain": 0}),
    ]
    for name, field, footer in wrong:
        add(name, "Corruption", field, FOOTER, footer=footer)


def truncated_cases() -> None:
    """Section 3.2: what is cut does not end with a footer."""
    data, encoder = build()
    whole = len(data)
    cuts = {"everything": 0, "in_magic": 5, "in_header": 100, "after_header": 128,
            "in_frame_header": encoder.frames[BLOCK][1] + 10,
            "in_payload": encoder.frames[BLOCK][1] + 40,
            "before_index": encoder.frames[INDEX][1],
            "before_footer": whole - 64, "in_footer": whole - 1}  # fmt: skip
    for name, length in cuts.items():
        CASES[f"truncated_{name}"] = Invalid(data[:length], "Truncated", "", (0, length + 1))
    grown = data + bytes(8)
    CASES["truncated_bytes_after_footer"] = Invalid(grown, "Truncated", "", (0, len(grown)))


def frame_cases() -> None:
    """Section 4."""
    lz4 = {"incompatible_features": 1}
    wrong: list[tuple[str, str, str, int, dict[str, Any]]] = [
        ("frame_crc", "Corruption", "frame_crc", BLOCK, {"block": {"frame_crc": 1}}),
        ("payload_crc", "Corruption", "payload_crc", BLOCK, {"block": {"payload_crc": 1}}),
        ("frame_reserved", "Corruption", "reserved", BLOCK, {"block": {"reserved": 1}}),
        ("frame_type_unknown", "Corruption", "type", SEQS, {"seqs": {"type": b"SEQX"}}),
        ("block_codec_200", "Unsupported", "codec", BLOCK, {"block": {"codec": 200}}),
        ("seqs_codec_1", "Corruption", "codec", SEQS, {"seqs": {"codec": 1}}),
        ("wrapping_200", "Corruption", "wrapping", BLOCK,
         {"header": lz4, "block": {"wrapping": 200}}),
        ("wrapping_without_feature", "Corruption", "wrapping", BLOCK, {"block": {"wrap": True}}),
        ("index_wrapped", "Corruption", "wrapping", INDEX,
         {"header": lz4, "index": {"wrap": True}}),
        ("payload_length_hostile", "Corruption", "payload_length", BLOCK,
         {"block": {"payload_length": 2**32 - 1, "content_length": 2**32 - 1}}),
        ("payload_length_past_the_end", "Truncated", "payload_length", BLOCK,
         {"block": {"payload_length": 2**20, "content_length": 2**20}}),
        ("content_length_of_unwrapped", "Corruption", "content_length", BLOCK,
         {"block": {"content_length": 5}}),
        ("content_length_hostile", "Corruption", "content_length", BLOCK,
         {"header": lz4, "block": {"wrap": True, "content_length": 2**30 + 1}}),
        ("block_of_no_positions", "Corruption", "num_items", BLOCK, {"block": {"num_items": 0}}),
        ("block_above_block_log2", "Corruption", "num_items", BLOCK, {"block": {"num_items": 65}}),
        ("block_of_hostile_positions", "Corruption", "num_items", BLOCK,
         {"block": {"num_items": 2**32 - 1}}),
        ("seqs_of_no_sequences", "Corruption", "num_items", SEQS,
         {"facts": [], "seqs": {"num_items": 0}}),
        ("seqs_num_entries", "Corruption", "num_entries", SEQS, {"seqs": {"num_entries": 1}}),
        ("meta_num_items", "Corruption", "num_items", META, {"meta_frame": {"num_items": 1}}),
        ("padding", "Corruption", "padding", META, {"meta_frame": {"padding": b"\0\0\0\0\0\1"}}),
        ("meta_twice", "Corruption", "type", BLOCK, {"block": {"type": b"META", "num_items": 0,
                                                              "num_entries": 0}}),
        ("meta_missing", "Corruption", "type", META,
         {"meta_frame": {"type": b"SEQS", "num_items": 1}, "meta": bytes(20)}),
    ]  # fmt: skip
    for name, error, field, part, parts in wrong:
        add(name, error, field, part, **parts)


def lz4_cases() -> None:
    """Section 4, LZ4 wrapping."""
    blocks = {
        "ends_early": b"\xf0\x20abc",
        "match_before_start": b"\x10a\x02\x00\x50aaaaa",
        "match_distance_0": b"\x10a\x00\x00\x50aaaaa",
        "gives_less": b"\x10a",
        "gives_more": b"\x1fa\x01\x00" + b"\xff" * 20 + b"\x00\x50aaaaa",
        "of_no_bytes": b"",
    }
    lz4 = {"incompatible_features": 1}
    for name, wrap in blocks.items():
        add(f"lz4_{name}", "Corruption", "payload", BLOCK, header=lz4, block={"wrap": wrap})
    hostile = {"wrap": b"\x10a", "content_length": 2**30}
    add(
        "lz4_hostile_content_length",
        "Corruption",
        "content_length",
        BLOCK,
        header=lz4,
        block=hostile,
    )


def place_cases() -> None:
    """Section 4: frames that are whole but not where they belong."""
    encoder = ShardEncoder({})
    for tokens in ([1, 2, 3], [4, 5, 6]):
        encoder.block(RECORDS, tokens)
    tokens = [1, 2, 3, 4, 5, 6]
    encoder.sequences([(1, fingerprint(tokens), 6)])
    encoder.commit()
    data = encoder.finish()
    (_, a, b), (_, c, d) = encoder.frames[1:3]
    swapped = data[:a] + data[c:d] + data[a:b] + data[d:]
    CASES["frames_swapped"] = Invalid(swapped, "Corruption", "frame_crc", (a, b))
    repeated = data[:c] + data[a:b] + data[d:]
    CASES["frame_repeated"] = Invalid(repeated, "Corruption", "frame_crc", (c, d))
    other = ShardEncoder({}, shard_uuid=bytes(16))
    other.block(RECORDS, [1, 2, 3])
    foreign = data[:a] + bytes(other.out[a:b]) + data[b:]
    CASES["frame_of_another_shard"] = Invalid(foreign, "Corruption", "frame_crc", (a, b))
    footer = data[:-64] + build(header={"shard_uuid": bytes(16)})[0][-64:]
    span = (len(data) - 64, len(data))
    CASES["footer_of_another_shard"] = Invalid(footer, "Corruption", "footer_crc", span)
    flipped = bytearray(data)
    flipped[a + 40] ^= 4
    CASES["payload_flip"] = Invalid(bytes(flipped), "Corruption", "payload_crc", (a, b))


def block_cases() -> None:
    """Section 5.1."""
    two = {"block_log2": 7}
    records, tokens = Numbers(21).sequences([66])[0][2], list(range(66))
    # 66 positions: 4 bytes, one directory entry of 2, 132 bytes of tokens, records
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("block_low_bits_25", "low_bits", {"edit": put(0, 25)}),
        ("block_flags_unknown", "flags", {"edit": put(1, 4)}),
        ("block_reserved", "reserved", {"edit": put(3, 1)}),
        ("block_of_one_byte", "content_length", {"edit": lambda content: content.clear()}),
        (
            "block_without_records",
            "content_length",
            {"edit": lambda c: c.__delitem__(slice(9, None))},
        ),
        ("record_padding", "records", {"edit": put(-1, 0x80)}),
        ("stretch_not_used_up", "records", {"edit": lambda content: content.append(0)}),
        ("stretch_too_short", "records", {"edit": lambda content: content.pop()}),
        ("block_num_entries", "num_entries", {"num_entries": 6}),
        ("block_num_entries_hostile", "num_entries", {"num_entries": 2**32 - 1}),
    ]
    for name, field, block in wrong:
        add(name, "Corruption", field, BLOCK, block=block)
    directories = {"descending": (0xFF, 0xFF), "early": (0, 0), "other": (8, 0)}
    for name, (low, high) in directories.items():

        def edit(content: bytearray, low: int = low, high: int = high) -> None:
            content[4:6] = bytes([low, high])

        field = "directory" if name == "descending" else "records"
        add(
            f"directory_{name}",
            "Corruption",
            field,
            BLOCK,
            records,
            tokens,
            header=two,
            block={"edit": edit},
        )
    add("tokens_above_vocab_size", "Corruption", "tokens", BLOCK, tokens=[1, 49152, 2])
    small = {"vocab_size": 7, "rounds": 1}
    add("tokens_padding", "Corruption", "tokens", BLOCK, [[(1, 1)]] * 3, [1, 2, 3], header=small,
        block={"edit": put(5, 0x82)})  # fmt: skip


def record_cases() -> None:
    """Section 5.2."""
    wrong: list[tuple[str, Record, dict[str, Any], dict[str, Any]]] = [
        ("counts_above_rounds", [(3, 30), (9, 30)], {}, {}),
        ("counts_one_above_rounds", [(3, 50 - 1), (9, 2)], {}, {}),
        ("count_of_2_16", [(3, 65536)], {"rounds": 65535}, {}),
        ("ids_descending", [(9, 25), (3, 25)], {}, {"low_bits": 16}),
        ("ids_repeated", [(9, 25), (9, 25)], {}, {"low_bits": 4}),
        ("id_of_vocab_size", [(49152, 50)], {}, {}),
        ("id_far_above_vocab_size", [(2**24 - 1, 50)], {}, {"low_bits": 20}),
        ("weight_nan", [(3, math.nan)], WEIGHTS, {}),
        ("weight_inf", [(3, math.inf)], WEIGHTS, {}),
        ("weight_negative", [(3, -0.5)], WEIGHTS, {}),
        ("weight_negative_zero", [(3, -0.0)], WEIGHTS, {}),
        ("weight_nan_float16", [(3, math.nan)], WEIGHTS | {"weight_dtype": 2}, {}),
        ("weight_inf_float16", [(3, math.inf)], WEIGHTS | {"weight_dtype": 2}, {}),
        ("weight_negative_float16", [(3, -0.5)], WEIGHTS | {"weight_dtype": 2}, {}),
        ("weight_nan_bfloat16", [(3, math.nan)], WEIGHTS | {"weight_dtype": 3}, {}),
        ("weight_inf_bfloat16", [(3, math.inf)], WEIGHTS | {"weight_dtype": 3}, {}),
        ("weight_negative_zero_bfloat16", [(3, -0.0)], WEIGHTS | {"weight_dtype": 3}, {}),
        ("weights_more_than_vocab_size", [(i % 2, 0.5) for i in range(3)],
         WEIGHTS | {"vocab_size": 2}, {"low_bits": 1}),
        ("weight_ids_descending", [(9, 0.5), (3, 0.5)], WEIGHTS, {"low_bits": 16}),
        ("weight_id_of_vocab_size", [(49152, 0.5)], WEIGHTS, {}),
    ]  # fmt: skip
    for name, record, header, block in wrong:
        tokens = [1] if header.get("vocab_size") == 2 else [9]
        facts = [(5, fingerprint(tokens), 1)]
        add(name, "Corruption", "records", BLOCK, [record], tokens, header=header, block=block,
            facts=facts)  # fmt: skip
    # A stretch of ones and of zeros: unary codes that never end.
    for name, byte in (("records_all_zeros", 0), ("records_all_ones", 255)):

        def fill(content: bytearray, byte: int = byte) -> None:
            content[10:] = bytes([byte]) * (len(content) - 10)

        add(name, "Corruption", "records", BLOCK, block={"edit": fill})


def other_cases() -> None:
    """Sections 6 and 7."""
    one = [(5, fingerprint(TOKENS), 3)]
    wrong: list[tuple[str, str, int, dict[str, Any]]] = [
        ("seqs_num_items", "num_items", SEQS, {"seqs": {"num_items": 3}}),
        ("seqs_hostile_num_items", "num_items", SEQS, {"seqs": {"num_items": 2**32 - 1}}),
        ("sequence_id_repeated", "sequence_id", SEQS, {"facts": [FACTS[0], (5, *FACTS[1][1:])]}),
        ("fingerprint_of_other_tokens", "fingerprint", SEQS, {"facts": [(5, 1, 3)]}),
        ("lengths_below_positions", "num_positions", COMMIT, {"facts": [(5, one[0][1], 2)]}),
        ("lengths_hostile", "num_positions", COMMIT, {"facts": [(5, one[0][1], 2**32 - 1)]}),
        ("commit_num_positions", "num_positions", COMMIT, {"commit": {"num_positions": 4}}),
        ("commit_num_sequences", "num_sequences", COMMIT, {"commit": {"num_sequences": 1}}),
        ("commit_num_entries", "num_entries", COMMIT, {"commit": {"num_entries": 2**64 - 1}}),
        ("commit_chain", "chain", COMMIT, {"commit": {"chain": 0}}),
        ("commit_reserved", "reserved", COMMIT, {"commit": {"reserved": 1}}),
        ("commit_content_length", "content_length", COMMIT, {"commit": {"content": bytes(40)}}),
        ("meta_not_json", "metadata", META, {"meta": b"{'a': 1}"}),
        ("meta_not_utf8", "metadata", META, {"meta": b'{"a": "\xff"}'}),
        ("meta_not_an_object", "metadata", META, {"meta": b'["a"]'}),
        ("meta_not_strings", "metadata", META, {"meta": b'{"a": 1}'}),
        ("index_num_blocks_hostile", "num_blocks", INDEX, {"index": {"edit": word(0, 2**32 - 1)}}),
        ("index_num_blocks_0", "num_blocks", INDEX, {"index": {"edit": word(0, 0)}}),
        ("index_num_sequence_frames", "num_sequence_frames", INDEX,
         {"index": {"edit": word(1, 2)}}),
        ("index_num_sequences", "num_sequences", INDEX, {"index": {"edit": word(2, 3)}}),
        ("index_reserved", "reserved", INDEX, {"index": {"edit": word(3, 1)}}),
        ("index_block_offset", "block_offsets", INDEX, {"index": {"edit": word(4, 16)}}),
        ("index_block_offset_past_the_end", "block_offsets", INDEX,
         {"index": {"edit": word(4, 2**32 - 1)}}),
        ("index_block_start", "block_starts", INDEX, {"index": {"edit": word(5, 1)}}),
        ("index_sequence_frame_offset", "sequence_frame_offsets", INDEX,
         {"index": {"edit": word(6, 20)}}),
        ("index_sequence_frame_start", "sequence_frame_starts", INDEX,
         {"index": {"edit": word(7, 1)}}),
        ("index_sequence_starts_first", "sequence_starts", INDEX, {"index": {"edit": word(8, 1)}}),
        ("index_sequence_starts_descending", "sequence_starts", INDEX,
         {"index": {"edit": word(9, 4)}}),
        ("index_sequence_starts_other", "sequence_starts", INDEX, {"index": {"edit": word(9, 2)}}),
        ("index_sequence_starts_last", "sequence_starts", INDEX, {"index": {"edit": word(10, 2)}}),
        ("index_with_more", "content_length", INDEX,
         {"index": {"edit": lambda words: words.append(0)}}),
        ("index_of_15_bytes", "content_length", INDEX,
         {"index": {"edit": lambda words: words.__delitem__(slice(3, None))}}),
    ]  # fmt: skip
    for name, field, part, parts in wrong:
        add(name, "Corruption", field, part, **parts)
    encoder = ShardEncoder({})
    encoder.commit()
    encoder.block(RECORDS, TOKENS)
    encoder.sequences(FACTS)
    data = encoder.finish()
    CASES["data_after_the_last_commit"] = Invalid(
        data, "Corruption", "type", encoder.frames[-1][1:]
    )
    blocks = ShardEncoder({}, block_log2=7)
    records, tokens = Numbers(22).sequences([128])[0][2], [1] * 128
    blocks.block(records[:64], tokens[:64])
    blocks.block(records[64:], tokens[64:])
    blocks.sequences([(1, fingerprint(tokens), 128)])
    blocks.commit()
    blocks.index(lambda words: words.__setitem__(slice(4, 6), words[5:3:-1]))
    data = blocks.footer()
    span = blocks.frames[-1][1:]
    CASES["index_block_offsets_descending"] = Invalid(data, "Corruption", "block_offsets", span)


for section in (header_cases, footer_cases, truncated_cases, frame_cases, lz4_cases, place_cases,
                block_cases, record_cases, other_cases):  # fmt: skip
    section()
