"""The position of a training run survives other numbers of ranks and workers."""

from __future__ import annotations

import itertools
import json
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_cache import flat, sequences, write_cache
from torch.utils.data import DataLoader

import sparselogits.torch.dataset as dataset_module
from sparselogits import errors
from sparselogits.torch import SparseLogitDataset

GLOBAL_BATCH = 4
STEPS = 6  # of 26 sequences
SHAPES = list(itertools.product([1, 2, 4], [0, 1, 2, 3]))

# Nothing here depends on forking in a threaded process, or on having a core for each worker.
forks = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cache(tmp_path_factory.mktemp("caches") / "cache", [3] * 26)


def make(path: str, world_size: int = 1, rank: int = 0, **keywords: Any) -> SparseLogitDataset:
    size = GLOBAL_BATCH // world_size
    return SparseLogitDataset(path, size, rank=rank, world_size=world_size, seed=3, **keywords)


def deal(
    dataset: SparseLogitDataset, workers: int, monkeypatch: pytest.MonkeyPatch
) -> list[list[int]]:
    """What a DataLoader yields: it asks its workers in turns, beginning with worker 0."""
    if workers == 0:
        return [sequences(b) for b in dataset]
    shares = []
    for worker in range(workers):
        with monkeypatch.context() as patch:
            info = SimpleNamespace(id=worker, num_workers=workers)
            patch.setattr(dataset_module, "get_worker_info", lambda info=info: info)
            shares.append([sequences(b) for b in copy(dataset)])
    turns = itertools.zip_longest(*shares)
    return [batch for turn in turns for batch in turn if batch is not None]


@pytest.mark.parametrize("after", [0, 1, 3, STEPS - 1, STEPS])
@pytest.mark.parametrize("before", SHAPES, ids=str)
def test_any_shape_to_any_shape(
    path: str, before: tuple[int, int], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [sequences(b) for b in make(path, epoch=2)]
    world_size, workers = before
    states = []
    for rank in range(world_size):
        dataset = make(path, world_size, rank, epoch=2)
        if workers == 0:
            for _ in itertools.islice(dataset, after):
                pass
            states.append(dataset.state_dict())
            assert states[-1] == dataset.state_after(after)
        else:
            states.append(dataset.state_after(after))
    assert all(state == states[0] for state in states)
    for new_world_size, new_workers in SHAPES:
        ranks = []
        for rank in range(new_world_size):
            dataset = make(path, new_world_size, rank)
            dataset.load_state_dict(json.loads(json.dumps(states[0])))
            dataset.set_epoch(dataset.epoch)  # as a loop over epochs does
            ranks.append(deal(dataset, new_workers, monkeypatch))
        found = [flat(step) for step in zip(*ranks, strict=True)]
        assert found == expected[after:]


def test_resuming_a_resumed_pass(path: str) -> None:
    expected = [sequences(b) for b in make(path)]
    state, seen = make(path).state_dict(), []
    for take in (2, 1, 2, 1):
        dataset = make(path)
        dataset.load_state_dict(state)
        seen += [sequences(b) for b in itertools.islice(dataset, take)]
        state = dataset.state_dict()
    assert seen == expected


def test_the_next_epoch_is_whole(path: str) -> None:
    dataset = make(path)
    dataset.load_state_dict(make(path).state_after(4))
    assert len(list(dataset)) == STEPS - 4
    dataset.set_epoch(1)
    assert [sequences(b) for b in dataset] == [sequences(b) for b in make(path, epoch=1)]


def test_the_end_without_drop_last(path: str) -> None:
    dataset = make(path, drop_last=False)
    assert len(list(dataset)) == STEPS + 1
    state = dataset.state_dict()
    assert state["consumed"] == 26
    dataset.load_state_dict(state)
    assert list(dataset) == []


@forks
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_real_loader_resumes(path: str, workers: int) -> None:
    expected = [sequences(b) for b in make(path)]
    dataset = make(path)
    dataset.load_state_dict(dataset.state_after(1))
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    seen = [sequences(b) for b in itertools.islice(loader, 2)]
    state = dataset.state_after(2)
    dataset.load_state_dict(state)
    seen += [sequences(b) for b in loader]
    assert seen == expected[1:]


@forks
@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("after", [0, 1, 3, STEPS - 1, STEPS])
@pytest.mark.filterwarnings("ignore:.set_vital. is deprecated:UserWarning")  # torchdata 0.11's
def test_stateful_data_loader(path: str, workers: int, after: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make_loader() -> Any:
        return stateful.StatefulDataLoader(make(path), batch_size=None, num_workers=workers)

    expected = [sequences(b) for b in make(path)]
    loader = make_loader()
    iterator = iter(loader)
    seen = [sequences(next(iterator)) for _ in range(after)]
    state = loader.state_dict()
    again = make_loader()
    again.load_state_dict(state)
    seen += [sequences(b) for b in again]
    assert seen == expected


@forks
def test_persistent_workers_cannot_shuffle(path: str) -> None:
    loader = DataLoader(make(path), batch_size=None, num_workers=1, persistent_workers=True)
    list(loader)
    with pytest.raises(errors.InvalidArgumentError, match="persistent_workers"):
        list(loader)


def test_state_is_small_and_json(path: str) -> None:
    state = make(path).state_dict()
    assert set(state) == {
        "version", "cache", "seed", "epoch", "consumed", "shuffle", "global_batch",
    }  # fmt: skip
    assert len(json.dumps(state)) <= 200


def test_iter_is_not_self(path: str) -> None:
    dataset = make(path)
    one, two = iter(dataset), iter(dataset)
    assert one is not dataset
    assert one is not two
    assert sequences(next(one)) == sequences(next(two))


def test_mismatches_are_named(path: str, tmp_path: Path) -> None:
    other = write_cache(tmp_path / "other", [3] * 26)
    state = make(path).state_dict()
    for dataset, name in (
        (SparseLogitDataset(other, 4, seed=3), "cache"),
        (SparseLogitDataset(path, 4, seed=4), "seed"),
        (SparseLogitDataset(path, 4, False, seed=3), "shuffle"),
        (SparseLogitDataset(path, 4, seed=3, world_size=2), "global_batch"),
    ):
        with pytest.raises(errors.MismatchError, match=f"with {name} "):
            dataset.load_state_dict(state)
        assert dataset.epoch == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 1}, "version 1"),
        ({"consumed": 3}, "consumed is 3"),
        ({"consumed": -4}, "consumed must be an integer from 0 to .*, got -4"),
        ({"consumed": 4.0}, "consumed must be an integer .*, got 4.0"),
        ({"consumed": None}, "consumed must be an integer .*, got None"),
        ({"epoch": 2**32}, "epoch must be an integer from 0 to 4294967295"),
        ({"epoch": True}, "epoch must be an integer .*, got True"),
        ({"settings": "12"}, "settings must be 28 digits, got '12'"),
        ({"settings": None}, "settings must be 28 digits, got None"),
        ({"consumed": 400}, "consumed is 400"),
    ],
)
def test_damaged_states_are_refused(path: str, change: dict[str, Any], message: str) -> None:
    dataset = make(path)
    with pytest.raises(errors.MismatchError, match=message):
        dataset.load_state_dict({**dataset.state_dict(), **change})


def test_state_after_more_than_there_is(path: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="num_batches is 7; the pass has 6"):
        make(path).state_after(7)
