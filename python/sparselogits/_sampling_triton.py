"""Plain draws on a GPU: the functions of _sampling_tiles.py as Triton kernels.

The logits are read once by `statistics`; `tokens` reads the tiles that were hit again. Every float
operation is the one of _sampling_tiles.py, so the draws are the same bit for bit. What keeps it so:
`enable_fp_fusion=False` at each launch (no multiply-add is contracted, in LLVM or in ptxas), and
`tl.div_rn` (a division that is rounded to nearest, as IEEE 754 has it).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl

from sparselogits import _sampling_tiles as tiles
from sparselogits._sampling_points import num_uniforms, spread
from sparselogits._sampling_tiles import TileGrid
from sparselogits.sampling import SampleOptions

__all__ = ["points", "row_cost", "statistics", "tokens"]  # what TileBackend asks for

_TILES_PER_PROGRAM = 4
_POINTS_PER_STEP = 8
_BLOCKS_PER_PROGRAM = 128

_TILE = tl.constexpr(tiles.TILE)
_FLOOR = tl.constexpr(tiles.FLOOR)
_ROUNDER = tl.constexpr(tiles.ROUNDER)
_LOG2E = tl.constexpr(tiles.LOG2E)
_LN2_HIGH = tl.constexpr(tiles.LN2_HIGH)
_LN2_LOW = tl.constexpr(tiles.LN2_LOW)
_SCALE = tl.constexpr(tiles.SCALE)
_P5, _P4, _P3, _P2, _P1, _P0 = (tl.constexpr(p) for p in tiles.POLYNOMIAL)


def row_cost(vocab_size: int, rounds: int) -> int:
    """How many temporary values a row takes, give or take a constant factor."""
    return max(-(-vocab_size // tiles.TILE), rounds)


def statistics(
    logits: torch.Tensor, grid: TileGrid, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See _sampling_tiles.py."""
    shape = (len(logits), grid.num_tiles)
    tile_max = torch.empty(shape, dtype=torch.float32, device=logits.device)
    tile_sum = torch.empty(shape, dtype=torch.int64, device=logits.device)
    programs = len(logits) * triton.cdiv(grid.num_tiles, _TILES_PER_PROGRAM)
    with _device_of(logits):
        statistics_kernel[(programs,)](
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
    """See _sampling_points.py."""
    draws = num_uniforms(options)
    scaled = torch.empty((len(words), draws), dtype=torch.int64, device=words.device)
    programs = triton.cdiv(len(words) * triton.cdiv(draws, 2), _BLOCKS_PER_PROGRAM)
    with _device_of(words):
        scaled_uniforms_kernel[(programs,)](
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
    """See _sampling_tiles.py; (rows, rounds) int32. `tile` must ascend in each row."""
    found = torch.empty(tile.shape, dtype=torch.int32, device=logits.device)
    with _device_of(logits):
        tokens_kernel[(tile.numel(),)](
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


def _device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    # Triton launches on the current device, which need not be the tensor's.
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@triton.jit
def token_masses(scaled, tile_max):
    d = scaled - tile_max
    d = tl.where(d > _FLOOR, d, _FLOOR)
    rounded = d * _LOG2E + _ROUNDER
    k = rounded - _ROUNDER
    r = (d - k * _LN2_HIGH) - k * _LN2_LOW
    q = r * _P5 + _P4
    q = q * r + _P3
    q = q * r + _P2
    q = q * r + _P1
    q = q * r + _P0
    power = (q * r + _SCALE).to(tl.int32, bitcast=True)
    # The exponent goes up by k; the bits of _ROUNDER above its lowest 9 are shifted out.
    power += rounded.to(tl.int32, bitcast=True) << 23
    return (power.to(tl.float32, bitcast=True) + 0.5).to(tl.int32)


@triton.jit
def statistics_kernel(
    logits,
    row_stride,
    column_stride,
    num_columns,
    lead,
    num_tiles,
    temperature,
    tile_max,
    tile_sum,
    SCALED: tl.constexpr,
    TILES: tl.constexpr,
):
    """A program has TILES tiles of one row."""
    programs_per_row = tl.cdiv(num_tiles, TILES)
    row = (tl.program_id(0) // programs_per_row).to(tl.int64)
    tile = tl.program_id(0) % programs_per_row * TILES + tl.arange(0, TILES)
    columns = tile[:, None] * _TILE - lead + tl.arange(0, _TILE)[None, :]
    inside = (columns >= 0) & (columns < num_columns)
    addresses = logits + row * row_stride + columns.to(tl.int64) * column_stride
    x = tl.load(addresses, mask=inside, other=-float("inf")).to(tl.float32)
    scaled = tl.div_rn(x, temperature) if SCALED else x
    largest = tl.max(scaled, axis=1)
    mass = tl.sum(token_masses(scaled, largest[:, None]).to(tl.int64), axis=1)
    # A maximum does not have to pass a NaN on.
    bad = tl.max((x < float("inf")).to(tl.int32) ^ 1, axis=1)
    largest = tl.where(bad != 0, float("nan"), largest)
    place = row * num_tiles + tile
    tl.store(tile_max + place, largest, mask=tile < num_tiles)
    tl.store(tile_sum + place, mass, mask=tile < num_tiles)


@triton.jit(do_not_specialize=["seed", "offset"])
def scaled_uniforms_kernel(
    words, totals, seed, offset, num_rows, num_draws, scaled, BLOCKS: tl.constexpr
):
    """A program has BLOCKS Philox blocks, of two uniforms each; a row has ceil(num_draws / 2)."""
    blocks_per_row = tl.cdiv(num_draws, 2)
    index = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    row = index // blocks_per_row
    block = index % blocks_per_row
    there = row < num_rows
    c0 = tl.load(words + row * 4, mask=there, other=0).to(tl.uint32)
    c1 = tl.load(words + row * 4 + 1, mask=there, other=0).to(tl.uint32)
    c2 = tl.load(words + row * 4 + 2, mask=there, other=0).to(tl.uint32)
    c3 = tl.load(words + row * 4 + 3, mask=there, other=0).to(tl.uint32)
    total = tl.load(totals + row, mask=there, other=0).to(tl.uint64)
    w0, w1, w2, w3 = tl.philox(seed, c0, c1 | block.to(tl.uint32), c2, c3)
    place = scaled + row * num_draws + block * 2
    tl.store(place, scale_uniform(w0, w1, offset, total), mask=there)
    second = there & (block * 2 + 1 < num_draws)
    tl.store(place + 1, scale_uniform(w2, w3, offset, total), mask=second)


@triton.jit
def scale_uniform(low, high, offset, total):
    """floor(uniform * total / 2^62): the upper 66 of 128 bits."""
    uniform = ((high.to(tl.uint64) << 32) | low.to(tl.uint64)) >> 2
    uniform = (uniform + offset) & 0x3FFFFFFFFFFFFFFF
    return ((tl.umulhi(uniform, total) << 2) | ((uniform * total) >> 62)).to(tl.int64)


@triton.jit
def tokens_kernel(
    logits,
    row_stride,
    column_stride,
    num_columns,
    lead,
    num_tiles,
    temperature,
    tile_max,
    tiles_hit,
    run_ends,
    offsets,
    rounds,
    found,
    SCALED: tl.constexpr,
    POINTS: tl.constexpr,
):
    """A program has a point, and those after it in the same tile; the first one's does the work."""
    point = tl.program_id(0).to(tl.int64)
    row = point // rounds
    place = point % rounds
    tile = tl.load(tiles_hit + point)
    before = tl.load(tiles_hit + point - 1, mask=place > 0, other=-1)
    if tile != before:
        columns = tile * _TILE - lead + tl.arange(0, _TILE)
        inside = (columns >= 0) & (columns < num_columns)
        addresses = logits + row * row_stride + columns * column_stride
        x = tl.load(addresses, mask=inside, other=-float("inf")).to(tl.float32)
        scaled = tl.div_rn(x, temperature) if SCALED else x
        masses = token_masses(scaled, tl.load(tile_max + row * num_tiles + tile))
        ends = tl.cumsum(masses.to(tl.int64), axis=0)
        run_end = tl.load(run_ends + point)
        for start in range(place, run_end, POINTS):
            points = start + tl.arange(0, POINTS)
            mine = points < run_end
            offset = tl.load(offsets + row * rounds + points, mask=mine, other=0)
            passed = tl.sum((ends[None, :] <= offset[:, None]).to(tl.int32), axis=1)
            token = tile * _TILE - lead + passed
            token = tl.minimum(tl.maximum(token, 0), num_columns - 1)
            tl.store(found + row * rounds + points, token.to(tl.int32), mask=mine)
