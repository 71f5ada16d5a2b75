"""A cache that nobody may write: reading needs no more, and leaves no trace; writing says why not.

The work is done by a process for which permissions count: where the tests are root's, by one that
has given up the privilege to override them.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caches import Interruption, random_sequence, write, write_and_fail

# Root may override permissions: what it starts after this may not. The numbers are those of
# PR_CAPBSET_DROP, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH; others than root have nothing to drop.
GIVE_UP_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""

WITHOUT_PRIVILEGES = """
import json, os, sys
import numpy as np
import sparselogits as sl
import sparselogits.inspect
from caches import CONFIG, random_sequence

path, work = sys.argv[1], json.loads(sys.argv[2])

if "loader" in work:
    import torch.utils.data
    from sparselogits.torch import SparseLogitDataset

def loader():
    dataset = SparseLogitDataset(path, 2, shuffle=False)
    batches = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        multiprocessing_context="fork",
    )
    return [batch.sequence_ids.tolist() for batch in batches]

try:
    open(os.path.join(path, "x"), "w")
except PermissionError:
    pass
else:
    raise SystemExit(f"{path} is writable")

def read():
    cache = sl.open(path)
    every = [cache[i] for i in range(len(cache))]
    cache.read_positions(np.arange(cache.num_positions))
    return [len(every), sum(int(one.counts.sum()) for one in every)]

def verify():
    return sl.open(path).verify().sequences

def recover():
    return sl.recover(path).total_sequences

def resume():
    with sl.CacheWriter(path, CONFIG, resume=True) as writer:
        random_sequence(99).append_to(writer)

def new_inside():
    sl.CacheWriter(os.path.join(path, "new"), CONFIG)

def inspect():
    return sparselogits.inspect.inspect_cache(path)["bytes"]

result = {}
for name in work:
    try:
        result[name] = globals()[name]()
    except Exception as error:
        number = getattr(error, "errno", None)
        result[name] = {"type": type(error).__name__, "message": str(error), "errno": number}
print(json.dumps(result))
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose caches become removable again."""
    yield tmp_path
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)


def make_read_only(cache: Path) -> None:
    for path in cache.iterdir():
        path.chmod(0o444)
    cache.chmod(0o555)


def state(cache: Path) -> dict[str, tuple[int, ...]]:
    """Whatever a write would change: the directory's own times too."""
    return {
        str(path): (facts.st_ino, facts.st_size, facts.st_mtime_ns, stat.S_IMODE(facts.st_mode))
        for path in (cache, *cache.iterdir())
        for facts in (path.stat(),)
    }


def without_privileges(cache: Path, *work: str) -> dict[str, Any]:
    """What became of each piece of work."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", GIVE_UP_PRIVILEGES),
            *(WITHOUT_PRIVILEGES, str(cache), json.dumps(work)),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_reading_needs_no_writing(place: Path) -> None:
    write(place / "c", [random_sequence(i) for i in range(6)])
    make_read_only(place / "c")
    before = state(place / "c")
    found = without_privileges(place / "c", "read", "verify", "loader", "inspect", "recover")
    sequences = [random_sequence(i) for i in range(6)]
    assert found["read"] == [6, sum(int(one.counts.sum()) for one in sequences)]
    assert found["verify"] == 6
    assert found["loader"] == [[0, 1], [2, 3], [4, 5]], found["loader"]
    assert found["recover"] == 6, "nothing is wrong, so there is nothing to write"
    assert found["inspect"] == sum(path.stat().st_size for path in (place / "c").iterdir())
    assert state(place / "c") == before


@pytest.mark.parametrize("work", ["resume", "new_inside"])
def test_a_writer_says_that_it_may_not_write(place: Path, work: str) -> None:
    write(place / "c", [random_sequence(0)])
    make_read_only(place / "c")
    before = state(place / "c")
    found = without_privileges(place / "c", work)[work]
    assert found["type"] == "CacheIOError"
    assert found["errno"] == 13
    assert "Permission denied" in found["message"]
    assert str(place / "c") in found["message"]
    assert state(place / "c") == before


def test_a_recovery_says_that_it_may_not_write(place: Path) -> None:
    with pytest.raises(Interruption):
        write_and_fail(place / "c", [random_sequence(i) for i in range(3)])
    make_read_only(place / "c")
    before = state(place / "c")
    found = without_privileges(place / "c", "recover", "read")
    assert found["recover"]["type"] == "CacheIOError"
    assert "Permission denied" in found["recover"]["message"]
    assert "shard-000000.slc.partial" in found["recover"]["message"]
    assert "recover" in found["read"]["message"]
    assert state(place / "c") == before
