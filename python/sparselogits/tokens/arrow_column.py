"""A column of an Arrow table as documents: text, or lists of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from sparselogits.errors import CorruptionError, InvalidArgumentError
from sparselogits.tokens.rows import RowBatch

_DEFAULT_COLUMNS = ("input_ids", "text")


def require_pyarrow() -> None:
    """Refuses where pyarrow is missing.

    Raises:
        InvalidArgumentError: It is not installed.
    """
    try:
        import_module("pyarrow")
    except ImportError as error:
        raise InvalidArgumentError(
            "Parquet files and datasets need pyarrow: pip install 'sparselogits[tokens]'"
        ) from error


def choose_column(source: str, columns: Sequence[str], column: str | None) -> str:
    """The column to read: the one asked for, else "input_ids" or "text".

    Raises:
        InvalidArgumentError: There is none, or both; the message lists the columns.
    """
    if column is not None:
        if column not in columns:
            raise InvalidArgumentError(
                f"{source}: has no column {column!r}; columns: {', '.join(columns)}"
            )
        return column
    found = [name for name in _DEFAULT_COLUMNS if name in columns]
    if len(found) != 1:
        what = "both columns" if found else "no column"
        raise InvalidArgumentError(
            f"{source}: has {what} 'input_ids' and 'text': say which with column; columns: "
            f"{', '.join(columns)}"
        )
    return found[0]


def is_text(source: str, column: str, kind: Any) -> bool:
    """Whether a column's Arrow type is text (True) or lists of integers (False).

    Raises:
        InvalidArgumentError: It is neither.
    """
    types = import_module("pyarrow.types")
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return True
    if _is_list(kind) and types.is_integer(kind.value_type):
        return False
    raise InvalidArgumentError(
        f"{source}: column {column!r} must hold text or lists of integers, got {kind}"
    )


def column_batch(array: Any, source: str, column: str, first_row: int, done: int) -> RowBatch:
    """The rows of an Arrow array, or of a chunked one.

    Raises:
        CorruptionError: A row, or an id in it, is null; the message names the row.
    """
    if hasattr(array, "combine_chunks"):
        array = array.combine_chunks()
    if array.null_count:
        row = first_row + int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise CorruptionError(f"row {row} is null", source, None, column)
    if hasattr(array, "dictionary_decode"):
        array = array.dictionary_decode()
    rows = range(first_row, first_row + len(array))
    if not _is_list(array.type):
        return RowBatch(source, rows, "row", done, texts=array.to_pylist())
    values = array.flatten()
    compute = import_module("pyarrow.compute")
    lengths = np.asarray(compute.list_value_length(array)).astype(np.int64)
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        where = int(np.flatnonzero(nulls)[0])
        row = first_row + int(np.searchsorted(np.cumsum(lengths), where, "right"))
        raise CorruptionError(f"row {row} holds a null id", source, None, column)
    return RowBatch(source, rows, "row", done, ids=np.asarray(values), lengths=lengths)


def _is_list(kind: Any) -> bool:
    types = import_module("pyarrow.types")
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
