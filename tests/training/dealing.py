"""Datasets as loaders' workers see them, without processes; and the shapes of jobs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import copy
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from small_cache import sequences

import sparselogits.torch.dataset as dataset_module
from sparselogits.torch import Batch, SparseLogitDataset

Row: TypeAlias = tuple[int, tuple[int, ...]]
Shape: TypeAlias = tuple[int, int]
"""Ranks and workers of each."""

GLOBAL_BATCH = 4
SHAPES = list(itertools.product([1, 2, 4], [0, 1, 2, 3]))
FEW_SHAPES = [(1, 0), (1, 3), (2, 2), (4, 1)]

Make: TypeAlias = Callable[..., SparseLogitDataset]
"""Makes a dataset of GLOBAL_BATCH samples a step from (world_size, rank, **keywords)."""


def rows(batch: Batch) -> list[Row]:
    """What tells the rows of a batch apart: their sequence and tokens."""
    tokens = [
        tuple(row[:length].tolist())
        for row, length in zip(batch.input_ids, batch.lengths, strict=True)
    ]
    return list(zip(sequences(batch), tokens, strict=True))


def deal(
    dataset: SparseLogitDataset, workers: int, monkeypatch: pytest.MonkeyPatch
) -> list[list[Row]]:
    """What a DataLoader yields: it asks its workers in turns, beginning with worker 0."""
    if workers == 0:
        return [rows(batch) for batch in dataset]
    shares = []
    for worker in range(workers):
        with monkeypatch.context() as patch:
            info = SimpleNamespace(id=worker, num_workers=workers)
            patch.setattr(dataset_module, "get_worker_info", lambda info=info: info)
            shares.append([rows(batch) for batch in copy(dataset)])
    turns = itertools.zip_longest(*shares)
    return [batch for turn in turns for batch in turn if batch is not None]


def global_steps(
    make: Make,
    shape: Shape,
    monkeypatch: pytest.MonkeyPatch,
    state: dict[str, Any] | None = None,
    epoch: int | None = None,
) -> list[list[Row]]:
    """What the ranks see together at each step of a pass, from a state where one is given."""
    world_size, workers = shape
    ranks = []
    for rank in range(world_size):
        dataset = make(world_size, rank)
        if state is not None:
            dataset.load_state_dict(state)
        dataset.set_epoch(dataset.epoch if epoch is None else epoch)  # as a loop over epochs does
        ranks.append(deal(dataset, workers, monkeypatch))
    steps = itertools.zip_longest(*ranks, fillvalue=[])
    return [[row for batch in step for row in batch] for step in steps]
