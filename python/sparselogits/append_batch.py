"""What a caller appends, as arrays of the dtypes that the core takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.arrays import integer_array, unsigned_array, weight_array
from sparselogits.checks import integer
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_SEQUENCE_ID


@dataclass(frozen=True)
class AppendBatch:
    """Arrays of n sequences, T positions and E entries, of exactly the dtypes of the core.

    `fingerprints` (n,) are those of tokens that are not at hand: `input_ids` are placeholders then.
    Otherwise the core hashes `input_ids`.
    """

    input_ids: npt.NDArray[np.int64]
    sequence_offsets: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64] | None
    weights: npt.NDArray[np.float32] | None
    sequence_ids: npt.NDArray[np.uint64]
    fingerprints: npt.NDArray[np.uint64] | None = None

    def append_to(self, shard: _core.ShardWriter) -> None:
        """Appends all sequences, or none where one is not valid.

        Raises:
            InvalidArgumentError: Names what is wrong.
            CacheIOError: The system refused.
        """
        shard.append(
            self.input_ids,
            self.sequence_offsets,
            self.offsets,
            self.token_ids,
            self.counts,
            self.weights,
            self.sequence_ids,
            self.fingerprints,
        )


def convert_batch(
    value_kind: str,
    next_id: int,
    input_ids: Any,
    sequence_offsets: Any,
    offsets: Any,
    token_ids: Any,
    counts: Any,
    weights: Any,
    sequence_ids: Any,
) -> AppendBatch:
    """Converts and checks kinds; lengths, ranges, order and sums are checked by the core.

    `sequence_offsets` None means one sequence, `sequence_ids` None ids from `next_id` on.

    Raises:
        InvalidArgumentError: Names what is wrong.
    """
    tokens = integer_array("input_ids", input_ids)
    positions = integer_array("offsets", offsets)
    ids = integer_array("token_ids", token_ids)
    if sequence_offsets is None:
        starts = np.array([0, len(tokens)], np.int64)
    else:
        starts = integer_array("sequence_offsets", sequence_offsets)
    kind, other = ("counts", weights) if value_kind == "counts" else ("weights", counts)
    values = counts if kind == "counts" else weights
    if other is not None or values is None:
        wrong = "weights" if kind == "counts" else "counts"
        raise InvalidArgumentError(f"this is a {kind} cache: give {kind}, and no {wrong}")
    integers = integer_array("counts", values) if kind == "counts" else None
    floats = weight_array("weights", values) if kind == "weights" else None
    return AppendBatch(
        tokens,
        starts,
        positions,
        ids,
        integers,
        floats,
        _sequence_ids(sequence_ids, max(0, len(starts) - 1), next_id),
    )


def one_sequence_id(sequence_id: Any) -> list[int] | None:
    """A single id as `convert_batch` takes it.

    Raises:
        InvalidArgumentError: Not an integer from 0 to 2^64 - 1.
    """
    if sequence_id is None:
        return None
    return [integer("sequence_id", sequence_id, 0, MAX_SEQUENCE_ID)]


def _sequence_ids(values: Any, length: int, next_id: int) -> npt.NDArray[np.uint64]:
    if values is None:
        if next_id + length > MAX_SEQUENCE_ID + 1:
            raise InvalidArgumentError("no sequence_id is left above the highest: give one")
        default: npt.NDArray[np.uint64] = np.arange(length, dtype=np.uint64)
        default += np.uint64(next_id if length else 0)
        return default
    return unsigned_array("sequence_ids", values)
