"""`capture_with_ray`: Ray Data as the driver of a capture (`pip install 'sparselogits[ray]'`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray.data

from sparselogits.checks import integer
from sparselogits.distributed.capture_facts import check_options
from sparselogits.distributed.ray_actor import RayCapture, TeacherActor
from sparselogits.distributed.ray_sink import UnitSink
from sparselogits.distributed.unit_plan import number_of_units
from sparselogits.distributed.unit_rows import NO_UNIT
from sparselogits.distributed.units import UnitDirectory
from sparselogits.distributed.window_parts import WindowParts
from sparselogits.reader import Cache
from sparselogits.reader import open as open_cache

if TYPE_CHECKING:
    from torch import nn


def capture_with_ray(
    teacher: str | os.PathLike[str] | Callable[[], nn.Module],
    windows: Any,
    path: str | os.PathLike[str],
    *,
    unit_windows: int,
    actors: int | tuple[int, int] = 1,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    ray_options: Mapping[str, Any] | None = None,
    sequence_ids: Any = None,
    targets_mask: Any = None,
    **options: Any,
) -> Cache:
    """Captures on a Ray cluster: actors that hold the teacher make units, tasks write them.

    The units that are not done yet are the rows of a data set; `map_batches` gives each to an
    actor; a `Datasink` writes the draws to `path/.units` and merges the units when all are there.
    Ray restarts an actor that dies and gives its unit to another one; a unit that is written twice
    is there once. A capture that `capture_distributed` began can be finished here, and the other
    way round. Ray is started, or joined by RAY_ADDRESS, unless that has been done.

    Args:
        teacher: A model directory or hub name, or a picklable function that makes the teacher on
            its device; called once in each actor.
        windows: As for `capture_distributed`. An array in memory travels to every actor: give the
            path of a file that all machines see.
        path: The cache directory; a file system that all machines see.
        unit_windows: Windows a unit. Its draws are one row, so it has to fit the object store
            several times: some tens of MB are fine.
        actors: How many actors hold a teacher, or (fewest, most).
        num_cpus, num_gpus: What an actor takes. Ray lets it compute with `num_cpus` threads.
        ray_options: Further arguments of `map_batches`, for example `accelerator_type`.
        sequence_ids, targets_mask: As for `sparselogits.capture`, for all windows.
        options: Further arguments of `sparselogits.capture`, but for `resume`; picklable.

    Returns:
        The finished cache, opened.

    Raises:
        What `capture_distributed` raises. A unit that cannot be made does not stop the others; the
        error of the first one is raised at the end, and the same call goes on from there.
        ray.exceptions.RayError: Anything else that happened in an actor or task.
    """
    checked = check_options(options)
    parts = WindowParts(windows, sequence_ids, targets_mask)
    number_of_units(len(parts), unit_windows)
    units = UnitDirectory(path)
    capture = RayCapture(
        teacher=teacher,
        windows=windows,
        path=str(units.target),
        unit_windows=unit_windows,
        on_gpu=num_gpus > 0,
        sequence_ids=sequence_ids,
        targets_mask=targets_mask,
        options={"progress": False, **checked},
    )
    todo = _units_to_do(units, len(parts), unit_windows)
    rows = ray.data.from_items([{"unit": unit} for unit in todo], override_num_blocks=len(todo))
    made = rows.map_batches(
        TeacherActor,
        fn_constructor_kwargs={"capture": capture},
        batch_size=1,
        batch_format="pyarrow",
        compute=_pool(actors),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        **(ray_options or {}),
    )
    # Writing takes no core of its own: else actors on all cores would wait for it for ever.
    made.write_datasink(
        UnitSink(str(units.target), checked.get("codec_model")), ray_remote_args={"num_cpus": 0}
    )
    return open_cache(units.target)


def _units_to_do(units: UnitDirectory, num_windows: int, unit_windows: int) -> list[int]:
    """One row for each; where there is none, a row for which an actor compares the facts."""
    plan = units.read_plan()
    todo = list(range(number_of_units(num_windows, unit_windows)))
    if units.is_finished:
        todo = []
    elif plan is not None and (plan.num_windows, plan.unit_windows) == (num_windows, unit_windows):
        todo = units.missing(plan)
    return todo or [NO_UNIT]


def _pool(actors: int | tuple[int, int]) -> ray.data.ActorPoolStrategy:
    if isinstance(actors, tuple):
        fewest, most = (integer("actors", number, 1, 1 << 20) for number in actors)
        return ray.data.ActorPoolStrategy(min_size=fewest, max_size=most)
    return ray.data.ActorPoolStrategy(size=integer("actors", actors, 1, 1 << 20))
