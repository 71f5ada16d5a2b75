"""What the vocab-parallel losses check, together with the other ranks, before they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sparselogits import checks
from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.limits import MAX_VOCAB_SIZE
from sparselogits.torch.arguments import check_targets
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.reduction import Scaling
from sparselogits.torch.row_shard import ShardedColumns
from sparselogits.torch.rows import Rows
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.vocab_shards import Shard, agree, digest

_ODD = 0x1E3779B97F4A7C15  # spreads a position over the bits of an int64
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


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
    prepare: Callable[[int], LocalPart],
    targets: SparseTargets,
    vocab_start: int,
    device: torch.device,
    group: dist.ProcessGroup | None,
    check_shards: bool,
) -> tuple[LocalPart, ShardedColumns, int]:
    """Prepares this rank's part, and refuses the call on every rank where one has to.

    Args:
        prepare: Checks the arguments of this rank, for so many columns: how many there are, only
            all shards together can say.
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
        checks.integer("vocab_start", vocab_start, 0, MAX_VOCAB_SIZE)
        part = prepare(MAX_VOCAB_SIZE)
        return part, ShardedColumns(vocab_start, group), 0
    shard: Shard | InvalidArgumentError
    try:
        checks.integer("vocab_start", vocab_start, 0, MAX_VOCAB_SIZE)
        part = prepare(MAX_VOCAB_SIZE)
        shard = _shard_of(part, targets, vocab_start)
    except InvalidArgumentError as error:
        shard = error
    shards = agree(shard, device, group, "the options", "targets, mask, labels or weights")
    vocab_size = shards.grid.vocab_size
    check_targets(targets, part.tensor, part.name, vocab_size)
    ids = part.rows.token_id
    if is_host(device) and ids.numel() and int(ids.max()) >= vocab_size:
        raise VocabularyMismatchError(
            f"targets or labels hold token id {int(ids.max())} and the student's head has "
            f"{vocab_size} ids"
        )
    return part, ShardedColumns(vocab_start, group), vocab_size


def _shard_of(part: LocalPart, targets: SparseTargets, vocab_start: int) -> Shard:
    scaling = part.scaling
    common = digest(
        part.options,
        part.tensor.dtype,
        targets.vocab_size,
        part.rows.row.numel(),
        (scaling.softcap, scaling.temperature, scaling.loss_scale, scaling.reduction),
        float(scaling.inverse_count),
    )
    rows = part.rows
    data = _checksum(rows.row) + 3 * _checksum(rows.token_id) + 5 * _checksum(rows.keep)
    data = data + 7 * _checksum(rows.weight.view(_BITS[rows.weight.dtype]))
    return Shard(vocab_start, part.columns, len(part.tensor), None, common, data)


def _checksum(values: Tensor) -> Tensor:
    """0-dimensional int64, where the values are: a transfer of all of them would take longer."""
    places = torch.arange(1, values.numel() + 1, device=values.device)
    return ((values.long() + places) * (places * _ODD)).sum()
