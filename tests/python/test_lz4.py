"""LZ4-wrapped frames: liblz4 and the lz4 package read and write the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import sparselogits as sl
from sparselogits import _core
from sparselogits.shard_check import verify_shard

GOLDEN = Path(__file__).resolve().parents[2] / "formats" / "golden" / "v1" / "valid"
CONFIG = sl.CacheConfig(vocab_size=1000, rounds=4, codec="packed")
HAS_LIBLZ4 = _core.use_lz4("liblz4")
BACKENDS = [
    pytest.param("liblz4", marks=pytest.mark.skipif(not HAS_LIBLZ4, reason="built without liblz4")),
    "package",
]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    _core.use_lz4("liblz4" if HAS_LIBLZ4 else "package")


def write_compressible(path: Path) -> None:
    """A cache of one token repeated: its blocks shrink, so they are wrapped."""
    with sl.CacheWriter(path, CONFIG) as writer:
        for _ in range(4):
            writer.append(np.full(1000, 7), np.arange(1001), np.full(1000, 3), np.full(1000, 4))


@pytest.mark.parametrize("writer", BACKENDS)
@pytest.mark.parametrize("reader", BACKENDS)
def test_each_reads_what_the_other_wrote(tmp_path: Path, writer: str, reader: str) -> None:
    assert _core.use_lz4(writer)
    write_compressible(tmp_path / "c")
    shard = tmp_path / "c" / "shard-000000.slc"
    sections = verify_shard(shard, [])["sections"]
    assert sections["wrapped_blocks"] > 0
    assert sections["wrapped_blocks"] < 8 * 4000  # unwrapped: more than a byte a position
    assert _core.use_lz4(reader)
    cache = sl.open(tmp_path / "c")
    cache.verify()
    everything = cache.read_sequences([3, 0, 1, 2])
    assert everything.input_ids is not None
    assert (everything.input_ids == 7).all()
    assert (everything.token_ids == 3).all()
    assert (everything.counts == 4).all()
    assert cache.read_positions([3999, 5, 1700]).token_ids.tolist() == [3, 3, 3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrapped_golden_files(backend: str) -> None:
    assert _core.use_lz4(backend)
    sections = verify_shard(GOLDEN / "lz4_frames.slc", [])["sections"]
    assert sections["wrapped_blocks"] > 0
    assert sections["wrapped_others"] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_lz4_is_refused(tmp_path: Path, backend: str) -> None:
    assert _core.use_lz4(backend)
    write_compressible(tmp_path / "c")
    shard = tmp_path / "c" / "shard-000000.slc"
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    with pytest.raises(sl.CorruptionError):
        verify_shard(shard, [])
