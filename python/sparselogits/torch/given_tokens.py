"""Tokens that the caller brings, put where the core has left room for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparselogits.alignment import TokenSource
from sparselogits.arrays import integer_array
from sparselogits.errors import FingerprintMismatchError
from sparselogits.fingerprint import fingerprint_if_tokens
from sparselogits.misalignment import describe_mismatch
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.read_ahead import Arrays

if TYPE_CHECKING:
    from sparselogits.reader import Cache


def fill_given_tokens(
    plan: BatchPlan,
    arrays: Arrays,
    caches: Sequence[Cache],
    sources: Sequence[TokenSource | None],
) -> None:
    """Writes input ids and labels of the pieces whose cache has a source.

    Raises:
        FingerprintMismatchError: A window is not what the teacher read; says what differs.
        InvalidArgumentError: A window is not 1-D integers.
    """
    input_ids, labels, *_, lengths, _, fingerprints = arrays
    for row in range(plan.num_rows):
        at = 0
        for piece in range(int(plan.row_offsets[row]), int(plan.row_offsets[row + 1])):
            length, cache_index = int(lengths[piece]), int(plan.caches[piece])
            source = sources[cache_index]
            if source is not None:
                index, start = int(plan.sequences[piece]), int(plan.starts[piece])
                window = integer_array(f"input_ids[{index}]", source[index])
                if fingerprint_if_tokens(window) != int(fingerprints[piece]):
                    raise FingerprintMismatchError(
                        describe_mismatch(caches[cache_index], index, window)
                    )
                input_ids[row, at : at + length] = window[start : start + length]
                following = window[start + 1 : start + 1 + length]
                labels[row, at : at + len(following)] = following
            at += length
