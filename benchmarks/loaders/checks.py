"""Whether a loader gives every sequence of a sample once, to the last bit."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from samples import LENGTH, Sample

from loaders.base import BATCH_SIZE, Tensors
from loaders.raw_records import Decoder, raw_records


def check(name: str, sample: Sample, batches: Iterable[Tensors], in_order: bool) -> None:
    """Compares every row of the batches with the sequences of a sample.

    Raises:
        AssertionError: A row is not what it should be; names the loader.
    """
    records = [record.encoded for record in raw_records(sample)]
    decoder = Decoder(sample.rounds)
    parts = (records[i : i + BATCH_SIZE] for i in range(0, len(records), BATCH_SIZE))
    found = [row for batch in batches for row in _rows(batch)]
    columns = min(map(len, found), default=0)  # a raw decode has neither tokens nor labels
    wanted = [row[:columns] for part in parts for row in _rows(decoder(part))]
    if not in_order:
        wanted.sort()
        found.sort()
    assert found == wanted, f"{name} gives other sequences than were stored"


def _rows(batch: Tensors) -> Iterator[tuple[int, ...]]:
    """Checksums of each row: of its tokens and labels where there are any, and of its targets."""
    tokens, labels, offsets, token_ids, weights = (
        None if tensor is None else np.asarray(tensor) for tensor in batch
    )
    assert offsets is not None
    assert token_ids is not None
    assert weights is not None
    for row in range((len(offsets) - 1) // LENGTH):
        own = offsets[row * LENGTH : (row + 1) * LENGTH + 1]
        entries = slice(own[0], own[-1])
        yield (
            _checksum(own - own[0], np.int64),
            _checksum(token_ids[entries], np.int32),
            _checksum(weights[entries], np.float32),
            *(_checksum(m[row], np.int64) for m in (tokens, labels) if m is not None),
        )


def _checksum(array: npt.NDArray[np.generic], dtype: type[np.generic]) -> int:
    assert array.dtype == dtype
    return zlib.crc32(np.ascontiguousarray(array).tobytes())
