"""Compact caches in training: any process opens them, by path, by pickle, by fork."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
from small_cache import check_rows, write_cache
from torch.utils.data import DataLoader

import sparselogits as sl
from sparselogits.torch import SparseLogitDataset

LENGTHS = [60 + i % 4 for i in range(40)]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache whose shards need a model."""
    directory = tmp_path_factory.mktemp("compact")
    source = write_cache(directory / "packed", LENGTHS)
    model = sl.train_model(source)
    sl.repack(source, directory / "c", codec="compact", model=model, shard_bytes=5000)
    assert sl.open(directory / "c").models == (model,)
    return str(directory / "c")


def batches(source: Any) -> list[tuple[Any, ...]]:
    found = []
    for batch in source:
        check_rows(batch, LENGTHS)
        targets = (batch.targets.offsets, batch.targets.token_ids, batch.targets.weights)
        found.append(tuple(t.tolist() for t in (batch.sequence_ids, batch.input_ids, *targets)))
    return found


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_batches_of_one_process(path: str, method: str) -> None:
    dataset = SparseLogitDataset(path, 4, seed=3)
    expected = batches(dataset)
    assert len(expected) == 10
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=method)
    assert batches(loader) == expected


def lengths_and_models(cache: sl.Cache, model: sl.CodecModel) -> tuple[int, bool]:
    return sum(len(read) for read in cache), cache.models == (model,)


def test_a_cache_and_its_model_go_to_a_spawned_process(path: str) -> None:
    cache = sl.open(path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        told = pool.apply(lengths_and_models, (cache, cache.models[0]))
    assert told == (sum(LENGTHS), True)
    assert pickle.loads(pickle.dumps(cache)).models == cache.models


def test_a_packed_and_a_compact_cache_train_the_same(path: str, tmp_path: Path) -> None:
    sl.repack(path, tmp_path / "packed", codec="packed")
    config = sl.open(tmp_path / "packed").config
    assert dataclasses.replace(config, codec="compact") == sl.open(path).config
    assert batches(SparseLogitDataset(str(tmp_path / "packed"), 4, seed=1)) == batches(
        SparseLogitDataset(path, 4, seed=1)
    )
