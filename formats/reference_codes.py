"""Section 12.1 of v1.md: the codes of a compact block. Slow and obvious."""

from __future__ import annotations

from dataclasses import dataclass

from reference_conventions import COUNTS, WEIGHTS, Bits, bits

(CLASS, ENTRY_NUMBER, COUNT_PAIR, COUNT, GAP, TOKEN_RANK, TOKEN_BUCKET, WEIGHT) = range(8)
SUMS = 25  # values of C
PLAIN_VALUES = 32  # values that are their own symbol
HAZARD_ZERO = 40
GAP_RATIOS = 64
MOST_ENTRIES = 65_535


def log2_step(x: int) -> int:
    """E: about 4 · log2(x), for x ≥ 1."""
    e = bits(x) - 1
    return 4 * e + (4 * x >> e) % 4


def sum_class(x: int) -> int:
    """C: x while it is small, then by its logarithm."""
    return x if x < 8 else min(SUMS - 1, log2_step(x) - 4)


def value_symbols(x: int) -> int:
    """V: the number of symbols for the values 0 … x."""
    if x < PLAIN_VALUES:
        return x + 1
    b = bits(x) - 3
    return 32 + 4 * (b - 3) + (x >> b) % 4 + 1


def gap_context(left: int, hazard: int, wide: int) -> int:
    """Section 12.2, step 4."""
    return min(63, max(0, log2_step(left) - hazard + HAZARD_ZERO)) + GAP_RATIOS * wide


@dataclass(frozen=True)
class BlockFormat:
    """What a compact block and its model must know of each other."""

    vocab_size: int
    rounds: int
    value_kind: int
    weight_dtype: int
    tokens: bool  # stored in the block; coded by the model

    @property
    def id_bits(self) -> int:
        """w of section 5.1."""
        return max(1, bits(self.vocab_size - 1))

    @property
    def most_entries(self) -> int:
        """M."""
        most = self.rounds if self.value_kind == COUNTS else MOST_ENTRIES
        return min(self.vocab_size, most)


@dataclass(frozen=True)
class Family:
    """A row of the table of families."""

    contexts: int
    symbols: int
    longest: int

    @property
    def in_model(self) -> bool:
        """A family of less than two symbols is not."""
        return self.symbols >= 2


def families(form: BlockFormat, num_classes: int) -> list[Family]:
    """The table, in the order of the families' numbers."""
    most = form.most_entries
    counts = form.value_kind == COUNTS
    weights = form.value_kind == WEIGHTS
    return [
        Family(num_classes + 1, num_classes, 10),
        Family(num_classes, value_symbols(most), 11),
        Family(SUMS * SUMS, 64 if counts and most >= 3 else 0, 10),
        Family(SUMS * SUMS, value_symbols(form.rounds - 1) if counts else 0, 10),
        Family(2 * GAP_RATIOS, value_symbols(255), 11),
        Family(16, value_symbols(most) if form.tokens else 0, 10),
        Family(num_classes, 256 if form.tokens else 0, 12),
        Family(8, 256 if weights else 0, 11),
    ]


def canonical_code(lengths: list[int]) -> dict[tuple[int, int], int]:
    """(length, code word) → symbol. The one bit of a lone symbol may have either value."""
    code: dict[tuple[int, int], int] = {}
    word = 0
    for length in range(1, max(lengths) + 1):
        word <<= 1
        for symbol, its_length in enumerate(lengths):
            if its_length == length:
                code[length, word] = symbol
                word += 1
    if len(code) == 1:
        ((symbol),) = code.values()
        code = {(1, 0): symbol, (1, 1): symbol}
    return code


def take_symbol(source: Bits, code: dict[tuple[int, int], int]) -> int:
    """The next symbol; its code stands from its most significant bit on."""
    length, word = 0, 0
    while (length, word) not in code:
        length, word = length + 1, word << 1 | source.take(1)
    return code[length, word]


def value_of(source: Bits, symbol: int) -> int:
    """The value that a symbol and the extra bits behind it stand for."""
    if symbol < PLAIN_VALUES:
        return symbol
    b = 3 + (symbol - 32) // 4
    return (4 + symbol % 4) << b | source.take(b)
