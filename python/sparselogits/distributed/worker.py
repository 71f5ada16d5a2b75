"""`capture_distributed`: one worker among several, which share nothing but a directory."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparselogits.checks import boolean, positive_float
from sparselogits.distributed.capture_facts import check_options, make_plan
from sparselogits.distributed.finish import begin, finish
from sparselogits.distributed.rank import rank_and_size
from sparselogits.distributed.unit_plan import UnitPlan, number_of_units
from sparselogits.distributed.units import UnitDirectory, capture_unit
from sparselogits.distributed.window_parts import WindowParts
from sparselogits.errors import CacheIOError
from sparselogits.reader import Cache
from sparselogits.reader import open as open_cache

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)


def capture_distributed(
    model: nn.Module | Callable[[], nn.Module],
    windows: Any,
    path: str | os.PathLike[str],
    *,
    unit_windows: int,
    rank: int | None = None,
    world_size: int | None = None,
    help_others: bool = True,
    poll_seconds: float = 1.0,
    sequence_ids: Any = None,
    targets_mask: Any = None,
    **options: Any,
) -> Cache:
    """Does this worker's part of a capture; all workers call it with the same arguments.

    Windows are cut into units of `unit_windows`. A worker captures the units `rank`,
    `rank + world_size`, … one after the other, each into a cache of its own under `path/.units`,
    and then the units that nobody is at work on: those of a worker that died, or is slow. When all
    are complete, one worker merges them and removes `.units`. Workers talk only through files:
    there is no process group, they may start and die at any time, and the same call goes on with
    what was finished. Units fix the batches, so the content is the same for any number of workers.

    Args:
        model: The teacher, or a function that makes it. Its device is the caller's choice.
        windows: As for `sparselogits.capture`, with a length: an (N, S) array, the path of a
            `.npy`, a list of 1-D arrays.
        path: The cache directory; a file system that all workers see.
        unit_windows: Windows a unit: small enough for some units a worker, large enough that a
            unit takes minutes. Every unit becomes a shard.
        rank, world_size: Which worker this is; default: RANK and WORLD_SIZE, else SLURM_PROCID and
            SLURM_NTASKS, else the only one.
        help_others: False for file systems whose locks do not reach the other machines: a worker
            then takes no units but its own, and rank 0 finishes.
        poll_seconds: How often a worker that waits for others looks for work.
        sequence_ids, targets_mask: As for `sparselogits.capture`, for all windows.
        options: Further arguments of `sparselogits.capture`, but for `resume`.

    Returns:
        The finished cache, opened; every worker waits for it.

    Raises:
        MismatchError: The capture under way, or the finished cache, has other facts or windows;
            names the field and both values.
        InvalidArgumentError: An argument or a window is wrong; `path` holds an unfinished cache
            that was captured without units.
        FormatError: A unit is damaged; names the file.
        CacheIOError: The system refused, or cannot lock.
    """
    from torch import nn

    number, workers = rank_and_size(rank, world_size)
    help_others = boolean("help_others", help_others)
    poll_seconds = positive_float("poll_seconds", poll_seconds)
    checked = check_options(options)
    parts = WindowParts(windows, sequence_ids, targets_mask)
    number_of_units(len(parts), unit_windows)
    units = UnitDirectory(path)
    teacher = model if isinstance(model, nn.Module) else model()
    plan = make_plan(teacher, parts, unit_windows, checked)
    if begin(units, plan, parts):
        worker = _Worker(units, plan, teacher, parts, checked)
        own = range(number, plan.num_units, workers)
        try:
            for unit in own:
                worker.take(unit)
            worker.stay(None if help_others else own, number == 0 or help_others, poll_seconds)
        except CacheIOError:
            if not units.is_finished:  # else another worker removed the units under this one
                raise
    return open_cache(units.target)


@dataclass
class _Worker:
    units: UnitDirectory
    plan: UnitPlan
    model: nn.Module
    parts: WindowParts
    options: Mapping[str, Any]

    def take(self, unit: int) -> bool:
        """Whether the unit is done now; False where somebody else is at work on it."""
        if self.units.is_done(unit, self.plan):
            return True
        done = capture_unit(self.units, self.plan, unit, self.model, self.parts, self.options)
        if done:
            _log.info("unit %d of %d is done", unit, self.plan.num_units)
        return done

    def stay(self, own: range | None, finishes: bool, poll_seconds: float) -> None:
        """Until the cache is there: takes what is left, and finishes when nothing is.

        Args:
            own: The units that this worker may take; None for any.
            finishes: Whether this worker may finish.
            poll_seconds: Between two looks.
        """
        waits = False
        while not self.units.is_finished:
            missing = self.units.missing(self.plan)
            if not missing and finishes and finish(self.units, self.plan):
                return
            # Those of others from the end, where their owners come last.
            mine = [unit for unit in reversed(missing) if own is None or unit in own]
            if any(self.take(unit) for unit in mine):
                continue
            if not waits:
                _log.info("waiting for others, who have %d units, or finish", len(missing))
            waits = True
            time.sleep(poll_seconds)
