"""Datasets and their workers leave nothing behind, whatever went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from caches import random_sequence, write
from damage import damage, shard
from held import nothing_more_held
from torch.utils.data import DataLoader

import sparselogits as sl
from sparselogits.torch import SparseLogitDataset

SEQUENCES = [random_sequence(i, 40) for i in range(6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of six shards."""
    write(tmp_path / "c", SEQUENCES, shard_bytes=1)
    return tmp_path / "c"


def test_datasets(path: Path, tmp_path: Path) -> None:
    assert len(list(SparseLogitDataset(path, 2))) == 3  # torch starts its threads
    with nothing_more_held(tmp_path):
        iterator = iter(SparseLogitDataset(path, 2))
        next(iterator)
        del iterator
        with pytest.raises(sl.InvalidArgumentError):
            SparseLogitDataset(path, 0)
        with pytest.raises(sl.InvalidArgumentError):
            SparseLogitDataset(path, 2, input_ids=[[1]])
        wrong = [sequence.input_ids[::-1] for sequence in SEQUENCES]
        with pytest.raises(sl.MismatchError):
            list(SparseLogitDataset(path, 2, input_ids=wrong))
        damage(shard(path, 2), 0.4)
        with pytest.raises(sl.CorruptionError):
            list(SparseLogitDataset(path, 2))


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)
def test_workers_of_a_loader(path: Path, tmp_path: Path) -> None:
    def loader() -> DataLoader[object]:
        dataset = SparseLogitDataset(path, 2)
        return DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")

    assert len(list(loader())) == 3  # the first one starts what all of them share
    with nothing_more_held(tmp_path):
        for _ in range(2):
            assert len(list(loader())) == 3
        half = iter(loader())
        next(half)
        del half
        damage(shard(path, 2), 0.4)
        with pytest.raises(sl.CorruptionError):
            list(loader())
