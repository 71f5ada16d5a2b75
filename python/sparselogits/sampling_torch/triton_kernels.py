"""The arithmetic of tiles.py and points.py as Triton kernels.

The logits are read once by `statistics`; `tokens` reads the tiles that were hit again. Every float
operation is the one of tiles.py, rounded on its own, so that draws are the same bit for
bit: `tl.div_rn` is the division that IEEE 754 has, and launches must forbid fused multiply-adds
(triton_tiles.py).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl

from sparselogits.sampling_torch import tiles

_TILE = tl.constexpr(tiles.TILE)
_FLOOR = tl.constexpr(tiles.FLOOR)
_ROUNDER = tl.constexpr(tiles.ROUNDER)
_LOG2E = tl.constexpr(tiles.LOG2E)
_LN2_HIGH = tl.constexpr(tiles.LN2_HIGH)
_LN2_LOW = tl.constexpr(tiles.LN2_LOW)
_SCALE = tl.constexpr(tiles.SCALE)
_P5, _P4, _P3, _P2, _P1, _P0 = (tl.constexpr(p) for p in tiles.POLYNOMIAL)


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
def statistics(
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
def scaled_uniforms(words, totals, seed, offset, num_rows, num_draws, scaled, BLOCKS: tl.constexpr):
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
def tokens(
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
