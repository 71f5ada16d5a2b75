"""What does not belong to the capture under way is refused, by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from capture_models import gpt2
from unfinished import all_units_done, capture, interrupted
from worker_processes import UNIT_WINDOWS, WINDOWS, contents, llama

import sparselogits as sl
from sparselogits.distributed import capture_distributed

OTHER_TOKENS = WINDOWS.copy()
OTHER_TOKENS[20, 5] ^= 1  # in a window that nobody has captured yet
MASK = np.ones(WINDOWS.shape, np.bool_)

OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"seed": 4}, "seed"),
    ({"rounds": 21}, "config.rounds"),
    ({"sampler": "systematic"}, "config.sampler"),
    ({"store_tokens": False}, "config.store_tokens"),
    ({"unit_windows": 5}, "unit_windows"),
    ({"codec": "packed"}, "codec"),
    ({"windows": OTHER_TOKENS}, "windows_digest"),
    ({"windows": WINDOWS[:-1]}, "num_windows"),
    ({"targets_mask": MASK}, "targets_mask"),
    ({"sequence_ids": np.arange(1, 24)}, "windows_digest"),
    ({"metadata": {"run": "2"}}, "run"),
]
IDS = [f"{next(iter(change))}" for change, _ in OTHERS]


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("under_way") / "cache"
    interrupted(path, 3, codec="compact")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "cache"
    capture(path, codec="compact")
    return path


@pytest.mark.parametrize(("change", "field"), OTHERS, ids=IDS)
def test_a_worker_with_other_facts(change: dict[str, Any], field: str, under_way: Path) -> None:
    before = sorted(under_way.rglob("*"))
    with pytest.raises(sl.MismatchError, match=rf"plan\.json: .*{field}.* is .*, not "):
        capture(under_way, **{"codec": "compact", **change})
    assert sorted(under_way.rglob("*")) == before


def test_a_worker_with_another_teacher(under_way: Path) -> None:
    with pytest.raises(sl.MismatchError, match="teacher"):
        capture(under_way, model=gpt2())


@pytest.mark.parametrize(("change", "field"), OTHERS, ids=IDS)
def test_a_finished_cache_of_other_facts(
    change: dict[str, Any], field: str, finished: Path
) -> None:
    digest = sl.open(finished).digest
    arguments = {"codec": "compact", **change}
    if "unit_windows" in change:  # no fact of a finished cache
        assert capture(finished, **arguments).digest == digest
        return
    with pytest.raises(sl.MismatchError) as caught:
        capture(finished, **arguments)
    words = {
        "windows": "window 20" if len(change.get("windows", ())) == 23 else "23 sequences, not 22",
        "sequence_ids": "holds sequence_id 0 in its place, not 1",
    }
    assert words.get(next(iter(change)), field) in str(caught.value)
    assert sl.open(finished).digest == digest


def test_a_unit_with_a_damaged_manifest_is_named_and_can_be_captured_again(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    units, _ = all_units_done(path)
    unit = units.unit_path(2)
    text = (unit / "manifest.json").read_text()
    (unit / "manifest.json").write_text(text.replace('"sequences": 4', '"sequences": 5'))
    with pytest.raises(
        sl.FormatError, match=r"unit-000002.*remove .*unit-000002 to capture unit 2"
    ):
        capture(path)
    shutil.rmtree(unit)
    assert contents(capture(path)) == contents(capture(tmp_path / "straight"))


def test_a_complete_unit_of_another_size_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    units, _ = all_units_done(path)
    shutil.rmtree(units.unit_path(1))
    shutil.copytree(units.unit_path(5), units.unit_path(1))
    with pytest.raises(sl.MismatchError, match="unit-000001 is complete with 3 sequences"):
        capture(path)


def test_a_unit_that_is_another_one_is_found_when_the_cache_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    units, _ = all_units_done(path)
    shutil.rmtree(units.unit_path(1))
    shutil.copytree(units.unit_path(2), units.unit_path(1))
    with pytest.raises(sl.MismatchError, match="unit-000002"):
        capture(path)
    assert units.unit_path(0).exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": "sparselogits capture plan"}']
)
def test_a_damaged_plan_is_named(content: str, tmp_path: Path) -> None:
    units = interrupted(tmp_path / "cache", 3)
    (units.directory / "plan.json").write_text(content)
    with pytest.raises(sl.CorruptionError, match=r"plan\.json"):
        capture(tmp_path / "cache")


def test_a_plan_of_a_later_release_is_refused(tmp_path: Path) -> None:
    units = interrupted(tmp_path / "cache", 3)
    plan = units.directory / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "version": 2}))
    with pytest.raises(sl.CorruptionError, match="version: must be 1"):
        capture(tmp_path / "cache")


def test_an_unfinished_cache_without_units_is_left_alone(tmp_path: Path) -> None:
    from worker_processes import OPTIONS, InterruptError, dying, interrupt

    with pytest.raises(InterruptError):
        sl.capture(dying(llama(), 3, interrupt), WINDOWS, tmp_path / "cache", **OPTIONS)
    with pytest.raises(sl.InvalidArgumentError, match="captured without units"):
        capture(tmp_path / "cache")
    assert not (tmp_path / "cache" / ".units").exists()


def test_an_incomplete_cache_without_units_is_no_result(tmp_path: Path) -> None:
    """As a writer leaves it that died between its last shard and the end."""
    capture(tmp_path / "cache", codec="packed")
    manifest = sl.open(tmp_path / "cache").manifest
    replace(manifest, complete=False).write(tmp_path / "cache")
    with pytest.raises(sl.MismatchError, match="incomplete"):
        capture(tmp_path / "cache", codec="packed")


def test_a_wrong_token_in_a_file_is_found_in_its_turn(tmp_path: Path) -> None:
    windows = WINDOWS.copy()
    windows[9, 4] = 200
    np.save(tmp_path / "windows.npy", windows)
    with pytest.raises(sl.InvalidArgumentError, match="window 9 has token id 200"):
        capture(tmp_path / "cache", tmp_path / "windows.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resume": False}, "resume is not an option"),
        ({"unit_windows": 0}, "unit_windows"),
        ({"unit_windows": True}, "unit_windows"),
        ({"world_size": None}, "rank and world_size go together"),
        ({"rank": 1}, "rank must be from 0 to 0"),
        ({"poll_seconds": 0}, "poll_seconds"),
        ({"help_others": 1}, "help_others"),
        ({"sequence_ids": [1] * 23}, "sequence_id 1 occurs more than once"),
        ({"sequence_ids": [1]}, "sequence_ids has 1 items for 23 windows"),
        ({"targets_mask": MASK[:2]}, "targets_mask has 2 items for 23 windows"),
        ({"windows": iter(WINDOWS)}, "windows must have a length and random access"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_write_nothing(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arguments = {"windows": WINDOWS, "unit_windows": UNIT_WINDOWS, "rank": 0, "world_size": 1}
    with pytest.raises(sl.InvalidArgumentError, match=message):
        capture_distributed(llama(), path=tmp_path / "cache", **{**arguments, **change})
    assert not (tmp_path / "cache").exists()
