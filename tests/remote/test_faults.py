"""What goes wrong on the way: asked for again where that helps, else named; never used."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from caches import assert_holds, assert_same, random_sequence
from flaky import Flaky, flaky, raises, short, wrong
from remote_caches import SEQUENCES, Remote, fetches, make_remote, wait_for_fetches

import sparselogits as sl
from sparselogits.remote import fetch_shard
from sparselogits.remote.remote_files import MAX_ATTEMPTS

__all__ = ["flaky"]

PASSING = [ConnectionResetError("reset by peer"), TimeoutError(), OSError(5, "503 Slow Down")]


@pytest.mark.parametrize("error", [*PASSING, RuntimeError("a library's own kind")])
def test_a_request_that_fails_is_made_again(remote: Remote, flaky: Flaky, error: Any) -> None:
    flaky.faults[remote.file(3)] = [raises(error)] * (MAX_ATTEMPTS - 1)
    assert_same(remote.open()[3], SEQUENCES[3])
    assert flaky.requests == [remote.file(3)] * MAX_ATTEMPTS


def test_one_that_goes_on_failing_names_url_attempts_and_cause(
    remote: Remote, flaky: Flaky
) -> None:
    flaky.faults[remote.file(3)] = [raises(ConnectionResetError("reset by peer"))] * 50
    cache = remote.open()
    for _ in range(2):  # a failure is not kept: the second read tries again
        with pytest.raises(sl.CacheIOError) as caught:
            cache.read(3)
        said = str(caught.value)
        assert f"cannot fetch it ({MAX_ATTEMPTS} attempts): ConnectionResetError: reset by" in said
        assert "memory://bucket/c/shard-000003.slc" in said
    assert len(flaky.requests) == 2 * MAX_ATTEMPTS
    assert remote.local_bytes == 0
    assert_same(cache[4], SEQUENCES[4])


@pytest.mark.parametrize(
    "error, number", [(FileNotFoundError("x"), errno.ENOENT), (PermissionError(13, "no"), 13)]
)
def test_what_does_not_pass_is_not_asked_for_again(
    remote: Remote, flaky: Flaky, error: Exception, number: int
) -> None:
    flaky.faults[remote.file(3)] = [raises(error)] * 9
    with pytest.raises(sl.CacheIOError, match=r"1 attempt\)") as caught:
        remote.open().read(3)
    assert caught.value.errno == number
    assert flaky.requests == [remote.file(3)]


def test_a_body_that_ends_early_is_asked_for_again_and_then_an_error(
    remote: Remote, flaky: Flaky
) -> None:
    flaky.faults[remote.file(3)] = [short, short]
    cache = remote.open()
    assert_same(cache[3], SEQUENCES[3])
    flaky.faults[remote.file(4)] = [short] * MAX_ATTEMPTS
    size = remote.sizes[4]
    with pytest.raises(sl.CacheIOError, match=f"{size - 1} bytes came where {size} were asked"):
        cache.read(4)


def test_wrong_bytes_are_fetched_again(remote: Remote, flaky: Flaky) -> None:
    flaky.faults[remote.file(3)] = [wrong] * (fetch_shard.MAX_FETCHES - 1)
    assert_same(remote.open()[3], SEQUENCES[3])


def test_wrong_bytes_of_a_part_of_a_shard_are_fetched_again(remote: Remote, flaky: Flaky) -> None:
    flaky.faults[remote.file(3)] = [wrong] * (fetch_shard.MAX_FETCHES - 1)
    cache = remote.open()
    assert len(cache.sequence_ids) == len(cache)
    assert not flaky.faults[remote.file(3)]
    assert not remote.local


def test_wrong_bytes_that_stay_name_the_url_and_both_digests(remote: Remote, flaky: Flaky) -> None:
    flaky.faults[remote.file(3)] = [wrong] * fetch_shard.MAX_FETCHES
    cache = remote.open()
    with pytest.raises(sl.CorruptionError) as caught:
        cache.read(3)
    error = caught.value
    assert error.path == "memory://bucket/c/shard-000003.slc"
    assert error.field == "sha256"
    assert cache.manifest.shards[3].sha256 in str(error)
    assert f"as fetched ({fetch_shard.MAX_FETCHES} times)" in str(error)
    assert remote.local == set()
    assert remote.local_bytes == 0


def test_a_shard_comes_in_pieces_and_only_the_piece_that_failed_comes_again(
    remote: Remote, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = remote.sizes[3]
    monkeypatch.setattr(fetch_shard, "_CHUNK_BYTES", size // 4 + 1)
    flaky.faults[remote.file(3)] = [lambda d: d, raises(TimeoutError()), short]
    assert_same(remote.open()[3], SEQUENCES[3])
    assert len(flaky.requests) == 4 + 2


def test_errors_of_what_was_fetched_ahead_are_left_to_the_read(
    remote: Remote, flaky: Flaky
) -> None:
    flaky.faults[remote.file(3)] = [raises(PermissionError(13, "no"))]
    cache = remote.open()
    cache.prefetch([3])
    wait_for_fetches(cache)
    assert not flaky.faults[remote.file(3)]
    assert_same(cache[3], SEQUENCES[3])


def test_a_read_that_waits_for_what_is_fetched_ahead_gets_its_error(
    remote: Remote, flaky: Flaky
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fails_late(_: bytes) -> bytes:
        begun.set()
        assert go_on.wait(60)
        raise PermissionError(13, "no")

    flaky.faults[remote.file(3)] = [fails_late]
    cache = remote.open()
    cache.prefetch([3])
    assert begun.wait(60)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(cache.read, 3)
        while not any(job.needed for job in fetches(cache)):
            time.sleep(0.001)
        go_on.set()
        with pytest.raises(sl.CacheIOError, match=r"1 attempt\)"):
            read.result()
    assert flaky.requests == [remote.file(3)]
    assert_same(cache[3], SEQUENCES[3])


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda d: b"", "is empty"),
        (lambda d: d.replace(b'"counts"', b'"countx"'), "crc32c"),
        (lambda d: d[:-9], "not JSON"),
    ],
)
def test_a_damaged_manifest_is_named_by_its_url(remote: Remote, damage: Any, said: str) -> None:
    path = "/bucket/c/manifest.json"
    memory = fsspec.filesystem("memory")
    memory.pipe(path, damage(memory.cat(path)))
    with pytest.raises(sl.CorruptionError, match=said) as caught:
        remote.open()
    assert caught.value.path == "memory://bucket/c/manifest.json"


def test_no_cache_is_an_error_that_names_the_url(tmp_path: Path) -> None:
    with pytest.raises(sl.CacheIOError, match=r"no manifest\.json.*memory://nowhere") as caught:
        sl.open("memory://nowhere", local_cache=tmp_path)
    assert caught.value.errno == errno.ENOENT


def test_a_cache_that_has_changed_is_refused_and_never_mixed(
    remote: Remote, tmp_path: Path
) -> None:
    cache = remote.open()
    cache.read(0)
    others = [random_sequence(100 + i, 40) for i in range(12)]
    memory = fsspec.filesystem("memory")
    for path in make_remote(tmp_path / "other", others).iterdir():
        memory.pipe(f"/bucket/c/{path.name}", path.read_bytes())
    with pytest.raises(sl.MismatchError, match="has changed since it was opened: its digest is"):
        cache.read(1)
    assert_same(cache[0], SEQUENCES[0])  # what is local is of the old one, and stays so
    with pytest.raises(sl.MismatchError, match="has changed since it was opened"):
        cache.verify()
    with pytest.raises(sl.MismatchError, match=r"memory://bucket/c has changed: its digest is"):
        remote.open(digest=cache.digest)
    assert_holds(remote.open(), others)


def test_a_shard_that_is_gone_is_named(remote: Remote) -> None:
    fsspec.filesystem("memory").rm(f"/bucket/c/{remote.file(5)}")
    with pytest.raises(sl.CacheIOError, match=r"shard-000005\.slc") as caught:
        remote.open().read(5)
    assert caught.value.errno == errno.ENOENT


# Where in the file a byte is changed: the header, a record, the footer.
@pytest.mark.parametrize("place", [20, 300, -20])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_local_copy_that_is_damaged_is_replaced(remote: Remote, place: int, mapped: bool) -> None:
    cache = remote.open()
    cache.read(6)
    (path,) = remote.root.glob(f"*/shards/{remote.file(6)}")
    with path.open("r+b") as file:  # in place, so that who has mapped it sees it
        data = bytearray(file.read())
        data[place] ^= 0xFF
        file.seek(0)
        file.write(data)
    fresh = cache if mapped else remote.open()
    assert fresh.verify().ok
    assert path.read_bytes() == (remote.made / remote.file(6)).read_bytes()
    assert_same(fresh[6], SEQUENCES[6])


@pytest.mark.parametrize("place", [20, 300, -20])
def test_a_read_that_meets_a_damaged_copy_gets_another_one(remote: Remote, place: int) -> None:
    remote.open().read(6)
    (path,) = remote.root.glob(f"*/shards/{remote.file(6)}")
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    assert_same(remote.open()[6], SEQUENCES[6])
    assert path.read_bytes() == (remote.made / remote.file(6)).read_bytes()


def test_a_cache_that_is_damaged_itself_is_not_fetched_again_and_again(
    remote: Remote, flaky: Flaky, tmp_path: Path
) -> None:
    """A wrong record whose shard has the digest that the manifest says."""
    memory = fsspec.filesystem("memory")
    shard, manifest = f"/bucket/c/{remote.file(6)}", "/bucket/c/manifest.json"
    data = bytearray(memory.cat(shard))
    old = hashlib.sha256(data).hexdigest().encode()
    data[300] ^= 0xFF
    new = hashlib.sha256(data).hexdigest().encode()
    memory.pipe(shard, bytes(data))
    text = memory.cat(manifest).replace(old, new)
    memory.pipe(manifest, text[: text.rindex(b',\n "crc32c"')] + b"\n}\n")
    cache = remote.open()
    with pytest.raises(sl.CorruptionError, match=r"shard-000006\.slc"):
        cache.read(6)
    assert flaky.requests == [remote.file(6)]
