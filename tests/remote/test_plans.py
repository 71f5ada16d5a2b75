"""Batches of plans over a remote cache: what they need is fetched, held while read, and let go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from remote_caches import SEQUENCES, Remote

import sparselogits as sl
from sparselogits.errors import CacheIOError
from sparselogits.torch import Batch
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.plan_reader import PlanReader

ORDER = np.random.default_rng(0).permutation(36) % len(SEQUENCES)
PLANS = [BatchPlan.of_sequences(ORDER[i : i + 2]) for i in range(0, 36, 2)]


def contents(batch: Batch) -> tuple[list[int], ...]:
    targets = batch.targets
    tensors = (batch.input_ids, batch.labels, targets.offsets, targets.token_ids, targets.weights)
    return (batch.sequence_ids.tolist(), *(tensor.flatten().tolist() for tensor in tensors))


@pytest.fixture
def wanted(remote: Remote) -> list[tuple[list[int], ...]]:
    """The batches of all plans, from the local directory."""
    return [contents(batch) for batch in PlanReader([sl.open(remote.made)]).stream(PLANS)]


@pytest.mark.parametrize("room", [2, 3, 5])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_a_stream_goes_through_a_directory_that_is_too_small(
    remote: Remote, wanted: list[tuple[list[int], ...]], room: int, ahead: int
) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(room))
    found = []
    for batch in PlanReader([cache], prefetch_batches=ahead, num_threads=2).stream(PLANS):
        found.append(contents(batch))
        assert remote.local_bytes <= remote.room_for(room)
    assert found == wanted


def test_shards_of_later_plans_are_fetched_while_a_batch_is_used(remote: Remote) -> None:
    plans = [BatchPlan.of_sequences(np.array([i])) for i in range(12)]
    stream = PlanReader([remote.open()], prefetch_batches=1).stream(plans)
    next(stream)
    wait_until(lambda: len(remote.local) == 5)  # four of them beside the one that is used
    assert remote.local == {remote.file(number) for number in range(5)}


def test_a_batch_that_does_not_fit_is_refused_in_its_place(
    remote: Remote, wanted: list[tuple[list[int], ...]]
) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(2))
    large = BatchPlan.of_sequences(np.array([0, 1, 2]))
    stream = PlanReader([cache], prefetch_batches=3).stream([*PLANS[:2], large, *PLANS])
    assert [contents(next(stream)), contents(next(stream))] == wanted[:2]
    with pytest.raises(CacheIOError, match="local_cache_bytes"):
        next(stream)


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_local_copy_that_was_damaged_is_fetched_again(
    remote: Remote, wanted: list[tuple[list[int], ...]], ahead: int
) -> None:
    cache = remote.open()
    with cache._hold(range(12)) or pytest.fail("there is room"):
        for path in remote.root.glob("*/shards/*"):
            data = bytearray(path.read_bytes())
            data[len(data) // 3] ^= 0xFF
            path.write_bytes(data)  # in place: what is mapped changes
    stream = PlanReader([cache], prefetch_batches=ahead).stream(PLANS)
    assert [contents(batch) for batch in stream] == wanted


def test_an_iterator_that_is_left_lets_go_of_its_shards(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(5))
    stream = PlanReader([cache], prefetch_batches=2).stream(PLANS)
    next(stream)
    assert cache._hold(range(5), wait=False) is None
    stream.close()
    lease = cache._hold(range(5), wait=False)
    assert lease is not None
    lease.__exit__(None, None, None)


def test_a_batch_may_mix_a_remote_cache_with_a_local_one(
    remote: Remote, wanted: list[tuple[list[int], ...]]
) -> None:
    caches = [remote.open(local_cache_bytes=remote.room_for(4)), sl.open(remote.made)]
    mixed = [BatchPlan(np.array([0, 1], np.int32), *plan.columns[1:]) for plan in PLANS]
    found = [contents(batch) for batch in PlanReader(caches).stream(mixed)]
    assert found == wanted


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_holds_shards_of_its_own(
    remote: Remote, wanted: list[tuple[list[int], ...]]
) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(5))
    stream = PlanReader([cache], prefetch_batches=2).stream(PLANS)
    found = [contents(next(stream)) for _ in range(3)]
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            os._exit(0 if rest_of(stream) == wanted[3:] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found + rest_of(stream) == wanted


def rest_of(stream: Iterator[Batch]) -> list[tuple[list[int], ...]]:
    return [contents(batch) for batch in stream]


def wait_until(condition: Callable[[], bool]) -> None:
    """At most ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
