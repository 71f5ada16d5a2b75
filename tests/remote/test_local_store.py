"""The local directory: bounded, shared, and never without what is held."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from caches import assert_same
from remote_caches import SEQUENCES, Remote, wait_for_fetches

import sparselogits as sl
from sparselogits.remote import new_file
from sparselogits.remote.new_file import NewFile, is_being_written


def test_a_directory_never_has_more_bytes_than_its_bound(remote: Remote) -> None:
    bound = remote.room_for(3)
    cache = remote.open(local_cache_bytes=bound)
    for number in (0, 5, 3, 7, 1, 0, 11, 3):
        assert_same(cache[number], SEQUENCES[number])
        assert remote.local_bytes <= bound
    assert len(remote.local) == 3


def test_many_fetchers_keep_to_the_bound(remote: Remote) -> None:
    bound = remote.room_for(3)
    for attempt in range(40):
        root = remote.root / str(attempt)
        cache = remote.open(local_cache=root, local_cache_bytes=bound, num_fetchers=8)
        cache.read(9)
        cache.prefetch([0, 3, 6, 1, 4, 7, 2])
        wait_for_fetches(cache)
        assert sum(path.stat().st_size for path in root.glob("*/shards/*")) <= bound


def test_what_was_used_longest_ago_goes_first(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(3))
    for number in (0, 3, 6, 0, 9):
        time.sleep(0.01)
        cache.read(number)
        cache._shards._here[1]._looked -= 10  # as if it had been a while
        cache._shards._here[1]._mapped.clear()
    assert remote.local == {remote.file(6), remote.file(0), remote.file(9)}


def test_held_shards_stay_whatever_is_fetched(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(3))
    held = cache._hold([0, 3])
    assert held is not None
    with held:
        for number in (6, 9, 1, 4, 6):
            cache.prefetch([number])
            in_other_thread(lambda number=number: cache.read(number))
            assert remote.local >= {remote.file(0), remote.file(3)}
    cache.read_sequences([6, 9, 1])
    assert not remote.local >= {remote.file(0), remote.file(3)}


def test_another_cache_of_the_process_does_not_remove_what_one_holds(remote: Remote) -> None:
    bound = remote.room_for(2)
    first, second = (remote.open(local_cache_bytes=bound) for _ in range(2))
    held = first._hold([0])
    assert held is not None
    with held:
        for number in (3, 6, 9):
            in_other_thread(lambda number=number: second.read(number))
            assert remote.file(0) in remote.local


def test_a_read_above_the_bound_names_both_numbers(remote: Remote) -> None:
    bound = sum(remote.sizes[i] for i in (0, 3)) - 1
    cache = remote.open(local_cache_bytes=bound)
    with pytest.raises(sl.CacheIOError, match=rf"{bound + 1} bytes.*local_cache_bytes is {bound}"):
        cache.read_sequences([0, 3])
    assert remote.local == set()
    tiny = remote.open(local_cache_bytes=100)
    with pytest.raises(sl.CacheIOError, match=rf"{remote.sizes[2]} bytes.*cache_bytes is 100"):
        tiny.read(2)
    tiny.prefetch([2])  # leaves the error to the read


def test_a_thread_that_holds_shards_does_not_wait_for_itself(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(2))
    first = cache._hold([0, 3])
    assert first is not None
    with first:
        assert cache._hold([6], wait=False) is None
        with pytest.raises(sl.CacheIOError, match="with what this thread holds already"):
            cache._hold([6])
        again = cache._hold([0])  # takes no more room
        assert again is not None
        with again:
            pass
    second = cache._hold([6], wait=False)
    assert second is not None
    second.__exit__(None, None, None)


def test_another_thread_waits_until_there_is_room(remote: Remote) -> None:
    from concurrent.futures import ThreadPoolExecutor

    cache = remote.open(local_cache_bytes=remote.room_for(2))
    held = cache._hold([0, 3])
    assert held is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.read, 6)
        time.sleep(0.05)
        assert not waiting.done()
        held.__exit__(None, None, None)
        assert_same(waiting.result(10), SEQUENCES[6])


def test_a_lease_that_is_dropped_is_released(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(1))
    lease = cache._hold([0])
    del lease
    in_other_thread(lambda: cache.read(3))


def test_fetching_ahead_removes_nothing_that_was_fetched_ahead(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(3), num_fetchers=1)
    cache.read(9)
    cache.prefetch([0, 3, 6, 1, 4])
    wait_for_fetches(cache)
    assert remote.local == {remote.file(i) for i in (0, 3, 6)}
    cache.read(9)  # what is needed goes before what may be
    assert remote.file(9) in remote.local


def test_what_a_dead_process_left_is_removed_and_never_used(remote: Remote) -> None:
    cache = remote.open()
    folder = remote.root / cache.digest / "fetching"
    row = cache.manifest.shards[4]
    left = folder / f"{row.uuid}.12345-abcdef00"
    left.write_bytes(bytes(row.bytes))
    assert_same(cache[4], SEQUENCES[4])
    assert not left.exists()


def test_a_process_that_hangs_is_waited_for_no_longer(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = remote.open()
    row = cache.manifest.shards[4]
    stuck = NewFile(remote.root / cache.digest / "fetching", row.uuid, row.bytes)
    assert is_being_written(stuck.path)
    monkeypatch.setattr(new_file, "_STALLED_SECONDS", 0.1)
    assert_same(cache[4], SEQUENCES[4])
    with pytest.raises(sl.CacheIOError, match="cannot finish"):
        stuck.publish(remote.root / "x")
    stuck.discard()


def test_two_caches_share_a_directory_and_nothing_else(remote: Remote, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    from caches import random_sequence
    from remote_caches import make_remote

    others = [random_sequence(50 + i, 30) for i in range(4)]
    for path in make_remote(tmp_path / "o", others).iterdir():
        memory.pipe(f"/bucket/o/{path.name}", path.read_bytes())
    first = remote.open()
    second = sl.open("memory://bucket/o", local_cache=remote.root)
    for i in range(4):
        assert_same(first[i], SEQUENCES[i])
        assert_same(second[i], others[i])
    assert len(list(remote.root.glob("*/shards/*"))) == 8


def test_the_default_directory_is_that_of_the_environment(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value, expected in (
        ("SPARSELOGITS_CACHE", tmp_path / "a", tmp_path / "a"),
        ("XDG_CACHE_HOME", tmp_path / "b", tmp_path / "b/sparselogits"),
        ("HOME", tmp_path / "d", tmp_path / "d/.cache/sparselogits"),
    ):
        for variable in ("SPARSELOGITS_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv(name, str(value))
        sl.open(remote.url).read(1)
        assert len(list(expected.glob("*/shards/*"))) == 1


def test_a_shard_that_leads_out_of_the_directory_is_refused(remote: Remote) -> None:
    cache = remote.open()
    folder = remote.root / cache.digest / "shards"
    outside = remote.root / "outside"
    outside.write_bytes((remote.made / remote.file(1)).read_bytes())
    os.symlink(outside, folder / remote.file(1))
    assert_same(cache[1], SEQUENCES[1])
    assert not (folder / remote.file(1)).is_symlink()  # the link was removed, the shard fetched


def test_a_directory_that_cannot_be_made_is_named(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(sl.CacheIOError, match="cannot make the local cache"):
        remote.open(local_cache=tmp_path / "file")


def in_other_thread(work: object) -> None:
    """Does it in a thread that holds nothing."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(20)  # type: ignore[arg-type]
