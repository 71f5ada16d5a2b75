"""The position of a training run survives other numbers of ranks and workers, in every mode."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dealing import FEW_SHAPES, GLOBAL_BATCH, SHAPES, Make, Shape, global_steps, rows
from small_cache import write_cache

import sparselogits.torch.dataset as dataset_module
from sparselogits import errors
from sparselogits.torch import SparseLogitDataset

LENGTHS = [3 + i % 4 for i in range(26)]
OTHERS = [2 + i % 3 for i in range(9)]

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "in order": {"shuffle": False},
    "with the rest": {"drop_last": False},
    "blocks": {"shuffle_block": 3, "open_blocks": 2},
    "cut": {"window": 4},
    "joined": {"window": 5, "cross_documents": True, "drop_last": False},
    "filtered": {"sequence_filter": lambda facts: facts.lengths != 6},
    "caches": {"several": True},
    "mixture": {"several": True, "mixture_weights": [0.3, 0.7]},
    "all": {
        "several": True, "mixture_weights": [2, 1], "window": 3, "shuffle_block": 4,
        "sequence_filter": lambda facts: facts.lengths != 4,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("caches")
    return [write_cache(folder / "a", LENGTHS), write_cache(folder / "b", OTHERS)]


@pytest.fixture
def maker(paths: list[str]) -> Callable[[str], Make]:
    def of_mode(mode: str) -> Make:
        keywords = {"seed": 3, "prefetch_batches": 1, **MODES[mode]}
        caches = paths if keywords.pop("several", False) else paths[0]

        def make(world_size: int = 1, rank: int = 0, **more: Any) -> SparseLogitDataset:
            size = GLOBAL_BATCH // world_size
            return SparseLogitDataset(
                caches, size, rank=rank, world_size=world_size, **{**keywords, **more}
            )

        return make

    return of_mode


@pytest.fixture
def make(maker: Callable[[str], Make]) -> Make:
    return maker("plain")


def points(num_steps: int) -> list[int]:
    """Start, early, middle, last and end + 1."""
    return [0, 1, num_steps // 2, num_steps - 1, num_steps]


def state_of_any_shape(make: Make, shape: Shape, after: int, epoch: int) -> dict[str, Any]:
    """The state after some steps; all ranks save the same."""
    states = []
    for rank in range(shape[0]):
        dataset = make(*(shape[0], rank), epoch=epoch)
        states.append(dataset.state_after(after))
        if shape[1] == 0 and len(dataset) >= after:
            for _ in itertools.islice(dataset, after):
                pass
            assert dataset.state_dict() == states[-1]
    assert all(state == states[0] for state in states)
    text = json.dumps(states[0])
    assert len(text) <= 200
    return json.loads(text)


@pytest.mark.parametrize("before", SHAPES, ids=str)
def test_any_shape_to_any_shape(make: Make, before: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [rows(batch) for batch in make(epoch=2)]
    for after in points(len(expected)):
        state = state_of_any_shape(make, before, after, epoch=2)
        for shape in SHAPES:
            assert global_steps(make, shape, monkeypatch, state) == expected[after:]


@pytest.mark.parametrize("mode", list(MODES)[1:])
def test_every_mode_goes_on_in_any_shape(
    maker: Callable[[str], Make], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = maker(mode)
    expected = [rows(batch) for batch in make(epoch=2)]
    assert len(expected) >= 5
    for before in FEW_SHAPES:
        for after in points(len(expected)):
            state = state_of_any_shape(make, before, after, epoch=2)
            for shape in FEW_SHAPES:
                assert global_steps(make, shape, monkeypatch, state) == expected[after:]


@pytest.mark.parametrize("mode", MODES)
def test_over_an_epoch_boundary_in_changing_shapes(
    maker: Callable[[str], Make], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = maker(mode)
    epochs = [[rows(batch) for batch in make(epoch=epoch)] for epoch in range(3)]
    for first, second in ((1, 2), (len(epochs[0]), 0), (len(epochs[0]) - 1, len(epochs[1]))):
        seen = global_steps(make, (2, 1), monkeypatch)[:first]
        state = make(2, 1).state_after(first)
        seen += global_steps(make, (4, 3), monkeypatch, state)  # the rest of epoch 0
        seen += global_steps(make, (4, 3), monkeypatch, state, epoch=1)[:second]
        dataset = make(4, 2)
        dataset.load_state_dict(state)
        dataset.set_epoch(1)
        state = dataset.state_after(second)
        seen += global_steps(make, (1, 2), monkeypatch, state)
        seen += global_steps(make, (1, 2), monkeypatch, state, epoch=2)
        assert seen == epochs[0] + epochs[1] + epochs[2]


def test_resuming_a_resumed_pass(make: Make) -> None:
    expected = [rows(batch) for batch in make()]
    state, seen = make().state_dict(), []
    for take in (2, 1, 2, 1):
        dataset = make()
        dataset.load_state_dict(state)
        seen += [rows(batch) for batch in itertools.islice(dataset, take)]
        state = dataset.state_dict()
    assert seen == expected


def test_the_next_epoch_is_whole(make: Make) -> None:
    dataset = make()
    dataset.load_state_dict(make().state_after(4))
    assert len(list(dataset)) == 2
    dataset.set_epoch(1)
    assert [rows(b) for b in dataset] == [rows(b) for b in make(epoch=1)]


@pytest.mark.parametrize("drop_last", [True, False])
def test_behind_the_last_batch_a_pass_is_empty_and_behind_the_pass_an_epoch_begins(
    make: Make, drop_last: bool
) -> None:
    dataset = make(drop_last=drop_last)
    batches = iter(dataset)
    for _ in range(len(dataset)):
        next(batches)
    inside = dataset.state_dict()
    assert inside["epoch"] == 0
    assert inside["consumed"] == (24 if drop_last else 26)
    assert next(batches, None) is None
    behind = dataset.state_dict()
    assert (behind["epoch"], behind["consumed"]) == (1, 0)
    again = make(drop_last=drop_last)
    again.load_state_dict(inside)
    assert list(again) == []
    again.load_state_dict(behind)
    assert [rows(b) for b in again] == [rows(b) for b in make(epoch=1, drop_last=drop_last)]


def test_a_worker_that_has_ended_does_not_speak_for_the_others(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make()
    info = SimpleNamespace(id=1, num_workers=4)
    monkeypatch.setattr(dataset_module, "get_worker_info", lambda: info)
    assert len(list(dataset)) == 2  # steps 1 and 5
    state = dataset.state_dict()
    assert (state["epoch"], state["consumed"], state["origin"]) == (0, 24, 0)


def test_a_pass_that_breaks_off_leaves_the_dataset_where_it_was(make: Make) -> None:
    expected = [rows(batch) for batch in make()]
    dataset = make()
    for count, _ in enumerate(dataset, start=1):
        if count == 2:
            break
    assert dataset.state_dict() == dataset.state_after(2)
    assert [rows(b) for b in dataset] == expected  # a new pass begins where this one began


def test_prefetched_batches_do_not_count(make: Make) -> None:
    dataset = make(prefetch_batches=4, num_threads=2)
    batches = iter(dataset)
    next(batches)
    assert dataset.state_dict() == dataset.state_after(1)
    del batches
    assert dataset.state_dict() == dataset.state_after(1)


def test_two_passes_at_once_do_not_disturb_each_other(make: Make) -> None:
    first, second = ([rows(batch) for batch in make(epoch=epoch)] for epoch in (0, 1))
    dataset = make()
    one, two = iter(dataset), iter(dataset)
    assert one is not dataset
    assert one is not two
    seen_one, seen_two = [rows(next(one))], [rows(next(two)), rows(next(two))]
    dataset.set_epoch(1)
    three = iter(dataset)
    assert rows(next(three)) == second[0]
    assert dataset.state_dict() == dataset.state_after(1)
    seen_one += [rows(batch) for batch in one]
    seen_two += [rows(batch) for batch in two]
    assert seen_one == seen_two == first
    assert [rows(batch) for batch in three] == second[1:]


def test_state_after_more_than_there_is(make: Make) -> None:
    for wrong in (7, -1):
        with pytest.raises(errors.InvalidArgumentError, match=f"is {wrong}; the pass has 6"):
            make().state_after(wrong)


def test_the_epoch_may_be_huge_but_not_beyond_its_limit(make: Make, paths: list[str]) -> None:
    dataset = make(epoch=2**32 - 1)
    assert len(list(dataset)) == 6
    state = dataset.state_dict()
    assert state["epoch"] == 2**32 - 1
    dataset.load_state_dict(state)
    mixture = SparseLogitDataset(paths, 4, mixture_weights=[1, 1], epoch=2**32 - 1)
    assert len(list(mixture)) == len(mixture)


def test_a_pass_that_never_began_saves_where_it_would(make: Make, tmp_path: Path) -> None:
    dataset = make(epoch=5)
    assert dataset.state_dict() == dataset.state_after(0)
    iter(dataset)
    assert dataset.state_dict() == dataset.state_after(0)
