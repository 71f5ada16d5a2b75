"""Which columns of the vocabulary each rank of a process group holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
import torch.distributed as dist

from sparselogits.errors import InvalidArgumentError
from sparselogits.sampling_torch.tiles import TileGrid


@dataclass(frozen=True)
class CutTile:
    """A tile of which several shards hold parts.

    Attributes:
        tile: Its number in the whole vocabulary.
        holders: Its shards in vocabulary order; each with 0 or 1, the tile being its first or last.
    """

    tile: int
    holders: list[tuple[int, int]]


class VocabShards:
    """The shards of one call, in vocabulary order, as every rank knows them."""

    def __init__(
        self, grids: list[TileGrid], ranks: list[int], mine: int, group: dist.ProcessGroup | None
    ) -> None:
        self.grids = grids
        self.mine = mine
        self._ranks = ranks  # of the group, one for each grid
        self._group = group
        holders: dict[int, list[tuple[int, int]]] = {}
        for shard, grid in enumerate(grids):
            for edge, tile in enumerate(dict.fromkeys((grid.tiles[0], grid.tiles[-1]))):
                holders.setdefault(tile, []).append((shard, edge))
        self.cut_tiles = [
            CutTile(tile, shards) for tile, shards in sorted(holders.items()) if len(shards) > 1
        ]

    @property
    def grid(self) -> TileGrid:
        """What this rank holds."""
        return self.grids[self.mine]

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The values of every shard, in vocabulary order. A collective."""
        by_rank = _all_gather(values, self._group)
        return [by_rank[rank] for rank in self._ranks]

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """The largest of every shard's values, one by one, in place. A collective."""
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group)
        return values

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of every shard's values, one by one, in place. A collective."""
        dist.all_reduce(values, dist.ReduceOp.SUM, group=self._group)
        return values


@dataclass(frozen=True)
class Shard:
    """What one rank brings to a call over shards of the vocabulary.

    Attributes:
        start: Token id of its first column.
        columns: How many it has.
        rows: Rows of logits.
        vocab_size: Of the whole vocabulary; None: as far as the shards reach.
        options: A digest of the options that have to be the same on all ranks; below 2^63.
        data: Likewise of tensors that have to be; 0-dimensional int64, on any device, or 0.
    """

    start: int
    columns: int
    rows: int
    vocab_size: int | None
    options: int
    data: torch.Tensor | int = 0


def agree(
    shard: Shard | InvalidArgumentError,
    device: torch.device,
    group: dist.ProcessGroup | None,
    options: str,
    data: str = "",
) -> VocabShards:
    """Makes sure that all ranks mean the same call before any of them computes. A collective.

    Args:
        shard: This rank's, or what is wrong with its arguments.
        device: One that the group communicates from.
        group: The process group; None: the default one.
        options: What `Shard.options` stands for, for the error message.
        data: What `Shard.data` stands for.

    Raises:
        InvalidArgumentError: On every rank: arguments of one rank are wrong or differ, or the
            shards do not make up the vocabulary.
    """
    facts = [1, 0, 0, 0, 0, 0, 0]
    if not isinstance(shard, InvalidArgumentError):
        vocab_size = 0 if shard.vocab_size is None else shard.vocab_size
        facts = [0, shard.start, shard.columns, vocab_size, shard.rows, 0, shard.options]
    header = torch.tensor(facts, dtype=torch.int64, device=device)
    if not isinstance(shard, InvalidArgumentError):
        header[5] = shard.data
    headers = torch.stack(_all_gather(header, group)).tolist()
    if isinstance(shard, InvalidArgumentError):
        raise shard
    for rank, other in enumerate(headers):
        if other[0]:
            raise InvalidArgumentError(f"rank {rank} of the group refused its arguments")
    names = ("vocab_size", "the number of rows", data, options)
    for place, name in enumerate(names, start=3):
        for rank, other in enumerate(headers):
            if other[place] != headers[0][place]:
                values = f": {headers[0][place]} and {other[place]}" if place < 5 else ""
                raise InvalidArgumentError(f"{name} of ranks 0 and {rank} differ{values}")
    ranks = sorted(range(len(headers)), key=lambda rank: headers[rank][1])
    end = 0
    for rank in ranks:
        start, columns = headers[rank][1:3]
        if start != end:
            raise InvalidArgumentError(
                f"the shard of rank {rank} starts at token {start}: the one before it ends at {end}"
            )
        end = start + columns
    if shard.vocab_size not in (None, end):
        raise InvalidArgumentError(
            f"the shards end at token {end}: vocab_size is {shard.vocab_size}"
        )
    grids = [TileGrid(end, *headers[rank][1:3]) for rank in ranks]
    return VocabShards(grids, ranks, ranks.index(dist.get_rank(group)), group)


def digest(*parts: object) -> int:
    """Equal for parts with equal bytes or an equal repr; 62 bits."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part if isinstance(part, bytes) else repr(part).encode())
    return int.from_bytes(state.digest(), "little") >> 2


def _all_gather(values: torch.Tensor, group: dist.ProcessGroup | None) -> list[torch.Tensor]:
    values = values.contiguous()
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, values, group=group)
    return gathered
