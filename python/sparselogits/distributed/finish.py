"""`begin` and `finish`: how a worker joins a capture, and how its units become one cache."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from sparselogits.agreement import check_same_config, check_same_metadata
from sparselogits.distributed.file_lock import FileLock
from sparselogits.distributed.unit_merge import merged_units
from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.units import UNITS_NAME, UnitDirectory
from sparselogits.distributed.window_parts import WindowParts
from sparselogits.durable import io_error, sync_directory
from sparselogits.errors import CacheIOError, MismatchError
from sparselogits.manifest import MANIFEST_NAME, Manifest, read_manifest
from sparselogits.reader import open as open_cache

_REMOVING = f"{UNITS_NAME}.removing"


def begin(units: UnitDirectory, plan: UnitPlan, parts: WindowParts) -> bool:
    """Joins a capture, or starts it.

    Returns:
        Whether there is work; False where the cache is finished and is what the plan makes.

    Raises:
        MismatchError: The capture under way, or the finished cache, has other facts or windows;
            names the field.
        InvalidArgumentError: OUT holds something of another writer.
        FormatError, CacheIOError: The plan is damaged, or the system refused.
    """
    if units.is_finished and units.read_plan() is None:
        check_result(read_manifest(units.target), plan, units.target)
        parts.check_held(open_cache(units.target))
        remove_units(units.target)
        return False
    units.hold_to(plan)
    return not (units.is_finished and finish(units, plan, wait=True))


def finish(units: UnitDirectory, plan: UnitPlan, *, wait: bool = False) -> bool:
    """Makes the cache of all units, unless somebody else is at it.

    The units are merged, in their order, inside `.units`; where the codec is compact and units are
    not, the result is coded with one model. Its files are then moved to their place, the manifest
    last, and only when that is durable `.units` is removed. A call after a crash goes on where
    that was; the units are untouched until the cache is complete.

    Args:
        units, plan: Of the capture.
        wait: For another process that is finishing; what it leaves undone is then done here.

    Returns:
        Whether the cache is there; False where another process is finishing, or a unit is missing.

    Raises:
        MismatchError: OUT holds another cache; units do not belong together.
        FormatError: A unit is damaged; names the file.
        CacheIOError: The system refused.
    """
    try:
        lock = FileLock.acquire(units.directory / "finish.lock", wait=wait)
    except CacheIOError as error:
        if error.errno == errno.ENOENT and units.is_finished:
            return True  # and .units is gone already
        raise
    if lock is None:
        return False
    with lock:
        if not units.is_finished:
            if units.missing(plan):
                return False
            _publish(merged_units(units, plan), units.target)
        check_result(read_manifest(units.target), plan, units.target)
        remove_units(units.target)
    return True


def check_result(manifest: Manifest, plan: UnitPlan, target: Path) -> None:
    """Refuses a finished cache that is not what the plan makes.

    Raises:
        MismatchError: Names the field and both values.
    """
    check_same_config(manifest.config, plan.final_config, str(target))
    check_same_metadata(manifest.metadata, plan.metadata, str(target))
    found = sum(row.sequences for row in manifest.shards)
    if found != plan.num_windows:
        raise MismatchError(f"{target} has {found} sequences, not {plan.num_windows}")
    if not manifest.complete:
        raise MismatchError(f"{target} is incomplete: a writer without units left it unfinished")


def remove_units(target: Path) -> None:
    """Removes `.units`, and what is left of one whose removal was interrupted.

    REQUIRES: the cache is there, durably. Several processes may call it at once.

    Raises:
        CacheIOError: The system refused.
    """
    doomed = target / _REMOVING
    try:
        _remove_tree(doomed)
        with contextlib.suppress(FileNotFoundError):
            # First by its name: no worker ever sees half of it.
            os.rename(target / UNITS_NAME, doomed)
        _remove_tree(doomed)
        sync_directory(target)
    except OSError as error:
        raise io_error(error, "cannot remove the units of", target) from error


def _publish(made: Path, target: Path) -> None:
    """Moves a cache into the directory above it: shards and models, then the manifest."""
    manifest = read_manifest(made)
    try:
        for name in [row.file for row in manifest.shards] + [row.file for row in manifest.models]:
            with contextlib.suppress(FileNotFoundError):  # moved before a crash
                os.rename(made / name, target / name)
            if not (target / name).exists():
                raise CacheIOError(errno.ENOENT, "is gone", str(made / name))
        sync_directory(target)
        os.rename(made / MANIFEST_NAME, target / MANIFEST_NAME)
        sync_directory(target)
    except OSError as error:
        raise io_error(error, f"cannot move {made} to", target) from error


def _remove_tree(path: Path) -> None:
    """Like `shutil.rmtree`, beside others that do the same."""
    while path.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
