"""Batches taken apart into rows and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import torch

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch import IGNORED_LABEL, Batch
from sparselogits.torch.documents import Documents
from sparselogits.torch.targets import SparseTargets


class BatchRows(Sequence[Batch]):
    """The rows of a batch as batches of one row each, without their padding; made when asked for.

    Attributes:
        batch: The whole.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.lengths)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"the batch has {len(self)} rows, there is no row {index}")
        return _row(self.batch, index % len(self))


def stack_rows(rows: Sequence[Batch], pad_token_id: int) -> Batch:
    """One batch of several of one row each, as `BatchRows` gives them.

    Args:
        rows: At least one.
        pad_token_id: Fills `input_ids` behind rows that are shorter than the longest.

    Raises:
        InvalidArgumentError: There is no row, a batch has another number of rows than one, or
            vocabularies differ.
    """
    if not rows or any(len(row.lengths) != 1 for row in rows):
        counts = [len(row.lengths) for row in rows]
        raise InvalidArgumentError(f"rows must be batches of one row each, got {counts} rows")
    vocabularies = {row.targets.vocab_size for row in rows}
    if len(vocabularies) > 1:
        raise InvalidArgumentError(f"rows have the vocabularies {sorted(map(str, vocabularies))}")
    lengths = np.concatenate([row.lengths for row in rows])
    shape = (len(rows), int(lengths.max(initial=0)))
    input_ids = torch.full(shape, pad_token_id)
    labels = torch.full(shape, IGNORED_LABEL)
    entries = torch.zeros(shape, dtype=torch.int64)
    for place, (row, length) in enumerate(zip(rows, lengths.tolist(), strict=True)):
        input_ids[place, :length] = row.input_ids[0]
        labels[place, :length] = row.labels[0]
        entries[place, :length] = row.targets.offsets.diff()
    offsets = torch.zeros(entries.numel() + 1, dtype=torch.int64)
    torch.cumsum(entries.flatten(), 0, out=offsets[1:])
    targets = SparseTargets(
        offsets,
        torch.cat([row.targets.token_ids for row in rows]),
        torch.cat([row.targets.weights for row in rows]),
        rows[0].targets.vocab_size,
    )
    names = np.concatenate([row.sequence_ids for row in rows])
    return Batch(input_ids, labels, targets, names, lengths, _documents(rows, shape[1]))


def _row(batch: Batch, row: int) -> Batch:
    width, length = batch.input_ids.shape[1], int(batch.lengths[row])
    offsets = batch.targets.offsets[row * width : row * width + length + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    targets = SparseTargets(
        offsets - first,
        batch.targets.token_ids[first:last],
        batch.targets.weights[first:last],
        batch.targets.vocab_size,
    )
    documents = None
    if batch.documents is not None:
        ids = batch.documents.document_ids[row, :length].numpy()
        pieces = np.bincount(ids).astype(np.int64)
        documents = Documents.of_pieces(pieces, np.array([0, len(pieces)]), length)
    return Batch(
        batch.input_ids[row : row + 1, :length],
        batch.labels[row : row + 1, :length],
        targets,
        batch.sequence_ids[row : row + 1],
        batch.lengths[row : row + 1],
        documents,
    )


def _documents(rows: Sequence[Batch], width: int) -> Documents | None:
    if all(row.documents is None for row in rows):
        return None
    pieces: list[npt.NDArray[np.int64]] = [
        row.lengths
        if row.documents is None
        else row.documents.cu_seqlens.diff().numpy().astype(np.int64)
        for row in rows
    ]
    row_offsets = np.concatenate([[0], np.cumsum([len(lengths) for lengths in pieces])])
    return Documents.of_pieces(np.concatenate(pieces), row_offsets, width)
