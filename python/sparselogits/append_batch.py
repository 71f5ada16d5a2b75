"""What a caller appends, converted and checked as far as Python can without looking at values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import integer_array, unsigned_array, weight_array
from sparselogits.checks import integer
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_SEQUENCE_ID


@dataclass(frozen=True)
class AppendBatch:
    """Arrays of n sequences, T positions and E entries, of exactly the dtypes of the core."""

    input_ids: npt.NDArray[np.int64]
    sequence_offsets: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64] | None
    weights: npt.NDArray[np.float32] | None
    sequence_ids: npt.NDArray[np.uint64]


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
    """Checks kinds and lengths; ranges, order and sums are checked by the core.

    `sequence_offsets` None means one sequence, `sequence_ids` None ids from `next_id` on.

    Raises:
        InvalidArgumentError: Names what is wrong, with both numbers where lengths disagree.
    """
    tokens = integer_array("input_ids", input_ids)
    positions = integer_array("offsets", offsets)
    ids = integer_array("token_ids", token_ids)
    if sequence_offsets is None:
        starts = np.array([0, len(tokens)], np.int64)
    else:
        starts = integer_array("sequence_offsets", sequence_offsets)
    _check_ends("sequence_offsets", starts, "input_ids", len(tokens))
    if len(positions) != len(tokens) + 1:
        raise InvalidArgumentError(
            f"offsets must have one value more than input_ids, "
            f"got {len(positions)} offsets for {len(tokens)} input_ids"
        )
    _check_ends("offsets", positions, "token_ids", len(ids))
    kind, other = ("counts", weights) if value_kind == "counts" else ("weights", counts)
    values = counts if kind == "counts" else weights
    if other is not None or values is None:
        wrong = "weights" if kind == "counts" else "counts"
        raise InvalidArgumentError(f"this is a {kind} cache: give {kind}, and no {wrong}")
    integers = integer_array("counts", values) if kind == "counts" else None
    floats = weight_array("weights", values) if kind == "weights" else None
    length = sum(len(array) for array in (integers, floats) if array is not None)
    if length != len(ids):
        raise InvalidArgumentError(
            f"{kind} must be one a token_id, got {length} {kind} for {len(ids)} token_ids"
        )
    return AppendBatch(
        tokens,
        starts,
        positions,
        ids,
        integers,
        floats,
        _sequence_ids(sequence_ids, len(starts) - 1, next_id),
    )


def one_sequence_id(sequence_id: Any) -> list[int] | None:
    """A single id as `convert_batch` takes it.

    Raises:
        InvalidArgumentError: Not an integer from 0 to 2^64 - 1.
    """
    if sequence_id is None:
        return None
    return [integer("sequence_id", sequence_id, 0, MAX_SEQUENCE_ID)]


def _check_ends(name: str, offsets: npt.NDArray[np.int64], of: str, length: int) -> None:
    if not len(offsets):
        raise InvalidArgumentError(f"{name} must start with 0, got an empty array")
    if offsets[0] != 0:
        raise InvalidArgumentError(f"{name} must start with 0, got {offsets[0]}")
    if offsets[-1] != length:
        raise InvalidArgumentError(
            f"{name} must end at the number of {of}, got {offsets[-1]} for {length} {of}"
        )


def _sequence_ids(values: Any, length: int, next_id: int) -> npt.NDArray[np.uint64]:
    if values is None:
        if next_id + length > MAX_SEQUENCE_ID + 1:
            raise InvalidArgumentError("no sequence_id is left above the highest: give one")
        default: npt.NDArray[np.uint64] = np.arange(length, dtype=np.uint64)
        default += np.uint64(next_id if length else 0)
        return default
    ids = unsigned_array("sequence_ids", values)
    if len(ids) != length:
        raise InvalidArgumentError(
            f"sequence_ids must be one a sequence, got {len(ids)} for {length} sequences"
        )
    return ids
