"""The valid golden shards of format 1.x: each a name, its bytes and its content as plain data.

The content comes from what was encoded, not from a decoder. See formats/README.md before adding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reference_encoder import Record, ShardEncoder, encode_shard, fingerprint

Rows = list[tuple[int, list[int], list[Record]]]  # (sequence_id, tokens, records)
CASES: dict[str, Callable[[], tuple[bytes, dict[str, Any]]]] = {}
BIG = 2**15  # bytes of JSON above which the expected records are a digest


class Numbers:
    """A generator that gives the same numbers in every version of Python."""

    def __init__(self, seed: int) -> None:
        self.state = seed * 2 + 1

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % limit

    def ids(self, vocab_size: int, k: int) -> list[int]:
        """k distinct ids, ascending."""
        chosen: set[int] = set()
        while len(chosen) < k:
            chosen.add(self.below(vocab_size))
        return sorted(chosen)

    def counts(self, rounds: int, k: int) -> list[int]:
        """k counts that sum to rounds."""
        counts = [1] * k
        for _ in range(rounds - k):
            counts[self.below(k)] += 1
        return counts

    def record(self, vocab_size: int, rounds: int, most: int = 12) -> Record:
        """A record of a counts cache."""
        k = 1 + self.below(min(vocab_size, rounds, most))
        return list(zip(self.ids(vocab_size, k), self.counts(rounds, k), strict=True))

    def sequences(
        self, lengths: Sequence[int], vocab_size: int = 49152, rounds: int = 50, empty: int = 0
    ) -> Rows:
        """Sequences of these lengths; one record in `empty` is empty (0: none)."""
        rows: Rows = []
        for i, length in enumerate(lengths):
            tokens = [self.below(vocab_size) for _ in range(length)]
            records = [
                [] if empty and self.below(empty) == 0 else self.record(vocab_size, rounds)
                for _ in range(length)
            ]
            rows.append((100 + 7 * i, tokens, records))
        return rows


def content(header: Mapping[str, Any], metadata: Mapping[str, str], rows: Rows) -> dict[str, Any]:
    """What a decoder makes of these sequences, in the form of `Shard.to_dict`."""
    fields = {key: header[key] for key in header if key not in ("magic", "header_length")}
    fields["shard_uuid"] = header["shard_uuid"].hex()
    fields["sampler"] = header["sampler"].decode()
    for name in ("tokenizer_fingerprint", "model_digest"):
        fields[name] = f"{header[name]:016x}"
    records: Any = [[list(entry) for entry in record] for _, _, part in rows for record in part]
    text = json.dumps(records)
    if len(text) > BIG:
        records = {"sha256 of the JSON": hashlib.sha256(text.encode()).hexdigest()}
    return {
        "header": fields,
        "metadata": dict(metadata),
        "sequences": [[i, f"{fingerprint(ids):016x}", len(part)] for i, ids, part in rows],
        "tokens": [t for _, ids, _ in rows for t in ids] if header["store_tokens"] else None,
        "records": records,
    }


def shard(
    rows: Rows,
    metadata: Mapping[str, str] | None = None,
    commit_every: int = 0,
    wrap: bool = False,
    **header: Any,
) -> tuple[bytes, dict[str, Any]]:
    """The bytes and the content of a shard that an ordinary writer could have written."""
    if wrap:
        header["incompatible_features"] = 1
    data = encode_shard(rows, metadata, commit_every=commit_every, wrap=wrap, **header)
    return data, content(ShardEncoder(**header).header, metadata or {}, rows)


def case(function: Callable[[], tuple[bytes, dict[str, Any]]]) -> Callable[[], object]:
    """Registers a golden shard under the name of its function."""
    CASES[function.__name__] = function
    return function


@case
def counts() -> tuple[bytes, dict[str, Any]]:
    metadata = {"teacher": "SmolLM2-135M", "note": "ünïcödé ☃", "": "an empty key"}
    rows = Numbers(1).sequences([5, 3, 4])
    return shard(rows, metadata, tokenizer_fingerprint=0x0123456789ABCDEF, temperature=0.75)


@case
def counts_without_tokens() -> tuple[bytes, dict[str, Any]]:
    return shard(Numbers(2).sequences([5, 3]), store_tokens=0, sampler=b"systematic")


def _weights(dtype: int, weights: list[float]) -> tuple[bytes, dict[str, Any]]:
    numbers = Numbers(10 + dtype)
    records: list[Record] = [
        list(zip(numbers.ids(32000, len(part)), part, strict=True))
        for part in (weights, weights[:1], weights[2:5])
    ]
    rows: Rows = [(1, [numbers.below(32000) for _ in records], records)]
    return shard(
        rows,
        vocab_size=32000,
        value_kind=1,
        weight_dtype=dtype,
        sampler=b"0123456789_abc-z",
        proposal_temperature=0.5,
    )


@case
def weights_float32() -> tuple[bytes, dict[str, Any]]:
    return _weights(1, [0.25, 0.0, 2.0**-149, 2.0**-126, (2 - 2.0**-23) * 2.0**127, 1 + 2.0**-23])


@case
def weights_float16() -> tuple[bytes, dict[str, Any]]:
    return _weights(2, [0.25, 0.0, 2.0**-24, 2.0**-14, 65504.0, 1 + 2.0**-10])


@case
def weights_bfloat16() -> tuple[bytes, dict[str, Any]]:
    return _weights(3, [0.25, 0.0, 2.0**-133, 2.0**-126, (2 - 2.0**-7) * 2.0**127, 1 + 2.0**-7])


@case
def weights_with_empty_records() -> tuple[bytes, dict[str, Any]]:
    rows: Rows = [(1, [0, 6, 3], [[], [(0, 0.5), (6, 0.5)], []]), (2, [1], [[(3, 4.0)]])]
    return shard(rows, vocab_size=7, value_kind=1, weight_dtype=2)


@case
def empty_records() -> tuple[bytes, dict[str, Any]]:
    rows = Numbers(3).sequences([40, 1, 60], vocab_size=300, rounds=5, empty=3)
    return shard(rows, vocab_size=300, rounds=5)


@case
def only_empty_records() -> tuple[bytes, dict[str, Any]]:
    return shard([(9, [4] * 70, [[] for _ in range(70)])])


@case
def presence_bits_without_empty_records() -> tuple[bytes, dict[str, Any]]:
    rows = Numbers(4).sequences([6])
    return _one_block(rows, has_empty=True)


@case
def empty_sequences() -> tuple[bytes, dict[str, Any]]:
    rows = Numbers(5).sequences([0, 2, 0, 0, 3, 0])
    rows[0] = (2**64 - 1, [], [])
    rows[1] = (0, *rows[1][1:])
    return shard(rows)


@case
def only_empty_sequences() -> tuple[bytes, dict[str, Any]]:
    return shard(Numbers(5).sequences([0, 0]))


@case
def no_sequences() -> tuple[bytes, dict[str, Any]]:
    return shard([], {"why": "a writer that was closed at once"})


@case
def vocabulary_of_1() -> tuple[bytes, dict[str, Any]]:
    rows: Rows = [(1, [0, 0, 0], [[(0, 50)], [], [(0, 50)]])]
    return shard(rows, vocab_size=1)


@case
def vocabulary_of_2_24() -> tuple[bytes, dict[str, Any]]:
    top = 2**24 - 1
    records: list[Record] = [
        [(0, 1), (top, 49)],
        [(top, 50)],
        [(top - 1, 25), (top, 25)],
        [(0, 50)],
    ]
    return shard([(1, [top, 0, 1, top - 1], records)], vocab_size=2**24)


@case
def vocabulary_of_151936() -> tuple[bytes, dict[str, Any]]:
    """Ids above 2^17 stay what they are: elsewhere they were masked to 17 bits."""
    pairs = [131071, 131072, 131073, 151643, 151935]
    records: list[Record] = [[(i % 2**17, 10), (i, 40)] if i >= 2**17 else [(i, 50)] for i in pairs]
    return shard([(1, pairs, records)], vocab_size=151936)


@case
def rounds_of_1() -> tuple[bytes, dict[str, Any]]:
    return shard(Numbers(6).sequences([7, 2], rounds=1), rounds=1)


@case
def rounds_of_65535() -> tuple[bytes, dict[str, Any]]:
    records: list[Record] = [
        [(17, 65535)], [(0, 1), (49151, 65534)], [(3, 32767), (4, 32768)],
    ]  # fmt: skip
    return shard([(1, [1, 2, 3], records)], rounds=65535)


@case
def record_of_65535_entries() -> tuple[bytes, dict[str, Any]]:
    records: list[Record] = [[(i, 1) for i in range(65535)], [(i + 1, 1) for i in range(65535)]]
    return shard([(1, [65535, 0], records)], wrap=True, rounds=65535, vocab_size=65536)


@case
def blocks_and_commits() -> tuple[bytes, dict[str, Any]]:
    """Sequences over block ends, blocks that a commit ended early, full blocks."""
    rows = Numbers(7).sequences([50, 100, 10, 128, 0, 1], vocab_size=500, rounds=3)
    return shard(rows, commit_every=2, vocab_size=500, rounds=3)


@case
def several_stretches() -> tuple[bytes, dict[str, Any]]:
    rows = Numbers(8).sequences([129, 64], vocab_size=500, rounds=3, empty=9)
    return shard(rows, block_log2=16, vocab_size=500, rounds=3)


@case
def several_frames_in_a_commit() -> tuple[bytes, dict[str, Any]]:
    """Short blocks without a commit between, two SEQS in a commit, an empty commit group."""
    rows = Numbers(9).sequences([3, 2, 4])
    encoder = ShardEncoder({})
    facts = [(i, fingerprint(ids), len(ids)) for i, ids, _ in rows]
    for i in range(2):
        encoder.block(rows[i][2], rows[i][1])
    encoder.sequences(facts[:1])
    encoder.sequences(facts[1:2])
    encoder.commit()
    encoder.commit()
    encoder.block(rows[2][2], rows[2][1])
    encoder.sequences(facts[2:])
    encoder.commit()
    return encoder.finish(), content(encoder.header, {}, rows)


def _one_block(rows: Rows, wrap: bool = False, **block: Any) -> tuple[bytes, dict[str, Any]]:
    encoder = ShardEncoder({}, block_log2=16, incompatible_features=int(wrap))
    records = [record for _, _, part in rows for record in part]
    encoder.block(records, [t for _, ids, _ in rows for t in ids], wrap=wrap, **block)
    encoder.sequences([(i, fingerprint(ids), len(ids)) for i, ids, _ in rows])
    encoder.commit()
    return encoder.finish(), content(encoder.header, {}, rows)


@case
def low_bits_of_0() -> tuple[bytes, dict[str, Any]]:
    rows: Rows = [(1, [5, 6], [[(0, 1), (300, 49)], [(7, 50)]])]
    return _one_block(rows, low_bits=0)


@case
def low_bits_of_24() -> tuple[bytes, dict[str, Any]]:
    return _one_block(Numbers(11).sequences([6]), low_bits=24)


@case
def wide_directory_of_small_stretches() -> tuple[bytes, dict[str, Any]]:
    return _one_block(Numbers(12).sequences([130]), wide=True)


@case
def wide_directory() -> tuple[bytes, dict[str, Any]]:
    """Stretches above 65,535 bytes; every record the same, so that LZ4 makes the file small."""
    record: Record = [(3 * i, 0.5) for i in range(512)]
    encoder = ShardEncoder({}, block_log2=7, incompatible_features=1, value_kind=1, weight_dtype=1)
    tokens = [1] * 70
    encoder.block([record] * 70, tokens, wrap=True)
    encoder.sequences([(1, fingerprint(tokens), 70)])
    encoder.commit()
    return encoder.finish(), content(encoder.header, {}, [(1, tokens, [record] * 70)])


@case
def lz4_frames() -> tuple[bytes, dict[str, Any]]:
    rows = Numbers(13).sequences([40, 30], vocab_size=20, rounds=2, empty=2)
    metadata = {"text": "again and again and again " * 20}
    return shard(rows, metadata, wrap=True, commit_every=1, vocab_size=20, rounds=2)


@case
def lz4_feature_without_wrapped_frames() -> tuple[bytes, dict[str, Any]]:
    return shard(Numbers(14).sequences([2]), incompatible_features=1)


@case
def newer_minor_version() -> tuple[bytes, dict[str, Any]]:
    return shard(Numbers(15).sequences([2]), version_minor=65535)


@case
def unknown_compatible_features() -> tuple[bytes, dict[str, Any]]:
    return shard(Numbers(16).sequences([2]), compatible_features=2**32 - 1)


def cache_shards() -> Iterator[tuple[str, bytes, Rows]]:
    """The two shards of the golden cache: file, bytes, sequences."""
    rows = Numbers(17).sequences([4, 0, 3, 5])
    for i, part in enumerate((rows[:2], rows[2:])):
        uuid = bytes(range(0x20 + 0x10 * i, 0x30 + 0x10 * i))
        data = encode_shard(part, {"teacher": "golden"}, shard_uuid=uuid)
        yield f"shard-{i:06d}.slc", data, part
