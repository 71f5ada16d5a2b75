"""What was committed survives: exceptions, kill -9, full disks, torn files."""

from __future__ import annotations

import logging
import subprocess
import sys
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

SEQUENCES = [random_sequence(i) for i in range(4)]
SCRIPT = Path(__file__).with_name("crash_script.py")


def run(path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(path), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill_writer(path: Path, committed: int, lost: int) -> None:
    assert run(path, "kill", committed, lost).returncode == -9
    assert [file.name for file in path.iterdir()] == ["shard-000000.slc.partial"]


def test_kill_then_recover(tmp_path: Path) -> None:
    kill_writer(tmp_path / "c", 7, 30)
    with pytest.raises(sl.CacheIOError, match=r"unfinished.*sl\.recover"):
        sl.open(tmp_path / "c")
    with pytest.raises(sl.InvalidArgumentError, match=r"writer is gone.*sl\.recover.*resume=True"):
        sl.CacheWriter(tmp_path / "c", CONFIG)
    report = sl.recover(tmp_path / "c")
    assert (report.sequences, report.positions, report.shards) == (7, 700, ("shard-000000.slc",))
    assert report.dropped_bytes > 0
    cache = sl.open(tmp_path / "c")
    assert_holds(cache, [random_sequence(i, 100) for i in range(7)])
    assert not cache.complete
    assert cache.metadata == {"teacher": "test"}
    cache.verify()
    again = sl.recover(tmp_path / "c")
    assert (again.sequences, again.total_sequences, again.dropped_bytes) == (0, 7, 0)
    assert sl.open(tmp_path / "c").digest == cache.digest


@pytest.mark.parametrize("recover_first", [False, True])
def test_kill_then_resume_ends_with_the_same_content(tmp_path: Path, recover_first: bool) -> None:
    sequences = [random_sequence(i, 100) for i in range(20)]
    kill_writer(tmp_path / "c", 7, 5)
    if recover_first:
        sl.recover(tmp_path / "c")
    with sl.CacheWriter(tmp_path / "c", CONFIG, resume=True) as writer:
        assert writer.num_sequences == 7
        assert writer.num_positions == 700
        for sequence in sequences:
            if sequence.sequence_id not in writer:
                sequence.append_to(writer)
    cache = sl.open(tmp_path / "c")
    assert_holds(cache, sequences)
    assert cache.complete
    assert cache.metadata == {"teacher": "test"}
    cache.verify()


def test_kill_before_the_first_commit(tmp_path: Path) -> None:
    kill_writer(tmp_path / "c", 0, 5)
    report = sl.recover(tmp_path / "c")
    assert (report.sequences, report.total_sequences) == (0, 0)
    assert len(sl.open(tmp_path / "c")) == 0
    with sl.CacheWriter(tmp_path / "c", CONFIG, resume=True) as writer:
        random_sequence(0).append_to(writer)
    assert_holds(sl.open(tmp_path / "c"), [random_sequence(0)])


@pytest.mark.parametrize("length", [0, 1, 100, 128, 140])
def test_a_partial_that_was_torn_at_birth(tmp_path: Path, length: int) -> None:
    kill_writer(tmp_path / "c", 1, 0)
    partial = tmp_path / "c" / "shard-000000.slc.partial"
    partial.write_bytes(partial.read_bytes()[:length])
    assert sl.recover(tmp_path / "c").sequences == 0
    assert not partial.exists()
    with sl.CacheWriter(tmp_path / "c", CONFIG, resume=True) as writer:
        random_sequence(0).append_to(writer)
    assert_holds(sl.open(tmp_path / "c"), [random_sequence(0)])


def test_a_header_that_never_reached_the_disk_is_no_damage(tmp_path: Path) -> None:
    write(tmp_path / "c", SEQUENCES[:2], shard_bytes=1)
    (tmp_path / "c" / "shard-000002.slc.partial").write_bytes(bytes(128))
    assert sl.recover(tmp_path / "c").total_sequences == 2
    assert not list((tmp_path / "c").glob("*.partial"))


def test_a_damaged_header_with_something_behind_it_is_left_alone(tmp_path: Path) -> None:
    kill_writer(tmp_path / "c", 1, 0)
    partial = tmp_path / "c" / "shard-000000.slc.partial"
    damaged = bytes(128) + partial.read_bytes()[128:]
    partial.write_bytes(damaged)
    with pytest.raises(
        sl.CorruptionError, match=r"shard-000000\.slc\.partial, byte 0, field magic"
    ):
        sl.recover(tmp_path / "c")
    assert partial.read_bytes() == damaged


def test_every_torn_end_recovers_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "c"
    sequences = [random_sequence(i, 5) for i in range(3)]
    with sl.CacheWriter(path, CONFIG) as writer:
        ends = []
        for sequence in sequences:
            sequence.append_to(writer)
            writer.flush()
            ends.append((path / "shard-000000.slc.partial").stat().st_size)
        whole = (path / "shard-000000.slc.partial").read_bytes()
    for length in range(1, len(whole) + 1, 5):
        for file in path.iterdir():
            file.unlink()
        (path / "shard-000000.slc.partial").write_bytes(whole[:length])
        expected = sum(end <= length for end in ends)
        assert sl.recover(path).sequences == expected
        if expected:
            assert_holds(sl.open(path), sequences[:expected])


@pytest.mark.parametrize("limit", [3_000, 20_000, 50_001])
def test_disk_full(tmp_path: Path, limit: int) -> None:
    result = run(tmp_path / "c", "full", limit)
    assert result.returncode == 1, result.stderr
    committed = result.stdout.count("durable")
    assert "File too large" in result.stdout
    assert "refused the writer of" in result.stdout
    assert "sl.recover" in result.stderr
    report = sl.recover(tmp_path / "c")
    assert report.sequences == committed > 0
    assert_holds(sl.open(tmp_path / "c"), [random_sequence(i, 100) for i in range(committed)])


def test_a_writer_that_cannot_begin_leaves_no_file(tmp_path: Path) -> None:
    result = run(tmp_path / "c", "full", 100)
    assert "cannot write: File too large" in result.stderr
    assert list((tmp_path / "c").iterdir()) == []
    write(tmp_path / "c", SEQUENCES[:1])


def test_a_directory_that_the_system_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(sl.CacheIOError, match=f"cannot create the directory.*{'d' * 300}"):
        sl.CacheWriter(tmp_path / ("d" * 300), CONFIG)


def not_yet_listed(path: Path) -> None:
    """What a writer leaves that dies between finishing its second shard and listing it."""
    write(path, SEQUENCES[:1])
    manifest = (path / "manifest.json").read_bytes()
    with sl.CacheWriter(path, CONFIG, resume=True) as writer:
        for sequence in SEQUENCES[1:3]:
            sequence.append_to(writer)
    (path / "manifest.json").write_bytes(manifest)
    (path / ".manifest.json.123.tmp").write_bytes(manifest[:100])


def test_resume_goes_on_after_a_finished_shard_that_is_not_listed_yet(tmp_path: Path) -> None:
    not_yet_listed(tmp_path / "c")
    with sl.CacheWriter(tmp_path / "c", CONFIG, resume=True) as writer:
        assert writer.num_sequences == 3
        SEQUENCES[3].append_to(writer)
    cache = sl.open(tmp_path / "c")
    assert_holds(cache, SEQUENCES[:4])
    assert cache.complete
    names = {row.file for row in cache.manifest.shards} | {"manifest.json"}
    assert {file.name for file in (tmp_path / "c").iterdir()} == names


def test_only_shards_that_are_not_listed_are_named_where_ids_repeat(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", SEQUENCES[:2])
    write(tmp_path / "d", SEQUENCES[1:3])
    copy = tmp_path / "c" / "shard-000001.slc"
    copy.write_bytes((tmp_path / "d" / "shard-000000.slc").read_bytes())
    for act in (sl.recover, lambda path: sl.CacheWriter(path, CONFIG, resume=True)):
        with pytest.raises(sl.MismatchError, match=r"no manifest lists are shard-000001\.slc$"):
            act(tmp_path / "c")
    assert sl.open(tmp_path / "c").digest == cache.digest


def test_both_names_of_a_rename_cut_in_half_are_one_shard(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", SEQUENCES[:2])
    sealed = tmp_path / "c" / "shard-000000.slc"
    (tmp_path / "c" / "shard-000000.slc.partial").hardlink_to(sealed)
    assert sl.recover(tmp_path / "c").total_sequences == 2
    assert {file.name for file in (tmp_path / "c").iterdir()} == {"manifest.json", sealed.name}
    assert sl.open(tmp_path / "c").digest == cache.digest
    sl.open(tmp_path / "c").verify()


def test_an_exception_finishes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sequences = [random_sequence(i) for i in range(3)]
    caplog.set_level(logging.WARNING, "sparselogits")
    with pytest.raises(Interruption, match="teacher"):
        write_and_fail(tmp_path / "c", sequences)
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["shard-000000.slc.partial"]
    assert "sl.recover" in caplog.text
    assert "resume=True" in caplog.text
    assert sl.recover(tmp_path / "c").sequences == 3  # the exit committed them
    assert_holds(sl.open(tmp_path / "c"), sequences)


def test_an_exception_before_the_first_sequence_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "c", [])
    assert list((tmp_path / "c").iterdir()) == []
    write(tmp_path / "c", [random_sequence(0)])


def test_a_forgotten_writer_finishes_nothing(tmp_path: Path) -> None:
    writer = sl.CacheWriter(tmp_path / "c", CONFIG)
    random_sequence(0).append_to(writer)
    writer.flush()
    random_sequence(1).append_to(writer)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del writer
    assert sl.recover(tmp_path / "c").sequences == 1


def test_commits_happen_by_themselves(tmp_path: Path) -> None:
    with sl.CacheWriter(tmp_path / "c", CONFIG, commit_bytes=9_000) as writer:
        for i in range(22):
            random_sequence(i, 100).append_to(writer)
        (tmp_path / "copy").mkdir()
        name = "shard-000000.slc.partial"
        (tmp_path / "copy" / name).write_bytes((tmp_path / "c" / name).read_bytes())
    assert 16 <= sl.recover(tmp_path / "copy").sequences < 22
