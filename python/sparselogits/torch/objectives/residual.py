"""The mass that stored top tokens leave out, and where it can go."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.targets import SparseTargets

# Sums of float32 probabilities that are 1 come out that far from it.
_ROUNDING = 1e-4


def renormalised(targets: SparseTargets) -> SparseTargets:
    """Each row divided by its sum."""
    row, sums = _sums(targets)
    weights = targets.weights / sums[row]
    return SparseTargets.with_host_offsets(
        targets.offsets, targets.token_ids, weights, targets.vocab_size, targets.host_offsets
    )


def missing_mass(targets: SparseTargets) -> Tensor:
    """(R,) float32 1 - Σ w; 0 where it differs from 0 by rounding alone for certain: where the sum
    exceeds 1, or the row holds the whole vocabulary.

    Raises:
        InvalidArgumentError: A row sums to more than 1: it holds no probabilities. On a device,
            where looking would stall it, the missing mass of that row is NaN instead.
    """
    _, sums = _sums(targets)
    missing = 1 - sums
    impossible = missing < -_ROUNDING
    if is_host(targets.device) and bool(impossible.any()):
        row = int(impossible.nonzero()[0, 0])
        raise InvalidArgumentError(
            f"row {row} of targets sums to {float(sums[row])}; kept probabilities sum to 1 at most"
        )
    whole = targets.offsets.diff() == (targets.vocab_size or -1)
    missing = torch.where(whole, 0, missing.clamp(min=0))
    return torch.where(impossible, torch.nan, missing)


def give_to_labels(targets: SparseTargets, labels: Tensor) -> SparseTargets:
    """The missing mass of each row on its label; rows whose label is -100 are left empty.

    On a device it waits for the number of entries.

    Args:
        targets: R rows.
        labels: (B, S) or (R,).
    """
    if labels.numel() != targets.num_rows:
        raise InvalidArgumentError(
            f"labels has {labels.numel()} elements and targets has {targets.num_rows} rows"
        )
    missing, flat = missing_mass(targets), labels.reshape(-1).long()
    row, _ = _sums(targets)
    ids = targets.token_ids.long()
    known = (flat != IGNORED_LABEL) & (targets.offsets.diff() > 0)
    stays = known[row]
    added = known.nonzero().squeeze(1)
    rows = torch.cat([row[stays], added])
    ids = torch.cat([ids[stays], flat[added]])
    weights = torch.cat([targets.weights[stays], missing[added]])
    # A label that was kept too is one entry: entries are counted by (row, id).
    width = 1 + (int(ids.max()) if len(ids) else 0)
    keys, entry = torch.unique(rows * width + ids, return_inverse=True)
    merged = weights.new_zeros(len(keys)).index_add_(0, entry, weights)
    offsets = torch.zeros_like(targets.offsets)
    lengths = torch.bincount(keys // width, minlength=targets.num_rows)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return SparseTargets(offsets, keys % width, merged, targets.vocab_size)


def _sums(targets: SparseTargets) -> tuple[Tensor, Tensor]:
    """(E,) the row of each entry, and (R,) the sum of each row."""
    row = torch.repeat_interleave(targets.offsets.diff(), output_size=targets.num_entries)
    return row, targets.weights.new_zeros(targets.num_rows).index_add_(0, row, targets.weights)
