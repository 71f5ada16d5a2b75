"""What a plan must give, computed the slow way from `small_cache`'s arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from small_cache import FIRST_ID, ROUNDS, entries_of, tokens_of

from sparselogits.torch.batch import Batch
from sparselogits.torch.batch_plan import BatchPlan

Lengths = list[list[int]]  # of the sequences of each cache


def plan_of(rows: list[list[tuple[int, int, int, int]]]) -> BatchPlan:
    """A plan of rows of pieces (cache, sequence, start, stop)."""
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 4)
    return BatchPlan(
        pieces[:, 0].astype(np.int32),
        *(pieces[:, column].copy() for column in (1, 2, 3)),
        np.cumsum([0] + [len(row) for row in rows]),
    )


def random_plan(rng: np.random.Generator, lengths: Lengths, num_rows: int) -> BatchPlan:
    """Rows of one to four pieces anywhere, some of them empty."""
    rows = []
    for _ in range(num_rows):
        row = []
        for _ in range(rng.integers(1, 5)):
            cache = int(rng.integers(len(lengths)))
            sequence = int(rng.integers(len(lengths[cache])))
            length = lengths[cache][sequence]
            start = int(rng.integers(length + 1))
            stop = int(rng.integers(start, length + 1)) if rng.integers(3) else -1
            row.append((cache, sequence, start, stop))
        rows.append(row)
    return plan_of(rows)


def expected(plan: BatchPlan, lengths: Lengths, pad_token_id: int = 0) -> dict[str, Any]:
    """All arrays of the batch, as lists."""
    rows: list[list[tuple[int, int, list[int], list[int]]]] = []
    names = []
    for first, last in zip(plan.row_offsets[:-1], plan.row_offsets[1:], strict=True):
        row = []
        for piece in range(first, last):
            sequence, stop = int(plan.sequences[piece]), int(plan.stops[piece])
            length = lengths[plan.caches[piece]][sequence]
            tokens = [*tokens_of(sequence, length).tolist(), -100]
            for position in range(int(plan.starts[piece]), length if stop < 0 else stop):
                entries = entries_of(sequence, position)
                row.append((tokens[position], tokens[position + 1], *entries))
        rows.append(row)
        names.append(FIRST_ID + 3 * int(plan.sequences[first]))
    width = max(map(len, rows), default=0)
    padded = [row + [(pad_token_id, -100, [], [])] * (width - len(row)) for row in rows]
    flat = [cell for row in padded for cell in row]
    return {
        "input_ids": [[cell[0] for cell in row] for row in padded],
        "labels": [[cell[1] for cell in row] for row in padded],
        "offsets": np.cumsum([0] + [len(cell[2]) for cell in flat]).tolist(),
        "token_ids": [token for cell in flat for token in cell[2]],
        "weights": [weight_of(count) for cell in flat for count in cell[3]],
        "sequence_ids": names,
    }


def found(batch: Batch) -> dict[str, Any]:
    """The same of a batch."""
    return {
        "input_ids": batch.input_ids.tolist(),
        "labels": batch.labels.tolist(),
        "offsets": batch.targets.offsets.tolist(),
        "token_ids": batch.targets.token_ids.tolist(),
        "weights": batch.targets.weights.tolist(),
        "sequence_ids": batch.sequence_ids.tolist(),
    }


def weight_of(count: int) -> float:
    """A count as a weight, rounded once to float32."""
    return float(np.float32(count) / np.float32(ROUNDS))


def tokens_of_all(lengths: list[int]) -> list[npt.NDArray[np.int32]]:
    """The windows of a cache, by index."""
    return [tokens_of(sequence, length) for sequence, length in enumerate(lengths)]
