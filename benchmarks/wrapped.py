"""What LZ4 does to packed blocks: as they are written, every one bare, every one wrapped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import lz4.block
import numpy as np
from lz4_data import Write
from rates import Run, median_rates
from shard_blocks import blocks
from sizes import SizeRow

import sparselogits as sl
from sparselogits import _core

_SEQUENCES = 8  # of a batch


@dataclass(frozen=True)
class Wrapping:
    """A kind of data in packed blocks.

    Attributes:
        bare, forced, written: Bytes of block content per position: no block wrapped, every one
            wrapped, and those where that saves 3 %.
        share: Of the positions, those in blocks that were wrapped.
        bare_decode, written_decode: Millions of positions per second of CPU time.
    """

    data: str
    positions: int
    bare: float
    forced: float
    written: float
    share: float
    bare_decode: float
    written_decode: float


def measure_wrapping(data: str, write: Write, repeats: int) -> Wrapping:
    """Writes the data twice, once with LZ4 out of reach, and times reading whole sequences."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = {"bare": Path(scratch) / "bare", "written": Path(scratch) / "written"}
        with _without_lz4():
            write(paths["bare"])
        write(paths["written"])
        bare, written = (list(blocks(path)) for path in paths.values())
        rates = median_rates({key: _decode(path) for key, path in paths.items()}, repeats)
    assert not any(block.is_wrapped for block in bare)
    positions = sum(block.positions for block in bare)
    forced = sum(len(wrap(block.content)) for block in bare)
    return Wrapping(
        data,
        positions,
        sum(block.stored for block in bare) / positions,
        forced / positions,
        sum(block.stored for block in written) / positions,
        sum(block.positions for block in written if block.is_wrapped) / positions,
        rates["bare"],
        rates["written"],
    )


def wrapped_row(sizes: SizeRow, cache: Path) -> SizeRow:
    """The sizes of a packed cache, were every block of it wrapped; tokens then count as records."""
    inside = list(blocks(cache))
    saved = sum(block.stored - len(wrap(block.content)) for block in inside) / sizes.positions
    records = sizes.records + sizes.tokens_bytes - saved
    return replace(sizes, codec="packed in lz4", records=records, tokens_bytes=0.0)


def unwrap_run(cache: Path) -> Run:
    """Undoing LZ4 alone, were every block of a cache wrapped."""
    inside = list(blocks(cache))
    frames = [(wrap(block.content), len(block.content)) for block in inside]

    def unwrap() -> None:
        for frame, length in frames:
            lz4.block.decompress(frame, uncompressed_size=length)

    return Run(unwrap, sum(block.positions for block in inside))


def wrap(content: bytes) -> bytes:
    """As the writer wraps: one raw LZ4 block, at the usual effort."""
    return lz4.block.compress(content, store_size=False)


def print_wrapping(rows: Sequence[Wrapping]) -> None:
    """The table for people."""
    print(
        "packed blocks, bytes per position; decoding in millions of positions per second and core"
    )
    print(
        f"{'data':<42}{'bare':>8}{'forced':>8}{'written':>9}{'saved':>8}{'wrapped':>9}"
        f"{'decode':>9}{'bare':>8}"
    )
    for row in rows:
        print(
            f"{row.data:<42}{row.bare:>8.2f}{row.forced:>8.2f}{row.written:>9.2f}"
            f"{1 - row.written / row.bare:>8.1%}{row.share:>9.0%}"
            f"{row.written_decode:>9.2f}{row.bare_decode:>8.2f}"
        )


def _decode(path: Path) -> Run:
    cache = sl.open(path)
    order = np.random.default_rng(0).permutation(len(cache))
    batches = [order[i : i + _SEQUENCES] for i in range(0, len(order), _SEQUENCES)]

    def decode() -> None:
        for batch in batches:
            cache.read_sequences(batch)

    return Run(decode, cache.num_positions)


@contextmanager
def _without_lz4() -> Iterator[None]:
    """A writer that cannot compress leaves every frame bare."""
    _core.use_lz4("package")
    try:
        with mock.patch("lz4.block.compress", side_effect=RuntimeError):
            yield
    finally:
        _core.use_lz4("liblz4")  # where it was linked; else the package stays
