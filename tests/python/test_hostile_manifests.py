"""Manifests made to do harm, and the limits of a cache that a manifest states."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from caches import random_sequence, write

import sparselogits as sl
from sparselogits import _core
from sparselogits.limits import (
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_DEPTH,
    MAX_SHARD_ENTRIES,
    MAX_SHARD_POSITIONS,
    MAX_SHARDS,
)
from sparselogits.manifest import Manifest, ShardRow, parse_manifest, read_manifest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write(tmp_path / "c", [random_sequence(0)])
    return tmp_path / "c"


def test_a_manifest_that_is_too_long_is_not_read(cache: Path) -> None:
    os.truncate(cache / "manifest.json", 1 << 40)
    tracemalloc.start()
    with pytest.raises(sl.CorruptionError, match=f"longer than {MAX_MANIFEST_BYTES}"):
        read_manifest(cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def manifest_of(cache: Path) -> dict[str, Any]:
    """Without its checksum, so that it may be changed."""
    manifest: dict[str, Any] = json.loads((cache / "manifest.json").read_text())
    del manifest["crc32c"]
    return manifest


def nested(levels: int) -> bytes:
    """An object of so many levels, as an unknown member of a manifest."""
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


@pytest.mark.parametrize("extra", [0, 1, 1000, 100_000])
@pytest.mark.parametrize("kind", ["object", "array"])
def test_nesting_has_a_limit_in_unknown_members_too(cache: Path, extra: int, kind: str) -> None:
    good = manifest_of(cache)
    member = nested(MAX_MANIFEST_DEPTH - 1 + extra)
    if kind == "array":
        member = member.replace(b'{"a":', b"[").replace(b"}", b"]").replace(b"{", b"[")
    text = json.dumps(good)[:-1].encode() + b', "news": ' + member + b"}"
    if extra == 0:
        assert parse_manifest(text, "m").shards == read_manifest(cache).shards
        return
    with pytest.raises(sl.CorruptionError, match=r"deeper than 16 levels") as caught:
        parse_manifest(text, "m")
    assert caught.value.field == "manifest"


@pytest.mark.parametrize("digits", [1001, 4300, 1_000_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_have_a_limit(digits: int, sign: str) -> None:
    with pytest.raises(sl.CorruptionError, match=r"integer of \d+ digits"):
        parse_manifest(f'{{"news": {sign}{"1" * digits}}}'.encode(), "m")


JUNK = {
    "objects": b"{},",
    "arrays": b"[],",
    "texts": b'"ab",',
    "integers": b"999,",
    "numbers": b"1e9,",
}


@pytest.mark.parametrize("kind", JUNK)
def test_a_manifest_of_junk_takes_a_small_multiple_of_its_length(kind: str) -> None:
    data = b'{"news": [' + JUNK[kind] * (100_000) + b"1]}"
    tracemalloc.start()
    with pytest.raises(sl.CorruptionError, match="format: is missing"):
        parse_manifest(data, "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * len(data)


LONG = "x" * (1 << 20)


@pytest.mark.parametrize(
    "where",
    ["format", "alignment", "version", "complete", "config", "metadata", "shards", "models"]
    + [f"config/{name}" for name in ("sampler", "codec", "vocab_size", "value_kind", "temperature")]
    + [f"config/{name}" for name in ("tokenizer_fingerprint", "rounds", "store_tokens")]
    + [f"shards/{name}" for name in ("file", "uuid", "sha256", "bytes", "sequences", "entries")]
    + ["models/file", "models/bytes"],
)
@pytest.mark.parametrize("value", [LONG, [LONG] * 9, {LONG: LONG}], ids=["text", "array", "object"])
def test_errors_do_not_repeat_what_a_file_says_at_length(
    cache: Path, where: str, value: Any
) -> None:
    manifest = manifest_of(cache)
    manifest["models"] = [{"file": "model-0000000000000001.slm", "bytes": 1}]
    *path, last = where.split("/")
    parent = manifest
    for key in path:
        parent = parent[key][0] if key in ("shards", "models") else parent[key]
    parent[last] = value
    if where == "metadata" and isinstance(value, dict):
        manifest["metadata"] = {LONG: 1}
    with pytest.raises(sl.FormatError) as caught:
        parse_manifest(json.dumps(manifest).encode(), "m")
    assert len(str(caught.value)) < 400
    assert last in f"{caught.value.field} {caught.value.message}"


def test_the_sums_of_a_cache_fit_the_integers_that_hold_them() -> None:
    assert MAX_SHARDS * MAX_SHARD_POSITIONS < 1 << 63
    assert MAX_SHARDS * MAX_SHARD_ENTRIES < 1 << 63


@pytest.mark.parametrize("limit, value", [("MAX_MANIFEST_BYTES", 1500), ("MAX_SHARDS", 3)])
def test_a_manifest_above_its_limits_is_not_written(
    cache: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """A cache of too many shards stays what it was: no reader would open the new manifest."""
    before = read_manifest(cache)
    monkeypatch.setattr(f"sparselogits.manifest.{limit}", value)
    rows = tuple(
        ShardRow(f"shard-{i:06d}.slc", f"{i:032x}", 2**30, 2**20, 2**30, 2**35, "0" * 64)
        for i in range(4)
    )
    with pytest.raises(sl.CacheIOError, match=r"4 shards .* use larger shards"):
        Manifest(before.config, {}, rows).write(cache)
    assert read_manifest(cache) == before


def test_one_shard_may_not_pass_2_to_the_32_positions(tmp_path: Path) -> None:
    """The core says when a shard has no room; the series then begins the next one."""
    config = sl.CacheConfig(vocab_size=10, rounds=1)
    shard = _core.ShardWriter(str(tmp_path / "p"), config.to_core(), b"{}")
    assert shard.has_room(positions=2**32 - 1, sequences=2**20, entries=2**40)
    assert not shard.has_room(positions=2**32, sequences=1, entries=1)
    assert not shard.has_room(positions=1, sequences=2**28 + 1, entries=1)
    assert not shard.has_room(positions=1, sequences=1, entries=2**40 + 1)
    shard.abandon()


def test_a_series_goes_on_in_a_new_shard_where_one_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = [random_sequence(i) for i in range(4)]
    monkeypatch.setattr(
        "sparselogits.shard_series._core.ShardWriter",
        _with_room_for_two(_core.ShardWriter),
    )
    write(tmp_path / "c", sequences)
    monkeypatch.undo()
    cache = sl.open(tmp_path / "c")
    assert [row.sequences for row in cache.manifest.shards] == [2, 2]
    cache.verify()


def _with_room_for_two(writer: type) -> type:
    class Small(writer):  # type: ignore[misc,valid-type]
        def has_room(self, positions: int, sequences: int, entries: int) -> bool:
            return bool(self.num_sequences + sequences <= 2)

    return Small
