"""Section 2 of v1.md, the conventions: errors, integers, bit strings, tables of fields, weights."""

from __future__ import annotations

import math
import struct
from typing import Any

COUNTS, WEIGHTS = 0, 1
WEIGHT_BITS = {1: 32, 2: 16, 3: 16}


class FormatError(Exception):
    """Bytes that are not what v1.md promises: where (file, byte, field) and why."""

    def __init__(self, field: str, offset: int | None, message: str) -> None:
        super().__init__(field, offset, message)
        self.field, self.offset, self.message = field, offset, message
        self.path: str | None = None

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}, field {self.field}: {self.message}"


class Corruption(FormatError):
    """Bytes that contradict themselves, a checksum or a limit."""


class Truncated(FormatError):
    """A file that ends too early."""


class Unsupported(FormatError):
    """A version, feature or codec that this decoder does not know."""


def require(
    ok: bool, field: str, offset: int, message: str, error: type[FormatError] = Corruption
) -> None:
    """Raises `error` unless `ok`."""
    if not ok:
        raise error(field, offset, message)


def bits(x: int) -> int:
    """The number of bits needed to write x."""
    return x.bit_length()


def u(data: bytes) -> int:
    """An unsigned little-endian integer of any size."""
    return int.from_bytes(data, "little")


def u32s(data: bytes) -> list[int]:
    """Consecutive u32."""
    return [u(data[i : i + 4]) for i in range(0, len(data), 4)]


class Bits:
    """A bit string, least significant bit of each byte first.

    `start` is its byte in the file; `end` its length in bits, which may be lowered; `field` and
    `error` are what a read over the end is reported as.
    """

    def __init__(
        self, data: bytes, start: int, field: str, error: type[FormatError] = Corruption
    ) -> None:
        self.data, self.start, self.field, self.error = data, start, field, error
        self.at, self.end = 0, 8 * len(data)

    @property
    def offset(self) -> int:
        """The byte in the file of the next bit."""
        return self.start + self.at // 8

    def take(self, width: int) -> int:
        """The next field of `width` bits."""
        end = self.at + width
        message = "the bits run past their end"
        require(end <= self.end, self.field, self.offset, message, self.error)
        value = u(self.data[self.at // 8 : (end + 7) // 8]) >> (self.at % 8)
        self.at = end
        return value & ((1 << width) - 1)

    def gamma(self, most_zeros: int) -> int:
        """Section 5.2: an Elias gamma code, least significant bit first."""
        zeros = 0
        while self.take(1) == 0:
            zeros += 1
            require(zeros <= most_zeros, self.field, self.offset, f"gamma code: z > {most_zeros}")
        return (1 << zeros) | self.take(zeros)

    def finish(self) -> None:
        """The rest is padding: less than a byte, all zero."""
        left = self.end - self.at
        require(left < 8, self.field, self.offset, "bytes that are not used")
        require(self.take(left) == 0, self.field, self.offset, "padding bits that are not zero")


def split(
    data: bytes, fields: list[tuple[str, int, int]], base: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """Fixed fields of `data`, which starts at byte `base`: their values and their offsets."""
    values: dict[str, Any] = {}
    offsets: dict[str, int] = {}
    for name, offset, size in fields:
        if name == "reserved":
            zero = not any(data[offset : offset + size])
            require(zero, "reserved", base + offset, "reserved bytes that are not zero")
        else:
            values[name], offsets[name] = u(data[offset : offset + size]), base + offset
    return values, offsets


def weight_of(pattern: int, dtype: int) -> float:
    """The weight with this bit pattern; a bfloat16 is the upper half of a float32."""
    layout, size = ("<e", 2) if dtype == 2 else ("<f", 4)
    stored = (pattern << 16 if dtype == 3 else pattern).to_bytes(size, "little")
    return float(struct.unpack(layout, stored)[0])


def is_weight(weight: float) -> bool:
    """Whether a weight is finite and not negative, sign bit included."""
    return math.isfinite(weight) and math.copysign(1, weight) > 0
