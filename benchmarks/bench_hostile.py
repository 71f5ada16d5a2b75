"""Refusing hostile files: time and memory beside opening a good small shard.

Each row is a shard of a few hundred bytes to a megabyte whose checksums are right and whose claims
are not (tests/python/hostile_shards.py), or a manifest. Time is the median of `--repeats` calls in
one process, which open the shard and read its first sequence, as far as they get. Memory is the
growth of the peak of resident memory (VmHWM) in a fork that makes one such call.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from caches import random_sequence, write
from hostile_shards import SHARDS

from sparselogits import _core
from sparselogits.errors import FormatError
from sparselogits.manifest import parse_manifest

GOOD = "a good shard of one sequence"
MANIFESTS = {
    "manifest: 100,000 levels deep": b'{"a":' * 100_000,
    "manifest: an integer of a million digits": b'{"a": ' + b"1" * 1_000_000 + b"}",
    "manifest: a million empty objects": b'{"a": [' + b"{}," * 1_000_000 + b"1]}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = dict(write_files(Path(scratch)))
        rows = [measure(name, path, args.repeats) for name, path in files.items()]
    if args.json:
        print(json.dumps({"rows": rows}, indent=2))
        return
    print(f"{'file':<48}{'bytes':>10}{'µs':>10}{'KiB':>10}  outcome")
    for row in rows:
        print(
            f"{row['name']:<48}{row['bytes']:>10,}{row['microseconds']:>10,.1f}"
            f"{row['peak_growth'] >> 10:>10,}  {row['outcome']}"
        )


def write_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """The good shard first: what everything is to be compared with."""
    write(directory / "cache", [random_sequence(0)])
    yield GOOD, directory / "cache" / "shard-000000.slc"
    contents = {name: content for name, (content, _) in SHARDS.items()} | MANIFESTS
    for number, (name, content) in enumerate(contents.items()):
        path = directory / (f"{number}.json" if name in MANIFESTS else f"{number}.slc")
        path.write_bytes(content)
        yield name, path


def reader_of(path: Path) -> Callable[[], Any]:
    """Opens the file and reads as far as it gets."""
    if path.suffix == ".json":
        data = path.read_bytes()
        return lambda: parse_manifest(data, "manifest.json")
    first = np.array([0], np.int64)

    def read() -> None:
        found = _core.read_shard_info(str(path), [])
        totals = (found[name] for name in ("bytes", "sequences", "positions", "entries"))
        rows = [(str(path), found["uuid"], *totals)]
        _core.CacheReader(rows, found["config"], [], True).read_sequences(first)

    return read


def outcome_of(read: Callable[[], Any]) -> str:
    """`read`, or the field that was refused."""
    try:
        read()
    except FormatError as error:
        return f"{type(error).__name__}: {error.field}"
    return "read"


def measure(name: str, path: Path, repeats: int) -> dict[str, Any]:
    """The figures of one file."""
    read = reader_of(path)
    outcome = outcome_of(read)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        outcome_of(read)
        times.append(time.perf_counter() - start)
    return {
        "name": name,
        "bytes": path.stat().st_size,
        "microseconds": statistics.median(times) * 1e6,
        "peak_growth": peak_growth(read),
        "outcome": outcome,
    }


def peak_growth(read: Callable[[], Any]) -> int:
    """Bytes by which a call raises the peak of resident memory of the process that makes it."""
    output, inlet = os.pipe()
    if os.fork() == 0:  # whose peak starts at what it has
        before = _peak_bytes()
        outcome_of(read)
        os.write(inlet, str(_peak_bytes() - before).encode())
        os._exit(0)
    os.close(inlet)
    with open(output) as pipe:
        growth = int(pipe.read())
    os.wait()
    return growth


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
