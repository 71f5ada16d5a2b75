"""Offsets above 4 GiB: a shard that 32 bits cannot address is written, torn, recovered and read.

Needs 5 GB in the temporary directory at full scale.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from caches import Interruption
from report import Row, Tally

import sparselogits as sl

TEST_SCALE = 0.005
FULL_BYTES = 4.4e9  # 2^32 and some more
VOCAB_SIZE = 1 << 24
POSITIONS, ENTRIES = 1024, 1024  # of a sequence; of a position
BYTES_PER_SEQUENCE = 6.3e6
CONFIG = sl.CacheConfig(vocab_size=VOCAB_SIZE, rounds=1, value_kind="weights", codec="packed")


class Sequences:
    """Sequences of which each differs from every other one, made from one set of arrays."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        # Weights of any bits, so that neither LZ4 nor a gap makes the shard smaller.
        self._weights = rng.integers(0, 0x7F000000, POSITIONS * ENTRIES).astype(np.uint32)
        self._weights = self._weights.view(np.float32)
        ids = rng.integers(0, VOCAB_SIZE // ENTRIES, (POSITIONS, ENTRIES))
        self.token_ids = (ids + np.arange(ENTRIES) * (VOCAB_SIZE // ENTRIES)).reshape(-1)
        self.offsets = np.arange(POSITIONS + 1) * ENTRIES

    def tokens(self, index: int) -> np.ndarray:
        return (np.arange(POSITIONS) * 4099 + index) % VOCAB_SIZE

    def weights(self, index: int) -> np.ndarray:
        weights = self._weights.copy()
        weights[::ENTRIES] = index  # the first entry of each position
        return weights

    def append_to(self, writer: sl.CacheWriter, index: int) -> None:
        writer.append(
            self.tokens(index),
            self.offsets,
            self.token_ids,
            sequence_id=index,
            weights=self.weights(index),
        )

    def is_in(self, cache: sl.Cache, index: int) -> bool:
        """Whether the cache gives the sequence back, and the same through single positions."""
        read = cache[index]
        last = cache.read_positions([index * POSITIONS + POSITIONS - 1])
        return bool(
            np.array_equal(read.input_ids, self.tokens(index))
            and np.array_equal(read.token_ids, self.token_ids)
            and np.array_equal(read.weights, self.weights(index))
            and np.array_equal(read.weights[-ENTRIES:], last.weights)
        )


def run(scale: float) -> list[Row]:
    """Writing and recovery, reading at both ends, damage behind the 32-bit border."""
    number = max(8, int(FULL_BYTES * scale / BYTES_PER_SEQUENCE))
    with tempfile.TemporaryDirectory(prefix="sparselogits-large-") as directory:
        path = Path(directory) / "cache"
        sequences = Sequences()
        write_and_die(path, sequences, number)
        rows = [recovered(path, sequences, number)]
        rows.append(read_at_the_ends(path, sequences, number))
        rows += damaged(path)
    return rows


def write_and_die(path: Path, sequences: Sequences, number: int) -> None:
    """All but the last sequence are committed; what follows the commit is torn off."""
    try:
        with sl.CacheWriter(path, CONFIG, shard_bytes=1 << 34, commit_bytes=1 << 34) as writer:
            for index in range(number - 1):
                sequences.append_to(writer, index)
            writer.flush()
            (partial,) = path.glob("*.partial")
            committed = partial.stat().st_size
            sequences.append_to(writer, number - 1)
            raise Interruption
    except Interruption:
        pass
    with partial.open("r+b") as file:
        file.truncate(committed + 100_000)


def recovered(path: Path, sequences: Sequences, number: int) -> Row:
    report = sl.recover(path)
    with sl.CacheWriter(path, CONFIG, resume=True) as writer:
        sequences.append_to(writer, number - 1)
    cache = sl.open(path)
    size = cache.manifest.shards[0].bytes
    tally = Tally("a large shard is torn, recovered and resumed", f"{size / 2**30:.2f} GiB")
    cache.verify()
    if report.dropped_bytes == 100_000 and cache.sequence_ids.tolist() == list(range(number)):
        tally.recovered += number
    else:
        tally.lose(f"{report}")
    return tally.row()


def read_at_the_ends(path: Path, sequences: Sequences, number: int) -> Row:
    tally = Tally("its first, middle and last sequences are read")
    cache = sl.open(path)
    for index in sorted({0, 1, number // 2, number - 3, number - 2, number - 1}):
        if sequences.is_in(cache, index):
            tally.harmless += 1
        else:
            tally.lose(f"sequence {index} is another one")
    return tally.row()


def damaged(path: Path) -> list[Row]:
    """The last block of the large shard lies behind 4 GiB at full scale."""
    row = sl.open(path).manifest.shards[0]
    shard = path / row.file
    place = row.bytes - 3_000_000
    flips, cuts = Tally("a bit is flipped at its far end"), Tally("it is cut at its far end")
    with shard.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))
    try:
        sl.open(path).read(row.sequences - 1)
        flips.lose(f"nothing was said about byte {place}")
    except sl.CorruptionError as error:
        # The checksum of the frame that holds the byte.
        if error.offset is not None and place - 1e8 < error.offset < place:
            flips.detected += 1
        else:
            flips.lose(f"byte {place} was flipped, the error names {error}")
    with shard.open("r+b") as file:
        file.truncate(place)
    try:
        sl.open(path)
        cuts.lose(f"opened after a cut at {place}")
    except sl.TruncatedError:
        cuts.detected += 1
    return [flips.row(), cuts.row()]
