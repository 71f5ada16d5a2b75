"""Writers of compact caches: when they train, what they keep, and how they go on."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caches import Interruption, assert_holds, random_sequence, write
from compact_caches import (
    COMPACT,
    SEQUENCES,
    assert_holds_its_files_only,
    model_files,
    train_early,
    write_compact,
)

import sparselogits as sl
from sparselogits import _core


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    train_early(monkeypatch)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions of each training from now on."""
    seen: list[int] = []
    train = _core.train_model

    def counted(config: Any, input_ids: Any, *rest: Any) -> _core.CodecModel:
        seen.append(len(input_ids))
        return train(config, input_ids, *rest)

    monkeypatch.setattr(_core, "train_model", counted)
    return seen


def test_the_first_positions_teach_the_model_of_all_shards(
    tmp_path: Path, trainings: list[int]
) -> None:
    cache = write_compact(tmp_path / "c", SEQUENCES, shard_bytes=25_000)
    assert trainings == [2000]
    assert cache.manifest.shards[0].sequences == 5
    assert len(cache.manifest.shards) > 2
    assert len(cache.models) == 1
    assert_holds(cache, SEQUENCES)
    assert_holds_its_files_only(tmp_path / "c")


def test_what_the_training_shard_holds_is_committed_as_ever(tmp_path: Path) -> None:
    writer = sl.CacheWriter(tmp_path / "c", COMPACT)
    SEQUENCES[0].append_to(writer)
    writer.flush()
    (tmp_path / "copy").mkdir()
    (partial,) = (tmp_path / "c").iterdir()
    (tmp_path / "copy" / partial.name).write_bytes(partial.read_bytes())
    writer.close()
    assert partial.name == "shard-000000.slc.partial"
    sl.recover(tmp_path / "copy")
    assert_holds(sl.open(tmp_path / "copy"), SEQUENCES[:1])


def test_a_model_that_does_not_pay_is_not_kept(tmp_path: Path, trainings: list[int]) -> None:
    cache = write_compact(tmp_path / "c", [random_sequence(0, 3)])
    assert trainings == [3]
    assert cache.models == ()
    assert "models" not in (tmp_path / "c" / "manifest.json").read_text()
    assert_holds(cache, [random_sequence(0, 3)])
    assert_holds_its_files_only(tmp_path / "c")


def test_after_a_training_in_vain_the_next_one_waits_for_twice_as_much(
    tmp_path: Path, trainings: list[int]
) -> None:
    sequences = [random_sequence(i, 2) for i in range(20)]
    cache = write_compact(tmp_path / "c", sequences, shard_bytes=1)
    assert len(cache.manifest.shards) == 20
    assert trainings == [2]
    assert_holds(cache, sequences)


def test_nothing_to_learn_from_is_no_error(tmp_path: Path, trainings: list[int]) -> None:
    with sl.CacheWriter(tmp_path / "c", COMPACT) as writer:
        writer.append([], [0], [], [])
        writer.append(np.arange(1000), np.zeros(1001, int), [], [])
    cache = sl.open(tmp_path / "c")
    assert (cache.num_positions, cache.num_entries, cache.models) == (1000, 0, ())
    assert trainings == []
    assert_holds_its_files_only(tmp_path / "c")
    write_compact(tmp_path / "empty", [])
    assert_holds_its_files_only(tmp_path / "empty")


def test_a_given_model_is_there_from_the_start_and_nothing_is_trained(
    tmp_path: Path, trainings: list[int]
) -> None:
    model = sl.train_model(write(tmp_path / "packed", SEQUENCES))
    trainings.clear()
    with sl.CacheWriter(tmp_path / "c", COMPACT, model=model) as writer:
        assert [file.name for file in model_files(tmp_path / "c")] == [model.file_name]
        for sequence in SEQUENCES:
            sequence.append_to(writer)
    cache = sl.open(tmp_path / "c")
    assert trainings == []
    assert cache.models == (model,)
    assert len(cache.manifest.shards) == 1
    assert_holds(cache, SEQUENCES)
    with pytest.raises(Interruption):
        _write_and_fail(tmp_path / "dead", model)
    sl.recover(tmp_path / "dead")
    assert sl.open(tmp_path / "dead").models == (model,)
    assert_holds(sl.open(tmp_path / "dead"), SEQUENCES[:3])


def _write_and_fail(path: Path, model: sl.CodecModel | None) -> None:
    with sl.CacheWriter(path, COMPACT, {"teacher": "test"}, model) as writer:
        for sequence in SEQUENCES[:3]:
            sequence.append_to(writer)
        raise Interruption


def test_a_resumed_writer_takes_the_model_of_the_cache(
    tmp_path: Path, trainings: list[int]
) -> None:
    first = write_compact(tmp_path / "c", SEQUENCES[:6])
    trainings.clear()
    cache = write_compact(tmp_path / "c", SEQUENCES[6:], resume=True)
    assert trainings == []
    assert cache.models == first.models
    assert_holds(cache, SEQUENCES)
    assert_holds_its_files_only(tmp_path / "c")


def test_a_resumed_writer_takes_another_model_if_given_one(tmp_path: Path) -> None:
    first = write_compact(tmp_path / "c", SEQUENCES[:6])
    other = sl.train_model(first, num_classes=2)
    cache = write_compact(tmp_path / "c", SEQUENCES[6:9], resume=True, model=other)
    assert set(cache.models) == {first.models[0], other}
    again = write_compact(tmp_path / "c", SEQUENCES[9:], resume=True)  # that of the last shard
    assert_holds(again, SEQUENCES)
    assert len(again.models) == 2
    last = tmp_path / "c" / again.manifest.shards[-1].file
    info = _core.read_shard_info(str(last), [model.core for model in again.models])
    assert f"{info['model_digest']:016x}" == other.digest


def test_a_writer_that_resumes_a_training_shard_trains_anew(
    tmp_path: Path, trainings: list[int]
) -> None:
    with pytest.raises(Interruption):
        _write_and_fail(tmp_path / "c", None)
    assert trainings == []  # leaving in haste trains nothing
    cache = write_compact(tmp_path / "c", SEQUENCES[3:], resume=True)
    assert trainings == [2000]
    assert len(cache.models) == 1
    assert_holds(cache, SEQUENCES)


def test_an_error_while_coding_anew_keeps_the_finished_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        writer = sl.CacheWriter(tmp_path / "c", COMPACT)
        for sequence in SEQUENCES[:4]:
            sequence.append_to(writer)
        with pytest.raises(sl.CacheIOError, match="No space left"):
            SEQUENCES[4].append_to(writer)
        with pytest.raises(sl.CacheIOError, match="takes nothing more"):
            writer.close()
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["shard-000000.slc"]
    assert sl.recover(tmp_path / "c").sequences == 5
    assert_holds(sl.open(tmp_path / "c"), SEQUENCES[:5])


def test_shards_with_many_entries_teach_before_they_have_many_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[int]
) -> None:
    monkeypatch.setattr("sparselogits.training_shard.TRAINING_ENTRIES", 3000)
    monkeypatch.setattr("sparselogits.training_sample.TRAINING_ENTRIES", 3000)
    cache = write_compact(tmp_path / "c", SEQUENCES[:6])
    assert 6000 <= cache.manifest.shards[0].entries < 13_000
    entries = cache.manifest.shards[0].entries / cache.manifest.shards[0].positions
    assert all(positions * entries < 3100 for positions in trainings)
    assert_holds(cache, SEQUENCES[:6])


def test_weights_train_too(tmp_path: Path, trainings: list[int]) -> None:
    config = dataclasses.replace(COMPACT, value_kind="weights", weight_dtype="bfloat16")
    for codec in ("packed", "compact"):
        changed = dataclasses.replace(config, codec=codec)
        with sl.CacheWriter(tmp_path / codec, changed) as writer:
            for s in SEQUENCES:
                weights = s.counts / 20
                writer.append(
                    s.input_ids, s.offsets, s.token_ids, sequence_id=s.sequence_id, weights=weights
                )
    packed, compact = sl.open(tmp_path / "packed"), sl.open(tmp_path / "compact")
    assert trainings == [2000]
    assert len(compact.models) == 1
    assert compact.nbytes < packed.nbytes
    for mine, other in zip(packed, compact, strict=True):
        np.testing.assert_array_equal(mine.weights, other.weights)
        np.testing.assert_array_equal(mine.token_ids, other.token_ids)
