"""Capture by many workers: units of windows, each a cache of its own, merged when all are done.

The core knows no framework: see `units` and `finish`. `worker` drives it by the environment of
torchrun or Slurm, `ray_capture` by Ray Data.
"""

from __future__ import annotations

from sparselogits.distributed.file_lock import FileLock
from sparselogits.distributed.finish import finish
from sparselogits.distributed.rank import local_rank, rank_and_size
from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.units import UnitDirectory, capture_unit
from sparselogits.distributed.worker import capture_distributed

__all__ = [
    "FileLock",
    "UnitDirectory",
    "UnitPlan",
    "capture_distributed",
    "capture_unit",
    "finish",
    "local_rank",
    "rank_and_size",
]
