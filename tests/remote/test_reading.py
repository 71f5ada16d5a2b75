"""A cache at a URL is read like one in a directory."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caches import assert_holds, assert_same
from remote_caches import SEQUENCES, Remote
from torch.utils.data import DataLoader

import sparselogits as sl
from sparselogits.torch import SparseLogitDataset

forks = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


def test_every_read_gives_what_the_local_cache_gives(remote: Remote) -> None:
    cache, local = remote.open(), sl.open(remote.made)
    assert cache.path == remote.url
    assert (len(cache), cache.num_positions, cache.num_entries, cache.nbytes, cache.digest) == (
        len(local), local.num_positions, local.num_entries, local.nbytes, local.digest
    )  # fmt: skip
    assert_holds(cache, SEQUENCES)
    assert_same(cache[-1], SEQUENCES[-1])
    assert [s.sequence_id for s in cache[2:5]] == [2, 3, 4]
    part = cache.read(7, 3, 9)
    np.testing.assert_array_equal(part.token_ids, local.read(7, 3, 9).token_ids)
    positions = [300, 0, 17, 18, 299]
    for found, expected in (
        (cache.read_sequences([11, 0, 5]), local.read_sequences([11, 0, 5])),
        (cache.read_positions(positions), local.read_positions(positions)),
    ):
        for name in ("offsets", "token_ids", "counts", "weights", "input_ids", "sequence_ids"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("sequence_ids", "sequence_lengths", "sequence_starts", "fingerprints"):
        np.testing.assert_array_equal(getattr(cache, name), getattr(local, name))
    assert 5 in cache
    assert 99 not in cache
    assert cache.index_of(5) == 5
    assert cache.verify() == local.verify()
    assert sl.verify(remote.url).ok


def test_opening_fetches_no_shard_and_a_read_fetches_only_its_own(remote: Remote) -> None:
    cache = remote.open()
    assert remote.local == set()
    cache.read_sequences([3, 8, 3])
    assert cache.length_of(3) == len(SEQUENCES[3].input_ids)
    assert cache.fingerprint_of(8) == int(sl.open(remote.made).fingerprints[8])
    assert remote.local == {remote.file(3), remote.file(8)}
    assert cache._table is None


def test_the_table_of_all_sequences_needs_no_whole_shard_and_is_kept(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.testing.assert_array_equal(remote.open().sequence_ids, np.arange(12))
    assert remote.local == set()
    monkeypatch.setattr("sparselogits.remote.sequence_index._of_shard", None)
    np.testing.assert_array_equal(remote.open().sequence_ids, np.arange(12))


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: bytes([d[0] ^ 1]) + d[1:]])
def test_a_kept_table_that_is_damaged_is_fetched_again(remote: Remote, damage: Any) -> None:
    assert 3 in remote.open()
    (path,) = remote.root.glob("*/sequences")
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(remote.open().sequence_ids, np.arange(12))


def test_a_damaged_index_of_a_remote_shard_is_named_by_its_url(remote: Remote) -> None:
    import fsspec

    filesystem, path = fsspec.filesystem("memory"), f"/bucket/c/{remote.file(4)}"
    data = bytearray(filesystem.cat(path))
    data[-70] ^= 1
    filesystem.pipe(path, bytes(data))
    with pytest.raises(sl.CorruptionError, match=r"memory://bucket/c/shard-000004\.slc") as caught:
        remote.open().sequence_ids  # noqa: B018
    assert "/proc/" not in str(caught.value)


def test_a_pickled_cache_opens_the_same_url_with_the_same_options(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(3), verify_checksums=False)
    again = pickle.loads(pickle.dumps(cache))
    assert_holds(again, SEQUENCES)
    assert again._place == cache._place or vars(again._place.location) == vars(
        cache._place.location
    )
    assert (again.path, again._place.max_bytes, again._verify_checksums) == (
        remote.url, remote.room_for(3), False
    )  # fmt: skip


def test_prefetched_shards_are_there_when_they_are_read(remote: Remote) -> None:
    cache = remote.open()
    cache.prefetch([4, 5, 4])
    wait_for(lambda: remote.local == {remote.file(4), remote.file(5)})
    cache.prefetch([])
    with pytest.raises(sl.SequenceNotFoundError):
        cache.prefetch([12])
    assert_same(cache[4], SEQUENCES[4])
    sl.open(remote.made).prefetch([1])  # nothing to do, and no error


def test_threads_read_one_cache_through_a_directory_that_is_too_small(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(3))

    def check(number: int) -> None:
        index = number * 5 % len(SEQUENCES)
        cache.prefetch([(index + 1) % len(SEQUENCES)])
        assert_same(cache[index], SEQUENCES[index])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(check, range(120)))
    assert remote.local_bytes <= remote.room_for(3)


@forks
def test_a_forked_child_reads_on_while_threads_of_its_parent_fetch(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(2))
    cache.read(0)
    done = threading.Event()

    def read() -> None:
        for i in range(10_000):
            if done.is_set():
                return
            cache.read(i % 12)

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        try:
            for _ in range(5):
                assert in_a_child(lambda: assert_holds(cache, SEQUENCES)) == 0
        finally:
            done.set()
        for job in reading:
            job.result()


@forks
def test_a_lease_that_a_child_inherits_stays_its_parents(remote: Remote) -> None:
    cache = remote.open(local_cache_bytes=remote.room_for(1))
    lease = cache._hold([2])
    assert lease is not None
    with lease:
        # The child holds nothing: it may fetch another shard, which removes the file of this one.
        # A lock that its parent has at that moment would never come free in it.
        with cache._shards._here[1]._lock, cache._shards._here[1]._store.held.lock:
            assert in_a_child(lambda: (lease.__exit__(None, None, None), cache.read(5))) == 0
        assert_same(cache[2], SEQUENCES[2])


@forks
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_give_the_batches_of_a_local_cache(
    made: Path, tmp_path: Path, method: str
) -> None:
    # memory:// is another one in a spawned process: this goes through files.
    options = {"local_cache": tmp_path / "local", "local_cache_bytes": 40_000}
    cache = sl.open(made.as_uri(), **options)

    def batches(source: Any, workers: int) -> list[Any]:
        dataset = SparseLogitDataset(source, 3, seed=1)
        context = method if workers else None
        loader = DataLoader(
            dataset, batch_size=None, num_workers=workers, multiprocessing_context=context
        )
        return [(b.input_ids.tolist(), b.targets.token_ids.tolist()) for b in loader]

    assert batches(cache, 2) == batches(made, 0)


def in_a_child(work: Any) -> int:
    """The wait status of a child that does this; one that hangs ends by a signal."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def wait_for(condition: Any) -> None:
    """Until threads have done something; a test that waits in vain fails."""
    import time

    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")
