"""Documents: several texts in one row of a batch, and what attention needs to part them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PADDING_DOCUMENT = -1
"""The document id of padding."""


@dataclass(frozen=True, eq=False)
class Documents:
    """The documents of a batch of B rows and S columns; padding counts as one more in its row.

    Attributes:
        position_ids: (B, S) int64: from 0 in each document. Hugging Face models with `sdpa`,
            `eager` or `flex_attention` keep documents apart by these alone if they are called
            with `use_cache=False` and without an attention mask.
        document_ids: (B, S) int32: 0, 1, … in each row, -1 in its padding. Two positions of a row
            may attend to each other where these agree.
        cu_seqlens: (D + 1,) int32: where documents begin in the B·S positions end to end, and their
            end, as variable-length attention kernels take it.
        max_seqlen: Positions of the longest document.
    """

    position_ids: Tensor
    document_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int

    @classmethod
    def of_pieces(
        cls,
        piece_lengths: npt.NDArray[np.int64],
        row_offsets: npt.NDArray[np.int64],
        width: int,
    ) -> Documents:
        """Every piece is a document.

        Args:
            piece_lengths: (N,) positions.
            row_offsets: (B + 1,): the pieces of row b are `row_offsets[b]` to `row_offsets[b + 1]`.
            width: S, at least the positions of any row.
        """
        rows = len(row_offsets) - 1
        counts = np.diff(row_offsets)
        numbers = np.arange(len(piece_lengths)) - np.repeat(row_offsets[:-1], counts)
        padding = width - row_lengths(piece_lengths, row_offsets)
        lengths = np.insert(piece_lengths, row_offsets[1:], padding)
        numbers = np.insert(numbers, row_offsets[1:], PADDING_DOCUMENT)
        numbers, lengths = numbers[lengths > 0], lengths[lengths > 0]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(rows * width) - np.repeat(bounds[:-1], lengths)
        ids = np.repeat(numbers.astype(np.int32), lengths)
        return cls(
            torch.from_numpy(positions.reshape(rows, width)),
            torch.from_numpy(ids.reshape(rows, width)),
            torch.from_numpy(bounds.astype(np.int32)),
            int(lengths.max(initial=0)),
        )

    @property
    def flash_attention_kwargs(self) -> dict[str, Any]:
        """What Hugging Face models with `flash_attention_2` need beside `position_ids`."""
        return {
            "cu_seq_lens_q": self.cu_seqlens,
            "cu_seq_lens_k": self.cu_seqlens,
            "max_length_q": self.max_seqlen,
            "max_length_k": self.max_seqlen,
        }

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Documents:
        """The same on `device`."""
        return Documents(
            self.position_ids.to(device, non_blocking=non_blocking),
            self.document_ids.to(device, non_blocking=non_blocking),
            self.cu_seqlens.to(device, non_blocking=non_blocking),
            self.max_seqlen,
        )

    def pin_memory(self) -> Documents:
        """The same in page-locked host memory."""
        return Documents(
            self.position_ids.pin_memory(),
            self.document_ids.pin_memory(),
            self.cu_seqlens.pin_memory(),
            self.max_seqlen,
        )


def row_lengths(
    piece_lengths: npt.NDArray[np.int64], row_offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(B,) int64: the positions of each row, of which none is without a piece."""
    if len(piece_lengths) == len(row_offsets) - 1:
        return piece_lengths
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(piece_lengths)])
    lengths: npt.NDArray[np.int64] = np.diff(ends[row_offsets])
    return lengths
