"""Plans, parts of windows and locks, each alone."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worker_processes import WINDOWS

import sparselogits as sl
from sparselogits.capture.given_windows import GivenWindows
from sparselogits.distributed import FileLock, UnitDirectory, UnitPlan
from sparselogits.distributed.unit_writer import write_unit
from sparselogits.distributed.window_parts import WindowParts
from sparselogits.tokens import pack

PLAN = UnitPlan(10, 4, "00", "compact", None, sl.CacheConfig(50), {"seed": "1", "teacher": "tück"})


def test_units_are_contiguous_and_the_last_one_may_be_short() -> None:
    assert [PLAN.windows_of(u) for u in range(3)] == [range(4), range(4, 8), range(8, 10)]
    assert PLAN.num_units == 3
    assert replace(PLAN, num_windows=8).num_units == 2
    assert replace(PLAN, num_windows=0).num_units == 0


def test_a_plan_survives_its_file() -> None:
    data = PLAN.to_json()
    assert UnitPlan.from_json(data, "p") == PLAN
    assert UnitPlan.from_json(data, "p").to_json() == data


def test_more_units_than_a_cache_can_have_shards_are_refused() -> None:
    with pytest.raises(sl.InvalidArgumentError, match=r"limit of 1048576 shards.*at least 3"):
        _ = replace(PLAN, num_windows=3 << 20, unit_windows=2).num_units


def test_parts_keep_the_ids_of_the_whole() -> None:
    mask = WINDOWS % 2 == 0
    arguments = WindowParts(WINDOWS, targets_mask=mask).arguments(range(4, 8))
    assert [window.tokens.tolist() for window in arguments["windows"]] == WINDOWS[4:8].tolist()
    assert [window.sequence_id for window in arguments["windows"]] == [4, 5, 6, 7]
    assert arguments["targets_mask"].tolist() == mask[4:8].tolist()
    named = WindowParts(WINDOWS.tolist(), sequence_ids=range(100, 123)).arguments(range(4, 8))
    assert named["sequence_ids"].tolist() == [104, 105, 106, 107]
    assert "targets_mask" not in named


def test_parts_of_a_corpus_are_its_own() -> None:
    parts = WindowParts(pack(WINDOWS.reshape(-1), 10, first_sequence_id=50))
    arguments = parts.arguments(range(4, 6))
    assert list(arguments) == ["windows"]
    assert [window.sequence_id for window in arguments["windows"]] == [54, 55]
    assert [tokens.tolist() for tokens in parts.tokens(range(4, 6))] == WINDOWS[4:6].tolist()


def test_the_digest_depends_on_tokens_ids_and_mask_only(tmp_path: Path) -> None:
    np.save(tmp_path / "windows.npy", WINDOWS)
    changed = WINDOWS.copy()
    changed[-1, -1] ^= 1
    mask = np.ones(WINDOWS.shape, np.bool_)
    same: list[Any] = [
        WINDOWS,
        WINDOWS.astype(np.int64),
        WINDOWS.tolist(),
        tmp_path / "windows.npy",
        torch.from_numpy(WINDOWS.astype(np.int32)),
    ]
    digests = [WindowParts(windows).digest() for windows in same]
    digests.append(WindowParts(WINDOWS, sequence_ids=range(23)).digest())
    assert len(set(digests)) == 1
    others = [
        WindowParts(changed),
        WindowParts(WINDOWS[:-1]),
        WindowParts(WINDOWS[::-1]),
        WindowParts(WINDOWS, sequence_ids=range(1, 24)),
        WindowParts(WINDOWS, targets_mask=mask),
        WindowParts(WINDOWS, targets_mask=~mask),
        WindowParts(GivenWindows(WINDOWS, targets_mask=~mask)),
    ]
    assert len({parts.digest() for parts in others} | set(digests)) == len(others) + 1


def test_a_corpus_says_its_own_digest() -> None:
    def digest(tokens: np.ndarray, length: int, **arguments: Any) -> str:
        return WindowParts(pack(tokens.reshape(-1), length), **arguments).digest()

    assert digest(WINDOWS, 10) == digest(WINDOWS.copy(), 10)
    others = [digest(WINDOWS, 10), digest(WINDOWS, 5), digest(WINDOWS[::-1], 10)]
    others.append(digest(WINDOWS, 10, sequence_ids=range(1, 24)))
    assert len(set(others)) == len(others)


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock.acquire(path)
    assert lock is not None
    assert FileLock.acquire(path) is None
    lock.release()
    lock.release()
    with FileLock.acquire(path, wait=True) as again:  # type: ignore[union-attr]
        assert FileLock.acquire(path) is None
        assert again is not lock
    assert FileLock.acquire(path) is not None


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_no_part_in_a_lock(tmp_path: Path) -> None:
    """Neither by living on nor by ending does it change whose the lock is."""
    lock = FileLock.acquire(tmp_path / "lock")
    assert lock is not None
    parent, child = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        parent.close()
        lock.release()
        child.send(b"released")
        child.recv(1)  # until the parent says so
        os._exit(0)
    child.close()
    assert parent.recv(8) == b"released"
    assert FileLock.acquire(tmp_path / "lock") is None
    lock.release()
    second = FileLock.acquire(tmp_path / "lock")  # although the child lives
    assert second is not None
    parent.close()
    os.waitpid(pid, 0)
    assert FileLock.acquire(tmp_path / "lock") is None


def test_a_place_that_cannot_hold_a_lock_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(sl.CacheIOError, match="cannot open the lock"):
        FileLock.acquire(tmp_path / "nowhere" / "lock")


def test_a_unit_that_is_written_twice_is_there_once(tmp_path: Path) -> None:
    """And replaces what a worker that captured into the unit itself left unfinished."""
    units = UnitDirectory(tmp_path / "cache")
    units.hold_to(PLAN)
    arrays: dict[str, Any] = {
        "sequence_ids": [8, 9],
        "sequence_offsets": [0, 1, 2],
        "input_ids": [1, 2],
        "offsets": [0, 1, 2],
        "token_ids": [3, 4],
        "counts": [50, 50],
    }
    left = sl.CacheWriter(units.unit_path(2), PLAN.config, PLAN.metadata)
    left.append([1], [0, 1], [3], [50], 8)
    left.flush()
    left.close()  # complete, but too short
    (units.unit_path(2) / "manifest.json").unlink()
    for _ in range(2):
        write_unit(units, PLAN, 2, arrays, None)
        made = sl.open(units.unit_path(2))
        assert made.sequence_ids.tolist() == [8, 9]
    digest = made.digest
    write_unit(UnitDirectory(tmp_path / "cache"), PLAN, 2, arrays, None)
    assert sl.open(units.unit_path(2)).digest == digest
    assert not list(units.directory.glob(".unit-*"))
