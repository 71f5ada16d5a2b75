"""Reads of every kind agree, from every thread and process."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from caches import Sequence, assert_holds, assert_same, random_sequence, write

import sparselogits as sl

SEQUENCES = [random_sequence(1000 - i, 50 + 90 * (i % 3)) for i in range(20)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sl.Cache]:
    path = tmp_path_factory.mktemp("reader") / "c"
    return write(path, SEQUENCES, shard_bytes=15_000)


def test_read_takes_a_range(cache: sl.Cache) -> None:
    for start, stop in ((0, None), (10, 20), (0, 0), (50, None), (49, 50)):
        read, whole = cache.read(3, start, stop), SEQUENCES[3]
        rows = slice(start, len(whole.input_ids) if stop is None else stop)
        np.testing.assert_array_equal(read.input_ids, whole.input_ids[rows])
        first = whole.offsets[start]
        expected = whole.offsets[start : rows.stop + 1] - first
        np.testing.assert_array_equal(read.offsets, expected)
        np.testing.assert_array_equal(read.token_ids, whole.token_ids[first:][: expected[-1]])
        np.testing.assert_array_equal(read.counts, whole.counts[first:][: expected[-1]])


@pytest.mark.parametrize(
    "start, stop", [(51, None), (0, 51), (5, 4), (-1, None), (0, -1), (0.0, 1)]
)
def test_ranges_outside_a_sequence_are_refused(cache: sl.Cache, start: int, stop: int) -> None:
    with pytest.raises(sl.InvalidArgumentError):
        cache.read(0, start, stop)


def test_read_sequences_keeps_the_order_asked_for(cache: sl.Cache) -> None:
    order = [7, 2, 2, 19, 0]
    read = cache.read_sequences(order)
    assert list(read.sequence_ids) == [SEQUENCES[i].sequence_id for i in order]
    assert read.sequence_id is None
    np.testing.assert_array_equal(
        read.input_ids, np.concatenate([SEQUENCES[i].input_ids for i in order])
    )
    np.testing.assert_array_equal(
        read.token_ids, np.concatenate([SEQUENCES[i].token_ids for i in order])
    )
    lengths = [len(SEQUENCES[i].input_ids) for i in order]
    np.testing.assert_array_equal(read.sequence_offsets, np.cumsum([0, *lengths]))


def test_read_positions_in_any_order(cache: sl.Cache) -> None:
    whole = cache.read_sequences(np.arange(len(cache)))
    wanted = np.random.default_rng(0).integers(0, cache.num_positions, 300)
    read = cache.read_positions(wanted)
    np.testing.assert_array_equal(read.input_ids, whole.input_ids[wanted])
    for i, position in enumerate(wanted):
        for got, expected in zip(read.position(i), whole.position(int(position)), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("index", [20, -21, 10**30])
def test_there_is_no_such_index(cache: sl.Cache, index: int) -> None:
    with pytest.raises((sl.SequenceNotFoundError, sl.InvalidArgumentError)):
        cache[index]
    if abs(index) < 100:
        with pytest.raises(IndexError):
            cache[index]
        with pytest.raises(sl.SequenceNotFoundError, match=str(index)):
            cache.read_sequences([0, index])


@pytest.mark.parametrize("positions", [[-1], [10**9], [0.5], [True], [[0]], ["0"]])
def test_positions_that_do_not_exist(cache: sl.Cache, positions: list[object]) -> None:
    with pytest.raises(sl.InvalidArgumentError, match="positions"):
        cache.read_positions(positions)


def test_behaves_like_a_sequence(cache: sl.Cache) -> None:
    assert_same(cache[-1], SEQUENCES[-1])
    assert_same(cache[np.int64(4)], SEQUENCES[4])
    assert [read.sequence_id for read in cache[3:9:2]] == [997, 995, 993]
    with pytest.raises(sl.InvalidArgumentError, match="index"):
        cache["3"]  # type: ignore[call-overload]
    assert "20 sequences" in repr(cache)
    assert "sequence_id 997" in repr(cache[3])


def test_lookup_by_sequence_id(cache: sl.Cache) -> None:
    for index, sequence in enumerate(SEQUENCES):
        assert cache.index_of(sequence.sequence_id) == index
    assert 1000 in cache
    assert 10 not in cache
    for missing in (10, 2**64 - 1, -1, 1.5, True):
        with pytest.raises(sl.SequenceNotFoundError, match=str(missing)):
            cache.index_of(missing)  # type: ignore[arg-type]


def test_shared_arrays_are_read_only(cache: sl.Cache) -> None:
    with pytest.raises(ValueError, match="read-only"):
        cache.sequence_ids[0] = 1


def test_pickle_reopens(cache: sl.Cache) -> None:
    again = pickle.loads(pickle.dumps(cache))
    assert again.digest == cache.digest
    assert_holds(again, SEQUENCES)


def test_pickle_refuses_a_changed_cache(tmp_path: Path) -> None:
    pickled = pickle.dumps(write(tmp_path / "c", SEQUENCES[:2]))
    write(tmp_path / "c", [random_sequence(1)], resume=True)
    with pytest.raises(sl.MismatchError, match="has changed"):
        pickle.loads(pickled)


def test_threads_read_the_same(cache: sl.Cache) -> None:
    fresh = sl.open(cache.path)  # so that first touches race too

    def check(index: int) -> None:
        assert_same(fresh[index % 20], SEQUENCES[index % 20])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(200)))


def _checksum(job: tuple[sl.Cache, int]) -> int:
    cache, index = job
    return int(cache[index].token_ids.sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processes_read_the_same(cache: sl.Cache, method: str) -> None:
    expected = [_checksum((cache, i)) for i in range(20)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_checksum, [(cache, i) for i in range(20)]) == expected


def test_a_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = write(Path("c"), SEQUENCES[:2])
    pickled = pickle.dumps(cache)
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    assert_same(pickle.loads(pickled)[1], SEQUENCES[1])


def test_verify_reports_progress(cache: sl.Cache) -> None:
    seen: list[tuple[int, int]] = []
    report = cache.verify(lambda done, total: seen.append((done, total)))
    assert report.bytes == cache.nbytes
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    write(tmp_path / "c", [random_sequence(0, 20)])
    shard = tmp_path / "c" / "shard-000000.slc"
    good = shard.read_bytes()
    for offset in range(0, len(good), 7):
        bad = bytearray(good)
        bad[offset] ^= 1 << (offset % 8)
        shard.write_bytes(bad)
        with pytest.raises(sl.FormatError) as caught:
            sl.open(tmp_path / "c").verify()
        assert str(shard) in str(caught.value)


def test_an_unread_damaged_block_hurts_nobody(tmp_path: Path) -> None:
    sequences: list[Sequence] = [random_sequence(i, 1024) for i in range(3)]
    write(tmp_path / "c", sequences)
    shard = tmp_path / "c" / "shard-000000.slc"
    bad = bytearray(shard.read_bytes())
    bad[len(bad) // 2] ^= 1
    shard.write_bytes(bad)
    cache = sl.open(tmp_path / "c")
    assert_same(cache[0], sequences[0])
    with pytest.raises(sl.CorruptionError, match="crc"):
        cache[1]
