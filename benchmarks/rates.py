"""Rates in CPU time of one core, of runs that take turns: noise of the machine hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

_SECONDS = 0.15  # a repeat of a run lasts about so long

Key = TypeVar("Key")


@dataclass(frozen=True)
class Run:
    """What is timed, and how many positions one call goes through."""

    call: Callable[[], object]
    positions: int


def median_rates(runs: Mapping[Key, Run], repeats: int) -> dict[Key, float]:
    """Millions of positions per second of CPU time (`process_time`): the median of the repeats."""
    loops = {key: max(1, round(_SECONDS / cpu_seconds(run.call))) for key, run in runs.items()}
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for _ in range(repeats):
        for key, run in runs.items():
            seconds[key].append(cpu_seconds(run.call, loops[key]) / loops[key])
    return {key: run.positions / statistics.median(seconds[key]) / 1e6 for key, run in runs.items()}


def cpu_seconds(call: Callable[[], object], loops: int = 1) -> float:
    """CPU time of some calls, at least a microsecond."""
    start = time.process_time()
    for _ in range(loops):
        call()
    return max(time.process_time() - start, 1e-6)
