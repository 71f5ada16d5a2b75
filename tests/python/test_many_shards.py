"""A cache of more shards than one keeps open: opened whole, its faults found in order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparselogits as sl

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from outlines import Shape, write_outlines  # noqa: E402

SHAPE = Shape(shards=700, sequences=3, length=600, bytes_per_position=40)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything but records."""
    made = tmp_path_factory.mktemp("many") / "c"
    write_outlines(made, SHAPE)
    return made


def test_it_opens_and_knows_its_sequences(cache: Path) -> None:
    opened = sl.open(cache)
    assert (len(opened), opened.num_positions) == (2100, 700 * 3 * 600)
    np.testing.assert_array_equal(opened.sequence_ids, np.arange(2100))
    np.testing.assert_array_equal(opened.sequence_starts, np.arange(2101) * 600)
    assert opened.length_of(1999) == 600
    assert opened.fingerprint_of(1999) == int(opened.fingerprints[1999])


def test_reads_of_ids_do_not_need_the_table(cache: Path) -> None:
    opened = sl.open(cache)
    assert opened._places([5, 2099, 0]).ids.tolist() == [5, 2099, 0]
    assert opened._table is None


@pytest.mark.parametrize("damaged, named", [([650], 650), ([40, 10, 699], 10), ([0, 1], 0)])
def test_the_first_damaged_shard_is_named(cache: Path, damaged: list[int], named: int) -> None:
    paths = [cache / f"shard-{number:06d}.slc" for number in damaged]
    for path in paths:
        flip(path)
    try:
        with pytest.raises(sl.CorruptionError, match=rf"shard-{named:06d}\.slc.*footer"):
            sl.open(cache)
    finally:
        for path in paths:
            flip(path)


def test_a_missing_shard_is_named_and_nothing_stays_open(cache: Path) -> None:
    path = cache / "shard-000100.slc"
    path.rename(cache / "away")
    before = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(sl.CacheIOError, match=r"shard-000100\.slc"):
            sl.open(cache)
    finally:
        (cache / "away").rename(path)
    assert len(os.listdir("/proc/self/fd")) == before
    assert str(cache) not in Path("/proc/self/maps").read_text()


def test_the_benchmark_of_the_start_runs() -> None:
    arguments = ["--shards", "40", "--repeats", "1"]
    script = str(BENCHMARKS / "bench_startup.py")
    out = subprocess.check_output([sys.executable, script, *arguments], text=True)
    assert out.count("\n| local") == 3
    assert "Asked for: below 1 s and 200 MB" in out


def flip(path: Path) -> None:
    """Changes a byte of the footer, or changes it back."""
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-10, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
