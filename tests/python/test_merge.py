"""`merge`: the same shards under another roof, or a refusal that says why; nothing in between."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from caches import CONFIG, Interruption, assert_holds, random_sequence, write, write_and_fail
from hypothesis import given, settings
from hypothesis import strategies as st
from random_caches import Recipe, content, recipes, snapshot

import sparselogits as sl
from sparselogits.agreement import TEACHER_KEYS
from sparselogits.directory import DirectoryLock
from sparselogits.manifest import read_manifest
from sparselogits.staging import Staging

SCRIPT = Path(__file__).with_name("restart_script.py")
SEQUENCES = [random_sequence(i, 100) for i in range(12)]


def writers(directory: Path) -> tuple[Path, Path]:
    """The caches of two writers: `a` holds 6 to 11 in a shard each, `b` 0 to 5 in one."""
    write(directory / "a", SEQUENCES[6:], shard_bytes=1)
    write(directory / "b", SEQUENCES[:6])
    assert len(read_manifest(directory / "a").shards) == 6
    return directory / "a", directory / "b"


def cache_of(path: Path, ids: range, metadata: dict[str, str], **config: Any) -> Path:
    with sl.CacheWriter(path, dataclasses.replace(CONFIG, **config), metadata) as writer:
        kind = writer.config.value_kind
        for i in ids:
            writer.append([1, 2], [0, 0, 0], [], sequence_id=i, **{kind: []})
    return path


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


def test_parallel_writers_become_one_cache_in_order_of_ids(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    report = sl.merge([a, b], tmp_path / "out")
    cache = sl.open(tmp_path / "out")
    assert_holds(cache, SEQUENCES)
    assert sl.verify(tmp_path / "out").ok
    assert cache.metadata == {"teacher": "test"}
    rows = [*read_manifest(b).shards, *read_manifest(a).shards]
    for number, (old, new) in enumerate(zip(rows, cache.manifest.shards, strict=True)):
        assert new == dataclasses.replace(old, file=f"shard-{number:06d}.slc")
    assert report == sl.MergeReport(
        path=str(tmp_path / "out"),
        sources=2,
        shards=len(rows),
        sequences=12,
        positions=1200,
        entries=cache.num_entries,
        bytes=cache.nbytes,
        linked=len(rows),
        copied=0,
        complete=True,
    )
    assert leftovers(tmp_path) == []


def test_links_are_the_same_files_and_the_sources_are_untouched(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    before = snapshot(a), snapshot(b)
    sl.merge([a, b], tmp_path / "out")
    assert (snapshot(a), snapshot(b)) == before
    inodes = [(tmp_path / "out" / f"shard-{n:06d}.slc").stat().st_ino for n in range(2)]
    assert inodes == [
        (b / "shard-000000.slc").stat().st_ino,
        (a / "shard-000000.slc").stat().st_ino,
    ]
    shutil.rmtree(a)
    shutil.rmtree(b)
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES)


@pytest.mark.parametrize("kernel", [True, False])
def test_shards_that_cannot_be_linked_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    if not kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    a, b = writers(tmp_path)
    report = sl.merge([a, b], tmp_path / "out")
    assert (report.linked, report.copied) == (0, report.shards)
    new = tmp_path / "out" / "shard-000000.slc"
    assert new.stat().st_ino != (b / "shard-000000.slc").stat().st_ino
    assert new.read_bytes() == (b / "shard-000000.slc").read_bytes()
    assert sl.verify(tmp_path / "out").ok
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES)


def test_a_copy_is_compared_with_the_digest_of_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    a, b = writers(tmp_path)
    with (b / "shard-000000.slc").open("r+b") as shard:
        shard.seek(1000)
        shard.write(b"\xff\x00\xff\x00")
    with pytest.raises(sl.CorruptionError, match="in a copy, but must be") as caught:
        sl.merge([a, b], tmp_path / "out")
    assert (caught.value.path, caught.value.field) == (str(b / "shard-000000.slc"), "sha256")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_link_to_a_shard_inside_its_cache_stands_for_the_file(tmp_path: Path) -> None:
    _, b = writers(tmp_path)
    (b / "shard-000000.slc").rename(b / "real")
    (b / "shard-000000.slc").symlink_to("real")
    assert sl.merge([b], tmp_path / "out").linked == 1
    assert not (tmp_path / "out" / "shard-000000.slc").is_symlink()
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES[:6])


def test_one_source_and_an_empty_target_are_fine(tmp_path: Path) -> None:
    _, b = writers(tmp_path)
    (tmp_path / "out").mkdir()
    sl.merge([b], tmp_path / "out")
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES[:6])
    sl.merge([b], tmp_path / "new" / "deep")
    assert_holds(sl.open(tmp_path / "new" / "deep"), SEQUENCES[:6])


def test_a_merged_cache_takes_more_sequences_and_merges_again(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    before = snapshot(b)
    sl.merge([b], tmp_path / "out")
    more = random_sequence(100, 50)
    with sl.CacheWriter(tmp_path / "out", CONFIG, resume=True) as writer:
        more.append_to(writer)
    sl.merge([tmp_path / "out", a], tmp_path / "all")
    assert content(sl.open(tmp_path / "all")).keys() == {*range(12), 100}
    assert sl.verify(tmp_path / "all").ok
    assert snapshot(b) == before


@given(recipe=recipes(), number=st.integers(1, 3), shard_bytes=st.sampled_from([1, 1 << 30]))
@settings(max_examples=15, deadline=None)
def test_any_split_of_a_cache_merges_to_its_content(
    recipe: Recipe, number: int, shard_bytes: int
) -> None:
    ids = list(recipe.lengths)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        whole = content(recipe.write(path / "whole", ids))
        parts = [path / f"part{i}" for i in range(number)]
        for i, part in enumerate(parts):
            recipe.write(part, ids[i::number], shard_bytes=shard_bytes)
        sl.merge(parts, path / "out")
        cache = sl.open(path / "out")
        assert content(cache) == whole
        assert sl.verify(path / "out").ok
        starts = [0]
        for row in cache.manifest.shards:
            starts.append(starts[-1] + row.sequences)
        lowest = [min(cache.sequence_ids[a:b]) for a, b in pairwise(starts)]
        assert lowest == sorted(lowest)


def test_what_is_no_list_of_caches_is_refused(tmp_path: Path) -> None:
    a, _ = writers(tmp_path)
    with pytest.raises(sl.InvalidArgumentError, match="at least one cache, got none"):
        sl.merge([], tmp_path / "out")
    with pytest.raises(sl.InvalidArgumentError, match="several paths, got one"):
        sl.merge(str(a), tmp_path / "out")
    with pytest.raises(sl.CacheIOError, match="nowhere"):
        sl.merge([a, tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(sl.CacheIOError, match=r"empty/manifest\.json"):
        sl.merge([a, tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_directory_twice_is_refused(tmp_path: Path) -> None:
    a, _ = writers(tmp_path)
    with pytest.raises(sl.InvalidArgumentError, match=r"a is given twice$"):
        sl.merge([a, f"{a}/../a"], tmp_path / "out")
    (tmp_path / "link").symlink_to(a)
    with pytest.raises(sl.InvalidArgumentError, match=r"link is given twice, also as .*/a$"):
        sl.merge([a, tmp_path / "link"], tmp_path / "out")


def test_a_copy_of_the_same_cache_is_refused(tmp_path: Path) -> None:
    a, _ = writers(tmp_path)
    shutil.copytree(a, tmp_path / "copy")
    uuid = read_manifest(a).shards[0].uuid
    with pytest.raises(sl.MismatchError) as caught:
        sl.merge([a, tmp_path / "copy"], tmp_path / "out")
    assert str(caught.value).startswith(
        f"{tmp_path}/copy/shard-000000.slc is the same shard as {a}/shard-000000.slc (uuid {uuid})"
    )


def test_overlapping_ids_are_refused_with_both_places(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    write(tmp_path / "c", [random_sequence(i, 3) for i in (50, 11, 3)])
    with pytest.raises(sl.MismatchError) as caught:
        sl.merge([a, b, tmp_path / "c"], tmp_path / "out")
    assert str(caught.value) == (
        f"sequence_id 3 is in {b}/shard-000000.slc and in {tmp_path}/c/shard-000000.slc: "
        "the ids of caches that are merged must not overlap"
    )


@pytest.mark.parametrize(
    "field, value, error",
    [
        ("vocab_size", 1001, sl.VocabularyMismatchError),
        ("rounds", 21, sl.MismatchError),
        ("sampler", "systematic", sl.MismatchError),
        ("temperature", 0.5, sl.MismatchError),
        ("store_tokens", False, sl.MismatchError),
        ("value_kind", "weights", sl.MismatchError),
        ("tokenizer_fingerprint", "0123456789abcdef", sl.FingerprintMismatchError),
    ],
)
def test_different_configs_are_refused(
    tmp_path: Path, field: str, value: object, error: type[Exception]
) -> None:
    a = cache_of(tmp_path / "a", range(3), {})
    b = cache_of(tmp_path / "b", range(3, 5), {}, **{field: value})
    with pytest.raises(error) as caught:
        sl.merge([a, b], tmp_path / "out")
    assert type(caught.value) is error
    assert str(caught.value) == (
        f"{b}: config.{field} of {a} is {getattr(CONFIG, field)!r}, not {value!r}"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_facts_that_differ_must_be_settled_by_the_caller(tmp_path: Path) -> None:
    a = cache_of(tmp_path / "a", range(3), {"teacher": "T", "host": "one"})
    b = cache_of(tmp_path / "b", range(3, 5), {"teacher": "T", "host": "two", "note": "x"})
    with pytest.raises(sl.MismatchError) as caught:
        sl.merge([a, b], tmp_path / "out")
    assert str(caught.value) == (
        f"{b}: metadata['host'] of {a} is 'one', not 'two': "
        "give the value of the new cache in metadata= (--metadata)"
    )
    with pytest.raises(sl.MismatchError, match=r"metadata\['note'\] of .*a is None, not 'x'"):
        sl.merge([a, b], tmp_path / "out", metadata={"host": "both"})
    sl.merge([a, b], tmp_path / "out", metadata={"host": "both", "note": "", "new": "y"})
    facts = {"teacher": "T", "host": "both", "note": "", "new": "y"}
    assert sl.open(tmp_path / "out").metadata == facts
    with pytest.raises(sl.InvalidArgumentError, match="metadata must map str to str"):
        sl.merge([a], tmp_path / "other", metadata={"host": 1})  # type: ignore[dict-item]


@pytest.mark.parametrize("key", TEACHER_KEYS)
def test_foreign_teachers_are_refused_whatever_the_caller_says(tmp_path: Path, key: str) -> None:
    a = cache_of(tmp_path / "a", range(3), {"host": "one", key: "T"})
    b = cache_of(tmp_path / "b", range(3, 5), {"host": "two", key: "U"})
    c = cache_of(tmp_path / "c", range(3, 5), {"host": "two"})
    for other, value in ((b, "'U'"), (c, "None")):
        for metadata in (None, {"host": "", key: "T"}):
            with pytest.raises(sl.MismatchError) as caught:
                sl.merge([a, other], tmp_path / "out", metadata=metadata)
            assert str(caught.value) == (
                f"{other}: metadata[{key!r}] of {a} is 'T', not {value}: "
                "samples of different teachers do not go into one cache"
            )
    with pytest.raises(sl.MismatchError, match=rf"metadata\['{key}'\] of .*a is 'T', not 'U'"):
        sl.merge([a], tmp_path / "out", metadata={key: "U"})


def test_the_keys_of_a_teacher_are_those_of_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparselogits.capture import model_facts, provenance

    for name in ("teacher_name", "teacher_dtype", "weights_fingerprint"):
        monkeypatch.setattr(model_facts, name, lambda _: "x")
    facts = provenance.capture_metadata(object(), 0, False, None)  # type: ignore[arg-type]
    assert {key for key in facts if key.startswith("teacher")} == set(TEACHER_KEYS)


def test_an_unfinished_source_is_refused(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "c", [random_sequence(50)])
    for allow in (False, True):
        with pytest.raises(sl.InvalidArgumentError) as caught:
            sl.merge([b, tmp_path / "c"], tmp_path / "out", allow_incomplete=allow)
        text = str(caught.value)
        assert text.startswith(f"{tmp_path}/c is unfinished: shard-000000.slc.partial is not in")
        assert "sl.recover(path)" in text
        assert "resume=True" in text
    shutil.copy(b / "shard-000000.slc", a / "shard-000999.slc")
    with pytest.raises(sl.InvalidArgumentError, match=r"a is unfinished: shard-000999\.slc is not"):
        sl.merge([a], tmp_path / "out", allow_incomplete=True)


def test_a_recovered_source_is_taken_only_on_request(tmp_path: Path) -> None:
    _, b = writers(tmp_path)
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "c", [random_sequence(50)])
    sl.recover(tmp_path / "c")
    with pytest.raises(sl.InvalidArgumentError, match=r"c is incomplete .*allow_incomplete=True"):
        sl.merge([b, tmp_path / "c"], tmp_path / "out")
    report = sl.merge([b, tmp_path / "c"], tmp_path / "out", allow_incomplete=True)
    assert (report.sequences, report.complete) == (7, False)
    assert not sl.open(tmp_path / "out").complete
    with sl.CacheWriter(tmp_path / "c", CONFIG, resume=True):
        pass
    assert sl.merge([b, tmp_path / "c"], tmp_path / "whole").complete


def test_a_source_with_a_writer_at_work_is_refused(tmp_path: Path) -> None:
    a, _ = writers(tmp_path)
    with sl.CacheWriter(a, CONFIG, resume=True):
        with pytest.raises(sl.InvalidArgumentError, match=r"unfinished: .*\.partial"):
            sl.merge([a], tmp_path / "out", allow_incomplete=True)
        partial = next(a.glob("*.partial"))
        partial.rename(tmp_path / "hidden")  # as between two shards
        with pytest.raises(sl.CacheIOError, match="at work in this directory"):
            sl.merge([a], tmp_path / "out", allow_incomplete=True)
        (tmp_path / "hidden").rename(partial)
    assert sl.merge([a], tmp_path / "out").complete


def test_a_damaged_source_is_refused(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    shard = b / "shard-000000.slc"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(sl.FormatError) as caught:
        sl.merge([a, b], tmp_path / "out")
    assert caught.value.path == str(shard)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    before = snapshot(a), snapshot(b)
    with pytest.raises(sl.InvalidArgumentError, match=r"b is inside .*/b"):
        sl.merge([a, b], b)
    with pytest.raises(sl.InvalidArgumentError, match=r"b/deep/out is inside .*/b"):
        sl.merge([a, b], b / "deep" / "out")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(sl.InvalidArgumentError, match=r"link/a/x is inside .*/a"):
        sl.merge([a, b], tmp_path / "link" / "a" / "x")
    with pytest.raises(sl.InvalidArgumentError, match="link is not a directory"):
        sl.merge([a, b], tmp_path / "link")
    (tmp_path / "file").write_text("x")
    with pytest.raises(sl.InvalidArgumentError, match="file is not a directory"):
        sl.merge([a, b], tmp_path / "file")
    with pytest.raises(sl.InvalidArgumentError, match="is not empty"):
        sl.merge([a, b], tmp_path)
    assert (snapshot(a), snapshot(b)) == before
    assert leftovers(tmp_path) == []


def test_a_second_merge_into_the_same_target_is_refused(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    refused: list[sl.CacheIOError] = []

    def meanwhile(*_: int) -> None:
        with pytest.raises(sl.CacheIOError) as caught:
            sl.merge([a], tmp_path / "out")
        refused.append(caught.value)

    sl.merge([a, b], tmp_path / "out", progress=meanwhile)
    assert str(tmp_path / "out") in str(refused[0])
    assert "another call is merging into" in str(refused[0])
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES)


def test_what_appears_at_the_target_meanwhile_stays(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    with pytest.raises(sl.CacheIOError, match="cannot rename the finished cache to"):
        sl.merge([a], tmp_path / "out", progress=lambda *_: _write_file(tmp_path / "out" / "mine"))
    assert (tmp_path / "out" / "mine").read_text() == "x"
    assert leftovers(tmp_path) == []
    assert sl.verify(b).ok


def test_a_target_that_appears_before_the_work_begins_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = writers(tmp_path)

    class Late(Staging):
        """Another merge ends before this one takes the lock."""

        def __enter__(self) -> Staging:
            monkeypatch.undo()
            sl.merge([b], tmp_path / "out")
            return super().__enter__()

    monkeypatch.setattr(sys.modules["sparselogits.merge"], "Staging", Late)
    with pytest.raises(sl.InvalidArgumentError, match="out is not empty"):
        sl.merge([a], tmp_path / "out", progress=lambda *_: pytest.fail("work was done"))
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES[:6])
    assert leftovers(tmp_path) == []


def _write_file(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    a, b = writers(tmp_path)
    before = snapshot(a), snapshot(b)
    descriptors = len(os.listdir("/proc/self/fd"))

    def fail(*_: int) -> None:
        raise Interruption

    with pytest.raises(Interruption):
        sl.merge([a, b], tmp_path / "out", progress=fail)
    assert (snapshot(a), snapshot(b)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    sl.merge([a, b], tmp_path / "out")
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES)


@pytest.mark.parametrize("moment", ["step:1", "step:2", "manifest", "publish", "published"])
def test_a_killed_merge_is_done_again(tmp_path: Path, moment: str) -> None:
    a, b = writers(tmp_path)
    before = snapshot(a), snapshot(b)
    sl.merge([a, b], tmp_path / "undisturbed")
    command = [sys.executable, str(SCRIPT), "merge", moment, str(tmp_path / "out"), str(a), str(b)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    assert (snapshot(a), snapshot(b)) == before
    if moment == "published":
        with pytest.raises(sl.InvalidArgumentError, match="out is not empty"):
            sl.merge([a, b], tmp_path / "out")
    else:
        assert not (tmp_path / "out").exists()
        assert leftovers(tmp_path) == [".out.merging"]
        sl.merge([a, b], tmp_path / "out")
        assert leftovers(tmp_path) == []
    assert snapshot(tmp_path / "out").keys() == snapshot(tmp_path / "undisturbed").keys()
    assert read_manifest(tmp_path / "out") == read_manifest(tmp_path / "undisturbed")
    assert sl.verify(tmp_path / "out").ok
    assert (snapshot(a), snapshot(b)) == before


def test_the_lock_of_a_staging_directory_that_was_replaced_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = writers(tmp_path)

    class Replaced(DirectoryLock):
        """What another call does between the opening of the directory and its locking."""

        def __init__(self, directory: Path) -> None:
            super().__init__(directory)
            if directory.name == ".out.merging":
                directory.rename(tmp_path / "gone")
                directory.mkdir()

    monkeypatch.setattr("sparselogits.staging.DirectoryLock", Replaced)
    with pytest.raises(sl.CacheIOError, match="another call is merging"):
        sl.merge([a], tmp_path / "out")
    assert not (tmp_path / "out").exists()
