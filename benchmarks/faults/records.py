"""The records that every format is given: one sequence of teacher draws each, and its bytes."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RECORDS = 64
"""Records of a dataset."""

FILE_RECORDS = 8
"""Records of a file, where a format lets the writer choose them."""

BATCH = 2
"""Records between two commits, and of a batch or row group."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """Tokens (S,), offsets (S + 1,), token ids and counts (E,) of a sequence."""

    tokens: Integers
    offsets: Integers
    token_ids: Integers
    counts: Integers
    encoded: bytes = field(init=False)

    def __post_init__(self) -> None:
        data = encode(self.tokens, self.offsets, self.token_ids, self.counts)
        object.__setattr__(self, "encoded", data)


def encode(tokens: Any, offsets: Any, token_ids: Any, counts: Any) -> bytes:
    """The opaque bytes of a record: 2 a token, 1 a position, 3 an entry (17 bits id, 7 count)."""
    entries = (np.asarray(token_ids, np.uint32) << 7) | np.asarray(counts, np.uint32)
    packed = entries.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    lengths = np.diff(np.asarray(offsets)).astype(np.uint8)
    return np.asarray(tokens).astype("<u2").tobytes() + lengths.tobytes() + packed.tobytes()


def save_records(path: Path, sample: Any) -> None:
    """Keeps the first 2 * RECORDS sequences of a `samples.Sample` for the processes of a run."""
    np.savez(
        path,
        tokens=sample.tokens,
        offsets=sample.offsets,
        token_ids=sample.token_ids,
        counts=sample.counts,
    )


def load_records(path: Path) -> tuple[list[Record], list[Record]]:
    """Two datasets of the same shape and different content."""
    with np.load(path) as file:
        tokens, offsets, token_ids, counts = (
            file[name] for name in ("tokens", "offsets", "token_ids", "counts")
        )
    length = tokens.shape[1]
    records = []
    for number in range(2 * RECORDS):
        own = offsets[number * length : (number + 1) * length + 1]
        entries = slice(own[0], own[-1])
        records.append(Record(tokens[number], own - own[0], token_ids[entries], counts[entries]))
    return records[:RECORDS], records[RECORDS:]


class Progress:
    """How many records a writer took and how many it promised to keep; shared with children."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def _get(self, offset: int) -> int:
        return int(struct.unpack_from("<q", self._memory, offset)[0])

    @property
    def appended(self) -> int:
        return self._get(0)

    @property
    def committed(self) -> int:
        return self._get(8)

    def append(self, records: int) -> None:
        struct.pack_into("<q", self._memory, 0, records)

    def commit(self, records: int) -> None:
        struct.pack_into("<q", self._memory, 8, records)


class Source:
    """Hands a writer its records, in order, and notes how far it is.

    Args:
        records: Of the whole dataset.
        fail_at: Raises `Interruption` instead of giving this record.
        pause: Seconds before each record, to spread a writer's work over time.
        start: The first record that `iter` gives.
    """

    def __init__(
        self,
        records: list[Record],
        fail_at: int | None = None,
        pause: float = 0.0,
        start: int = 0,
    ) -> None:
        self.progress = Progress()
        self._records = records
        self._fail_at = fail_at
        self._pause = pause
        self._start = start

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        # Who asks for a record has taken the ones before it.
        self.progress.append(index)
        if index == self._fail_at:
            raise Interruption(f"the teacher failed at record {index}")
        time.sleep(self._pause)
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        for index in range(self._start, len(self)):
            yield self[index]
        self.progress.append(len(self))

    def starting_at(self, index: int) -> Source:
        """The same records, from `index` on."""
        return Source(self._records, start=index)


class Interruption(Exception):
    """What goes wrong in the code around a writer."""
