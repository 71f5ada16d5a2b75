"""Start-up: opening a cache of 10,000 shards and 10^9 positions, to the first indices of a batch.

The cache is real but for its records, which are holes (benchmarks/outlines.py). Each row is one of
`--repeats` fresh processes for each kind of start, taken in turn; imports are not counted. Time is
the median, memory the largest growth of resident memory from before `sl.open` to after the first
indices. *cold* drops the files' pages before; names and inodes stay known to the system. *remote*
opens the same files at a file:// URL: their shards would be fetched when they are read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from outlines import Shape, write_outlines

STARTS = ("local", "local, cold", "remote", "local, with the table of sequences")
PHASES = ("open", "dataset", "first_indices", "table")
LIMIT_SECONDS, LIMIT_MEGABYTES = 1.0, 200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--sequences", type=int, default=49, help="of a shard")
    parser.add_argument("--length", type=int, default=2048, help="of a sequence, positions")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--one", nargs=3, metavar=("START", "CACHE", "SCRATCH"), help="used inside")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    shape = Shape(args.shards, args.sequences, args.length, bytes_per_position=40)
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        write_outlines(cache, shape)
        runs: dict[str, list[dict[str, float]]] = {start: [] for start in STARTS}
        for _ in range(args.repeats):
            for start in STARTS:
                runs[start].append(in_a_process(start, cache, scratch))
    lines = table(shape, runs)
    print("\n".join(lines))
    if args.markdown:
        args.markdown.write_text("\n".join(["# Start-up", "", *lines, ""]))


def in_a_process(start: str, cache: Path, scratch: str) -> dict[str, float]:
    """What `measure` gives in a fresh process."""
    command = [sys.executable, __file__, "--one", start, str(cache), scratch]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def measure(start: str, path: str, scratch: str) -> dict[str, float]:
    """One start, in this process: seconds of each phase, and megabytes."""
    import sparselogits as sl
    from sparselogits.torch import SparseLogitDataset

    options: dict[str, Any] = {}
    if start == "remote":
        import fsspec.implementations.local  # noqa: F401

        options = {"local_cache": f"{scratch}/local"}
        path = Path(path).as_uri()
    if start == "local, cold":
        drop_pages(Path(path))
    manifest = Path(path) / "manifest.json"
    seconds = dict.fromkeys(PHASES, 0.0)
    before = resident_megabytes()
    clock = time.perf_counter()

    def lap(phase: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[phase], clock = now - clock, now

    cache = sl.open(path, **options)
    lap("open")
    dataset = SparseLogitDataset(cache, batch_size=8, seed=1)
    lap("dataset")
    next(dataset._course.plans(0, range(1)))
    lap("first_indices")
    if start.endswith("table of sequences"):
        cache.sequence_lengths  # noqa: B018
        lap("table")
    grown = resident_megabytes() - before
    baseline = time_of_json(manifest) if start != "remote" else 0.0
    return {**seconds, "megabytes": grown, "json": baseline}


def drop_pages(directory: Path) -> None:
    """Makes the next reads of these files go to the disk."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def time_of_json(manifest: Path) -> float:
    """The least that reading such a manifest takes, without looking at what it says."""
    start = time.perf_counter()
    json.loads(manifest.read_bytes())
    return time.perf_counter() - start


def resident_megabytes() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def table(shape: Shape, runs: dict[str, list[dict[str, float]]]) -> list[str]:
    """Markdown, with the requirement beneath."""
    baseline = statistics.median(run["json"] for run in runs["local"])
    lines = [
        f"`python benchmarks/bench_startup.py`: {shape.shards:,} shards, "
        f"{shape.shards * shape.sequences:,} sequences, {shape.shards * shape.positions:,} "
        f"positions, {len(runs['local'])} processes each, {os.cpu_count()} cores.",
        "",
        "| start | open, s | dataset, s | first indices, s | table, s | all, s "
        "| × json.loads of the manifest | memory, MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    within = True
    for start, found in runs.items():
        parts = [statistics.median(run[phase] for run in found) for phase in PHASES]
        total = statistics.median(sum(run[phase] for phase in PHASES) for run in found)
        memory = max(run["megabytes"] for run in found)
        if not start.endswith("cold"):
            within = within and total < LIMIT_SECONDS and memory < LIMIT_MEGABYTES
        cells = [*(f"{part:.3f}" for part in parts), f"{total:.2f}", f"{total / baseline:.1f}"]
        lines.append(f"| {start} | {' | '.join(cells)} | {memory:.0f} |")
    verdict = "met" if within else "NOT met"
    lines += [
        "",
        f"Asked for: below {LIMIT_SECONDS:.0f} s and {LIMIT_MEGABYTES:.0f} MB; {verdict} (without "
        "the cold start, which the disk decides).",
    ]
    return lines


if __name__ == "__main__":
    main()
