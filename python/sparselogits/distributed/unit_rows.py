"""A unit as one row of a table: how its draws travel between the processes of Ray Data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sparselogits.distributed.error_text import error_of, error_text
from sparselogits.errors import SparseLogitsError
from sparselogits.reader import Cache

#: The unit of a row that only says that the facts agree.
NO_UNIT = -1

#: Columns of `UnitRow.to_table`, CSR as `CacheWriter.append_many` takes them.
SCHEMA = pa.schema(
    [
        ("unit", pa.int64()),
        ("sequence_ids", pa.large_list(pa.uint64())),
        ("sequence_offsets", pa.large_list(pa.int64())),
        ("input_ids", pa.large_list(pa.int32())),
        ("offsets", pa.large_list(pa.int64())),
        ("token_ids", pa.large_list(pa.int32())),
        ("counts", pa.large_list(pa.uint16())),
        ("weights", pa.large_list(pa.float32())),
        ("error", pa.large_string()),
    ]
)
_ARRAYS = [field.name for field in SCHEMA if pa.types.is_large_list(field.type)]


@dataclass(frozen=True)
class UnitRow:
    """What an actor made of a unit.

    Attributes:
        unit: Its number, or `NO_UNIT`.
        arrays: Arguments of `CacheWriter.append_many`; `counts` or `weights` is missing. Empty
            where there is an error, or no unit.
        error: Why it could not be made.
    """

    unit: int
    arrays: dict[str, npt.NDArray[Any]]
    error: SparseLogitsError | None = None

    @staticmethod
    def of(unit: int, cache: Cache, tokens: list[npt.NDArray[Any]]) -> UnitRow:
        """The row of a unit that was captured into a cache, whose windows have these tokens."""
        sparse = cache.read_sequences(np.arange(len(cache)))
        assert sparse.sequence_offsets is not None
        arrays: dict[str, npt.NDArray[Any]] = {
            "sequence_ids": cache.sequence_ids,
            "sequence_offsets": sparse.sequence_offsets,
            "input_ids": np.concatenate(tokens).astype(np.int32),
            "offsets": sparse.offsets,
            "token_ids": sparse.token_ids,
        }
        if sparse.counts is None:
            arrays["weights"] = sparse.weights
        else:
            arrays["counts"] = sparse.counts
        return UnitRow(unit, arrays)

    def to_table(self) -> pa.Table:
        """One row; arrays that are missing are null."""
        columns: dict[str, list[Any]] = {name: [self.arrays.get(name)] for name in _ARRAYS}
        columns["unit"] = [self.unit]
        columns["error"] = [None if self.error is None else error_text(self.error)]
        return pa.table(
            [pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA
        )

    @staticmethod
    def from_table(table: pa.Table) -> list[UnitRow]:
        """The rows of a table that processes of the same job made."""
        rows = []
        for index in range(table.num_rows):
            scalars = {name: table.column(name)[index] for name in (*_ARRAYS, "unit", "error")}
            error = scalars["error"].as_py()
            rows.append(
                UnitRow(
                    scalars["unit"].as_py(),
                    {
                        name: scalars[name].values.to_numpy(zero_copy_only=False)
                        for name in _ARRAYS
                        if scalars[name].is_valid
                    },
                    None if error is None else error_of(error),
                )
            )
        return rows
