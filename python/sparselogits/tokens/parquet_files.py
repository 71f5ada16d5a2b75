"""Parquet files, one after the other, a row a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sparselogits.durable import io_error
from sparselogits.errors import CorruptionError, InvalidArgumentError
from sparselogits.tokens.arrow_column import (
    choose_column,
    column_batch,
    is_text,
    require_pyarrow,
)
from sparselogits.tokens.rows import BATCH_ROWS, RowBatch


class ParquetFiles:
    """A column of Parquet files. A `RowReader`.

    Args:
        paths: The files; all have the column, with the same kind of content.
        name: The source in a few words.
        column: Default: "input_ids" or "text", whichever there is.

    Raises:
        InvalidArgumentError: pyarrow is missing; there is no such column, or it is neither text
            nor lists of integers.
        CorruptionError: A file is no Parquet, or damaged; a row is null (while reading).
        CacheIOError: A file cannot be read.
    """

    def __init__(self, paths: Sequence[Path], name: str, column: str | None) -> None:
        require_pyarrow()
        self.name = name
        self._paths = paths
        self.size = 0
        kinds = []
        for path in paths:
            with _open(path) as file:
                column = choose_column(str(path), file.schema_arrow.names, column)
                kinds.append(is_text(str(path), column, file.schema_arrow.field(column).type))
                self.size += file.metadata.num_rows
            if kinds[-1] != kinds[0]:
                raise InvalidArgumentError(
                    f"{path}: column {column!r} is {'text' if kinds[-1] else 'lists of ids'}, but "
                    f"not in {paths[0]}"
                )
        assert column is not None, "REQUIRES: at least one file"
        self._column = column
        self.label = f"Parquet {Path(name).name}, column {column}"
        self.holds_text = kinds[0]

    def batches(self) -> Iterator[RowBatch]:
        """Up to 512 rows each."""
        done = 0
        for path in self._paths:
            row = 0
            with _open(path) as file:
                for table in _batches(file, path, self._column):
                    done += table.num_rows
                    yield column_batch(table.column(0), str(path), self._column, row, done)
                    row += table.num_rows


def _open(path: Path) -> Any:
    with _refusals(path, "is no whole Parquet file"):
        return import_module("pyarrow.parquet").ParquetFile(path, memory_map=True)


def _batches(file: Any, path: Path, column: str) -> Iterator[Any]:
    with _refusals(path, "is damaged", column):
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=[column])


@contextmanager
def _refusals(path: Path, complaint: str, column: str | None = None) -> Iterator[None]:
    """Whatever pyarrow raises becomes an error that names the file."""
    try:
        yield
    except (import_module("pyarrow").ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise io_error(error, "cannot read", path) from error
        raise CorruptionError(f"{complaint}: {error}", str(path), None, column) from error
