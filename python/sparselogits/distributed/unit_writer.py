"""`write_unit`: a unit whose draws were made elsewhere, as a cache that appears whole."""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any

import numpy.typing as npt

from sparselogits.codec_model import CodecModel
from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.units import UnitDirectory
from sparselogits.durable import io_error, sync_directory
from sparselogits.writer import CacheWriter


def write_unit(
    units: UnitDirectory,
    plan: UnitPlan,
    unit: int,
    arrays: dict[str, npt.NDArray[Any]],
    codec_model: CodecModel | None,
) -> None:
    """Writes a unit, unless it is there: what runs again, or twice at once, changes nothing.

    The cache is made under a hidden name of its own and renamed. What a worker that captured into
    the unit itself has left unfinished is removed.

    Args:
        units, plan, unit: Which one.
        arrays: Arguments of `CacheWriter.append_many`.
        codec_model: What all units are coded with, if the plan names one.

    Raises:
        InvalidArgumentError: The arrays are no valid sequences.
        FormatError, MismatchError: As `UnitDirectory.is_done`.
        CacheIOError: The system refused.
    """
    path = units.unit_path(unit)
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    lock = units.lock_unit(unit, wait=True)
    assert lock is not None
    with lock:
        if units.is_done(unit, plan):
            return
        try:
            with CacheWriter(hidden, plan.config, plan.metadata, codec_model) as writer:
                writer.append_many(**arrays)
            if path.exists():
                shutil.rmtree(path)
            os.rename(hidden, path)
            sync_directory(units.directory)
        except OSError as error:
            if units.is_done(unit, plan):  # where locks do not lock, somebody else may be faster
                return
            raise io_error(error, "cannot write the unit", path) from error
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
