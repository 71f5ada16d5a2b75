"""What the tests of capture share: a tokenizer to capture with, and all that a cache holds."""

from __future__ import annotations

from typing import Any

import numpy as np

import sparselogits as sl


class Tokenizer:
    """As much of a tokenizer as capture looks at."""

    def __init__(self, size: int) -> None:
        self._vocabulary = {f"t{i}": i for i in range(size)}

    def __len__(self) -> int:
        return len(self._vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary


def contents(cache: sl.Cache) -> list[tuple[Any, ...]]:
    """Everything stored, sequence by sequence in the order of their ids."""
    rows = []
    for index in np.argsort(cache.sequence_ids):
        seq = cache[int(index)]
        ids = None if seq.input_ids is None else seq.input_ids.tolist()
        entries = (seq.offsets.tolist(), seq.token_ids.tolist(), seq.weights.tolist())
        rows.append((seq.sequence_id, ids, *entries))
    return rows
