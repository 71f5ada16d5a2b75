"""Section 13 of v1.md: codec models. Slow and obvious."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reference_algorithms import xxh64
from reference_codes import BlockFormat, Family, canonical_code, families
from reference_conventions import (
    WEIGHT_BITS,
    WEIGHTS,
    Bits,
    Corruption,
    FormatError,
    Truncated,
    Unsupported,
    bits,
    require,
    split,
    u,
)

MODEL_MAGIC = b"\x89SLM\r\n\x1a\n"
MODEL_VERSION = 1
MODEL_HEADER = [
    ("magic", 0, 8), ("version", 8, 2), ("reserved", 10, 2), ("vocab_size", 12, 4),
    ("rounds", 16, 4), ("value_kind", 20, 1), ("weight_dtype", 21, 1), ("codes_tokens", 22, 1),
    ("reserved", 23, 1), ("num_classes", 24, 2), ("reserved", 26, 6),
]  # fmt: skip
MODEL_HEADER_LENGTH = 32
MOST_BUCKET_BITS = 24
MODEL_LIMITS = {
    "model_bytes": 2**26, "vocab_size": 2**24, "rounds": 65_535, "num_classes": 256,
    "buckets": 256, "codes": 256,
}  # fmt: skip


@dataclass(frozen=True)
class Bucket:
    """`2^bits` entries from `first` on of `ids`: an own or the global list, or None (raw)."""

    ids: list[int] | None
    first: int
    bits: int

    def entry(self, number: int) -> int | None:
        """The id of an entry; None beyond the end of the list."""
        if self.ids is None:
            return number
        at = self.first + number
        return self.ids[at] if at < len(self.ids) else None


@dataclass
class Model:
    """A model: each class's buckets and their hazards, each family's map and its codes."""

    form: BlockFormat
    buckets: list[list[Bucket]] = field(default_factory=list)
    hazards: list[list[int]] = field(default_factory=list)
    maps: list[list[int]] = field(default_factory=list)
    codes: list[list[dict[tuple[int, int], int]]] = field(default_factory=list)


def model_file(digest: int) -> str:
    """The name of the file of a model."""
    return f"model-{digest:016x}.slm"


def decode_model(data: bytes, digest: int) -> Model:
    """The model in a file whose name says `digest`. Errors name that file as their path."""
    try:
        return _decode(data, digest)
    except FormatError as error:
        error.path = model_file(digest)
        raise


def _decode(data: bytes, digest: int) -> Model:
    ok = len(data) <= MODEL_LIMITS["model_bytes"]
    require(ok, "header", 0, f"{len(data)} bytes are above 2^26")
    found = xxh64(data)
    require(found == digest, "digest", 0, f"is {found:016x}, not what the name says")
    form, num_classes = decode_model_header(data)
    source = Bits(data, 0, "", Truncated)
    source.at = 8 * MODEL_HEADER_LENGTH
    model = Model(form)
    shared = decode_list(source, "global_ids", form)
    for _ in range(num_classes):
        own = decode_list(source, "class_ids", form)
        buckets = decode_buckets(source, "class_buckets", own)
        buckets += decode_buckets(source, "global_buckets", shared)
        buckets.append(Bucket(None, 0, form.id_bits))
        ok = len(buckets) <= MODEL_LIMITS["buckets"]
        require(ok, "class_buckets", source.offset, f"{len(buckets)} buckets are above 256")
        source.field = "hazards"
        model.buckets.append(buckets)
        model.hazards.append([source.take(7) for _ in buckets])
    for family in families(form, num_classes):
        decode_family(source, family, model)
    source.field, source.error = "padding", Corruption
    source.finish()
    return model


def decode_model_header(data: bytes) -> tuple[BlockFormat, int]:
    """The format of the blocks that a model is for, and the number of its classes."""
    ok = len(data) >= MODEL_HEADER_LENGTH
    require(ok, "header", len(data), "ends in its header", Truncated)
    require(data[:8] == MODEL_MAGIC, "magic", 0, "not a codec model")
    version = u(data[8:10])
    require(version == MODEL_VERSION, "version", 8, f"{version} is not 1", Unsupported)
    header, at = split(data[:MODEL_HEADER_LENGTH], MODEL_HEADER, 0)

    def check(ok: bool, name: str) -> None:
        require(ok, name, at[name], f"{header[name]} is not allowed")

    for name in ("vocab_size", "rounds", "num_classes"):
        check(1 <= header[name] <= MODEL_LIMITS[name], name)
    check(header["value_kind"] in (0, 1), "value_kind")
    dtypes: Any = WEIGHT_BITS if header["value_kind"] == WEIGHTS else (0,)
    check(header["weight_dtype"] in dtypes, "weight_dtype")
    check(header["codes_tokens"] in (0, 1), "codes_tokens")
    form = BlockFormat(
        header["vocab_size"], header["rounds"], header["value_kind"], header["weight_dtype"],
        bool(header["codes_tokens"]),
    )  # fmt: skip
    return form, header["num_classes"]


def decode_list(source: Bits, name: str, form: BlockFormat) -> list[int]:
    """The global list, or the own list of a class."""
    source.field = name
    length = source.take(25)
    ok = length <= form.vocab_size  # they are different
    require(ok, name, source.offset, f"{length} ids are above vocab_size")
    ids: list[int] = []
    for _ in range(length):
        ids.append(source.take(form.id_bits))
        require(ids[-1] < form.vocab_size, name, source.offset, f"id {ids[-1]} ≥ vocab_size")
    require(len(set(ids)) == length, name, source.offset, "an id is there twice")
    return ids


def decode_buckets(source: Bits, name: str, ids: list[int]) -> list[Bucket]:
    """The buckets of a class that cover a list."""
    source.field = name
    buckets = []
    first = 0
    for _ in range(source.take(9)):
        left = len(ids) - first
        width = source.take(5)
        require(width <= MOST_BUCKET_BITS, name, source.offset, f"a bucket of {width} bits")
        require(left > 0, name, source.offset, "a bucket that starts beyond its list")
        require(2**width < 2 * left, name, source.offset, f"2^{width} entries for {left} ids")
        buckets.append(Bucket(ids, first, width))
        first += 2**width
    require(first >= len(ids), name, source.offset, "buckets that do not cover their list")
    return buckets


def decode_family(source: Bits, family: Family, model: Model) -> None:
    """The map and the codes of a family; neither of one that is not in the model."""
    contexts: list[int] = []
    codes: list[dict[tuple[int, int], int]] = []
    if family.in_model:
        source.field = "codes"
        number = source.take(9)
        ok = 1 <= number <= MODEL_LIMITS["codes"]
        require(ok, "codes", source.offset, f"{number} codes in a family")
        source.field = "code_map"
        for _ in range(family.contexts):
            contexts.append(source.take(bits(number - 1)))
            ok = contexts[-1] < number
            require(ok, "code_map", source.offset, f"code {contexts[-1]} of {number}")
        codes = [decode_code(source, family) for _ in range(number)]
    model.maps.append(contexts)
    model.codes.append(codes)


def decode_code(source: Bits, family: Family) -> dict[tuple[int, int], int]:
    """The lengths of the code words of a code: complete, or one symbol of length 1."""
    source.field = "code_lengths"
    lengths: list[int] = []
    while len(lengths) < family.symbols:
        lengths.append(source.take(4))
        ok = lengths[-1] <= family.longest
        require(ok, "code_lengths", source.offset, f"{lengths[-1]} is above {family.longest}")
        if lengths[-1] == 0:
            lengths += [0] * source.take(6)
    ok = len(lengths) == family.symbols
    require(ok, "code_lengths", source.offset, f"more lengths than {family.symbols} symbols")
    used = [length for length in lengths if length]
    complete = sum(2 ** (16 - length) for length in used) == 2**16
    require(complete or used == [1], "code_lengths", source.offset, "a code that is not complete")
    return canonical_code(lengths)
