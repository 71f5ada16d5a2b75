"""Files made to do harm: they are refused, at once and with little memory, whatever they claim."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from caches import Interruption, random_sequence, write, write_and_fail
from hostile_shards import SHARDS, shard

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

# Reads one shard in every way that there is, in a process that has hardly any memory for it:
# the content of the largest block, and some multiples of the file.
READ = """
import json, os, resource, sys
import numpy as np
import sparselogits as sl
from sparselogits import _core
from sparselogits.errors import FormatError
from sparselogits.shard_check import verify_shard

def cache(path, found, check):
    totals = (found[name] for name in ("bytes", "sequences", "positions", "entries"))
    return _core.CacheReader([(path, found["uuid"], *totals)], found["config"], check)

def info(path, spare):
    return _core.read_shard_info(path)

def read(path, spare):
    found = _core.read_shard_info(path)
    cache(path, found, False).read_sequences(np.array([0], np.int64), 0, -1)

def read_last(path, spare):
    reader = cache(path, _core.read_shard_info(path), False)
    reader.read_positions(np.array([reader.num_positions - 1], np.int64))

def table(path, spare):
    found = _core.read_shard_info(path)
    cache(path, found, True).sequence_table()

def verify(path, spare):
    verify_shard(path)

def every_fault(path, spare):
    for fault in _core.verify_shard(path, True)["faults"]:
        raise fault["error"]

def recover(path, spare):
    _core.recover_shard(spare, spare + ".out")

for line in sys.stdin:
    path, spare, room = json.loads(line)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
    outcomes = {}
    for way in (info, read, read_last, table, verify, every_fault, recover):
        try:
            way(path, spare)
            outcomes[way.__name__] = ["fine", "", ""]
        except FormatError as error:
            outcomes[way.__name__] = ["refused", error.path, error.field]
        except BaseException as error:
            outcomes[way.__name__] = ["failed", path, f"{type(error).__name__}: {error}"]
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(json.dumps(outcomes), flush=True)
"""
LARGEST_BLOCK = 1 << 26
OVERHEAD = 12 << 20  # what malloc and the interpreter take beside


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """What became of each shard, in one child."""
    directory = tmp_path_factory.mktemp("hostile")
    lines = []
    for number, (content, _) in enumerate(SHARDS.values()):
        path, spare = directory / f"{number}.slc", directory / f"{number}.slc.partial"
        path.write_bytes(content)
        spare.write_bytes(content)
        room = LARGEST_BLOCK + OVERHEAD + 8 * len(content)
        lines.append(json.dumps([str(path), str(spare), room]))
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input="\n".join(lines),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(SHARDS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", SHARDS)
def test_shards_that_claim_more_than_they_hold(
    outcomes: dict[str, dict[str, list[str]]], name: str
) -> None:
    found, field = outcomes[name], SHARDS[name][1]
    assert all(outcome != "failed" for outcome, _, _ in found.values()), found
    outcome, path, named = found["verify"]
    assert outcome == "refused"
    assert path.endswith(".slc")
    assert re.fullmatch(field, named), named
    # Whoever reads the damaged part is told, too.
    assert "refused" in {found["info"][0], found["read"][0], found["table"][0]} or "entries" in name


def test_a_good_shard_needs_no_more_memory(tmp_path: Path) -> None:
    """The same child finds nothing wrong with a shard that is what it claims."""
    write(tmp_path / "c", [random_sequence(i) for i in range(3)])
    path = tmp_path / "c" / "shard-000000.slc"
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps([str(path), str(tmp_path / "none"), OVERHEAD]),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert {found[way][0] for way in ("info", "read", "read_last", "table", "verify")} == {"fine"}
    assert found["recover"][0] == "failed", "there was nothing to recover"


@pytest.mark.parametrize(
    "name, shown",
    [(b"\xff\xfe", r"'\xff\xfe'"), (b"\x1b[2J", r"'\x1b[2J'"), (b"a b", "'a b'"), (b"", "''")],
)
def test_names_that_are_no_text_are_shown_escaped(tmp_path: Path, name: bytes, shown: str) -> None:
    (tmp_path / "s.slc").write_bytes(shard(header={"sampler": name}))
    with pytest.raises(sl.CorruptionError, match="is not 1 to 16 characters") as caught:
        _core.read_shard_info(str(tmp_path / "s.slc"))
    assert (caught.value.field, caught.value.offset) == ("sampler", 56)
    assert caught.value.message.startswith(shown)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write(tmp_path / "c", [random_sequence(0)])
    return tmp_path / "c"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket must be short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


NOT_A_FILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (fifo, "is a FIFO"),
    "a directory": (lambda path: path.mkdir(), "is a directory"),
    "a socket": (listening_socket, "is a socket"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "link out"),
    "a link to a file outside": (lambda path: path.symlink_to("/etc/passwd"), "link out"),
    "a link up and back": (
        lambda path: path.symlink_to(f"../../{path.parent.parent.name}/c2/{path.name}"),
        "link out",
    ),
    "a link inside to a FIFO": (
        lambda path: (fifo(path.with_name("pipe")), path.symlink_to("pipe")),
        "is a FIFO",
    ),
    "a link to the directory": (lambda path: path.symlink_to("."), "link out"),
}


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.slc"])
@pytest.mark.parametrize("kind", NOT_A_FILE)
def test_what_is_no_file_is_not_opened(cache: Path, name: str, kind: str) -> None:
    """Opening a FIFO would wait for ever, /dev/zero would never end."""
    (cache.parent / "c2").mkdir()
    (cache / name).rename(cache.parent / "c2" / name)
    make, message = NOT_A_FILE[kind]
    make(cache / name)
    with pytest.raises(sl.CorruptionError, match=message) as caught:
        sl.open(cache)
    assert caught.value.path == str(cache / name)


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.slc"])
@pytest.mark.parametrize("target", ["nothing", "{name}", "pair"])
def test_links_to_nothing_are_errors_of_the_system(cache: Path, name: str, target: str) -> None:
    (cache / name).unlink()
    (cache / name).symlink_to(target.format(name=name))
    (cache / "pair").symlink_to(name)
    with pytest.raises(sl.CacheIOError, match=re.escape(name)):
        sl.open(cache)


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.slc"])
def test_links_that_stay_inside_are_followed(cache: Path, name: str) -> None:
    (cache / name).rename(cache / "real")
    (cache / name).symlink_to("real")
    assert len(sl.open(cache)) == 1


@pytest.mark.parametrize("suffix", ["", ".partial"])
@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "a link to a file outside"])
def test_a_recovery_takes_in_no_other_files(cache: Path, kind: str, suffix: str) -> None:
    make, message = NOT_A_FILE[kind]
    make(cache / f"shard-000001.slc{suffix}")
    before = (cache / "manifest.json").read_bytes()
    with pytest.raises(sl.CorruptionError, match=message) as caught:
        sl.recover(cache)
    assert caught.value.path == str(cache / f"shard-000001.slc{suffix}")
    assert (cache / "manifest.json").read_bytes() == before


def test_a_recovery_does_not_cut_an_unfinished_shard_of_another_cache(
    cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "other", [random_sequence(5)])
    (others,) = (tmp_path / "other").glob("*.partial")
    with others.open("ab") as file:
        file.write(b"what follows the last commit")
    before = others.read_bytes()
    (cache / "shard-000001.slc.partial").symlink_to(others)
    with pytest.raises(sl.CorruptionError, match="link out"):
        sl.recover(cache)
    assert others.read_bytes() == before


def test_a_manifest_is_not_written_through_a_link(cache: Path, tmp_path: Path) -> None:
    """In a directory that others can write to, they could lay a link under the temporary name."""
    (tmp_path / "precious").write_text("data")
    (cache / f".manifest.json.{os.getpid()}.tmp").symlink_to(tmp_path / "precious")
    read_manifest(cache).write(cache)
    assert (tmp_path / "precious").read_text() == "data"
    assert len(sl.open(cache)) == 1
    assert not (cache / "manifest.json").is_symlink()


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
    assert peak < 40 * len(data)


LONG = "x" * (1 << 20)


@pytest.mark.parametrize(
    "where",
    ["format", "alignment", "version", "complete", "config", "metadata", "shards"]
    + [f"config/{name}" for name in ("sampler", "codec", "vocab_size", "value_kind", "temperature")]
    + [f"config/{name}" for name in ("tokenizer_fingerprint", "rounds", "store_tokens")]
    + [f"shards/{name}" for name in ("file", "uuid", "sha256", "bytes", "sequences", "entries")],
)
@pytest.mark.parametrize("value", [LONG, [LONG] * 9, {LONG: LONG}], ids=["text", "array", "object"])
def test_errors_do_not_repeat_what_a_file_says_at_length(
    cache: Path, where: str, value: Any
) -> None:
    manifest = manifest_of(cache)
    *path, last = where.split("/")
    parent = manifest
    for key in path:
        parent = parent[key] if key != "shards" else parent[key][0]
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


def test_limits_of_this_process_are_as_they_were() -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
