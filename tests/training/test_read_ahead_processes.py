"""Batches that are made ahead, and what happens to their process: forks, signals, the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from planned_batches import expected, found, plan_of, random_plan
from small_cache import write_cache

import sparselogits as sl
from sparselogits import _core
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.plan_reader import PlanReader

LENGTHS = [[40 + 7 * (i % 5) for i in range(30)], [9000]]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> list[sl.Cache]:
    folder = tmp_path_factory.mktemp("ahead")
    write_cache(folder / "a", LENGTHS[0], shard_bytes=1)
    write_cache(folder / "b", LENGTHS[1])
    return [sl.open(folder / "a"), sl.open(folder / "b")]


def plans_of(seed: int, count: int = 24) -> list[BatchPlan]:
    rng = np.random.default_rng(seed)
    return [random_plan(rng, LENGTHS[:1], 3) for _ in range(count)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_threads_of_its_own(caches: list[sl.Cache]) -> None:
    reader = PlanReader(caches, prefetch_batches=3, num_threads=2)
    plans = plans_of(7, 12)
    stream = reader.stream(plans)
    wanted = [expected(plan, LENGTHS) for plan in plans]
    held = [next(stream) for _ in range(4)]
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            rest = [found(batch) for batch in stream]
            again = [found(batch) for batch in reader.stream(plans)]
            kept = [found(batch) for batch in held]
            os._exit(0 if rest == wanted[4:] and again == wanted and kept == wanted[:4] else 1)
        finally:
            os._exit(2)
    rest = [found(batch) for batch in stream]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rest == wanted[4:]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_may_drop_the_iterator_of_its_parent(caches: list[sl.Cache]) -> None:
    stream = PlanReader(caches, num_threads=2).stream(plans_of(8))
    next(stream)
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            stream.close()
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found(next(stream)) == expected(plans_of(8)[1], LENGTHS)


def test_a_signal_ends_a_wait(caches: list[sl.Cache]) -> None:
    class Rung(Exception):
        pass

    def ring(*_: Any) -> None:
        raise Rung

    reader = _core.PieceReader([cache._reader for cache in caches], 0, 8)
    prefetcher = _core.Prefetcher(reader, 1)
    plan = plan_of([[(1, 0, 0, -1)] * 300])  # 2.7 million positions
    before = signal.signal(signal.SIGALRM, ring)
    try:
        prefetcher.submit(*plan.columns)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Rung):
            prefetcher.next()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert prefetcher.next()[0].shape == (1, 300 * 9000)  # which was not there yet
    prefetcher.close()


def test_a_program_ends_though_nobody_closed_its_iterators(caches: list[sl.Cache]) -> None:
    script = f"""
import numpy, sparselogits
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.plan_reader import PlanReader
plan = BatchPlan.of_sequences(numpy.arange(30))
reader = PlanReader([sparselogits.open({caches[0].path!r})], num_threads=2, prefetch_batches=9)
streams = [reader.stream([plan] * 100) for _ in range(3)]
kept = [next(stream) for stream in streams]
cycle = [streams]
cycle.append(cycle)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
