"""Plain draws on a GPU: the functions of tiles.py by the kernels of Triton.

Every launch says `enable_fp_fusion=False`: a multiply-add that is contracted, by LLVM or by ptxas,
would change draws.
"""

from __future__ import annotations

import torch
import triton

from sparselogits.sampling import SampleOptions
from sparselogits.sampling_torch import triton_kernels as kernels
from sparselogits.sampling_torch.points import num_uniforms, spread
from sparselogits.sampling_torch.tiles import TILE, TileGrid
from sparselogits.triton_support import device_of

__all__ = ["points", "row_cost", "statistics", "tokens"]  # what TileBackend asks for

_TILES_PER_PROGRAM = 8
_POINTS_PER_STEP = 8
_BLOCKS_PER_PROGRAM = 128


def row_cost(vocab_size: int, rounds: int) -> int:
    """How many temporary values a row takes, give or take a constant factor."""
    return max(-(-vocab_size // TILE), rounds)


def statistics(
    logits: torch.Tensor, grid: TileGrid, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See tiles.py."""
    shape = (len(logits), grid.num_tiles)
    tile_max = torch.empty(shape, dtype=torch.float32, device=logits.device)
    tile_sum = torch.empty(shape, dtype=torch.int64, device=logits.device)
    programs = len(logits) * triton.cdiv(grid.num_tiles, _TILES_PER_PROGRAM)
    with device_of(logits):
        kernels.statistics[(programs,)](
            logits,
            *logits.stride(),
            grid.num_columns,
            grid.lead,
            grid.num_tiles,
            temperature,
            tile_max,
            tile_sum,
            SCALED=temperature != 1.0,
            TILES=_TILES_PER_PROGRAM,
            enable_fp_fusion=False,
        )
    return tile_max, tile_sum


def points(words: torch.Tensor, totals: torch.Tensor, options: SampleOptions) -> torch.Tensor:
    """See points.py."""
    draws = num_uniforms(options)
    scaled = torch.empty((len(words), draws), dtype=torch.int64, device=words.device)
    programs = triton.cdiv(len(words) * triton.cdiv(draws, 2), _BLOCKS_PER_PROGRAM)
    with device_of(words):
        kernels.scaled_uniforms[(programs,)](
            words.contiguous(),
            totals.contiguous(),
            options.seed,
            options.offset,
            len(words),
            draws,
            scaled,
            BLOCKS=_BLOCKS_PER_PROGRAM,
            enable_fp_fusion=False,
        )
    return spread(scaled, totals, options)


def tokens(
    logits: torch.Tensor,
    grid: TileGrid,
    temperature: float,
    tile_max: torch.Tensor,
    tile: torch.Tensor,
    offset: torch.Tensor,
) -> torch.Tensor:
    """See tiles.py; (rows, rounds) int32. `tile` must ascend in each row."""
    found = torch.empty(tile.shape, dtype=torch.int32, device=logits.device)
    with device_of(logits):
        kernels.tokens[(tile.numel(),)](
            logits,
            *logits.stride(),
            grid.num_columns,
            grid.lead,
            grid.num_tiles,
            temperature,
            tile_max.contiguous(),
            tile,
            torch.searchsorted(tile, tile, right=True),
            offset.contiguous(),
            tile.shape[1],
            found,
            SCALED=temperature != 1.0,
            POINTS=_POINTS_PER_STEP,
            enable_fp_fusion=False,
        )
    return found
