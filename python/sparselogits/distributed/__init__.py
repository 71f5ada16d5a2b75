"""Capture by many workers: units of windows, each a cache of its own, merged when all are done.

The core knows no framework: see `units` and `finish`. `worker` drives it by the environment of
torchrun or Slurm, `ray_capture` by Ray Data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselogits.distributed.file_lock import FileLock
from sparselogits.distributed.finish import finish
from sparselogits.distributed.rank import local_rank, rank_and_size
from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.units import UnitDirectory, capture_unit
from sparselogits.distributed.worker import capture_distributed

if TYPE_CHECKING:
    from sparselogits.distributed.ray_capture import capture_with_ray

__all__ = [
    "FileLock",
    "UnitDirectory",
    "UnitPlan",
    "capture_distributed",
    "capture_unit",
    "capture_with_ray",
    "finish",
    "local_rank",
    "rank_and_size",
]


def __getattr__(name: str) -> Any:
    """Imports Ray only when it is asked for."""
    if name == "capture_with_ray":
        from sparselogits.distributed.ray_capture import capture_with_ray

        return capture_with_ray
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
