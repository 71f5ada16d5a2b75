"""Plain draws written out once more: one row at a time, Python integers, nothing clever.

The definition is docs/decisions/0009; C++, torch and Triton are tested against this file. NumPy
rounds every float32 operation on its own, and Python integers do not overflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TILE = 256

Floats = npt.NDArray[np.float32]

_ROUNDER = np.float32(12582912.0)
_LOG2E = np.float32(float.fromhex("0x1.715476p+0"))
_LN2_HIGH = np.float32(float.fromhex("0x1.62e4p-1"))
_LN2_LOW = np.float32(float.fromhex("0x1.7f7d1cp-20"))
_SCALE = np.float32(2.0**30)
_POLYNOMIAL = [
    np.float32(float.fromhex(coefficient)) * _SCALE
    for coefficient in (
        "0x1.6a4ce4p-10",
        "0x1.123988p-7",
        "0x1.5558b0p-5",
        "0x1.555492p-3",
        "0x1.fffffcp-2",
        "0x1p+0",
    )
]


def fixed_exp(difference: Floats) -> Floats:
    """e^difference * 2^30 in float32; differences of -43.5 and below, and NaN, count as -43.5."""
    d = np.where(difference > np.float32(-43.5), difference, np.float32(-43.5))
    rounded = d * _LOG2E + _ROUNDER
    k = rounded - _ROUNDER
    r = (d - k * _LN2_HIGH) - k * _LN2_LOW
    q = np.full_like(r, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        q = q * r + coefficient
    return np.ldexp(q * r + _SCALE, k.astype(np.int32))


@dataclass
class Tile:
    """256 tokens of a row, or what is left of them at its end."""

    first_token: int
    masses: list[int]  # of the tokens, relative to the largest of the tile
    mantissa: int
    shift: int

    @property
    def mass(self) -> int:
        """The tile's mass, relative to the largest token of the row."""
        return sum(self.masses) * self.mantissa >> self.shift

    def token(self, offset: int) -> int:
        """The token on which the point falls that lies `offset` into the tile's mass."""
        left = (offset << self.shift) // self.mantissa
        for index, mass in enumerate(self.masses):
            if left < mass:
                return self.first_token + index
            left -= mass
        raise AssertionError("a point beyond its tile")


def tiles_of(row: Floats, temperature: float = 1.0) -> list[Tile]:
    """REQUIRES: every logit below +inf, and the largest scaled logit finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = row.astype(np.float32) / np.float32(temperature)
        parts = [scaled[start : start + TILE] for start in range(0, len(scaled), TILE)]
        base = math.ceil(math.log2(len(parts)))
        tiles = []
        for index, part in enumerate(parts):
            masses = (fixed_exp(part - part.max()) + np.float32(0.5)).astype(np.int32)
            bits = int(fixed_exp(np.array([part.max() - scaled.max()])).view(np.uint32)[0])
            mantissa = bits & 0x7FFFFF | 0x800000
            shift = base + 157 - (bits >> 23)
            tiles.append(Tile(index * TILE, masses.tolist(), mantissa, shift))
    return tiles


def philox4x32(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1 = product1 >> 32 ^ c1 ^ k0, product1 & 0xFFFFFFFF
        c2, c3 = product0 >> 32 ^ c3 ^ k1, product0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def uniform(seed: int, sequence_id: int, position: int, draw: int) -> int:
    """In [0, 2^62)."""
    counter = [
        position & 0xFFFFFFFF,
        position >> 32 << 16 | draw // 2,
        sequence_id & 0xFFFFFFFF,
        sequence_id >> 32,
    ]
    words = philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32])
    low, high = words[draw % 2 * 2 : draw % 2 * 2 + 2]
    return (high << 32 | low) >> 2


def points(
    total: int, rounds: int, sampler: str, seed: int, key: tuple[int, int], offset: float = 0.0
) -> list[int]:
    """Ascending, in [0, total)."""
    if sampler == "multinomial":
        return sorted(uniform(seed, *key, draw) * total >> 62 for draw in range(rounds))
    if sampler == "stratified":
        uniforms = [uniform(seed, *key, draw) for draw in range(rounds)]
    else:
        moved = (uniform(seed, *key, 0) + int(offset * 2.0**62)) % 2**62
        uniforms = [moved] * rounds
    return [(j * total + (u * total >> 62)) // rounds for j, u in enumerate(uniforms)]


def draw_row(
    row: Floats,
    rounds: int = 50,
    sampler: str = "multinomial",
    temperature: float = 1.0,
    seed: int = 0,
    key: tuple[int, int] = (0, 0),
    offset: float = 0.0,
) -> dict[int, int]:
    """The count of each token that was drawn, tokens ascending. `key`: sequence_id, position."""
    tiles = tiles_of(row, temperature)
    counts: dict[int, int] = {}
    below = 0  # the mass of all earlier tiles
    index = 0
    for point in points(sum(tile.mass for tile in tiles), rounds, sampler, seed, key, offset):
        while point >= below + tiles[index].mass:
            below += tiles[index].mass
            index += 1
        token = tiles[index].token(point - below)
        counts[token] = counts.get(token, 0) + 1
    return counts


def draw_rows(logits: Any, keys: Any = None, **options: Any) -> tuple[Any, Any, Any]:
    """`draw_row` of every row, as offsets, token_ids and counts; keys as (P, 2) integers."""
    if keys is None:
        keys = [(0, row) for row in range(len(logits))]
    drawn = [
        draw_row(np.asarray(row), key=(int(key[0]), int(key[1])), **options)
        for row, key in zip(logits, keys, strict=True)
    ]
    offsets = np.cumsum([0] + [len(row) for row in drawn])
    token_ids = np.array([token for row in drawn for token in row], np.int32)
    counts = np.array([count for row in drawn for count in row.values()], np.int32)
    return offsets, token_ids, counts
