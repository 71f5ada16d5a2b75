"""Workers of a DataLoader, however they are started, give what one process gives."""

from __future__ import annotations

import functools
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cache import VOCAB, check_rows, tokens_of, write_cache
from torch.utils.data import DataLoader

import sparselogits as sl
from sparselogits import _core
from sparselogits.torch import Batch, SparseLogitDataset

LENGTHS = [5 + i % 4 for i in range(24)]

# The workers are forked on purpose, and need no cores of their own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache of 24 shards."""
    return write_cache(tmp_path_factory.mktemp("workers") / "c", LENGTHS, shard_bytes=1)


def contents(batches: Any) -> list[tuple[Any, ...]]:
    """All numbers of every batch, in the order of the batches."""
    found = []
    for batch in batches:
        assert isinstance(batch, Batch)
        check_rows(batch, LENGTHS)
        tensors = (batch.input_ids, batch.labels, batch.sequence_ids)
        targets = (batch.targets.offsets, batch.targets.token_ids, batch.targets.weights)
        found.append(tuple(tensor.tolist() for tensor in (*tensors, *targets)))
    return found


def loader(dataset: SparseLogitDataset, method: str) -> Any:
    return DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=method)


def with_few_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches keep two of their shards open; in workers that are not forked, all of them."""
    few = functools.partial(_core.CacheReader, max_open_shards=2)
    monkeypatch.setattr(_core, "CacheReader", few)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_give_the_batches_of_one_process(path: str, method: str) -> None:
    dataset = SparseLogitDataset(path, 4, seed=3)
    alone = contents(DataLoader(dataset, batch_size=None, num_workers=0))  # a pass of this process
    assert len(alone) == 6
    assert contents(loader(dataset, method)) == alone


def test_forked_workers_read_while_a_thread_of_the_parent_reads(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_few_open(monkeypatch)
    dataset = SparseLogitDataset(path, 4, seed=3)
    alone = contents(dataset)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            dataset.cache.read_sequences(np.arange(24))

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        try:
            for _ in range(4):
                assert contents(loader(dataset, "fork")) == alone
        finally:
            done.set()
    for thread in reading:
        thread.result()


def test_workers_that_live_on_keep_no_lock_of_a_writer(path: str, tmp_path: Path) -> None:
    """A job that writes one cache while it reads another."""
    config = sl.CacheConfig(vocab_size=VOCAB, rounds=1)
    others = set(multiprocessing.active_children())
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append(tokens_of(0, 1), [0, 1], [5], [1])
        writer.flush()
        batches = iter(loader(SparseLogitDataset(path, 4), "fork"))
        next(batches)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    with sl.CacheWriter(tmp_path / "c", config, resume=True) as writer:
        writer.append(tokens_of(1, 1), [0, 1], [6], [1])
    assert all(worker.is_alive() for worker in workers)
    assert len(sl.open(tmp_path / "c")) == 2
    assert len(contents(batches)) == 5
