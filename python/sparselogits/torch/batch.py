"""Batch: a few token windows with their labels and the teacher's distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparselogits.torch.targets import SparseTargets

IGNORED_LABEL = -100
"""What `F.cross_entropy` skips."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows, padded on the right to the S tokens of the longest.

    Everything is aligned with the student's logits: row (b, t) of `labels` and of `targets` speaks
    about token t + 1, so that nothing has to be shifted.

    Attributes:
        input_ids: (B, S) int64.
        labels: (B, S) int64: `labels[:, t]` is token t + 1; -100 in the last column of a window and
            in its padding.
        targets: B·S rows, row-major; rows of padding are empty.
        sequence_ids: (B,) uint64 NumPy array, the windows' names in the cache. It stays in host
            memory.
    """

    input_ids: Tensor
    labels: Tensor
    targets: SparseTargets
    sequence_ids: npt.NDArray[np.uint64]

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """The same batch on `device`. `non_blocking` needs pinned memory to have an effect."""
        return Batch(
            self.input_ids.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
            self.sequence_ids,
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked host memory; `DataLoader(pin_memory=True)` calls this."""
        return Batch(
            self.input_ids.pin_memory(),
            self.labels.pin_memory(),
            self.targets.pin_memory(),
            self.sequence_ids,
        )


def pad_batch(
    input_ids: npt.NDArray[np.integer],
    lengths: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    token_ids: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    *,
    vocab_size: int | None,
    sequence_ids: npt.NDArray[np.uint64],
    pad_token_id: int,
) -> Batch:
    """A batch of windows that lie end to end, P = Σ lengths positions in all.

    Args:
        input_ids: (P,). lengths: (B,). offsets: (P + 1,). token_ids, weights: (E,).
        vocab_size: Of the cache.
        sequence_ids: (B,).
        pad_token_id: Fills `input_ids` behind windows shorter than the longest.
    """
    num_windows, width = len(lengths), int(lengths.max(initial=0))
    shape = (num_windows, width)
    if bool((lengths == width).all()):
        ids = np.ascontiguousarray(input_ids, dtype=np.int64).reshape(shape)
        labels = np.empty(shape, np.int64)
        labels[:, :-1] = ids[:, 1:]
        labels[:, -1:] = IGNORED_LABEL
    else:
        real = np.arange(width) < lengths[:, None]
        ids = np.full(shape, pad_token_id, np.int64)
        ids[real] = input_ids
        labels = np.full(shape, IGNORED_LABEL, np.int64)
        has_next = np.arange(1, width + 1) < lengths[:, None]
        labels[:, :-1][has_next[:, :-1]] = ids[:, 1:][has_next[:, :-1]]
        entries = np.zeros(shape, np.int64)
        entries[real] = np.diff(offsets)
        offsets = np.zeros(num_windows * width + 1, np.int64)
        np.cumsum(entries, out=offsets[1:])
    targets = SparseTargets(
        torch.from_numpy(offsets),
        torch.from_numpy(token_ids),
        torch.from_numpy(weights),
        vocab_size,
    )
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels), targets, sequence_ids)


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
    first = sequence_ids[row_offsets[:-1]]
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels), targets, first)
