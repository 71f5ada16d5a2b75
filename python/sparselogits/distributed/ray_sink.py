"""`UnitSink`: writes the units that actors make, and finishes the cache when all are there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ray.data import Datasink
from ray.data.block import BlockAccessor

from sparselogits.codec_model import CodecModel
from sparselogits.distributed.finish import finish
from sparselogits.distributed.unit_rows import NO_UNIT, UnitRow
from sparselogits.distributed.unit_writer import write_unit
from sparselogits.distributed.units import UnitDirectory
from sparselogits.errors import CorruptionError, SparseLogitsError

#: The units of one task, each with the error that it ended with.
Written = list[tuple[int, SparseLogitsError | None]]


class UnitSink(Datasink[Written]):
    """A Ray Data sink for rows of `unit_rows.SCHEMA`. Every task may run any number of times.

    Args:
        path: The cache that is made.
        codec_model: What units are coded with, or None.
    """

    def __init__(self, path: str, codec_model: CodecModel | None) -> None:
        self._path = path
        self._codec_model = codec_model

    def write(self, blocks: Iterable[Any], ctx: Any) -> Written:
        """Writes each unit of some blocks."""
        units = UnitDirectory(self._path)
        return [
            (row.unit, self._written(units, row))
            for block in blocks
            for row in UnitRow.from_table(BlockAccessor.for_block(block).to_arrow())
        ]

    def on_write_complete(self, write_result: Any) -> None:
        """Finishes the cache.

        Raises:
            SparseLogitsError: That of the first unit that could not be made, or of finishing.
        """
        written = [pair for task in write_result.write_returns for pair in task]
        for _, error in sorted(written, key=lambda pair: pair[0]):
            if error is not None:
                raise error
        units = UnitDirectory(self._path)
        plan = units.read_plan()
        if plan is not None and not finish(units, plan, wait=True):
            missing = units.missing(plan)
            raise CorruptionError(f"units {missing[:4]} are gone", str(units.directory))

    def get_name(self) -> str:
        """What Ray calls the tasks."""
        return "Units"

    def _written(self, units: UnitDirectory, row: UnitRow) -> SparseLogitsError | None:
        if row.error is not None or row.unit == NO_UNIT:
            return row.error
        try:
            plan = units.read_plan()
            if plan is not None:  # else a worker without Ray has finished the cache
                write_unit(units, plan, row.unit, row.arrays, self._codec_model)
        except SparseLogitsError as error:
            return error
        return None
