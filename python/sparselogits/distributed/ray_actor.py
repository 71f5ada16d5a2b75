"""`TeacherActor`: the process of a Ray cluster that holds the teacher and makes units."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sparselogits.distributed.capture_facts import make_plan, unit_options
from sparselogits.distributed.finish import begin
from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.unit_rows import NO_UNIT, UnitRow
from sparselogits.distributed.units import UnitDirectory
from sparselogits.distributed.window_parts import WindowParts
from sparselogits.errors import SparseLogitsError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class RayCapture:
    """What every actor is told; the arguments of `capture_with_ray`, checked and picklable."""

    teacher: str | os.PathLike[str] | Callable[[], nn.Module]
    windows: Any
    path: str
    unit_windows: int
    on_gpu: bool
    sequence_ids: Any
    targets_mask: Any
    options: dict[str, Any]

    def make_teacher(self) -> nn.Module:
        if callable(self.teacher):
            return self.teacher()
        from transformers import AutoModelForCausalLM

        loaded: Any = AutoModelForCausalLM.from_pretrained(self.teacher, dtype="auto")
        return loaded.eval().to("cuda" if self.on_gpu else "cpu")  # type: ignore[no-any-return]


class TeacherActor:
    """Maps numbers of units to their draws. The teacher is made for the first of them.

    Args:
        capture: What to do.
    """

    def __init__(self, capture: RayCapture) -> None:
        self._capture = capture
        self._ready: _Ready | None = None

    def __call__(self, units: pa.Table) -> pa.Table:
        """(n,) `unit` → n rows of `unit_rows.SCHEMA`."""
        return pa.concat_tables(
            self._row(unit).to_table() for unit in units.column("unit").to_pylist()
        )

    def _row(self, unit: int) -> UnitRow:
        try:
            if self._ready is None:
                self._ready = _Ready(self._capture)
            return self._ready.row(unit)
        except SparseLogitsError as error:  # Ray would keep the message, but not the type
            return UnitRow(unit, {}, error)


class _Ready:
    """A teacher that belongs to the capture under way."""

    def __init__(self, capture: RayCapture) -> None:
        self._options = capture.options
        self._parts = WindowParts(capture.windows, capture.sequence_ids, capture.targets_mask)
        self._teacher = capture.make_teacher()
        self._units = UnitDirectory(capture.path)
        self._plan: UnitPlan = make_plan(
            self._teacher, self._parts, capture.unit_windows, capture.options
        )
        begin(self._units, self._plan, self._parts)

    def row(self, unit: int) -> UnitRow:
        from sparselogits.capture.run import capture

        if unit == NO_UNIT:
            return UnitRow(unit, {})
        windows = self._plan.windows_of(unit)
        arguments = {**unit_options(self._options), **self._parts.arguments(windows)}
        with tempfile.TemporaryDirectory(prefix="sparselogits-") as scratch:
            cache = capture(self._teacher, path=Path(scratch) / "unit", **arguments)
            return UnitRow.of(unit, cache, self._parts.tokens(windows))
