"""Passes over a sample, in turns: every loader meets the same noise of the machine."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samples import Sample

import loaders
from loaders.base import Loader, Tensors, stored_bytes
from loaders.checks import check

WORKERS = 2


@dataclass
class Row:
    """What was measured of a loader.

    Attributes:
        missing: Why there is nothing, else "".
        bytes_per_position: On disk.
        random, sequential: Positions per second of CPU time, of all threads and processes.
        random_wall: Positions per second of the clock.
        workers_wall: The same, shuffled, from a DataLoader with two processes; 0 where not taken.
    """

    name: str
    settings: str = ""
    shuffled: str = ""
    missing: str = ""
    bytes_per_position: float = 0.0
    random: float = 0.0
    sequential: float = 0.0
    random_wall: float = 0.0
    workers_wall: float = 0.0


@dataclass
class _Trial:
    loader: Loader
    row: Row
    opened: dict[bool, Any]  # by whether it shuffles
    seconds: dict[str, list[float]] = field(default_factory=dict)


def measure(sample: Sample, scratch: Path, names: list[str], repeats: int) -> list[Row]:
    """Stores, checks and times; the rows in the order of the names."""
    rows, trials = [], []
    for name in names:
        try:
            made = loaders.load(name)
        except ImportError as error:
            rows.append(Row(name, missing=f"not installed: {error}"))
            continue
        for loader in made:
            trials.append(_prepare(loader, sample, scratch / f"{name}-{len(trials)}"))
            rows.append(trials[-1].row)
    for epoch in range(1, repeats + 1):
        for trial in trials:
            _take_turn(trial, epoch)
        print(f"{epoch} of {repeats}", file=sys.stderr)
    for trial in trials:
        _evaluate(trial, sample.num_positions, sample)
    return rows


def _prepare(loader: Loader, sample: Sample, path: Path) -> _Trial:
    print(loader.name, file=sys.stderr)
    loader.write(path, sample)
    row = Row(loader.name, loader.settings, loader.random)
    row.bytes_per_position = stored_bytes(path) / sample.num_positions
    opened = {shuffle: loader.open(path, shuffle) for shuffle in (True, False)}
    for shuffle, ready in opened.items():
        check(loader.name, sample, loader.batches(ready, 0, 0), in_order=not shuffle)
    return _Trial(loader, row, opened)


def _take_turn(trial: _Trial, epoch: int) -> None:
    loader = trial.loader
    for what, shuffle in (("random", True), ("sequential", False)):
        cpu, wall, _ = _timed(loader.batches(trial.opened[shuffle], epoch, 0))
        trial.seconds.setdefault(what, []).append(cpu)
        trial.seconds.setdefault(f"{what}_wall", []).append(wall)
    if loader.has_workers:
        _, wall, _ = _timed(loader.batches(trial.opened[True], epoch, WORKERS))
        trial.seconds.setdefault("workers_wall", []).append(wall)


def _timed(batches: Iterable[Tensors]) -> tuple[float, float, int]:
    """Seconds of CPU time, here and in children, and of the clock, from the first batch on.

    Processes that are started and the batches that they make meanwhile are not counted.
    """
    iterator = iter(batches)
    start_cpu = _cpu_seconds()
    first = next(iterator)
    start = time.perf_counter()
    count = 1
    for _ in iterator:
        count += 1
    wall = time.perf_counter() - start
    del iterator, first  # children that have ended are counted
    return _cpu_seconds() - start_cpu, wall * count / (count - 1), count


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _evaluate(trial: _Trial, num_positions: int, sample: Sample) -> None:
    for what, seconds in trial.seconds.items():
        if what != "sequential_wall":
            setattr(trial.row, what, num_positions / statistics.median(seconds))
