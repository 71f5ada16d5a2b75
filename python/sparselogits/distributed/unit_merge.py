"""`merged_units`: the complete units as one cache, still beside them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.units import UnitDirectory
from sparselogits.durable import io_error, sync_directory
from sparselogits.errors import FormatError
from sparselogits.manifest import read_manifest
from sparselogits.merge import merge
from sparselogits.repack import repack
from sparselogits.writer import CacheWriter


def merged_units(units: UnitDirectory, plan: UnitPlan) -> Path:
    """Merges the units and codes the result as the plan asks; returns where it is.

    Every step appears whole, and is made once. REQUIRES: the caller holds the lock of finishing.

    Raises:
        MismatchError: Units do not belong together.
        FormatError: A unit is damaged; names the file and, where that is not in the unit, the unit.
        CacheIOError: The system refused.
    """
    final = units.directory / "final"
    if final.exists():
        return final
    if plan.config == plan.final_config:
        _merge(units, plan, final)
    else:
        merged = units.directory / "merged"
        fresh = not merged.exists()
        if fresh:
            _merge(units, plan, merged)
        _recode(units, plan, merged, final, fresh)
    return final


def _merge(units: UnitDirectory, plan: UnitPlan, merged: Path) -> None:
    paths = [units.unit_path(unit) for unit in range(plan.num_units)]
    ordered = merged.with_name(f"{merged.name}-ordered")
    if not paths:
        CacheWriter(ordered, plan.config, plan.metadata, resume=True).close()
    elif not ordered.exists():
        merge(paths, ordered)
    # A merge orders shards by their ids; here they are in the order of the windows.
    places = _places(units, plan)
    manifest = read_manifest(ordered)
    rows = tuple(sorted(manifest.shards, key=lambda row: places[row.uuid]))
    if rows != manifest.shards:
        replace(manifest, shards=rows).write(ordered)
    try:
        ordered.rename(merged)
        sync_directory(units.directory)
    except OSError as error:
        raise io_error(error, "cannot rename the merged cache to", merged) from error


def _recode(units: UnitDirectory, plan: UnitPlan, merged: Path, final: Path, fresh: bool) -> None:
    try:
        repack(merged, final, codec=plan.codec, restart=fresh)
    except FormatError as error:
        # Only now is every record read. The damaged shard is that of a unit, under another name.
        name = Path(error.path or "").name
        uuids = [row.uuid for row in read_manifest(merged).shards if row.file == name]
        advice = "".join(
            f"; remove {units.unit_path(_places(units, plan)[uuid][0])} to capture it again"
            for uuid in uuids
        )
        shutil.rmtree(merged)
        raise type(error)(error.message + advice, error.path, error.offset, error.field) from error


def _places(units: UnitDirectory, plan: UnitPlan) -> dict[str, tuple[int, int]]:
    """The unit of each shard, and its number there, by its uuid."""
    return {
        row.uuid: (unit, number)
        for unit in range(plan.num_units)
        for number, row in enumerate(read_manifest(units.unit_path(unit)).shards)
    }
