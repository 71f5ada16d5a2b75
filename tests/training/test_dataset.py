"""SparseLogitDataset over real caches: order, alignment, padding, tokens, workers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cache import VOCAB, check_rows, flat, sequences, tokens_of, write_cache
from torch.utils.data import DataLoader

import sparselogits as sl
from sparselogits import errors
from sparselogits.torch import SparseLogitDataset, fused_linear_sparse_kd_loss, sparse_kd_loss

LENGTHS = [9] * 26
RAGGED = [1 + (5 * i) % 9 for i in range(26)]

# Nothing here depends on forking in a threaded process, or on having a core for each worker.
forks = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cache(tmp_path_factory.mktemp("caches") / "even", LENGTHS)


@pytest.fixture(scope="module")
def ragged_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cache(tmp_path_factory.mktemp("caches") / "ragged", RAGGED)


@pytest.fixture(scope="module")
def bare_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cache(tmp_path_factory.mktemp("caches") / "bare", LENGTHS, store_tokens=False)


def windows() -> list[np.ndarray]:
    return [tokens_of(i, length) for i, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size, world_size", [(1, 1), (4, 1), (3, 2), (2, 4)])
def test_targets_belong_to_their_sequence(
    path: str, ragged_path: str, shuffle: bool, batch_size: int, world_size: int
) -> None:
    """A peer aligned by iteration order: other batches trained on other positions' targets."""
    for chosen, lengths in ((path, LENGTHS), (ragged_path, RAGGED)):
        for rank in range(world_size):
            dataset = SparseLogitDataset(
                chosen, batch_size, shuffle, rank=rank, world_size=world_size
            )
            batches = list(dataset)
            assert len(batches) == len(dataset) == 26 // (batch_size * world_size)
            for batch in batches:
                assert batch.targets.num_rows == batch.input_ids.numel()
                assert batch.targets.vocab_size == VOCAB
                check_rows(batch, lengths)


@forks
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(ragged_path: str, workers: int) -> None:
    dataset = SparseLogitDataset(ragged_path, 4, seed=5)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    batches = list(loader)
    assert [sequences(b) for b in batches] == [sequences(b) for b in dataset]
    for batch in batches:
        check_rows(batch, RAGGED)


def test_spawned_workers_reopen_the_cache(path: str) -> None:
    dataset = SparseLogitDataset(path, 8)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert [sequences(b) for b in loader] == [sequences(b) for b in dataset]


def test_pickles_small(path: str) -> None:
    dataset = SparseLogitDataset(path, 4)
    data = pickle.dumps(dataset)
    assert len(data) < 5000
    assert [sequences(b) for b in pickle.loads(data)] == [sequences(b) for b in dataset]


def test_whole_sequences_need_no_table_of_all(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache may have more sequences than memory holds names of."""
    expected = [sequences(b) for b in SparseLogitDataset(path, 4)]

    def refuse(cache: sl.Cache) -> None:
        raise AssertionError("asked for all sequences")

    monkeypatch.setattr(sl.Cache, "_sequences", refuse)
    for keywords in ({}, {"shuffle": False}, {"shuffle_block": 3}, {"mixture_weights": [2]}):
        assert len(list(SparseLogitDataset([path], 4, **keywords))) == 6
    assert [sequences(b) for b in SparseLogitDataset(path, 4)] == expected
    with pytest.raises(AssertionError, match="asked for all"):
        SparseLogitDataset(path, 4, window=3)


def test_global_batches_do_not_depend_on_the_ranks(path: str) -> None:
    expected = [sequences(b) for b in SparseLogitDataset(path, 4, seed=9)]
    for world_size in (2, 4):
        ranks = [
            [
                sequences(b)
                for b in SparseLogitDataset(
                    path, 4 // world_size, seed=9, rank=rank, world_size=world_size
                )
            ]
            for rank in range(world_size)
        ]
        assert [flat(step) for step in zip(*ranks, strict=True)] == expected


def test_epochs(path: str) -> None:
    dataset = SparseLogitDataset(path, 13)
    first = [sequences(b) for b in dataset]
    assert first == [sequences(b) for b in dataset]
    dataset.set_epoch(1)
    second = [sequences(b) for b in dataset]
    assert first != second
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(26))
    assert [sequences(b) for b in SparseLogitDataset(path, 13, epoch=1)] == second
    other = SparseLogitDataset(path, 13, seed=1)
    assert [sequences(b) for b in other] != first


def test_without_shuffle_the_order_is_that_of_the_cache(path: str) -> None:
    dataset = SparseLogitDataset(path, 5, shuffle=False)
    assert flat(sequences(b) for b in dataset) == list(range(25))


def test_keeping_the_last_sequences(path: str) -> None:
    seen, lengths = [], []
    for rank in range(2):
        dataset = SparseLogitDataset(
            path, 4, shuffle=False, rank=rank, world_size=2, drop_last=False
        )
        batches = [sequences(b) for b in dataset]
        assert len(dataset) == len(batches)
        lengths.append([len(b) for b in batches])
        seen += flat(batches)
    assert lengths == [[4, 4, 4, 2], [4, 4, 4]]
    assert sorted(seen) == list(range(26))


def test_padding(ragged_path: str) -> None:
    for batch in SparseLogitDataset(ragged_path, 4, pad_token_id=77):
        check_rows(batch, RAGGED, pad_token_id=77)
        assert batch.input_ids.shape[1] == max(RAGGED[i] for i in sequences(batch))


def test_empty_sequences(tmp_path: Path) -> None:
    lengths = [0, 3, 0, 2]
    path = write_cache(tmp_path / "cache", lengths)
    for batch_size in (1, 4):
        for batch in SparseLogitDataset(path, batch_size, shuffle=False):
            check_rows(batch, lengths)


def test_labels_fit_cross_entropy_and_targets_the_losses(ragged_path: str) -> None:
    batch = next(iter(SparseLogitDataset(ragged_path, 4)))
    embedding = torch.nn.Embedding(VOCAB, 8)
    head = torch.nn.Linear(8, VOCAB, bias=False)
    hidden = embedding(batch.input_ids)
    logits = head(hidden)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).backward()
    plain = sparse_kd_loss(logits.detach(), batch.targets)
    fused = fused_linear_sparse_kd_loss(hidden, head.weight, batch.targets)
    torch.testing.assert_close(fused.detach(), plain)


def test_moves_and_pins(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = next(iter(SparseLogitDataset(path, 4)))
    moved = batch.to("meta", non_blocking=True)
    assert {moved.input_ids.device.type, moved.labels.device.type} == {"meta"}
    assert moved.targets.device.type == "meta"
    assert moved.sequence_ids is batch.sequence_ids
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    batch.pin_memory()
    assert len(pinned) == 5


def test_tokens_from_the_caller(bare_path: str) -> None:
    for given in (windows(), np.stack(windows()), torch.tensor(np.stack(windows()))):
        for batch in SparseLogitDataset(bare_path, 4, input_ids=given):
            check_rows(batch, LENGTHS)


def test_wrong_arguments(path: str, bare_path: str) -> None:
    for keywords, message in (
        ({"batch_size": 0}, "batch_size must be from 1 to .*, got 0"),
        ({"batch_size": 2**31}, "batch_size must be from 1 to .*, got 2147483648"),
        ({"batch_size": 2**30, "world_size": 2}, "a step takes 2147483648 samples"),
        ({"batch_size": 2.0}, "batch_size must be an integer, got 2.0"),
        ({"world_size": 0}, "world_size must be from 1 to .*, got 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2; it must be below world_size, 2"),
        ({"rank": -1}, "rank must be from 0 to .*, got -1"),
        ({"seed": -1}, "seed must be from 0 to .*, got -1"),
        ({"seed": 2**64}, "seed must be from 0 to 18446744073709551615, got 18446744073709551616"),
        ({"epoch": -1}, "epoch must be from 0 to .*, got -1"),
        ({"batch_size": 14, "world_size": 2}, "there are 26 samples and a step takes 28"),
        ({"input_ids": windows()[:5]}, "input_ids has 5 windows and the cache 26"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=message):
            SparseLogitDataset(path, **keywords)
    with pytest.raises(errors.InvalidArgumentError, match="stores no tokens"):
        SparseLogitDataset(bare_path)
    with pytest.raises(errors.InvalidArgumentError, match="must be integers, got dtype float64"):
        next(iter(SparseLogitDataset(bare_path, input_ids=[w * 1.0 for w in windows()])))
