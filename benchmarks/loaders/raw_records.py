"""Sequences as others would store them: their arrays as bytes, and what turns these into tensors.

The layout favours speed over size: NumPy reads it in place, and nothing has to be unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from samples import LENGTH, Sample

from loaders.base import Tensors

_BYTES_PER_TOKEN = 5  # an int32, and a uint8 that counts the position's entries
_BYTES_PER_ENTRY = 5  # an int32, and a uint8 that counts its draws
IGNORED_LABEL = -100


@dataclass(frozen=True)
class RawRecord:
    """What the writers of benchmarks/faults/adapters take."""

    encoded: bytes


def raw_records(sample: Sample) -> Iterator[RawRecord]:
    """One a sequence."""
    entries = np.diff(sample.offsets)
    assert entries.max() < 256
    assert sample.counts.max() < 256
    for number, tokens in enumerate(sample.tokens):
        first = number * LENGTH
        own = slice(sample.offsets[first], sample.offsets[first + LENGTH])
        yield RawRecord(
            tokens.astype("<i4").tobytes()
            + entries[first : first + LENGTH].astype(np.uint8).tobytes()
            + sample.token_ids[own].astype("<i4").tobytes()
            + sample.counts[own].astype(np.uint8).tobytes()
        )


class Decoder:
    """Makes the tensors of a batch of records: a collate function."""

    def __init__(self, rounds: int) -> None:
        self._rounds = np.float32(rounds)

    def __call__(self, records: Sequence[bytes]) -> Tensors:
        parts = [_arrays(record) for record in records]
        tokens, entries, token_ids, counts = zip(*parts, strict=True)
        return self.tensors(
            np.stack(tokens),
            np.concatenate(entries),
            np.concatenate(token_ids),
            np.concatenate(counts),
        )

    def tensors(
        self,
        tokens: npt.NDArray[np.int32],
        entries: npt.NDArray[np.uint8],
        token_ids: npt.NDArray[np.int32],
        counts: npt.NDArray[np.uint8],
    ) -> Tensors:
        """From tokens (B, S), entries of each position (B·S), ids and counts (E)."""
        input_ids = tokens.astype(np.int64)
        labels = np.empty_like(input_ids)
        labels[:, :-1] = input_ids[:, 1:]
        labels[:, -1] = IGNORED_LABEL
        offsets = np.zeros(len(entries) + 1, np.int64)
        np.cumsum(entries, out=offsets[1:])
        weights = np.divide(counts, self._rounds, dtype=np.float32)
        arrays = (input_ids, labels, offsets, token_ids, weights)
        return tuple(map(torch.from_numpy, arrays))  # type: ignore[return-value]


def _arrays(record: bytes) -> tuple[npt.NDArray[np.integer], ...]:
    num_entries = (len(record) - LENGTH * _BYTES_PER_TOKEN) // _BYTES_PER_ENTRY
    ids_at = LENGTH * _BYTES_PER_TOKEN
    return (
        np.frombuffer(record, "<i4", LENGTH),
        np.frombuffer(record, np.uint8, LENGTH, 4 * LENGTH),
        np.frombuffer(record, "<i4", num_entries, ids_at),
        np.frombuffer(record, np.uint8, num_entries, ids_at + 4 * num_entries),
    )
