"""Any number of workers, also when some are killed, make what one process makes."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from worker_processes import (
    NUM_UNITS,
    OPTIONS,
    UNIT_WINDOWS,
    WINDOWS,
    capture_alone,
    contents,
    ended,
    start,
    work,
    work_without_locks,
)

import sparselogits as sl

#: Every batch is committed before the next one is read.
COMMITTED: dict[str, Any] = {"flush_seconds": 0.0, "overlap": False}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> sl.Cache:
    """What one process captures."""
    path = tmp_path_factory.mktemp("alone") / "cache"
    assert ended(start(capture_alone, path)) == 0
    return sl.open(path)


def run(path: Path, workers: int, **options: Any) -> list[int]:
    """The exit codes of workers that run together."""
    started = [
        start(work, path, rank=rank, world_size=workers, **options) for rank in range(workers)
    ]
    return [ended(process) for process in started]


def layout(cache: sl.Cache) -> list[dict[str, Any]]:
    """The shards, but for what is random in them: the uuid, and the digest that it enters."""
    rows = [dataclasses.asdict(row) for row in cache.manifest.shards]
    return [{k: v for k, v in row.items() if k not in ("uuid", "sha256")} for row in rows]


def check_equal(path: Path, alone: sl.Cache, codec: str) -> sl.Cache:
    """The finished cache, after its comparison with that of one process."""
    cache = sl.open(path)
    assert contents(cache) == contents(alone)
    assert cache.metadata == alone.metadata
    assert dataclasses.replace(alone.config, codec=codec) == cache.config
    assert cache.complete
    assert sorted(file.name for file in path.iterdir()) == sorted(
        ["manifest.json", *(row.file for row in cache.manifest.shards)]
    )
    cache.verify()
    return cache


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("codec", ["packed", "compact"])
def test_content_and_shards_do_not_depend_on_the_number_of_workers(
    codec: str, alone: sl.Cache, tmp_path: Path
) -> None:
    layouts = []
    for workers in (1, 2, 5):
        path = tmp_path / f"cache.{workers}"
        assert run(path, workers, codec=codec) == [0] * workers
        layouts.append(layout(check_equal(path, alone, codec)))
    assert layouts[0] == layouts[1] == layouts[2]
    assert len(layouts[0]) == (NUM_UNITS if codec == "packed" else 1)


def test_others_take_the_units_of_a_killed_worker(alone: sl.Cache, tmp_path: Path) -> None:
    """Also the one in whose middle it was: what it had committed there is not done again."""
    path = tmp_path / "cache"
    dead = start(work, path, 3, rank=0, world_size=2, codec="packed", **COMMITTED)
    assert ended(dead) == -signal.SIGKILL  # in unit 2, after unit 0 and one batch of two
    assert ended(start(work, path, rank=1, world_size=2, codec="packed")) == 0
    cache = check_equal(path, alone, "packed")
    assert [row.sequences for row in cache.manifest.shards] == [4, 4, 2, 2, 4, 4, 3]


def test_killed_workers_go_on_when_they_are_started_again(alone: sl.Cache, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    workers = [start(work, path, 3, rank=rank, world_size=2, codec="packed") for rank in (0, 1)]
    assert [ended(worker) for worker in workers] == [-signal.SIGKILL] * 2
    done = {
        row.uuid
        for unit in (0, 1)  # each worker died in its second unit
        for row in sl.open(path / ".units" / f"unit-{unit:06d}").manifest.shards
    }
    assert len(done) == 2
    assert run(path, 5, codec="packed") == [0] * 5
    cache = check_equal(path, alone, "packed")
    assert done <= {row.uuid for row in cache.manifest.shards}


def test_with_the_codec_compact_an_interruption_leaves_no_trace(
    alone: sl.Cache, tmp_path: Path
) -> None:
    assert run(tmp_path / "straight", 2, codec="compact") == [0, 0]
    path = tmp_path / "cache"
    assert ended(start(work, path, 3, codec="compact", **COMMITTED)) == -signal.SIGKILL
    assert run(path, 2, codec="compact") == [0, 0]
    cache = check_equal(path, alone, "compact")
    assert layout(cache) == layout(sl.open(tmp_path / "straight"))


def test_without_help_a_worker_takes_its_own_units_and_rank_0_finishes(
    alone: sl.Cache, tmp_path: Path
) -> None:
    path = tmp_path / "cache"
    options = {"world_size": 2, "codec": "packed", "help_others": False}
    second = start(work, path, rank=1, **options)
    own = [path / ".units" / f"unit-{unit:06d}" for unit in range(1, NUM_UNITS, 2)]
    wait_until(
        lambda: all((unit / "manifest.json").exists() for unit in own), "a worker's last unit"
    )
    time.sleep(0.3)  # some of its looks for work
    assert second.is_alive()
    assert sorted(path.glob(".units/unit-??????")) == own
    assert ended(start(work, path, rank=0, **options)) == 0
    assert ended(second) == 0
    check_equal(path, alone, "packed")


def test_without_help_no_lock_is_needed(alone: sl.Cache, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.mkdir()
    options = {"world_size": 3, "codec": "packed", "help_others": False}
    workers = [start(work_without_locks, path, rank=rank, **options) for rank in range(3)]
    assert [ended(worker) for worker in workers] == [0, 0, 0]
    check_equal(path, alone, "packed")


def test_a_worker_that_finds_the_cache_finished_returns_it(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    assert run(path, 1) == [0]
    digest = sl.open(path).digest
    assert run(path, 2) == [0, 0]
    assert sl.open(path).digest == digest


def test_a_codec_model_codes_the_units_themselves(alone: sl.Cache, tmp_path: Path) -> None:
    sl.repack(alone.path, tmp_path / "packed", codec="packed")
    model = sl.train_model(tmp_path / "packed")
    model.save(tmp_path / "model.slm")
    path = tmp_path / "cache"
    assert run(path, 2, codec="compact", codec_model=tmp_path / "model.slm") == [0, 0]
    cache = sl.open(path)
    assert contents(cache) == contents(alone)
    assert cache.models == (model,)
    assert len(cache.manifest.shards) == NUM_UNITS


def test_the_constants_of_this_test_say_what_happens() -> None:
    assert -(-len(WINDOWS) // UNIT_WINDOWS) == NUM_UNITS
    assert UNIT_WINDOWS % OPTIONS["batch_size"] == 0
