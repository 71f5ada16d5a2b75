"""Threads, processes and forks: the same content for all of them, nothing torn, nobody stuck."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from caches import CONFIG, assert_holds, assert_same, random_sequence, write

import sparselogits as sl
from sparselogits import _core
from sparselogits.manifest import Manifest

HERE = Path(__file__).resolve().parent
SEQUENCES = [random_sequence(i, 20 + 40 * (i % 3)) for i in range(24)]

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 24 shards."""
    made = tmp_path_factory.mktemp("concurrency") / "c"
    write(made, SEQUENCES, shard_bytes=1)
    return made


@pytest.fixture(params=[512, 2])
def cache(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> sl.Cache:
    """All shards stay open, or two do."""
    few = functools.partial(_core.CacheReader, max_open_shards=request.param)
    monkeypatch.setattr(_core, "CacheReader", few)
    return sl.open(path)


def run(script: str, path: Path, what: str) -> subprocess.CompletedProcess[str]:
    """Warnings are errors there too, but for the one about forks, which is right."""
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning"]
    return subprocess.run(
        [*command, str(HERE / script), str(path), what], capture_output=True, text=True, check=False
    )


def test_threads_read_the_same_whatever_is_closed_meanwhile(cache: sl.Cache) -> None:
    def check(number: int) -> None:
        index = number * 7 % len(SEQUENCES)
        assert_same(cache[index], SEQUENCES[index])
        assert cache.index_of(SEQUENCES[index].sequence_id) == index
        if number % 10 == 0:
            assert_holds(cache, SEQUENCES)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(150)))


@forks
def test_a_child_reads_on_while_other_threads_of_its_parent_read(cache: sl.Cache) -> None:
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            cache.read_sequences([0, 11, 23])

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(read)
        try:
            for _ in range(30):
                assert in_a_child(functools.partial(assert_holds, cache, SEQUENCES)) == 0
        finally:
            done.set()


def test_readers_have_no_lock_that_a_fork_could_copy(cache: sl.Cache) -> None:
    assert 5 in cache  # builds the table
    locks = (type(threading.Lock()), type(threading.RLock()))
    for thing in (cache, cache._sequences()):
        assert not any(isinstance(value, locks) for value in vars(thing).values())


def in_a_child(work: functools.partial[None]) -> int:
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


def test_a_pickled_cache_is_its_path_and_its_digest(cache: sl.Cache) -> None:
    cache.index_of(3)  # builds the table
    pickled = pickle.dumps(cache)
    assert len(pickled) < 400
    assert cache.digest.encode() in pickled
    assert_holds(pickle.loads(pickled), SEQUENCES)


def test_writers_are_not_pickled(tmp_path: Path) -> None:
    with sl.CacheWriter(tmp_path / "c", CONFIG) as writer, pytest.raises(TypeError, match="pickle"):
        pickle.dumps(writer)


GROWING = [random_sequence(i, 30) for i in range(40)]


def open_if_there(path: Path) -> sl.Cache | None:
    """The cache, or None where there is none yet; any other error is one."""
    try:
        return sl.open(path)
    except sl.CacheIOError as error:
        not_yet = ("unfinished", "holds no cache", "cannot read the cache directory")
        if not any(reason in str(error) for reason in not_yet):
            raise
        return None


def watch(path: Path, note: Path, stop: Path) -> list[int]:
    """Opens the cache again and again, and reads all that is there.

    It ends when the cache is complete, or when the file `stop` is there and the cache still is not.
    Returns how many sequences it had, each number once; the last one is in the file `note`.
    """
    sizes = [0]
    while True:
        stopped = stop.exists()
        if (cache := open_if_there(path)) is None:
            if stopped:
                return sizes
            continue
        assert_holds(cache, GROWING[: len(cache)])
        if len(cache) != sizes[-1]:
            sizes.append(len(cache))
            note.write_text(str(len(cache)))
        if cache.complete or stopped:
            return sizes


def write_for(readers: list[Future[list[int]]], notes: list[Path], path: Path) -> None:
    """Writes the cache, never further than the readers have seen it grow."""
    with sl.CacheWriter(path, CONFIG, {"teacher": "test"}, shard_bytes=8_000) as writer:
        for sequence in GROWING:
            sequence.append_to(writer)
            writer.flush()
            size = len(open_if_there(path) or ())
            while any(int(note.read_text() or 0) < size for note in notes):
                assert not any(reader.done() for reader in readers)
                time.sleep(0.002)


def test_readers_beside_a_writer_see_whole_sequences_in_order(tmp_path: Path) -> None:
    path, stop = tmp_path / "c", tmp_path / "stop"
    notes = [tmp_path / str(i) for i in range(3)]
    for note in notes:
        note.write_text("0")
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, spawn) as processes:
        watching = [
            pool.submit(watch, path, note, stop)
            for pool, note in zip((threads, threads, processes), notes, strict=True)
        ]
        try:
            write_for(watching, notes, path)
        finally:
            stop.touch()
        seen = [reader.result() for reader in watching]
    ends = [0]
    for row in sl.open(path).manifest.shards:
        ends.append(ends[-1] + row.sequences)
    assert len(ends) > 4
    assert seen == [ends, ends, ends]


@forks
@pytest.mark.parametrize("what, said", [("one", "child 0"), ("busy", "children True failed 0")])
def test_a_child_never_writes_with_its_parents_writer(tmp_path: Path, what: str, said: str) -> None:
    result = run("fork_script.py", tmp_path / "c", what)
    assert (result.stdout.strip(), result.stderr, result.returncode) == (said, "", 0)
    cache = sl.open(tmp_path / "c")
    assert_holds(cache, [random_sequence(i) for i in range(2 if what == "one" else 150)])
    cache.verify()


def test_a_child_does_not_keep_the_lock_of_a_parent_that_died(tmp_path: Path) -> None:
    result = run("fork_script.py", tmp_path / "c", "orphan")
    assert (result.returncode, result.stderr) == (-signal.SIGKILL, "")
    child = int(result.stdout)
    try:
        os.kill(child, 0)  # it lives
        assert sl.recover(tmp_path / "c").sequences == 1
        with sl.CacheWriter(tmp_path / "c", CONFIG, resume=True) as writer:
            random_sequence(1).append_to(writer)
        os.kill(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    assert_holds(sl.open(tmp_path / "c"), [random_sequence(0), random_sequence(1)])


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of more shards than one cache keeps open, a sequence in each."""
    path = tmp_path_factory.mktemp("many") / "c"
    write_manifest = Manifest.write

    def write_the_last(self: Manifest, directory: Path) -> None:
        if self.complete:
            write_manifest(self, directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, "write", write_the_last)
        cache = write(path, [random_sequence(i, 1) for i in range(520)], shard_bytes=1)
    assert len(cache.manifest.shards) == 520
    return path


def test_64_caches_of_many_shards_stay_within_the_limits(many_shards: Path) -> None:
    result = run("limits_script.py", many_shards, "many")
    assert result.stderr == ""
    assert result.stdout == f"maps {64 * 512} descriptors {3}\n"


def test_a_process_without_maps_is_told_which_limit_it_has_reached(many_shards: Path) -> None:
    result = run("limits_script.py", many_shards, "maps")
    assert (result.stderr, result.returncode) == ("", 0)
    error, left = result.stdout.splitlines()
    assert "shard-0" in error
    assert "memory maps; vm.max_map_count is" in error
    assert left == "shards left mapped 0"


def test_a_process_without_address_space_is_told_so(tmp_path: Path) -> None:
    write(tmp_path / "c", SEQUENCES[:1])
    result = run("limits_script.py", tmp_path / "c", "address_space")
    assert (result.stderr, result.returncode) == ("", 0)
    assert "cannot map the file's 8589934592 bytes" in result.stdout
    assert "the address space is used up; its limit (ulimit -v, RLIMIT_AS) is" in result.stdout
    assert "shard-000000.slc" in result.stdout
