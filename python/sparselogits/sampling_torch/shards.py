"""Draws from rows whose columns are spread over ranks.

Masses are integers, so that sums over shards are those of whole rows. A plain mass is relative to
the maximum of its tile: only tiles that the border of a shard cuts need the maximum, and the sum,
of several ranks. Every rank then makes all points, looks up those that fall into its columns, and
takes the others' tokens from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sparselogits.sampling import SampleOptions
from sparselogits.sampling_torch import proposal, tiles
from sparselogits.sampling_torch.compaction import DrawnRows
from sparselogits.sampling_torch.rows import best_backend, row_chunks

if TYPE_CHECKING:
    from sparselogits.torch.vocab_shards import VocabShards


@dataclass
class _ShardMasses:
    """The masses of a rank's tiles, and where they lie in the whole row; all int64."""

    tiles: tiles.TileMasses  # of whole tiles
    tile_max: torch.Tensor  # (rows, tiles) float32, of whole tiles
    held: torch.Tensor  # (rows, tiles): the tile's own masses that lie in this rank's columns ...
    before: torch.Tensor  # (rows,): ... of the first tile also those on ranks before this one
    below: torch.Tensor  # (rows, 1): mass of all earlier tiles
    total: torch.Tensor  # (rows, 1): mass of the row


def draw_plain(
    logits: torch.Tensor, words: torch.Tensor, options: SampleOptions, shards: VocabShards
) -> DrawnRows:
    """All rows at once; temporary memory is bounded by chunks. A collective.

    Args:
        logits: (rows, columns), this rank's columns.
        words: (rows, 4), from `counter_words`.
        options: What to draw.
        shards: Who holds what.
    """
    grid, backend = shards.grid, best_backend(logits.device)
    chunks = row_chunks(len(logits), backend.row_cost(grid.num_columns, options.rounds))
    parts = [backend.statistics(logits[rows], grid, options.temperature) for rows in chunks]
    tile_max, tile_sum = (torch.cat(part) for part in zip(*parts, strict=True))
    row_max, masses = _share(logits, tile_max, tile_sum, options, shards)
    found = torch.empty((len(logits), options.rounds), dtype=torch.int32, device=logits.device)
    for rows in chunks:
        points = backend.points(words[rows], masses.total[rows], options) - masses.below[rows]
        part = tiles.TileMasses(
            masses.tiles.mass[rows], masses.tiles.mantissa[rows], masses.tiles.shift[rows]
        )
        tile, offset = tiles.locate(points, part)
        offset -= torch.where(tile == 0, masses.before[rows, None], 0)
        here = (points >= 0) & (points < part.mass.sum(1, keepdim=True))
        here &= (offset >= 0) & (offset < masses.held[rows].gather(1, tile))
        columns = backend.tokens(
            logits[rows], grid, options.temperature, masses.tile_max[rows], tile, offset
        )
        found[rows] = torch.where(here, columns + grid.start, -1)
    return DrawnRows(shards.largest(found), torch.isfinite(row_max[:, 0]))


def _share(
    logits: torch.Tensor,
    tile_max: torch.Tensor,
    tile_sum: torch.Tensor,
    options: SampleOptions,
    shards: VocabShards,
) -> tuple[torch.Tensor, _ShardMasses]:
    """From what this rank's columns say to what whole rows say. Two collectives.

    Returns:
        (rows, 1) maxima of whole rows, and the masses of this rank.
    """
    grid, cut_tiles = shards.grid, shards.cut_tiles
    edges = shards.gather(torch.stack([tile_max[:, 0], tile_max[:, -1], tile_max.amax(1)], 1))
    row_max = torch.stack([edge[:, 2:] for edge in edges]).amax(0)
    cut_max = [
        torch.stack([edges[shard][:, edge] for shard, edge in cut.holders]).amax(0)
        for cut in cut_tiles
    ]
    mine = [
        (index, cut.tile - grid.first_tile)
        for index, cut in enumerate(cut_tiles)
        if cut.tile in grid.tiles
    ]
    for index, tile in mine:
        tile_max[:, tile] = cut_max[index]
        tile_sum[:, tile] = _sum_of_part(logits, grid, tile, cut_max[index], options)

    uncut = tiles.weigh(tile_max, tile_sum, row_max, grid.base_shift).mass
    for _, tile in mine:
        uncut[:, tile] = 0
    edges = shards.gather(torch.stack([tile_sum[:, 0], tile_sum[:, -1], uncut.sum(1)], 1))
    below = sum((edge[:, 2:] for edge in edges[: shards.mine]), torch.zeros_like(uncut[:, :1]))
    total = sum((edge[:, 2:] for edge in edges), torch.zeros_like(below))
    before = torch.zeros_like(below[:, 0])
    whole_sum = tile_sum.clone()
    for index, cut in enumerate(cut_tiles):
        sums = [edges[shard][:, edge] for shard, edge in cut.holders]
        cut_sum = torch.stack(sums).sum(0)
        mass = tiles.weigh(cut_max[index][:, None], cut_sum[:, None], row_max, grid.base_shift).mass
        total = total + mass
        if cut.tile < grid.first_tile:
            below = below + mass
        if cut.tile in grid.tiles:
            whole_sum[:, cut.tile - grid.first_tile] = cut_sum
        if cut.tile == grid.first_tile:
            earlier = [shard < shards.mine for shard, _ in cut.holders]
            before = before + torch.stack(sums)[: sum(earlier)].sum(0)
    masses = tiles.weigh(tile_max, whole_sum, row_max, grid.base_shift)
    return row_max, _ShardMasses(masses, tile_max, tile_sum, before, below, total)


def _sum_of_part(
    logits: torch.Tensor,
    grid: tiles.TileGrid,
    tile: int,
    tile_max: torch.Tensor,
    options: SampleOptions,
) -> torch.Tensor:
    """(rows,): the masses of this rank's part of a tile, relative to the whole tile's maximum."""
    start = max(0, tile * tiles.TILE - grid.lead)
    stop = min((tile + 1) * tiles.TILE - grid.lead, grid.num_columns)
    part = tiles.TileGrid(grid.vocab_size, grid.start + start, stop - start)
    sums = tiles.sums(logits[:, start:stop], part, options.temperature, tile_max[:, None])
    return sums[:, 0]


def draw_with_proposal(
    logits: torch.Tensor, words: torch.Tensor, options: SampleOptions, shards: VocabShards
) -> DrawnRows:
    """As `draw_plain`, by a proposal."""
    grid = shards.grid
    chunks = row_chunks(len(logits), max(grid.num_columns, options.rounds))
    bits = proposal.mass_bits(grid.vocab_size)
    maxima = [
        torch.stack([scaled.amax(1) for scaled in proposal.scaled_logits(logits[rows], options)], 1)
        for rows in chunks
    ]
    largest = torch.stack(shards.gather(torch.cat(maxima))).amax(0)

    def masses_of(rows: slice) -> proposal.ProposalMasses:
        scaled = proposal.scaled_logits(logits[rows], options)
        return proposal.masses(*scaled, largest[rows, :1], largest[rows, 1:], bits)

    sums = [
        torch.cat([part.target_sum, part.proposal.sum(1, keepdim=True)], 1)
        for part in map(masses_of, chunks)
    ]
    everyones = torch.stack(shards.gather(torch.cat(sums)))
    totals = everyones.sum(0)
    below = everyones[: shards.mine].sum(0)
    shape = (len(logits), options.rounds)
    found = torch.empty(shape, dtype=torch.int32, device=logits.device)
    ratios = torch.empty(shape, dtype=torch.float64, device=logits.device)
    for rows in chunks:
        masses = masses_of(rows)
        total = totals[rows, 1:]
        points = tiles.points(words[rows], total, options) - below[rows, 1:]
        ends = masses.proposal.cumsum(1)
        here = (points >= 0) & (points < ends[:, -1:])
        columns = torch.searchsorted(ends, points, right=True).clamp_(max=grid.num_columns - 1)
        of_columns = proposal.ratios(masses, columns, totals[rows, :1], total, bits, options)
        found[rows] = torch.where(here, columns + grid.start, -1).to(torch.int32)
        ratios[rows] = torch.where(here, of_columns, 0.0)
    fine = torch.isfinite(largest).all(1)
    return DrawnRows(shards.largest(found), fine, shards.total(ratios))
