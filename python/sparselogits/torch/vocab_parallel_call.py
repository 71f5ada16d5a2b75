"""What the vocab-parallel losses check, together with the other ranks, before they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sparselogits import checks
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_VOCAB_SIZE
from sparselogits.torch.losses import check_targets
from sparselogits.torch.reduction import Scaling
from sparselogits.torch.row_shard import ShardedColumns
from sparselogits.torch.rows import Rows
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.vocab_shards import Shard, agree, digest

_ODD = 0x1E3779B97F4A7C15  # spreads a position over the bits of an int64


@dataclass(frozen=True)
class LocalPart:
    """A rank's part of a call whose arguments are right by themselves.

    Attributes:
        tensor: (R, columns) logits, or (R, H) hidden states.
        name: Of the argument that this is.
        columns: How many columns of the vocabulary this rank has.
        rows: The targets unfolded; their ids are those of the whole vocabulary.
        scaling: Every factor on the loss.
        options: Whatever else has to be the same on all ranks.
    """

    tensor: Tensor
    name: str
    columns: int
    rows: Rows
    scaling: Scaling
    options: tuple[object, ...]


def enter(
    prepare: Callable[[], LocalPart],
    targets: SparseTargets,
    vocab_start: int,
    device: torch.device,
    group: dist.ProcessGroup | None,
    check_shards: bool,
) -> tuple[LocalPart, ShardedColumns, int]:
    """Prepares this rank's part, and refuses the call on every rank where one has to.

    Args:
        prepare: Checks the arguments of this rank.
        targets: Of whole rows.
        vocab_start: Token id of the first column of this rank.
        device: Of the tensors.
        group: The process group; None: the default one.
        check_shards: False leaves out the collective that compares the ranks.

    Returns:
        This rank's part, who has which columns, and the columns of all ranks together: 0 where
        they were not asked.

    Raises:
        InvalidArgumentError: Here, or on every rank, an argument is wrong or differs.
        VocabularyMismatchError: On every rank: the shards end before the cache's vocabulary.
    """
    if not check_shards:
        part = prepare()
        return part, ShardedColumns(vocab_start, group), 0
    shard: Shard | InvalidArgumentError
    try:
        part = prepare()
        shard = _shard_of(part, targets, vocab_start)
    except InvalidArgumentError as error:
        shard = error
    shards = agree(shard, device, group, "the options", "targets and mask")
    check_targets(targets, part.tensor, part.name, shards.grid.vocab_size)
    return part, ShardedColumns(vocab_start, group), shards.grid.vocab_size


def check_rows(tensor: Tensor, name: str, targets: SparseTargets, vocab_start: int) -> None:
    """What a rank can tell by itself; whether the vocabulary fits, only all shards together can."""
    checks.integer("vocab_start", vocab_start, 0, MAX_VOCAB_SIZE)
    check_targets(targets, tensor, name, MAX_VOCAB_SIZE)


def _shard_of(part: LocalPart, targets: SparseTargets, vocab_start: int) -> Shard:
    scaling = part.scaling
    common = digest(
        part.options,
        part.tensor.dtype,
        targets.vocab_size,
        targets.num_entries,
        (scaling.temperature, scaling.loss_scale, scaling.reduction, float(scaling.inverse_count)),
    )
    data = _checksum(targets.offsets) + 3 * _checksum(targets.token_ids)
    data = data + 5 * _checksum(targets.weights.view(torch.int32)) + 7 * _checksum(part.rows.keep)
    return Shard(vocab_start, part.columns, len(part.tensor), None, common, data)


def _checksum(values: Tensor) -> Tensor:
    """0-dimensional int64, where the values are: a transfer of all of them would take longer."""
    places = torch.arange(1, values.numel() + 1, device=values.device)
    return ((values.long() + places) * (places * _ODD)).sum()
