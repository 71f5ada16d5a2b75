"""Captures that were interrupted, or whose units are all done, made in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from worker_processes import OPTIONS, UNIT_WINDOWS, WINDOWS, InterruptError, dying, interrupt, llama

import sparselogits as sl
from sparselogits.distributed import UnitDirectory, UnitPlan, capture_distributed, worker


def capture(path: Path, windows: Any = WINDOWS, model: Any = None, **options: Any) -> sl.Cache:
    """A single worker in this process."""
    arguments = {"unit_windows": UNIT_WINDOWS, "rank": 0, "world_size": 1, **OPTIONS, **options}
    return capture_distributed(llama() if model is None else model, windows, path, **arguments)


def interrupted(path: Path, batches: int, model: Any = None, **options: Any) -> UnitDirectory:
    """What a worker leaves that reads so many batches."""
    with pytest.raises(InterruptError):
        capture(path, model=dying(model or llama(), batches, interrupt), **options)
    return UnitDirectory(path)


def all_units_done(path: Path, **options: Any) -> tuple[UnitDirectory, UnitPlan]:
    """What is there before the cache is finished."""

    def refuse(*_: Any) -> bool:
        raise InterruptError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "finish", refuse)
        with pytest.raises(InterruptError):
            capture(path, **options)
    units = UnitDirectory(path)
    plan = units.read_plan()
    assert plan is not None
    assert units.missing(plan) == []
    return units, plan
