"""The arithmetic that both losses share: rows of logits against sparse targets.

For a row z of logits, z' = z / T, entries (k, w_k), W = Σ w_k and p = softmax(z'):

    L = c · Σ_k w_k (lse(z') - z'_k)          dL/dz_j = (c / T) · (W p_j - w_j)

with c = T² where that is asked for, else 1. Everything here is computed in float32 (float64 for
float64 logits), and only the finished gradient is rounded to the dtype of the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch.targets import SparseTargets

# float32 scratch of one softmax block. Small enough to save trips to memory in the caches of a
# CPU, large enough that its threads seldom wait for each other, and to hide a device's launches.
_CPU_BLOCK_BYTES = 12 << 20
_DEVICE_BLOCK_BYTES = 128 << 20


@dataclass(frozen=True)
class Rows:
    """Targets unfolded to one row number per entry; R rows, E entries, C the compute dtype.

    Attributes:
        row: (E,) int64. token_id: (E,) int64. weight: (E,) C.
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


def unfold(targets: SparseTargets, mask: Tensor | None, dtype: torch.dtype) -> Rows:
    """Rows of `targets`; a row is kept where it has entries and the flat (R,) `mask` is true."""
    lengths = targets.offsets.diff()
    keep = lengths > 0
    if mask is not None:
        keep = keep & mask
    row = torch.repeat_interleave(lengths, output_size=targets.num_entries)
    weight = targets.weights.to(dtype)
    total = weight.new_zeros(targets.num_rows).index_add_(0, row, weight)
    return Rows(row, targets.token_ids.long(), weight, total, keep, targets.host_offsets)


def loss_and_gradient(
    logits: Tensor,
    rows: Rows,
    temperature: float,
    loss_scale: float,
    gradient_scale: Tensor,
    out: Tensor | None,
) -> Tensor:
    """Losses of R rows, and their gradient in the same pass.

    Args:
        logits: (R, V).
        rows: The targets of these R rows.
        temperature: T above.
        loss_scale: c above.
        gradient_scale: 0-dimensional, in the compute dtype: what multiplies W p - w.
        out: (R, V) in the dtype of the logits, receives the gradient; it may be `logits` itself.
            None computes the losses only.

    Returns:
        (R,) losses in the compute dtype, 0 in rows that are not kept.
    """
    at_target = logits[rows.row, rows.token_id].to(rows.weight.dtype) / temperature
    scale = torch.where(rows.keep, gradient_scale, 0)
    lse = _softmax_pass(logits, rows.keep, temperature, scale * rows.total, out)
    surprise = lse[rows.row] - at_target
    losses = torch.zeros_like(rows.total).index_add_(0, rows.row, rows.weight * surprise)
    if out is not None:
        # Where p and w nearly cancel, their difference has to be taken before the rounding to the
        # dtype of the logits. Ids are unique in a row, so every element is stored once.
        difference = rows.total[rows.row] * torch.exp(-surprise) - rows.weight
        entries = torch.where(rows.keep[rows.row], scale[rows.row] * difference, 0)
        out.index_put_((rows.row, rows.token_id), entries.to(out.dtype))
    return torch.where(rows.keep, losses * loss_scale, 0)


def _softmax_pass(
    logits: Tensor, keep: Tensor, temperature: float, coefficient: Tensor, out: Tensor | None
) -> Tensor:
    """Writes coefficient · softmax(logits / T) to `out`, block by block; returns the lse, (R,)."""
    on_cpu = logits.device.type == "cpu"
    dtype = coefficient.dtype
    num_rows, width = logits.shape
    block_bytes = _CPU_BLOCK_BYTES if on_cpu else _DEVICE_BLOCK_BYTES
    block = max(1, min(num_rows, block_bytes // (width * dtype.itemsize)))
    scratch = torch.empty((block, width), dtype=dtype, device=logits.device)
    lse = torch.zeros_like(coefficient)
    for start in range(0, num_rows, block):
        part = slice(start, min(start + block, num_rows))
        kept = keep[part]
        if on_cpu and not bool(kept.any()):
            if out is not None:
                out[part].zero_()
            continue
        z = logits[part].to(dtype)
        if temperature != 1.0:
            z = z / temperature
        p = scratch[: z.shape[0]]
        torch.softmax(z, dim=-1, out=p)
        # Torch's softmax adds up its denominator naively: at V = 151,936 the rows sum to 1 within
        # 1e-5 only, a common factor that this pairwise sum takes out again.
        sums = p.sum(-1)
        # log p = z - lse at the largest logit, where p is at least 1/V and so exact enough.
        lse[part] = z.amax(-1) - (p.amax(-1) / sums).log()
        if out is not None:
            torch.mul(p, (coefficient[part] / sums)[:, None], out=out[part])
            _clear_ignored(out[part], kept, on_cpu)
    return lse


def _clear_ignored(gradient: Tensor, keep: Tensor, on_cpu: bool) -> None:
    # 0 · NaN is NaN: a padded row may hold anything, and must still count for nothing.
    if on_cpu:
        ignored = (~keep).nonzero().squeeze(1)
        if ignored.numel():
            gradient.index_fill_(0, ignored, 0)
    else:
        gradient.masked_fill_(~keep[:, None], 0)
