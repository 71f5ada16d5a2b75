"""Batches that are made ahead: their order, their errors, their threads, their memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned_batches import expected, found, plan_of, random_plan
from small_cache import write_cache

import sparselogits as sl
from sparselogits import _core
from sparselogits.errors import CorruptionError, InvalidArgumentError, SequenceNotFoundError
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.plan_reader import PlanReader

LENGTHS = [[40 + 7 * (i % 5) for i in range(30)], [9000, 300]]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> list[sl.Cache]:
    folder = tmp_path_factory.mktemp("ahead")
    write_cache(folder / "a", LENGTHS[0], shard_bytes=1)
    write_cache(folder / "b", LENGTHS[1])
    return [sl.open(folder / "a"), sl.open(folder / "b")]


def plans_of(seed: int, count: int = 24) -> list[BatchPlan]:
    rng = np.random.default_rng(seed)
    return [random_plan(rng, LENGTHS[:1], 3) for _ in range(count)]


def whole(sequence: int) -> BatchPlan:
    return plan_of([[(0, sequence, 0, -1)]])


def num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize(("ahead", "threads"), [(0, 1), (1, 1), (2, 3), (50, 4)])
def test_batches_come_in_order_however_they_are_made(
    caches: list[sl.Cache], ahead: int, threads: int
) -> None:
    reader = PlanReader(caches, prefetch_batches=ahead, num_threads=threads)
    plans = plans_of(1)
    batches = list(reader.stream(iter(plans)))
    assert [found(batch) for batch in batches] == [expected(plan, LENGTHS) for plan in plans]
    assert list(reader.stream([])) == []


def test_plans_are_asked_for_as_far_ahead_as_said(caches: list[sl.Cache]) -> None:
    asked = []

    def plans() -> Iterator[BatchPlan]:
        for number in range(10):
            asked.append(number)
            yield whole(number)

    stream = PlanReader(caches, prefetch_batches=3).stream(plans())
    assert asked == []
    next(stream)
    assert asked == [0, 1, 2, 3]  # one is used, three are in the making
    next(stream)
    assert asked == [0, 1, 2, 3, 4]


def test_as_many_batches_are_in_the_making_as_said(
    caches: list[sl.Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        submitted = 0

        def __init__(self, *arguments: Any) -> None:
            self._prefetcher = make(*arguments)

        def submit(self, *columns: Any) -> None:
            Counting.submitted += 1
            self._prefetcher.submit(*columns)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._prefetcher, name)

    make = _core.Prefetcher
    monkeypatch.setattr(_core, "Prefetcher", Counting)
    stream = PlanReader(caches, prefetch_batches=3).stream(map(whole, range(10)))
    for taken in range(1, 11):
        next(stream)
        assert Counting.submitted == min(taken + 3, 10)


def test_threads_live_from_the_first_batch_to_the_last(caches: list[sl.Cache]) -> None:
    before = num_threads()
    reader = PlanReader(caches, num_threads=3)
    stream = reader.stream(plans_of(2, 5))
    assert num_threads() == before
    next(stream)
    assert num_threads() == before + 3
    assert len(list(stream)) == 4
    assert num_threads() == before


def test_threads_end_with_an_iterator_that_is_closed_left_or_failed(
    caches: list[sl.Cache],
) -> None:
    before = num_threads()
    reader = PlanReader(caches, num_threads=2)
    stream = reader.stream(plans_of(3))
    next(stream)
    stream.close()
    assert num_threads() == before
    for _ in reader.stream(plans_of(3)):
        assert num_threads() == before + 2
        break
    assert num_threads() == before
    with pytest.raises(SequenceNotFoundError):
        list(reader.stream([whole(0), whole(30)]))
    assert num_threads() == before


def test_several_iterators_of_one_reader_do_not_meet(caches: list[sl.Cache]) -> None:
    reader = PlanReader(caches, num_threads=2)
    plans = [plans_of(seed, 12) for seed in range(3)]
    streams = [reader.stream(part) for part in plans]
    for step in range(12):
        for part, stream in zip(plans, streams, strict=True):
            assert found(next(stream)) == expected(part[step], LENGTHS)


def test_a_reader_travels_in_a_pickle(caches: list[sl.Cache]) -> None:
    reader = PlanReader(caches, pad_token_id=3, num_threads=2)
    reader.read(whole(0))
    plan = plans_of(4, 1)[0]
    (batch,) = pickle.loads(pickle.dumps(reader)).stream([plan])
    assert found(batch) == expected(plan, LENGTHS, pad_token_id=3)


def test_an_error_is_raised_in_the_place_of_its_batch(caches: list[sl.Cache]) -> None:
    def plans() -> Iterator[BatchPlan]:
        yield from map(whole, range(5))
        raise OSError("the list of windows cannot be read")

    stream = PlanReader(caches, prefetch_batches=4).stream(plans())
    assert [found(next(stream)) for _ in range(5)] == [
        expected(whole(number), LENGTHS) for number in range(5)
    ]
    with pytest.raises(OSError, match="the list of windows"):
        next(stream)
    stream = PlanReader(caches, prefetch_batches=4).stream(map(whole, [0, 1, 30, 2]))
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(SequenceNotFoundError, match="index 30"):
        next(stream)


def test_damage_is_raised_in_its_place_and_names_the_file(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", LENGTHS[0], shard_bytes=1)
    cache = sl.open(tmp_path / "c")
    victim = tmp_path / "c" / cache.manifest.shards[4].file
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(data)
    stream = PlanReader([cache], prefetch_batches=3, num_threads=2).stream(map(whole, range(8)))
    for number in range(4):
        assert found(next(stream)) == expected(whole(number), LENGTHS)
    with pytest.raises(CorruptionError) as caught:
        next(stream)
    assert caught.value.path == str(victim)
    assert caught.value.offset is not None


def test_a_batch_that_is_kept_stays_as_it_was(caches: list[sl.Cache]) -> None:
    reader = PlanReader(caches, prefetch_batches=2, num_threads=2)
    plans = plans_of(5, 60)
    kept, labels = [], []
    for number, batch in enumerate(reader.stream(plans)):
        if number % 5 == 0:
            kept.append((number, batch))
        if number % 7 == 0:
            labels.append((number, batch.labels[1:]))  # a view alone holds its memory, too
        del batch
    for number, batch in kept:
        assert found(batch) == expected(plans[number], LENGTHS)
    for number, part in labels:
        assert part.tolist() == expected(plans[number], LENGTHS)["labels"][1:]


@pytest.mark.parametrize("ahead", [0, 2])
def test_memory_of_batches_that_are_let_go_is_used_again(
    caches: list[sl.Cache], ahead: int
) -> None:
    reader = PlanReader(caches, prefetch_batches=ahead)
    plan = plan_of([[(1, 0, 0, -1)], [(1, 0, 0, -1)]])
    places = []
    for batch in reader.stream([plan] * 40):
        targets = batch.targets
        tensors = [batch.input_ids, targets.offsets, targets.token_ids, targets.weights]
        places.append([tensor.data_ptr() for tensor in tensors])
        del batch, targets, tensors
    for place in zip(*places, strict=True):
        assert len(set(place)) <= 5 * (ahead + 2)


def test_memory_outlives_the_reader(caches: list[sl.Cache]) -> None:
    plan = plans_of(6, 1)[0]
    batch = PlanReader(caches).read(plan)
    assert found(batch) == expected(plan, LENGTHS)


def test_a_prefetcher_that_has_nothing_to_give_says_so(caches: list[sl.Cache]) -> None:
    reader = _core.PieceReader([caches[0]._reader], 0, 8)
    prefetcher = _core.Prefetcher(reader, 1)
    with pytest.raises(InvalidArgumentError, match="no batch is coming"):
        prefetcher.next()
    prefetcher.close()
    prefetcher.close()
    with pytest.raises(InvalidArgumentError, match="is closed"):
        prefetcher.submit(*whole(0).columns)


def test_memory_is_not_pinned_where_there_is_no_device(
    caches: list[sl.Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidArgumentError, match="pin_memory is True"):
        PlanReader(caches, pin_memory=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch_batches": -1}, "prefetch_batches must be from 0"),
        ({"num_threads": 0}, "num_threads must be from 1"),
        ({"pad_token_id": 0.5}, "pad_token_id must be an integer"),
        ({"pin_memory": 1}, "pin_memory must be True or False"),
        ({"input_ids": [None]}, "1 sources and caches 2 caches"),
        ({"input_ids": [[[1, 2]], None]}, "1 windows and .* 30 sequences"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    caches: list[sl.Cache], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        PlanReader(caches, **options)
