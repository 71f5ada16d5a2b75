"""Batch: rows of tokens with their labels and the teacher's distributions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparselogits.torch.documents import Documents, row_lengths
from sparselogits.torch.targets import SparseTargets

IGNORED_LABEL = -100
"""What `F.cross_entropy` skips."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B rows of tokens, padded on the right to the S tokens of the longest.

    Everything is aligned with the student's logits: row (b, t) of `labels` and of `targets` speaks
    about token t + 1, so that nothing has to be shifted.

    Attributes:
        input_ids: (B, S) int64.
        labels: (B, S) int64: token t + 1 of the same sequence; -100 where the cache has none, which
            is at the end of each sequence, and in the padding.
        targets: B·S rows, row-major; rows of padding are empty.
        sequence_ids: (B,) uint64 NumPy array, the name in the cache of each row's (first) sequence.
            It stays in host memory.
        lengths: (B,) int64 NumPy array: positions of each row before its padding. Stays in host
            memory too.
        documents: Where rows hold several sequences, else None.
    """

    input_ids: Tensor
    labels: Tensor
    targets: SparseTargets
    sequence_ids: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int64]
    documents: Documents | None = None

    @property
    def position_ids(self) -> Tensor | None:
        """(B, S) int64, from 0 in each document; None where every row is one document."""
        return None if self.documents is None else self.documents.position_ids

    def with_documents(self) -> Batch:
        """The same batch, with `documents` where every row is one, too."""
        if self.documents is not None:
            return self
        each = np.arange(len(self.lengths) + 1)
        documents = Documents.of_pieces(self.lengths, each, self.input_ids.shape[1])
        return replace(self, documents=documents)

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """The same batch on `device`. `non_blocking` needs pinned memory to have an effect."""
        return Batch(
            self.input_ids.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
            self.sequence_ids,
            self.lengths,
            None if self.documents is None else self.documents.to(device, non_blocking),
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked host memory; `DataLoader(pin_memory=True)` calls this."""
        return Batch(
            self.input_ids.pin_memory(),
            self.labels.pin_memory(),
            self.targets.pin_memory(),
            self.sequence_ids,
            self.lengths,
            None if self.documents is None else self.documents.pin_memory(),
        )


def batch_from_arrays(
    input_ids: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    token_ids: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    *,
    vocab_size: int | None,
    sequence_ids: npt.NDArray[np.uint64],
    piece_lengths: npt.NDArray[np.int64],
    row_offsets: npt.NDArray[np.int64],
) -> Batch:
    """A batch around arrays that the core has made and so validated, without a copy.

    Args:
        input_ids, labels: (B, S). offsets: (B·S + 1,). token_ids, weights: (E,).
        vocab_size: Of the caches.
        sequence_ids, piece_lengths: (N,), of the pieces.
        row_offsets: (B + 1,): the pieces of row b are `row_offsets[b]` to `row_offsets[b + 1]`.
    """
    targets = SparseTargets._of_checked(
        torch.from_numpy(offsets),
        torch.from_numpy(token_ids),
        torch.from_numpy(weights),
        vocab_size,
    )
    documents = None
    if len(piece_lengths) > len(input_ids):
        documents = Documents.of_pieces(piece_lengths, row_offsets, input_ids.shape[1])
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(labels),
        targets,
        sequence_ids[row_offsets[:-1]],
        row_lengths(piece_lengths, row_offsets),
        documents,
    )
