"""Targets unfolded to one row number per entry, as the losses' arithmetic takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch.label_mixing import Entries, mix_labels
from sparselogits.torch.targets import SparseTargets


@dataclass(frozen=True)
class Rows:
    """Targets unfolded to one row number per entry; R rows, E entries, C the compute dtype.

    Attributes:
        row: (E,) int64, ascending. token_id: (E,) int64, unique within a row. weight: (E,) C; an
            entry of weight 0 adds nothing to the loss, whatever its logit.
        total: (R,) C, the sum of the weights of each row.
        keep: (R,) bool, false where the row counts for nothing.
        bounds: (R + 1,) int64 in host memory, the entries of each row.
    """

    row: Tensor
    token_id: Tensor
    weight: Tensor
    total: Tensor
    keep: Tensor
    bounds: Tensor

    def narrow(self, start: int, stop: int) -> Rows:
        """The rows start:stop alone, numbered from 0; no wait for the device."""
        entries = slice(int(self.bounds[start]), int(self.bounds[stop]))
        return Rows(
            self.row[entries] - start,
            self.token_id[entries],
            self.weight[entries],
            self.total[start:stop],
            self.keep[start:stop],
            self.bounds[start : stop + 1] - self.bounds[start],
        )

    def select(self, index: Tensor) -> Rows:
        """The rows `index` (ascending) alone, renumbered. Host memory only: it waits."""
        lengths = self.bounds.diff()
        chosen = torch.zeros_like(self.keep).index_fill_(0, index, True)
        entries = chosen[self.row]
        new_number = chosen.cumsum(0) - 1
        return Rows(
            new_number[self.row[entries]],
            self.token_id[entries],
            self.weight[entries],
            self.total[index],
            self.keep[index],
            torch.cat([lengths.new_zeros(1), lengths[index].cumsum(0)]),
        )


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that logits of `dtype` are reduced in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unfold(
    targets: SparseTargets,
    mask: Tensor | None,
    dtype: torch.dtype,
    *,
    width: int | None = None,
    labels: Tensor | None = None,
    alpha: float = 0.0,
    position_weights: Tensor | None = None,
) -> Rows:
    """Rows of `targets`; a row is kept where it has entries and the flat (R,) `mask` is true.

    Args:
        targets: R rows.
        mask: (R,) bool or None.
        dtype: The compute dtype.
        width: Columns of the logits; needed with labels.
        labels: (R,) ids or -100; mixed in with factor alpha (see `label_mixing`).
        alpha: 0 leaves the labels out.
        position_weights: (R,); multiply the weights of a row.
    """
    lengths = targets.offsets.diff()
    entries = Entries(
        torch.repeat_interleave(lengths, output_size=targets.num_entries),
        targets.token_ids.long(),
        targets.weights.to(dtype),
        targets.offsets,
        targets.host_offsets,
        lengths > 0,
    )
    if labels is not None and alpha > 0:
        assert width is not None
        entries = mix_labels(entries, labels, alpha, width)
    weight = entries.weight
    if position_weights is not None:
        weight = weight * position_weights.to(dtype)[entries.row]
    total = weight.new_zeros(targets.num_rows).index_add_(0, entries.row, weight)
    keep = entries.occupied if mask is None else entries.occupied & mask
    return Rows(entries.row, entries.token_id, weight, total, keep, entries.bounds)
