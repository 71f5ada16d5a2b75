"""Real loaders, with and without workers, go on where others stopped."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from dealing import Row, rows
from small_cache import write_cache
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from sparselogits import errors
from sparselogits.torch import SparseLogitDataset

STEPS = 6
WORKERS = [0, 1, 2, 3]
POINTS = [0, 1, 3, STEPS - 1, STEPS]

# Nothing here depends on forking in a threaded process, or on having a core for each worker.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
    "ignore:.set_vital. is deprecated:UserWarning",  # torchdata 0.11's
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cache(tmp_path_factory.mktemp("caches") / "cache", [3] * 26)


def make(path: str, **keywords: Any) -> SparseLogitDataset:
    return SparseLogitDataset(path, 4, seed=3, **keywords)


def plain(dataset: SparseLogitDataset, workers: int, **keywords: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=None, num_workers=workers, **keywords)


def stateful(dataset: Any, workers: int, **keywords: Any) -> StatefulDataLoader[Any]:
    return StatefulDataLoader(dataset, batch_size=None, num_workers=workers, **keywords)


def saved_states(path: str, workers: int, **keywords: Any) -> list[dict[str, Any]]:
    """What a stateful loader saves before the first and after each batch of a pass."""
    loader = stateful(make(path), workers, **keywords)
    iterator = iter(loader)
    states = [json.loads(json.dumps(loader.state_dict()))]
    for _ in range(STEPS):
        next(iterator)
        states.append(json.loads(json.dumps(loader.state_dict())))
    return states


def order(path: str, epoch: int = 0) -> list[list[Row]]:
    return [rows(batch) for batch in make(path, epoch=epoch)]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_plain_loader_goes_on_where_one_of_other_workers_stopped(path: str, workers: int) -> None:
    expected = order(path)
    for before, after in zip(WORKERS, (1, 3, STEPS - 1, STEPS), strict=True):
        dataset = make(path)
        batches = iter(plain(dataset, before))
        seen = [rows(next(batches)) for _ in range(after)]
        state = dataset.state_after(after)
        del batches
        dataset.load_state_dict(state)
        seen += [rows(batch) for batch in plain(dataset, workers)]
        assert seen == expected


@pytest.mark.parametrize("before", WORKERS)
def test_states_of_stateful_loaders_are_positions_of_the_dataset(path: str, before: int) -> None:
    dataset = make(path)
    for after, state in enumerate(saved_states(path, before)):
        dataset.load_state_dict(state)
        assert dataset.state_dict() == make(path).state_after(after)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_stateful_loader_goes_on_where_one_of_other_workers_stopped(
    path: str, workers: int
) -> None:
    """With the test above: from any number of workers at any point."""
    expected = order(path)
    states = saved_states(path, {0: 3, 1: 2, 2: 0, 3: 1}[workers])
    for after in POINTS:
        dataset = make(path)
        dataset.load_state_dict(states[after])
        assert [rows(batch) for batch in stateful(dataset, workers)] == expected[after:]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_stateful_loader_loads_its_own_state(path: str, workers: int) -> None:
    expected = order(path)
    states = saved_states(path, workers)
    for after in POINTS:
        loader = stateful(make(path), workers)
        loader.load_state_dict(states[after])
        batches = iter(loader)
        seen = [rows(batch) for batch in itertools.islice(batches, 1)]
        again = make(path)  # and its next state counts on from there
        again.load_state_dict(loader.state_dict())
        ended = make(path, epoch=1).state_dict()  # there was no batch left
        here = ended if after == STEPS else make(path).state_after(after + 1)
        assert again.state_dict() == here
        assert seen + [rows(batch) for batch in batches] == expected[after:]


@pytest.mark.parametrize("world_size, rank, workers", [(2, 1, 2), (4, 3, 1), (2, 0, 0)])
def test_loaders_of_all_ranks_say_the_same(
    path: str, world_size: int, rank: int, workers: int
) -> None:
    dataset = SparseLogitDataset(
        path, 4 // world_size, seed=3, rank=rank, world_size=world_size, drop_last=False
    )
    loader, alone = stateful(dataset, workers), make(path, drop_last=False)
    batches = iter(loader)
    for after in range(STEPS + 1):
        alone.load_state_dict(loader.state_dict())
        assert alone.state_dict() == make(path).state_after(after)
        if after < STEPS:
            next(batches)
    left = list(batches)  # 26 = 6 * 4 + 2 samples: the last ranks have no seventh batch
    assert len(left) == (1 if rank == 0 else 0)
    alone.load_state_dict(loader.state_dict())
    assert alone.state_dict() == make(path, epoch=1).state_dict()


def test_a_chain_of_loaders_with_workers_of_all_numbers(path: str) -> None:
    expected, seen, state = order(path), [], None
    for workers, take in zip((2, 3, 1, 0, 2), (1, 2, 1, 1, STEPS), strict=True):
        dataset = make(path)
        if state is not None:
            dataset.load_state_dict(state)
        loader = stateful(dataset, workers)
        seen += [rows(batch) for batch in itertools.islice(loader, take)]
        state = loader.state_dict()
    assert seen == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_snapshots_may_be_rare(path: str, workers: int) -> None:
    for after, state in enumerate(saved_states(path, workers, snapshot_every_n_steps=4)):
        dataset = make(path)
        dataset.load_state_dict(state)
        assert dataset.state_dict() == dataset.state_after(0) == make(path).state_after(after)


@pytest.mark.parametrize("workers", [0, 2])
def test_behind_a_pass_of_a_stateful_loader_the_next_epoch_begins(path: str, workers: int) -> None:
    loader = stateful(make(path, epoch=1), workers)
    assert len(list(loader)) == STEPS
    state = loader.state_dict()
    dataset = make(path)
    dataset.load_state_dict(state)
    assert dataset.state_dict() == make(path, epoch=2).state_dict()
    again = make(path)
    loader = stateful(again, workers)
    loader.load_state_dict(state)
    again.set_epoch(2)  # as a loop over epochs does
    assert [rows(batch) for batch in loader] == order(path, epoch=2)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_loop_over_epochs_goes_on_in_the_middle_of_one(path: str, workers: int) -> None:
    dataset = make(path)
    dataset.load_state_dict(make(path, epoch=1).state_after(4))
    loader, seen = plain(dataset, workers), []
    for epoch in range(dataset.epoch, 3):
        dataset.set_epoch(epoch)
        seen += [rows(batch) for batch in loader]
    assert seen == order(path, epoch=1)[4:] + order(path, epoch=2)


@pytest.mark.parametrize("make_loader, method", [(stateful, "spawn"), (plain, "forkserver")])
def test_started_in_any_way(path: str, make_loader: Any, method: str) -> None:
    dataset = make(path, window=2, shuffle_block=3, mixture_weights=[1], prefetch_batches=1)
    expected = [rows(batch) for batch in dataset]
    dataset.load_state_dict(dataset.state_after(2))
    loader = make_loader(dataset, 2, multiprocessing_context=method)
    assert [rows(batch) for batch in loader] == expected[2:]


def test_a_loader_that_is_left_early_and_started_again_gives_the_same(path: str) -> None:
    loader = plain(make(path), 2)
    for _ in range(2):
        assert [rows(batch) for batch in itertools.islice(loader, 2)] == order(path)[:2]
    assert [rows(batch) for batch in loader] == order(path)


@pytest.mark.parametrize("make_loader", [plain, stateful])
def test_persistent_workers_cannot_shuffle(path: str, make_loader: Any) -> None:
    loader = make_loader(make(path), 1, persistent_workers=True)
    assert [rows(batch) for batch in loader] == order(path)
    with pytest.raises(errors.InvalidArgumentError, match="persistent_workers"):
        list(loader)


def test_persistent_workers_repeat_what_does_not_change(path: str) -> None:
    dataset = make(path, shuffle=False)
    loader = plain(dataset, 2, persistent_workers=True)
    first = [rows(batch) for batch in loader]
    assert first == [rows(batch) for batch in loader]
    assert len(first) == STEPS
    dataset.load_state_dict(dataset.state_after(2))
    loader = plain(dataset, 2, persistent_workers=True)
    assert [rows(batch) for batch in loader] == first[2:]
    with pytest.raises(errors.InvalidArgumentError, match="begin where it began"):
        list(loader)


class Numbers(Dataset[int]):
    """A dataset that keeps no state."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return range(3)[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_state_of_a_loader_of_something_else_is_refused(path: str, workers: int) -> None:
    with pytest.raises(errors.MismatchError, match="holds none of a SparseLogitDataset"):
        make(path).load_state_dict(stateful(Numbers(), workers).state_dict())
    other = SparseLogitDataset(path, 4, seed=4)
    with pytest.raises(errors.MismatchError, match="seed 4 and this dataset has 3"):
        make(path).load_state_dict(stateful(other, workers).state_dict())
