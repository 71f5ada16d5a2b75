"""Shards made to do harm: they are refused, at once and with little memory, whatever they claim."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from caches import random_sequence, write
from hostile_shards import SHARDS, shard

import sparselogits as sl
from sparselogits import _core

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
    return _core.CacheReader([(path, found["uuid"], *totals)], found["config"], [], check)

def info(path, spare):
    return _core.read_shard_info(path, [])

def read(path, spare):
    found = _core.read_shard_info(path, [])
    cache(path, found, False).read_sequences(np.array([0], np.int64), 0, -1)

def read_last(path, spare):
    reader = cache(path, _core.read_shard_info(path, []), False)
    reader.read_positions(np.array([reader.num_positions - 1], np.int64))

def table(path, spare):
    found = _core.read_shard_info(path, [])
    cache(path, found, True).sequence_table()

def verify(path, spare):
    verify_shard(path, [])

def every_fault(path, spare):
    for fault in _core.verify_shard(path, [], True)["faults"]:
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
        _core.read_shard_info(str(tmp_path / "s.slc"), [])
    assert (caught.value.field, caught.value.offset) == ("sampler", 56)
    assert caught.value.message.startswith(shown)
