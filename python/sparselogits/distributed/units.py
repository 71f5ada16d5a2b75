"""`UnitDirectory`: the units of a capture where they lie, and who is at work on one."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselogits.directory import list_directory, local_directory
from sparselogits.distributed.capture_facts import unit_options
from sparselogits.distributed.file_lock import FileLock
from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.window_parts import WindowParts
from sparselogits.durable import io_error, make_directory, sync_directory
from sparselogits.errors import CacheIOError, FormatError, InvalidArgumentError, MismatchError
from sparselogits.manifest import MANIFEST_NAME, Manifest, read_manifest

if TYPE_CHECKING:
    from torch import nn

UNITS_NAME = ".units"
PLAN_NAME = "plan.json"


class UnitDirectory:
    """What workers of one capture share: `OUT/.units`, with the plan and a cache a unit.

    Args:
        path: The cache that is made, OUT.

    Raises:
        InvalidArgumentError: Not a local path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.target = local_directory(path)
        self.directory = self.target / UNITS_NAME
        self._done: set[int] = set()

    @property
    def is_finished(self) -> bool:
        """Whether the cache is there. Its manifest appears last, by one rename."""
        return (self.target / MANIFEST_NAME).exists()

    def unit_path(self, unit: int) -> Path:
        """Where the cache of a unit is."""
        return self.directory / f"unit-{unit:06d}"

    def lock_unit(self, unit: int, *, wait: bool = False) -> FileLock | None:
        """Keeps other workers from a unit; None where somebody has it, unless one waits."""
        return FileLock.acquire(self.directory / f"unit-{unit:06d}.lock", wait=wait)

    def read_plan(self) -> UnitPlan | None:
        """The plan under way, or None.

        Raises:
            CorruptionError: The file is damaged, or of another release.
            CacheIOError: It cannot be read.
        """
        path = self.directory / PLAN_NAME
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise io_error(error, "cannot read the plan", path) from error
        return UnitPlan.from_json(data, str(path))

    def hold_to(self, plan: UnitPlan) -> None:
        """Notes the plan where there is none, else makes sure that it is the one under way.

        Raises:
            MismatchError: The capture under way has other facts; names the field.
            InvalidArgumentError: OUT holds something of another writer.
            CorruptionError, CacheIOError: As `read_plan`; or the system refused.
        """
        held = self.read_plan()
        if held is None:
            self._refuse_other_writers()
            try:
                make_directory(self.directory)
                self._write_plan(plan)
            except CacheIOError:
                if not self.is_finished:  # else somebody has just removed the directory
                    raise
            held = self.read_plan()
        if held is not None:
            held.check_same(plan, str(self.directory / PLAN_NAME))

    def is_done(self, unit: int, plan: UnitPlan) -> bool:
        """Whether a unit is complete. Reads its manifest, and that only once.

        Raises:
            FormatError: The manifest is damaged; names it and what to do.
            MismatchError: A complete unit has another number of windows.
        """
        if unit not in self._done and self._is_complete(unit, plan):
            self._done.add(unit)
        return unit in self._done

    def missing(self, plan: UnitPlan) -> list[int]:
        """The units that are not done, in ascending order."""
        return [unit for unit in range(plan.num_units) if not self.is_done(unit, plan)]

    def unit_manifest(self, unit: int) -> Manifest | None:
        """The manifest of a unit, or None where there is none yet.

        Raises:
            FormatError: It is damaged.
            CacheIOError: It cannot be read.
        """
        path = self.unit_path(unit)
        try:
            return read_manifest(path)
        except CacheIOError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        except FormatError as error:
            advice = f"{error.message}; remove {path} to capture unit {unit} again"
            raise type(error)(advice, error.path, error.offset, error.field) from error

    def _is_complete(self, unit: int, plan: UnitPlan) -> bool:
        manifest = self.unit_manifest(unit)
        if manifest is None or not manifest.complete:
            return False
        found = sum(row.sequences for row in manifest.shards)
        wanted = len(plan.windows_of(unit))
        if found != wanted:
            raise MismatchError(
                f"{self.unit_path(unit)} is complete with {found} sequences, but unit {unit} has "
                f"{wanted} windows; remove the directory to capture it again"
            )
        return True

    def _refuse_other_writers(self) -> None:
        if self.target.is_dir():
            listing = list_directory(self.target)
            if listing.is_unfinished:
                raise InvalidArgumentError(
                    f"{self.target} holds an unfinished cache that was captured without units: "
                    "finish it that way, or choose another directory"
                )

    def _write_plan(self, plan: UnitPlan) -> None:
        """Makes the file, whole at once, unless another worker was faster."""
        path = self.directory / PLAN_NAME
        temporary = path.with_name(f".{PLAN_NAME}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(plan.to_json())
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links: equal workers write equal bytes
                os.replace(temporary, path)
            temporary.unlink(missing_ok=True)
            sync_directory(self.directory)
        except OSError as error:
            raise io_error(error, "cannot write the plan", path) from error


def capture_unit(
    units: UnitDirectory,
    plan: UnitPlan,
    unit: int,
    model: nn.Module,
    parts: WindowParts,
    options: Mapping[str, Any],
) -> bool:
    """Captures one unit into its own cache; goes on with what a dead worker has left of it.

    Args:
        units: Where. REQUIRES: `units.hold_to(plan)` accepted the plan.
        plan, unit: Which.
        model: The teacher.
        parts: All windows.
        options: From `check_options`.

    Returns:
        Whether the unit is done; False where somebody else is at work on it.

    Raises:
        What `sparselogits.capture` raises.
    """
    from sparselogits.capture.run import capture

    lock = units.lock_unit(unit)
    if lock is None:
        return False
    with lock:
        if units.is_done(unit, plan):
            return True
        arguments = {**unit_options(options), **parts.arguments(plan.windows_of(unit))}
        try:
            capture(model, path=units.unit_path(unit), resume=True, **arguments)
        except CacheIOError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            return False  # somebody writes there who does not know of units
        return units.is_done(unit, plan)
