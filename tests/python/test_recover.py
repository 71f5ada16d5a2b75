"""Recovery and resumption across shards, and what they refuse."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from caches import (
    CONFIG,
    Interruption,
    assert_holds,
    random_sequence,
    write,
    write_and_fail,
)

import sparselogits as sl

SEQUENCES = [random_sequence(i, 400) for i in range(12)]


def interrupted(path: Path) -> None:
    """A directory with finished shards, a manifest of them, and an unfinished shard."""
    with pytest.raises(Interruption):
        write_and_fail(path, SEQUENCES[:8], shard_bytes=15_000)
    names = sorted(file.name for file in path.iterdir())
    assert names[0] == "manifest.json"
    assert names[1] == "shard-000000.slc"
    assert names[-1].endswith(".partial")


@pytest.mark.parametrize("with_manifest", [False, True])
def test_recover_with_and_without_a_manifest(tmp_path: Path, with_manifest: bool) -> None:
    interrupted(tmp_path / "c")
    if not with_manifest:
        (tmp_path / "c" / "manifest.json").unlink()
        with pytest.raises(sl.CacheIOError, match="unfinished"):
            sl.open(tmp_path / "c")
    report = sl.recover(tmp_path / "c")
    assert report.total_sequences == 8
    assert (report.sequences == 8) != with_manifest
    cache = sl.open(tmp_path / "c")
    assert_holds(cache, SEQUENCES[:8])
    assert not cache.complete
    cache.verify()


def test_an_unrecovered_cache_opens_with_what_its_manifest_names(tmp_path: Path) -> None:
    interrupted(tmp_path / "c")
    cache = sl.open(tmp_path / "c")
    assert not cache.complete
    assert 0 < len(cache) < 8
    assert "incomplete" in repr(cache)


def test_resume_appends_in_a_new_shard(tmp_path: Path) -> None:
    interrupted(tmp_path / "c")
    with sl.CacheWriter(tmp_path / "c", CONFIG, {"teacher": "test"}, resume=True) as writer:
        assert writer.num_sequences == 8
        assert not sl.open(tmp_path / "c").complete
        for sequence in SEQUENCES[8:]:
            sequence.append_to(writer)
    cache = sl.open(tmp_path / "c")
    assert_holds(cache, SEQUENCES)
    assert cache.complete
    cache.verify()


def test_resume_of_a_finished_cache(tmp_path: Path) -> None:
    write(tmp_path / "c", SEQUENCES[:3])
    with sl.CacheWriter(tmp_path / "c", CONFIG, resume=True) as writer:
        assert not sl.open(tmp_path / "c").complete
        with pytest.raises(sl.InvalidArgumentError, match="sequence_id 2 is already in the cache"):
            SEQUENCES[2].append_to(writer)
        writer.append([], [0], [], [])
    assert list(sl.open(tmp_path / "c").sequence_ids) == [0, 1, 2, 3]


def test_resume_of_nothing_starts_a_cache(tmp_path: Path) -> None:
    assert_holds(write(tmp_path / "new" / "deep", SEQUENCES[:1], resume=True), SEQUENCES[:1])


@pytest.mark.parametrize(
    "field, value, error",
    [
        ("vocab_size", 1001, sl.VocabularyMismatchError),
        ("rounds", 21, sl.MismatchError),
        ("sampler", "systematic", sl.MismatchError),
        ("temperature", 0.5, sl.MismatchError),
        ("store_tokens", False, sl.MismatchError),
        ("tokenizer_fingerprint", "0123456789abcdef", sl.FingerprintMismatchError),
    ],
)
def test_resume_demands_the_same_config(
    tmp_path: Path, field: str, value: object, error: type[Exception]
) -> None:
    write(tmp_path / "c", SEQUENCES[:1])
    other = dataclasses.replace(CONFIG, **{field: value})
    with pytest.raises(error, match=f"{field} of the cache is .*{getattr(CONFIG, field)}.*{value}"):
        sl.CacheWriter(tmp_path / "c", other, resume=True)
    sl.CacheWriter(tmp_path / "c", CONFIG, resume=True).close()


def test_resume_ignores_the_weight_dtype_of_counts(tmp_path: Path) -> None:
    write(tmp_path / "c", SEQUENCES[:1])
    other = dataclasses.replace(CONFIG, weight_dtype="bfloat16")
    sl.CacheWriter(tmp_path / "c", other, resume=True).close()


def test_resume_demands_the_same_metadata(tmp_path: Path) -> None:
    write(tmp_path / "c", SEQUENCES[:1])
    for other in ({}, {"teacher": "else"}, {"teacher": "test", "more": ""}):
        with pytest.raises(sl.MismatchError, match="metadata"):
            sl.CacheWriter(tmp_path / "c", CONFIG, other, resume=True)


def test_recover_of_a_sound_cache_changes_nothing(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", SEQUENCES[:2])
    report = sl.recover(tmp_path / "c")
    assert (report.shards, report.total_sequences) == ((), 2)
    again = sl.open(tmp_path / "c")
    assert again.digest == cache.digest
    assert again.complete


def test_recover_refuses_a_shard_of_another_config(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", SEQUENCES[:2])
    with sl.CacheWriter(tmp_path / "d", sl.CacheConfig(vocab_size=1000, rounds=9)) as writer:
        writer.append([], [0], [], [])
    shutil.copy(tmp_path / "d" / "shard-000000.slc", tmp_path / "c" / "shard-000001.slc")
    with pytest.raises(sl.MismatchError, match=r"shard-000001\.slc: config\.rounds.* 20, not 9"):
        sl.recover(tmp_path / "c")
    assert sl.open(tmp_path / "c").digest == cache.digest


def test_recover_refuses_ids_that_are_there_already(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", SEQUENCES[:2])
    write(tmp_path / "d", SEQUENCES[1:3])
    shutil.copy(tmp_path / "d" / "shard-000000.slc", tmp_path / "c" / "shard-000001.slc")
    with pytest.raises(sl.MismatchError, match="sequence_id 1 is in more than one place"):
        sl.recover(tmp_path / "c")
    assert sl.open(tmp_path / "c").digest == cache.digest


def test_recover_removes_a_torn_manifest(tmp_path: Path) -> None:
    write(tmp_path / "c", SEQUENCES[:2])
    torn = tmp_path / "c" / ".manifest.json.123.tmp"
    torn.write_text("{")
    sl.recover(tmp_path / "c")
    assert not torn.exists()


def test_a_partial_whose_name_is_taken_gets_another(tmp_path: Path) -> None:
    interrupted(tmp_path / "c")
    partial = next((tmp_path / "c").glob("*.partial"))
    partial.rename(tmp_path / "c" / "shard-000000.slc.partial")
    assert sl.recover(tmp_path / "c").total_sequences == 8
    assert_holds(sl.open(tmp_path / "c"), SEQUENCES[:8])


@pytest.mark.parametrize("resume", [False, True])
def test_a_writer_removes_the_first_manifest_that_was_never_renamed(
    tmp_path: Path, resume: bool
) -> None:
    """A death during the first replacement of a manifest, with no shard there yet."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".manifest.json.123.tmp").write_bytes(b"{")
    write(tmp_path / "c", [random_sequence(0)], resume=resume)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "manifest.json",
        "shard-000000.slc",
    ]
