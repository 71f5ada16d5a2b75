"""Finishing loses nothing and makes the same cache, wherever it is interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from crashing_finish import finish_and_die
from unfinished import all_units_done, capture, interrupted
from worker_processes import NUM_UNITS, WINDOWS, contents, ended, llama, start

import sparselogits as sl
from sparselogits.distributed import FileLock, UnitDirectory, finish

MODEL = llama()
SHUFFLED = np.random.default_rng(1).permutation(1000)[: len(WINDOWS)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "before"), [("compact", True), ("compact", False), ("packed", True)]
)
def test_a_kill_at_any_step_loses_nothing(codec: str, before: bool, tmp_path: Path) -> None:
    """Ids that do not ascend, so that the order of the windows has to be restored too."""
    options: dict[str, Any] = {"codec": codec, "sequence_ids": SHUFFLED, "unit_windows": 12}
    expected = contents(capture(tmp_path / "straight", **options))
    assert [row[0] for row in expected] == SHUFFLED.tolist()
    all_units_done(tmp_path / "units", **options)
    copies = tmp_path / "copies"
    process = start(finish_and_die, tmp_path / "units", copies, before=before)
    assert ended(process) == 0
    assert len(list(copies.iterdir())) > 20
    for path in copies.iterdir():
        assert contents(capture(path, model=MODEL, **options)) == expected, path
        assert not list(path.glob(".*")), path


def test_only_one_process_finishes(tmp_path: Path) -> None:
    units, plan = all_units_done(tmp_path / "cache")
    lock = FileLock.acquire(units.directory / "finish.lock")
    assert lock is not None
    with lock:
        assert not finish(units, plan)
        assert not units.is_finished
    assert finish(units, plan)
    assert finish(units, plan)  # a worker that comes later sees it finished
    assert len(sl.open(units.target)) == len(WINDOWS)


def test_nothing_is_finished_while_a_unit_is_missing(tmp_path: Path) -> None:
    units = interrupted(tmp_path / "cache", 5)
    plan = units.read_plan()
    assert plan is not None
    assert units.missing(plan) == list(range(2, NUM_UNITS))
    assert not finish(units, plan)
    assert not units.is_finished


def test_an_error_in_finishing_leaves_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged shard is named; captured again, the capture can be finished."""
    units, plan = all_units_done(tmp_path / "cache")
    shard = units.unit_path(3) / "shard-000000.slc"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(sl.FormatError, match=r"unit-000003/shard-000000\.slc"):
        capture(tmp_path / "cache")
    assert UnitDirectory(units.target).missing(plan) == []
    shutil.rmtree(units.unit_path(3))
    assert contents(capture(tmp_path / "cache")) == contents(capture(tmp_path / "straight"))


def test_damage_that_only_coding_finds_names_the_unit(tmp_path: Path) -> None:
    """Also where an earlier attempt had merged the damaged shard already."""
    units, _ = all_units_done(tmp_path / "cache", codec="compact")
    shard = units.unit_path(3) / "shard-000000.slc"
    data = bytearray(shard.read_bytes())
    places = [place for place in range(len(data)) if is_noticed_late(shard, data, place)]
    data[places[0]] ^= 1
    for _ in range(2):
        shard.write_bytes(data)
        with pytest.raises(sl.FormatError, match=r"remove .*unit-000003 to capture it again"):
            capture(tmp_path / "cache", codec="compact")
    shutil.rmtree(units.unit_path(3))
    made = capture(tmp_path / "cache", codec="compact")
    assert contents(made) == contents(capture(tmp_path / "straight", codec="compact"))


def is_noticed_late(shard: Path, data: bytearray, place: int) -> bool:
    """Whether a flipped bit is found by reading records, but not by opening the cache."""
    flipped = bytearray(data)
    flipped[place] ^= 1
    shard.write_bytes(flipped)
    try:
        cache = sl.open(shard.parent)
    except sl.FormatError:
        return False
    try:
        cache.read_sequences(range(len(cache)))
    except sl.FormatError:
        return True
    return False


def test_a_capture_without_windows_is_an_empty_cache(tmp_path: Path) -> None:
    cache = capture(tmp_path / "cache", WINDOWS[:0], codec="packed")
    assert (len(cache), cache.complete) == (0, True)
    assert not list((tmp_path / "cache").glob(".*"))
