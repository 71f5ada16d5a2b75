"""Nothing is left behind: no map, descriptor, thread or temporary file, whatever went wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from caches import (
    CONFIG,
    Interruption,
    assert_holds,
    random_sequence,
    write,
    write_and_fail,
)
from damage import damage, shard
from held import held, mapped_shards, nothing_more_held

import sparselogits as sl

SEQUENCES = [random_sequence(i, 40) for i in range(6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of six shards."""
    write(tmp_path / "c", SEQUENCES, shard_bytes=1)
    return tmp_path / "c"


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """After the test as before it."""
    before = held(tmp_path)
    yield
    assert held(tmp_path) == before


def test_what_is_counted_would_show_a_leak(path: Path) -> None:
    cache = sl.open(path)
    assert len(mapped_shards(path)) == 6
    with pytest.raises(AssertionError), nothing_more_held(path):
        file = (path / "x.tmp").open("w")
    file.close()
    (path / "x.tmp").unlink()
    del cache
    assert mapped_shards(path) == []


def test_a_cache_that_is_gone_holds_nothing(path: Path) -> None:
    for _ in range(20):
        cache = sl.open(path)
        assert_holds(cache, SEQUENCES)
        with pytest.raises(sl.SequenceNotFoundError):
            cache[6]
        with pytest.raises(sl.InvalidArgumentError):
            cache.read_positions([10**9])


def test_open_files_of_a_cache_are_maps_alone(path: Path) -> None:
    before = held(path)
    cache = sl.open(path)
    assert_holds(cache, SEQUENCES)
    assert held(path).descriptors == before.descriptors


@pytest.mark.parametrize("number", [0, 3, 5])
@pytest.mark.parametrize("place", [0.0, 0.9, 1.0])
def test_a_damaged_shard_among_good_ones(path: Path, number: int, place: float) -> None:
    damage(shard(path, number), place)
    for _ in range(5):
        with pytest.raises(sl.FormatError):
            sl.open(path)


def test_a_missing_a_cut_and_a_foreign_shard(path: Path, tmp_path: Path) -> None:
    good = shard(path, 4).read_bytes()
    for number in (1, 2):  # cut, foreign
        shard(path, 4).write_bytes(good[:-100] if number == 1 else shard(path, 3).read_bytes())
        with pytest.raises(sl.FormatError):
            sl.open(path)
    shard(path, 4).unlink()
    with pytest.raises(sl.CacheIOError):
        sl.open(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(sl.CorruptionError):
        sl.open(path)
    with pytest.raises(sl.CacheIOError):
        sl.open(tmp_path / "nothing")


def test_a_damaged_block_in_reads(path: Path) -> None:
    damage(shard(path, 2), 0.4)
    cache = sl.open(path)
    for _ in range(5):
        with pytest.raises(sl.CorruptionError):
            cache[2]
        with pytest.raises(sl.CorruptionError):
            cache.read_sequences(np.arange(6))


def test_verify_of_good_and_damaged_caches(path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise Interruption

    sl.open(path).verify()
    with pytest.raises(Interruption):
        sl.open(path).verify(interrupt)
    damage(shard(path, 2), 0.4)
    for _ in range(3):
        with pytest.raises(sl.CorruptionError):
            sl.open(path).verify()


def test_a_writer_that_is_refused(path: Path, tmp_path: Path) -> None:
    other = sl.CacheConfig(vocab_size=7, rounds=20)
    with sl.CacheWriter(tmp_path / "d", CONFIG) as writer:
        SEQUENCES[0].append_to(writer)
        with nothing_more_held(tmp_path):
            with pytest.raises(sl.CacheIOError, match="another writer"):
                sl.CacheWriter(tmp_path / "d", CONFIG, resume=True)
            with pytest.raises(sl.CacheIOError, match="another writer"):
                sl.recover(tmp_path / "d")
            with pytest.raises(sl.InvalidArgumentError):
                sl.CacheWriter(path, CONFIG)
            with pytest.raises(sl.MismatchError):
                sl.CacheWriter(path, other, resume=True)
    damage(shard(path, 0), 1.0)
    with pytest.raises(sl.FormatError):
        sl.CacheWriter(path, CONFIG, resume=True)


def test_appends_that_are_refused(tmp_path: Path) -> None:
    with sl.CacheWriter(tmp_path / "d", CONFIG) as writer:
        SEQUENCES[0].append_to(writer)
        with nothing_more_held(tmp_path):
            for ids in ([0, 1], [1000], [0.5], None):
                with pytest.raises(sl.InvalidArgumentError):
                    writer.append(ids, [0, 1], [1], [20], 99)
            with pytest.raises(sl.InvalidArgumentError, match="already in the cache"):
                SEQUENCES[0].append_to(writer)
        writer.append([0], [0, 1], [1], [20], 99)


def test_an_exception_inside_with(tmp_path: Path) -> None:
    for sequences in ([], SEQUENCES):
        with pytest.raises(Interruption):
            write_and_fail(tmp_path / f"d{len(sequences)}", sequences)
    sl.recover(tmp_path / "d6")
    assert_holds(sl.open(tmp_path / "d6"), SEQUENCES)


def write_where_the_directory_vanishes(path: Path, shard_bytes: int) -> None:
    with sl.CacheWriter(path, CONFIG, shard_bytes=shard_bytes) as writer:
        shutil.rmtree(path)
        SEQUENCES[0].append_to(writer)


@pytest.mark.parametrize("shard_bytes", [1, 1 << 20])
def test_a_directory_that_vanishes_under_a_writer(tmp_path: Path, shard_bytes: int) -> None:
    with pytest.raises(sl.CacheIOError):
        write_where_the_directory_vanishes(tmp_path / "d", shard_bytes)


def test_a_writer_that_nobody_closed(tmp_path: Path) -> None:
    writer = sl.CacheWriter(tmp_path / "d", CONFIG)
    SEQUENCES[0].append_to(writer)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del writer


def test_recoveries_that_work_and_that_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "d", SEQUENCES)
    left = tmp_path / "d" / "shard-000000.slc.partial"
    shutil.copy(left, tmp_path / "spare")
    sl.recover(tmp_path / "d")
    with pytest.raises(sl.CacheIOError):
        sl.recover(tmp_path / "nothing")
    shutil.copy(tmp_path / "spare", path / "shard-000006.slc.partial")  # the same ids again
    with pytest.raises(sl.MismatchError):
        sl.recover(path)
    (path / "shard-000006.slc").write_bytes(b"x" * 1000)
    with pytest.raises(sl.FormatError):
        sl.recover(path)


def test_merges_and_repacks(path: Path, tmp_path: Path) -> None:
    sl.repack(path, tmp_path / "packed", store_tokens=False)
    with pytest.raises(sl.MismatchError):
        sl.merge([path, tmp_path / "packed"], tmp_path / "both")
    damage(shard(path, 2), 0.4)
    with pytest.raises(sl.CorruptionError):
        sl.repack(path, tmp_path / "again", store_tokens=False)
