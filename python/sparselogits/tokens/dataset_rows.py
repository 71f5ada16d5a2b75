"""Hugging Face `datasets` objects, a row a document. Only their interface is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparselogits.errors import InvalidArgumentError
from sparselogits.tokens.arrow_column import (
    choose_column,
    column_batch,
    is_text,
    require_pyarrow,
)
from sparselogits.tokens.rows import BATCH_ROWS, RowBatch


def is_dataset(source: Any) -> bool:
    """Whether it looks like what `datasets.load_dataset` gives, of any kind."""
    return hasattr(source, "with_format") and hasattr(source, "column_names")


class DatasetRows:
    """A column of a `datasets.Dataset`. A `RowReader`.

    Args:
        dataset: Has `column_names`, `len`, `with_format("arrow")` and slices.
        column: Default: "input_ids" or "text", whichever there is.

    Raises:
        InvalidArgumentError: pyarrow is missing; it is a dict of splits or a stream; there is no
            such column, or it is neither text nor lists of integers.
        CorruptionError: A row is null (while reading).
    """

    def __init__(self, dataset: Any, column: str | None) -> None:
        require_pyarrow()
        self.name = "a dataset"
        if isinstance(dataset, Mapping):
            raise InvalidArgumentError(
                f"a dataset of splits: choose one of {', '.join(map(repr, dataset))}"
            )
        if not hasattr(dataset, "__len__"):
            raise InvalidArgumentError(
                f"a {type(dataset).__name__} has no length: load the dataset without streaming"
            )
        self.size = len(dataset)
        self._column = choose_column(self.name, dataset.column_names, column)
        self.label = f"datasets.Dataset, column {self._column}"
        self._dataset = dataset.with_format("arrow")
        kind = self._dataset[:0].schema.field(self._column).type
        self.holds_text = is_text(self.name, self._column, kind)

    def batches(self) -> Iterator[RowBatch]:
        """512 rows each."""
        for start in range(0, self.size, BATCH_ROWS):
            stop = min(start + BATCH_ROWS, self.size)
            column = self._dataset[start:stop].column(self._column)
            yield column_batch(column, self.name, self._column, start, stop)
