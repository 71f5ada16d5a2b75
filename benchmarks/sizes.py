"""Rows of sizes: bytes per position by section, and the CSV that git keeps."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparselogits.inspect import RECORD_SECTIONS, inspect_cache

_COLUMNS = (
    *("sample", "codec", "tokens", "fold", "positions"),
    *("records", "tokens_bytes", "overhead", "total", "model_bytes"),
)


@dataclass(frozen=True)
class SizeRow:
    """Where the bytes of one part of a sample go.

    Attributes:
        tokens: Whether the input tokens are stored too.
        fold: Number of the fold that was held out, or "all": the held-out parts of all folds, one
            after the other.
        records, tokens_bytes, overhead: Bytes per position. Overhead is every byte of every file
            that is neither record nor input token, without the model.
        model_bytes: What was learnt and must be kept once per cache.
    """

    sample: str
    codec: str
    tokens: bool
    fold: str
    positions: int
    records: float
    tokens_bytes: float
    overhead: float
    model_bytes: int

    @property
    def total(self) -> float:
        return self.records + self.tokens_bytes + self.overhead


def cache_sizes(sample: str, codec: str, tokens: bool, fold: str, path: Path) -> SizeRow:
    """The sizes of a cache.

    An LZ4-wrapped block counts as records, though it holds its tokens and directory too.
    """
    report = inspect_cache(path)
    positions = report["positions"]
    in_bytes = {name: section["bytes"] for name, section in report["sections"].items()}
    models = sum(file.stat().st_size for file in path.glob("*.slm"))
    nbytes = sum(file.stat().st_size for file in path.iterdir()) - models
    records, tokens_bytes = sum(in_bytes[name] for name in RECORD_SECTIONS), in_bytes["tokens"]
    parts = (records, tokens_bytes, nbytes - records - tokens_bytes)
    return SizeRow(
        sample, codec, tokens, fold, positions, *(part / positions for part in parts), models
    )


def mean_row(rows: Sequence[SizeRow]) -> SizeRow:
    """The mean of the folds of one codec, each position counting alike."""
    positions = sum(row.positions for row in rows)

    def mean(name: str) -> float:
        return sum(getattr(row, name) * row.positions for row in rows) / positions

    first = rows[0]
    return SizeRow(
        first.sample,
        first.codec,
        first.tokens,
        "mean",
        positions,
        mean("records"),
        mean("tokens_bytes"),
        mean("overhead"),
        round(statistics.mean(row.model_bytes for row in rows)),
    )


def spread(rows: Sequence[SizeRow]) -> float:
    """The largest total of the folds less the smallest, bytes per position."""
    return max(row.total for row in rows) - min(row.total for row in rows)


def write_csv(path: Path, rows: Iterable[SizeRow]) -> None:
    """The rows as they come, three decimals of a byte: the same input gives the same file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in rows:
            parts = (row.records, row.tokens_bytes, row.overhead, row.total)
            writer.writerow(
                [row.sample, row.codec, "yes" if row.tokens else "no", row.fold, row.positions]
                + [f"{part:.3f}" for part in parts]
                + [row.model_bytes]
            )
